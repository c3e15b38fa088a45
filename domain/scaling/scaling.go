// Package scaling decides how many resources a pool should have: a pure
// function from what is asked for to what to start and what to stop.
//
// The policy is "demand": enough for who waits and for the buffer, within the
// limits, from zero; down again when resources have been idle for a time,
// coldest first. A pool whose resources fail to start is backed off.
package scaling

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Policy and Version name what made a decision.
const (
	Policy  = "demand"
	Version = 1
)

// Inputs are all that the decision may depend on; they are recorded with it.
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
	Waiting      int           `json:"waiting"`       // sessions and jobs that no free slot could take
	Unmet        int           `json:"unmet"`         // bookings refused a moment ago
	BackoffUntil time.Time     `json:"backoff_until"` // no starts before
	IdleOnes     []Idle        `json:"-"`             // at least those that may go: idle for long enough, or all where there are too many
}

// Idle is a ready resource without users.
type Idle struct {
	Resource domain.ResourceID
	Since    time.Time
	Models   int // loaded
	Slots    int // of FreeSlots on it: its own, as the settings may have changed; 0 if it serves only some
}

// Plan is the outcome. At most one of Start and Stop is set.
type Plan struct {
	Start  int
	Stop   []domain.ResourceID
	Reason string
}

// Decide says what to start or stop now.
func Decide(in Inputs) Plan {
	if p := grow(in); p.Start > 0 {
		return p
	}
	return shrink(in)
}

func grow(in Inputs) Plan {
	slots := max(1, in.Slots)
	forQueue := max(0, in.Waiting-in.ComingSlots)
	forUnmet := max(0, in.Unmet-max(0, in.ComingSlots-in.Waiting)-in.FreeSlots)
	// Slots that come for who waits are spoken for; what is left over counts for the buffer.
	spare := in.FreeSlots + max(0, in.ComingSlots-in.Waiting)
	forBuffer := max(0, in.Buffer-spare)
	need := int(math.Ceil(float64(forQueue+max(forUnmet, forBuffer)) / float64(slots)))
	need = max(need, in.Min-in.Live)
	need = min(need, in.Max-in.Occupied)
	if need <= 0 || in.Now.Before(in.BackoffUntil) {
		return Plan{}
	}
	reason := fmt.Sprintf("%d wait and %d slots are coming", in.Waiting, in.ComingSlots)
	switch {
	case forQueue > 0:
	case forUnmet > 0 && forUnmet >= forBuffer:
		reason = fmt.Sprintf("%d bookings were refused for want of a slot", in.Unmet)
	case forBuffer > 0:
		reason = fmt.Sprintf("%d free slots are fewer than the buffer of %d", spare, in.Buffer)
	default:
		reason = fmt.Sprintf("%d resources are fewer than the minimum of %d", in.Live, in.Min)
	}
	return Plan{Start: need, Reason: reason}
}

func shrink(in Inputs) Plan {
	if in.Waiting > 0 {
		return Plan{}
	}
	spare := in.Live - in.Min
	spareSlots := in.FreeSlots - in.Buffer - in.Unmet
	idle := slices.Clone(in.IdleOnes)
	slices.SortFunc(idle, func(a, b Idle) int {
		return cmp.Or(cmp.Compare(a.Models, b.Models), a.Since.Compare(b.Since), cmp.Compare(a.Resource, b.Resource))
	})
	over := in.Live - in.Max // the limit was lowered: idle ones go at once
	var p Plan
	for _, r := range idle {
		due := in.Now.Sub(r.Since) >= in.Idle || len(p.Stop) < over
		if !due || spare <= 0 || r.Slots > 0 && spareSlots < r.Slots && len(p.Stop) >= over {
			continue
		}
		p.Stop = append(p.Stop, r.Resource)
		spare, spareSlots = spare-1, spareSlots-r.Slots
	}
	if len(p.Stop) > 0 {
		p.Reason = fmt.Sprintf("idle for %s and more", in.Idle)
		if over > 0 {
			p.Reason = fmt.Sprintf("%d resources are more than the maximum of %d", in.Live, in.Max)
		}
	}
	return p
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
