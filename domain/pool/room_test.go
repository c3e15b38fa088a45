package pool_test

import (
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// overridden is a world in which the last resource was started with overrides and is idle.
func overridden(t *testing.T, change ...func(*domain.Renderer)) *world {
	w := given(t, demo(change...))
	w.do(open("s1"))
	w.do(pool.ScheduleSession{Session: "s1", Model: "A", Overrides: &domain.Overrides{CPUs: 4}})
	w.up()
	w.do(release("s1"))
	return w
}

func TestAResourceWithOverridesGoesWhenItIsIdle(t *testing.T) {
	w := overridden(t, size(0, 2), buffer(1)) // nobody can use it as the buffer
	w.tick(5*time.Minute, "pool.scaled 2 to 1 without r2", "resource.stopping r2")
}

func TestSomeStartForAllWhileOneWithOverridesGoes(t *testing.T) {
	w := overridden(t, size(0, 4), buffer(1))
	w.pass(5 * time.Minute)
	w.when(book("s2", "A"), "session.requested s2", "model.loading r1 A", "session.allocated s2 r1 cold",
		"pool.scaled 2 to 3", "resource.requested r3", "pool.scaled 3 to 2 without r2", "resource.stopping r2")
}

func TestAResourceWithOverridesMakesRoomForThoseWithout(t *testing.T) {
	w := overridden(t, size(0, 1))
	w.when(book("s2", "A", waits(time.Hour)), "session.requested s2", "session.queued s2 at 1", "pool.scaled 1 to 0 without r1", "resource.stopping r1")
	w.when(pool.ReportStopped{Resource: w.r(1)}, "resource.stopped r1", "pool.scaled 0 to 1", "resource.requested r2")
	w = overridden(t, size(0, 1))
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "pool.scaled 1 to 0 without r1", "resource.stopping r1")
}

// What was started for one who was refused is kept for that one, and no second is started.
func TestARefusedBookingStartsOne(t *testing.T) {
	w := given(t, demo(size(0, 4), func(r *domain.Renderer) { r.Scaling.Idle = 0 }))
	r := w.refused(book("s1", "A"), domain.KindUnavailable, pool.CodeNoCapacity,
		"session.requested s1", "session.rejected s1 no_capacity", "pool.scaled 0 to 1", "resource.requested r1")
	w.tick(time.Second)
	w.up()
	w.tick(r.RetryAfter - time.Second)
	w.when(book("s1", "A"), "session.requested s1", "model.loading r1 A", "session.allocated s1 r1 cold")
	w.tick(time.Second)
	w.when(release("s1"), "session.released s1", "pool.scaled 1 to 0 without r1", "resource.stopping r1")
}

// To remove what is idle does not forget those who were told to come again.
func TestScalingDownForgetsNoRefusedBooking(t *testing.T) {
	w := given(t, demo(size(2, 2), func(r *domain.Renderer) { r.Scaling.Idle = 0 })).up()
	w.do(book("s1", "A"), book("s2", "A"))
	w.refused(book("s3", "A"), domain.KindUnavailable, pool.CodeNoCapacity, "session.requested s3", "session.rejected s3 no_capacity")
	w.do(pool.ConfigureRenderer{Renderer: demo(size(0, 2), func(r *domain.Renderer) { r.Scaling.Idle = domain.Duration(time.Second) })})
	w.do(release("s1"), release("s2"))
	w.tick(time.Second, "pool.scaled 2 to 1 without r1", "resource.stopping r1")
	w.tick(time.Second)
}

func TestAMachineThatRegistersItselfBadly(t *testing.T) {
	w := given(t, demo(func(r *domain.Renderer) { r.Launcher = domain.LauncherStatic }))
	for field, c := range map[string]pool.RegisterResource{
		"address": {}, "node": {Address: "a:1", Node: "\x00"}, "slots": {Address: "a:1", Slots: -1},
		"labels": {Address: "a:1", Labels: map[string]string{"\x00": ""}},
	} {
		c.Renderer = "demo"
		if r := w.refused(c, domain.KindInvalid, "invalid"); r.Field != field {
			t.Errorf("%s: %+v", field, r)
		}
	}
	w.do(pool.RegisterResource{Resource: "mine", Renderer: "demo", Address: "a:1"})
	w.refused(pool.RegisterResource{Resource: "mine", Renderer: "demo", Address: "a:2"}, domain.KindConflict, "resource_exists")
}
