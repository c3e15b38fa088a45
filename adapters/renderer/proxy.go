package renderer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Codes that a Proxy refuses with.
const (
	CodeBadPath       = "bad_path"             // 400: the path is broken or leads out of the renderer's
	CodeAdministrated = "managed_by_rrm"       // 403: exiting, loading and jobs are rrm's business
	CodeBadMethod     = "method_not_allowed"   // 405
	CodeUnreachable   = "renderer_unreachable" // 502
	CodeNoAnswer      = "renderer_timeout"     // 504
)

const (
	defaultHeaderTimeout = 2 * time.Minute // a picture may take long to render
	activityEvery        = time.Second
	copyBuffer           = 32 << 10
)

// ProxyOptions say how a Proxy answers what it does not forward.
type ProxyOptions struct {
	// Fail writes an error to the client. Nil: the renderer protocol's JSON.
	Fail func(w http.ResponseWriter, r *http.Request, status int, code, reason string)
	// HeaderTimeout is how long a renderer may take to begin its answer; 2 min. Bodies,
	// streams and WebSockets have no limit.
	HeaderTimeout time.Duration
	// DropQuery names parameters of the query that are the client's secrets
	// towards rrm, and are not passed on.
	DropQuery []string
	// Transport to use instead of one of the proxy's own; see NewTransport.
	Transport *http.Transport
}

// Proxy passes a session's requests to the session's own resource and to
// nothing else: HTTP, streams without end, and WebSockets. One serves all sessions.
//
// It is not the guard of who may call: the caller has checked the session,
// its owner, and (for browsers) the Origin, which is not passed on.
type Proxy struct {
	opts      ProxyOptions
	transport *http.Transport
	buffers   bufferPool
}

// NewProxy makes a proxy.
func NewProxy(opts ProxyOptions) *Proxy {
	if opts.Fail == nil {
		opts.Fail = failJSON
	}
	if opts.HeaderTimeout <= 0 {
		opts.HeaderTimeout = defaultHeaderTimeout
	}
	transport := opts.Transport
	if transport == nil {
		transport = NewTransport()
	} else {
		transport = transport.Clone()
	}
	transport.ResponseHeaderTimeout = opts.HeaderTimeout
	return &Proxy{opts: opts, transport: transport}
}

// Close closes idle connections; those in use go on.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// ServeHTTP passes one request on to the renderer at address (host:port). prefix is the
// part of the escaped path that is rrm's, without a slash at its end; what follows it is the
// renderer's path. onActivity (nil: nobody wants to know) is called when the
// request begins and then while bytes flow either way, at most once a second for each
// request, from the goroutine that copies them: it must not take long.
//
// Cancelling r's context cuts the connection to the renderer, streams and
// WebSockets too: that is how a session's end is told to what it has open.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request, address, prefix string, session domain.SessionID, model domain.ModelKey, onActivity func()) {
	target, refused := targetURL(r, address, prefix)
	if refused != nil {
		p.opts.Fail(w, r, refused.Status, refused.Code, refused.Reason)
		return
	}
	activity := &activity{tell: onActivity}
	activity.start()
	reverse := httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			p.rewrite(pr, target, session, model)
			if pr.Out.Body != nil && pr.Out.Body != http.NoBody {
				pr.Out.Body = &countedBody{pr.Out.Body, activity}
			}
		},
		ModifyResponse: func(res *http.Response) error {
			cleanResponse(res, address, prefix)
			res.Body = activity.watch(res.Body)
			return nil
		},
		ErrorHandler:  p.failed,
		FlushInterval: -1, // frames are for now, not for later
		Transport:     p.transport,
		BufferPool:    &p.buffers,
		ErrorLog:      quiet,
	}
	reverse.ServeHTTP(w, r)
}

// stripped are the client's headers that are meant for rrm, or that could make
// a renderer take a request for another than the one that was checked.
var stripped = []string{
	"Authorization", "Cookie", "Idempotency-Key", "X-Idempotency-Key", "Proxy-Authorization", "Origin", "Referer",
	"X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url", "X-Real-Ip",
}

func (p *Proxy) rewrite(pr *httputil.ProxyRequest, target *url.URL, session domain.SessionID, model domain.ModelKey) {
	query := pr.Out.URL.RawQuery
	if len(p.opts.DropQuery) > 0 {
		query = dropQuery(query, p.opts.DropQuery)
	}
	pr.Out.URL = target
	pr.Out.URL.RawQuery = query
	pr.Out.Host = target.Host
	for _, name := range stripped {
		pr.Out.Header.Del(name)
	}
	for name := range pr.Out.Header {
		if strings.HasPrefix(strings.ToLower(name), "x-rrm-") {
			delete(pr.Out.Header, name)
		}
	}
	if session != "" {
		pr.Out.Header.Set(HeaderSession, string(session))
	}
	if model != "" {
		pr.Out.Header.Set(HeaderModel, headerText(string(model)))
	}
	pr.SetXForwarded()
}

// dropQuery removes parameters and leaves all others as they were written.
func dropQuery(raw string, names []string) string {
	var kept []string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		drop := false
		for _, n := range names {
			drop = drop || n == name
		}
		if !drop {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

// unwanted are a renderer's headers that would act on rrm's own pages and cookies.
var unwanted = []string{
	"Set-Cookie", "Set-Cookie2", "Clear-Site-Data", "Strict-Transport-Security", "Service-Worker-Allowed", "Refresh", "Alt-Svc", "Public-Key-Pins",
}

func cleanResponse(res *http.Response, address, prefix string) {
	for _, name := range unwanted {
		res.Header.Del(name)
	}
	for name := range res.Header {
		// Which origins may read the answer is rrm's to say.
		if strings.HasPrefix(name, "Access-Control-") {
			delete(res.Header, name)
		}
	}
	for _, name := range []string{"Location", "Content-Location"} {
		value := res.Header.Get(name)
		if value == "" {
			continue
		}
		if moved, ok := moveLocation(value, res.Request.URL, address, prefix); ok {
			res.Header.Set(name, moved)
		} else {
			res.Header.Del(name) // elsewhere: the client must not be sent there in our name
		}
	}
}

// moveLocation makes a renderer's reference to itself one to the proxy.
func moveLocation(value string, from *url.URL, address, prefix string) (string, bool) {
	ref, err := url.Parse(value)
	if err != nil || ref.Opaque != "" || ref.User != nil {
		return "", false
	}
	to := from.ResolveReference(ref) // absolute, and without dots
	if to.Scheme != "http" || !strings.EqualFold(to.Host, address) {
		return "", false
	}
	moved := prefix + to.EscapedPath()
	if to.RawQuery != "" {
		moved += "?" + to.RawQuery
	}
	if to.Fragment != "" {
		moved += "#" + to.EscapedFragment()
	}
	return moved, true
}

// failed answers for a renderer that did not.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	var timeout net.Error
	switch {
	case r.Context().Err() != nil || errors.Is(err, context.Canceled):
		// The client has gone, or the session ended before the renderer answered; if anyone still listens:
		p.opts.Fail(w, r, http.StatusBadGateway, CodeUnreachable, "the request was given up before the renderer answered")
	case errors.As(err, &timeout) && timeout.Timeout():
		p.opts.Fail(w, r, http.StatusGatewayTimeout, CodeNoAnswer, "the renderer did not answer in time")
	default:
		p.opts.Fail(w, r, http.StatusBadGateway, CodeUnreachable, "the renderer cannot be reached")
	}
}

func failJSON(w http.ResponseWriter, _ *http.Request, status int, code, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "reason": reason})
}

// quiet is for what net/http/httputil logs: broken streams are everyday
// life, and the error handler has answered for the rest.
var quiet = log.New(io.Discard, "", 0)

// bufferPool lends the buffers that bodies are copied with.
type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, copyBuffer)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put(&buf) }
