package simulate

import (
	"math"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Result is what a simulation found. Times to first frame count from the
// request to the moment its work can begin: waiting, starting and loading.
// Percentiles are by nearest rank.
type Result struct {
	Policy          string  `json:"policy"`
	Scaling         string  `json:"scaling,omitempty"`
	Seed            uint64  `json:"seed"`
	Requests        int     `json:"requests"`
	Served          int     `json:"served"`
	Rejected        int     `json:"rejected"`
	WarmHits        int     `json:"warm_hits"`
	WarmRatio       float64 `json:"warm_ratio"`
	Loads           int     `json:"loads"`
	LoadSeconds     float64 `json:"load_seconds"`
	Evictions       int     `json:"evictions"`
	TTFFMean        float64 `json:"ttff_mean_seconds"`
	TTFFP50         float64 `json:"ttff_p50_seconds"`
	TTFFP95         float64 `json:"ttff_p95_seconds"`
	TTFFP99         float64 `json:"ttff_p99_seconds"`
	TTFFMax         float64 `json:"ttff_max_seconds"`
	WaitP95         float64 `json:"wait_p95_seconds"` // from the request to the slot
	BusySeconds     float64 `json:"busy_seconds"`     // of slots, loading included
	ResourceSeconds float64 `json:"resource_seconds"` // from the request of a resource to its end
	ScaleUps        int     `json:"scale_ups"`        // resources started
	ScaleDowns      int     `json:"scale_downs"`      // resources stopped
	Fairness        float64 `json:"fairness"`         // Jain's index of the users' mean slowdown: 1 is equal
	Until           float64 `json:"last_end_seconds"` // when the last request ended

	Commands int           `json:"-"`
	Elapsed  time.Duration `json:"-"` // of the simulation itself

	ttff, waits []float64
	users       map[domain.Owner]*slowdown
	evicted     []domain.ModelKey
}

// slowdown of a request is its time in the system over the time that its work
// took, which counts as a second at least (Feitelson et al. 1997: bounded slowdown).
type slowdown struct {
	sum float64
	n   int
}

func (r *Result) add(s *Served, work time.Duration) {
	r.Requests++
	r.Served++
	r.ttff = append(r.ttff, (s.Start - s.Arrival).Seconds())
	r.waits = append(r.waits, (s.Placed - s.Arrival).Seconds())
	r.BusySeconds += (s.End - s.Placed).Seconds()
	r.Until = max(r.Until, s.End.Seconds())
	if r.users == nil {
		r.users = map[domain.Owner]*slowdown{}
	}
	u := r.users[s.User]
	if u == nil {
		u = &slowdown{}
		r.users[s.User] = u
	}
	u.sum += (s.End - s.Arrival).Seconds() / math.Max(1, work.Seconds())
	u.n++
}

func (r *Result) finish(policy string) {
	r.Policy = policy
	slices.Sort(r.ttff)
	slices.Sort(r.waits)
	sum := 0.0
	for _, t := range r.ttff {
		sum += t
	}
	n := float64(len(r.ttff))
	r.TTFFMean, r.WarmRatio = sum/n, float64(r.WarmHits)/n
	r.TTFFP50, r.TTFFP95, r.TTFFP99, r.TTFFMax = nearest(r.ttff, 0.5), nearest(r.ttff, 0.95), nearest(r.ttff, 0.99), r.ttff[len(r.ttff)-1]
	r.WaitP95 = nearest(r.waits, 0.95)
	r.Fairness = r.jain()
}

// nearest is a percentile of sorted values by nearest rank.
func nearest(sorted []float64, p float64) float64 {
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// jain is (Σx)²/(n·Σx²) of the users' mean slowdowns (Jain, Chiu and Hawe 1984).
func (r *Result) jain() float64 {
	var names []domain.Owner
	for u := range r.users {
		names = append(names, u)
	}
	slices.Sort(names) // sums of floats depend on their order
	var sum, squares float64
	for _, u := range names {
		x := r.users[u].sum / float64(r.users[u].n)
		sum += x
		squares += x * x
	}
	return sum * sum / (float64(len(names)) * squares)
}
