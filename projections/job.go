package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// JobView is a job and how far it is.
type JobView struct {
	pool.Job
	Progress float64     `json:"progress"`        // 0 to 1
	Queue    *pool.Place `json:"queue,omitempty"` // while it waits, for a slot or for other jobs
}

// JobFilter chooses jobs; empty fields choose all, ended ones too.
type JobFilter struct {
	Renderer, Model, Owner, State, Kind string
}

var (
	liveJobStates  = names(pool.JobStateWaiting, pool.JobStateQueued, pool.JobStateAssigned, pool.JobStateRunning)
	endedJobStates = names(pool.JobStateSucceeded, pool.JobStateFailed, pool.JobStateCancelled)
	jobKinds       = []string{pool.JobImage, pool.JobFrames, pool.JobVideo}
)

// jobQuery completes a page of jobs in one query, see sessionQuery. Progress
// counts only while the job runs: what an attempt that failed had reached says nothing about the next.
const jobQuery = `
WITH page AS MATERIALIZED (%s),
queue AS (
  SELECT id, row_number() OVER (PARTITION BY renderer ORDER BY (body->>'priority')::int DESC,
    CASE WHEN body->>'late' IS NULL THEN (body->>'deadline')::timestamptz END, seq) - 1 AS ahead FROM jobs
  WHERE NOT ended AND state = 'queued'
    AND renderer = ANY (ARRAY(SELECT DISTINCT renderer FROM page WHERE state = 'queued'))
),
uses AS MATERIALIZED (
  SELECT renderer, owner, count(*) AS running FROM jobs
  WHERE NOT ended AND state IN ('assigned', 'running')
    AND renderer = ANY (ARRAY(SELECT DISTINCT renderer FROM page WHERE state = 'queued'))
  GROUP BY renderer, owner
),
firsts AS MATERIALIZED (
  SELECT renderer, count(*) AS sessions FROM sessions
  WHERE NOT ended AND state IN ('queued', 'starting')
    AND renderer = ANY (ARRAY(SELECT DISTINCT renderer FROM page WHERE state = 'queued'))
  GROUP BY renderer
)
SELECT j.body, q.ahead, coalesce(u.running, 0) AS running, coalesce(f.sessions, 0) AS sessions,
  CASE j.state WHEN 'succeeded' THEN 1 WHEN 'running' THEN coalesce(l.progress, 0) WHEN 'waiting' THEN coalesce(p.progress, 0) ELSE 0 END::double precision AS progress
FROM page j
LEFT JOIN queue q ON q.id = j.id
LEFT JOIN firsts f ON q.id IS NOT NULL AND f.renderer = j.renderer
LEFT JOIN uses u ON q.id IS NOT NULL AND u.renderer = j.renderer AND u.owner = j.owner
LEFT JOIN LATERAL (
  SELECT avg(CASE o.state WHEN 'succeeded' THEN 1 WHEN 'running' THEN coalesce(m.progress, 0) ELSE 0 END) AS progress
  FROM jsonb_array_elements(j.body->'parts') x JOIN jobs o ON o.id = x->>'job'
  LEFT JOIN liveness m ON m.kind = 'job' AND m.id = o.id
) p ON j.state = 'waiting' AND j.body ? 'parts'
LEFT JOIN liveness l ON l.kind = 'job' AND l.id = j.id
ORDER BY j.seq DESC`

// Jobs gives a page of jobs, newest first, and the cursor of the next page, empty at the end.
func (r *Reader) Jobs(ctx context.Context, f JobFilter, p Page) ([]JobView, string, error) {
	l, err := newList("jobs", p)
	if err != nil {
		return nil, "", err
	}
	if f.Kind != "" && !slices.Contains(jobKinds, f.Kind) {
		return nil, "", domain.Invalid("kind", "there is no kind of job %q", f.Kind)
	}
	if f.Model != "" {
		l.parts = []string{partLive, partEnded}
	}
	if err := l.state(f.State, liveJobStates, endedJobStates); err != nil {
		return nil, "", err
	}
	l.equal("renderer", f.Renderer)
	l.equal("model", f.Model)
	l.equal("owner", f.Owner)
	l.equal("kind", f.Kind)
	out, err := r.jobs(ctx, l.query(), l.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list jobs: %w", err)
	}
	out, next := cut(out, l.limit, func(v *JobView) int64 { return v.Seq })
	return out, next, nil
}

// Job gives one job, also one that has ended.
func (r *Reader) Job(ctx context.Context, id domain.JobID) (JobView, error) {
	if !plain(string(id)) {
		return JobView{}, domain.NotFound("job", string(id))
	}
	all, err := r.jobs(ctx, `SELECT * FROM jobs WHERE id = $1`, string(id))
	if err != nil {
		return JobView{}, fmt.Errorf("read job %s: %w", id, err)
	}
	if len(all) == 0 {
		return JobView{}, domain.NotFound("job", string(id))
	}
	return all[0], nil
}

func (r *Reader) jobs(ctx context.Context, page string, args ...any) ([]JobView, error) {
	var rows []struct {
		Body     []byte
		Ahead    sql.NullInt64
		Running  int
		Sessions int
		Progress float64
	}
	if err := r.db.SelectContext(ctx, &rows, fmt.Sprintf(jobQuery, page), args...); err != nil {
		return nil, err
	}
	out := make([]JobView, len(rows))
	var q queue
	for i, row := range rows {
		v := &out[i]
		if err := json.Unmarshal(row.Body, &v.Job); err != nil {
			return nil, fmt.Errorf("read a job's body: %w", err)
		}
		v.Progress = row.Progress
		if row.Ahead.Valid {
			q.add(waiter{renderer: v.Renderer, model: v.Model, ahead: int(row.Ahead.Int64), sessions: row.Sessions, job: &v.Job, running: row.Running, place: &v.Queue})
		}
	}
	if err := q.places(ctx, r.db, r.now()); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].explain()
	}
	return out, nil
}

// explain says what a job waits for that waits for other jobs, as pool.State.PlaceOfJob does.
func (v *JobView) explain() {
	if v.State == pool.JobStateWaiting {
		place := v.WaitsFor()
		v.Queue = &place
	}
}

// Result opens what a job made, see Results.Open. The caller closes it.
func (r *Reader) Result(ctx context.Context, id domain.JobID) (ResultInfo, io.ReadCloser, error) {
	return r.out.Open(ctx, id)
}
