package rrmv1

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

const (
	sessionTrust = time.Second // how long a ready session's address is believed
	renewEvery   = time.Second
	lookEvery    = 2               // of the above, between two looks whether a session that is used is where it was
	storeWait    = 3 * time.Second // for one look in between
)

// target is a ready session, and the model that its renderer knows it by.
type target struct {
	view  projections.SessionView
	model domain.ModelKey // empty where only the renderer knows what it shows
}

// ready finds a session that can render. One that cannot is a fault with 400; it stays as it is.
func (s *Server) ready(ctx context.Context, c *call, id domain.SessionID) (target, error) {
	t, err := s.sessions.get(ctx, id, func(ctx context.Context) (target, error) { return s.look(ctx, id) })
	if err == nil && !c.who.sees(t.view.Owner) {
		err = errNoSession
	}
	return t, err
}

// look reads a session that can render. Only such are remembered: what becomes ready must be seen at once.
func (s *Server) look(ctx context.Context, id domain.SessionID) (t target, err error) {
	if id == "" || len(id) > maxIDText {
		return t, asRefusal(errNoSession)
	}
	if t.view, err = s.Views.Session(ctx, id); err != nil {
		if r, ok := domain.AsRefusal(err); ok && r.Kind == domain.KindNotFound {
			return t, asRefusal(errNoSession)
		}
		return t, err
	}
	switch v := &t.view; {
	case v.Ended:
		return t, domain.NotFound("session", string(id))
	case v.State != pool.SessionStateReady || v.Address == "":
		_, text := s.standing(v, DialectSession)
		return t, domain.Invalid("session", "%s", text)
	}
	set, err := s.settings(ctx, t.view.Renderer)
	if err == nil && loads(&set) {
		t.model = t.view.Model
	}
	return t, err
}

// asRefusal lets the cache know that this is an answer and no failure of the store.
func asRefusal(f *fault) error {
	return &domain.Refusal{Kind: domain.KindNotFound, Code: "session_not_found", Reason: f.text}
}

// hold keeps a session while one of its requests is under way: its context
// ends when the session ends or moves, and the lease is renewed as long as active is
// called. end must be called when the request is over.
func (s *Server) hold(ctx context.Context, c *call, t target) (held context.Context, active func(), end func()) {
	held, cancel := context.WithCancel(ctx)
	who, id := c.who, t.view.ID
	if s.renewed.first(id, min(renewEvery, time.Duration(t.view.LeaseSeconds*float64(time.Second)/4))) {
		s.renew(held, who, id, cancel)
	}
	var flowed atomic.Bool
	s.holding.Lock()
	defer s.holding.Unlock()
	select {
	case <-s.closed:
		cancel()
		return held, func() {}, cancel
	default:
	}
	s.holds.Go(func() {
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-held.Done():
				return
			case <-s.closed:
				cancel()
				return
			case <-tick.C:
			}
			if flowed.Swap(false) {
				s.renew(held, who, id, cancel)
			}
			if n%lookEvery == 0 {
				s.still(held, t, cancel)
			}
		}
	})
	return held, func() { flowed.Store(true) }, cancel
}

// renew renews a lease, and gives up what is open if there is nothing to renew.
func (s *Server) renew(ctx context.Context, who caller, id domain.SessionID, giveUp func()) {
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	_, err := s.Commands.RenewLease(ctx, who.call(), id, 0)
	if r, ok := domain.AsRefusal(err); ok && (r.Kind == domain.KindConflict || r.Kind == domain.KindNotFound) {
		s.sessions.forget(id)
		giveUp()
	} else if err != nil && ctx.Err() == nil {
		s.log.Info("a lease was not renewed", "session", id, "error", err)
	}
}

// still gives up what is open if the session is not where it was.
func (s *Server) still(ctx context.Context, t target, giveUp func()) {
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	now, err := s.look(ctx, t.view.ID)
	_, refused := domain.AsRefusal(err)
	if refused || err == nil && now.view.Address != t.view.Address {
		s.sessions.forget(t.view.ID)
		giveUp()
	}
}
