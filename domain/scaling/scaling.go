// Package scaling decides how many resources a pool should have: pure
// functions from what is asked for to what to start and what to stop.
//
// A policy wishes for a size. Decide carries the wish out within what holds for
// all of them: the limits, the pause after failed starts, the limits on change,
// and which resources may go.
package scaling

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Inputs are all that a decision may depend on; they are recorded with it.
type Inputs struct {
	Now          time.Time     `json:"-"`
	Min          int           `json:"min"`
	Max          int           `json:"max"`
	Buffer       int           `json:"buffer"`          // free slots to keep
	Slots        int           `json:"slots"`           // of one resource
	Bound        bool          `json:"bound,omitempty"` // each keeps one model for life: none is started but for who waits for its model
	Idle         time.Duration `json:"-"`
	Occupied     int           `json:"occupied"`               // resources not ended, those on their way out too
	Live         int           `json:"live"`                   // coming or ready
	ComingSlots  int           `json:"coming_slots"`           // on resources that are not ready yet
	FreeSlots    int           `json:"free_slots"`             // on ready resources
	Busy         int           `json:"busy"`                   // slots in use on ready resources
	Waiting      int           `json:"waiting"`                // sessions and jobs that no free slot could take, the first of a long queue
	Unmet        int           `json:"unmet"`                  // bookings refused a moment ago
	BackoffUntil time.Time     `json:"backoff_until,omitzero"` // no starts before
	Change       Change        `json:"-"`

	// What is learned, and what follows from it.
	Backlog  int      `json:"backlog"`       // like Waiting, of the whole queue
	Start    float64  `json:"start_seconds"` // how long a start takes
	Serve    float64  `json:"serve_seconds"` // how long who waits will hold a slot
	Freeing  float64  `json:"freeing"`       // slots in use that come free each second
	Arriving float64  `json:"arriving"`      // requests expected each second
	Ahead    Forecast `json:"forecast"`      // of the time that a start takes
	Lateness float64  `json:"lateness"`      // of queue-time; see Load
	Advice   []Advice `json:"-"`             // of the services that were asked

	// Idlers gives the ready resources without users that a wish may stop, and
	// how many live resources hold each of their models. It is asked only when something may go.
	Idlers func(Wish) ([]Idle, map[domain.ModelKey]int) `json:"-"`
}

// Idle is a ready resource without users.
type Idle struct {
	Resource domain.ResourceID
	Since    time.Time
	Slots    int // of FreeSlots on it: its own, as the settings may have changed; 0 if it serves only some
	Models   []Warm
}

// Warm is a model that an idle resource has loaded.
type Warm struct {
	Model  domain.ModelKey
	Wanted bool    // somebody waits for it, or was refused it a moment ago
	Kept   bool    // it is likely to be wanted again soon enough
	Worth  float64 // seconds of loading that it saves, by how lately it was used
}

// Change is how fast a pool may change, and what it did in this minute.
type Change struct {
	UpPerMinute   int // 0: no limit
	DownPerMinute int
	Started       int
	Stopped       int
}

// Policy says how many resources there should be. It is pure, and keeps
// nothing: whatever it knows is in the inputs. What it wishes for does not
// depend on what was started or stopped for the same wish a moment ago.
type Policy interface {
	Name() string
	Version() int // raised whenever it decides otherwise on the same inputs
	Wish(in *Inputs) Wish
}

// Wish is what a policy would have, before the limits.
type Wish struct {
	Least  int           // with fewer resources, coming or ready, some are started
	Most   int           // with more, idle ones go
	Free   int           // and only while so many free slots are left
	Idle   time.Duration // and only after so long without users
	Reason func() string // for starting; asked only when some are started
	Spare  func() string // for stopping; nil: that they were idle for so long

	// Patterns keeps the last resource that holds a model which is likely to be wanted again soon.
	Patterns bool

	// A policy without an answer passes, and may still bound what the next of a chain wishes for.
	// Beyond the bound of one that passed idle resources go at once, but for the last holders of what somebody wants.
	Pass      bool
	Low, High *int
	By        string // who decided, where that is not the policy itself
}

// Plan is the outcome. At most one of Start and Stop is set.
type Plan struct {
	Policy  string
	Version int
	Start   int
	Stop    []domain.ResourceID
	Reason  string
}

// Size is how many resources, coming or ready, there will be.
func (p Plan) Size(in *Inputs) int { return in.Live + p.Start - len(p.Stop) }

// New makes the policy that settings choose. They have been checked.
func New(p domain.ScalingPolicy) Policy {
	switch p.Policy {
	case domain.ScalingSchedule, domain.ScalingWebhook: // they need somebody to pass to
		return chain{one(p)}
	case domain.ScalingChain:
		var c chain
		for _, next := range p.Chain {
			c = append(c, one(next))
		}
		return c
	}
	return one(p)
}

func one(p domain.ScalingPolicy) Policy {
	switch p.Policy {
	case domain.ScalingSchedule:
		return newSchedule(p)
	case domain.ScalingWebhook:
		return newWebhook(p)
	case domain.ScalingBuffer:
		return newBuffer(p)
	case domain.ScalingQueueTime:
		return newQueueTime(p)
	case domain.ScalingForecast:
		return forecast{}
	default:
		return demand{}
	}
}

// Decide says what to start or stop now.
func Decide(policy Policy, in *Inputs) Plan {
	w := policy.Wish(in)
	p := grow(in, w)
	if p.Start == 0 {
		p = shrink(in, w)
	}
	p.Policy, p.Version = policy.Name(), policy.Version()
	if w.By != "" {
		p.Policy = w.By
	}
	return p
}

func grow(in *Inputs, w Wish) Plan {
	need := min(max(w.Least, in.Min)-in.Live, in.Max-in.Occupied)
	if c := in.Change; c.UpPerMinute > 0 {
		need = min(need, c.UpPerMinute-c.Started)
	}
	if need <= 0 || in.Bound || in.Now.Before(in.BackoffUntil) {
		return Plan{}
	}
	if in.Min > w.Least {
		return Plan{Start: need, Reason: fmt.Sprintf("%d resources are fewer than the minimum of %d", in.Live, in.Min)}
	}
	return Plan{Start: need, Reason: w.Reason()}
}

// shrink stops idle resources, the least wanted first. Nothing goes while
// somebody waits; and the last holder of a model that somebody wants goes only
// where the limit was lowered.
func shrink(in *Inputs, w Wish) Plan {
	over := in.Live - in.Max // the limit was lowered: idle ones go at once
	spare, spareSlots := in.Live-max(in.Min, w.Most), in.FreeSlots-w.Free
	beyond, asked := 0, w
	if w.High != nil && in.Live > max(in.Min, *w.High) {
		beyond, asked.Idle = in.Live-max(in.Min, *w.High), 0
	}
	if c := in.Change; c.DownPerMinute > 0 {
		spare, beyond = min(spare, c.DownPerMinute-c.Stopped), min(beyond, c.DownPerMinute-c.Stopped)
	}
	if in.Waiting > 0 || in.Idlers == nil || spare <= 0 && over <= 0 {
		return Plan{}
	}
	idle, holders := in.Idlers(asked)
	slices.SortFunc(idle, func(a, b Idle) int { return byWorth(a, b, holders) })
	var p Plan
	for _, r := range idle {
		must := len(p.Stop) < over
		due := in.Now.Sub(r.Since) >= w.Idle && spare > 0 && (r.Slots == 0 || spareSlots >= r.Slots) && !r.last(w, holders)
		bound := len(p.Stop) < beyond && !r.wanted(holders)
		if !must && !due && !bound {
			continue
		}
		p.Stop = append(p.Stop, r.Resource)
		spare, spareSlots = spare-1, spareSlots-r.Slots
		for _, m := range r.Models {
			holders[m.Model]--
		}
	}
	if len(p.Stop) > 0 {
		p.Reason = fmt.Sprintf("idle for %s and more", w.Idle)
		if w.Spare != nil {
			p.Reason = fmt.Sprintf("%s; %d resources are too many", w.Spare(), in.Live)
		}
		if over > 0 {
			p.Reason = fmt.Sprintf("%d resources are more than the maximum of %d", in.Live, in.Max)
		}
	}
	return p
}

// wanted says whether the resource is the last that holds a model which somebody wants.
func (r Idle) wanted(holders map[domain.ModelKey]int) bool { return r.last(Wish{}, holders) }

// last says whether the resource is the last that holds a model which has to stay.
func (r Idle) last(w Wish, holders map[domain.ModelKey]int) bool {
	return slices.ContainsFunc(r.Models, func(m Warm) bool {
		return holders[m.Model] <= 1 && (m.Wanted || m.Kept && w.Patterns)
	})
}

// byWorth puts first what is missed least: nobody wants it, it holds nothing
// that others do not hold, it holds least, it was idle longest.
func byWorth(a, b Idle, holders map[domain.ModelKey]int) int {
	wantedA, worthA := a.worth(holders)
	wantedB, worthB := b.worth(holders)
	return cmp.Or(cmp.Compare(wantedA, wantedB), cmp.Compare(worthA, worthB), cmp.Compare(len(a.Models), len(b.Models)),
		a.Since.Compare(b.Since), cmp.Compare(a.Resource, b.Resource))
}

func (r Idle) worth(holders map[domain.ModelKey]int) (wanted int, worth float64) {
	for _, m := range r.Models {
		if m.Wanted {
			wanted++
		}
		if holders[m.Model] <= 1 {
			worth += m.Worth
		}
	}
	return wanted, worth
}

// resources is how many hold so many slots.
func (in *Inputs) resources(slots int) int {
	return int(math.Ceil(float64(max(0, slots)) / float64(max(1, in.Slots))))
}

// Backoff is how long a pool waits after its n-th failed start in a row:
// doubling from one second, at most five minutes.
func Backoff(n int) time.Duration {
	const first, longest = time.Second, 5 * time.Minute
	if n <= 0 {
		return 0
	}
	if n > 9 {
		return longest
	}
	return min(longest, first<<(n-1))
}
