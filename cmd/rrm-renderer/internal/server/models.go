package server

import (
	"net/http"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
)

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) error {
	all, used, limit := s.Models.List()
	return writeJSON(w, http.StatusOK, map[string]any{"models": all, "memory_mib": used, "memory_limit_mib": limit})
}

func (s *Server) loadModel(w http.ResponseWriter, r *http.Request) error {
	if _, err := readBody(w, r); err != nil {
		return err
	}
	st, err := s.Models.Load(r.PathValue("model"))
	if err != nil {
		return err
	}
	status := http.StatusAccepted
	if st.State == model.Loaded {
		status = http.StatusOK
	}
	return writeJSON(w, status, st)
}

func (s *Server) getModel(w http.ResponseWriter, r *http.Request) error {
	st, err := s.Models.Status(r.PathValue("model"))
	if err != nil {
		f := asFailure(err)
		f.status = http.StatusNotFound
		return f
	}
	return writeJSON(w, http.StatusOK, st)
}

func (s *Server) unloadModel(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("model")
	s.Models.Unload(key)
	return writeJSON(w, http.StatusOK, map[string]any{"model": key})
}

// use finds the model that a request means.
func (s *Server) use(r *http.Request) (model.Use, error) {
	key := r.URL.Query().Get("model")
	if key == "" {
		key = r.Header.Get("X-RRM-Model")
	}
	return s.Models.Get(key)
}
