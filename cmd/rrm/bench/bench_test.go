package bench

import (
	"context"
	"testing"
	"time"
)

// The benchmark runs, every booking succeeds, and both sides are measured. What comes out is not judged: machines differ.
func TestTheBenchmarkMeasuresBothSides(t *testing.T) {
	rows, err := Run(context.Background(), Options{Clients: []int{4}, Duration: time.Second, Dir: t.TempDir()}, func(r Row) { t.Logf("%+v", r) })
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].What != "pgbench" || rows[1].What != "rrm" || rows[1].PerSecond <= 0 || rows[0].P99 <= 0 || rows[1].Errors != 0 {
		t.Fatalf("%+v", rows)
	}
}
