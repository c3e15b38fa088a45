package rrmv1

import (
	"net"
	"net/http"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// createSession answers POST /session/: a session that holds nothing yet.
func (s *Server) createSession(c *call) error {
	if err := s.identify(c); err != nil {
		return err
	}
	if c.who.reads() {
		return errReads
	}
	var in struct {
		Owner         looseText `json:"owner"`
		Configuration looseText `json:"configuration_id"`
		Renderer      looseText `json:"renderer_id"` // its older name
	}
	if err := c.body(&in); err != nil {
		return err
	}
	if in.Configuration == "" {
		in.Configuration = in.Renderer
	}
	switch {
	case in.Owner == "":
		return fail(http.StatusUnauthorized, "'owner' is missing")
	case in.Configuration == "":
		return fail(http.StatusUnauthorized, "'configuration_id' is missing")
	}
	renderer, err := domain.ParseRendererID(string(in.Configuration))
	if err != nil {
		return err
	}
	if err := s.already(c, renderer); err != nil {
		return err
	}
	ctx, cancel := c.bounded()
	defer cancel()
	e, err := s.Commands.OpenSession(ctx, c.who.call(), pool.OpenSession{Renderer: renderer, Owner: c.who.as(string(in.Owner)), Lease: s.Lease})
	if err != nil {
		return err
	}
	setCookie(c.w, c.r, e.ID)
	return answer(c.w, http.StatusCreated, map[string]any{"session_id": e.ID})
}

// already refuses a second session of the same configuration to a client that
// has one by its cookie: the page was opened again, and goes on with what it has.
func (s *Server) already(c *call, renderer domain.RendererID) error {
	id, byQuery := named(c.r)
	if byQuery || id == "" {
		return nil
	}
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.find(ctx, c.who, id)
	if err != nil || v.Ended || v.Renderer != renderer {
		return nil //nolint:nilerr // a cookie that is out of date, or of another service, is no session
	}
	f := fail(http.StatusConflict, "there is a session of %s already", renderer)
	f.body = map[string]any{"session_id": v.ID}
	return f
}

// liveStates are those that a list of sessions has.
var liveStates = []pool.SessionState{
	pool.SessionStateOpened, pool.SessionStateQueued, pool.SessionStateStarting, pool.SessionStateLoading, pool.SessionStateReady,
}

// maxListed bounds a list of sessions, of each state.
const maxListed = 10_000

// listSessions answers GET /session/.
func (s *Server) listSessions(c *call) error {
	if err := s.identify(c); err != nil {
		return err
	}
	type item struct {
		ID            domain.SessionID  `json:"id"`
		Owner         string            `json:"owner"`
		Configuration domain.RendererID `json:"configuration_id"`
	}
	filter := projections.SessionFilter{}
	if c.who.role == projections.RoleClient {
		filter.Owner = string(c.who.owner)
	}
	ctx, cancel := c.bounded()
	defer cancel()
	all, seen := []item{}, map[domain.SessionID]bool{} // one may change its state between two looks
	for _, state := range liveStates {
		filter.State = string(state)
		page := projections.Page{Limit: projections.MaxLimit}
		for n := 0; n < maxListed; n += projections.MaxLimit {
			views, next, err := s.Views.Sessions(ctx, filter, page)
			if err != nil {
				return err
			}
			for i := range views {
				v := &views[i]
				if c.who.sees(v.Owner) && !seen[v.ID] {
					seen[v.ID] = true
					all = append(all, item{v.ID, c.who.shown(v.Owner), v.Renderer})
				}
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
	}
	return answer(c.w, http.StatusOK, all)
}

// getSession answers GET /session/{id}/.
func (s *Server) getSession(c *call, id domain.SessionID) error {
	if err := s.identify(c); err != nil {
		return err
	}
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.find(ctx, c.who, id)
	if err != nil {
		return err
	}
	if v.Ended {
		return gone(&v)
	}
	host, port := whereabouts(&v)
	code, text := s.standing(&v, s.dialect(c.r))
	said := say("%s", text)
	return answer(c.w, http.StatusOK, map[string]any{
		"id": v.ID, "owner": c.who.shown(v.Owner), "created": v.RequestedAt.UTC(), "configuration_id": v.Renderer,
		"job_id": v.Resource, "status": code, "http_host": host, "http_port": port, "valid_until": v.LeaseExpiresAt, "cluster_node": v.Node,
		"contents": said.Contents, "description": said.Description,
	})
}

// deleteSession answers DELETE /session/.
func (s *Server) deleteSession(c *call) error {
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.live(ctx, c)
	if err != nil {
		return err
	}
	if c.who.reads() {
		return errReads
	}
	if _, err := s.Commands.ReleaseSession(ctx, c.who.call(), pool.ReleaseSession{Session: v.ID}); err != nil {
		return err
	}
	s.sessions.forget(v.ID)
	if cookieOf(c.r) == v.ID {
		forgetCookie(c.w)
	}
	return answer(c.w, http.StatusOK, say("Session successfully destroyed"))
}

// whereabouts are host and port of a session's renderer; empty while there is none.
func whereabouts(v *projections.SessionView) (host, port string) {
	host, port, err := net.SplitHostPort(v.Address)
	if err != nil {
		return "", ""
	}
	return host, port
}
