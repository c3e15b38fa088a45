package pool_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestThePoolGrowsWithItsQueue(t *testing.T) {
	w := given(t, demo(size(0, 3), slots(2)))
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "pool.scaled 0 to 1", "resource.requested r1")
	w.when(job("j2", "B"), "job.submitted j2", "job.queued j2")
	w.when(job("j3", "C"), "job.submitted j3", "job.queued j3", "pool.scaled 1 to 2", "resource.requested r2")
	if d := w.decision("pool.scaled"); d.Policy != "demand" || d.Inputs == nil || d.Outcome != "scaled" {
		t.Errorf("%+v", d)
	}
	if l := w.state.Pool("demo").LastScaling; l == nil || l.From != 1 || l.To != 2 || l.Reason == "" {
		t.Errorf("%+v", l)
	}
}

func TestThePoolKeepsItsMinimumAndBuffer(t *testing.T) {
	w := newWorld(t)
	w.when(pool.ConfigureRenderer{Renderer: demo(size(1, 4), buffer(2))}, "renderer.configured", "pool.scaled 0 to 2", "resource.requested r1", "resource.requested r2")
	w.up()
	w.when(book("s1", "A"), "session.requested s1", "model.loading r1 A", "session.allocated s1 r1 cold", "pool.scaled 2 to 3", "resource.requested r3")
	w.when(pool.ReportLost{Resource: w.r(2)}, "resource.lost r2", "pool.scaled 2 to 3", "resource.requested r4")
	w.up()
	w.do(release("s1"))
	w.tick(5*time.Minute, "pool.scaled 3 to 2 without r3", "resource.stopping r3")
}

func TestTheColdestGoFirst(t *testing.T) {
	w := given(t, demo(size(3, 3), models(2, 0))).up()
	w.warm(1, "A", 3)
	w.warm(1, "B", 3)
	w.warm(2, "C", 3)
	w.pass(time.Minute)
	w.do(pool.ConfigureRenderer{Renderer: demo(size(1, 3), models(2, 0))})
	w.tick(10*time.Minute, "pool.scaled 3 to 1 without r3 without r2", "resource.stopping r3", "resource.stopping r2")
}

func TestTheLimitIsLowered(t *testing.T) {
	w := given(t, demo(size(3, 3))).up()
	w.do(book("s1", "A"), book("s2", "A"))
	// What is idle goes at once, what is used when it is free.
	w.when(pool.ConfigureRenderer{Renderer: demo(size(0, 1))}, "renderer.configured", "pool.scaled 3 to 2 without r3", "resource.stopping r3")
	w.when(release("s1"), "session.released s1", "pool.scaled 2 to 1 without r1", "resource.stopping r1")
	w.when(book("s3", "A", waits(time.Hour)), "session.requested s3", "session.queued s3 at 1")
	w.when(release("s2"), "session.released s2", "session.allocated s3 r2 cold")
}

func TestPlacesOfThoseOnTheirWayOutAreNotFreeYet(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(pool.StopResource{Resource: w.r(1)})
	w.when(book("s1", "A", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1")
	w.when(pool.ReportStopped{Resource: w.r(1)}, "resource.stopped r1", "pool.scaled 0 to 1", "resource.requested r2")
}

func TestToZeroAlsoAfterTheSlotsWereRaised(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(pool.ConfigureRenderer{Renderer: demo(size(0, 1), slots(8))})
	w.tick(5*time.Minute, "pool.scaled 1 to 0 without r1", "resource.stopping r1")
}

func TestMachinesThatComeByThemselvesAreNotScaled(t *testing.T) {
	static := demo(size(1, 2), func(r *domain.Renderer) { r.Launcher = domain.LauncherStatic })
	w := given(t, static)
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1")
	w.tick(time.Hour)
}

func TestAJobThatPausesStartsNoResource(t *testing.T) {
	w := given(t, demo(size(0, 1), func(r *domain.Renderer) { r.Scaling.Idle = 0 }))
	w.do(job("j1", "A"))
	w.up()
	// It will be tried again in a second; meanwhile the resource is idle, but it is the last that has the model.
	w.when(w.failed(1, "j1", pool.ClassTransient), "job.retried j1 transient in 1s")
	w.do(pool.StopResource{Resource: w.r(1)})
	w.when(pool.ReportStopped{Resource: w.r(1)}, "resource.stopped r1")
	w.tick(time.Second, "pool.scaled 0 to 1", "resource.requested r2")
}

func TestThePlaceInTheQueueAndItsEstimate(t *testing.T) {
	w := given(t, demo(size(0, 2)))
	w.do(book("s1", "A", waits(time.Hour)))
	w.up(4 * time.Second) // a start takes 4 s
	w.do(book("s2", "A", waits(time.Hour)))
	if p := w.state.PlaceOfSession("s2", w.now); p.Position != 1 || p.EstimatedWaitSeconds != 4 {
		t.Errorf("%+v", p)
	}
	w.pass(3 * time.Second)
	if p := w.state.PlaceOfSession("s2", w.now); p.EstimatedWaitSeconds != 1 {
		t.Errorf("%+v", p)
	}
	// What the cluster's scheduler expects counts where it is later than what was learned.
	first := *w.state.Resource(w.r(2))
	first.Note, first.Expects = "Resources: 3 jobs ahead, start expected 14:20", w.now.Add(20*time.Minute)
	p := pool.PlaceOf(w.state.Pool("demo"), []*pool.Resource{&first}, pool.Asker{}, w.now)
	if p.EstimatedWaitSeconds != 1200 || p.HighSeconds < 1200 || p.LowSeconds > 1200 || !strings.HasSuffix(p.Reason, "Resources: 3 jobs ahead, start expected 14:20") {
		t.Errorf("%+v", p)
	}
	w.pass(time.Minute) // overdue, and yet not served
	if p := w.state.PlaceOfSession("s2", w.now); p.EstimatedWaitSeconds <= 0 {
		t.Errorf("%+v", p)
	}
	w.up()
	w.pass(37 * time.Second)
	w.do(release("s1"))
	w.do(book("s3", "A"), book("s4", "A", waits(time.Hour)), book("s5", "A", waits(time.Hour)))
	// A session kept its slot for 100 s, and there are two slots.
	if p, held := w.state.PlaceOfSession("s5", w.now), w.state.Pool("demo").HoldSeconds; p.Position != 2 || held != 100 || p.EstimatedWaitSeconds != 100 {
		t.Errorf("%+v, %v", p, held)
	}
	w.do(job("j1", "A"), job("j2", "A", priority(1)))
	if p := w.state.PlaceOfJob("j1", w.now); p.Position != 2 {
		t.Errorf("%+v", p)
	}
}
