// Package server speaks the renderer protocol (docs/renderer-protocol.md)
// over HTTP.
package server

import (
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/job"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

const (
	maxBody       = 64 << 10 // bytes of a request
	maxStreams    = 64       // open at once
	bodyTimeout   = 10 * time.Second
	answerTimeout = 30 * time.Second // for the client to take an answer, or one frame
)

// Server answers the calls of the protocol.
type Server struct {
	Models  *model.Store
	Jobs    *job.Manager
	Painter *picture.Painter
	Video   *job.Encoder // nil: none
	Version string
	Exit    func() // begins the graceful exit; may be called repeatedly

	// Stopping is closed when the program ends. It ends streams, which would hold up the exit.
	Stopping <-chan struct{}

	ready    atomic.Bool
	streams  atomic.Int64
	cameras  cameras
	exitOnce sync.Once
}

// SetReady lets /registry answer 200.
func (s *Server) SetReady() { s.ready.Store(true) }

// Handler returns the routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, f := range map[string]func(http.ResponseWriter, *http.Request) error{
		"PUT /registry":             s.registry,
		"PUT /v1/exit":              s.exit,
		"GET /v1/models":            s.listModels,
		"PUT /v1/models/{model}":    s.loadModel,
		"GET /v1/models/{model}":    s.getModel,
		"DELETE /v1/models/{model}": s.unloadModel,
		"POST /v1/jobs/{id}":        s.submitJob,
		"GET /v1/jobs/{id}":         s.getJob,
		"GET /v1/jobs/{id}/result":  s.jobResult,
		"POST /v1/jobs/{id}/stop":   s.stopJob,
		"DELETE /v1/jobs/{id}":      s.deleteJob,
		"GET /v1/image":             s.image,
		"GET /v1/image-jpeg":        s.imageJPEG,
		"GET /v1/stream":            s.stream,
		"GET /v1/camera":            s.getCamera,
		"PUT /v1/camera":            s.putCamera,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil && r.Context().Err() == nil {
				writeError(w, err)
			}
		})
	}
	return withErrors(mux)
}

// withErrors gives the router's own refusals (404, 405) the protocol's form,
// and turns a fault in one request into a 500 of that request alone.
func withErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(v)
				}
				slog.Error("a request panicked", "path", r.URL.Path, "panic", v)
				writeError(w, &failure{http.StatusInternalServerError, "internal", "an error in the renderer", ""})
			}
		}()
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &statusOnly{header: w.Header()}
		mux.ServeHTTP(probe, r)
		f := &failure{http.StatusNotFound, "not_found", "there is no such call", ""}
		if probe.status == http.StatusMethodNotAllowed {
			f = &failure{probe.status, "method_not_allowed", "this call does not take " + r.Method, ""}
		}
		writeError(w, f)
	})
}

// statusOnly learns a handler's status and headers and drops its body.
type statusOnly struct {
	header http.Header
	status int
}

func (p *statusOnly) Header() http.Header         { return p.header }
func (p *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (p *statusOnly) WriteHeader(status int)      { p.status = status }

func (s *Server) registry(w http.ResponseWriter, _ *http.Request) error {
	if !s.ready.Load() {
		w.Header().Set("Retry-After", "1")
		return &failure{http.StatusServiceUnavailable, "starting", "the renderer is loading its models", ""}
	}
	capabilities := []string{"models", "jobs", "image", "stream", "camera", "frame_ranges"}
	kinds := []string{job.Image, job.Frames}
	if s.Video != nil {
		capabilities, kinds = append(capabilities, "video"), append(kinds, job.Video)
	}
	return writeJSON(w, http.StatusOK, map[string]any{
		"name": "rrm-renderer", "version": s.Version, "capabilities": capabilities, "job_kinds": kinds,
	})
}

func (s *Server) exit(w http.ResponseWriter, _ *http.Request) error {
	err := writeJSON(w, http.StatusOK, map[string]any{})
	_ = http.NewResponseController(w).Flush() // the answer goes before the end begins
	s.exitOnce.Do(s.Exit)
	return err
}
