package pool_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestPausesDoubleByClassAndAreSpread(t *testing.T) {
	for _, c := range []struct {
		class       pool.Class
		attempt     int
		least, most time.Duration
	}{
		{pool.ClassTransient, 1, time.Second / 2, time.Second},
		{pool.ClassTransient, 2, time.Second, 2 * time.Second},
		{pool.ClassTransient, 7, 30 * time.Second, time.Minute},
		{pool.ClassTransient, 20, 30 * time.Second, time.Minute},
		{pool.ClassTimeout, 1, 2500 * time.Millisecond, 5 * time.Second},
		{pool.ClassTimeout, 20, 150 * time.Second, 5 * time.Minute},
		{pool.ClassInterrupted, 3, 0, 0},
	} {
		var sum time.Duration
		quarters := [4]int{}
		for i := range 1000 {
			id := domain.JobID(fmt.Sprintf("j%d", i))
			d := pool.RetryDelay(id, c.attempt, c.class)
			if d < c.least || d > c.most || d != pool.RetryDelay(id, c.attempt, c.class) {
				t.Fatalf("%s pauses for %s after attempt %d (%s), not for %s to %s", id, d, c.attempt, c.class, c.least, c.most)
			}
			sum += d
			if c.most > c.least {
				quarters[min(3, int(4*(d-c.least)/(c.most-c.least)))]++
			}
		}
		for _, n := range quarters {
			if c.most > c.least && (n < 200 || n > 300) {
				t.Errorf("after attempt %d (%s) the pauses are not spread evenly: %v", c.attempt, c.class, quarters)
				break
			}
		}
	}
	if pool.RetryDelay("j1", 1, pool.ClassTransient) == pool.RetryDelay("j2", 1, pool.ClassTransient) {
		t.Error("two jobs come back together")
	}
}

// Wherever a job is, it can be cancelled: its slot is free for the next, and who waits for it hears of it.
func TestAJobIsCancelledAtAnyPoint(t *testing.T) {
	for _, c := range []struct {
		point string
		bring func(w *world)
		freed bool // it held the slot
	}{
		{"waiting for another", func(w *world) { w.do(job("j0", "A"), job("j1", "A", after("j0"))) }, false},
		{"queued", func(w *world) { w.do(book("s0", "A"), job("j1", "A")) }, false},
		{"pausing before its next attempt", func(w *world) {
			w.do(job("j1", "A"))
			w.do(w.failed(1, "j1", pool.ClassTransient), book("s0", "A"))
		}, false},
		{"loading", func(w *world) { w.do(job("j1", "A")) }, true},
		{"assigned, its model loaded", func(w *world) { w.warm(1, "A", 2).do(job("j1", "A")) }, true},
		{"running", func(w *world) { w.warm(1, "A", 2).do(job("j1", "A")); w.started(1, "j1") }, true},
	} {
		t.Run(c.point, func(t *testing.T) {
			w := given(t, demo(size(1, 1))).up()
			c.bring(w)
			w.do(job("j2", "A", after("j1")), job("j3", "A"))
			then := []string{"job.cancelled j1", "job.failed j2 dependency_failed"}
			if c.freed {
				then = append(then, "job.assigned j3 r1 "+warmth(c.point == "running" || c.point == "assigned, its model loaded")+" attempt 1")
			}
			w.when(pool.CancelJob{Job: "j1", Reason: "not needed"}, then...)
			if j := w.state.Job("j1"); j.State != pool.JobStateCancelled || j.Reason != "not needed" {
				t.Errorf("%+v", j)
			}
			// What its renderer says of it now is too late.
			w.silent(w.succeeded(1, "j1"))
			w.silent(w.failed(1, "j1", pool.ClassTransient))
			w.silent(pool.ReportJobStarted{Job: "j1", Resource: w.r(1)})
		})
	}
}
