package pool_test

import (
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Resources that are given their model on the command line keep it for life.

func bound(change ...func(*domain.Renderer)) domain.Renderer {
	return demo(append([]func(*domain.Renderer){loading(domain.LoadCommandLine)}, change...)...)
}

func TestABoundResourceIsStartedWithItsModel(t *testing.T) {
	w := given(t, bound())
	w.when(book("s1", "A", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1", "pool.scaled 0 to 1", "resource.requested r1 A")
	w.when(job("j1", "B"), "job.submitted j1", "job.queued j1", "pool.scaled 1 to 2", "resource.requested r2 B")
	w.when(pool.ReportReady{Resource: w.r(1)}, "resource.ready r1", "session.allocated s1 r1 warm")
	w.when(pool.ReportReady{Resource: w.r(2)}, "resource.ready r2", "job.assigned j1 r2 warm attempt 1")
}

func TestABoundPoolStartsOneForWhatWaitsForTheSameModel(t *testing.T) {
	w := given(t, bound(slots(2), size(0, 4)))
	w.do(book("s1", "A", waits(time.Hour)))
	w.when(book("s2", "A", waits(time.Hour)), "session.requested s2", "session.queued s2 at 2")
	w.when(book("s3", "A", waits(time.Hour)), "session.requested s3", "session.queued s3 at 3", "pool.scaled 1 to 2", "resource.requested r2 A")
}

func TestABoundPoolMakesRoomForAnotherModel(t *testing.T) {
	w := given(t, bound(size(0, 2), slots(2)))
	w.do(book("s1", "A", waits(time.Hour)), book("s2", "B", waits(time.Hour)))
	w.up()
	w.do(release("s2"))
	w.pass(time.Second)
	w.do(release("s1"))
	// The longest idle one makes room, once for both that wait for the model.
	w.when(book("s3", "C", waits(time.Hour)), "session.requested s3", "session.queued s3 at 1", "pool.scaled 2 to 1 without r2", "resource.stopping r2")
	w.when(book("s4", "C", waits(time.Hour)), "session.requested s4", "session.queued s4 at 2")
	w.when(pool.ReportStopped{Resource: w.r(2)}, "resource.stopped r2", "pool.scaled 1 to 2", "resource.requested r3 C")
	w.when(pool.ReportReady{Resource: w.r(3)}, "resource.ready r3", "session.allocated s3 r3 warm", "session.allocated s4 r3 warm")
}

func TestABoundPoolMakesRoomOnceForSeveralAtOnce(t *testing.T) {
	w := given(t, bound(size(0, 2), slots(2)))
	w.do(book("s1", "A", waits(time.Hour)), book("s2", "B", waits(time.Hour)))
	w.up()
	w.do(book("s3", "C", waits(time.Hour)), book("s4", "C", waits(time.Hour))) // no room while both are used
	w.when(release("s1"), "session.released s1", "pool.scaled 2 to 1 without r1", "resource.stopping r1")
	w.when(release("s2"), "session.released s2") // one will do for both
}

func TestABoundPoolDoesNotTakeAwayWhatIsUsed(t *testing.T) {
	w := given(t, bound(size(0, 1)))
	w.do(book("s1", "A", waits(time.Hour)))
	w.up()
	w.when(book("s2", "B", waits(time.Hour)), "session.requested s2", "session.queued s2 at 1")
	w.when(release("s1"), "session.released s1", "pool.scaled 1 to 0 without r1", "resource.stopping r1")
	w.when(pool.ReportStopped{Resource: w.r(1)}, "resource.stopped r1", "pool.scaled 0 to 1", "resource.requested r2 B")
}

func TestABoundPoolServesClientsThatDoNotWait(t *testing.T) {
	w := given(t, bound(size(0, 1)))
	r := w.refused(book("s1", "A"), domain.KindUnavailable, pool.CodeNoCapacity,
		"session.requested s1", "session.rejected s1 no_capacity", "pool.scaled 0 to 1", "resource.requested r1 A")
	w.up(r.RetryAfter)
	w.when(book("s1", "A"), "session.requested s1", "session.allocated s1 r1 warm")
}

func TestABoundResourceIsKeptForTheClientWhoWasRefused(t *testing.T) {
	w := given(t, bound(size(0, 1), func(r *domain.Renderer) { r.Scaling.Idle = 0 }))
	r := w.refused(book("s1", "A"), domain.KindUnavailable, pool.CodeNoCapacity,
		"session.requested s1", "session.rejected s1 no_capacity", "pool.scaled 0 to 1", "resource.requested r1 A")
	w.up()
	w.tick(r.RetryAfter)
	w.tick(6*time.Second, "pool.scaled 1 to 0 without r1", "resource.stopping r1")
}

func TestJobsOfABoundPoolWaitForAWarmCopyWhileThatIsCheaper(t *testing.T) {
	w := given(t, bound(size(0, 3)))
	w.do(job("j1", "A"))
	w.up(30 * time.Second)
	w.started(1, "j1")
	w.pass(5 * time.Second)
	w.do(job("j2", "A")) // jobs take 10 s as far as is known, a start 30
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "job.assigned j2 r1 warm attempt 1")
	w.do(job("j3", "A"), job("j4", "A"), job("j5", "A"), job("j6", "A"), job("j7", "A"))
	w.when(job("j8", "A"), "job.submitted j8", "job.queued j8", "pool.scaled 1 to 2", "resource.requested r2 A")
}

func TestABoundPoolIsBackedOffAndGoesToZero(t *testing.T) {
	w := given(t, bound(size(0, 1)))
	w.do(book("s1", "A", waits(time.Hour)))
	w.when(pool.ReportFailed{Resource: w.r(1), Code: "exited"}, "resource.failed r1 exited", "pool.backed_off 1 for 1s")
	w.tick(time.Second, "pool.scaled 0 to 1", "resource.requested r2 A")
	w.up()
	w.do(release("s1"))
	w.tick(5*time.Minute, "pool.scaled 1 to 0 without r2", "resource.stopping r2")
}

func TestABoundPoolRemovesWhatIsIdleAlsoWhileOthersWait(t *testing.T) {
	w := given(t, bound(size(0, 2)))
	w.do(book("s1", "A", waits(time.Hour)), book("s2", "B", waits(time.Hour)))
	w.up()
	w.do(release("s1"), pool.StopResource{Resource: w.r(2)}) // s2 is lost with it
	w.do(book("s3", "C", waits(time.Hour)))                  // and C waits for its place
	w.tick(5*time.Minute, "pool.scaled 1 to 0 without r1", "resource.stopping r1")
}
