package projections

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/catalog"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Allocation is one slot given out: to whom, where, and why.
type Allocation struct {
	Position      int64             `json:"position"`
	At            time.Time         `json:"at"`
	Kind          string            `json:"kind"` // session or job
	ID            string            `json:"id"`
	Owner         domain.Owner      `json:"owner"`
	Model         domain.ModelKey   `json:"model"`
	Resource      domain.ResourceID `json:"resource"`
	Warm          bool              `json:"warm"`
	WaitedSeconds float64           `json:"waited_seconds"`
	SavedSeconds  float64           `json:"saved_seconds"` // expected seconds of loading avoided
	Reason        string            `json:"reason"`
}

// Totals is what a stretch of the log comes to.
type Totals struct {
	Allocations    int            `json:"allocations"`
	Warm           int            `json:"warm"`
	WarmRatio      float64        `json:"warm_ratio"` // 0 without allocations
	Loads          int            `json:"loads"`      // that something was loaded in
	LoadSeconds    float64        `json:"load_seconds"`
	AvoidedSeconds float64        `json:"avoided_seconds"` // of loading, expected
	Evictions      int            `json:"evictions"`
	WaitP50        float64        `json:"wait_p50_seconds"` // nearest rank, over all allocations; 0 without any
	WaitP95        float64        `json:"wait_p95_seconds"`
	Rejections     map[string]int `json:"rejections"` // by code
	ScaleUps       int            `json:"scale_ups"`  // decisions, not resources
	ScaleDowns     int            `json:"scale_downs"`
}

// Summary is what was allocated where and why, as the log tells it.
type Summary struct {
	From        int64        `json:"from"` // the events after this position ...
	To          int64        `json:"to"`   // ... up to this one, the head of the log when it was read
	Allocations []Allocation `json:"allocations"`
	Truncated   bool         `json:"truncated"` // only the last maxAllocations are listed; the totals are of all
	Totals      Totals       `json:"totals"`
}

// maxAllocations bounds the list of a summary; waits take 8 more bytes for each allocation beyond.
const maxAllocations = 10_000

// summaryQuery walks the positions of the log once. The head comes with the rows, of the same snapshot.
const summaryQuery = `
SELECT h.position AS head, e.position, e.type, e.schema, e.data, coalesce((e.meta->>'decided_at')::timestamptz, e.recorded_at) AS at
FROM log_head h LEFT JOIN events e ON e.position > $1 AND e.type IN
  ('session.allocated', 'job.assigned', 'model.loaded', 'model.evicted', 'session.rejected', 'job.rejected', 'pool.scaled')
ORDER BY e.position`

// Summary tells what happened after a position. It reads all of the log after
// it, one event at a time.
func (r *Reader) Summary(ctx context.Context, from int64) (Summary, error) {
	s := summing{Summary: Summary{From: from, To: from, Allocations: []Allocation{}}}
	s.Totals.Rejections = map[string]int{}
	rows, err := r.db.QueryxContext(ctx, summaryQuery, from)
	if err != nil {
		return Summary{}, fmt.Errorf("summarise the log after %d: %w", from, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var row struct {
			Head     int64
			Position *int64
			Type     *string
			Schema   *int
			Data     []byte
			At       *time.Time
		}
		if err := rows.StructScan(&row); err != nil {
			return Summary{}, fmt.Errorf("summarise the log after %d: %w", from, err)
		}
		s.To = max(s.To, row.Head)
		if row.Position == nil {
			continue
		}
		event, err := catalog.Decode(*row.Type, *row.Schema, row.Data)
		if err != nil {
			return Summary{}, fmt.Errorf("summarise event %d: %w", *row.Position, err)
		}
		s.add(*row.Position, event, row.At.UTC())
	}
	if err := rows.Err(); err != nil {
		return Summary{}, fmt.Errorf("summarise the log after %d: %w", from, err)
	}
	return s.finish(), nil
}

type summing struct {
	Summary
	waits []float64
}

func (s *summing) add(position int64, event pool.Event, at time.Time) {
	t := &s.Totals
	switch e := event.(type) {
	case pool.SessionAllocated:
		s.allocated(Allocation{position, at, pool.UserSession, string(e.Session), e.Owner, e.Model, e.Resource, e.Warm, e.Waited, e.Saved, e.Decision.Reason})
	case pool.JobAssigned:
		s.allocated(Allocation{position, at, pool.UserJob, string(e.Job), e.Owner, e.Model, e.Resource, e.Warm, e.Waited, e.Saved, e.Decision.Reason})
	case pool.ModelLoaded:
		if e.Seconds > 0 {
			t.Loads++
			t.LoadSeconds += e.Seconds
		}
	case pool.ModelEvicted:
		t.Evictions++
	case pool.SessionRejected:
		t.Rejections[e.Code]++
	case pool.JobRejected:
		t.Rejections[e.Code]++
	case pool.PoolScaled:
		if e.To > e.From {
			t.ScaleUps++
		} else if e.To < e.From {
			t.ScaleDowns++
		}
	}
}

func (s *summing) allocated(a Allocation) {
	s.Totals.Allocations++
	if a.Warm {
		s.Totals.Warm++
	}
	s.Totals.AvoidedSeconds += a.SavedSeconds
	s.waits = append(s.waits, a.WaitedSeconds)
	s.Allocations = append(s.Allocations, a)
	if len(s.Allocations) >= 2*maxAllocations { // seldom, so that the cost of moving is small for each
		s.trim()
	}
}

func (s *summing) trim() {
	if over := len(s.Allocations) - maxAllocations; over > 0 {
		s.Allocations, s.Truncated = slices.Delete(s.Allocations, 0, over), true
	}
}

func (s *summing) finish() Summary {
	s.trim()
	if t := &s.Totals; t.Allocations > 0 {
		t.WarmRatio = float64(t.Warm) / float64(t.Allocations)
		slices.Sort(s.waits)
		t.WaitP50, t.WaitP95 = nearestRank(s.waits, 0.50), nearestRank(s.waits, 0.95)
	}
	return s.Summary
}

// nearestRank is the least value that at least a share q of the sorted values do not exceed.
func nearestRank(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
