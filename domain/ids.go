// Package domain holds the words that every other package uses: identifiers,
// the renderer's settings, the refusal, and what a launcher is told. It knows
// no database, no network, no clock.
package domain

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Identifiers are opaque text with a type of their own, so that the compiler
// keeps a session from being passed as a resource.
type (
	// RendererID names a renderer and so its pool: lower case letters, digits, '-', '_' and '.', at most 64 bytes.
	RendererID string
	// ResourceID names one rendering resource for ever; it is never used again.
	ResourceID string
	// SessionID names a client's interactive use of a resource.
	SessionID string
	// JobID names one piece of asynchronous work.
	JobID string
	// ModelKey is the opaque name of a data set, such as a URI or "circuit:100"; at most 1,024 bytes.
	ModelKey string
	// Owner is who a session or job belongs to; at most 128 bytes.
	Owner string
	// CommandID identifies a command: the same ID gives the same answer.
	CommandID string
	// Actor is who gave a command: "client:alice", "operator:root", "process:launch".
	Actor string
)

// Bounds of the text that clients may choose.
const (
	MaxRendererID = 64
	MaxModelKey   = 1024
	MaxOwner      = 128
)

// Stream names an ordered sequence of events.
type Stream string

// SystemStream holds the settings of the whole service.
const SystemStream Stream = "system"

// PoolStream is the one stream of all that happens to a renderer's pool.
func PoolStream(r RendererID) Stream { return Stream("pool/" + string(r)) }

// ParseRendererID checks and lower-cases a renderer's name.
func ParseRendererID(s string) (RendererID, error) {
	s = strings.ToLower(s)
	if s == "" || len(s) > MaxRendererID {
		return "", Invalid("id", "a renderer's id has 1 to %d characters", MaxRendererID)
	}
	for i, c := range s {
		ok := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && (c == '-' || c == '_' || c == '.')
		if !ok {
			return "", Invalid("id", "a renderer's id has letters, digits, '-', '_' and '.' only, and begins with a letter or digit; %q is not allowed", c)
		}
	}
	return RendererID(s), nil
}

// CheckText refuses text that is too long, is not UTF-8 or holds control
// characters, which would break logs, tables and jsonb (NUL).
func CheckText(field, s string, maxBytes int) error {
	if len(s) > maxBytes {
		return Invalid(field, "%s is longer than %d bytes", field, maxBytes)
	}
	if !utf8.ValidString(s) {
		return Invalid(field, "%s is not valid UTF-8", field)
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return Invalid(field, "%s contains the control character %s", field, fmt.Sprintf("%U", c))
		}
	}
	return nil
}
