package pool_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// decision is the decision on record with the last event of a type.
func (w *world) decision(typ string) pool.Decision {
	w.Helper()
	for i := len(w.events) - 1; i >= 0; i-- {
		if w.events[i].Event.Type() != typ {
			continue
		}
		switch e := w.events[i].Event.(type) {
		case pool.SessionAllocated:
			return e.Decision
		case pool.SessionQueued:
			return e.Decision
		case pool.SessionRejected:
			return e.Decision
		case pool.JobAssigned:
			return e.Decision
		case pool.ModelEvicted:
			return e.Decision
		case pool.PoolScaled:
			return e.Decision
		case pool.PoolShadowed:
			return e.Decision
		}
	}
	w.Fatalf("there is no decision of type %s", typ)
	return pool.Decision{}
}

func TestAWarmSlotIsPreferred(t *testing.T) {
	w := given(t, demo(size(3, 3))).up()
	w.warm(2, "A", 9)
	w.when(book("s1", "A"), "session.requested s1", "session.allocated s1 r2 warm")
	d := w.decision("session.allocated")
	if d.Considered != 3 || len(d.Candidates) != 3 || d.Candidates[0].State != "warm" || d.Candidates[0].Seconds != 0 || d.Candidates[1].Seconds != 9 ||
		d.Costs["load_seconds"] != 9 || d.Policy != "ttff" || d.Outcome != "allocated" {
		t.Errorf("%+v", d)
	}
	for _, e := range w.events {
		if a, ok := e.Event.(pool.SessionAllocated); ok && a.Session == "s1" && a.Saved != 9 {
			t.Errorf("%v seconds were saved", a.Saved)
		}
	}
}

func TestAColdSlotIsChosenByLearnedTimes(t *testing.T) {
	w := given(t, demo(size(2, 2))).up()
	w.warm(1, "A", 30)
	w.warm(2, "B", 2)
	// B is cheaper to bring back than A.
	w.when(book("s1", "C"), "session.requested s1", "model.evicted r2 B for C", "model.loading r2 C", "session.allocated s1 r2 cold")
	if d := w.decision("session.allocated"); d.Candidates[0].Worth <= 0 || math.Abs(d.Candidates[1].Worth/d.Candidates[0].Worth-27.2/4.8) > 1e-9 { // 30 and 2, drawn to 16 by a quarter of a load
		t.Errorf("%+v", d.Candidates)
	}
	if d := w.decision("model.evicted"); d.Costs["reload_seconds"] != 2 || d.Outcome != "evicted" {
		t.Errorf("%+v", d)
	}
}

func TestALoadUnderWayIsJoined(t *testing.T) {
	w := given(t, demo(size(2, 2), slots(2))).up()
	w.do(book("s1", "A"))
	w.pass(15 * time.Second)
	w.when(book("s2", "A"), "session.requested s2", "session.allocated s2 r1 cold")
	for _, e := range w.events {
		if a, ok := e.Event.(pool.SessionAllocated); ok && a.Session == "s2" && math.Abs(a.Saved-15) > 1e-6 {
			t.Errorf("%v seconds were saved", a.Saved)
		}
	}
	w.when(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 16}, "model.loaded r1 A", "session.ready s1 r1", "session.ready s2 r1")
	w.silent(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 99})
}

func TestALoadMakesReadyOnlyThoseWhoWaitForIt(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(2), models(2, 0))).up()
	w.do(book("s1", "A"), book("s2", "B"))
	w.when(pool.ReportModelLoaded{Resource: w.r(1), Model: "B", Seconds: 3}, "model.loaded r1 B", "session.ready s2 r1")
	w.when(pool.ReportModelFailed{Resource: w.r(1), Model: "A", Code: "model_invalid"}, "model.failed r1 A model_invalid", "session.failed s1 model_invalid")
}

func TestTheCheapestUnusedModelIsEvicted(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(2), models(3, 0))).up()
	w.warm(1, "A", 1)
	w.warm(1, "B", 5)
	w.warm(1, "C", 9)
	w.do(book("s1", "A")) // the cheapest is in use
	w.when(book("s2", "D"), "session.requested s2", "model.evicted r1 B for D", "model.loading r1 D", "session.allocated s2 r1 cold")
	w.do(release("s1"), release("s2"))
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "D", Seconds: 4}) // nobody waits for it any more, and it is learned
	w.when(book("s3", "B"), "session.requested s3", "model.evicted r1 A for B", "model.loading r1 B", "session.allocated s3 r1 cold")
}

func TestWhatIsInUseIsNeverEvicted(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(3), models(2, 0))).up()
	w.do(book("s1", "A"), job("j1", "B"))
	w.when(book("s2", "C", waits(time.Hour)), "session.requested s2", "session.queued s2 at 1")
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "model.evicted r1 B for C", "model.loading r1 C", "session.allocated s2 r1 cold")
}

func TestMemoryIsALimit(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(4), models(4, 1000))).up()
	w.warm(1, "A", 5, 500)
	w.warm(1, "B", 2, 400)
	// C was never loaded: nobody knows what it takes, and there is a place.
	w.warm(1, "C", 3, 600) // over the limit together; it was not known before
	w.do(book("s1", "C"))
	w.when(book("s2", "A"), "session.requested s2", "session.allocated s2 r1 warm")
	w.do(release("s1"), release("s2"))
	// D is not known either, but what is loaded is too much already: B goes, and what is left is still too much, so C goes.
	w.when(book("s3", "D"), "session.requested s3", "model.evicted r1 B for D", "model.evicted r1 C for D", "model.loading r1 D", "session.allocated s3 r1 cold")
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "D", Seconds: 1, MemoryMiB: 300})
	// What C takes is known now: 500 + 300 + 600 is too much, and D is in use.
	w.when(book("s4", "C"), "session.requested s4", "model.evicted r1 A for C", "model.loading r1 C", "session.allocated s4 r1 cold")
	w.when(book("s5", "A", waits(time.Hour)), "session.requested s5", "session.queued s5 at 1")
}

func TestLoadTimesAreLearned(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.warm(1, "A", 10)
	w.warm(1, "B", 2)
	w.warm(1, "A", 20)
	if m := w.state.Model("demo", "A"); m.Loads != 2 || m.LoadSeconds != 15 || m.Uses != 2 || m.WarmUses != 0 {
		t.Errorf("%+v", m)
	}
	w.do(book("s1", "A"), release("s1"), book("s2", "C"))
	// C was never seen: it is expected to take the mean of all.
	d := w.decision("session.allocated")
	mean := (10.0 + 2 + 20) / 3
	if math.Abs(d.Costs["load_seconds"]-mean) > 1e-9 {
		t.Errorf("C is expected to take %v, not %v", d.Costs["load_seconds"], mean)
	}
	if m := w.state.Model("demo", "A"); m.WarmUses != 1 {
		t.Errorf("%+v", m)
	}
}

// Where nothing is loaded the key only decides who comes back where.
func TestARendererWithoutLoading(t *testing.T) {
	w := given(t, demo(size(2, 2), loading(domain.LoadNone), slots(2))).up()
	w.when(book("s1", "A"), "session.requested s1", "model.loading r1 A", "model.loaded r1 A", "session.allocated s1 r1 warm")
	if s := w.state.Session("s1"); s.State != pool.SessionStateReady {
		t.Errorf("%+v", s)
	}
	// The other resource has more free slots, and here is where A was.
	w.when(book("s2", "A"), "session.requested s2", "session.allocated s2 r1 warm")
	w.when(job("j1", "B"), "job.submitted j1", "job.queued j1", "model.loading r2 B", "model.loaded r2 B", "job.assigned j1 r2 warm attempt 1")
}

func TestAReportAboutAModelThatWasEvictedMeanwhile(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"), release("s1"))
	w.when(book("s2", "B"), "session.requested s2", "model.evicted r1 A for B", "model.loading r1 B", "session.allocated s2 r1 cold")
	w.silent(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 3})
	w.silent(pool.ReportModelFailed{Resource: w.r(1), Model: "A", Code: "model_not_found"})
}

// A decision says what its policy went by, not what another would have.
func TestReasonsAreThoseOfThePolicy(t *testing.T) {
	for policy, why := range map[string][2]string{
		"ttff": {"loading is cheapest here", "least worth"}, "least-loaded": {"the policy least-loaded gives it this one", "unused for longest"},
	} {
		w := given(t, demo(size(1, 1), places(policy, nil))).up()
		w.warm(1, "A", 9)
		w.do(book("s1", "B"))
		if a, e := w.decision("session.allocated"), w.decision("model.evicted"); !strings.Contains(a.Reason, why[0]) || !strings.Contains(e.Reason, why[1]) {
			t.Errorf("%s: %q, %q", policy, a.Reason, e.Reason)
		}
	}
}

func TestModelsHaveTheirReasonsLeftOut(t *testing.T) {
	w := given(t, demo(size(2, 2), slots(2))).up()
	w.do(book("s1", "A"), book("s2", "B"))
	w.do(book("s3", "C", waits(time.Hour)))
	d := w.decision("session.queued")
	if d.Filtered["models_in_use"] != 2 || d.Considered != 2 || !strings.Contains(d.Reason, "no room") {
		t.Errorf("%+v", d)
	}
	w.do(book("s4", "A"), book("s5", "B"))
	w.refused(book("s6", "A"), domain.KindUnavailable, pool.CodeNoCapacity, "session.requested s6", "session.rejected s6 no_capacity")
	if d := w.decision("session.rejected"); d.Filtered["no_free_slot"] != 2 || d.Outcome != "rejected" {
		t.Errorf("%+v", d)
	}
}
