package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
	"github.com/rendering-resource-manager/rrm/domain"
)

// Exit codes, as documented in the command's help.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnreachable = 4
)

// usageError is a command line or a setting that cannot be meant.
type usageError struct{ reason string }

func (e *usageError) Error() string { return e.reason }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// unreachable is a service that does not answer at all.
type unreachable struct {
	server string
	cause  error
}

func (e *unreachable) Error() string {
	return fmt.Sprintf("nothing answers at %s (%s)", e.server, plainCause(e.cause))
}
func (e *unreachable) Unwrap() error { return e.cause }

// plainCause says in a few words why a connection failed.
func plainCause(err error) string {
	var errno syscall.Errno
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &dns):
		return "there is no host " + dns.Name
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err.Error()
}

// ended is a session or job that came to another end than the one waited for.
type ended struct {
	what, state, code, reason string
	refused                   bool
}

func (e *ended) Error() string {
	s := e.what + " " + e.state
	if e.reason != "" {
		s += ": " + e.reason
	}
	if e.code != "" {
		s += " (" + e.code + ")"
	}
	return s
}

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// report says on stderr why a command did not do what was asked, and what to
// do next, and gives the exit code.
func (p *program) report(ctx context.Context, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	code := p.exitCode(err)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		_, _ = fmt.Fprintln(p.stderr, "rrm: interrupted")
		return exitFailure
	}
	text := clean(err.Error(), true)
	if code == exitRefused {
		text = "refused: " + text
	}
	_, _ = fmt.Fprintln(p.stderr, "rrm: "+strings.TrimSpace(text))
	for _, hint := range hints(cmd, err, code) {
		_, _ = fmt.Fprintln(p.stderr, "  "+hint)
	}
	return code
}

func (p *program) exitCode(err error) int {
	var wrong *usageError
	var far *unreachable
	var no *client.Error
	var end *ended
	switch {
	case !p.began || errors.As(err, &wrong):
		return exitUsage
	case errors.As(err, &far):
		return exitUnreachable
	case errors.As(err, &no):
		if no.Status < 500 || no.Status == http.StatusServiceUnavailable {
			return exitRefused
		}
	case errors.As(err, &end) && end.refused:
		return exitRefused
	default:
		if _, refused := domain.AsRefusal(err); refused {
			return exitRefused
		}
	}
	return exitFailure
}

// hints say what to do next.
func hints(cmd *cobra.Command, err error, code int) []string {
	var out []string
	var own *hinted
	if errors.As(err, &own) {
		out = append(out, own.hint)
	}
	if code == exitUsage {
		return append(out, fmt.Sprintf("See `%s --help`.", cmd.CommandPath()))
	}
	if code == exitUnreachable {
		return append(out, "Is it running? `rrm serve --demo` starts one; --server or RRM_SERVER names another.")
	}
	var no *client.Error
	if !errors.As(err, &no) {
		return out
	}
	if no.RetryAfter > 0 {
		again := "Try again in " + seconds(no.RetryAfter.Seconds())
		if no.Queue.Waiting > 0 {
			again += fmt.Sprintf(" (%d wait already)", no.Queue.Waiting)
		}
		if no.Code == "no_capacity" && cmd.Name() == "book" {
			again += ", or stay in the queue: add --wait 2m"
		}
		out = append(out, again+".")
	}
	if next := nextStep[no.Code]; next != "" {
		out = append(out, next)
	}
	if no.Decision.Position > 0 {
		out = append(out, fmt.Sprintf("Why: rrm explain %d", no.Decision.Position))
	}
	if code == exitFailure && no.RequestID != "" {
		out = append(out, "The service's log knows more: request "+no.RequestID)
	}
	return out
}

// nextStep is what helps against a refusal, by its code.
var nextStep = map[string]string{
	"unauthenticated":     "Give a token with RRM_TOKEN or --token; `rrm token create` makes one, where the service runs.",
	"forbidden":           "An operator's token may do it.",
	"owner_not_yours":     "Leave --owner away, or use an operator's token.",
	"admission_suspended": "An operator opens it with `rrm admission open`.",
	"renderer_not_found":  "`rrm renderers` lists what there is.",
	"session_not_found":   "`rrm sessions` lists them.",
	"job_not_found":       "`rrm jobs` lists them.",
	"resource_not_found":  "`rrm resources --ended` lists them.",
	"session_ended":       "`rrm book` begins a new one.",
	"renderer_in_use":     "Stop its resources first: `rrm resources`, `rrm stop`.",
	"renderer_failing":    "`rrm resources --ended` shows its last words.",
	"http_error":          "Is --server the address of an rrm?",
}

// noSuchFile makes the message of a file that cannot be opened plain.
func noSuchFile(path string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return usage("there is no file %s", path)
	}
	var at *os.PathError
	if errors.As(err, &at) {
		return fmt.Errorf("%s: %w", path, at.Err)
	}
	return fmt.Errorf("%s: %w", path, err)
}
