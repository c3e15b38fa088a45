package simulate_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

const trace = "../../../../shared/data/traces/gentd26-days00-15.csv"

// BenchmarkTrace tells how many commands are decided in a second of processor
// time, the collection of garbage included. GOGC=800 is how rrm simulate runs.
func BenchmarkTrace(b *testing.B) {
	rows, err := simulate.ReadTrace(trace)
	if err != nil {
		b.Skip(err)
	}
	for _, policy := range []string{"least-loaded", "sticky-lru", "hash", "warm-first", "ttff"} {
		b.Run(policy, func(b *testing.B) {
			commands, before := 0, simulate.Processor()
			for b.Loop() {
				r, err := simulate.Run(simulate.Options{Rows: simulate.Compress(rows, 40), Resources: 16, Slots: 1, Models: 1, Loads: simulate.Lognormal{P50: 22700 * time.Millisecond, P95: 45 * time.Second},
					Placement: domain.PlacementSettings{Policy: policy}, Seed: 1})
				if err != nil {
					b.Fatal(err)
				}
				commands += r.Commands
				if os.Getenv("SHOW") != "" {
					fmt.Printf("%+v\n", r.TTFFMean)
				}
			}
			if took := simulate.Processor() - before; took > 0 {
				b.ReportMetric(float64(commands)/took.Seconds(), "commands/cpu-s")
			}
		})
	}
}
