package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// SessionView is a session and where it stands.
type SessionView struct {
	pool.Session
	LeaseExpiresAt *time.Time  `json:"lease_expires_at,omitempty"` // while it is ready, by the database's clock
	Queue          *pool.Place `json:"queue,omitempty"`            // while it waits for a slot
	Address        string      `json:"address,omitempty"`          // of its resource
	Node           string      `json:"node,omitempty"`
	Progress       float64     `json:"progress,omitempty"` // 0 to 1, of the load that it waits for
}

// SessionFilter chooses sessions; empty fields choose all, ended ones too.
type SessionFilter struct {
	Renderer, Model, Owner, State, Resource string
}

var (
	liveSessionStates  = names(pool.SessionStateOpened, pool.SessionStateQueued, pool.SessionStateStarting, pool.SessionStateLoading, pool.SessionStateReady)
	endedSessionStates = names(pool.SessionStateReleased, pool.SessionStateExpired, pool.SessionStateLost, pool.SessionStateFailed)
)

// sessionQuery completes a page of sessions in one query. queue numbers who
// waits in the pools of those sessions of the page that wait: nothing, if none does.
const sessionQuery = `
WITH page AS MATERIALIZED (%s),
queue AS (
  SELECT id, row_number() OVER (PARTITION BY renderer ORDER BY seq) - 1 AS ahead FROM sessions
  WHERE NOT ended AND state IN ('queued', 'starting')
    AND renderer = ANY (ARRAY(SELECT DISTINCT renderer FROM page WHERE state IN ('queued', 'starting')))
)
SELECT s.body, q.ahead, CASE WHEN s.state = 'ready' OR (s.body->>'leased_throughout')::boolean THEN l.expires_at END AS expires_at,
  coalesce(g.progress, 0) AS progress,
  coalesce(r.body->>'address', '') AS address, coalesce(r.body->>'node', '') AS node
FROM page s
LEFT JOIN queue q ON q.id = s.id
LEFT JOIN liveness l ON l.kind = 'session' AND l.id = s.id
LEFT JOIN resources r ON r.id = s.resource
LEFT JOIN liveness g ON s.state = 'loading' AND g.kind = 'model' AND g.id = s.resource || '/' || s.model
ORDER BY s.seq DESC`

// Sessions gives a page of sessions, newest first, and the cursor of the next page, empty at the end.
func (r *Reader) Sessions(ctx context.Context, f SessionFilter, p Page) ([]SessionView, string, error) {
	l, err := newList("sessions", p)
	if err != nil {
		return nil, "", err
	}
	if f.Model != "" || f.Resource != "" {
		l.parts = []string{partLive, partEnded}
	}
	if err := l.state(f.State, liveSessionStates, endedSessionStates); err != nil {
		return nil, "", err
	}
	l.equal("renderer", f.Renderer)
	l.equal("model", f.Model)
	l.equal("owner", f.Owner)
	l.equal("resource", f.Resource)
	out, err := r.sessions(ctx, l.query(), l.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	out, next := cut(out, l.limit, func(v *SessionView) int64 { return v.Seq })
	return out, next, nil
}

// Session gives one session, also one that has ended.
func (r *Reader) Session(ctx context.Context, id domain.SessionID) (SessionView, error) {
	if !plain(string(id)) {
		return SessionView{}, domain.NotFound("session", string(id))
	}
	all, err := r.sessions(ctx, `SELECT * FROM sessions WHERE id = $1`, string(id))
	if err != nil {
		return SessionView{}, fmt.Errorf("read session %s: %w", id, err)
	}
	if len(all) == 0 {
		return SessionView{}, domain.NotFound("session", string(id))
	}
	return all[0], nil
}

func (r *Reader) sessions(ctx context.Context, page string, args ...any) ([]SessionView, error) {
	var rows []struct {
		Body          []byte
		Ahead         sql.NullInt64
		ExpiresAt     sql.NullTime `db:"expires_at"`
		Address, Node string
		Progress      float64
	}
	if err := r.db.SelectContext(ctx, &rows, fmt.Sprintf(sessionQuery, page), args...); err != nil {
		return nil, err
	}
	out := make([]SessionView, len(rows))
	var q queue
	for i, row := range rows {
		v := &out[i]
		if err := json.Unmarshal(row.Body, &v.Session); err != nil {
			return nil, fmt.Errorf("read a session's body: %w", err)
		}
		v.Address, v.Node, v.Progress = row.Address, row.Node, row.Progress
		if row.ExpiresAt.Valid {
			at := row.ExpiresAt.Time.UTC()
			v.LeaseExpiresAt = &at
		}
		if row.Ahead.Valid {
			q.add(waiter{renderer: v.Renderer, model: v.Model, key: v.Overrides.Key(), ahead: int(row.Ahead.Int64), place: &v.Queue})
		}
	}
	return out, q.places(ctx, r.db, r.now())
}
