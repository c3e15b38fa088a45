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

func BenchmarkTrace(b *testing.B) {
	rows, err := simulate.ReadTrace(trace)
	if err != nil {
		b.Skip(err)
	}
	for _, policy := range []string{"least-loaded", "warm-first", "ttff"} {
		b.Run(policy, func(b *testing.B) {
			commands, elapsed := 0, time.Duration(0)
			for b.Loop() {
				r, err := simulate.Run(simulate.Options{Rows: simulate.Compress(rows, 40), Resources: 16, Slots: 1, Models: 1, Loads: simulate.Lognormal{P50: 22700 * time.Millisecond, P95: 45 * time.Second},
					Placement: domain.PlacementSettings{Policy: policy}, Seed: 1})
				if err != nil {
					b.Fatal(err)
				}
				commands, elapsed = commands+r.Commands, elapsed+r.Elapsed
				if os.Getenv("SHOW") != "" {
					fmt.Printf("%+v\n", r.TTFFMean)
				}
			}
			b.ReportMetric(float64(commands)/elapsed.Seconds(), "commands/s")
		})
	}
}
