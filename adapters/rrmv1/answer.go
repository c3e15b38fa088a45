package rrmv1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// message is text for people. Some clients show contents, others description.
type message struct {
	Contents    string `json:"contents"`
	Description string `json:"description"`
}

func say(format string, args ...any) message {
	text := harmless(fmt.Sprintf(format, args...))
	return message{text, text}
}

// harmless takes out of a text what could become a tag: one client reads
// the JSON and writes the text into innerHTML.
var harmless = strings.NewReplacer("<", "‹", ">", "›").Replace

// answer writes JSON, HTML-escaped, because one client writes bodies into innerHTML as they are.
func answer(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // who has gone needs no answer
	return nil
}

// fault is an answer that says no.
type fault struct {
	status int
	text   string
	retry  time.Duration
	header http.Header
	body   map[string]any // more fields
	cause  error          // for the service's log only
}

func (f *fault) Error() string { return strconv.Itoa(f.status) + ": " + f.text }
func (f *fault) Unwrap() error { return f.cause }

func fail(status int, format string, args ...any) *fault {
	return &fault{status: status, text: fmt.Sprintf(format, args...)}
}

func (f *fault) with(name, value string) *fault {
	if f.header == nil {
		f.header = http.Header{}
	}
	f.header.Set(name, value)
	return f
}

const retryUnavailable = 2 * time.Second

// statuses are what a kind of refusal becomes where a call does not say otherwise.
var statuses = map[domain.Kind]int{
	domain.KindInvalid: http.StatusBadRequest, domain.KindNotFound: http.StatusNotFound, domain.KindConflict: http.StatusConflict,
	domain.KindForbidden: http.StatusForbidden, domain.KindUnavailable: http.StatusServiceUnavailable, domain.KindTooMany: http.StatusTooManyRequests,
}

// faultOf makes a fault of whatever a handler returned.
func faultOf(err error) *fault {
	var f *fault
	r, refused := domain.AsRefusal(err)
	switch {
	case errors.As(err, &f):
		return f
	case refused && statuses[r.Kind] != 0:
		return &fault{status: statuses[r.Kind], text: r.Reason, retry: r.RetryAfter}
	case errors.Is(err, context.Canceled) || eventstore.Transient(err):
		return &fault{status: http.StatusServiceUnavailable, text: "the database cannot be reached", retry: retryUnavailable, cause: err}
	}
	return &fault{status: http.StatusInternalServerError, text: "something went wrong inside, see the service's log", cause: err}
}

// refuse is where every "no" becomes an answer. It never has a "code": one client
// takes a 0 there, whatever the status, for a session that wants to be opened.
func (s *Server) refuse(c *call, err error) {
	f := faultOf(err)
	if f.cause != nil {
		s.log.LogAttrs(c.r.Context(), slog.LevelError, "request failed", slog.String("method", c.r.Method),
			slog.String("path", c.r.URL.Path), slog.Any("error", f.cause))
	}
	h := c.w.Header()
	for name, values := range f.header {
		h[name] = values
	}
	if f.status == http.StatusServiceUnavailable || f.status == http.StatusTooManyRequests {
		retry := f.retry
		if retry <= 0 {
			retry = retryUnavailable
		}
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(retry.Seconds()))))
	}
	said := say("%s", f.text)
	body := map[string]any{"contents": said.Contents, "description": said.Description}
	for name, v := range f.body {
		body[name] = v
	}
	if err := answer(c.w, f.status, body); err != nil {
		s.log.Error("a refusal could not be written", "error", err)
	}
}
