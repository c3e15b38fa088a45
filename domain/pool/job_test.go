package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// started says that the jobs run, on the n-th resource.
func (w *world) started(n int, ids ...domain.JobID) {
	w.Helper()
	for _, id := range ids {
		w.do(pool.ReportJobStarted{Job: id, Resource: w.r(n)})
	}
}

func (w *world) succeeded(n int, id domain.JobID) pool.Command {
	return pool.ReportJobSucceeded{Job: id, Resource: w.r(n), Result: pool.Result{ContentType: "image/png", Bytes: 17}}
}

func (w *world) failed(n int, id domain.JobID, class pool.Class) pool.Command {
	return pool.ReportJobFailed{Job: id, Resource: w.r(n), Class: class, Code: "broken", Reason: "it broke"}
}

func TestAJobFromZero(t *testing.T) {
	w := given(t, demo())
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "pool.scaled 0 to 1", "resource.requested r1")
	w.do(pool.ReportStarting{Launched: domain.Launched{Resource: w.r(1)}})
	w.when(pool.ReportReady{Resource: w.r(1)}, "resource.ready r1", "model.loading r1 A", "job.assigned j1 r1 cold attempt 1")
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 3})
	w.when(pool.ReportJobStarted{Job: "j1", Resource: w.r(1)}, "job.started j1")
	w.pass(7 * time.Second)
	w.when(w.succeeded(1, "j1"), "job.succeeded j1")
	if j := w.state.Job("j1"); j.Result == nil || j.Result.Bytes != 17 || !j.Ended {
		t.Errorf("%+v", j)
	}
	if p, m := w.state.Pool("demo"), w.state.Model("demo", "A"); p.JobSeconds != 7 || m.JobSeconds != 7 || m.Uses != 1 || m.WarmUses != 0 {
		t.Errorf("learned: %+v %+v", p, m)
	}
	w.silent(w.failed(1, "j1", pool.ClassTransient)) // too late
}

func TestAJobThatNobodySawBeginTeachesNothing(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"))
	w.when(w.succeeded(1, "j1"), "job.succeeded j1")
	if p := w.state.Pool("demo"); p.Jobs != 0 {
		t.Errorf("learned %d jobs of %v seconds", p.Jobs, p.JobSeconds)
	}
}

func TestSessionsGoBeforeJobs(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"), job("j2", "A", priority(1000)), book("s1", "A", waits(time.Hour)))
	w.when(w.failed(1, "j1", pool.ClassPermanent), "job.failed j1 broken", "session.allocated s1 r1 cold")
}

func TestJobsGoByPriorityThenAge(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"))
	w.do(job("j1", "A"), job("j2", "A", priority(5)), job("j3", "A", priority(5)), job("j4", "A", priority(-1)))
	w.do(release("s1"))
	var order []string
	for range 4 {
		for _, j := range pool.AllJobs(w.state) {
			if j.Holding() {
				order = append(order, string(j.ID))
				w.do(w.succeeded(1, j.ID))
				break
			}
		}
	}
	if got := strings.Join(order, " "); got != "j2 j3 j1 j4" {
		t.Errorf("they went in the order %s", got)
	}
}

// A load is paid off by a run of warm work, until the head of the queue has
// waited for more than 2.5 loads: nobody waited as long before.
func TestWarmJobsPassTheHeadUntilItIsOverdue(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.warm(1, "A", 2)
	w.warm(1, "B", 2)
	w.warm(1, "A", 2)
	w.do(job("j1", "A"), job("j2", "B"), job("j3", "A"))
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "job.assigned j3 r1 warm attempt 1")
	w.do(job("j4", "A"))
	w.pass(5 * time.Second)
	w.when(w.succeeded(1, "j3"), "job.succeeded j3", "job.assigned j4 r1 warm attempt 1")
	w.do(job("j5", "A"))
	w.pass(1)
	w.when(w.succeeded(1, "j4"), "job.succeeded j4", "model.evicted r1 A for B", "model.loading r1 B", "job.assigned j2 r1 cold attempt 1")
}

func TestWarmJobsOfLowerPriorityDoNotPass(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.warm(1, "A", 2)
	w.do(job("j1", "A"), job("j2", "B", priority(1)), job("j3", "A"))
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "model.evicted r1 A for B", "model.loading r1 B", "job.assigned j2 r1 cold attempt 1")
}

// Stickiness has a limit: a job waits for a busy warm copy only while that is cheaper than a load elsewhere.
func TestAJobWaitsForABusyWarmCopyOnlyWhileThatIsCheaper(t *testing.T) {
	for _, c := range []struct {
		name      string
		takes     time.Duration // a job
		loads     float64
		elsewhere bool
	}{
		{"short jobs, a long load", time.Second, 30, false},
		{"long jobs, a short load", 30 * time.Second, 2, true},
	} {
		w := given(t, demo(size(2, 2))).up()
		w.warm(1, "A", c.loads)
		w.do(job("j0", "A"))
		w.started(1, "j0")
		w.pass(c.takes)
		w.do(w.succeeded(1, "j0"))
		w.do(job("j1", "A"))
		got := strings.Join(w.do(job("j2", "A")), ", ")
		if spread := strings.Contains(got, "job.assigned j2 r2 cold"); spread != c.elsewhere {
			t.Errorf("%s: %s", c.name, got)
			continue
		}
		if c.elsewhere {
			continue
		}
		// It never waits for longer than one and a half loads, whatever was expected.
		w.tick(time.Duration(1.5*c.loads)*time.Second - 1)
		w.tick(1, "model.loading r2 A", "job.assigned j2 r2 cold attempt 1")
	}
}

func TestAHotModelSpreadsWhereOthersIdle(t *testing.T) {
	w := given(t, demo(size(3, 3))).up()
	w.warm(1, "A", 3)
	w.do(book("s1", "A")) // a session may last for hours: nobody waits for it
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "model.loading r2 A", "job.assigned j1 r2 cold attempt 1")
	w.when(book("s2", "A"), "session.requested s2", "model.loading r3 A", "session.allocated s2 r3 cold")
}

func TestJobsThatRatherWaitStartNoResource(t *testing.T) {
	w := given(t, demo(size(0, 4)))
	w.do(job("j0", "A"))
	w.up()
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 60})
	w.started(1, "j0")
	w.pass(time.Second)
	w.do(w.succeeded(1, "j0"), job("j1", "A"))
	w.when(job("j2", "A"), "job.submitted j2", "job.queued j2")
	for i := range 58 { // 60 seconds of work are as long as a load; what is beyond has to start one
		w.do(job(domain.JobID(fmt.Sprint("k", i)), "A"))
	}
	w.when(job("j3", "A"), "job.submitted j3", "job.queued j3", "pool.scaled 1 to 2", "resource.requested r2")
}

func TestRetriesByClassOfFailure(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.warm(1, "A", 3)
	w.do(job("j1", "A"))
	w.when(w.failed(1, "j1", pool.ClassTransient), "job.retried j1 transient in 1s")
	if place := w.state.PlaceOfJob("j1", w.now); place.Code != "backoff" || !strings.Contains(place.Reason, "it broke") {
		t.Errorf("%+v", place)
	}
	pause := pool.RetryDelay("j1", 1, pool.ClassTransient)
	w.tick(pause - 1)
	w.tick(1, "job.assigned j1 r1 warm attempt 2")
	w.when(w.failed(1, "j1", pool.ClassTimeout), "job.retried j1 timeout in 8s")
	w.tick(10*time.Second, "job.assigned j1 r1 warm attempt 3")
	// Nobody's fault but ours: it is not counted, and goes on at once.
	got := w.do(w.failed(1, "j1", pool.ClassInterrupted))
	if text := strings.Join(got, ", "); text != "job.retried j1 interrupted in 0s, job.assigned j1 r1 warm attempt 3" {
		t.Error(text)
	}
	w.when(w.failed(1, "j1", pool.ClassTransient), "job.failed j1 broken")
	if j := w.state.Job("j1"); !strings.Contains(j.Reason, "attempt 3 of 3") || j.Attempts != 3 {
		t.Errorf("%+v", j)
	}
	w.do(job("j2", "A"))
	w.when(w.failed(1, "j2", pool.ClassPermanent), "job.failed j2 broken")
}

func TestThePauseBetweenAttemptsDoublesUpToAMinute(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.warm(1, "A", 3)
	w.do(job("j1", "A", func(c *pool.SubmitJob) { c.MaxAttempts = 10 }))
	for n, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		w.do(w.failed(1, "j1", pool.ClassTransient))
		if pause := w.state.Job("j1").NotBefore.Sub(w.now); pause < want*time.Second/2 || pause > want*time.Second {
			t.Errorf("after attempt %d it pauses for %s, not for half to all of %s", n+1, pause, want*time.Second)
		}
		w.tick(want*time.Second, fmt.Sprintf("job.assigned j1 r1 warm attempt %d", n+2))
	}
	w.when(w.failed(1, "j1", pool.ClassTransient), "job.failed j1 broken")
}

func TestALostResourceIsAnAttempt(t *testing.T) {
	w := given(t, demo(size(1, 1), func(r *domain.Renderer) { r.Job.MaxAttempts = 1 })).up()
	w.do(job("j1", "A"), job("j2", "A", func(c *pool.SubmitJob) { c.MaxAttempts = 2 }))
	w.when(pool.ReportLost{Resource: w.r(1), Reason: "killed"}, "resource.lost r1", "job.failed j1 resource_lost", "pool.scaled 0 to 1", "resource.requested r2")
	w.when(pool.ReportReady{Resource: w.r(2)}, "resource.ready r2", "model.loading r2 A", "job.assigned j2 r2 cold attempt 1")
	w.when(pool.ReportFailed{Resource: w.r(2), Code: "hung"}, "resource.failed r2 hung", "pool.backed_off 2 for 2s", "job.retried j2 transient in 1s")
}

func TestAModelThatCannotBeLoadedFailsItsJobs(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(2))).up()
	w.do(job("j1", "A"), job("j2", "A"))
	w.when(pool.ReportModelFailed{Resource: w.r(1), Model: "A", Code: "unreachable"},
		"model.failed r1 A unreachable", "job.retried j1 transient in 1s", "job.retried j2 transient in 1s")
	w.tick(time.Second, "model.loading r1 A", "job.assigned j1 r1 cold attempt 2", "job.assigned j2 r1 cold attempt 2")
	w.when(pool.ReportModelFailed{Resource: w.r(1), Model: "A", Code: "model_invalid", Reason: "no vertices"},
		"model.failed r1 A model_invalid", "job.failed j1 model_invalid", "job.failed j2 model_invalid")
}

func TestLateReportsAboutAnEarlierAttemptChangeNothing(t *testing.T) {
	w := given(t, demo(size(2, 2))).up()
	w.do(job("j1", "A"))
	w.do(pool.StopResource{Resource: w.r(1)})
	if j := w.state.Job("j1"); j.Resource != w.r(2) {
		t.Fatalf("%+v", j)
	}
	for _, c := range []pool.Command{w.succeeded(1, "j1"), w.failed(1, "j1", pool.ClassPermanent), pool.ReportJobStarted{Job: "j1", Resource: w.r(1)}} {
		w.silent(c)
	}
}

func TestCancel(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"), job("j2", "A"), job("j3", "A"), job("j4", "A", after("j2")))
	cancel := func(id domain.JobID) pool.Command { return pool.CancelJob{Job: id, Reason: "not needed"} }
	w.when(cancel("j2"), "job.cancelled j2", "job.failed j4 dependency_failed")
	w.when(cancel("j1"), "job.cancelled j1", "job.assigned j3 r1 cold attempt 1") // its slot is free at once
	w.silent(cancel("j1"))
	w.silent(w.succeeded(1, "j1"))
	w.do(w.succeeded(1, "j3"))
	w.refused(cancel("j3"), domain.KindConflict, "job_ended")
	w.refused(cancel("j4"), domain.KindConflict, "job_ended")
	w.refused(cancel("x"), domain.KindNotFound, "job_not_found")
}

func TestADeadlinePasses(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	soon := w.now.Add(time.Minute)
	by := func(c *pool.SubmitJob) { c.Deadline = &soon }
	w.do(book("s1", "A"), job("j1", "A", by), job("j2", "A", by, after("j1")), job("j3", "A", after("j2")), job("j4", "A"))
	w.tick(time.Minute - 1)
	w.tick(1, "job.failed j1 deadline_passed", "job.failed j2 dependency_failed", "job.failed j3 dependency_failed")
	w.refused(job("j5", "A", by), domain.KindInvalid, "invalid")
}

// One that waits for others is late too, though it is not in the queue yet;
// one that has begun may take its time.
func TestADeadlinePassesForOneThatWaitsForAnother(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	soon := w.now.Add(time.Minute)
	by := func(c *pool.SubmitJob) { c.Deadline = &soon }
	w.do(job("j1", "A", by), job("j2", "A", by, after("j1")))
	w.tick(time.Hour, "job.failed j2 deadline_passed")
	w.when(w.succeeded(1, "j1"), "job.succeeded j1")
}

func TestJobsThatCannotBe(t *testing.T) {
	w := given(t, demo())
	for field, changes := range map[string][]func(*pool.SubmitJob){
		"model":        {func(c *pool.SubmitJob) { c.Model = "" }, func(c *pool.SubmitJob) { c.Model = "\x01" }},
		"owner":        {func(c *pool.SubmitJob) { c.Owner = domain.Owner(strings.Repeat("x", 129)) }},
		"kind":         {func(c *pool.SubmitJob) { c.Kind = "song" }},
		"priority":     {priority(1001), priority(-1001)},
		"max_attempts": {func(c *pool.SubmitJob) { c.MaxAttempts = 21 }, func(c *pool.SubmitJob) { c.MaxAttempts = -1 }},
		"timeout":      {func(c *pool.SubmitJob) { c.Timeout = time.Second - 1 }, func(c *pool.SubmitJob) { c.Timeout = pool.MaxJobTimeout + 1 }},
		"after":        {after(make([]domain.JobID, 101)...), after("nobody"), after("j1")},
		"spec":         {func(c *pool.SubmitJob) { c.Spec = make([]byte, pool.MaxSpecBytes+1) }},
		"deadline":     {func(c *pool.SubmitJob) { c.Deadline = &w.now }},
	} {
		for _, change := range changes {
			if r := w.refused(job("j1", "A", change), domain.KindInvalid, "invalid"); r.Field != field {
				t.Errorf("%s: %+v", field, r)
			}
		}
	}
	w.refused(job("j1", "A", func(c *pool.SubmitJob) { c.Renderer = "x" }), domain.KindNotFound, "renderer_not_found")
	for _, kind := range []string{pool.JobImage, pool.JobFrames, pool.JobVideo} {
		w.do(job(domain.JobID(kind), "A", func(c *pool.SubmitJob) {
			c.Kind, c.Priority, c.MaxAttempts, c.Timeout = kind, pool.MaxPriority, pool.MaxAttempts, pool.MaxJobTimeout
		}))
	}
	if j := w.state.Job(pool.JobImage); j.TimeoutSeconds != 7*24*3600 || j.MaxAttempts != 20 {
		t.Errorf("%+v", j)
	}
}
