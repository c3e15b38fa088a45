package scaling

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var spans = Spans{Start: 20 * time.Second, Risk: 0.05}

// stream folds requests that come every so often and hold a slot for so long, with slots enough for all.
type stream struct {
	l    Load
	now  time.Time
	busy int
	ends []time.Time
}

func (s *stream) to(at time.Time) {
	for len(s.ends) > 0 && !s.ends[0].After(at) {
		s.busy--
		s.l = s.l.Fold(s.ends[0], s.busy, 0, 0, spans)
		s.ends = s.ends[1:]
	}
	s.now = at
}

func (s *stream) request(every, hold time.Duration, times int) {
	for range times {
		s.to(s.now.Add(every))
		s.busy++
		s.l = s.l.Fold(s.now, s.busy, 0, 1, spans).Served(true, hold.Seconds())
		s.ends = append(s.ends, s.now.Add(hold))
	}
}

func TestASteadyLoadIsForecast(t *testing.T) {
	s := stream{now: now}
	s.request(time.Second, 10*time.Second, 3000) // ten slots in use
	f := s.l.Fold(s.now, s.busy, 0, 0, spans).Ahead(spans)
	if f.Slots < 9 || f.Slots > 11 || f.Slots+f.Margin*f.Deviation > 12.5 || f.Chance < 0.9 {
		t.Errorf("%+v", f)
	}
}

// A pool that is used now and then keeps nothing for whoever might come.
func TestARareLoadIsNotForecast(t *testing.T) {
	s := stream{now: now}
	s.request(time.Hour, 10*time.Minute, 50)
	if f := s.l.Fold(s.now, s.busy, 0, 0, spans).Ahead(spans); f.Slots != 1 || f.Margin != 0 || f.Chance > 0.05 {
		t.Errorf("in use: %+v", f)
	}
	s.to(s.now.Add(20 * time.Minute))
	if f := s.l.Fold(s.now, s.busy, 0, 0, spans).Ahead(spans); f.Slots > 0.05 || f.Held != 0 {
		t.Errorf("out of use: %+v", f)
	}
}

// Bursts that come again and again are kept for, and no longer when they have ceased.
func TestBurstsAreKeptForWhileTheyComeAgain(t *testing.T) {
	s := stream{now: now}
	for range 40 {
		s.to(s.now.Add(time.Minute))
		s.request(200*time.Millisecond, 5*time.Second, 100)
	}
	s.to(s.now.Add(50 * time.Second))
	if f := s.l.Fold(s.now, s.busy, 0, 0, spans).Ahead(spans); f.Slots+f.Margin*f.Deviation < 20 {
		t.Errorf("between two bursts: %+v", f)
	}
	s.to(s.now.Add(2 * time.Hour))
	if f := s.l.Fold(s.now, s.busy, 0, 0, spans).Ahead(spans); f.Slots > 0.05 {
		t.Errorf("two hours after the last: %+v", f)
	}
}

// A queue that came in a burst and is served late is no load that stays.
func TestAQueueIsNoLoad(t *testing.T) {
	var l Load
	for range 100 {
		l = l.Served(false, 2)
	}
	l = l.Fold(now, 0, 0, 0, spans)
	for i := range 300 { // ten a second, served by nobody
		l = l.Fold(now.Add(time.Duration(i)*100*time.Millisecond), 0, i+1, 1, spans)
	}
	if f := l.Ahead(spans); f.Held > 25 || f.Held < 10 {
		t.Errorf("30 seconds of ten a second that take 2 s each: %+v", f)
	}
}

func TestTheHoursOfTheWeekAreLearned(t *testing.T) {
	s := stream{now: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)} // a Monday
	for range 15 {                                                // from nine to ten each day
		s.to(s.now.Add(9 * time.Hour))
		s.request(10*time.Second, 100*time.Second, 360)
		s.to(s.now.Add(14 * time.Hour))
	}
	s.to(s.now.Add(9*time.Hour - 15*time.Second))
	f := s.l.Fold(s.now, s.busy, 0, 0, spans).Ahead(spans)
	if f.ByHour < 8 || f.ByHour > 12 || f.Slots < 1 {
		t.Errorf("a start before nine: %+v", f)
	}
	s.to(s.now.Add(-3 * time.Hour))
	if f := s.l.Fold(s.now.Add(12*time.Hour), s.busy, 0, 0, spans).Ahead(spans); f.Slots > 0.2 {
		t.Errorf("by night: %+v", f)
	}
}

func TestHoursAreKeptWithEnoughPrecision(t *testing.T) {
	for _, v := range []float64{0, 0.3, 1, 7, 80, 3000, 50_000} {
		if got := hourValue(hourByte(v)); math.Abs(got-v) > 0.05*v+0.03 {
			t.Errorf("%v is kept as %v", v, got)
		}
	}
}

// What is learned does not depend on how often time passes without an event,
// is small, and comes back from its row the same.
func TestALoadIsSmallAndComesBackTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l Load
		at, busy, waiting := now, 0, 0
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			at = at.Add(time.Duration(rapid.Int64Range(0, int64(time.Duration(1)<<rapid.IntRange(20, 50).Draw(t, "scale"))).Draw(t, "gap")))
			busy, waiting = rapid.IntRange(0, 50).Draw(t, "busy"), rapid.IntRange(0, 9).Draw(t, "waiting")
			l = l.Fold(at, busy, waiting, rapid.IntRange(0, 1).Draw(t, "arrived"), spans)
			if busy%7 == 0 {
				l = l.Served(busy%2 == 0, rapid.Float64Range(0, 1e5).Draw(t, "held"))
			}
			b, err := json.Marshal(l)
			var back Load
			if err != nil || json.Unmarshal(b, &back) != nil || len(b) > 1400 {
				t.Fatalf("%d bytes: %s %v", len(b), b, err)
			}
			again, _ := json.Marshal(back)
			if string(again) != string(b) {
				t.Fatalf("%s came back as %s", b, again)
			}
			f := back.Fold(at.Add(time.Second), busy, waiting, 0, spans).Ahead(spans)
			for _, v := range []float64{f.Slots, f.Deviation, f.Margin, f.Spread, f.Held, f.ByHour} {
				if math.IsNaN(v) || math.IsInf(v, 0) || v < -3 {
					t.Fatalf("%+v of %s", f, b)
				}
			}
		}
	})
}

func TestMisses(t *testing.T) {
	var m Misses
	if m.Margin(0.05) != 0 {
		t.Error("a margin out of nothing")
	}
	for range 90 {
		m = m.Add(0.2, 1)
	}
	for range 10 {
		m = m.Add(6, 1)
	}
	if g := m.Margin(0.2); g < 0 || g > 0.5 {
		t.Errorf("one of five may be too low: %v", g)
	}
	if g := m.Margin(0.05); g < 5 || g > 7.7 {
		t.Errorf("one of twenty may be too low: %v", g)
	}
	for _, u := range []float64{-99, -3, -2.9, 0, 3.99, 4, 5, 36, 1e9} {
		if b := missBin(u); b < 0 || b >= missBins || u >= missLowest && u < 37 && (u < missEdge(b) || u >= missEdge(b+1)) {
			t.Errorf("%v is counted in the bin from %v to %v", u, missEdge(b), missEdge(b+1))
		}
	}
	before := append(Misses(nil), m...)
	m.Add(1, 1)
	if string(before) != string(m) {
		t.Error("it was changed in place")
	}
	for range 1000 {
		m = m.Add(1, 4)
	}
	if g := m.Margin(0.05); g < 1 || g > 1.5 {
		t.Errorf("old errors fade: %v", g)
	}
}

// Of the highest load of the interval before, the less is left the more of this one is over.
func TestTheLoadOfTheIntervalBeforeFades(t *testing.T) {
	l := Load{Peak: 2, Before: 10, Interval: 20, Until: now.Add(20 * time.Second)}
	for at, want := range map[time.Duration]float64{0: 10, 5 * time.Second: 8, 15 * time.Second: 4, 20 * time.Second: 2, time.Minute: 2} {
		l.At = now.Add(at)
		if got := l.lately(); got != want {
			t.Errorf("after %s it is %g, not %g", at, got, want)
		}
	}
	l.At, l.Peak = now, 12
	if got := l.lately(); got != 12 {
		t.Errorf("the load of now is 12, not %g", got)
	}
}
