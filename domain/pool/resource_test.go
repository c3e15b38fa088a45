package pool_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestAResourceStartsAndGetsReady(t *testing.T) {
	w := given(t, demo())
	w.do(book("s1", "A", waits(time.Minute)))
	launched := domain.Launched{Resource: w.r(1), Handle: domain.Handle(`{"pid":7}`), Node: "node7"}
	w.when(pool.ReportStarting{Launched: launched}, "resource.starting r1", "session.starting s1 r1")
	w.pass(3 * time.Second)
	w.when(pool.ReportReady{Resource: w.r(1), Address: "127.0.0.1:9000", Capabilities: []string{"models"}, JobKinds: []string{"image"}},
		"resource.ready r1", "model.loading r1 A", "session.allocated s1 r1 cold")
	r := w.state.Resource(w.r(1))
	if r.Address != "127.0.0.1:9000" || r.Node != "node7" || string(r.Handle) != `{"pid":7}` || len(r.Capabilities) != 1 || len(r.JobKinds) != 1 {
		t.Errorf("%+v", r)
	}
	if p := w.state.Pool("demo"); p.Starts != 1 || p.StartSeconds != 3 {
		t.Errorf("learned from the start: %d, %v", p.Starts, p.StartSeconds)
	}
	w.silent(pool.ReportStarting{Launched: launched})
}

func TestReportsAboutNobodyAreIgnored(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	for _, c := range []pool.Command{
		pool.ReportStarting{Launched: domain.Launched{Resource: "x"}}, pool.ReportReady{Resource: "x"}, pool.ReportFailed{Resource: "x"},
		pool.ReportLost{Resource: "x"}, pool.ReportStopped{Resource: "x"}, pool.ReportStopped{Resource: w.r(1)},
		pool.ReportModelLoaded{Resource: "x", Model: "A"}, pool.ReportModelLoaded{Resource: w.r(1), Model: "A"},
		pool.ReportModelFailed{Resource: "x", Model: "A"}, pool.ReportModelFailed{Resource: w.r(1), Model: "A"},
		pool.ReportJobStarted{Job: "x", Resource: w.r(1)}, pool.ReportJobSucceeded{Job: "x"}, pool.ReportJobFailed{Job: "x"},
	} {
		w.silent(c)
	}
	w.refused(pool.DrainResource{Resource: "x"}, domain.KindNotFound, "resource_not_found")
	w.refused(pool.StopResource{Resource: "x"}, domain.KindNotFound, "resource_not_found")
}

func TestAResourceThatFailsToStartIsBackedOff(t *testing.T) {
	w := given(t, demo(size(0, 1)))
	w.do(book("s1", "A", waits(time.Hour)))
	exits := func(n int) pool.Command {
		return pool.ReportFailed{Resource: w.r(n), Code: "exited", Reason: "exit status 3", Output: "no display"}
	}
	w.when(exits(1), "resource.failed r1 exited", "pool.backed_off 1 for 1s")
	if r := w.state.Resource(w.r(1)); r.State != pool.ResourceStateFailed || r.Reason != "exit status 3" || r.Output != "no display" {
		t.Errorf("%+v", r)
	}
	// The client that waits is told why, and others are refused with the reason.
	if place := w.state.PlaceOfSession("s1", w.now); place.Code != pool.CodeFailing || !strings.Contains(place.Reason, "exit status 3") {
		t.Errorf("%+v", place)
	}
	w.refused(book("s2", "A"), domain.KindUnavailable, pool.CodeFailing, "session.requested s2", "session.rejected s2 renderer_failing")
	w.tick(time.Second-1, []string{}...)
	for n, pause := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
		w.tick(time.Hour/3600, "pool.scaled 0 to 1", "resource.requested r"+string(rune('2'+n)))
		got := w.do(exits(n + 2))
		if want := "pool.backed_off " + string(rune('2'+n)) + " for " + pause.String(); got[1] != want {
			t.Errorf("%q, not %q", got[1], want)
		}
		w.pass(pause - time.Second)
	}
	// Success forgets the failures.
	w.tick(time.Second, "pool.scaled 0 to 1", "resource.requested r5")
	w.up()
	if p := w.state.Pool("demo"); p.Failures != 0 || p.BackoffUntil != nil || p.LastFailure != "" {
		t.Errorf("%+v", p)
	}
}

func TestNewSettingsDeserveANewTry(t *testing.T) {
	w := given(t, demo(size(0, 1)))
	w.do(book("s1", "A", waits(time.Hour)))
	for n := 1; n <= 3; n++ {
		w.do(pool.ReportFailed{Resource: w.r(n), Code: "launch_failed", Reason: "no such program"})
		w.pass(time.Minute)
		w.do(pool.Tick{})
	}
	w.do(pool.ReportFailed{Resource: w.r(4), Code: "launch_failed", Reason: "no such program"})
	w.when(pool.ConfigureRenderer{Renderer: demo(size(0, 1), func(r *domain.Renderer) { r.CommandLine = "the right one" })},
		"renderer.configured", "pool.scaled 0 to 1", "resource.requested r5")
	w.when(pool.ReportFailed{Resource: w.r(5), Code: "exited"}, "resource.failed r5 exited", "pool.backed_off 1 for 1s")
}

func TestARendererThatNeverStartsIsNotTriedInAStorm(t *testing.T) {
	w := given(t, demo(size(0, 4)))
	for _, id := range []domain.SessionID{"s1", "s2", "s3", "s4", "s5"} {
		w.do(book(id, "A", waits(2*time.Hour)))
	}
	for range 3600 {
		for _, r := range slices.Clone(w.state.ResourcesOf("demo")) {
			w.do(pool.ReportFailed{Resource: r.ID, Code: "exited", Reason: "exit status 1"})
		}
		w.pass(time.Second)
		w.do(pool.Tick{})
	}
	// Nine doublings and then one try each five minutes, of four resources each.
	if n := len(w.made["demo"]); n > 4*20 || n < 4*5 {
		t.Errorf("%d resources were requested within an hour", n)
	}
}

// A renderer that gets ready and then hangs or crashes would be started for
// ever, if only failures before readiness counted.
func TestARendererThatGetsReadyAndHangsIsBackedOffToo(t *testing.T) {
	w := given(t, demo(size(0, 1)))
	w.do(book("s1", "A", waits(time.Hour), moves))
	w.up()
	w.pass(10 * time.Second)
	hangs := func(n int) pool.Command {
		return pool.ReportFailed{Resource: w.r(n), Code: "hung", Reason: "5 probes without an answer"}
	}
	w.when(hangs(1), "resource.failed r1 hung", "pool.backed_off 1 for 1s", "session.moved s1")
	w.tick(time.Second, "pool.scaled 0 to 1", "resource.requested r2")
	w.up()
	w.when(hangs(2), "resource.failed r2 hung", "pool.backed_off 2 for 2s", "session.moved s1")
	w.tick(2*time.Second, "pool.scaled 0 to 1", "resource.requested r3")
	w.up()
	w.pass(time.Minute)
	w.when(hangs(3), "resource.failed r3 hung", "session.moved s1", "pool.scaled 0 to 1", "resource.requested r4")
}

func TestOneLossIsChanceAndTheNextBacksOff(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	lost := func(n int) pool.Command { return pool.ReportLost{Resource: w.r(n), Reason: "signal: killed"} }
	w.when(lost(1), "resource.lost r1", "pool.scaled 0 to 1", "resource.requested r2")
	w.up()
	w.when(lost(2), "resource.lost r2", "pool.backed_off 2 for 2s")
	w.tick(2*time.Second, "pool.scaled 0 to 1", "resource.requested r3")
	w.up(time.Second)
	w.pass(time.Minute)
	w.when(lost(3), "resource.lost r3", "pool.scaled 0 to 1", "resource.requested r4")
}

func TestALossBeforeReadinessIsAFailedStart(t *testing.T) {
	w := given(t, demo(size(1, 1)))
	w.when(pool.ReportLost{Resource: w.r(1), Reason: "exit status 1", Output: strings.Repeat("é", 2000)}, "resource.failed r1 exited", "pool.backed_off 1 for 1s")
	if out := w.state.Resource(w.r(1)).Output; len(out) != 2048 || strings.ContainsRune(out, '\uFFFD') {
		t.Errorf("of the output %d bytes are kept", len(out))
	}
}

func TestAResourceDrains(t *testing.T) {
	w := given(t, demo(size(1, 2), slots(2))).up()
	w.do(book("s1", "A"))
	drain := pool.DrainResource{Resource: w.r(1), Reason: "an update"}
	w.when(drain, "resource.draining r1", "session.warned s1 r1", "pool.scaled 0 to 1", "resource.requested r2")
	w.do(book("s2", "A", waits(time.Minute))) // its free slot is given to nobody
	if s := w.state.Session("s2"); s.Resource != "" {
		t.Errorf("%+v", s)
	}
	w.when(release("s1"), "session.released s1", "resource.stopping r1")
	w.when(pool.ReportStopped{Resource: w.r(1)}, "resource.stopped r1")
	if r := w.state.Resource(w.r(1)); r.Reason != "an update" || !r.Ended {
		t.Errorf("%+v", r)
	}
	w.silent(drain)
	// Without users it stops at once, and so does one that is coming.
	w.up()
	w.do(release("s2"))
	w.when(pool.DrainResource{Resource: w.r(2)}, "resource.draining r2", "resource.stopping r2", "pool.scaled 0 to 1", "resource.requested r3")
	w.when(pool.DrainResource{Resource: w.r(3)}, "resource.stopping r3")
}

func TestStoppingAResourceMovesOrEndsWhatUsesIt(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(3), models(3, 0))).up()
	w.warm(1, "A", 3)
	w.do(book("s1", "A"), book("s2", "A", moves), job("j1", "A"), pool.ReportJobStarted{Job: "j1", Resource: w.r(1)})
	stop := pool.StopResource{Resource: w.r(1), Reason: "an operator stopped it"}
	w.when(stop, "resource.stopping r1", "session.lost s1", "session.moved s2", "job.retried j1 interrupted in 0s")
	if s := w.state.Session("s1"); s.State != pool.SessionStateLost || s.Code != "resource_lost" || !strings.Contains(s.Reason, "an operator stopped it") {
		t.Errorf("%+v", s)
	}
	if j := w.state.Job("j1"); j.Attempts != 0 || j.State != pool.JobStateQueued {
		t.Errorf("an interruption of our own is no attempt: %+v", j)
	}
	// Its place is free once it has gone: what moved goes first.
	w.when(pool.ReportStopped{Resource: w.r(1)}, "resource.stopped r1", "pool.scaled 0 to 1", "resource.requested r2")
	w.when(pool.ReportReady{Resource: w.r(2)}, "resource.ready r2", "model.loading r2 A", "session.allocated s2 r2 cold", "job.assigned j1 r2 cold attempt 1")
	w.silent(stop)
}

func TestAResourceThatGoesWhileItStopsHasStopped(t *testing.T) {
	for _, c := range []func(domain.ResourceID) pool.Command{
		func(r domain.ResourceID) pool.Command { return pool.ReportFailed{Resource: r, Code: "exited"} },
		func(r domain.ResourceID) pool.Command { return pool.ReportLost{Resource: r} },
		func(r domain.ResourceID) pool.Command { return pool.ReportStopped{Resource: r} },
	} {
		w := given(t, demo(size(0, 1)))
		w.do(book("s1", "A", waits(time.Minute)))
		w.do(pool.StopResource{Resource: w.r(1)}, release("s1"))
		w.when(c(w.r(1)), "resource.stopped r1")
	}
}

func TestWhatAResourceSaysIsMadeFitForTheLog(t *testing.T) {
	w := given(t, demo(size(1, 1)))
	w.do(pool.ReportReady{Resource: w.r(1), Address: "h\x00:1", Capabilities: make([]string, 100), JobKinds: []string{strings.Repeat("x", 999)}})
	r := w.state.Resource(w.r(1))
	if r.Address != "h:1" || len(r.Capabilities) != 64 || len(r.JobKinds[0]) != 256 {
		t.Errorf("%q, %d capabilities, a job kind of %d bytes", r.Address, len(r.Capabilities), len(r.JobKinds[0]))
	}
	w.do(job("j1", "A"), pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: -3, MemoryMiB: -7})
	if m := w.state.Model("demo", "A"); m.LoadSeconds != 0 || m.MemoryMiB != 0 {
		t.Errorf("%+v", m)
	}
	w.do(pool.ReportJobFailed{Job: "j1", Resource: w.r(1), Class: pool.ClassPermanent, Code: "x\x00", Reason: strings.Repeat("é\xff\x00", 600)})
	if j := w.state.Job("j1"); j.Code != "x" || len(j.Reason) > 1024 || !strings.HasPrefix(j.Reason, "é?é?") {
		t.Errorf("%q %q", j.Code, j.Reason)
	}
}
