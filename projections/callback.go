package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/catalog"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// Notice is what the receiver of a callback is told: that a job has ended, and how.
type Notice struct {
	Job      domain.JobID  `json:"job"`
	State    pool.JobState `json:"state"`
	Code     string        `json:"code,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Position int64         `json:"position"` // of the event that ended it
	EndedAt  time.Time     `json:"ended_at"`
}

// Callback is a notice that is to be delivered.
type Callback struct {
	Job      domain.JobID    `db:"job_id"`
	URL      string          `db:"url"`
	Body     json.RawMessage `db:"body"`
	Attempts int             `db:"attempts"`
}

// jobEnds are the events that end a job.
var jobEnds = []string{"job.succeeded", "job.failed", "job.cancelled"}

// CallbackFollower notes, once for each job that named a callback_url, that its end is to be told.
func CallbackFollower() eventstore.Follower {
	return eventstore.Follower{Name: "callbacks", Generation: 1, Run: timelineRun, Only: jobEnds, Apply: noteCallbacks}
}

func noteCallbacks(ctx context.Context, tx *sql.Tx, run []eventstore.Event) error {
	for _, e := range run {
		n, err := noticeOf(e)
		if err != nil {
			return err
		}
		if n == nil {
			continue
		}
		body, err := json.Marshal(n)
		if err != nil {
			return fmt.Errorf("encode notice: %w", err)
		}
		// The job's row is at least as new as the event, and its URL never changes.
		if _, err := tx.ExecContext(ctx, `INSERT INTO callbacks (job_id, url, body)
			SELECT id, body->>'callback_url', $2::jsonb FROM jobs WHERE id = $1 AND coalesce(body->>'callback_url', '') <> ''
			ON CONFLICT (job_id) DO NOTHING`, string(n.Job), string(body)); err != nil {
			return fmt.Errorf("note callback: %w", err)
		}
	}
	return nil
}

func noticeOf(e eventstore.Event) (*Notice, error) {
	if !slices.Contains(jobEnds, e.Type) {
		return nil, nil
	}
	ev, err := catalog.Decode(e.Type, e.Schema, e.Data)
	if err != nil {
		return nil, err
	}
	n := &Notice{Position: e.Position, EndedAt: e.Meta.DecidedAt}
	switch j := ev.(type) {
	case pool.JobSucceeded:
		n.Job, n.State = j.Job, pool.JobStateSucceeded
	case pool.JobFailed:
		n.Job, n.State, n.Code, n.Reason = j.Job, pool.JobStateFailed, j.Code, j.Reason
	case pool.JobCancelled:
		n.Job, n.State, n.Code, n.Reason = j.Job, pool.JobStateCancelled, "cancelled", j.Reason
	}
	return n, nil
}

// Callbacks are the notices that wait to be delivered.
type Callbacks struct{ db *sqlx.DB }

// NewCallbacks reads and writes the notices of a database.
func NewCallbacks(db *sqlx.DB) *Callbacks { return &Callbacks{db: db} }

// Due are the notices whose time has come, at most limit.
func (c *Callbacks) Due(ctx context.Context, limit int) ([]Callback, error) {
	var due []Callback
	err := c.db.SelectContext(ctx, &due, `SELECT job_id, url, body, attempts FROM callbacks
		WHERE done_at IS NULL AND next_at <= clock_timestamp() ORDER BY next_at LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read due callbacks: %w", err)
	}
	return due, nil
}

// Settle notes an attempt: done, or to be tried again after wait; no wait means given up.
func (c *Callbacks) Settle(ctx context.Context, job domain.JobID, problem string, wait time.Duration) error {
	_, err := c.db.ExecContext(ctx, `UPDATE callbacks SET attempts = attempts + 1, last_error = $2,
		next_at = clock_timestamp() + $3 * interval '1 second', done_at = CASE WHEN $3 = 0 THEN clock_timestamp() END
		WHERE job_id = $1`, string(job), problem, wait.Seconds())
	if err != nil {
		return fmt.Errorf("note an attempt of a callback: %w", err)
	}
	return nil
}

// Prune forgets notices that were settled longer ago than olderThan.
func (c *Callbacks) Prune(ctx context.Context, olderThan time.Duration) error {
	_, err := c.db.ExecContext(ctx, `DELETE FROM callbacks WHERE done_at < clock_timestamp() - $1 * interval '1 second'`, olderThan.Seconds())
	if err != nil {
		return fmt.Errorf("forget callbacks: %w", err)
	}
	return nil
}
