package scaling

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func pattern(times int, idle ...time.Duration) Pattern {
	var p Pattern
	for range times {
		for _, d := range idle {
			p = p.Add(d)
		}
	}
	return p
}

func TestPatternWindow(t *testing.T) {
	regular := pattern(120, 10*time.Minute).Window(5, 99)
	if !regular.Known || regular.Few || regular.From > 9*time.Minute || regular.From < 6*time.Minute || regular.Until < 10*time.Minute || regular.Until > 15*time.Minute {
		t.Errorf("every ten minutes: %+v", regular)
	}
	for name, c := range map[string]struct {
		w       Window
		idle    time.Duration
		start   time.Duration
		want    bool
		because string
	}{
		"just used, and not expected soon":       {regular, time.Minute, time.Minute, false, "it is brought back in time"},
		"just used, and slow to bring back":      {regular, time.Minute, 20 * time.Minute, true, "it would come too late"},
		"expected within the time of a start":    {regular, 8 * time.Minute, time.Minute, true, ""},
		"expected now":                           {regular, 10 * time.Minute, time.Minute, true, ""},
		"overdue":                                {regular, 20 * time.Minute, time.Minute, false, ""},
		"nothing is known, used lately":          {Window{}, 4 * time.Minute, time.Minute, true, "the fixed keep-alive"},
		"nothing is known, not used lately":      {Window{}, 5 * time.Minute, time.Minute, false, "the fixed keep-alive"},
		"few idle times lengthen what is fixed":  {pattern(12, 10*time.Minute).Window(5, 99), 9 * time.Minute, time.Minute, true, ""},
		"few idle times do not shorten it":       {pattern(12, 10*time.Second).Window(5, 99), 4 * time.Minute, time.Minute, true, ""},
		"too few say nothing":                    {pattern(9, 10*time.Minute).Window(5, 99), 6 * time.Minute, time.Minute, false, ""},
		"most are longer than is counted":        {pattern(20, 5*time.Hour, 5*time.Hour, time.Minute).Window(5, 99), time.Minute, time.Second, true, "the fixed keep-alive"},
		"most are longer than is counted, later": {pattern(20, 5*time.Hour, 5*time.Hour, time.Minute).Window(5, 99), 6 * time.Minute, time.Second, false, ""},
	} {
		if got := c.w.Kept(c.idle, c.start, 5*time.Minute); got != c.want {
			t.Errorf("%s: kept is %v (%s): %+v", name, got, c.because, c.w)
		}
	}
	spread := Pattern{}
	for i := range patternBins - 1 {
		spread = spread.Add(patternEdge(i))
	}
	if w := spread.Window(5, 99); w.Known {
		t.Errorf("times that are spread evenly have no pattern: %+v", w)
	}
}

func TestPatternSoon(t *testing.T) {
	if none := Pattern(nil); none.Soon(time.Second, 20*time.Second) < 0.9 || none.Soon(time.Hour, 20*time.Second) > 0.05 {
		t.Errorf("nothing known: %v, %v", none.Soon(time.Second, 20*time.Second), none.Soon(time.Hour, 20*time.Second))
	}
	p := pattern(50, 10*time.Minute)
	if early, due := p.Soon(time.Minute, time.Minute), p.Soon(9*time.Minute, 3*time.Minute); early > 0.1 || due < 0.5 {
		t.Errorf("every ten minutes: %v early, %v when it is due", early, due)
	}
	rapid.Check(t, func(t *rapid.T) {
		p := Pattern(rapid.SliceOfN(rapid.Byte(), 0, patternBins).Draw(t, "counts"))
		idle := time.Duration(rapid.Int64Range(0, int64(10*time.Hour)).Draw(t, "idle"))
		a, b := p.Soon(idle, time.Second), p.Soon(idle, time.Minute)
		if !(a >= 0 && a <= b && b <= 1) {
			t.Fatalf("%v within a second, %v within a minute", a, b)
		}
		if bin := patternBin(idle); idle < patternEdge(bin) || bin < patternBins-1 && idle >= patternEdge(bin+1)+time.Nanosecond {
			t.Fatalf("%s is in bin %d, from %s to %s", idle, bin, patternEdge(bin), patternEdge(bin+1))
		}
	})
}

func TestAPatternFadesAndIsNotChangedInPlace(t *testing.T) {
	p := pattern(250, time.Minute)
	before := string(p)
	q := pattern(10, 0)
	_ = p.Add(time.Minute)
	if string(p) != before {
		t.Error("it was changed in place")
	}
	for range 2000 {
		p = p.Add(10 * time.Second)
	}
	if w := p.Window(5, 99); w.Until > time.Minute {
		t.Errorf("an old habit has not faded: %+v of %v", w, p)
	}
	if len(q) != 1 || q[0] != 10 {
		t.Errorf("%v", q)
	}
}
