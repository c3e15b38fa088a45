package commands_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// BenchmarkLane takes and frees slots of the toy, each command with its own
// stored answer: what the log and the lane cost without the real decisions.
func BenchmarkLane(b *testing.B) {
	for _, lanes := range []int{1, 2} {
		for _, clients := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("lanes=%d/clients=%d", lanes, clients), func(b *testing.B) { benchmarkLane(b, lanes, clients) })
		}
	}
}

func benchmarkLane(b *testing.B, lanes, clients int) {
	dsn := dbtest.DSN(b)
	all := make([]*commands.Lane, lanes)
	for i := range all {
		all[i], _ = newLane(b, dsn, newToy(clients), commands.Options{})
		runLane(b, all[i])
	}
	if _, err := do(b, all[0], "warm", look{}); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	took := make([][]time.Duration, clients)
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			l := all[c%lanes]
			for n := next.Add(2); n <= int64(b.N)+1; n = next.Add(2) {
				session := fmt.Sprint(n)
				for _, cmd := range []any{take{Session: session, Fresh: true}, free{Session: session}} {
					start := time.Now()
					if _, err := do(b, l, fmt.Sprintf("%T%s", cmd, session), cmd); err != nil {
						b.Error(err)
						return
					}
					took[c] = append(took[c], time.Since(start))
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	every := slices.Concat(took...)
	slices.Sort(every)
	b.ReportMetric(float64(len(every))/b.Elapsed().Seconds(), "commands/s")
	b.ReportMetric(float64(every[len(every)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(every[len(every)*99/100].Microseconds())/1000, "p99-ms")
	batches := int64(0)
	for _, l := range all {
		batches += l.Stats().Batches
	}
	b.ReportMetric(float64(len(every))/float64(batches), "commands/batch")
}
