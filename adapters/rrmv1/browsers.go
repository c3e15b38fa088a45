package rrmv1

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// What a page of an allowed origin may send.
const (
	corsMethods = "GET, POST, PUT, DELETE, OPTIONS"
	corsHeaders = "Content-Type, HBP, Authorization"
)

// browsers says which pages may use the service, and answers preflights, which
// carry neither cookie nor token. An origin is echoed when it is on the list, never
// "*", because the pages send cookies. An open service has nothing but these checks between
// a page that the user happens to look at and the machine: the name that it was called
// by must be the machine's own, and what changes something must not come from a foreign page.
func (s *Server) browsers(c *call) (done bool, err error) {
	r, h := c.r, c.w.Header()
	origin := r.Header.Get("Origin")
	allowed := origin != "" && slices.Contains(s.Origins, origin)
	if len(s.Origins) > 0 {
		h.Add("Vary", "Origin")
	}
	if allowed {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "Retry-After")
	}
	if name := hostOf(r.Host); s.Open && !isLoopback(name) && !slices.Contains(s.Hosts, name) {
		return false, fail(http.StatusForbidden, "this service is not called %q", name)
	}
	if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
		if allowed {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsHeaders)
			h.Set("Access-Control-Max-Age", "600")
		}
		c.w.WriteHeader(http.StatusNoContent)
		return true, nil
	}
	// Without a token, a cookie is all that a request needs, and foreign pages can make
	// browsers send it. So this holds for services with tokens too.
	if origin != "" && !allowed && !sameOrigin(origin, r.Host) && !(safe(r.Method) && r.Header.Get("Upgrade") == "") {
		return false, fail(http.StatusForbidden, "pages of %q may not use this service: its operator has to name them among the origins", origin)
	}
	return false, nil
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

func hostOf(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// isLoopback says that a host name, without a port, can only mean this machine.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, host)
}

// secure says that the client came over TLS, to us or to a proxy in front.
func secure(r *http.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}
