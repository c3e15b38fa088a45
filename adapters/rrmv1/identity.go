package rrmv1

import (
	"context"
	"net/http"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/projections"
)

// cookieName is the cookie's; a header of that name, which some clients send
// with every request, is no session.
const cookieName = "HBP"

// queryName names a session in the query. It is the client's secret towards us, and not passed on.
const queryName = "session_id"

const maxIDText = 128

// named is how a request names its session. A session_id in the query goes
// before the cookie, even one that is no session ("null").
func named(r *http.Request) (id domain.SessionID, byQuery bool) {
	if q := r.URL.Query(); q.Has(queryName) {
		return domain.SessionID(q.Get(queryName)), true
	}
	return cookieOf(r), false
}

func cookieOf(r *http.Request) domain.SessionID {
	if c, err := r.Cookie(cookieName); err == nil {
		return domain.SessionID(c.Value)
	}
	return ""
}

// dialect is in which a request is to be answered.
func (s *Server) dialect(r *http.Request) string {
	if s.Dialect != DialectAuto {
		return s.Dialect
	}
	if _, byQuery := named(r); !byQuery && cookieOf(r) != "" {
		return DialectCookie
	}
	return DialectSession
}

// session reads the session that the request means. One that the caller does
// not see does not exist; one that has ended is given, and its handler says what that means.
func (s *Server) session(ctx context.Context, c *call) (projections.SessionView, error) {
	if err := s.identify(c); err != nil {
		return projections.SessionView{}, err
	}
	id, byQuery := named(c.r)
	if byQuery && id == cookieOf(c.r) {
		// This client names its session itself. Without the cookie, its next POST cannot be mistaken for the same session again.
		forgetCookie(c.w)
	}
	if id == "" && !byQuery {
		return projections.SessionView{}, fail(http.StatusNotFound, "the request names no session: neither a cookie %s nor a %s", cookieName, queryName)
	}
	return s.find(ctx, c.who, id)
}

var errNoSession = fail(http.StatusNotFound, "Session does not exist")

func (s *Server) find(ctx context.Context, who caller, id domain.SessionID) (projections.SessionView, error) {
	if id == "" || len(id) > maxIDText {
		return projections.SessionView{}, errNoSession
	}
	v, err := s.Views.Session(ctx, id)
	if r, ok := domain.AsRefusal(err); ok && r.Kind == domain.KindNotFound || err == nil && !who.sees(v.Owner) {
		return projections.SessionView{}, errNoSession
	}
	return v, err
}

// live reads the session that the request means, if it has not ended.
func (s *Server) live(ctx context.Context, c *call) (projections.SessionView, error) {
	v, err := s.session(ctx, c)
	if err == nil && v.Ended {
		err = gone(&v)
	}
	return v, err
}

// gone is the answer for a session that has ended: it does not exist any more, for the reason given.
func gone(v *projections.SessionView) error {
	why := string(v.State)
	if v.Reason != "" {
		why += ": " + v.Reason
	}
	return fail(http.StatusNotFound, "Session does not exist any more, it is %s", why)
}

func setCookie(w http.ResponseWriter, r *http.Request, id domain.SessionID) {
	value := cookieName + "=" + string(id) + "; Path=/"
	if secure(r) {
		value += "; Secure; SameSite=None" // pages of other sites have no other way to send it
	}
	w.Header().Add("Set-Cookie", value)
}

func forgetCookie(w http.ResponseWriter) {
	w.Header().Add("Set-Cookie", cookieName+"=; Path=/; Max-Age=0")
}
