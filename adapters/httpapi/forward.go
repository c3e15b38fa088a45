package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

const (
	sessionTrust = 2 * time.Second // how long a ready session's address is believed
	renewEvery   = time.Second
	maxIDText    = 128
)

// forward answers ANY /sessions/{id}/renderer/*. Where a request goes is
// decided by the session's id alone; nothing in the path, query or headers can name another place.
func (s *Server) forward(c echo.Context) error {
	r := c.Request()
	raw := c.Param("id")
	id := raw
	if r.URL.RawPath != "" {
		plain, err := url.PathUnescape(raw)
		if err != nil {
			return domain.NotFound("session", raw)
		}
		id = plain
	}
	if id == "" || len(id) > maxIDText || strings.ContainsAny(id, "/\\%") {
		return domain.NotFound("session", id)
	}
	v, err := s.sessions.find(r.Context(), domain.SessionID(id))
	if err != nil {
		return err
	}
	if !callerOf(c).sees(v.Owner) {
		return domain.NotFound("session", id)
	}
	if err := readiness(v); err != nil {
		return err
	}
	ctx, usage, end := s.sessions.use(r.Context(), v)
	defer end()
	r = r.WithContext(ctx)
	r.Header = r.Header.Clone()
	r.Header.Del("Authorization") // our token is nothing for a renderer
	to := Target{Address: v.Address, Prefix: BasePath + "/sessions/" + escaped(r, raw) + "/renderer", Session: v.ID, Model: v.Model}
	var refused *problem
	s.Forward.Forward(c.Response(), r, to, usage.active, func(status int, code, reason string) {
		refused = fail(status, code, "", "%s", reason)
	})
	if refused == nil {
		return nil
	}
	if ctx.Err() != nil && c.Request().Context().Err() == nil { // the session went away under it
		if v, err := s.sessions.find(c.Request().Context(), v.ID); err != nil {
			return err
		} else if err := readiness(v); err != nil {
			return err
		}
	}
	return refused
}

// escaped is the id as it stands in the escaped path, where the prefix is cut off.
func escaped(r *http.Request, raw string) string {
	rest := strings.TrimPrefix(r.URL.EscapedPath(), BasePath+"/sessions/")
	if id, _, ok := strings.Cut(rest, "/"); ok {
		return id
	}
	return raw
}

// readiness says why a session cannot be forwarded to, if it cannot.
func readiness(v projections.SessionView) error {
	switch {
	case v.Ended:
		why := "the session is " + string(v.State)
		if v.Reason != "" {
			why += ": " + v.Reason
		}
		return fail(http.StatusGone, codeEnded, "", "%s", why)
	case v.State != pool.SessionStateReady || v.Address == "":
		p := fail(http.StatusConflict, codeNotReady, "", "the session is %s", v.State)
		wait := time.Second
		if v.Queue != nil {
			p.Detail += ", at place " + strconv.Itoa(v.Queue.Position) + " of the queue: " + v.Queue.Reason
			wait = min(max(wait, time.Duration(seconds(v.Queue.EstimatedWaitSeconds)*float64(time.Second))), 30*time.Second)
		}
		return p.retry(wait)
	}
	return nil
}

// sessionCache remembers where ready sessions are, so that frames do not cost a
// look into the store each, and flow on while the store is away. For those in
// use it renews the lease, and ends what is open when the session ends or moves.
type sessionCache struct {
	server *Server
	known  *lru[domain.SessionID, projections.SessionView]
	done   sync.WaitGroup

	mu     sync.Mutex
	used   map[domain.SessionID]*usage
	closed bool
}

// usage is one session with requests under way, or a moment ago.
type usage struct {
	cache  *sessionCache
	view   projections.SessionView
	ctx    context.Context //nolint:containedctx // the usage's own: many requests share it, and it outlives each of them
	cancel context.CancelFunc
	users  int // under cache.mu

	mu     sync.Mutex
	latest time.Time // of activity
}

func newSessionCache(s *Server) *sessionCache {
	return &sessionCache{
		server: s, known: newLRU[domain.SessionID, projections.SessionView](rememberMax, sessionTrust), used: map[domain.SessionID]*usage{},
	}
}

// close ends what is open, and waits for what was begun. What is used later ends at once.
func (k *sessionCache) close() {
	k.mu.Lock()
	k.closed = true
	for _, u := range k.used {
		u.cancel()
	}
	k.mu.Unlock()
	k.done.Wait()
}

// find reads a session. Only ready ones are remembered: what becomes ready must be seen at once.
func (k *sessionCache) find(ctx context.Context, id domain.SessionID) (projections.SessionView, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	v, err := k.known.get(ctx, id, func(ctx context.Context) (projections.SessionView, error) {
		return k.server.Views.Session(ctx, id)
	})
	if err == nil && readiness(v) != nil {
		k.known.forget(id)
	}
	return v, err
}

// ended ends what is open of a session that has ended, or is not where it was.
func (k *sessionCache) ended(id domain.SessionID) {
	k.known.forget(id)
	k.mu.Lock()
	defer k.mu.Unlock()
	if u := k.used[id]; u != nil {
		u.cancel()
		delete(k.used, id)
	}
}

// use joins the requests of a session. Their context ends when the session
// ends or moves; end must be called when the request is over.
func (k *sessionCache) use(ctx context.Context, v projections.SessionView) (context.Context, *usage, func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	u := k.used[v.ID]
	if u == nil || u.view.Address != v.Address || u.ctx.Err() != nil {
		if u != nil {
			u.cancel()
		}
		u = &usage{cache: k, view: v}
		u.ctx, u.cancel = context.WithCancel(context.Background())
		k.used[v.ID] = u
		if k.closed {
			u.cancel()
		} else {
			k.done.Go(u.keep)
		}
	}
	u.users++
	u.active()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(u.ctx, cancel)
	return ctx, u, func() {
		stop()
		cancel()
		k.mu.Lock()
		defer k.mu.Unlock()
		u.users--
	}
}

// active notes that bytes flowed.
func (u *usage) active() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.latest = time.Now()
}

func (u *usage) lastActive() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.latest
}

// keep renews the lease, once a second at most, as long as there is activity,
// and looks now and then whether the session is still where it was when there is none.
func (u *usage) keep() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	var renewed, looked time.Time
	for {
		now := time.Now()
		switch {
		case u.lastActive().After(renewed):
			if u.renew() {
				renewed, looked = now, now
			}
		case now.Sub(looked) >= sessionTrust:
			u.look()
			looked = now
		}
		if u.ctx.Err() != nil || u.idle(renewed) {
			return
		}
		select {
		case <-u.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// renew says whether what happened up to now is renewed for.
func (u *usage) renew() bool {
	ctx, cancel := context.WithTimeout(u.ctx, storeWait)
	defer cancel()
	expires, err := u.cache.server.Commands.RenewLease(ctx, commands.Call{Actor: "process:forward"}, u.view.ID, 0)
	if r, ok := domain.AsRefusal(err); ok && (r.Kind == domain.KindConflict || r.Kind == domain.KindNotFound) {
		u.cache.ended(u.view.ID)
	}
	if err != nil {
		return false
	}
	if expires.IsZero() { // it waits or loads: it moved
		u.look()
	}
	return true
}

// look ends what is open if the session is not where it was.
func (u *usage) look() {
	ctx, cancel := context.WithTimeout(u.ctx, storeWait)
	defer cancel()
	v, err := u.cache.server.Views.Session(ctx, u.view.ID)
	r, refused := domain.AsRefusal(err)
	switch {
	case err == nil && readiness(v) == nil && v.Address == u.view.Address:
	case err == nil, refused && r.Kind == domain.KindNotFound:
		u.cache.ended(u.view.ID)
	}
}

// lingerMax is how long a session without requests is still tried to be renewed for its last one.
const lingerMax = 5 * time.Second

// idle ends the usage when nobody uses the session and its last activity is
// renewed for. It outlives short requests, so that many of them cost one renewal a second.
func (u *usage) idle(renewed time.Time) bool {
	k := u.cache
	k.mu.Lock()
	defer k.mu.Unlock()
	latest := u.lastActive()
	if u.users > 0 || latest.After(renewed) && time.Since(latest) < lingerMax || time.Since(latest) < renewEvery {
		return false
	}
	if k.used[u.view.ID] == u {
		delete(k.used, u.view.ID)
	}
	u.cancel()
	return true
}
