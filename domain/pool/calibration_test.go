package pool_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// line is a queue in virtual time: jobs come, take their time, and go.
type line struct {
	*world
	random *rand.Rand
	takes  map[domain.JobID]time.Duration // of those that wait
	ends   map[domain.JobID]time.Time     // of those that run
	jobs   int
}

// arrive submits a job that takes a lognormal time with this median, in seconds.
func (l *line) arrive(median float64) {
	l.jobs++
	id := domain.JobID(fmt.Sprintf("j%d", l.jobs))
	l.takes[id] = time.Duration(median * math.Exp(l.random.NormFloat64()) * float64(time.Second))
	l.give(job(id, "A"))
}

// until lets everything happen that happens before a time.
func (l *line) until(at time.Time) {
	for {
		var next domain.JobID
		for id, end := range l.ends {
			if next == "" || end.Before(l.ends[next]) || end.Equal(l.ends[next]) && id < next {
				next = id
			}
		}
		if next == "" || l.ends[next].After(at) {
			l.now = at
			return
		}
		l.now = l.ends[next]
		delete(l.ends, next)
		l.give(pool.ReportJobSucceeded{Job: next, Resource: l.state.Job(next).Resource})
	}
}

// give is a command without the checks, of which there would be too many; the job that it lets begin runs.
func (l *line) give(c pool.Command) {
	l.given++
	events, err := l.state.Decide(l.head, pool.Given{ID: domain.CommandID(fmt.Sprint(l.given)), At: l.now, Command: c})
	if err != nil {
		l.Fatalf("%#v: %v", c, err)
	}
	l.head += int64(len(events))
	l.state.Commit()
	for _, r := range events {
		l.fold.Evolve(r)
		l.fold.Commit()
		if e, ok := r.Event.(pool.JobAssigned); ok {
			l.give(pool.ReportJobStarted{Job: e.Job, Resource: e.Resource})
			l.ends[e.Job] = l.now.Add(l.takes[e.Job])
			delete(l.takes, e.Job)
		}
	}
}

// Of the waits, as many end within their interval as is stated, whatever the
// times are distributed like, and also when work becomes three times as long.
func TestAsManyWaitsEndWithinTheirIntervalAsIsStated(t *testing.T) {
	l := &line{world: given(t, demo(size(4, 4), loading(domain.LoadNone))).up(), random: rand.New(rand.NewPCG(7, 7)),
		takes: map[domain.JobID]time.Duration{}, ends: map[domain.JobID]time.Time{}}
	share := func(median float64, waits int) float64 {
		before := l.state.Pool("demo").Expectations.JobTurn
		for n := 0; n < waits; n = l.state.Pool("demo").Expectations.JobTurn.Waits - before.Waits {
			for range 1 + l.random.IntN(12) { // they come in bursts
				l.arrive(median)
			}
			l.until(l.now.Add(time.Duration(median * 2.4 * l.random.ExpFloat64() * float64(time.Second) * 1.65)))
		}
		after := l.state.Pool("demo").Expectations.JobTurn
		return float64(after.Within-before.Within) / float64(after.Waits-before.Waits)
	}
	for _, c := range []struct{ median, low, high float64 }{{5, 0.65, 0.95}, {5, 0.72, 0.88}, {15, 0.65, 0.92}, {15, 0.72, 0.88}} {
		if got := share(c.median, 1000); got < c.low || got > c.high {
			t.Errorf("%.2f of the waits for jobs of %v s ended within their interval; stated was %v", got, c.median, pool.Confidence)
		}
	}
	if a, b := l.state.Pool("demo").Expectations, l.fold.Pool("demo").Expectations; a != b || a.JobTurn.Waits < 4000 || a.JobTurn.High > 20 {
		t.Errorf("learned %+v, from the log %+v", a, b)
	}
}

func TestAnExpectationIsStatedAndJudged(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"))
	if e := w.state.Job("j1").Expected; e != nil {
		t.Errorf("a job that had not to wait was told %+v", e)
	}
	w.do(job("j2", "A"), job("j3", "A"))
	e := w.state.Job("j3").Expected
	// Nothing is known: a job takes about 10 s, give or take a factor of four.
	if e == nil || e.Seconds != 20 || e.Low != 5 || e.High != 80 || e.Basis != pool.BasisTurn || !e.At.Equal(w.now) {
		t.Fatalf("told %+v", e)
	}
	if p := w.state.PlaceOfJob("j3", w.now); p.Position != 2 || p.LowSeconds != e.Low || p.HighSeconds != e.High || p.EstimatedWaitSeconds != e.Seconds {
		t.Errorf("%+v", p)
	}
	w.pass(8 * time.Second)
	w.do(w.succeeded(1, "j1"))
	if c := w.state.Pool("demo").Expectations.JobTurn; c.Waits != 1 || c.Within != 1 || c.Recent != 1 || c.Mid != 1 || c.High >= 4 {
		t.Errorf("%+v", c)
	}
	w.pass(time.Minute * 3)
	w.do(w.succeeded(1, "j2"))
	if c := w.state.Pool("demo").Expectations.JobTurn; c.Waits != 2 || c.Within != 1 || c.Recent != 0.5 {
		t.Errorf("%+v", c)
	}
}

func TestSessionsAreJudgedApart(t *testing.T) {
	w := given(t, demo(size(0, 1)))
	w.do(book("s1", "A", waits(time.Hour)))
	if e := w.state.Session("s1").Expected; e == nil || e.Basis != pool.BasisStart || e.Seconds != 10 {
		t.Fatalf("told %+v", e)
	}
	w.up(12 * time.Second)
	w.do(book("s2", "A", waits(time.Hour)))
	w.pass(time.Minute)
	w.do(release("s1"))
	x := w.state.Pool("demo").Expectations
	if x.SessionStart.Waits != 1 || x.SessionStart.Within != 1 || x.SessionTurn.Waits != 1 || x.JobStart.Waits+x.JobTurn.Waits != 0 {
		t.Errorf("%+v", x)
	}
}

// Who is tried again, or moved, waits anew and was told nothing.
func TestOnlyTheFirstWaitIsJudged(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"), job("j2", "A"))
	w.pass(time.Second)
	w.do(w.failed(1, "j1", pool.ClassTransient)) // j2 begins
	n := w.state.Pool("demo").Expectations.JobTurn.Waits
	w.pass(time.Minute)
	w.do(w.failed(1, "j2", pool.ClassTransient)) // j1 begins again
	w.pass(time.Minute)
	w.do(w.succeeded(1, "j1")) // and j2
	if c := w.state.Pool("demo").Expectations.JobTurn; n != 1 || c.Waits != 1 || w.state.Job("j2").State != pool.JobStateAssigned {
		t.Errorf("%d and then %+v", n, c)
	}
}

func TestWhoBeginsInTheSameInstantDidNotWait(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"), book("s2", "A", waits(time.Hour)), release("s1"))
	if x := w.state.Pool("demo").Expectations; x.SessionTurn.Waits != 0 {
		t.Errorf("%+v", x)
	}
}

// What is said later, nearer the end of the wait, is easier to say.
func TestTheFirstThatWasSaidCounts(t *testing.T) {
	w := given(t, demo(size(0, 1)))
	w.do(book("s1", "A", waits(time.Hour)))
	first := *w.state.Session("s1").Expected
	w.do(pool.ReportStarting{Launched: domain.Launched{Resource: w.r(1)}})
	w.pass(5 * time.Second)
	w.do(pool.ReportFailed{Resource: w.r(1), Code: "exited", Reason: "no display"})
	if e := w.state.Session("s1"); e.State != pool.SessionStateQueued || *e.Expected != first {
		t.Errorf("%+v, %+v", e, e.Expected)
	}
}

func TestAJobReckonsWithTheSessionsThatWait(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j0", "A"), book("s1", "A", waits(time.Hour)), book("s2", "A", waits(time.Hour)), job("j1", "A"))
	if p := w.state.PlaceOfJob("j1", w.now); p.Position != 1 || p.EstimatedWaitSeconds != 30 {
		t.Errorf("%+v", p) // the first of the jobs, after the turns of two sessions
	}
}
