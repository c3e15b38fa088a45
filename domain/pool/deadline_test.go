package pool_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func (w *world) deadline(in time.Duration) func(*pool.SubmitJob) {
	at := w.now.Add(in)
	return func(c *pool.SubmitJob) { c.Deadline = &at }
}

// knows is a world whose jobs for A take ten seconds and whose loads take two, with one slot that a session holds.
func knows(t *testing.T) *world {
	w := given(t, demo(size(1, 1))).up()
	w.warm(1, "A", 2)
	w.do(job("j0", "A"))
	w.started(1, "j0")
	w.pass(10 * time.Second)
	w.do(w.succeeded(1, "j0"), book("s0", "A"))
	return w
}

func (w *world) order() string {
	var ids []string
	for _, l := range pool.Orders(w.state) {
		if rest, ok := strings.CutPrefix(l, "demo queue: "); ok {
			ids = append(ids, rest)
		}
	}
	return strings.Join(ids, " ")
}

func TestTheEarliestDeadlineGoesFirstWithinAPriority(t *testing.T) {
	w := knows(t)
	w.do(job("j1", "A"), job("j2", "A", w.deadline(time.Hour)), job("j3", "A", w.deadline(time.Minute*30)), job("j4", "A", priority(1)), job("j5", "A", priority(-1), w.deadline(time.Minute)))
	if got := w.order(); got != "j4 j3 j2 j1 j5" {
		t.Errorf("the queue is %s", got)
	}
	if p := w.state.PlaceOfJob("j2", w.now); p.Position != 3 {
		t.Errorf("%+v", p)
	}
	w.when(release("s0"), "session.released s0", "job.assigned j4 r1 warm attempt 1")
	w.when(w.succeeded(1, "j4"), "job.succeeded j4", "job.assigned j3 r1 warm attempt 1")
}

func TestAJobThatIsExpectedToMissItsDeadlineSaysSo(t *testing.T) {
	w := knows(t)
	w.do(job("j1", "A", w.deadline(24*time.Hour)))
	if j := w.state.Job("j1"); j.Warning != "" {
		t.Errorf("a day is enough: %s", j.Warning)
	}
	w.do(job("j2", "A", w.deadline(11*time.Second)))
	if j := w.state.Job("j2"); !strings.Contains(j.Warning, "after its deadline") || j.Late || j.Ended {
		t.Errorf("%+v", j)
	}
	// One that waits for others is warned if it could not make it even at once.
	w.do(job("j3", "A", after("j1"), w.deadline(11*time.Second)), job("j4", "A", after("j1"), w.deadline(13*time.Second)))
	if j := w.state.Job("j3"); !strings.Contains(j.Warning, "after its deadline") {
		t.Errorf("%+v", j)
	}
	if j := w.state.Job("j4"); j.Warning != "" {
		t.Errorf("%+v", j)
	}
}

func TestAJobThatCanNoLongerMakeItStandsInNobodysWay(t *testing.T) {
	w := knows(t)
	w.do(job("j1", "A"), job("j2", "A", w.deadline(15*time.Second)), job("j3", "A", w.deadline(time.Minute)), job("j4", "A", w.deadline(14*time.Second), after("j1")))
	w.tick(4 * time.Second)
	w.tick(1*time.Second+1, "job.late j4", "job.late j2")
	if j := w.state.Job("j2"); !j.Late || !strings.Contains(j.Warning, "can no longer make it") {
		t.Errorf("%+v", j)
	}
	if got := w.order(); got != "j3 j1 j2" {
		t.Errorf("the queue is %s", got)
	}
	// It is rendered all the same if a slot comes in time for it to begin; else it fails.
	w.tick(9*time.Second, "job.failed j4 deadline_passed")
	w.tick(time.Second, "job.failed j2 deadline_passed")
	w.when(release("s0"), "session.released s0", "job.assigned j3 r1 warm attempt 1")
}

func TestAJobThatBeganEndsWhateverItsDeadline(t *testing.T) {
	w := knows(t)
	w.do(release("s0"), job("j1", "A", w.deadline(12*time.Second)))
	w.started(1, "j1")
	w.tick(time.Minute)
	w.do(w.succeeded(1, "j1"))
	if j := w.state.Job("j1"); j.State != pool.JobStateSucceeded || !j.Late || j.Warning != "it ended 48s after its deadline" {
		t.Errorf("%+v", j)
	}
	w.do(job("j2", "A", w.deadline(12*time.Second)))
	w.do(w.succeeded(1, "j2"))
	if j := w.state.Job("j2"); j.Late || j.Warning != "" {
		t.Errorf("%+v", j)
	}
}

// Of what never ran nobody knows how long it takes: it is given up at its deadline only.
func TestNobodyIsGivenUpOnAGuess(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"), job("j1", "B", w.deadline(5*time.Second)))
	w.tick(5*time.Second - 1)
	w.tick(1, "job.failed j1 deadline_passed")
}
