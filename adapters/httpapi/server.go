// Package httpapi is the service's API, version 2, over HTTP. The document
// openapi.yaml comes first: server types, the interface that Server implements
// and the Go client are generated from it, requests are checked against it,
// and the page at /docs is made from it. It knows commands and views through
// the small interfaces of seams.go, and no other adapter.
//
// A request passes: who is it and may it (auth.go), does the document allow it
// (validate.go), then the handler in the file of its noun, which gives a
// command or asks a view. Every "no" becomes a problem in problem.go.
package httpapi

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rendering-resource-manager/rrm/domain"
)

// BasePath is where the API is; /healthz, /readyz, /metrics, /docs and /openapi.yaml are outside it.
const BasePath = "/rendering-resource-manager/v2"

//go:embed openapi.yaml
var document []byte

// Document is the OpenAPI document in YAML.
func Document() []byte { return document }

// Config is what a Server works with. All interfaces must be set but Wake,
// Outputs, Heartbeats and Ready.
type Config struct {
	Commands Commands
	Views    Views
	Log      Log
	Tokens   Tokens
	Forward  Forwarder
	Wake     Wake    // nil: new events are looked for each second
	Outputs  Outputs // nil: no renderer's output was kept

	// Heartbeats of resources that register themselves; nil: none may.
	Heartbeats Heartbeats
	// HeartbeatEvery is how often they are told to send one.
	HeartbeatEvery time.Duration
	// CheckAddress refuses an address (host:port) that may not register, and gives the one to
	// use: an IP address and a port. It must be set where Heartbeats is.
	CheckAddress func(ctx context.Context, address string) (pinned string, err error)

	// Ready is nil when the service can work: the store is reachable and migrated.
	Ready func(ctx context.Context) error
	// Open lets everyone in as the operator "anonymous" while no token was ever
	// made. Only for a service that listens on a loopback address: then Host and
	// Origin are checked, so that a page in a browser cannot use it behind the user's back.
	Open bool
	// Hosts are names, beside loopback ones, that an open service answers to in the Host header.
	Hosts []string
	// Origins are the origins of browsers' pages that may use the service, such as "https://viz.example.org".
	Origins []string
	// MaxStreams bounds how many event streams may be open at once; 0: 1,024.
	MaxStreams int
	// Collectors are shown at /metrics beside the server's own, such as the lane's.
	Collectors []prometheus.Collector
	Logger     *slog.Logger // nil: nothing is logged
}

const defaultMaxStreams = 1024

// Server answers the API. It is an http.Handler; Close ends what streams.
type Server struct {
	Config
	log      *slog.Logger
	echo     *echo.Echo
	api      map[string]*operation // by method and route
	auth     *authenticator
	sessions *sessionCache
	tail     *tail
	metrics  *metrics
	docs     []byte
	streams  atomic.Int64
	stopping chan struct{} // closed by Close
	stop     func()        // closes it; may be called more than once
}

var _ ServerInterface = (*Server)(nil)

// New makes a server; it begins nothing by itself until it is asked something.
func New(config Config) (*Server, error) {
	if config.Commands == nil || config.Views == nil || config.Log == nil || config.Tokens == nil || config.Forward == nil {
		return nil, errors.New("make the API: Commands, Views, Log, Tokens and Forward are needed")
	}
	if config.Heartbeats != nil && (config.CheckAddress == nil || config.HeartbeatEvery <= 0) {
		return nil, errors.New("make the API: heartbeats need HeartbeatEvery and CheckAddress")
	}
	if config.MaxStreams <= 0 {
		config.MaxStreams = defaultMaxStreams
	}
	s := &Server{Config: config, log: config.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	doc, err := loadDocument()
	if err != nil {
		return nil, fmt.Errorf("make the API: %w", err)
	}
	if s.api, err = operations(doc); err != nil {
		return nil, fmt.Errorf("make the API: %w", err)
	}
	if s.docs, err = renderDocs(doc); err != nil {
		return nil, fmt.Errorf("make the API: %w", err)
	}
	if s.metrics, err = newMetrics(config.Collectors, &s.streams); err != nil {
		return nil, fmt.Errorf("make the API: %w", err)
	}
	s.stopping = make(chan struct{})
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	s.auth = newAuthenticator(config)
	s.sessions = newSessionCache(s)
	s.tail = newTail(config.Log, config.Wake, s.log)
	s.routes()
	return s, nil
}

type headKey struct{}

// ServeHTTP answers one request. HEAD is answered as GET, the body left out by
// net/http; what is forwarded keeps its method, because the renderer may know better.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead && !isForward(r.URL.Path) {
		r = r.WithContext(context.WithValue(r.Context(), headKey{}, true))
		r.Method = http.MethodGet // of a copy; net/http looks at its own
	}
	s.echo.ServeHTTP(w, r)
}

// isHead says that only the header of the answer is wanted.
func isHead(c echo.Context) bool {
	head, _ := c.Request().Context().Value(headKey{}).(bool)
	return head
}

// Close ends all event streams and forwarded connections, and what works for
// them; call it before http.Server.Shutdown, which waits for them. It may be
// called more than once.
func (s *Server) Close() {
	s.stop()
	s.tail.close()
	s.sessions.close()
}

// Bounds of what a connection may cost before it is a request.
const (
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
)

// HTTPServer wraps a handler (a Server, or a mux that holds one) with limits on
// headers and idle connections. It has no limit on the time of a whole answer,
// because streams have none; the handlers set their own.
func HTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

func (s *Server) routes() {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.answerError
	e.IPExtractor = echo.ExtractIPDirect()
	e.Logger.SetOutput(discard{})
	e.Pre(s.observe, s.recovered, s.browsers)
	e.Use(s.guard)
	s.echo = e

	RegisterHandlersWithBaseURL(e, s, BasePath)
	for _, path := range []string{forwardRoute, forwardRoute + "/*"} {
		e.Any(path, s.forward)
	}
	e.GET("/healthz", s.healthz)
	e.GET("/readyz", s.readyz)
	e.GET("/metrics", s.metrics.handler)
	e.GET("/docs", s.docsPage)
	e.GET("/openapi.yaml", func(c echo.Context) error { return c.Blob(http.StatusOK, "application/yaml", document) })
	e.GET("/", func(c echo.Context) error { return c.Redirect(http.StatusFound, "/docs") })
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (s *Server) healthz(c echo.Context) error {
	return c.JSON(http.StatusOK, Health{Status: HealthStatusOk})
}

const readyTimeout = 3 * time.Second

func (s *Server) readyz(c echo.Context) error {
	if s.Ready != nil {
		ctx, cancel := context.WithTimeout(c.Request().Context(), readyTimeout)
		defer cancel()
		if err := s.Ready(ctx); err != nil {
			if _, refused := domain.AsRefusal(err); refused {
				return err
			}
			s.log.Info("not ready", "error", err)
			return fail(http.StatusServiceUnavailable, codeStore, "", "the database cannot be reached or is not migrated").retry(retryUnavailable)
		}
	}
	return c.JSON(http.StatusOK, Health{Status: HealthStatusOk})
}

// isLoopback says that a host name, without a port, can only mean this machine.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
