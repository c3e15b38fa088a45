// Package placement chooses the slot for a session or job: a pure function
// from what is known to a choice with its reasons. It knows resources only as
// what they hold and what is free on them.
//
// The policy is "expected": the least expected time to first frame. A loaded
// model costs nothing, one being loaded the rest of its load, a cold one its
// learned load time plus what it would cost to bring back what must be evicted.
package placement

import (
	"cmp"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Policy and Version name what made a decision, so that a recorded one can be repeated.
const (
	Policy  = "expected"
	Version = 1
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
}

// The states of a model on a resource.
const (
	Loading = "loading"
	Loaded  = "loaded"
)

// Option is a resource as placement sees it.
type Option struct {
	Resource  domain.ResourceID
	Seq       int64
	Free      int
	Slots     int
	MaxModels int
	MemoryMiB int             // 0: no limit known
	Bound     domain.ModelKey // the one model that it keeps for life; empty: any
	Key       string          // of the overrides that it was started with
	CanLoad   bool            // false: models are no matter of loading at all (model_loading none)
	Models    []Held
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
	Seconds  float64           `json:"seconds"` // expected time to first frame plus the cost of evicting
	State    string            `json:"state"`   // warm, loading, cold
	Free     int               `json:"free"`
	Evicts   []domain.ModelKey `json:"evicts,omitempty"`
	seq      int64
	evicting int // how many would have to go
	option   int // its place among the options
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

// Choose finds the option with the least expected time to first frame. A warm
// free slot is never passed over for a cold one, also where loading is known
// to take no time. Ties go to where the least is evicted, then to the fewest
// used, then to the oldest resource.
func Choose(w Want, options []Option) Choice {
	var c Choice
	var best [few + 1]Candidate // in order; the last is the one that falls out
	n := 0
	for i := range options[:min(len(options), maxScanned)] {
		cand, why := consider(w, &options[i])
		if why != "" {
			if c.Filtered == nil {
				c.Filtered = map[string]int{}
			}
			c.Filtered[why]++
			continue
		}
		c.Count++
		cand.option = i
		at := n
		for ; at > 0 && compare(&cand, &best[at-1]) < 0; at-- {
			best[at] = best[at-1]
		}
		best[at] = cand
		n = min(few, n+1)
	}
	if n == 0 {
		return c
	}
	c.Few = slices.Clone(best[:n])
	for i := range c.Few {
		if f := &c.Few[i]; f.evicting > 0 {
			f.Evicts = evicted(&options[f.option], f.evicting)
		}
	}
	c.Best = &c.Few[0]
	return c
}

// compare orders candidates, the best first.
func compare(a, b *Candidate) int {
	if c := cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Seconds, b.Seconds)); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.evicting, b.evicting), cmp.Compare(b.Free, a.Free), cmp.Compare(a.seq, b.seq))
}

// consider prices one option, or says why it is none.
func consider(w Want, o *Option) (Candidate, string) {
	c := Candidate{Resource: o.Resource, Free: o.Free, seq: o.Seq}
	if o.Free <= 0 {
		return c, NoFreeSlot
	}
	if o.Key != w.Key {
		return c, StartedOtherwise
	}
	if o.Bound != "" && o.Bound != w.Model {
		return c, OtherModel
	}
	for i := range o.Models {
		if h := &o.Models[i]; h.Model == w.Model {
			c.State = Warm
			if h.State == Loading {
				c.State = OnLoad
				// Never zero: what is loaded already goes first even if this load is overdue.
				c.Seconds = max(0.001, h.LoadSeconds-w.Now.Sub(h.Since).Seconds())
			}
			return c, ""
		}
	}
	evicting, cost, why := makeRoom(w, o)
	if why != "" {
		return c, why
	}
	c.State, c.evicting, c.Seconds = Cold, evicting, w.LoadSeconds+cost
	if !o.CanLoad {
		c.Seconds = 0
	}
	return c, ""
}

// makeRoom says how many unused models must go so that the wanted one fits, the
// cheapest to bring back first, and what bringing them back would cost.
func makeRoom(w Want, o *Option) (evicting int, cost float64, why string) {
	places, memory := o.MaxModels-len(o.Models), o.MemoryMiB
	for i := range o.Models {
		memory -= o.Models[i].MemoryMiB
	}
	if fits(w, o, places, memory) {
		return 0, 0, ""
	}
	var few [8]*Held
	for n, h := range unused(o, few[:0]) {
		cost += h.LoadSeconds
		places, memory = places+1, memory+h.MemoryMiB
		if fits(w, o, places, memory) {
			return n + 1, cost, ""
		}
	}
	if places <= 0 {
		return 0, 0, ModelsInUse
	}
	return 0, 0, TooLarge
}

func fits(w Want, o *Option, places, memory int) bool {
	return places > 0 && (o.MemoryMiB == 0 || memory >= w.MemoryMiB)
}

// unused appends the models that nobody uses in the order in which they are to
// go: the cheapest to bring back first, of equally cheap ones the longest unused.
func unused(o *Option, list []*Held) []*Held {
	for i := range o.Models {
		if o.Models[i].Users == 0 {
			list = append(list, &o.Models[i])
		}
	}
	slices.SortFunc(list, func(a, b *Held) int {
		return cmp.Or(cmp.Compare(a.LoadSeconds, b.LoadSeconds), a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Model, b.Model))
	})
	return list
}

// evicted are the first n models to go.
func evicted(o *Option, n int) []domain.ModelKey {
	models := make([]domain.ModelKey, 0, n)
	for _, h := range unused(o, nil)[:n] {
		models = append(models, h.Model)
	}
	return models
}

// WaitForWarm says whether a job had better wait for a busy resource that has
// its model loaded than load it elsewhere: only while the expected wait is
// below what loading would cost, and never for longer than that, whatever was
// expected (the rule of ski rental: rent until you have paid the price of buying).
//
// ahead is how many jobs for the model wait before this one, copies how many
// slots of warm resources jobs are about to free, jobSeconds the learned time of
// one job, waited how long this job has waited, cost what loading would take.
func WaitForWarm(ahead, copies int, jobSeconds, waited, cost float64) bool {
	if copies == 0 || waited >= cost {
		return false
	}
	return jobSeconds*float64(ahead+1)/float64(copies) < cost
}

// Patience is how many load times the job at the head of the queue lets jobs
// pass that find their model warm, before a slot must go to it: a load should
// be paid off by a run of warm work. On real demand anything between 20 and 100
// was within 14 % of the best mean; the lowest is the kindest to who waits.
const Patience = 20
