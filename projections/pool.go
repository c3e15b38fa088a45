package projections

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// PoolView is a pool and what is going on in it.
type PoolView struct {
	pool.Pool
	Sizes             map[pool.ResourceState]int `json:"sizes"`       // resources that have not ended, by state
	SlotsTotal        int                        `json:"slots_total"` // of ready resources
	SlotsFree         int                        `json:"slots_free"`
	QueuedSessions    int                        `json:"queued_sessions"` // that wait for a slot
	QueuedJobs        int                        `json:"queued_jobs"`     // that wait for a slot
	WaitingJobs       int                        `json:"waiting_jobs"`    // that wait for other jobs
	RunningJobs       int                        `json:"running_jobs"`    // that hold a slot
	OldestWaitSeconds float64                    `json:"oldest_wait_seconds"`
}

// Pools gives all pools that were not removed, by the renderer's id.
func (r *Reader) Pools(ctx context.Context) ([]pool.Pool, error) {
	out, err := bodies[pool.Pool](ctx, r.db,
		`SELECT body FROM pools WHERE NOT coalesce((body->>'removed')::boolean, false) ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	return out, nil
}

const poolQuery = `
SELECT p.body, u.sizes, coalesce(u.total, 0) AS total, coalesce(u.free, 0) AS free,
  coalesce(s.queued, 0) AS queued_sessions, coalesce(j.queued, 0) AS queued_jobs, coalesce(j.waiting, 0) AS waiting_jobs,
  coalesce(j.running, 0) AS running_jobs,
  greatest(0, coalesce(extract(epoch FROM clock_timestamp() - least(s.oldest, j.oldest)), 0))::double precision AS oldest
FROM pools p
LEFT JOIN LATERAL (
  SELECT json_object_agg(state, n) AS sizes, sum(total) AS total, sum(free) AS free FROM (
    SELECT state, count(*) AS n,
      sum((body->>'slots')::int) FILTER (WHERE state = 'ready') AS total,
      sum(greatest(0, (body->>'slots')::int
        - CASE jsonb_typeof(body->'users') WHEN 'array' THEN jsonb_array_length(body->'users') ELSE 0 END)) FILTER (WHERE state = 'ready') AS free
    FROM resources WHERE renderer = p.id AND NOT ended GROUP BY state) AS by_state
) u ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS queued, min((body->>'requested_at')::timestamptz) AS oldest
  FROM sessions WHERE renderer = p.id AND NOT ended AND state IN ('queued', 'starting')
) s ON true
LEFT JOIN LATERAL (
  SELECT count(*) FILTER (WHERE state = 'queued') AS queued, count(*) FILTER (WHERE state = 'waiting') AS waiting,
    count(*) FILTER (WHERE state IN ('assigned', 'running')) AS running,
    min(coalesce(body->>'queued_at', body->>'submitted_at')::timestamptz) FILTER (WHERE state = 'queued') AS oldest
  FROM jobs WHERE renderer = p.id AND NOT ended
) j ON true
WHERE p.id = $1 AND NOT coalesce((p.body->>'removed')::boolean, false)`

// Pool gives one pool with its sizes and queue; not_found if it was removed or never there.
func (r *Reader) Pool(ctx context.Context, id domain.RendererID) (PoolView, error) {
	var rows []struct {
		Body           []byte
		Sizes          []byte
		Total, Free    int
		QueuedSessions int `db:"queued_sessions"`
		QueuedJobs     int `db:"queued_jobs"`
		WaitingJobs    int `db:"waiting_jobs"`
		RunningJobs    int `db:"running_jobs"`
		Oldest         float64
	}
	if !plain(string(id)) {
		return PoolView{}, domain.NotFound("renderer", string(id))
	}
	if err := r.db.SelectContext(ctx, &rows, poolQuery, string(id)); err != nil {
		return PoolView{}, fmt.Errorf("read pool %s: %w", id, err)
	}
	if len(rows) == 0 {
		return PoolView{}, domain.NotFound("renderer", string(id))
	}
	row := rows[0]
	v := PoolView{
		Sizes: map[pool.ResourceState]int{}, SlotsTotal: row.Total, SlotsFree: row.Free,
		QueuedSessions: row.QueuedSessions, QueuedJobs: row.QueuedJobs, WaitingJobs: row.WaitingJobs, RunningJobs: row.RunningJobs,
		OldestWaitSeconds: row.Oldest,
	}
	if err := json.Unmarshal(row.Body, &v.Pool); err != nil {
		return PoolView{}, fmt.Errorf("read pool %s: %w", id, err)
	}
	if row.Sizes != nil {
		if err := json.Unmarshal(row.Sizes, &v.Sizes); err != nil {
			return PoolView{}, fmt.Errorf("read the sizes of pool %s: %w", id, err)
		}
	}
	return v, nil
}

// Service gives the settings of the whole service. One that nobody has changed is open.
func (r *Reader) Service(ctx context.Context) (pool.Service, error) {
	all, err := bodies[pool.Service](ctx, r.db, `SELECT body FROM service ORDER BY position DESC LIMIT 1`)
	if err != nil {
		return pool.Service{}, fmt.Errorf("read the service's settings: %w", err)
	}
	if len(all) == 0 {
		return pool.Service{Open: true}, nil
	}
	return all[0], nil
}
