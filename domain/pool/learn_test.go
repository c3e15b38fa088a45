package pool_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// loadsTake has a model loaded again and again, by two models taking turns on
// a resource, the other of which always takes so long.
func (w *world) loadsTake(m, other domain.ModelKey, otherSeconds float64, seconds ...float64) {
	w.Helper()
	for _, s := range seconds {
		w.warm(1, m, s)
		w.warm(1, other, otherSeconds)
	}
}

// expected is what a load of a model is expected to take, in seconds.
func (w *world) expected(m domain.ModelKey) float64 {
	return pool.ExpectLoad(w.state, "demo", m)
}

func about(got, want, tolerance float64) bool { return math.Abs(got-want) <= tolerance*want }

// Of few loads the mean counts, drawn to that of the pool by a quarter of a load.
func TestFewLoadsAreDrawnToTheMeanOfAll(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	if got := w.expected("A"); got != 20 {
		t.Errorf("before any load %v is expected", got) // the prior
	}
	w.warm(1, "B", 100)
	if got := w.expected("A"); got != 100 {
		t.Errorf("of a model that was never loaded %v is expected", got)
	}
	w.warm(1, "A", 10) // the mean of the pool is 55
	if got := w.expected("A"); !about(got, (10+0.25*55)/1.25, 1e-9) {
		t.Errorf("after one load of 10 s %v is expected", got)
	}
	w.loadsTake("A", "B", 100, 10, 10, 10, 10, 10, 10, 10)
	if got := w.expected("A"); !about(got, 10, 0.2) {
		t.Errorf("after eight loads of 10 s %v is expected", got)
	}
}

// One outlier among usual loads moves what is expected by six tenths at most,
// whatever it was, and a few loads later it is forgotten. The pool's mean counts it no higher.
func TestAnOutlierIsNoDrift(t *testing.T) {
	for _, outlier := range []float64{60, 600, 86400} {
		w := given(t, demo(size(1, 1))).up()
		w.loadsTake("A", "B", 20, 20, 20, 20, 20)
		w.warm(1, "A", outlier)
		if got := w.expected("A"); !about(got, 32, 0.02) {
			t.Errorf("after %v s, once, %v is expected", outlier, got)
		}
		if got := w.expected("new"); got > 25 {
			t.Errorf("after %v s, once, %v is expected of a model that was never loaded", outlier, got)
		}
		w.warm(1, "B", 20)
		w.loadsTake("A", "B", 20, 20, 20, 20, 20, 20)
		if got := w.expected("A"); !about(got, 20, 0.15) {
			t.Errorf("five loads after the outlier %v is expected", got)
		}
	}
}

// An outlier at the very first is believed, for want of anything else, but not for long.
func TestAFirstLoadThatWasAnOutlier(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.loadsTake("A", "B", 20, 300, 20, 20)
	if got := w.expected("A"); got > 115 {
		t.Errorf("after 300, 20 and 20 s %v is expected", got)
	}
	w.loadsTake("A", "B", 20, 20, 20, 20, 20, 20, 20)
	if got := w.expected("A"); !about(got, 20, 0.6) {
		t.Errorf("after six more %v is expected", got)
	}
}

// A model that has become slower, or faster, is followed within a few loads.
func TestDriftIsFollowed(t *testing.T) {
	for _, c := range []struct {
		to    float64
		loads int // until what is expected is within a third of it
	}{{2 * 20, 2}, {3 * 20, 3}, {10 * 20, 6}, {0.5 * 20, 4}, {0.1 * 20, 10}} {
		w := given(t, demo(size(1, 1))).up()
		w.loadsTake("A", "B", 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20)
		n := 0
		for ; !about(w.expected("A"), c.to, 0.34) && n < 50; n++ {
			w.loadsTake("A", "B", 20, c.to)
		}
		if n > c.loads {
			t.Errorf("from 20 to %v s takes %d loads", c.to, n)
		}
	}
}

// Loads that took no time, of a cache, are no promise for ever.
func TestLoadsThatTookNoTime(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.loadsTake("A", "B", 20, 0, 0, 0, 0)
	before := w.expected("A")
	w.loadsTake("A", "B", 20, 20, 20, 20, 20, 20, 20, 20, 20)
	if got := w.expected("A"); before > 2 || !about(got, 20, 0.34) {
		t.Errorf("%v was expected, and eight loads of 20 s later %v", before, got)
	}
}

// What is expected is never longer than the longest load, nor shorter than the
// shortest, and one more load of what is expected changes it little.
func TestExpectedLoadsAreAmongThoseSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.do(pool.ConfigureRenderer{Renderer: demo(size(1, 1))})
		w.up()
		seen := rapid.SliceOfN(rapid.Float64Range(0, 1000), 1, 12).Draw(t, "seconds")
		for i, s := range seen {
			w.warm(1, []domain.ModelKey{"A", "B"}[i%2], s)
		}
		for _, m := range []domain.ModelKey{"A", "B", "new"} {
			if got := w.expected(m); got < slices.Min(seen)-1e-9 || got > max(20, slices.Max(seen))+1e-9 {
				t.Fatalf("after %v of %s %v is expected", seen, m, got)
			}
		}
	})
}
