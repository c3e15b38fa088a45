package projections

import (
	"math"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestSummary(t *testing.T) {
	w := newWorld(t)
	s, err := w.reader.Summary(t.Context(), 0)
	w.ok(err)
	if s.To != 0 || s.Allocations == nil || len(s.Allocations) != 0 || s.Totals.Rejections == nil {
		t.Errorf("of an empty log: %s", asJSON(t, s))
	}
	w.renderer("brayns", 1)
	w.renderer("none", 0)
	w.book("brayns", "s1", "circuit:1", "alice")
	w.serve("brayns") // 2 s until it is ready, then 3 s of loading
	w.do(pool.ReleaseSession{Session: "s1"})
	w.book("brayns", "s2", "circuit:1", "bob") // warm at once
	w.pass(7 * time.Second)
	w.do(pool.SubmitJob{Job: "j1", Renderer: "brayns", Model: "circuit:2", Kind: pool.JobImage, Owner: "alice"})
	w.pass(5 * time.Second)
	w.do(pool.ReleaseSession{Session: "s2"}) // the job evicts circuit:1
	w.load("brayns")
	_, _ = w.try(pool.BookResource{Session: "s3", Renderer: "none", Model: "m", Owner: "alice"})

	s, err = w.reader.Summary(t.Context(), 0)
	w.ok(err)
	head, _, err := w.log.Head(t.Context())
	w.ok(err)
	if s.From != 0 || s.To != head || s.Truncated || len(s.Allocations) != 3 {
		t.Fatalf("the summary is %s", asJSON(t, s))
	}
	resource := w.state.ResourcesOf("brayns")[0].ID
	for i, want := range []Allocation{
		{Kind: "session", ID: "s1", Owner: "alice", Model: "circuit:1", Warm: false, WaitedSeconds: 2},
		{Kind: "session", ID: "s2", Owner: "bob", Model: "circuit:1", Warm: true, WaitedSeconds: 0, SavedSeconds: 3},
		{Kind: "job", ID: "j1", Owner: "alice", Model: "circuit:2", Warm: false, WaitedSeconds: 5},
	} {
		got := s.Allocations[i]
		if got.Reason == "" || got.Position == 0 || got.At.IsZero() {
			t.Errorf("allocation %d lacks a reason, position or time: %s", i, asJSON(t, got))
		}
		want.Resource, want.Position, want.At, want.Reason = resource, got.Position, got.At, got.Reason
		if got != want {
			t.Errorf("allocation %d is %s, want %s", i, asJSON(t, got), asJSON(t, want))
		}
	}
	want := Totals{Allocations: 3, Warm: 1, WarmRatio: 1.0 / 3, Loads: 2, LoadSeconds: 6, AvoidedSeconds: 3, Evictions: 1,
		WaitP50: 2, WaitP95: 5, Rejections: map[string]int{"no_capacity": 1}, ScaleUps: 1}
	if asJSON(t, s.Totals) != asJSON(t, want) {
		t.Errorf("the totals are %s, want %s", asJSON(t, s.Totals), asJSON(t, want))
	}
	part, err := w.reader.Summary(t.Context(), s.Allocations[1].Position)
	if err != nil || part.Totals.Allocations != 1 || part.Allocations[0].ID != "j1" {
		t.Errorf("after a position the summary is %s, %v", asJSON(t, part), err)
	}
}

func TestSummaryIsBounded(t *testing.T) {
	var s summing
	s.Totals.Rejections = map[string]int{}
	const n = 3*maxAllocations + 1
	for i := range n {
		s.add(int64(i+1), pool.SessionAllocated{Session: domain.SessionID("s"), Waited: float64(i), Saved: 0.5, Warm: i%2 == 0}, time.Time{})
	}
	out := s.finish()
	if !out.Truncated || len(out.Allocations) != maxAllocations || out.Allocations[maxAllocations-1].Position != n || out.Allocations[0].Position != n-maxAllocations+1 {
		t.Errorf("%d allocations, truncated %v, from %d", len(out.Allocations), out.Truncated, out.Allocations[0].Position)
	}
	if out.Totals.Allocations != n || out.Totals.WaitP50 != (n-1)/2 || out.Totals.AvoidedSeconds != n*0.5 {
		t.Errorf("the totals are %+v", out.Totals)
	}
}

func TestSummaryCountsScaling(t *testing.T) {
	s := summing{}
	for _, e := range []pool.PoolScaled{{From: 0, To: 2}, {From: 2, To: 3}, {From: 3, To: 0}, {From: 1, To: 1}} {
		s.add(1, e, time.Time{})
	}
	s.add(2, pool.ModelLoaded{Seconds: 0}, time.Time{})
	if s.Totals.ScaleUps != 2 || s.Totals.ScaleDowns != 1 || s.Totals.Loads != 0 {
		t.Errorf("the totals are %+v", s.Totals)
	}
}

func TestSummaryReportsWhatItCannotRead(t *testing.T) {
	w := newWorld(t)
	fillLog(t, w, 10, func(int) bool { return false })
	mustExec(t, w.db, `INSERT INTO events (position, stream, version, type, schema, data, meta) VALUES (11, 'pool/a', 11, 'session.allocated', 99, '{}', '{}')`)
	if _, err := w.reader.Summary(t.Context(), 0); err == nil {
		t.Error("an event of a schema of the future is left out")
	}
}

func TestNearestRank(t *testing.T) {
	for _, c := range []struct {
		sorted []float64
		q      float64
		want   float64
	}{
		{[]float64{7}, 0.5, 7}, {[]float64{7}, 0.95, 7}, {[]float64{1, 2}, 0.5, 1}, {[]float64{1, 2, 3}, 0.5, 2},
		{[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.95, 10}, {[]float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0.9, 9}, {[]float64{1, 2}, 0, 1},
	} {
		if got := nearestRank(c.sorted, c.q); math.Abs(got-c.want) > 0 {
			t.Errorf("rank %v of %v is %v, want %v", c.q, c.sorted, got, c.want)
		}
	}
}
