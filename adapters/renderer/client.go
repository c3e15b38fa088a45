// Package renderer speaks the renderer protocol (docs/renderer-protocol.md):
// Client for what rrm itself asks of a renderer, Proxy for what a session's
// client does. Both go to the one address they are given and nowhere else: no
// redirects are followed and no proxy of the environment is used.
package renderer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds and defaults.
const (
	defaultTimeout = 10 * time.Second
	defaultStall   = 30 * time.Second
	defaultMaxBody = 1 << 20
	defaultMaxJPEG = 64 << 20
	maxReason      = 500 // bytes of a renderer's words that are passed on
)

// Headers that tell a renderer for whom a request is.
const (
	HeaderSession = "X-RRM-Session"
	HeaderModel   = "X-RRM-Model"
)

// ErrUnreachable is in the chain of errors about a renderer that could not be
// connected to, or that broke the connection instead of answering.
var ErrUnreachable = errors.New("renderer unreachable")

// ErrNoAnswer is in the chain of errors about a renderer that was reached but
// did not answer, or stopped in the middle, for longer than the timeout.
var ErrNoAnswer = errors.New("renderer does not answer")

// Codes of an Error where the renderer gave none that could be understood.
const (
	CodeUnexpectedStatus = "unexpected_status" // a status that the protocol does not know, such as a redirect
	CodeBadAnswer        = "bad_answer"        // success, but not the JSON that the protocol says, or too much of it
)

// Error is a renderer's answer that is not success.
type Error struct {
	Status int    // HTTP status
	Code   string // the renderer's stable word, or one of the codes above
	Reason string // a sentence for people, at most 500 bytes
	Field  string // the field of the job that is to blame, if one is
}

// Error gives the reason, code and status.
func (e *Error) Error() string {
	return fmt.Sprintf("the renderer answered %d %s: %s", e.Status, e.Code, e.Reason)
}

// Options bound a client's calls. Zero values mean the defaults.
type Options struct {
	// Timeout of a call, if its context has no earlier deadline; 10 s. The body of a
	// job's result is not bound by it.
	Timeout time.Duration
	// Stall is how long the body of a job's result may bring nothing; 30 s.
	Stall time.Duration
	// MaxBody bounds the JSON answers, in bytes; 1 MiB.
	MaxBody int64
	// MaxJPEG bounds ImageJPEG's picture, in bytes of JSON; 64 MiB.
	MaxJPEG int64
	// Transport to use instead of the shared one; see NewTransport.
	Transport *http.Transport
}

// Client calls one renderer. It is cheap to make and safe for many goroutines.
type Client struct {
	address string
	opts    Options
	http    *http.Client
}

// NewTransport makes a transport that goes nowhere but where it is told:
// without proxies of the environment, with bounds on every phase but the body's.
func NewTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // frames are compressed already
	}
}

var shared = NewTransport()

// CloseIdle closes the shared transport's idle connections, as tests that look
// for leaked goroutines need.
func CloseIdle() { shared.CloseIdleConnections() }

// New makes a client of the renderer at address, a host:port. An address that
// is none shows as ErrUnreachable when it is used.
func New(address string, opts Options) *Client {
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Stall <= 0 {
		opts.Stall = defaultStall
	}
	if opts.MaxBody <= 0 {
		opts.MaxBody = defaultMaxBody
	}
	if opts.MaxJPEG <= 0 {
		opts.MaxJPEG = defaultMaxJPEG
	}
	if opts.Transport == nil {
		opts.Transport = shared
	}
	return &Client{address: address, opts: opts, http: &http.Client{
		Transport:     opts.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// checkAddress accepts host:port only, so that nothing in an address can
// become a path, a user or another scheme.
func checkAddress(address string) error {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if name == "" || strings.ContainsAny(name, "/?#@\\% ") || err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q is not host:port", address)
	}
	return nil
}

// call is one request of the protocol.
type call struct {
	method string
	path   string // escaped
	body   any    // JSON, or nil
	header http.Header
	max    int64 // of the answer, in bytes; 0: Options.MaxBody
}

// do makes a call and reads the whole answer.
func (c *Client) do(ctx context.Context, what call) (status int, body []byte, err error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	res, err := c.send(ctx, what)
	if err != nil {
		return 0, nil, c.unanswered(caller, ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	limit := what.max
	if limit == 0 {
		limit = c.opts.MaxBody
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return 0, nil, c.unanswered(caller, ctx, err)
	}
	if int64(len(body)) > limit {
		return res.StatusCode, nil, &Error{Status: res.StatusCode, Code: CodeBadAnswer, Reason: fmt.Sprintf("the answer is longer than %d bytes", limit)}
	}
	return res.StatusCode, body, nil
}

func (c *Client) send(ctx context.Context, what call) (*http.Response, error) {
	if err := checkAddress(c.address); err != nil {
		return nil, err
	}
	var body io.Reader = http.NoBody
	if what.body != nil {
		b, err := json.Marshal(what.body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, what.method, "http://"+c.address+what.path, body)
	if err != nil {
		return nil, err
	}
	for name, values := range what.header {
		req.Header[name] = values
	}
	if what.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// Every call of the protocol may be repeated, so net/http may send it again
	// when an idle connection turns out to be closed. Without a value nothing is sent.
	req.Header["Idempotency-Key"] = nil
	return c.http.Do(req)
}

// unanswered sorts the errors of calls that brought no whole answer: the caller's own
// giving up, a timeout, or a renderer that is not there.
func (c *Client) unanswered(caller, ctx context.Context, err error) error {
	switch {
	case caller.Err() != nil && !errors.Is(caller.Err(), context.DeadlineExceeded):
		return caller.Err()
	case ctx.Err() != nil:
		return fmt.Errorf("%w at %s: %w", ErrNoAnswer, c.address, context.DeadlineExceeded)
	}
	return fmt.Errorf("%w at %s: %w", ErrUnreachable, c.address, err)
}

// decode makes a value of a successful answer and an Error of any other.
func decode(status int, body []byte, into any) error {
	if status/100 != 2 {
		return refused(status, body)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return &Error{Status: status, Code: CodeBadAnswer, Reason: "the answer is not what the protocol says: " + clip(err.Error())}
	}
	return nil
}

// refused makes an Error of what the renderer says, whatever that is.
func refused(status int, body []byte) *Error {
	var said struct {
		Code   string `json:"code"`
		Reason string `json:"reason"`
		Field  string `json:"field"`
	}
	e := &Error{Status: status, Code: CodeUnexpectedStatus, Reason: http.StatusText(status)}
	if err := json.Unmarshal(body, &said); err == nil && said.Code != "" {
		e.Code, e.Reason, e.Field = clip(said.Code), clip(said.Reason), clip(said.Field)
	} else if text := clip(string(body)); text != "" {
		e.Reason = text
	}
	return e
}

// clip makes text from outside fit for logs and the event log: short, valid, on one line.
func clip(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return -1
		case r < ' ' || r == 0x7f:
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// headerText makes a model's key fit for a header: as it is, UTF-8 and all, but
// without control characters, which keys do not have.
func headerText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// segment escapes text as one segment of a path, dots too where they would be a way up.
func segment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}
