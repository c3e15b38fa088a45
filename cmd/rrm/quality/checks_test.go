package main

import (
	"math"
	"testing"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

// made are outcomes by hand, of two settings: in the first warm-first is the
// best baseline by mean and delay by everything else; in the second it is hash.
func made() []outcome {
	return []outcome{
		{setting{Group: groupReal, Name: "one"}, map[string]figures{
			domain.PlaceTTFF:        {Mean: 40, P95: 90, P99: 150, Max: 500, LoadSeconds: 10, Fairness: 0.8},
			domain.PlaceWarmFirst:   {Mean: 100, P95: 200, P99: 300, Max: 400, LoadSeconds: 50, Fairness: 0.5},
			domain.PlaceDelay:       {Mean: 110, P95: 180, P99: 140, Max: 350, LoadSeconds: 60, Fairness: 0.6},
			domain.PlaceLeastLoaded: {Mean: 200, P95: 400, P99: 500, Max: 600, LoadSeconds: 100, Fairness: 0.7},
			domain.PlaceAllWarm:     {Mean: 32, P95: 60, P99: 70, Max: 80, Fairness: 0.9},
			domain.PlaceBelady:      {Mean: 1, P95: 1, P99: 1, Max: 1, LoadSeconds: 1, Fairness: 1},
		}},
		{setting{Group: groupReal, Name: "two"}, map[string]figures{
			domain.PlaceTTFF:        {Mean: 90, P95: 100, P99: 150, Max: 200, LoadSeconds: 40, Fairness: 0.4},
			domain.PlaceWarmFirst:   {Mean: 120, P95: 250, P99: 350, Max: 450, LoadSeconds: 50, Fairness: 0.5},
			domain.PlaceHash:        {Mean: 100, P95: 200, P99: 300, Max: 400, LoadSeconds: 60, Fairness: 0.6},
			domain.PlaceLeastLoaded: {Mean: 200, P95: 400, P99: 500, Max: 600, LoadSeconds: 100, Fairness: 0.7},
			domain.PlaceAllWarm:     {Mean: 60, P95: 60, P99: 70, Max: 80, Fairness: 0.9},
		}},
	}
}

// byHand is what a check has to come to.
type byHand struct {
	found float64
	holds bool
}

func asByHand(t *testing.T, got []check, want []byHand) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d checks, not %d", len(got), len(want))
	}
	for i, w := range want {
		if math.Abs(got[i].Found-w.found) > 1e-4 || got[i].Holds != w.holds {
			t.Errorf("%s: found %.4f, holds %t; by hand it is %.4f, %t", got[i].Asked, got[i].Found, got[i].Holds, w.found, w.holds)
		}
	}
}

func TestBusyChecksByHand(t *testing.T) {
	// Each by hand from the figures above. Geometric means: √(0.4·0.9)=0.6, √(0.5·0.5)=0.5,
	// √(1.25·1.5)=1.369, √(0.1·0.4)=0.2, √(1.6·0.8)=1.131.
	want := []byHand{
		{0.6, false}, {0.5, true}, {0.9, true}, {0.5, true}, {1.3693, false}, {0.2, false},
		{1.1314, true}, {0.8, false}, // fairness on average, and in the worst setting
		{0.5, true}, {150.0 / 140, false}, // the 99th percentile beside the best by mean, and by itself
	}
	asByHand(t, busyChecks(groupReal, made()), want)
}

func TestLightChecksByHand(t *testing.T) {
	want := []byHand{{0.6, true}, {0.9, true}, {1.25, false}, {500.0 / 350, false}, {1.1314, true}, {0.8, false}, {0.5, true}, {150.0 / 140, false}}
	asByHand(t, lightChecks(groupReal, made()), want)
}

func TestBestBaselineIsNoReference(t *testing.T) {
	all := made()
	for i, want := range [][2]string{{domain.PlaceWarmFirst, domain.PlaceDelay}, {domain.PlaceHash, domain.PlaceHash}} {
		if mean, p99 := best(&all[i], byMean), best(&all[i], byP99); mean != want[0] || p99 != want[1] {
			t.Errorf("in setting %s the best are %s and %s, not %v", all[i].Name, mean, p99, want)
		}
	}
}

func TestALimitThatIsMetExactlyHolds(t *testing.T) {
	all := made()[:1]
	f := all[0].by[domain.PlaceTTFF]
	f.Mean = 55
	all[0].by[domain.PlaceTTFF] = f
	if c := onAverage(groupReal, all, byMean, bestBy(byMean), 0.55); !c.Holds {
		t.Errorf("%.17g was not taken for at most 0.55", c.Found)
	}
}

func TestOfFairnessMoreIsBetter(t *testing.T) {
	for i, holds := range []bool{true, false} { // 0.8 beside 0.5, and 0.4 beside 0.5
		for _, c := range fair(groupReal, made()[i:i+1], against(domain.PlaceWarmFirst)) {
			if c.Holds != holds {
				t.Errorf("%s: %.2f was taken for %s", c.Asked, c.Found, c.verdict())
			}
		}
	}
}

func TestNothingBesideNothingIsEqual(t *testing.T) {
	if r := ratio(0, 0); r != 1 {
		t.Errorf("nothing by nothing is %g", r)
	}
	if r := ratio(1, 0); !math.IsInf(r, 1) {
		t.Errorf("something by nothing is %g", r)
	}
}

func TestAveraged(t *testing.T) {
	got := averaged([]simulate.Result{
		{TTFFMean: 1, TTFFP50: 2, TTFFP95: 3, TTFFP99: 4, TTFFMax: 5, LoadSeconds: 6, WarmRatio: 0.2, Fairness: 0.4},
		{TTFFMean: 3, TTFFP50: 4, TTFFP95: 5, TTFFP99: 6, TTFFMax: 50, LoadSeconds: 8, WarmRatio: 0.4, Fairness: 0.6},
	})
	want := figures{Mean: 2, P50: 3, P95: 4, P99: 5, Max: 50, LoadSeconds: 7, WarmRatio: 0.3, Fairness: 0.5}
	if math.Abs(got.WarmRatio-want.WarmRatio) < 1e-12 {
		got.WarmRatio = want.WarmRatio
	}
	if got != want {
		t.Errorf("averaged %+v, not %+v", got, want)
	}
}

func TestCostAt(t *testing.T) {
	points := []point{{10, 100}, {2, 300}, {4, 220}, {6, 240}, {20, 90}}
	for _, c := range []struct {
		wait, cost float64
		ok         bool
	}{
		{1, 0, false}, // none waits so little
		{2, 300, true},
		{3, 260, true},   // half way from 300 to 220
		{6, 180, true},   // on the line from 4 to 10, below the point that was tried there
		{7, 160, true},   // the same line
		{15, 95, true},   // half way from 100 to 90
		{100, 90, true},  // more waiting than any has costs no less than the cheapest
		{10, 100, true},  // a point itself
		{9.4, 112, true}, // on the line again
	} {
		cost, ok := costAt(points, c.wait)
		if ok != c.ok || math.Abs(cost-c.cost) > 1e-9 {
			t.Errorf("waiting %g s costs %g, %t; by hand it is %g, %t", c.wait, cost, ok, c.cost, c.ok)
		}
	}
}

func TestScalingChecksByHand(t *testing.T) {
	policy := func(name string, parameters domain.Parameters) domain.ScalingPolicy {
		return domain.ScalingPolicy{Policy: name, Parameters: parameters}
	}
	with := func(p domain.ScalingPolicy, wait, cost float64) scalingCase {
		return scalingCase{start: 20e9, idle: 1e9, policy: p, result: simulate.Result{WaitP95: wait, ResourceSeconds: cost}}
	}
	buffers := []scalingCase{with(policy(domain.ScalingBuffer, nil), 10, 100), with(policy(domain.ScalingBuffer, nil), 4, 200)}
	for _, c := range []struct {
		wait, cost, found float64
		holds             bool
	}{
		{7, 150, 1, true},            // as much as on the line between the two
		{7, 165, 1.1, false},         // more
		{4, 190, 0.95, true},         // as long as a buffer, for less
		{2, 190, math.Inf(1), false}, // waits less than any buffer: nobody knows what that costs with one
	} {
		f := scalingFindings{cases: append(buffers, with(policy(domain.ScalingForecast, nil), c.wait, c.cost))}
		got := f.checks()
		if len(got) != 1 || got[0].Found != c.found && math.Abs(got[0].Found-c.found) > 1e-9 || got[0].Holds != c.holds {
			t.Errorf("waiting %g s for %g: %+v; by hand it is %g, %t", c.wait, c.cost, got, c.found, c.holds)
		}
	}
}
