// Package rrmv1 is the predecessor's API, for the clients that it left in the
// field: both of its dialects, over the same commands and views as version 2,
// so that a session opened here is a session like any other. It knows commands
// and views through the small interfaces of seams.go, and no other adapter.
//
// A request passes: which page is it from (browsers.go), who is it and may it
// (caller.go), which session does it mean (identity.go), then the function in
// the file of its noun. Every "no" becomes JSON in answer.go.
package rrmv1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// BasePath is where the API is, behind whatever prefix.
const BasePath = "/rendering-resource-manager/v1"

// The dialects: how a client names its session, and which codes of a status it understands.
const (
	DialectAuto    = "auto"       // by how the request names its session
	DialectCookie  = "cookie"     // 3 is running
	DialectSession = "session_id" // 5 is running
)

// Defaults of a Config.
const (
	DefaultLease      = 300 * time.Second // the predecessor's session_keep_alive_timeout
	defaultFrameEvery = 100 * time.Millisecond
	defaultMaxStreams = 256
)

// Config is what a Server works with. Commands, Views, Tokens and Forward must be set.
type Config struct {
	Commands Commands
	Views    Views
	Tokens   Tokens
	Forward  Forwarder
	Frames   Frames  // nil: there is no image stream
	Outputs  Outputs // nil: no renderer's output was kept

	// Credential keeps an Authorization that is no token of ours, for a session whose resource
	// is started at a UNICORE site, and gives the name that may be on record for it. It is given that
	// name again when the session's client sends an Authorization later, which then takes the
	// place of the first. A "no" is a *domain.Refusal. nil: Authorizations are dropped. Never log one.
	Credential func(authorization, identity string) (string, error)

	// Open lets everyone in as an operator while no token was ever made. Only for a
	// service on a loopback address: then Host and Origin are checked.
	Open bool
	// Anonymous lets those in who send no token, although there are tokens: to
	// sessions of their own kind, and to nothing that is the operator's.
	Anonymous bool
	// Hosts are names, beside loopback ones, that an open service answers to.
	Hosts []string
	// Origins are those of browsers' pages that may use the service, with cookies.
	Origins []string

	Dialect  string        // of the codes in a status; empty: DialectAuto
	Launcher string        // of renderers that are made here; empty: local
	Lease    time.Duration // of sessions that are opened here; 0: DefaultLease
	// Public is how clients reach the service, HOST[:PORT][/PREFIX], where a
	// proxy in front changes Host or takes a prefix away; empty: as the request says.
	Public string
	// FrameEvery is the shortest time between two pictures of a stream; 0: 100 ms.
	FrameEvery time.Duration
	// MaxStreams bounds how many image streams may be open at once; 0: 256.
	MaxStreams int
	// ClientConfig is answered at /config.json; nil: an object without a client's ID.
	ClientConfig json.RawMessage
	Logger       *slog.Logger // nil: nothing is logged
}

// Server answers the API. It is an http.Handler; Close ends what streams.
type Server struct {
	Config
	log      *slog.Logger
	callers  *cache[string, caller]
	open     *cache[struct{}, bool]
	sessions *cache[domain.SessionID, target]
	renewed  *cache[domain.SessionID, struct{}]
	document *document
	streams  atomic.Int64
	holding  sync.Mutex // so that none is begun when the end of all is waited for
	closing  context.CancelFunc
	closed   <-chan struct{}
	holds    sync.WaitGroup
}

// New makes a server; it begins nothing by itself until it is asked something.
func New(config Config) (*Server, error) {
	if config.Commands == nil || config.Views == nil || config.Tokens == nil || config.Forward == nil {
		return nil, errors.New("make API v1: Commands, Views, Tokens and Forward are needed")
	}
	if config.Lease == 0 {
		config.Lease = DefaultLease
	}
	switch {
	case config.Dialect == "":
		config.Dialect = DialectAuto
	case config.Dialect != DialectAuto && config.Dialect != DialectCookie && config.Dialect != DialectSession:
		return nil, fmt.Errorf("make API v1: the dialect is %s, %s or %s, not %q", DialectAuto, DialectCookie, DialectSession, config.Dialect)
	}
	if config.Lease < pool.MinLease || config.Lease > pool.MaxLease {
		return nil, fmt.Errorf("make API v1: a lease lasts from %s to %s, not %s", pool.MinLease, pool.MaxLease, config.Lease)
	}
	if config.FrameEvery <= 0 {
		config.FrameEvery = defaultFrameEvery
	}
	if config.MaxStreams <= 0 {
		config.MaxStreams = defaultMaxStreams
	}
	if config.Launcher == "" {
		config.Launcher = domain.LauncherLocal
	}
	if config.ClientConfig == nil {
		config.ClientConfig = json.RawMessage(`{"auth":{"clientId":""}}`)
	} else if !json.Valid(config.ClientConfig) {
		return nil, errors.New("make API v1: ClientConfig is not JSON")
	}
	doc, err := loadDocument()
	if err != nil {
		return nil, fmt.Errorf("make API v1: %w", err)
	}
	s := &Server{Config: config, log: config.Logger, document: doc}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.callers, s.open = newCache[string, caller](tokenTrust), newCache[struct{}, bool](tokenTrust)
	s.sessions, s.renewed = newCache[domain.SessionID, target](sessionTrust), newCache[domain.SessionID, struct{}](renewEvery)
	ctx, stop := context.WithCancel(context.Background())
	s.closing, s.closed = stop, ctx.Done()
	return s, nil
}

// Close ends all streams and forwarded connections, and waits for what looks
// after them; call it before http.Server.Shutdown. It may be called more than once.
func (s *Server) Close() {
	s.holding.Lock()
	s.closing()
	s.holding.Unlock()
	s.holds.Wait()
}

// Match says whether a request is for this API: its base path comes first in
// the path, or behind a prefix that is not in another version of the API.
func Match(r *http.Request) bool {
	_, _, ok := split(r.URL.EscapedPath())
	return ok
}

// split cuts an escaped path into what is ours (prefix and base path) and what follows it.
func split(path string) (base, rest string, ok bool) {
	const name = "/rendering-resource-manager/"
	i := strings.Index(path, name)
	if i < 0 {
		return "", "", false
	}
	i += len(name)
	version, _, _ := strings.Cut(path[i:], "/")
	if version != "v1" {
		return "", "", false
	}
	i += len(version)
	return path[:i], path[i:], true
}

// call is one request on its way: where it came in, who sent it, and which session it means.
type call struct {
	w    http.ResponseWriter
	r    *http.Request
	base string // prefix and base path, escaped
	rest string // what follows, escaped
	who  caller
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{w: w, r: r}
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v) // how a handler tells net/http to cut the connection
		}
		s.log.Error("panic in a request", "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		s.refuse(c, fail(http.StatusInternalServerError, "see the service's log"))
	}()
	var ok bool
	if c.base, c.rest, ok = split(r.URL.EscapedPath()); !ok {
		s.refuse(c, fail(http.StatusNotFound, "there is nothing at this path"))
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if done, err := s.browsers(c); err != nil {
		s.refuse(c, err)
		return
	} else if done {
		return
	}
	if err := s.route(c); err != nil {
		s.refuse(c, err)
	}
}

// handler answers a request or says why not.
type handler func(c *call) error

// methods are the handlers of one path. GET answers HEAD too.
type methods map[string]handler

// route finds the handler. A path is taken with and without its last slash: no
// client follows a redirection of a POST, PUT or DELETE.
func (s *Server) route(c *call) error {
	rest, err := url.PathUnescape(strings.Trim(c.rest, "/"))
	if err != nil {
		return fail(http.StatusBadRequest, "the escapes of the path are broken")
	}
	noun, name, _ := strings.Cut(rest, "/")
	switch noun {
	case "session":
		return s.routeSession(c, name)
	case "config":
		if name == "" {
			return c.by(methods{http.MethodGet: s.listConfigs, http.MethodPost: s.createConfig, http.MethodPut: s.updateConfig, http.MethodDelete: s.deleteConfig})
		}
	case "admin":
		return c.by(methods{http.MethodPut: func(c *call) error { return s.admin(c, name) }})
	case "imagefeed":
		return c.by(methods{http.MethodGet: func(c *call) error { return s.feed(c, domain.SessionID(name)) }})
	case "api-docs":
		return c.by(methods{http.MethodGet: s.apiDocs})
	case "config.json":
		return c.by(methods{http.MethodGet: func(c *call) error { return answer(c.w, http.StatusOK, s.ClientConfig) }})
	}
	return fail(http.StatusNotFound, "there is nothing at this path")
}

func (s *Server) routeSession(c *call, name string) error {
	switch name = strings.Trim(name, "/"); name {
	case "":
		return c.by(methods{http.MethodPost: s.createSession, http.MethodGet: s.listSessions, http.MethodDelete: s.deleteSession})
	case "schedule":
		return c.by(methods{http.MethodPut: s.schedule})
	case "open":
		return c.by(methods{http.MethodPut: s.openProcess})
	case "status":
		return c.by(methods{http.MethodGet: s.status})
	case "log":
		return c.by(methods{http.MethodGet: func(c *call) error { return s.output(c, "stdout") }})
	case "err":
		return c.by(methods{http.MethodGet: func(c *call) error { return s.output(c, "stderr") }})
	case "job":
		return c.by(methods{http.MethodGet: s.job})
	case "imagefeed":
		return c.by(methods{http.MethodGet: s.imagefeed})
	}
	if _, err := uuid.Parse(name); err == nil {
		return c.by(methods{http.MethodGet: func(c *call) error { return s.getSession(c, domain.SessionID(name)) }})
	}
	return c.by(methods{http.MethodGet: s.forward, http.MethodPut: s.forward})
}

// by calls the handler of the request's method.
func (c *call) by(m methods) error {
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		return h(c)
	}
	allowed := []string{}
	for _, name := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if _, ok := m[name]; ok {
			allowed = append(allowed, name)
		}
	}
	allow := strings.Join(append(allowed, http.MethodOptions), ", ")
	if method == http.MethodOptions {
		c.w.Header().Set("Allow", allow)
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return fail(http.StatusMethodNotAllowed, "this path does not have the method %s", method).with("Allow", allow)
}

// requestTimeout bounds one request that is no stream and is not passed on.
const requestTimeout = 20 * time.Second

func (c *call) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.r.Context(), requestTimeout)
}

// loads says whether the service itself loads a renderer's models. If it does not, the
// model's key is the clients' own word and means nothing to the renderer.
func loads(settings *domain.Renderer) bool { return settings.ModelLoading != domain.LoadNone }

// settings of a renderer; not_found if there is none.
func (s *Server) settings(ctx context.Context, id domain.RendererID) (domain.Renderer, error) {
	pools, err := s.Views.Pools(ctx)
	if err != nil {
		return domain.Renderer{}, err
	}
	for i := range pools {
		if pools[i].Settings.ID == id {
			return pools[i].Settings, nil
		}
	}
	return domain.Renderer{}, domain.NotFound("renderer", string(id))
}
