package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func spread(n int) func(*domain.Renderer) { return func(r *domain.Renderer) { r.Job.Spread = n } }

func frameCount(n int) func(*pool.SubmitJob) {
	return func(c *pool.SubmitJob) { c.Kind, c.Spec = pool.JobFrames, []byte(fmt.Sprintf(`{"frames":%d}`, n)) }
}

// cutting is a pool of three slots that cuts sets of frames into four parts at most.
func cutting(t *testing.T, change ...func(*domain.Renderer)) *world {
	return given(t, demo(append([]func(*domain.Renderer){size(3, 3), spread(4), loading(domain.LoadNone)}, change...)...)).ranged()
}

func TestASetOfFramesIsCutIntoParts(t *testing.T) {
	w := cutting(t)
	w.when(job("j1", "A", frameCount(100)), "job.submitted j1", "job.spread j1 in 3",
		"job.submitted j1.p1", "job.queued j1.p1", "job.submitted j1.p2", "job.queued j1.p2", "job.submitted j1.p3", "job.queued j1.p3",
		"model.loading r1 A", "model.loaded r1 A", "job.assigned j1.p1 r1 warm attempt 1",
		"model.loading r2 A", "model.loaded r2 A", "job.assigned j1.p2 r2 warm attempt 1",
		"model.loading r3 A", "model.loaded r3 A", "job.assigned j1.p3 r3 warm attempt 1")
	j, part := w.state.Job("j1"), w.state.Job("j1.p2")
	if fmt.Sprint(j.Parts) != "[{j1.p1 1 33} {j1.p2 34 66} {j1.p3 67 100}]" || j.State != pool.JobStateWaiting || j.Decision == 0 {
		t.Errorf("%+v", j)
	}
	if part.FirstFrame != 34 || part.LastFrame != 66 || string(part.Spec) != string(j.Spec) || part.PartOf != "j1" || part.CallbackURL != "" {
		t.Errorf("%+v", part)
	}
	for i := range 3 {
		w.do(pool.ReportJobStarted{Job: domain.JobID(fmt.Sprintf("j1.p%d", i+1)), Resource: w.r(i + 1)})
	}
	w.pass(33 * time.Second)
	w.when(w.succeeded(1, "j1.p1"), "job.succeeded j1.p1", "job.unblocked j1 by j1.p1")
	if p := w.state.PlaceOfJob("j1", w.now); p.Code != "parts" || p.Reason != "1 of 3 parts are made" {
		t.Errorf("%+v", p)
	}
	if m := w.state.Model("demo", "A"); m.FrameSeconds != 1 || m.FrameJobs != 1 {
		t.Errorf("learned %+v", m)
	}
	// One part is tried again, by itself.
	w.do(w.failed(2, "j1.p2", pool.ClassInterrupted), w.succeeded(3, "j1.p3"))
	w.silent(pool.ReportJobGathered{Job: "j1"}) // not all are made
	n := 2
	if w.state.Job("j1.p2").Resource == w.r(1) {
		n = 1
	}
	w.when(w.succeeded(n, "j1.p2"), "job.succeeded j1.p2", "job.unblocked j1 by j1.p2")
	if !w.state.Job("j1").Gathering() {
		t.Errorf("%+v", w.state.Job("j1"))
	}
	w.when(pool.ReportJobGathered{Job: "j1", Result: pool.Result{ContentType: "application/zip", Bytes: 99}}, "job.succeeded j1")
	if j = w.state.Job("j1"); j.Result.Bytes != 99 || !j.Ended {
		t.Errorf("%+v", j)
	}
}

func (w *world) do2(t *testing.T, c pool.Command) string {
	t.Helper()
	return strings.Join(w.do(c), ", ")
}

func TestWhatIsNotCut(t *testing.T) {
	whole := func(what string, w *world, change ...func(*pool.SubmitJob)) {
		t.Helper()
		if got := w.do2(t, job("j1", "A", change...)); strings.Contains(got, "spread") {
			t.Errorf("%s: %s", what, got)
		}
	}
	whole("an image", cutting(t))
	whole("few frames", cutting(t), frameCount(15))
	whole("where it may not be", cutting(t, spread(1)), frameCount(100))
	whole("where there is one slot", cutting(t, size(1, 1)), frameCount(100))
	whole("a spec that does not say how many", cutting(t), frames)
	whole("for a renderer that cannot", given(t, demo(size(3, 3), spread(4))).up(), frameCount(100))
}

// A part is at least as much work as the load that it may have to wait for.
func TestPartsPayOffTheirLoads(t *testing.T) {
	w := cutting(t, loading(domain.LoadHTTP), spread(100), size(10, 10))
	w.warm(1, "A", 4)
	w.do(job("j0", "A", frames, func(c *pool.SubmitJob) { c.Spec = []byte(`{"frames":1}`) }))
	w.started(1, "j0")
	w.pass(time.Second / 2)
	w.do(w.succeeded(1, "j0"))
	// A frame takes half a second, and a load four: 40 frames are worth five loads.
	if got := w.do2(t, job("j1", "A", frameCount(40))); !strings.Contains(got, "job.spread j1 in 5") {
		t.Error(got)
	}
	if got := w.do2(t, job("j2", "A", frameCount(15))); strings.Contains(got, "spread") {
		t.Error(got)
	}
	// The work is shared, so that the deadline can be made that one resource could not.
	w.do(job("j3", "A", frameCount(80), w.deadline(time.Minute*40)))
	if j := w.state.Job("j3"); j.Warning != "" || len(j.Parts) != 10 {
		t.Errorf("%+v", j)
	}
}

func TestAPartThatFailsEndsTheOthers(t *testing.T) {
	w := cutting(t)
	w.do(job("j1", "A", frameCount(100)), job("j2", "A", after("j1")), job("j3", "A", after("j1.p3")))
	w.when(w.failed(2, "j1.p2", pool.ClassPermanent), "job.failed j1.p2 broken", "job.failed j1 part_failed", "job.failed j2 dependency_failed",
		"job.cancelled j1.p1", "job.cancelled j1.p3", "job.failed j3 dependency_failed")
	if j := w.state.Job("j1"); j.Reason != "part 2 of 3 failed: it broke" {
		t.Errorf("%+v", j)
	}
}

func TestCancellingASetCancelsItsParts(t *testing.T) {
	w := cutting(t)
	w.do(job("j1", "A", frameCount(100)), job("j2", "A"))
	w.when(pool.CancelJob{Job: "j1"}, "job.cancelled j1", "job.cancelled j1.p1", "job.cancelled j1.p2", "job.cancelled j1.p3", "job.assigned j2 r1 warm attempt 1")
	w.do(job("j3", "A", frameCount(100)))
	w.do(pool.CancelJob{Job: "j3.p2"}) // without it the set cannot be whole
	if j := w.state.Job("j3"); j.Code != "part_failed" || j.Reason != "part 2 of 3 cancelled" {
		t.Errorf("%+v", j)
	}
}

func TestPartsThatCannotBePutTogether(t *testing.T) {
	w := cutting(t)
	w.do(job("j1", "A", frameCount(100)), job("v1", "A", after("j1")))
	for i := range 3 {
		w.do(w.succeeded(i+1, domain.JobID(fmt.Sprintf("j1.p%d", i+1))))
	}
	w.when(pool.ReportJobGathered{Job: "j1", Code: "part_lost", Reason: "it is gone"}, "job.failed j1 part_lost", "job.failed v1 dependency_failed")
}

// A set that waits for others is cut when they are done, and the video after it waits for all of its parts.
func TestASetAfterOthersIsCutWhenItsTurnComes(t *testing.T) {
	w := cutting(t)
	w.do(job("j0", "A"), job("j1", "A", frameCount(100), after("j0")), job("v1", "A", after("j1")))
	if got := w.do2(t, w.succeeded(1, "j0")); !strings.Contains(got, "job.unblocked j1 by j0, job.spread j1 in 3, job.submitted j1.p1") {
		t.Error(got)
	}
	for i := range 3 {
		w.do(w.succeeded(i+1, domain.JobID(fmt.Sprintf("j1.p%d", i+1))))
	}
	w.when(pool.ReportJobGathered{Job: "j1"}, "job.succeeded j1", "job.unblocked v1 by j1", "job.queued v1", "job.assigned v1 r1 warm attempt 1")
}

// The deadline of a set bounds when its parts begin; those that run go on.
func TestADeadlineOfASet(t *testing.T) {
	w := cutting(t)
	w.do(job("j1", "A", frameCount(100), w.deadline(time.Minute)))
	w.tick(2 * time.Minute)
	if j := w.state.Job("j1"); j.Ended {
		t.Errorf("%+v", j)
	}
	w = cutting(t)
	w.do(book("s1", "A"), job("j1", "A", frameCount(100), w.deadline(time.Minute)))
	if got := w.tickLines(2 * time.Minute); !strings.Contains(got, "job.failed j1.p3 deadline_passed, job.failed j1 part_failed") {
		t.Error(got)
	}
}

func (w *world) tickLines(d time.Duration) string {
	w.pass(d)
	return strings.Join(w.do(pool.Tick{}), ", ")
}

// A set that is cut counts as one of its owner's queued jobs, not as many.
func TestASetInPartsCountsOnce(t *testing.T) {
	w := cutting(t, quota(func(q *domain.QuotaSettings) { q.JobsQueued = of(2) }))
	w.do(book("s1", "A"), book("s2", "A"), book("s3", "A"))
	w.do(job("j1", "A", frameCount(100)), job("j2", "A"))
	w.refused(job("j3", "A"), domain.KindTooMany, "quota_exceeded", "job.rejected j3 quota_exceeded")
}

// thePartsOfASetAreItsFrames: each frame once, in order.
func thePartsOfASetAreItsFrames(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.JobSpread)
	if !ok {
		return nil
	}
	next := 1
	for _, p := range e.Parts {
		if p.First != next || p.Last < p.First {
			return fmt.Errorf("the parts are %v", e.Parts)
		}
		next = p.Last + 1
	}
	if j := w.fold.Job(e.Job); next-1 != j.Frames {
		return fmt.Errorf("the parts make %d of %d frames", next-1, j.Frames)
	}
	return nil
}

// noPartOutlivesItsSet, and none that succeeds lacks a part.
func noPartOutlivesItsSet(w *world) error {
	for _, j := range pool.AllJobs(w.state) {
		for _, part := range j.Parts {
			x := w.state.Job(part.Job)
			if x == nil {
				return fmt.Errorf("%s of %s is not there", part.Job, j.ID)
			}
			if j.Ended && !x.Ended || j.State == pool.JobStateSucceeded && x.State != pool.JobStateSucceeded {
				return fmt.Errorf("%s has %s, and %s is %s", j.ID, j.State, x.ID, x.State)
			}
		}
	}
	return nil
}
