package rrmv1

import (
	"fmt"
	"net/http"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// codes are what a state of a session is called in each dialect. A session that
// is being stopped has no state of its own here: for its client it is gone at once. What
// has ended is a 404, but that dialect B knows a failure.
var codes = map[string]map[pool.SessionState]int{
	DialectCookie: {
		pool.SessionStateOpened: 0, pool.SessionStateQueued: 1, pool.SessionStateStarting: 2, pool.SessionStateLoading: 2, pool.SessionStateReady: 3,
	},
	DialectSession: {
		pool.SessionStateOpened: 0, pool.SessionStateQueued: 2, pool.SessionStateStarting: 4, pool.SessionStateLoading: 4, pool.SessionStateReady: 5,
		pool.SessionStateFailed: 7, pool.SessionStateLost: 7,
	},
}

// standing is where a session stands: a dialect's code, and text for people.
func (s *Server) standing(v *projections.SessionView, dialect string) (int, string) {
	name := string(v.Renderer)
	text := name + " is " + string(v.State)
	switch v.State {
	case pool.SessionStateOpened:
		text = name + " is not started yet"
	case pool.SessionStateQueued:
		text = name + " is scheduled" + place(v.Queue)
	case pool.SessionStateStarting:
		text = name + " is starting" + place(v.Queue)
	case pool.SessionStateLoading:
		text = fmt.Sprintf("%s is loading %s", name, v.Model)
		if v.Progress > 0 {
			text += fmt.Sprintf(", %.0f %% done", 100*min(v.Progress, 1))
		}
	case pool.SessionStateReady:
		text = name + " is up and running"
		if v.Node != "" {
			text += " on " + v.Node
		}
		if v.Warning != "" {
			text += "; its resource is going: " + v.Warning
		}
	case pool.SessionStateFailed, pool.SessionStateLost:
		text = name + " failed"
		if v.Reason != "" {
			text += ": " + v.Reason
		}
	}
	return codes[dialect][v.State], text
}

func place(q *pool.Place) string {
	if q == nil {
		return ""
	}
	text := fmt.Sprintf(", at place %d of the queue, about %.0f s to go", q.Position, max(0, q.EstimatedWaitSeconds))
	if q.Reason != "" {
		text += ": " + q.Reason
	}
	return text
}

// status answers GET /session/status. It is the only sign of life that the
// predecessor's clients give, so it renews the lease, whatever the state.
func (s *Server) status(c *call) error {
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.session(ctx, c)
	if err != nil {
		return err
	}
	if !v.Ended && !c.who.reads() {
		if o := v.Overrides; o != nil && o.Identity != "" { // a newer one; or the first, after a restart of rrm
			if _, err := s.keepCredential(c, o.Identity); err != nil {
				return err
			}
		}
		_, err := s.Commands.RenewLease(ctx, c.who.call(), v.ID, 0)
		if r, ok := domain.AsRefusal(err); ok && (r.Kind == domain.KindConflict || r.Kind == domain.KindNotFound) {
			v, err = s.find(ctx, c.who, v.ID) // it has ended since
		}
		if err != nil {
			return err
		}
	}
	dialect := s.dialect(c.r)
	if _, said := codes[dialect][v.State]; !said {
		return gone(&v)
	}
	code, text := s.standing(&v, dialect)
	host, port := whereabouts(&v)
	said := say("%s", text)
	return answer(c.w, http.StatusOK, map[string]any{
		"session": v.ID, "session_id": v.ID, "code": code, "description": said.Description, "contents": said.Contents,
		"hostname": host, "port": port,
	})
}
