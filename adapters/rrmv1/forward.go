package rrmv1

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// forward passes a request that is none of ours on to the session's renderer.
// Where it goes is decided by the session alone.
func (s *Server) forward(c *call) error {
	if err := s.identify(c); err != nil {
		return err
	}
	if c.who.reads() {
		return errReads // it moves cameras and renews leases
	}
	id, byQuery := named(c.r)
	if id == "" && !byQuery {
		return fail(http.StatusNotFound, "the request names no session: neither a cookie %s nor a %s", cookieName, queryName)
	}
	t, err := s.findReady(c, func(ctx context.Context) (target, error) { return s.ready(ctx, c, id) })
	if err != nil {
		return err
	}
	ctx, active, end := s.hold(c.r.Context(), c, t)
	defer end()
	r := c.r.Clone(ctx)
	for _, name := range []string{"Authorization", "Cookie"} { // between the client and us
		r.Header.Del(name)
	}
	r.URL.RawQuery = withoutSession(r.URL.RawQuery)
	_, path, ok := strings.Cut(c.rest, "session")
	if !ok {
		return fail(http.StatusNotFound, "there is nothing at this path")
	}
	to := Target{Address: t.view.Address, Prefix: c.base + strings.TrimSuffix(c.rest, path), Session: t.view.ID, Model: t.model}
	var refused *fault
	w, finish := c.w, func() error { return nil }
	if probesReadiness(c.r, path) {
		v := &vocabulary{ResponseWriter: c.w}
		w, finish = v, v.finish
	}
	s.Forward.Forward(w, r, to, active, func(status int, _, reason string) {
		if status == http.StatusBadGateway || status == http.StatusGatewayTimeout {
			status = http.StatusBadRequest // as the predecessor says it
		}
		refused = fail(status, "%s", reason)
	})
	if refused == nil {
		return finish()
	}
	if ctx.Err() != nil && c.r.Context().Err() == nil { // the session went away under it
		if _, err := s.findReady(c, func(ctx context.Context) (target, error) { return s.look(ctx, id) }); err != nil {
			return err
		}
	}
	return refused
}

func (s *Server) findReady(c *call, find func(context.Context) (target, error)) (target, error) {
	ctx, cancel := c.bounded()
	defer cancel()
	return find(ctx)
}

// withoutSession leaves the rest of a query as it was written.
func withoutSession(raw string) string {
	var kept []string
	for part := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil && plain == queryName {
			continue
		}
		kept = append(kept, part)
	}
	return strings.Join(kept, "&")
}

// probesReadiness: the clients of dialect A ask for the renderer's vocabulary to see that it can serve.
func probesReadiness(r *http.Request, path string) bool {
	return r.Method == http.MethodGet && strings.Trim(path, "/") == "vocabulary"
}

// vocabulary stands in for a renderer that has none. It is asked for only of
// ready sessions, and a 404 would keep those clients from ever showing a picture.
type vocabulary struct {
	http.ResponseWriter
	missing bool
}

// WriteHeader keeps back that there is no vocabulary.
func (v *vocabulary) WriteHeader(status int) {
	if v.missing = status == http.StatusNotFound; !v.missing {
		v.ResponseWriter.WriteHeader(status)
	}
}

// Write drops what a renderer says of having none.
func (v *vocabulary) Write(b []byte) (int, error) {
	if v.missing {
		return len(b), nil
	}
	return v.ResponseWriter.Write(b)
}

// FlushError sends what there is, and nothing while it is not known what that will be.
func (v *vocabulary) FlushError() error {
	if v.missing {
		return nil
	}
	return http.NewResponseController(v.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (v *vocabulary) Unwrap() http.ResponseWriter { return v.ResponseWriter }

func (v *vocabulary) finish() error {
	if !v.missing {
		return nil
	}
	h := v.Header()
	for name := range h {
		if strings.HasPrefix(name, "Content-") {
			delete(h, name)
		}
	}
	return answer(v.ResponseWriter, http.StatusOK, say("The renderer is ready; it has no vocabulary"))
}
