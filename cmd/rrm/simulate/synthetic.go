package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Synthetic is demand that is made up: users visit now and then, more of them
// by day than by night and some in bursts; on each visit a user makes some
// requests, mostly for the model of the request before. Every second model is
// large (its loads take long), and every second pair of models is one whose
// work takes long, so that all four kinds are among the popular ones.
//
// The same parameters give the same requests, on every machine.
type Synthetic struct {
	Seed uint64
	Days int // of 24 h; they begin at midnight

	Visits   float64       // a day, on average, without those of bursts
	Requests float64       // of a visit, on average (geometric, at least 1)
	Pause    Lognormal     // between the requests of a visit
	Night    float64       // rate of visits at 3 in the morning, as a share of that at 3 in the afternoon
	Bursts   float64       // a day, on average, at any hour
	Crowd    float64       // visits that a burst brings, on average
	Within   time.Duration // in which they come

	Users    int
	Activity float64 // the n-th user visits in proportion to 1/n^Activity
	Models   int
	Zipf     float64 // the n-th model is asked for in proportion to 1/n^Zipf
	Habit    float64 // share of requests that want the model of the same user's request before

	Small, Large Lognormal // load times by the size of the model
	Short, Long  Lognormal // work by the kind of the model
}

// DefaultSynthetic is a week of a site with some hundreds of users. The habits
// and the popularity are like those that are known of a real image service (its
// users' next request wants the same model in 72 % of cases, and the first of
// 87 models gets 31 % of the requests: Lin et al., SoCC '25); the two sizes lie
// on both sides of that service's load (median 22.7 s) and work (23 s).
func DefaultSynthetic(seed uint64) Synthetic {
	return Synthetic{
		Seed: seed, Days: 7,
		Visits: 200, Requests: 5, Pause: Lognormal{P50: 70 * time.Second, P95: 10 * time.Minute},
		Night: 0.05, Bursts: 1, Crowd: 20, Within: 10 * time.Minute,
		Users: 400, Activity: 0.8, Models: 40, Zipf: 1.1, Habit: 0.72,
		Small: Lognormal{P50: 8 * time.Second, P95: 16 * time.Second}, Large: Lognormal{P50: 60 * time.Second, P95: 100 * time.Second},
		Short: Lognormal{P50: 8 * time.Second, P95: 24 * time.Second}, Long: Lognormal{P50: 60 * time.Second, P95: 150 * time.Second},
	}
}

func (s Synthetic) check() error {
	switch {
	case s.Days < 1 || s.Visits <= 0 || s.Requests < 1 || s.Users < 1 || s.Models < 1:
		return errors.New("synthetic trace: Days, Visits, Requests, Users and Models are at least 1")
	case s.Night < 0 || s.Night > 1:
		return fmt.Errorf("synthetic trace: Night is from 0 to 1, not %g", s.Night)
	case s.Bursts < 0 || s.Crowd < 0 || s.Within < 0 || s.Zipf < 0 || s.Activity < 0:
		return errors.New("synthetic trace: Bursts, Crowd, Within, Zipf and Activity are at least 0")
	}
	for _, l := range []Lognormal{s.Pause, s.Small, s.Large, s.Short, s.Long} {
		if l.P50 <= 0 || l.P95 < l.P50 {
			return fmt.Errorf("synthetic trace: 0 < P50 <= P95 must hold, not %s and %s", l.P50, l.P95)
		}
	}
	if chance := collision(shares(s.Models, s.Zipf)); s.Habit < chance || s.Habit > 1 {
		return fmt.Errorf("synthetic trace: Habit is from %.3f, which chance alone brings, to 1, not %g", chance, s.Habit)
	}
	return nil
}

// Generate makes the requests, in order of arrival, and the load time of each model.
func (s Synthetic) Generate() ([]Row, ByModel, error) {
	if err := s.check(); err != nil {
		return nil, nil, err
	}
	models := shares(s.Models, s.Zipf)
	alike := collision(models)
	g := &generator{Synthetic: s, chance: rand.New(rand.NewPCG(s.Seed, 1)), users: cumulated(shares(s.Users, s.Activity)),
		models: cumulated(models), stays: (s.Habit - alike) / (1 - alike), last: map[int]int{}}
	visits := append(g.daily(), g.bursts()...)
	slices.Sort(visits)
	rows := g.requests(visits)
	loads := ByModel{}
	for m := range s.Models {
		size := s.Small
		if m%2 == 1 {
			size = s.Large
		}
		loads[modelName(m)] = size.draw(g.chance).Round(time.Millisecond)
	}
	return rows, loads, nil
}

func modelName(m int) domain.ModelKey { return domain.ModelKey("m" + strconv.Itoa(m)) }

// generator is a trace in the making.
type generator struct {
	Synthetic
	chance        *rand.Rand
	models, users []float64   // cumulated shares
	stays         float64     // chance that a user stays with a model
	last          map[int]int // model of each user's request before
}

// daily are the visits that come by day and by night: a Poisson process whose
// rate is a cosine, by thinning (Lewis and Shedler 1979).
func (g *generator) daily() []time.Duration {
	var all []time.Duration
	mean := (1 + g.Night) / 2 // of the rate, as a share of that of the busiest hour
	gap := 24 * time.Hour.Seconds() / g.Visits * mean
	for at := 0.0; ; {
		at += gap * g.chance.ExpFloat64()
		if at >= float64(g.Days)*24*time.Hour.Seconds() {
			return all
		}
		hour := math.Mod(at/3600, 24)
		if g.chance.Float64() < mean+(1-g.Night)/2*math.Cos(2*math.Pi*(hour-15)/24) {
			all = append(all, seconds(at))
		}
	}
}

// bursts are visits of many at once: a course, a deadline, a demonstration.
func (g *generator) bursts() []time.Duration {
	var all []time.Duration
	if g.Bursts == 0 || g.Crowd == 0 {
		return nil
	}
	for at := 0.0; ; {
		at += 24 * time.Hour.Seconds() / g.Bursts * g.chance.ExpFloat64()
		if at >= float64(g.Days)*24*time.Hour.Seconds() {
			return all
		}
		for in := g.chance.ExpFloat64() / g.Crowd; in < 1; in += g.chance.ExpFloat64() / g.Crowd {
			all = append(all, seconds(at+in*g.Within.Seconds()))
		}
	}
}

// requests are made of visits. What is still to come when the last day ends is left out.
func (g *generator) requests(visits []time.Duration) []Row {
	type request struct {
		at   time.Duration
		user int
	}
	var all []request
	end := time.Duration(g.Days) * 24 * time.Hour
	for _, at := range visits {
		user := pickShare(g.users, g.chance.Float64())
		for more := true; more && at < end; more = g.chance.Float64() < 1-1/g.Requests {
			all = append(all, request{at.Truncate(time.Millisecond), user})
			at += g.Pause.draw(g.chance)
		}
	}
	slices.SortStableFunc(all, func(a, b request) int { return cmp.Compare(a.at, b.at) })
	rows := make([]Row, len(all))
	for i, r := range all { // in order of time, since a user may visit twice at once
		model := g.model(r.user)
		work := g.Short
		if model/2%2 == 1 {
			work = g.Long
		}
		rows[i] = Row{Row: i, Arrival: r.at, User: domain.Owner("u" + strconv.Itoa(r.user)), Key: modelName(model),
			Work: work.draw(g.chance).Round(100 * time.Millisecond)}
	}
	return rows
}

// model is what a user's next request wants. Who stays with a model with
// probability h (stays) and else takes any by its share p is with the same one again
// in h + (1-h)·Σp² of cases, which is to be Habit; how often each model is asked for remains p.
func (g *generator) model(user int) int {
	model, before := g.last[user]
	if !before || g.chance.Float64() >= g.stays {
		model = pickShare(g.models, g.chance.Float64())
	}
	g.last[user] = model
	return model
}

// shares of n things by Zipf's law.
func shares(n int, exponent float64) []float64 {
	p, sum := make([]float64, n), 0.0
	for i := range p {
		p[i] = math.Pow(float64(i+1), -exponent)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// collision is how often two that are drawn alike are the same.
func collision(shares []float64) float64 {
	sum := 0.0
	for _, p := range shares {
		sum += p * p
	}
	return sum
}

func cumulated(shares []float64) []float64 {
	for i := 1; i < len(shares); i++ {
		shares[i] += shares[i-1]
	}
	return shares
}

// pickShare finds whose part of the cumulated shares x, from 0 up to 1, falls into.
func pickShare(cumulated []float64, x float64) int {
	i, _ := slices.BinarySearchFunc(cumulated, x, func(sum, x float64) int {
		if sum <= x {
			return -1
		}
		return 1
	})
	return min(i, len(cumulated)-1)
}
