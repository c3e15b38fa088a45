package wrap

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	maxBody       = 1 << 20 // bytes of a request: a spec of 64 KiB may be six times as long in JSON
	bodyTimeout   = 10 * time.Second
	answerTimeout = 30 * time.Second // for the client to take an answer, or a piece of a result
)

// server speaks the renderer protocol (docs/renderer-protocol.md).
type server struct {
	cfg    *config
	jobs   *manager
	models models
	exit   func()
	log    *slog.Logger
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	routes := map[string]func(http.ResponseWriter, *http.Request) error{
		"PUT /registry":            s.registry,
		"PUT /v1/exit":             s.leave,
		"POST /v1/jobs/{id}":       s.submitJob,
		"GET /v1/jobs/{id}":        s.getJob,
		"DELETE /v1/jobs/{id}":     s.deleteJob,
		"GET /v1/jobs/{id}/result": s.jobResult,
		"/":                        s.noCall,
	}
	if s.cfg.Models {
		routes["GET /v1/models"] = s.listModels
		routes["PUT /v1/models/{model}"] = s.loadModel
		routes["GET /v1/models/{model}"] = s.getModel
		routes["DELETE /v1/models/{model}"] = s.unloadModel
	}
	for pattern, f := range routes {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil && r.Context().Err() == nil {
				s.writeError(w, err)
			}
		})
	}
	return mux
}

func (s *server) noCall(http.ResponseWriter, *http.Request) error {
	return &failure{http.StatusNotFound, "not_found", "there is no such call", ""}
}

func (s *server) registry(w http.ResponseWriter, _ *http.Request) error {
	capabilities := []string{"jobs"}
	if slices.Contains(s.cfg.Kinds, kindVideo) {
		capabilities = append(capabilities, "video")
	}
	if s.cfg.Models {
		capabilities = append(capabilities, "models")
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"name": s.cfg.Name, "version": s.cfg.Version, "capabilities": capabilities, "job_kinds": s.cfg.Kinds,
	})
	return nil
}

func (s *server) leave(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]any{})
	_ = http.NewResponseController(w).Flush() // the answer goes before the end begins
	s.exit()
	return nil
}

// readBody reads a bounded body within a bounded time.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &failure{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("a request has at most %d bytes", maxBody), ""}
	case err != nil:
		return nil, &failure{http.StatusBadRequest, codeInvalid, "the body could not be read", ""}
	}
	_ = control.SetReadDeadline(time.Time{})
	return data, nil
}

func (s *server) submitJob(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	st, ok := s.jobs.status(id)
	if !ok {
		work, err := s.cfg.understand(id, r.Header.Get("X-RRM-Model"), body)
		if err != nil {
			return err
		}
		if st, err = s.jobs.submit(work); err != nil {
			return err
		}
	}
	writeJSON(w, http.StatusAccepted, st)
	return nil
}

var errNoJob = &failure{http.StatusNotFound, codeJobNotFound, "there is no job of this id", ""}

func (s *server) getJob(w http.ResponseWriter, r *http.Request) error {
	st, ok := s.jobs.status(r.PathValue("id"))
	if !ok {
		return errNoJob
	}
	writeJSON(w, http.StatusOK, st)
	return nil
}

func (s *server) jobResult(w http.ResponseWriter, r *http.Request) error {
	st, ok := s.jobs.status(r.PathValue("id"))
	switch {
	case !ok:
		return errNoJob
	case st.State == stateRunning:
		return &failure{http.StatusConflict, "job_running", "the job is still running", ""}
	case st.State != stateSucceeded:
		return &failure{http.StatusConflict, "job_" + st.State, "the job has no result: it " + st.State + ". " + st.Reason, ""}
	}
	f, err := s.jobs.open(st.ID)
	if errors.Is(err, os.ErrNotExist) {
		return errNoJob // deleted since
	}
	if err != nil {
		return fmt.Errorf("open the result: %w", err)
	}
	defer func() { _ = f.Close() }()
	w.Header().Set("Content-Type", st.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(&patient{w, http.NewResponseController(w)}, r, "", time.Time{}, f)
	return nil
}

// patient gives the client time for each piece of a long answer, not for the whole.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

// Write sends one piece.
func (p *patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(answerTimeout))
	defer func() { _ = p.control.SetWriteDeadline(time.Time{}) }()
	return p.ResponseWriter.Write(b)
}

func (s *server) deleteJob(w http.ResponseWriter, r *http.Request) error {
	st, ok := s.jobs.delete(r.PathValue("id"))
	if !ok {
		st = status{ID: r.PathValue("id"), State: stateCancelled}
	}
	writeJSON(w, http.StatusOK, st)
	return nil
}

const maxModels = 10_000 // that are remembered

// models are the files that were asked for. To load one means to see that it
// is there: the program reads it for each job.
type models struct {
	mu     sync.Mutex
	loaded []string
}

type modelStatus struct {
	Model    string  `json:"model"`
	State    string  `json:"state"`
	Progress float64 `json:"progress"`
}

func loadedModel(key string) modelStatus { return modelStatus{key, "loaded", 1} }

func (s *server) loadModel(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("model")
	_, err := findInput(s.cfg.InputDir, key)
	var missing *failure
	if errors.As(err, &missing) {
		return &failure{http.StatusNotFound, missing.Code, missing.Reason, ""}
	}
	if err != nil {
		return err
	}
	s.models.mu.Lock()
	defer s.models.mu.Unlock()
	if !slices.Contains(s.models.loaded, key) {
		s.models.loaded = append(s.models.loaded, key)
		s.models.loaded = s.models.loaded[max(0, len(s.models.loaded)-maxModels):]
	}
	writeJSON(w, http.StatusOK, loadedModel(key))
	return nil
}

func (s *server) getModel(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("model")
	s.models.mu.Lock()
	defer s.models.mu.Unlock()
	if !slices.Contains(s.models.loaded, key) {
		return &failure{http.StatusNotFound, codeModelNotLoaded, "the model was not asked for", ""}
	}
	writeJSON(w, http.StatusOK, loadedModel(key))
	return nil
}

func (s *server) unloadModel(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("model")
	s.models.mu.Lock()
	defer s.models.mu.Unlock()
	s.models.loaded = slices.DeleteFunc(s.models.loaded, func(k string) bool { return k == key })
	writeJSON(w, http.StatusOK, map[string]any{})
	return nil
}

func (s *server) listModels(w http.ResponseWriter, _ *http.Request) error {
	s.models.mu.Lock()
	defer s.models.mu.Unlock()
	all := []modelStatus{}
	for _, key := range s.models.loaded {
		all = append(all, loadedModel(key))
	}
	writeJSON(w, http.StatusOK, map[string]any{"models": all, "memory_mib": 0, "memory_limit_mib": 0})
	return nil
}
