package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func reserve(n int) func(*domain.Renderer) {
	return func(r *domain.Renderer) { r.Sessions.Reserve = n }
}

func room(moves int, settled time.Duration) func(*domain.Renderer) {
	return func(r *domain.Renderer) {
		r.Sessions.Moves, r.Sessions.Settled = moves, domain.Duration(settled)
	}
}

func frames(c *pool.SubmitJob) { c.Kind = pool.JobFrames }

// ranged brings every resource to ready as one that can stop between two frames.
func (w *world) ranged() *world {
	for _, r := range pool.AllResources(w.state) {
		if r.Coming() {
			w.do(pool.ReportReady{Resource: r.ID, Address: "127.0.0.1:9000", Capabilities: []string{domain.CapabilityRanges}})
		}
	}
	return w
}

func TestJobsLeaveTheReserveToSessions(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(3), reserve(2))).up()
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "model.loading r1 A", "job.assigned j1 r1 cold attempt 1")
	w.when(job("j2", "A"), "job.submitted j2", "job.queued j2")
	w.when(book("s1", "A"), "session.requested s1", "session.allocated s1 r1 cold")
	w.when(book("s2", "A"), "session.requested s2", "session.allocated s2 r1 cold")
	w.when(release("s1"), "session.released s1") // j2 must not have it: two are to be free
	w.when(release("s2"), "session.released s2")
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "job.assigned j2 r1 cold attempt 1")
}

// A reserve of all that there is would let jobs wait for ever: one slot is left to them.
func TestAReserveLeavesJobsASlot(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(2), reserve(5))).up()
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "model.loading r1 A", "job.assigned j1 r1 cold attempt 1")
	w.when(job("j2", "A"), "job.submitted j2", "job.queued j2")
}

// A pool with nothing but its reserve grows for jobs, if it may.
func TestJobsBesideAReserveStartResources(t *testing.T) {
	w := given(t, demo(size(1, 2), reserve(1))).up()
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "pool.scaled 1 to 2", "resource.requested r2")
	w.do(pool.ReportStarting{Launched: domain.Launched{Resource: w.r(2)}})
	w.when(pool.ReportReady{Resource: w.r(2)}, "resource.ready r2", "model.loading r1 A", "job.assigned j1 r1 cold attempt 1")
}

// rendering is a pool of one slot in which a set of frames is rendered for a minute already.
func rendering(t *testing.T, change ...func(*domain.Renderer)) *world {
	w := given(t, demo(append([]func(*domain.Renderer){size(1, 1), room(2, 10*time.Second)}, change...)...)).ranged()
	w.do(job("j1", "A", frames))
	w.do(pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 2})
	w.started(1, "j1")
	w.pass(time.Minute)
	return w
}

func (w *world) movedAfter(frames int) pool.Command {
	return pool.ReportJobMoved{Job: "j1", Resource: w.r(1), Frames: frames}
}

func TestAJobMakesRoomForASessionAndGoesOn(t *testing.T) {
	w := rendering(t)
	w.when(book("s1", "A", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1", "job.yielding j1 for s1")
	if j := w.state.Job("j1"); j.State != pool.JobStateRunning || j.Yielding == nil {
		t.Errorf("%+v", j)
	}
	w.pass(time.Second)
	w.when(w.movedAfter(12), "job.moved j1 after 12 frames", "session.allocated s1 r1 warm")
	j := w.state.Job("j1")
	if j.State != pool.JobStateQueued || j.FirstFrame != 13 || j.Moves != 1 || j.Attempts != 0 || j.Yielding != nil ||
		fmt.Sprint(j.Pieces) != "[{j1.f1 1 12}]" {
		t.Errorf("%+v", j)
	}
	if p := w.state.Pool("demo"); p.Rooms != 1 || p.RoomSeconds != 1 {
		t.Errorf("%+v", p)
	}
	w.silent(w.movedAfter(12)) // once is enough
	w.when(release("s1"), "session.released s1", "job.assigned j1 r1 warm attempt 1")
	w.started(1, "j1")
	w.pass(time.Minute)
	w.do(book("s2", "A", waits(time.Hour)))
	w.do(w.movedAfter(5))
	if j = w.state.Job("j1"); j.FirstFrame != 18 || fmt.Sprint(j.Pieces) != "[{j1.f1 1 12} {j1.f13 13 17}]" {
		t.Errorf("%+v", j)
	}
	// Twice is what it may be asked. From now on sessions wait for it.
	w.do(release("s2"))
	w.started(1, "j1")
	w.pass(time.Hour)
	w.when(book("s3", "A", waits(time.Hour)), "session.requested s3", "session.queued s3 at 1")
}

func TestWhoMayNotBeMovedIsNot(t *testing.T) {
	waitsInVain := func(t *testing.T, w *world, m domain.ModelKey) {
		t.Helper()
		if got := strings.Join(w.do(book("s1", m, waits(time.Hour))), ", "); strings.Contains(got, "yielding") {
			t.Error(got)
		}
	}
	t.Run("not for long enough", func(t *testing.T) {
		w := rendering(t, room(2, time.Minute+1))
		waitsInVain(t, w, "A")
		w.tick(1, "job.yielding j1 for s1")
	})
	t.Run("never", func(t *testing.T) { waitsInVain(t, rendering(t, room(0, 0)), "A") })
	t.Run("an image", func(t *testing.T) {
		w := given(t, demo(size(1, 1), room(2, 0))).ranged()
		w.do(job("j1", "A"), pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 2})
		w.started(1, "j1")
		waitsInVain(t, w, "A")
	})
	t.Run("a renderer that cannot stop between frames", func(t *testing.T) {
		w := given(t, demo(size(1, 1), room(2, 0))).up()
		w.do(job("j1", "A", frames), pool.ReportModelLoaded{Resource: w.r(1), Model: "A", Seconds: 2})
		w.started(1, "j1")
		waitsInVain(t, w, "A")
	})
	t.Run("one whose leaving would not help", func(t *testing.T) {
		w := rendering(t, slots(2))
		w.do(book("s0", "A")) // keeps the only place for a model
		waitsInVain(t, w, "B")
	})
	t.Run("where a resource is ready sooner", func(t *testing.T) {
		w := rendering(t, size(1, 2))
		w.do(pool.ReportStarting{}, book("s2", "B", waits(time.Hour)))
		if w.state.Job("j1").Yielding == nil { // a start takes longer than a frame, as far as is known
			t.Fatal("nobody made room")
		}
	})
}

func TestTheLowestPriorityMakesRoomAndOneForEachSession(t *testing.T) {
	w := given(t, demo(size(3, 3), room(2, 0))).ranged()
	w.do(job("j1", "A", frames, priority(5)), job("j2", "B", frames), job("j3", "C", frames))
	for i, m := range []domain.ModelKey{"A", "B", "C"} {
		w.do(pool.ReportModelLoaded{Resource: w.r(i + 1), Model: m, Seconds: 2})
		w.started(i+1, domain.JobID(fmt.Sprintf("j%d", i+1)))
	}
	w.when(book("s1", "B", waits(time.Hour)), "session.requested s1", "session.queued s1 at 1", "job.yielding j2 for s1") // it finds its model there
	w.when(book("s2", "A", waits(time.Hour)), "session.requested s2", "session.queued s2 at 2", "job.yielding j3 for s2") // j1 goes before
	w.when(book("s3", "X", waits(time.Hour)), "session.requested s3", "session.queued s3 at 3", "job.yielding j1 for s3")
	w.when(book("s4", "X", waits(time.Hour)), "session.requested s4", "session.queued s4 at 4")
}

// Whatever happens to a job that is making room: it makes room.
func TestAJobThatMakesRoomMayEndOtherwise(t *testing.T) {
	for name, end := range map[string]func(w *world) pool.Command{
		"succeeded":   func(w *world) pool.Command { return w.succeeded(1, "j1") },
		"cancelled":   func(*world) pool.Command { return pool.CancelJob{Job: "j1"} },
		"failed":      func(w *world) pool.Command { return w.failed(1, "j1", pool.ClassPermanent) },
		"interrupted": func(w *world) pool.Command { return w.failed(1, "j1", pool.ClassInterrupted) },
	} {
		w := rendering(t)
		w.do(book("s1", "A", waits(time.Hour)))
		w.do(end(w))
		if j := w.state.Job("j1"); j.Yielding != nil || !w.state.Session("s1").Holding() {
			t.Errorf("%s: %+v, the session is %s", name, j, w.state.Session("s1").State)
		}
		w.silent(w.movedAfter(3))
	}
}

// noJobTakesTheReserve: a job is given a slot only if the reserve is free beside it.
func noJobTakesTheReserve(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.JobAssigned)
	if !ok {
		return nil
	}
	renderer := w.fold.Resource(e.Resource).Renderer
	set := w.fold.Pool(renderer).Settings
	if set.ModelLoading == domain.LoadCommandLine {
		return nil
	}
	all := w.fold.ResourcesOf(renderer)
	free, slots := 0, max(0, set.Scaling.Max-len(all))*set.Slots
	for _, x := range all {
		if x.Key == "" && x.Live() {
			free, slots = free+x.Free(), slots+x.Slots
		}
	}
	if keep := min(set.Sessions.Reserve, slots-1); free <= keep {
		return fmt.Errorf("%d slots are free, and %d are kept for sessions", free, keep)
	}
	return nil
}

// aJobIsMovedWithinBoundsOnly: for a session that waits, so often at most, and not soon after its start.
func aJobIsMovedWithinBoundsOnly(w *world, r pool.Recorded) error {
	e, ok := r.Event.(pool.JobYielding)
	if !ok {
		return nil
	}
	j, s := w.fold.Job(e.Job), w.fold.Session(e.For)
	set := w.fold.Pool(j.Renderer).Settings.Sessions
	switch {
	case j.Moves >= set.Moves:
		return fmt.Errorf("it was moved %d times of %d", j.Moves, set.Moves)
	case j.State != pool.JobStateRunning || j.Yielding != nil || j.Kind != pool.JobFrames:
		return fmt.Errorf("the job is %+v", j)
	case r.At.Sub(*j.StartedAt) < set.Settled.Std():
		return fmt.Errorf("it began %s ago", r.At.Sub(*j.StartedAt))
	case !s.Waiting():
		return fmt.Errorf("session %s is %s", s.ID, s.State)
	}
	return nil
}

// noFrameIsMadeTwice: what was kept of a job that moved follows on what was kept before.
func noFrameIsMadeTwice(w *world) error {
	for _, j := range pool.AllJobs(w.state) {
		next := 1
		if j.PartOf != "" && len(j.Pieces) > 0 {
			next = j.Pieces[0].First
		}
		for _, p := range j.Pieces {
			if p.First != next || p.Last < p.First {
				return fmt.Errorf("job %s has the pieces %v", j.ID, j.Pieces)
			}
			next = p.Last + 1
		}
		if len(j.Pieces) > 0 && j.FirstFrame != next {
			return fmt.Errorf("job %s goes on at %d after the pieces %v", j.ID, j.FirstFrame, j.Pieces)
		}
	}
	return nil
}
