// Package placement chooses who gets a free slot, and which: pure functions
// from what is known to a choice with its reasons, policies by name. It knows
// resources only as what they hold and what is free on them.
package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Held is a model on a resource.
type Held struct {
	Model       domain.ModelKey `json:"model"`
	State       string          `json:"state"` // loading or loaded
	Since       time.Time       `json:"since"` // of the state
	LastUsed    time.Time       `json:"last_used"`
	LoadSeconds float64         `json:"load_seconds"` // took, or is expected to take while loading
	MemoryMiB   int             `json:"memory_mib"`   // 0: not known
	Users       int             `json:"users"`
	Served      float64         `json:"served_seconds,omitempty"` // work done with it since it was loaded
}

// User is a session or a job that holds one of a resource's slots.
type User struct {
	Kind    string          `json:"kind"` // session or job
	ID      string          `json:"id"`
	Model   domain.ModelKey `json:"model"`
	Since   time.Time       `json:"since"`
	Seconds float64         `json:"expected_seconds,omitempty"` // that it keeps the slot, loading excluded
}

// The states of a model on a resource.
const (
	Loading = "loading"
	Loaded  = "loaded"
)

// Option is a ready resource as placement sees it. Once it is in a Fleet it
// changes only between two questions to a policy, and with Fleet.Change.
type Option struct {
	Resource  domain.ResourceID
	Seq       int64
	Free      int
	Slots     int
	MaxModels int
	MemoryMiB int             // 0: no limit known
	Bound     domain.ModelKey // the one model that it keeps for life; empty: any
	Key       string          // of the overrides that it was started with
	IdleSince time.Time       // zero: it has users
	Models    []Held
	Users     []User
}

// Holds finds a model on the resource, or nil.
func (o *Option) Holds(m domain.ModelKey) *Held {
	for i := range o.Models {
		if o.Models[i].Model == m {
			return &o.Models[i]
		}
	}
	return nil
}

// Want is who asks.
type Want struct {
	Model       domain.ModelKey
	Key         string  // of the overrides that it must have been started with
	LoadSeconds float64 // expected, cold
	MemoryMiB   int     // 0: not known
	Now         time.Time
}

// Candidate is a resource that would do, as recorded in a decision.
type Candidate struct {
	Resource domain.ResourceID `json:"resource"`
	Seconds  float64           `json:"seconds"` // expected time to first frame
	State    string            `json:"state"`   // warm, loading, cold
	Free     int               `json:"free"`
	Evicts   []domain.ModelKey `json:"evicts,omitempty"`
	Worth    float64           `json:"evicted_worth_seconds,omitempty"` // of what would be evicted, to the policy
	evicting int               // how many would have to go
	option   *Option
}

// The states of a candidate.
const (
	Warm   = "warm"
	Cold   = "cold"
	OnLoad = "loading"
)

// rank puts what is warm before all else.
func (c *Candidate) rank() int {
	if c.State == Warm {
		return 0
	}
	return 1
}

// Choice is the outcome: the best candidate if any, the few next best, and
// why the others were left out.
type Choice struct {
	Best     *Candidate
	Few      []Candidate
	Count    int
	Filtered map[string]int
}

// few is how many candidates a decision keeps: enough to see why, small enough for the log.
const few = 4

// The reasons for which a resource is no candidate.
const (
	NoFreeSlot       = "no_free_slot"
	ModelsInUse      = "models_in_use"     // all places for models are taken by models in use
	TooLarge         = "memory_in_use"     // not enough memory even without the unused models
	OtherModel       = "bound_to_other"    // keeps another model for life
	StartedOtherwise = "started_otherwise" // with other overrides than are asked for
	maxScanned       = 10_000              // options looked at for one choice: as many as a pool may have resources
)

// Few prices the free slots for a request and gives the few best of them, how
// many would do, and why the others would not: the record of a choice. The one
// that was chosen comes first, whatever the order.
func Few(v *View, p Policy, r *Request, chosen *Option) Choice {
	var c Choice
	var best [few]Candidate
	n, w := 0, v.want(r)
	for _, o := range v.Fleet.Free[:min(len(v.Fleet.Free), maxScanned)] {
		cand, why := Price(v, p, &w, o)
		if why != "" {
			if c.Filtered == nil {
				c.Filtered = map[string]int{}
			}
			c.Filtered[why]++
			continue
		}
		c.Count++
		if o == chosen {
			chosenOne := cand
			c.Best = &chosenOne
			continue
		}
		at := n
		for ; at > 0 && compare(&cand, &best[at-1]) < 0; at-- {
			if at < len(best) {
				best[at] = best[at-1]
			}
		}
		if at < len(best) {
			best[at] = cand
			n = min(len(best), n+1)
		}
	}
	if c.Best == nil {
		return c
	}
	c.Few = append(make([]Candidate, 0, min(few, n+1)), *c.Best)
	c.Few = append(c.Few, best[:min(n, few-1)]...)
	for i := range c.Few {
		if f := &c.Few[i]; f.evicting > 0 {
			f.Evicts = evicted(v, p, f.option, f.evicting)
		}
		c.Few[i].option = nil // it would keep what is long gone
	}
	c.Best = &c.Few[0]
	return c
}

// compare orders candidates, the best first: a warm free slot before a cold one
// also where loading is known to take no time, then the least expected time,
// then where the least is evicted, the fewest used, the oldest.
func compare(a, b *Candidate) int {
	if c := cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Seconds, b.Seconds)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.evicting, b.evicting), cmp.Compare(b.Free, a.Free), cmp.Compare(a.option.Seq, b.option.Seq))
}

// Price prices a free slot for a want: the expected time to first frame, and
// what has to be evicted for it; or says why it will not do. Without a policy it only says whether it will.
func Price(v *View, p Policy, w *Want, o *Option) (Candidate, string) {
	c := Candidate{Resource: o.Resource, Free: o.Free, option: o}
	if o.Free <= 0 {
		return c, NoFreeSlot
	}
	if o.Key != w.Key {
		return c, StartedOtherwise
	}
	if o.Bound != "" && o.Bound != w.Model {
		return c, OtherModel
	}
	if h := o.Holds(w.Model); h != nil {
		c.State = Warm
		if h.State == Loading {
			c.State = OnLoad
			// Never zero: what is loaded already goes first even if this load is overdue.
			c.Seconds = max(0.001, h.LoadSeconds-w.Now.Sub(h.Since).Seconds())
		}
		return c, ""
	}
	var why string
	if c.evicting, c.Worth, why = makeRoom(v, p, w, o); why != "" {
		return c, why
	}
	c.State, c.Seconds = Cold, w.LoadSeconds
	return c, ""
}

// makeRoom says how many unused models must go so that the wanted one fits, the
// least worth keeping first, and what they are worth together.
func makeRoom(v *View, p Policy, w *Want, o *Option) (evicting int, worth float64, why string) {
	places, memory := o.MaxModels-len(o.Models), o.MemoryMiB
	for i := range o.Models {
		memory -= o.Models[i].MemoryMiB
	}
	if fits(w, o, places, memory) {
		return 0, 0, ""
	}
	var few [8]valued
	for n, h := range unused(v, p, o, few[:0]) {
		worth += h.worth
		places, memory = places+1, memory+h.MemoryMiB
		if fits(w, o, places, memory) {
			return n + 1, worth, ""
		}
	}
	if places <= 0 {
		return 0, 0, ModelsInUse
	}
	return 0, 0, TooLarge
}

func fits(w *Want, o *Option, places, memory int) bool {
	return places > 0 && (o.MemoryMiB == 0 || memory >= w.MemoryMiB)
}

type valued struct {
	*Held
	worth float64
}

// unused appends the models that nobody uses in the order in which they are to
// go: the least worth first, of equal ones the longest unused.
func unused(v *View, p Policy, o *Option, list []valued) []valued {
	for i := range o.Models {
		if h := &o.Models[i]; h.Users == 0 {
			worth := 0.0
			if p != nil {
				worth = p.Worth(v, o, h)
			}
			list = append(list, valued{h, worth})
		}
	}
	if len(list) > 1 {
		slices.SortFunc(list, func(a, b valued) int {
			return cmp.Or(cmp.Compare(a.worth, b.worth), a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Model, b.Model))
		})
	}
	return list
}

// evicted are the first n models to go.
func evicted(v *View, p Policy, o *Option, n int) []domain.ModelKey {
	models := make([]domain.ModelKey, 0, n)
	for _, h := range unused(v, p, o, nil)[:n] {
		models = append(models, h.Model)
	}
	return models
}
