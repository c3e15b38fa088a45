package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// Keys of what middleware leaves in a request's context for those behind it.
const (
	keyRequest = "rrm.request"
	keyCaller  = "rrm.caller"
)

const requestIDHeader = "X-Request-Id"

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func requestID(c echo.Context) string {
	id, _ := c.Get(keyRequest).(string)
	return id
}

// observe is outermost: it names the request, turns errors into answers,
// counts, and writes the access log. Queries are left out of the log: they may hold
// what is nobody's business.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		begin, r := time.Now(), c.Request()
		id := r.Header.Get(requestIDHeader)
		if !requestIDPattern.MatchString(id) {
			var b [8]byte
			_, _ = rand.Read(b[:]) // never fails, see crypto/rand
			id = hex.EncodeToString(b[:])
		}
		c.Set(keyRequest, id)
		h := c.Response().Header()
		h.Set(requestIDHeader, id)
		h.Set("X-Content-Type-Options", "nosniff")
		if err := next(c); err != nil {
			c.Error(err)
		}
		took, status := time.Since(begin), c.Response().Status
		route := c.Path()
		if route == "" {
			route = "none" // the path is the client's to choose, so it is no label
		}
		s.metrics.observe(route, r.Method, status, took)
		level := slog.LevelDebug
		if status >= 500 {
			level = slog.LevelInfo
		}
		s.log.LogAttrs(r.Context(), level, "request", slog.String("request", id), slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Int("status", status), slog.Int64("bytes", c.Response().Size),
			slog.Duration("took", took), slog.String("actor", string(callerOf(c).actor())), slog.String("from", c.RealIP()))
		return nil
	}
}

// recovered keeps one broken request from ending the process.
func (s *Server) recovered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			switch v := recover(); {
			case v == nil:
			case isAbort(v):
				panic(v) // how a handler tells net/http to cut the connection
			default:
				err = fail(http.StatusInternalServerError, codeInternal, "", "see the service's log")
				s.log.Error("panic in a request", "request", requestID(c), "route", c.Path(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			}
		}()
		return next(c)
	}
}

func isAbort(v any) bool {
	err, ok := v.(error)
	return ok && errors.Is(err, http.ErrAbortHandler)
}

func isForward(path string) bool {
	rest, ok := strings.CutPrefix(path, BasePath+"/sessions/")
	if !ok {
		return false
	}
	_, rest, _ = strings.Cut(rest, "/")
	return rest == "renderer" || strings.HasPrefix(rest, "renderer/")
}

// What a page of an allowed origin may send, and read of the answer.
const (
	corsMethods = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
	corsHeaders = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, Traceparent, " + requestIDHeader
	corsExposed = "Location, Retry-After, Content-Length, Content-Range, " + requestIDHeader
)

// browsers says which pages may use the service. An origin is echoed when it
// is on the list, never "*". A preflight carries no token and is answered
// here. An open service has nothing but these checks between a page that the user
// happens to look at and the machine: the name it was called by must be the machine's own
// (a foreign name that resolves to loopback is DNS rebinding), and what changes something
// must not come from a foreign page.
func (s *Server) browsers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		origin := r.Header.Get("Origin")
		allowed := origin != "" && slices.Contains(s.Origins, origin)
		h := c.Response().Header()
		if len(s.Origins) > 0 {
			h.Add("Vary", "Origin")
		}
		if allowed {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", corsExposed)
		}
		if s.Open && !probes(r.URL.Path) {
			if name := hostOf(r.Host); !isLoopback(name) && !slices.Contains(s.Hosts, name) {
				return fail(http.StatusForbidden, codeHost, "Host", "this service is not called %q", name)
			}
		}
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			if allowed {
				h.Set("Access-Control-Allow-Methods", corsMethods)
				h.Set("Access-Control-Allow-Headers", corsHeaders)
				h.Set("Access-Control-Max-Age", "600")
			}
			return c.NoContent(http.StatusNoContent)
		}
		if s.Open && origin != "" && !allowed && !sameOrigin(origin, r.Host) && acts(r) {
			return fail(http.StatusForbidden, codeOrigin, "Origin", "pages of %q may not use this service; see RRM_CORS_ORIGINS", origin)
		}
		return next(c)
	}
}

// acts says that a request may change something, or opens a channel that may.
func acts(r *http.Request) bool {
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions
	return !safe || r.Header.Get("Upgrade") != "" || isForward(r.URL.Path)
}

// probes are asked by whoever watches over the process, by whatever name, and tell nothing.
func probes(path string) bool { return path == "/healthz" || path == "/readyz" }

func hostOf(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, host)
}
