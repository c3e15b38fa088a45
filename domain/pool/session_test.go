package pool_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestABookingFromZero(t *testing.T) {
	w := given(t, demo())
	w.when(book("s1", "A", waits(time.Minute)), "session.requested s1", "session.queued s1 at 1", "pool.scaled 0 to 1", "resource.requested r1")
	if s := w.state.Session("s1"); s.Reason == "" || s.Decision == 0 || s.WaitUntil == nil || !s.WaitUntil.Equal(w.now.Add(time.Minute)) || s.LeaseSeconds != 60 {
		t.Errorf("%+v", s)
	}
	w.when(pool.ReportStarting{Launched: domain.Launched{Resource: w.r(1)}}, "resource.starting r1", "session.starting s1 r1")
	w.when(pool.ReportReady{Resource: w.r(1)}, "resource.ready r1", "model.loading r1 A", "session.allocated s1 r1 cold")
	w.pass(4 * time.Second)
	w.when(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 4, MemoryMiB: 300}, "model.loaded r1 A", "session.ready s1 r1")
	if s := w.state.Session("s1"); s.ReadyAt == nil || s.Warm || s.State != pool.SessionStateReady {
		t.Errorf("%+v", s)
	}
	w.when(release("s1"), "session.released s1")
	w.silent(release("s1"))
	// The next finds it warm, and is ready at once.
	w.when(book("s2", "A"), "session.requested s2", "session.allocated s2 r1 warm")
	if s := w.state.Session("s2"); s.State != pool.SessionStateReady || s.ReadyAt == nil || !s.Warm {
		t.Errorf("%+v", s)
	}
}

func TestABookingOfAPoolThatIsFull(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"))
	w.when(book("s2", "B", waits(time.Minute)), "session.requested s2", "session.queued s2 at 1")
	w.when(book("s3", "A", waits(time.Minute)), "session.requested s3", "session.queued s3 at 2")
	r := w.refused(book("s4", "A"), domain.KindUnavailable, pool.CodeNoCapacity, "session.requested s4", "session.rejected s4 no_capacity")
	if r.RetryAfter < time.Second || r.RetryAfter > 2*time.Minute || r.Queue != 2 || r.Position != w.head || !strings.Contains(r.Reason, "all 1 slots") {
		t.Errorf("%+v", r)
	}
	if w.state.Session("s4") != nil {
		t.Error("a rejected session leaves a row")
	}
	// The slot goes to who waits, in the same commit: to the one for whom it is warm, unless another waits for too long already.
	w.pass(50*time.Second + 1)
	w.when(release("s1"), "session.released s1", "model.evicted r1 A for B", "model.loading r1 B", "session.allocated s2 r1 cold")
}

func static(most int) domain.Renderer {
	return demo(size(0, most), func(r *domain.Renderer) { r.Launcher = domain.LauncherStatic })
}

func TestTheReasonsOfARefusal(t *testing.T) {
	for _, c := range []struct {
		name   string
		world  func() *world
		reason string
	}{
		{"may be started", func() *world { return given(t, demo()) }, "has to be started"},
		{"is coming", func() *world { return given(t, demo(size(1, 1))) }, "is requested"},
		{"limit of 0", func() *world { return given(t, demo(size(0, 0))) }, "the limit of \"demo\" is 0"},
		{"machines that come by themselves", func() *world { return given(t, static(0)) }, "no machine of \"demo\" is there"},
		{"machines that come by themselves, all in use", func() *world {
			w := given(t, static(9))
			w.do(pool.RegisterResource{Resource: "gpu7", Renderer: "demo", Address: "h:1"}, pool.ReportReady{Resource: "gpu7", Address: "h:1"}, book("s", "B"))
			return w
		}, "all 1 slots of \"demo\" are in use, and its machines come by themselves"},
		{"no room beside models in use", func() *world {
			w := given(t, demo(size(1, 1), slots(2))).up()
			w.do(book("s", "B"))
			return w
		}, "have no room for the model"},
		{"all in use", func() *world {
			w := given(t, demo(size(1, 1))).up()
			w.do(book("s", "B"))
			return w
		}, "all 1 slots of \"demo\" are in use"},
	} {
		w := c.world()
		_, err := w.decide(book("s1", "A"))
		if r, ok := domain.AsRefusal(err); !ok || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestABookingThatIsRefusedCountsAsDemand(t *testing.T) {
	w := given(t, demo())
	r := w.refused(book("s1", "A"), domain.KindUnavailable, pool.CodeNoCapacity,
		"session.requested s1", "session.rejected s1 no_capacity", "pool.scaled 0 to 1", "resource.requested r1")
	w.up(r.RetryAfter)
	w.when(book("s2", "A"), "session.requested s2", "model.loading r1 A", "session.allocated s2 r1 cold")
}

func TestRefusedBookingsKeepAResourceForAWhile(t *testing.T) {
	w := given(t, demo(size(0, 1), func(r *domain.Renderer) { r.Scaling.Idle = 0 }))
	w.do(book("s1", "A", waits(time.Minute)))
	w.up()
	r := w.refused(book("s2", "A"), domain.KindUnavailable, pool.CodeNoCapacity, "session.requested s2", "session.rejected s2 no_capacity")
	w.when(release("s1"), "session.released s1") // idle at once, and yet kept for the one that will be back
	w.tick(r.RetryAfter)
	w.tick(6*time.Second, "pool.scaled 1 to 0 without r1", "resource.stopping r1")
}

func TestAdmission(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"), book("s2", "A", waits(time.Hour)))
	w.when(pool.SetAdmission{Open: false, Reason: "maintenance"}, "admission.changed suspended")
	r := w.refused(book("s3", "A", waits(time.Hour)), domain.KindForbidden, pool.CodeAdmission, "session.requested s3", "session.rejected s3 admission_suspended")
	if !strings.Contains(r.Reason, "maintenance") || r.Position == 0 {
		t.Errorf("%+v", r)
	}
	// Who was let in before is served, and jobs are no sessions.
	w.when(release("s1"), "session.released s1", "session.allocated s2 r1 cold")
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1")
	w.when(pool.SetAdmission{Open: true}, "admission.changed open")
	w.when(book("s3", "A", waits(time.Hour)), "session.requested s3", "session.queued s3 at 1")
	w.refused(pool.SetAdmission{Reason: "a\nb"}, domain.KindInvalid, "invalid")
}

// A load is paid off by a run of warm use, for as long as 20 loads; then who is
// older comes first, so that a session that waits is not passed for ever.
func TestASessionThatWaitsIsPassedOnlyUntilTheLoadIsPaidOff(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"))
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 1})
	w.pass(15 * time.Second)
	w.do(book("s2", "B", waits(time.Hour)), book("s3", "A", waits(time.Hour)), book("s4", "A", waits(time.Hour)))
	w.when(release("s1"), "session.released s1", "session.allocated s3 r1 warm")
	w.pass(5 * time.Second)
	w.when(release("s3"), "session.released s3", "model.evicted r1 A for B", "model.loading r1 B", "session.allocated s2 r1 cold")
}

func TestASessionThatCannotBeServedDoesNotHoldUpTheNext(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(2))).up()
	w.do(book("s1", "A"), book("s2", "B", waits(time.Hour)))
	// The free slot is beside a model in use: B has no room, A is there already.
	w.when(book("s3", "A", waits(time.Hour)), "session.requested s3", "session.allocated s3 r1 cold")
}

func TestAWaitEnds(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"), book("s2", "A", waits(time.Minute)), book("s3", "A", waits(time.Hour)))
	w.tick(time.Minute - 1)
	w.tick(1, "session.expired s2 wait_ended")
	if s := w.state.Session("s2"); s.Code != pool.CodeWaitEnded || !strings.Contains(s.Reason, "1m0s") {
		t.Errorf("%+v", s)
	}
	w.silent(release("s2"))
	w.when(release("s1"), "session.released s1", "session.allocated s3 r1 cold")
}

func TestALeaseEnds(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.warm(1, "A", 3)
	w.do(book("s1", "A"), book("s2", "A", waits(time.Hour)))
	w.silent(pool.ExpireSession{Session: "s2"}) // it waits and has no lease yet
	w.when(pool.ExpireSession{Session: "s1"}, "session.expired s1 lease_ended", "session.allocated s2 r1 warm")
	w.silent(release("s1"))
	w.do(release("s2"))
	w.silent(pool.ExpireSession{Session: "s2"})
	w.do(book("s3", "B"))
	w.silent(pool.ExpireSession{Session: "s3"}) // it loads and has no lease yet
	w.refused(pool.ExpireSession{Session: "x"}, domain.KindNotFound, "session_not_found")
	w.refused(release("x"), domain.KindNotFound, "session_not_found")
}

func TestASessionLastsNoLongerThanAgreed(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A", func(c *pool.BookResource) { c.MaxTime = time.Minute }))
	w.tick(time.Minute - 1)
	w.tick(1, "session.expired s1 max_duration")
}

func TestALostResourceEndsItsSessionsOrMovesThem(t *testing.T) {
	w := given(t, demo(size(2, 2), slots(2))).up()
	w.warm(1, "A", 3)
	w.do(book("s1", "A"), book("s2", "A", moves))
	w.when(pool.ReportLost{Resource: w.r(1), Reason: "signal: killed"},
		"resource.lost r1", "session.lost s1", "session.moved s2", "model.loading r2 A", "session.allocated s2 r2 cold",
		"pool.scaled 1 to 2", "resource.requested r3")
	if s := w.state.Session("s2"); s.Moves != 1 || s.WaitUntil != nil || s.State != pool.SessionStateLoading {
		t.Errorf("%+v", s)
	}
}

func TestASessionThatMovesKeepsItsPlace(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A", moves), book("s2", "B", waits(time.Hour)))
	w.when(pool.ReportLost{Resource: w.r(1)}, "resource.lost r1", "session.moved s1", "pool.scaled 0 to 1", "resource.requested r2")
	w.when(pool.ReportReady{Resource: w.r(2)}, "resource.ready r2", "model.loading r2 A", "session.allocated s1 r2 cold")
}

func TestASessionWhoseModelCannotBeLoadedFails(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(2))).up()
	w.do(book("s1", "A"), book("s2", "A"), book("s3", "B", waits(time.Hour)))
	w.when(pool.ReportModelFailed{Resource: w.r(1), Model: "A", Code: "model_not_found", Reason: "there is no model A"},
		"model.failed r1 A model_not_found", "session.failed s1 model_not_found", "session.failed s2 model_not_found",
		"model.loading r1 B", "session.allocated s3 r1 cold") // the resource stays usable for others
	if s := w.state.Session("s1"); s.State != pool.SessionStateFailed || s.Reason != "there is no model A" {
		t.Errorf("%+v", s)
	}
}

// When the resource that was promised to who waits fails, they are told so.
func TestAPromiseThatIsNotKeptIsTakenBack(t *testing.T) {
	w := given(t, demo(size(0, 1), slots(2)))
	w.do(book("s1", "A", waits(time.Hour)), book("s2", "A", waits(time.Hour)), book("s3", "A", waits(time.Hour)))
	w.when(pool.ReportStarting{Launched: domain.Launched{Resource: w.r(1)}}, "resource.starting r1", "session.starting s1 r1", "session.starting s2 r1")
	w.when(pool.ReportFailed{Resource: w.r(1), Code: "start_timeout", Reason: "it was not ready within 2m0s"},
		"resource.failed r1 start_timeout", "pool.backed_off 1 for 1s", "session.queued s1 at 1", "session.queued s2 at 2")
	if s := w.state.Session("s2"); !strings.Contains(s.Reason, "it was not ready within 2m0s") {
		t.Errorf("%+v", s)
	}
}

func TestAPromiseToManyIsTakenBackFromAll(t *testing.T) {
	w := given(t, demo(size(0, 1), slots(200)))
	for i := range 150 {
		w.do(book(domain.SessionID(strings.Repeat("s", i+1)), "A", waits(time.Hour)))
	}
	w.do(pool.ReportStarting{Launched: domain.Launched{Resource: w.r(1)}})
	w.do(pool.ReportFailed{Resource: w.r(1), Code: "exited"})
	for _, s := range pool.Waiting(w.state, "demo") {
		if s.State != pool.SessionStateQueued {
			t.Fatalf("session %d is %s, and nothing is starting", len(s.ID), s.State)
		}
	}
}

func TestASessionThatTurnsOutTooLargeEnds(t *testing.T) {
	w := given(t, demo(size(1, 2), slots(1), models(1, 1000))).up()
	w.do(book("s1", "A"), book("s2", "A", waits(time.Hour)))
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 3, MemoryMiB: 1001})
	// While the one that has it is there, it is worth waiting for.
	if s := w.state.Session("s2"); s.Ended {
		t.Errorf("%+v", s)
	}
	w.do(job("j1", "A"))
	got := w.do(pool.ReportLost{Resource: w.r(1)})
	if text := strings.Join(got, ", "); text != "resource.lost r1, session.lost s1, session.failed s2 model_too_large, job.failed j1 model_too_large" {
		t.Error(text)
	}
	w.refused(book("s3", "A", waits(time.Hour)), domain.KindInvalid, pool.CodeTooLarge)
	w.refused(job("j2", "A"), domain.KindInvalid, pool.CodeTooLarge)
}

func TestBookingsThatCannotBe(t *testing.T) {
	w := given(t, demo())
	for field, change := range map[string]func(*pool.BookResource){
		"model":        func(c *pool.BookResource) { c.Model = "" },
		"lease":        func(c *pool.BookResource) { c.Lease = pool.MaxLease + 1 },
		"wait":         func(c *pool.BookResource) { c.Wait = pool.MaxWait + 1 },
		"max_duration": func(c *pool.BookResource) { c.MaxTime = pool.MaxMaxTime + 1 },
		"on_lost":      func(c *pool.BookResource) { c.OnLost = "weep" },
		"owner":        func(c *pool.BookResource) { c.Owner = domain.Owner(strings.Repeat("x", 129)) },
	} {
		if r := w.refused(book("s1", "A", change), domain.KindInvalid, "invalid"); r.Field != field {
			t.Errorf("%s: %+v", field, r)
		}
	}
	for _, change := range []func(*pool.BookResource){
		func(c *pool.BookResource) { c.Model = "a\x00" }, func(c *pool.BookResource) { c.Model = domain.ModelKey(strings.Repeat("x", 1025)) },
		func(c *pool.BookResource) { c.Lease = pool.MinLease - 1 }, func(c *pool.BookResource) { c.Wait = -1 }, func(c *pool.BookResource) { c.MaxTime = -1 },
	} {
		w.refused(book("s1", "A", change), domain.KindInvalid, "invalid")
	}
	if r := w.refused(book("s1", "A", func(c *pool.BookResource) { c.Renderer = "x" }), domain.KindNotFound, "renderer_not_found"); r.Field != "renderer" {
		t.Errorf("%+v", r)
	}
	for _, change := range []func(*pool.BookResource){
		func(c *pool.BookResource) { c.Lease, c.Wait, c.MaxTime = pool.MaxLease, pool.MaxWait, pool.MaxMaxTime },
		func(c *pool.BookResource) { c.Lease, c.Wait, c.MaxTime = pool.MinLease, 1, 1 },
	} {
		w.do(book("s"+domain.SessionID(rune('a'+w.given)), "A", waits(time.Minute), change))
	}
}

func TestThoseWhoEndedAreForgottenAndFoundAgain(t *testing.T) {
	w := given(t, demo(size(1, 1)))
	for i := range 4200 { // one that waits and leaves again is cheap
		id := domain.SessionID(strings.Repeat("x", i%7) + string(rune('0'+i%10)) + time.Duration(i).String())
		events, _ := w.state.Decide(w.head, pool.Given{ID: "c", At: w.now, Command: book(id, "A", waits(time.Hour))})
		w.head += int64(len(events))
		w.state.Commit()
		events, _ = w.state.Decide(w.head, pool.Given{ID: "c", At: w.now, Command: release(id)})
		w.head += int64(len(events))
		w.state.Commit()
	}
	if n := len(pool.AllSessions(w.state)); n != 4096 {
		t.Errorf("%d sessions that ended are kept", n)
	}
	forgotten := pool.Key{View: pool.ViewSessions, ID: "00s"}
	if w.state.Has(forgotten) {
		t.Error("the oldest was not forgotten")
	}
	if keys := w.state.Needs(release("00s")); len(keys) != 1 || keys[0] != forgotten {
		t.Errorf("releasing it needs %v", keys)
	}
}

// An append that did not succeed leaves nothing behind, or a session that
// lives on would be forgotten as one that ended.
func TestWhatWasTakenBackIsNotForgotten(t *testing.T) {
	w := given(t, demo(size(1, 1)))
	w.do(book("s1", "A", waits(time.Hour)))
	for range 5000 {
		if _, err := w.state.Decide(w.head, pool.Given{ID: "c", At: w.now, Command: release("s1")}); err != nil {
			t.Fatal(err)
		}
		w.state.Rollback()
		w.state.Commit()
	}
	if w.state.Session("s1") == nil || pool.Ended(w.state) != "[]" {
		t.Errorf("s1 is %v, and forgotten will be %.80s", w.state.Session("s1"), pool.Ended(w.state))
	}
}
