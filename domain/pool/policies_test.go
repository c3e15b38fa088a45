package pool_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func by(policy string, parameters ...string) func(*domain.Renderer) {
	return func(r *domain.Renderer) {
		r.Scaling.ScalingPolicy = domain.ScalingPolicy{Policy: policy, Parameters: domain.Parameters{}}
		for i := 0; i < len(parameters); i += 2 {
			r.Scaling.Parameters[parameters[i]] = parameters[i+1]
		}
	}
}

func idle(d time.Duration) func(*domain.Renderer) {
	return func(r *domain.Renderer) { r.Scaling.Idle = domain.Duration(d) }
}

func shadowed(policy string) func(*domain.Renderer) {
	return func(r *domain.Renderer) { r.Scaling.Shadow = &domain.ScalingPolicy{Policy: policy} }
}

func TestForecastStartsFromZeroAndGoesBackToIt(t *testing.T) {
	w := given(t, demo(size(0, 4), by("forecast")))
	w.when(book("s1", "A", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1", "pool.scaled 0 to 1", "resource.requested r1")
	if d := w.decision("pool.scaled"); d.Policy != "forecast" || d.Inputs == nil || !strings.Contains(d.Reason, "1 wait") {
		t.Errorf("%+v", d)
	}
	w.up(4 * time.Second)
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 3})
	w.tick(time.Minute) // one session keeps no second resource
	w.do(release("s1"))
	w.tick(4*time.Minute + 59*time.Second) // its model is kept for as long as the pool says, because no pattern is known
	w.tick(time.Second, "pool.scaled 1 to 0 without r1", "resource.stopping r1")
}

// Who is served sooner by what comes free starts nothing; for who is not, one is started.
func TestForecastStartsNoMoreThanAQueueNeeds(t *testing.T) {
	for _, c := range []struct {
		takes, start time.Duration
		resources    int
	}{
		{time.Second, 20 * time.Second, 4}, // one that has started serves five in a quarter of the time that it took
		{time.Minute, 5 * time.Second, 20}, // each waits for longer than a start
	} {
		w := given(t, demo(size(0, 20), loading(domain.LoadNone), by("forecast")))
		for i := range 8 { // the times are learned
			id := domain.JobID(fmt.Sprint("before", i))
			w.do(job(id, "A"))
			w.up(c.start)
			r := w.state.Job(id).Resource
			w.do(pool.ReportJobStarted{Job: id, Resource: r})
			w.pass(c.takes)
			w.do(pool.ReportJobSucceeded{Job: id, Resource: r})
			w.rest(3*time.Hour, c.start)
		}
		for i := range 20 {
			w.do(job(domain.JobID(fmt.Sprint("j", i)), domain.ModelKey(fmt.Sprint("M", i))))
		}
		if n := len(w.state.ResourcesOf("demo")); n < c.resources-1 || n > c.resources {
			t.Errorf("20 jobs of %s where a start takes %s: %d resources", c.takes, c.start, n)
		}
	}
}

// rest lets time pass in which nobody comes, and what is to start or to stop does so in its time.
func (w *world) rest(d, start time.Duration) {
	w.Helper()
	for ; d > 0; d -= time.Minute {
		w.pass(time.Minute - start)
		w.do(pool.Tick{})
		w.up(start)
		for _, r := range w.state.ResourcesOf("demo") {
			if r.State == pool.ResourceStateStopping {
				w.do(pool.ReportStopped{Resource: r.ID})
			}
		}
	}
}

func TestAModelIsKeptAsLongAsItUsuallyComesBack(t *testing.T) {
	w := given(t, demo(size(0, 2), by("forecast", "tail", "90"), idle(time.Minute)))
	for i := range 12 { // it is wanted again eight minutes after it was left
		id := domain.SessionID(fmt.Sprint("s", i))
		w.do(book(id, "A", waits(time.Hour)))
		w.up(time.Second)
		for _, r := range w.state.ResourcesOf("demo") {
			w.do(pool.ReportModelLoaded{Resource: r.ID, Model: "A", Seconds: 20})
		}
		w.do(release(id))
		w.pass(8 * time.Minute)
	}
	w.do(book("again", "A", waits(time.Hour)))
	w.up(time.Second)
	for _, r := range w.state.ResourcesOf("demo") {
		w.do(pool.ReportModelLoaded{Resource: r.ID, Model: "A", Seconds: 20})
	}
	w.do(release("again"))
	w.pass(9 * time.Minute)
	if w.do(pool.Tick{}); len(w.state.ResourcesOf("demo")) != 1 || !w.state.ResourcesOf("demo")[0].Live() {
		t.Error("it went a minute after it usually is wanted")
	}
	w.pass(10 * time.Minute)
	w.do(pool.Tick{})
	if r := w.state.ResourcesOf("demo"); len(r) != 1 || r[0].Live() {
		t.Errorf("it stayed for ten minutes more: %+v", r)
	}
}

func TestTheLastHolderOfAModelInDemandStaysAndTheOthersGo(t *testing.T) {
	w := given(t, demo(size(3, 3), idle(0))).up()
	w.do(book("a", "A"), book("b", "B"), book("c", "A"))
	for n := 1; n <= 3; n++ {
		for _, m := range []domain.ModelKey{"A", "B"} {
			w.do(pool.ReportModelLoaded{Resource: w.r(n), Model: m, Seconds: 3})
		}
	}
	w.do(job("first", "C"), job("video", "A", after("first"))) // the video waits for the first, and for A
	w.do(pool.ConfigureRenderer{Renderer: demo(size(0, 3), idle(0), by("buffer", "size", "0"))})
	w.do(release("a"), release("b"))
	w.do(pool.ReportModelLoaded{Resource: w.state.Job("first").Resource, Model: "C", Seconds: 3})
	w.do(release("c"))
	var left []domain.ModelKey
	for _, r := range w.state.ResourcesOf("demo") {
		if r.Live() {
			left = append(left, r.Models[0].Model)
		}
	}
	if slices.Sort(left); !slices.Equal(left, []domain.ModelKey{"A", "C"}) {
		t.Errorf("what is left holds %q", left)
	}
}

func TestNoMoreAMinuteThanMayBeStartedOrStopped(t *testing.T) {
	w := given(t, demo(size(0, 9), by("demand", "up_per_minute", "2", "down_per_minute", "1"), idle(0)))
	for i := range 5 {
		w.do(job(domain.JobID(fmt.Sprint("j", i)), domain.ModelKey(fmt.Sprint("M", i))))
	}
	at := func() int { return len(w.state.ResourcesOf("demo")) }
	if at() != 2 {
		t.Errorf("%d at once", at())
	}
	w.tick(59 * time.Second)
	w.tick(time.Second, "pool.scaled 2 to 4", "resource.requested r3", "resource.requested r4")
	w.tick(time.Minute, "pool.scaled 4 to 5", "resource.requested r5")
	for i := range 5 {
		w.do(pool.CancelJob{Job: domain.JobID(fmt.Sprint("j", i))})
	}
	w.up()
	w.tick(time.Minute, "pool.scaled 4 to 3 without "+w.coldest(), "resource.stopping "+w.coldest())
	w.tick(59 * time.Second)
}

// coldest is the live resource that was requested first, as the tests name it.
func (w *world) coldest() string {
	for _, r := range w.state.ResourcesOf("demo") {
		if r.Live() {
			return w.name(r.ID)
		}
	}
	return ""
}

func TestAnAnswerIsActedUponAndRecordedWhenItIsNew(t *testing.T) {
	const url = "https://hooks.example.org/size"
	w := given(t, demo(size(0, 5), by("webhook", "url", url, "valid", "1m"), idle(0)))
	says := func(n int, problem string) pool.Command {
		return pool.ReportAdvice{Renderer: "demo", URL: url, Size: n, Reason: "a class begins", Problem: problem}
	}
	w.when(says(2, ""), "pool.advised 2", "pool.scaled 0 to 2", "resource.requested r1", "resource.requested r2")
	if d := w.decision("pool.scaled"); d.Policy != "webhook" || !strings.Contains(d.Reason, "a class begins") {
		t.Errorf("%+v", d)
	}
	w.up()
	w.pass(29 * time.Second)
	w.silent(says(2, "")) // the same again
	w.pass(time.Second)
	w.when(says(2, ""), "pool.advised 2") // half of its time is over
	w.when(says(0, "503 Service Unavailable"), "pool.advised 0 503 Service Unavailable")
	w.silent(says(0, "it is still away"))
	w.when(says(1, ""), "pool.advised 1", "pool.scaled 2 to 1 without r1", "resource.stopping r1")
	w.tick(59 * time.Second)
	w.tick(time.Second, "pool.scaled 1 to 0 without r2", "resource.stopping r2") // its time is over: demand decides
	w.refused(says(-1, ""), domain.KindInvalid, "invalid")
	w.refused(says(10_001, ""), domain.KindInvalid, "invalid")
	w.silent(pool.ReportAdvice{Renderer: "demo", URL: url + "/old", Size: 1})
	w.do(pool.ConfigureRenderer{Renderer: demo(size(0, 5))})
	if w.silent(says(3, "")); len(w.state.Pool("demo").Advice) != 0 {
		t.Error("an answer is kept that nobody asks for")
	}
}

func TestAShadowIsRecordedWhenItsWishChangesAndNothingIsDone(t *testing.T) {
	w := newWorld(t)
	w.when(pool.ConfigureRenderer{Renderer: demo(size(0, 4), shadowed("buffer"))}, "renderer.configured", "pool.shadowed 1 beside 0")
	w.tick(time.Hour)
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "pool.scaled 0 to 1", "resource.requested r1", "pool.shadowed 2 beside 1")
	w.when(pool.CancelJob{Job: "j1"}, "job.cancelled j1")
	w.tick(5*time.Second, "pool.shadowed 1 beside 1") // no more often than every five seconds
	if d := w.decision("pool.shadowed"); d.Policy != "buffer" || d.Outcome != "shadowed" || d.Reason == "" {
		t.Errorf("%+v", d)
	}
	w.pass(5 * time.Second)
	w.do(job("j2", "A"))
	s := w.state.Pool("demo").Shadow
	if s == nil || s.Policy != "buffer" || s.Changes < 3 || s.Would < 3600 || s.Would > 3620 || s.Did > 20 || s.Short != 0 {
		t.Errorf("%+v", s)
	}
	w.do(pool.ConfigureRenderer{Renderer: demo(size(0, 4))})
	if w.state.Pool("demo").Shadow != nil {
		t.Error("the comparison goes on without a shadow")
	}
}

func TestAPlanSaysWhatOtherSettingsWouldDoAndChangesNothing(t *testing.T) {
	w := given(t, demo(size(3, 3), idle(time.Hour))).up()
	w.do(book("s1", "A"))
	plan := func(set domain.ScalingSettings) pool.ScalingPlan {
		c := pool.PlanScaling{Renderer: "demo", Scaling: set}
		w.silent(c)
		return w.state.Plan(c, pool.Given{At: w.now})
	}
	if p := plan(domain.ScalingSettings{Max: 1}); len(p.Stop) != 2 || p.Size != 1 || p.Live != 3 || p.Policy != "forecast" || !strings.Contains(p.Reason, "maximum of 1") {
		t.Errorf("a lower limit: %+v", p)
	}
	if p := plan(domain.ScalingSettings{Max: 9, ScalingPolicy: domain.ScalingPolicy{Policy: "buffer", Parameters: domain.Parameters{"size": "5"}}}); p.Start != 3 || p.Size != 6 || p.Policy != "buffer" {
		t.Errorf("another policy: %+v", p)
	}
	if p := plan(domain.ScalingSettings{Min: 3, Max: 3}); p.Start != 0 || len(p.Stop) != 0 || p.Reason == "" {
		t.Errorf("the same: %+v", p)
	}
	w.refused(pool.PlanScaling{Renderer: "demo", Scaling: domain.ScalingSettings{Min: 2, Max: 1}}, domain.KindInvalid, "invalid")
	w.refused(pool.PlanScaling{Renderer: "none"}, domain.KindNotFound, "renderer_not_found")
	w.do(pool.ConfigureRenderer{Renderer: demo(named("bare"), func(r *domain.Renderer) { r.Launcher = domain.LauncherStatic })})
	w.refused(pool.PlanScaling{Renderer: "bare"}, domain.KindConflict, "not_scaled")
}

// Settings that were written before there were policies are scaled as they were.
func TestSettingsWithoutAPolicyAreScaledByDemand(t *testing.T) {
	var e pool.RendererConfigured
	if err := json.Unmarshal([]byte(`{"renderer":{"id":"demo","command_line":"x","launcher":"local","slots":1,"models_per_resource":1,"scaling":{"min":0,"max":2,"buffer":0,"idle":"5m0s"},"job":{"max_attempts":3,"timeout":"30m0s"}}}`), &e); err != nil {
		t.Fatal(err)
	}
	s := pool.NewState()
	s.Evolve(pool.Recorded{Position: 1, Stream: domain.PoolStream("demo"), Version: 1, At: began, Event: e})
	events, err := s.Decide(1, pool.Given{ID: "c", At: began, Command: job("j1", "A")})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range events {
		if p, ok := r.Event.(pool.PoolScaled); ok && p.Decision.Policy == "demand" && p.To == 1 {
			return
		}
	}
	t.Errorf("%+v", events)
}
