package simulate

import (
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

func generated(t *testing.T, s Synthetic) ([]Row, ByModel) {
	t.Helper()
	rows, loads, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return rows, loads
}

// many is long enough for shares to be right to a few per cent.
func many(seed uint64) Synthetic {
	s := DefaultSynthetic(seed)
	s.Days = 70
	return s
}

func TestSyntheticIsSeeded(t *testing.T) {
	rows, loads := generated(t, DefaultSynthetic(1))
	again, loadsAgain := generated(t, DefaultSynthetic(1))
	if !slices.Equal(rows, again) || !reflect.DeepEqual(loads, loadsAgain) {
		t.Error("the same seed gave another trace")
	}
	if other, _ := generated(t, DefaultSynthetic(2)); slices.Equal(rows, other) {
		t.Error("another seed gave the same trace")
	}
}

func TestSyntheticRowsAreATrace(t *testing.T) {
	rows, loads := generated(t, DefaultSynthetic(3))
	for i, r := range rows {
		if r.Row != i || r.Work <= 0 || loads[r.Key] <= 0 || r.User == "" || r.Arrival >= 7*24*time.Hour {
			t.Fatalf("row %d is %+v, with a load of %s", i, r, loads[r.Key])
		}
		if i > 0 && r.Arrival < rows[i-1].Arrival {
			t.Fatalf("row %d arrives before the one before it", i)
		}
	}
}

func TestSyntheticHabit(t *testing.T) {
	for _, habit := range []float64{0.4, 0.72, 0.95} {
		s := many(4)
		s.Habit = habit
		rows, _ := generated(t, s)
		last, same, of := map[domain.Owner]domain.ModelKey{}, 0.0, 0.0
		for _, r := range rows {
			if before, ok := last[r.User]; ok {
				of++
				if before == r.Key {
					same++
				}
			}
			last[r.User] = r.Key
		}
		if math.Abs(same/of-habit) > 0.01 {
			t.Errorf("the next request of a user wants the same model in %.3f of cases, not in %.2f", same/of, habit)
		}
	}
}

func TestSyntheticPopularityIsZipfs(t *testing.T) {
	for _, exponent := range []float64{0.7, 1.1} {
		s := many(5)
		s.Zipf, s.Habit = exponent, 0.5 // long stays need more requests for the same precision
		rows, _ := generated(t, s)
		count := map[domain.ModelKey]float64{}
		for _, r := range rows {
			count[r.Key]++
		}
		// Least squares of log count on log rank, over the models that are asked for often.
		var n, sx, sy, sxx, sxy float64
		for m := range 15 {
			x, y := math.Log(float64(m+1)), math.Log(count[modelName(m)])
			n, sx, sy, sxx, sxy = n+1, sx+x, sy+y, sxx+x*x, sxy+x*y
		}
		if slope := (n*sxy - sx*sy) / (n*sxx - sx*sx); math.Abs(slope+exponent) > 0.06 {
			t.Errorf("the slope of the popularity is %.3f, not %.2f", slope, -exponent)
		}
	}
}

func TestSyntheticDayAndNight(t *testing.T) {
	s := many(6)
	s.Bursts = 0
	rows, _ := generated(t, s)
	var hours [24]float64
	for _, r := range rows {
		hours[int(r.Arrival.Hours())%24]++
	}
	night, day := hours[2]+hours[3], hours[14]+hours[15]
	if ratio := night / day; ratio < s.Night || ratio > s.Night+0.06 { // visits of the evening last into the night
		t.Errorf("the night has %.3f of the requests of the day; the rate of visits has %.2f", ratio, s.Night)
	}
	if perDay := float64(len(rows)) / float64(s.Days); math.Abs(perDay/(s.Visits*s.Requests)-1) > 0.03 {
		t.Errorf("there are %.0f requests a day, not %.0f", perDay, s.Visits*s.Requests)
	}
}

func TestSyntheticBursts(t *testing.T) {
	dispersion := func(bursts float64) float64 { // of the requests in ten minutes: variance over mean
		s := many(7)
		s.Visits, s.Night, s.Requests, s.Bursts = 100, 1, 1, bursts
		rows, _ := generated(t, s)
		counts := make([]float64, s.Days*24*6)
		for _, r := range rows {
			counts[int(r.Arrival.Minutes())/10]++
		}
		mean, squares := float64(len(rows))/float64(len(counts)), 0.0
		for _, c := range counts {
			squares += (c - mean) * (c - mean)
		}
		return squares / float64(len(counts)) / mean
	}
	if none := dispersion(0); math.Abs(none-1) > 0.1 {
		t.Errorf("without bursts and habits of the day the dispersion is %.2f, not 1 as of a Poisson process", none)
	}
	if some := dispersion(1); some < 2 {
		t.Errorf("with a burst a day the dispersion is only %.2f", some)
	}
}

func TestSyntheticSizes(t *testing.T) {
	rows, loads := generated(t, many(8))
	var works [2][]float64
	for _, r := range rows {
		kind := 0
		for m := range 40 {
			if modelName(m) == r.Key {
				kind = m / 2 % 2
			}
		}
		works[kind] = append(works[kind], r.Work.Seconds())
	}
	for kind, want := range []float64{8, 60} {
		slices.Sort(works[kind])
		if got := nearest(works[kind], 0.5); math.Abs(got/want-1) > 0.05 {
			t.Errorf("the median work of kind %d takes %.1f s, not %.0f s", kind, got, want)
		}
	}
	var sizes [2][]float64
	for m := range 40 {
		sizes[m%2] = append(sizes[m%2], loads[modelName(m)].Seconds())
	}
	for size, want := range []float64{8, 60} {
		slices.Sort(sizes[size])
		if got := nearest(sizes[size], 0.5); math.Abs(got/want-1) > 0.3 {
			t.Errorf("the median load of size %d takes %.1f s, not about %.0f s", size, got, want)
		}
	}
}

func TestSyntheticRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Synthetic){
		"no days":                   func(s *Synthetic) { s.Days = 0 },
		"no users":                  func(s *Synthetic) { s.Users = 0 },
		"a habit below mere chance": func(s *Synthetic) { s.Habit = 0.01 },
		"more night than day":       func(s *Synthetic) { s.Night = 1.5 },
		"a p95 below the p50":       func(s *Synthetic) { s.Long.P95 = time.Second },
	} {
		s := DefaultSynthetic(1)
		spoil(&s)
		if _, _, err := s.Generate(); err == nil {
			t.Errorf("%s was not refused", name)
		}
	}
}
