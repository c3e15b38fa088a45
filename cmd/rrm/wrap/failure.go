package wrap

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const (
	statusUnprocessable = http.StatusUnprocessableEntity
	statusUnavailable   = http.StatusServiceUnavailable
)

// failure is an error as the protocol shows it: of a call, with its status,
// or of a job.
type failure struct {
	status int
	Code   string `json:"code"`
	Reason string `json:"reason"`
	Field  string `json:"field,omitempty"`
}

func (f *failure) Error() string { return f.Reason }

func unsupportedKind(kind string, kinds []string) error {
	return &failure{
		status: statusUnprocessable, Code: codeUnsupported, Field: "kind",
		Reason: fmt.Sprintf("this renderer makes %s, not %q", strings.Join(kinds, " and "), kind),
	}
}

// asFailure is the one place that maps errors to those of calls.
func asFailure(err error) *failure {
	var f *failure
	var field *fieldError
	switch {
	case errors.As(err, &f) && f.status != 0:
		return f
	case errors.As(err, &field):
		return &failure{http.StatusBadRequest, codeInvalid, strings.TrimSpace(field.Error()), field.field}
	}
	return &failure{http.StatusInternalServerError, codeInternal, err.Error(), ""}
}

func (s *server) writeError(w http.ResponseWriter, err error) {
	f := asFailure(err)
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if f.status == http.StatusInternalServerError {
		s.log.Error("request failed", "reason", f.Reason)
	}
	writeJSON(w, f.status, f)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // it cannot be: these are plain types
		status, body = http.StatusInternalServerError, []byte(`{"code":"internal","reason":"the answer cannot be written"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", fmt.Sprint(len(body)+1))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that is gone needs no answer
}
