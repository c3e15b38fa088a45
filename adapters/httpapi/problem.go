package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

const problemType = "application/problem+json"

// Codes of refusals that this package makes itself.
const (
	codeInvalid          = "invalid"
	codeUnknownField     = "unknown_field"
	codeUnknownParameter = "unknown_parameter"
	codeMalformed        = "malformed_json"
	codeIdempotencyKey   = "invalid_idempotency_key"
	codeUnauthenticated  = "unauthenticated"
	codeForbidden        = "forbidden"
	codeOwner            = "owner_not_yours"
	codeHost             = "host_not_allowed"
	codeOrigin           = "origin_not_allowed"
	codeNotFound         = "not_found"
	codeMethod           = "method_not_allowed"
	codeNotReady         = "session_not_ready"
	codeEnded            = "session_ended"
	codeResourceEnded    = "resource_ended"
	codeNotStatic        = "not_static"
	codeNoResult         = "result_not_ready"
	codeTooLarge         = "body_too_large"
	codeMediaType        = "unsupported_media_type"
	codeStreams          = "too_many_streams"
	codeStore            = "store_unavailable"
	codeInternal         = "internal"
)

// titles say what a code means in general; the documentation page lists them.
var titles = map[string]string{
	codeInvalid:              "The request is not valid",
	codeUnknownField:         "Unknown field",
	codeUnknownParameter:     "Unknown query parameter",
	codeMalformed:            "The body is not JSON",
	codeIdempotencyKey:       "The idempotency key is broken",
	codeUnauthenticated:      "A valid token is needed",
	codeForbidden:            "The caller's role does not allow it",
	codeOwner:                "The owner is not yours",
	codeHost:                 "The host name is not allowed",
	codeOrigin:               "The origin is not allowed",
	codeNotFound:             "There is nothing here",
	codeMethod:               "The method is not allowed here",
	codeNotReady:             "The session is not ready yet",
	codeEnded:                "The session has ended",
	codeResourceEnded:        "The resource has ended",
	codeNotStatic:            "Its resources do not register themselves",
	codeNoResult:             "There is no result yet",
	codeTooLarge:             "The body is too large",
	codeMediaType:            "The media type is not supported",
	codeStreams:              "Too many streams are open",
	codeStore:                "The database cannot be reached",
	codeInternal:             "Something went wrong inside",
	"no_capacity":            "No capacity",
	"renderer_failing":       "The renderer fails to start",
	"admission_suspended":    "New sessions are suspended",
	"model_too_large":        "The model does not fit",
	"address_not_allowed":    "The address may not be registered",
	"address_in_use":         "A resource is registered at this address",
	"name_unresolved":        "A name cannot be looked up",
	"idempotency_key_reused": "The idempotency key was used with another request",
	"renderer_in_use":        "The renderer is in use",
	"renderer_not_found":     "No such renderer",
	"resource_not_found":     "No such resource",
	"session_not_found":      "No such session",
	"job_not_found":          "No such job",
	"decision_not_found":     "No such decision",
	"job_ended":              "The job has ended",
	"quota_exceeded":         "Over a quota",
	"busy":                   "Too much is waiting already",
	"shutting_down":          "The service is stopping",
	"timeline_behind":        "The index of events is behind",
	"renderer_unreachable":   "The renderer cannot be reached",
	"renderer_timeout":       "The renderer does not answer",
	"managed_by_rrm":         "That is for the service itself",
	"bad_path":               "The path is not passed on",
}

// problem is an answer that says no; it is an error so that handlers can return it.
type problem struct {
	Problem
	header http.Header
	cause  error // for the service's log only
}

func (p *problem) Error() string { return fmt.Sprintf("%d %s: %s", p.Status, p.Code, p.Detail) }
func (p *problem) Unwrap() error { return p.cause }

func fail(status int, code, field, format string, args ...any) *problem {
	p := &problem{}
	p.Status, p.Code, p.Field, p.Detail = status, code, field, fmt.Sprintf(format, args...)
	p.Title = titles[code]
	if p.Title == "" {
		p.Title = http.StatusText(status)
	}
	p.Type = "/docs#" + code
	return p
}

// retry says when asking again makes sense.
func (p *problem) retry(after time.Duration) *problem {
	p.RetryAfterSeconds = max(after.Seconds(), 0.1)
	return p
}

func (p *problem) with(name, value string) *problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

const retryUnavailable = 2 * time.Second

// statusOf is the one place where a kind of refusal becomes an HTTP status.
// What is invalid is 422 where there was a body that the document allows, and
// 400 where only parameters can be to blame.
func statusOf(kind domain.Kind, method string) int {
	switch kind {
	case domain.KindInvalid:
		if method == http.MethodPost || method == http.MethodPut {
			return http.StatusUnprocessableEntity
		}
		return http.StatusBadRequest
	case domain.KindNotFound:
		return http.StatusNotFound
	case domain.KindConflict:
		return http.StatusConflict
	case domain.KindForbidden:
		return http.StatusForbidden
	case domain.KindUnavailable:
		return http.StatusServiceUnavailable
	case domain.KindTooMany:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

func ofRefusal(r *domain.Refusal, method string) *problem {
	p := fail(statusOf(r.Kind, method), r.Code, r.Field, "%s", r.Reason)
	if r.RetryAfter > 0 {
		p.retry(r.RetryAfter)
	}
	if r.Queue > 0 {
		p.Queue = QueueLength{Waiting: r.Queue}
	}
	p.Decision = decisionRef(r.Position)
	return p
}

// problemOf makes a problem of whatever a handler returned.
func problemOf(err error, method string) *problem {
	var p *problem
	var h *echo.HTTPError
	switch r, refused := domain.AsRefusal(err); {
	case errors.As(err, &p):
		return p
	case refused:
		return ofRefusal(r, method)
	case errors.As(err, &h):
		return ofEcho(h)
	case errors.Is(err, context.Canceled) || eventstore.Transient(err):
		p = fail(http.StatusServiceUnavailable, codeStore, "", "the database cannot be reached").retry(retryUnavailable)
	default:
		p = fail(http.StatusInternalServerError, codeInternal, "", "see the service's log")
	}
	p.cause = err
	return p
}

func ofEcho(h *echo.HTTPError) *problem {
	switch h.Code {
	case http.StatusNotFound:
		return fail(h.Code, codeNotFound, "", "there is nothing at this path")
	case http.StatusMethodNotAllowed:
		return fail(h.Code, codeMethod, "", "this path does not have this method")
	case http.StatusRequestEntityTooLarge:
		return fail(h.Code, codeTooLarge, "", "a body has at most 1 MiB")
	case http.StatusBadRequest: // the generated binding; the document was checked before, so this is rare
		return fail(h.Code, codeInvalid, "", "%v", h.Message)
	}
	p := fail(http.StatusInternalServerError, codeInternal, "", "see the service's log")
	p.cause = h
	return p
}

// answerError is echo's HTTPErrorHandler: every error of every route ends here.
func (s *Server) answerError(err error, c echo.Context) {
	p := problemOf(err, c.Request().Method)
	if p.Status >= 500 && p.cause != nil {
		s.log.LogAttrs(c.Request().Context(), slog.LevelError, "request failed", slog.String("request", requestID(c)),
			slog.String("method", c.Request().Method), slog.String("route", c.Path()), slog.Any("error", p.cause))
	}
	if c.Response().Committed {
		return // a stream that broke off: nothing more can be said
	}
	writeProblem(c.Response(), p, requestID(c))
}

// writeProblem writes a copy, because a problem may be shared.
func writeProblem(w http.ResponseWriter, p *problem, request string) {
	out := p.Problem
	out.RequestID = request
	h := w.Header()
	for name, values := range p.header {
		h[name] = values
	}
	if out.Status == http.StatusServiceUnavailable || out.Status == http.StatusTooManyRequests {
		if out.RetryAfterSeconds <= 0 {
			out.RetryAfterSeconds = retryUnavailable.Seconds()
		}
	}
	if out.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(out.RetryAfterSeconds))))
	}
	h.Set("Content-Type", problemType)
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	w.WriteHeader(out.Status)
	// A write that fails has no one left to be told.
	_ = json.NewEncoder(w).Encode(out)
}
