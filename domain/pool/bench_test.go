package pool_test

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// bench is a world without the checks: what the service pays for a command.
type bench struct {
	*testing.B
	took []time.Duration // of each command, while it is not nil
	s    *pool.State
	head int64
	now  time.Time
	n    int
}

func (b *bench) give(c pool.Command) {
	b.n++
	began := b.Elapsed()
	if b.took != nil {
		defer func() { b.took = append(b.took, b.Elapsed()-began) }()
	}
	events, err := b.s.Decide(b.head, pool.Given{ID: domain.CommandID(fmt.Sprint(b.n)), Actor: "bench", At: b.now, Command: c})
	if err != nil {
		b.Fatalf("%#v: %v", c, err)
	}
	b.head += int64(len(events))
	b.s.Commit()
}

// bigPool is a pool of so many ready resources with two slots and two models each.
func bigPool(b *testing.B, resources int) *bench {
	w := &bench{B: b, s: pool.NewState(), now: began}
	w.give(pool.ConfigureRenderer{Renderer: demo(size(resources, resources), slots(2), models(2, 0))})
	for _, r := range pool.AllResources(w.s) {
		w.give(pool.ReportReady{Resource: r.ID, Address: "127.0.0.1:9000"})
	}
	return w
}

func (b *bench) load() {
	for _, r := range pool.AllResources(b.s) {
		for _, h := range r.Models {
			b.give(pool.ReportModelLoaded{Resource: r.ID, Model: h.Model, Seconds: 3, MemoryMiB: 100})
		}
	}
}

func modelOf(i int) domain.ModelKey { return domain.ModelKey(fmt.Sprintf("circuit:%d", i%8)) }

// A booking and its release, on a pool of 100 resources with 8 models, half of its slots taken.
func BenchmarkBookAndRelease(b *testing.B) {
	w := bigPool(b, 100)
	for i := range 100 {
		w.give(book(domain.SessionID(fmt.Sprint("held", i)), modelOf(i)))
	}
	w.load()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		id := domain.SessionID(fmt.Sprint("s", i))
		w.now = w.now.Add(time.Millisecond)
		w.give(book(id, modelOf(i)))
		w.give(release(id))
	}
	b.ReportMetric(float64(2*b.N)/b.Elapsed().Seconds(), "commands/s")
}

// percentiles reports how long single commands took, their settling included, in microseconds.
func (b *bench) percentiles() {
	slices.Sort(b.took)
	for _, p := range []struct {
		name string
		of   float64
	}{{"p50-µs", 0.5}, {"p99-µs", 0.99}, {"p99.9-µs", 0.999}, {"max-µs", 1}} {
		i := max(0, int(math.Ceil(p.of*float64(len(b.took))))-1)
		b.ReportMetric(float64(b.took[i])/float64(time.Microsecond), p.name)
	}
}

// heap is what is in use after a collection, in megabytes.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// One job ends and the next begins, with 100,000 in the queue of a pool of 1,000
// resources, all in use. Wanted are less than 1,000 µs for 99 commands of 100
// and less than 200 MB for the live state.
func BenchmarkOneJobOfAHundredThousand(b *testing.B) {
	before := heap()
	w, queue := fullQueue(b)
	oneByOne(w, queue, heap()-before)
}

// The same where half of the queue belongs to an owner who may not have more
// running, every third job has a deadline, and there are a hundred other owners.
func BenchmarkOneJobOfAHundredThousandWithQuotasAndDeadlines(b *testing.B) {
	before := heap()
	w, queue := fullQueue(b, func(i int, c *pool.SubmitJob) {
		c.Owner = domain.Owner(fmt.Sprint("owner", i%100))
		if i%2 == 0 {
			c.Owner = "eve"
		}
		if i%3 == 0 {
			at := w0.Add(time.Duration(i) * time.Minute)
			c.Deadline = &at
		}
	})
	r := w.s.Pool("demo").Settings
	r.Quotas = &domain.QuotaSettings{Owners: map[domain.Owner]domain.Quota{"eve": {JobsRunning: of(10)}}}
	w.give(pool.ConfigureRenderer{Renderer: r})
	oneByOne(w, queue, heap()-before)
}

var w0 = began.Add(24 * time.Hour)

func oneByOne(w *bench, queue []domain.JobID, state float64) {
	b := w.B
	w.took = make([]time.Duration, 0, 2*b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		w.now = w.now.Add(time.Millisecond)
		j := w.s.Job(queue[0])
		queue = queue[1:]
		w.give(pool.ReportJobSucceeded{Job: j.ID, Resource: j.Resource})
		id := domain.JobID(fmt.Sprint("more", i))
		w.give(job(id, modelOf(i)))
		for _, r := range w.s.Resource(j.Resource).Users {
			if next := domain.JobID(r.ID); r.Since.Equal(w.now) {
				queue = append(queue, next)
			}
		}
		if len(queue) == 0 {
			b.Fatal("the queue stands still")
		}
	}
	b.ReportMetric(float64(2*b.N)/b.Elapsed().Seconds(), "commands/s")
	b.ReportMetric(state, "MB-state")
	w.percentiles()
}

// A tick of a pool with 100,000 jobs in its queue and 1,000 resources.
func BenchmarkTickWithAHundredThousandJobs(b *testing.B) {
	w, _ := fullQueue(b)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		w.now = w.now.Add(time.Millisecond)
		w.give(pool.Tick{})
	}
}

func fullQueue(b *testing.B, change ...func(i int, c *pool.SubmitJob)) (w *bench, running []domain.JobID) {
	w = bigPool(b, 1000)
	for i := range 2000 {
		id := domain.JobID(fmt.Sprint("held", i))
		w.give(job(id, modelOf(i)))
		running = append(running, id)
	}
	for range 40 { // some rather wait for a warm copy, and not for ever
		w.now = w.now.Add(100 * time.Second)
		w.give(pool.Tick{})
		w.load()
	}
	for _, id := range running {
		w.give(pool.ReportJobStarted{Job: id, Resource: w.s.Job(id).Resource})
	}
	for i := range 100_000 {
		c := job(domain.JobID(fmt.Sprint("j", i)), modelOf(i))
		for _, f := range change {
			f(i, &c)
		}
		w.give(c)
	}
	return w, running
}
