package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/job"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

// failure is an error as the protocol shows it.
type failure struct {
	status int
	Code   string `json:"code"`
	Reason string `json:"reason"`
	Field  string `json:"field,omitempty"`
}

func (f *failure) Error() string { return f.Reason }

var modelStatus = map[string]int{
	model.CodeNotFound:  http.StatusNotFound,
	model.CodeInvalid:   http.StatusUnprocessableEntity,
	model.CodeTooLarge:  http.StatusInsufficientStorage,
	model.CodeNotLoaded: http.StatusConflict,
	model.CodeBusy:      http.StatusServiceUnavailable,
}

// asFailure is the one place that maps errors to the protocol's.
func asFailure(err error) *failure {
	var f *failure
	var field *picture.FieldError
	var known *model.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &field):
		return &failure{http.StatusBadRequest, "invalid", field.Error(), field.Field}
	case errors.As(err, &known):
		return &failure{modelStatus[known.Code], known.Code, known.Reason, ""}
	case errors.Is(err, picture.ErrBusy), errors.Is(err, job.ErrBusy):
		return &failure{http.StatusServiceUnavailable, "busy", err.Error(), ""}
	}
	return &failure{http.StatusInternalServerError, "internal", err.Error(), ""}
}

func writeError(w http.ResponseWriter, err error) {
	f := asFailure(err)
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if f.status >= 500 && f.status != http.StatusServiceUnavailable && f.status != http.StatusInsufficientStorage {
		slog.Error("request failed", "code", f.Code, "reason", f.Reason)
	}
	_ = writeJSON(w, f.status, f) // a client that is gone needs no answer
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return writeBytes(w, status, "application/json", append(body, '\n'))
}

// writeBytes sends a whole answer; a client that does not take it in time
// loses its connection.
func writeBytes(w http.ResponseWriter, status int, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", fmt.Sprint(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(answerTimeout))
	w.WriteHeader(status)
	_, _ = w.Write(body) // likewise
	// The connection may serve a stream next.
	_ = control.SetWriteDeadline(time.Time{})
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
		return nil, &failure{http.StatusBadRequest, "invalid", "the body could not be read", ""}
	}
	_ = control.SetReadDeadline(time.Time{})
	return data, nil
}

// json is the failure as a message.
func (f *failure) json() []byte {
	body, err := json.Marshal(f)
	if err != nil {
		return []byte(`{"code":"internal"}`)
	}
	return body
}
