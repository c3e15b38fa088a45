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
	Buffer       int           `json:"buffer"` // free slots to keep
	Slots        int           `json:"slots"`  // of one resource
	Idle         time.Duration `json:"-"`
	Occupied     int           `json:"occupied"`      // resources not ended, those on their way out too
	Live         int           `json:"live"`          // coming or ready
	ComingSlots  int           `json:"coming_slots"`  // on resources that are not ready yet
	FreeSlots    int           `json:"free_slots"`    // on ready resources
	Busy         int           `json:"busy"`          // slots in use on ready resources
	Waiting      int           `json:"waiting"`       // sessions and jobs that no free slot could take
	Unmet        int           `json:"unmet"`         // bookings refused a moment ago
	BackoffUntil time.Time     `json:"backoff_until"` // no starts before
	Change       Change        `json:"-"`
	IdleOnes     []Idle        `json:"-"` // at least those that may go: idle for long enough, or all where there are too many
}

// Idle is a ready resource without users.
type Idle struct {
	Resource domain.ResourceID
	Since    time.Time
	Models   int // loaded
	Slots    int // of FreeSlots on it: its own, as the settings may have changed; 0 if it serves only some
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
	Reason string        // for starting; a sentence's part
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
	case domain.ScalingBuffer:
		return newBuffer(p)
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
	return p
}

func grow(in *Inputs, w Wish) Plan {
	need, reason := w.Least-in.Live, w.Reason
	if in.Min-in.Live > need {
		need, reason = in.Min-in.Live, fmt.Sprintf("%d resources are fewer than the minimum of %d", in.Live, in.Min)
	}
	need = min(need, in.Max-in.Occupied)
	if c := in.Change; c.UpPerMinute > 0 {
		need = min(need, c.UpPerMinute-c.Started)
	}
	if need <= 0 || in.Now.Before(in.BackoffUntil) {
		return Plan{}
	}
	return Plan{Start: need, Reason: reason}
}

// shrink stops idle resources, the coldest first. Nothing goes while somebody waits.
func shrink(in *Inputs, w Wish) Plan {
	if in.Waiting > 0 {
		return Plan{}
	}
	spare, spareSlots := in.Live-max(in.Min, w.Most), in.FreeSlots-w.Free
	may := len(in.IdleOnes)
	if c := in.Change; c.DownPerMinute > 0 {
		may = c.DownPerMinute - c.Stopped
	}
	idle := slices.Clone(in.IdleOnes)
	slices.SortFunc(idle, func(a, b Idle) int {
		return cmp.Or(cmp.Compare(a.Models, b.Models), a.Since.Compare(b.Since), cmp.Compare(a.Resource, b.Resource))
	})
	over := in.Live - in.Max // the limit was lowered: idle ones go at once
	var p Plan
	for _, r := range idle {
		must := len(p.Stop) < over
		due := in.Now.Sub(r.Since) >= w.Idle && len(p.Stop) < may && spare > 0 && (r.Slots == 0 || spareSlots >= r.Slots)
		if !must && !due {
			continue
		}
		p.Stop = append(p.Stop, r.Resource)
		spare, spareSlots = spare-1, spareSlots-r.Slots
	}
	if len(p.Stop) > 0 {
		p.Reason = fmt.Sprintf("idle for %s and more", w.Idle)
		if over > 0 {
			p.Reason = fmt.Sprintf("%d resources are more than the maximum of %d", in.Live, in.Max)
		}
	}
	return p
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
