package domain

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what sort of "no" a refusal is. It is mapped to HTTP once, in
// adapters/httpapi, and to exit codes once, in cmd/rrm.
type Kind string

// The kinds of refusal.
const (
	KindInvalid     Kind = "invalid"     // the request itself is wrong; sending it again will not help
	KindNotFound    Kind = "not_found"   // what it names does not exist
	KindConflict    Kind = "conflict"    // it contradicts the present state
	KindForbidden   Kind = "forbidden"   // this caller may not, or nobody may now
	KindUnavailable Kind = "unavailable" // not now; RetryAfter says when to ask again
	KindTooMany     Kind = "too_many"    // over a quota or a rate
)

// Refusal is the one shape of "no" in the whole program. A refused command
// changes nothing but, where the architecture says so, the record of the refusal.
type Refusal struct {
	Kind       Kind          `json:"kind"`
	Code       string        `json:"code"`            // a stable word for programs, such as no_capacity
	Reason     string        `json:"reason"`          // a sentence for people
	Field      string        `json:"field,omitempty"` // the field to blame, if one is
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`
	Position   int64         `json:"position,omitempty"` // of the event that recorded the refusal, if any
	Queue      int           `json:"queue,omitempty"`    // how many wait already, where that helps
}

// Error gives the reason and the code.
func (r *Refusal) Error() string { return r.Reason + " (" + r.Code + ")" }

// Invalid refuses a field's value.
func Invalid(field, format string, args ...any) *Refusal {
	return &Refusal{Kind: KindInvalid, Code: "invalid", Field: field, Reason: fmt.Sprintf(format, args...)}
}

// NotFound refuses because something named does not exist.
func NotFound(noun, id string) *Refusal {
	return &Refusal{Kind: KindNotFound, Code: noun + "_not_found", Reason: fmt.Sprintf("there is no %s %q", noun, id)}
}

// Conflict refuses because of the present state.
func Conflict(code, format string, args ...any) *Refusal {
	return &Refusal{Kind: KindConflict, Code: code, Reason: fmt.Sprintf(format, args...)}
}

// Forbidden refuses because of who asks, or because nobody may at present.
func Forbidden(code, format string, args ...any) *Refusal {
	return &Refusal{Kind: KindForbidden, Code: code, Reason: fmt.Sprintf(format, args...)}
}

// Unavailable refuses for now and says when to ask again.
func Unavailable(code string, retry time.Duration, format string, args ...any) *Refusal {
	return &Refusal{Kind: KindUnavailable, Code: code, RetryAfter: retry, Reason: fmt.Sprintf(format, args...)}
}

// AsRefusal finds a refusal in an error's chain.
func AsRefusal(err error) (*Refusal, bool) {
	var r *Refusal
	ok := errors.As(err, &r)
	return r, ok
}
