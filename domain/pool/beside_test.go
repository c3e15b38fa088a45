package pool_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func places(policy string, parameters map[string]float64) func(*domain.Renderer) {
	return func(r *domain.Renderer) {
		r.Placement = domain.PlacementSettings{Policy: policy, Parameters: parameters}
	}
}

// busy is a pool of two resources; the first has A and a job that is expected to take some seconds more.
func busy(t *testing.T, change ...func(*domain.Renderer)) *world {
	w := given(t, demo(append([]func(*domain.Renderer){size(2, 2)}, change...)...)).up()
	w.warm(1, "A", 30)
	for i := range 20 { // jobs take 4 s here
		id := domain.JobID(fmt.Sprint("before", i))
		w.do(job(id, "A"))
		w.started(1, id)
		w.pass(4 * time.Second)
		w.do(w.succeeded(1, id))
	}
	w.do(job("j1", "A"))
	w.started(1, "j1")
	return w
}

// Who waits for a busy resource beside a free slot that would do is told so, and for how long about.
func TestWhoWaitsForABusyResourceIsToldSo(t *testing.T) {
	w := busy(t)
	w.when(book("s1", "A", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1")
	left := w.state.Resource(w.r(1)).Users[0].Seconds // of the job that has just begun
	p := w.state.PlaceOfSession("s1", w.now)
	if !strings.Contains(p.Reason, string(w.r(1))+" has the model") || p.Code != pool.CodeNoCapacity || math.Abs(p.EstimatedWaitSeconds-left) > 1e-9 || left <= 0 || left > 30 {
		t.Errorf("%+v, and the job takes %v s", p, left)
	}
	if e := w.state.Session("s1"); e.Reason != p.Reason {
		t.Errorf("it was told %q when it came, and %q is so", e.Reason, p.Reason)
	}
	// As time passes it is less; once the job takes longer than was expected it is no promise.
	w.pass(time.Second)
	if again := w.state.PlaceOfSession("s1", w.now); math.Abs(again.EstimatedWaitSeconds-(left-1)) > 1e-9 {
		t.Errorf("a second later it is %v", again.EstimatedWaitSeconds)
	}
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "session.allocated s1 r1 warm")
}

// With delay nobody waits for longer than that, whatever is expected.
func TestWhoWaitsForABusyResourceIsGivenAnother(t *testing.T) {
	w := busy(t)
	w.do(pool.ConfigureRenderer{Renderer: demo(size(2, 2), places("delay", map[string]float64{"wait": 2}))})
	w.when(book("s1", "A", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1")
	if p := w.state.PlaceOfSession("s1", w.now); !strings.Contains(p.Reason, "has the model") || p.EstimatedWaitSeconds != 2 {
		t.Errorf("%+v", p)
	}
	w.tick(2*time.Second, "model.loading r2 A", "session.allocated s1 r2 cold")
}

// What is loaded for a job is there for the sessions before it that waited for it, in the same breath.
func TestWhatIsLoadedForAJobServesSessions(t *testing.T) {
	w := given(t, demo(size(2, 2), slots(2))).up()
	w.do(job("j1", "A"), job("j2", "A"), pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 30})
	w.started(1, "j1", "j2")
	w.when(job("j3", "A"), "job.submitted j3", "job.queued j3")
	w.pass(40 * time.Second)
	w.when(book("s1", "A", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1")
	// The job has waited for as long as it bears, and has another copy loaded.
	w.tick(6*time.Second, "model.loading r2 A", "job.assigned j3 r2 cold attempt 1", "session.allocated s1 r2 cold")
}

// A policy in which each resource has a queue of its own says so.
func TestWhoWaitsForItsOwnResourceIsToldSo(t *testing.T) {
	w := given(t, demo(size(2, 2), places("hash", nil))).up()
	w.do(book("s1", "A", waits(time.Hour)))
	w.when(book("s2", "A", waits(time.Hour)), "session.requested s2", "session.queued s2 at 1")
	if p := w.state.PlaceOfSession("s2", w.now); !strings.Contains(p.Reason, "the policy hash") || p.EstimatedWaitSeconds <= 0 {
		t.Errorf("%+v", p)
	}
}

func TestWhoWaitsBesideTheReserveIsToldSo(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(3), reserve(2))).up()
	w.do(job("j1", "A"), job("j2", "A"))
	if p := w.state.PlaceOfJob("j2", w.now); !strings.Contains(p.Reason, "kept for sessions") {
		t.Errorf("%+v", p)
	}
	// A session that waits there waits for something else.
	w.do(book("s1", "B", waits(time.Hour)))
	if p := w.state.PlaceOfSession("s1", w.now); !strings.Contains(p.Reason, "no room") {
		t.Errorf("%+v", p)
	}
}

// The pool may grow, and does not for a job that had better wait: the reason is not that a resource has to be started.
func TestAJobThatWaitsInAPoolThatMayGrow(t *testing.T) {
	w := busy(t, size(2, 5))
	w.do(book("s1", "A", waits(time.Hour))) // for a session one is started all the same, and that is what it is told
	if p := w.state.PlaceOfSession("s1", w.now); !strings.Contains(p.Reason, "is requested") || p.EstimatedWaitSeconds == w.state.Resource(w.r(1)).Users[0].Seconds {
		t.Errorf("%+v", p)
	}
	w = busy(t, size(2, 5))
	w.when(job("j2", "A"), "job.submitted j2", "job.queued j2")
	if p := w.state.PlaceOfJob("j2", w.now); !strings.Contains(p.Reason, "has the model") || p.EstimatedWaitSeconds > 30 {
		t.Errorf("%+v", p)
	}
}

// What is told goes by those who use the model, and by slots that were started as was asked for.
func TestWhatIsWaitedForBesideAFreeSlot(t *testing.T) {
	w := busy(t)
	p, known := w.state.Pool("demo"), w.state.Model("demo", "A")
	held := func(m domain.ModelKey) pool.Loaded {
		return pool.Loaded{Model: m, State: "loaded", Users: 1, LoadSeconds: 30, MemoryMiB: 600}
	}
	used := func(m domain.ModelKey, seconds float64) pool.User {
		return pool.User{Kind: pool.UserJob, ID: "j", Model: m, Since: w.now, Seconds: seconds}
	}
	one := &pool.Resource{ID: "r1", State: pool.ResourceStateReady, Slots: 2, MaxModels: 2, Models: []pool.Loaded{held("A"), held("B")}, Users: []pool.User{used("A", 5), used("B", 500)}}
	free := pool.Resource{ID: "r2", State: pool.ResourceStateReady, Slots: 1, MaxModels: 1}
	ask := pool.Asker{Job: true, Model: "A", Known: known}
	place := func(free pool.Resource) pool.Place {
		return pool.PlaceOf(p, []*pool.Resource{one, &free}, ask, w.now)
	}
	if got := place(free); !strings.Contains(got.Reason, "r1 has the model") || !strings.Contains(got.Reason, "free in 5.0 s") {
		t.Errorf("%+v", got)
	}
	one.Key = "other" // nobody waits for what was started otherwise
	if got := place(free); !strings.Contains(got.Reason, "come first") {
		t.Errorf("%+v", got)
	}
	one.Key = ""
	for name, change := range map[string]func(*pool.Resource){
		"started otherwise":      func(r *pool.Resource) { r.Key = "other" },
		"keeps another for life": func(r *pool.Resource) { r.Model = "B" },
		"its place is in use": func(r *pool.Resource) {
			r.Slots, r.Models, r.Users = 2, []pool.Loaded{held("C")}, []pool.User{used("C", 5)}
		},
		"its memory is in use": func(r *pool.Resource) {
			r.Slots, r.MaxModels, r.MemoryMiB, r.Models, r.Users = 2, 2, 1000, []pool.Loaded{held("C")}, []pool.User{used("C", 5)}
		},
	} {
		other, large := free, *known
		large.MemoryMiB = 500
		ask.Known = &large
		change(&other)
		if got := place(other); !strings.Contains(got.Reason, "no room") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
