package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// The clock of the machine has a monotonic part, which the log does not hold:
// what is learned must come out of the log as it was learned.
func TestTimesAreThoseOfTheLog(t *testing.T) {
	w := given(t, demo(size(1, 1)))
	w.now = time.Now().In(time.FixedZone("somewhere", 3600)) //nolint:forbidigo // the test is about the clock of the machine
	w.up()
	w.do(book("s1", "A"))
	w.now = time.Now() //nolint:forbidigo // the same
	w.do(release("s1"))
	for _, e := range w.events {
		if e.At != e.At.Round(0) || e.At.Location() != time.UTC {
			t.Fatalf("%s is at %#v", e.Event.Type(), e.At)
		}
	}
}

// An event about something that is not there any more changes nothing.
func TestEventsAboutWhatWasForgottenChangeNothing(t *testing.T) {
	s := pool.NewState()
	for i, e := range []pool.Event{
		pool.SessionReleased{Session: "s"}, pool.SessionReady{Session: "s"}, pool.SessionAllocated{Session: "s", Resource: "r", Model: "A"},
		pool.JobFailed{Job: "j"}, pool.JobStarted{Job: "j"}, pool.JobUnblocked{Job: "j"}, pool.ResourceStopped{Resource: "r"}, pool.ResourceLost{Resource: "r"},
		pool.ModelEvicted{Resource: "r", Model: "A"}, pool.PoolScaled{}, pool.PoolBackedOff{}, pool.SessionRejected{Session: "s", Code: pool.CodeNoCapacity},
	} {
		s.Evolve(pool.Recorded{Position: int64(i + 1), Stream: domain.PoolStream("demo"), Version: int64(i + 1), At: began, Event: e})
	}
	if len(s.Pools()) != 0 || len(pool.AllSessions(s)) != 0 || len(pool.AllJobs(s)) != 0 || len(pool.AllResources(s)) != 0 {
		t.Error("something is there")
	}
}

func TestChangedVisitsWhatChangedOnceInOrder(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"))
	if _, err := w.state.Decide(w.head, pool.Given{ID: "c", At: w.now, Command: release("s1")}); err != nil {
		t.Fatal(err)
	}
	var views []string
	w.state.Changed(func(k pool.Key, e any) { views = append(views, k.View) })
	if !slices.Equal(views, []string{pool.ViewResources, pool.ViewModels, pool.ViewPools, pool.ViewOwners, pool.ViewSessions}) {
		t.Errorf("%q", views)
	}
	w.state.Rollback()
	w.state.Changed(func(k pool.Key, _ any) { t.Errorf("%v changed and was taken back", k) })
	// A booking that is refused leaves no row.
	w.refused(book("s2", "A"), domain.KindUnavailable, pool.CodeNoCapacity, "session.requested s2", "session.rejected s2 no_capacity")
	if _, err := w.state.Decide(w.head, pool.Given{ID: "c", At: w.now, Command: book("s3", "A")}); err == nil {
		t.Fatal("it was not refused")
	}
	w.state.Changed(func(k pool.Key, _ any) {
		if k.View == pool.ViewSessions {
			t.Errorf("%v has a row", k)
		}
	})
}
