package placement

import (
	"iter"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Policy gives out slots. It is pure and keeps nothing: whatever it knows is in the view.
type Policy interface {
	Name() string
	Version() int // raised whenever it decides otherwise on the same view
	// Next is the one assignment to make now. It is asked again, on the view as
	// it is then, until there is none.
	Next(v *View) (Assignment, bool)
	// Worth says how much a loaded model that nobody uses is worth keeping: what is worth least is evicted first.
	Worth(v *View, o *Option, h *Held) float64
}

// Binder is a policy that puts each request into the queue of one resource when it arrives.
type Binder interface {
	// Bind says whose; nil: nobody is there.
	Bind(v *View, m domain.ModelKey, key string) *Option
}

// View is all that a policy may know.
type View struct {
	Now      time.Time
	Fleet    *Fleet
	Queue    *Queue
	Arrivals int64                                   // requests that ever came to the pool
	Seconds  float64                                 // mean time to first frame of late
	Known    func(domain.ModelKey) Known             // what has been learned of a model
	Demand   func(domain.ModelKey) float64           // requests for a model a second, of late, see pool.Model
	Ready    func(*Request) bool                     // whether it may begin now; nil: all may
	Share    func(domain.Owner) float64              // slots that an owner's work holds, by its weight; nil: not kept
	CanLoad  bool                                    // false: models are no matter of loading at all (model_loading none)
	NextUse  func(domain.ModelKey) (time.Time, bool) // the future, which only a simulation knows
	Wake     time.Time                               // set by Next: time alone changes the answer then; zero: it does not
}

// Known is what has been learned of a model.
type Known struct {
	LoadSeconds float64 // expected of a load
	WorkSeconds float64 // expected of one session or job, loading excluded
	MemoryMiB   int     // 0: not known
}

// Assignment is who gets a slot of which resource.
type Assignment struct {
	Request  *Request
	Resource *Option
	Reason   string // why this one now; empty: it is the next in the order of the policy
}

// lookAhead is how far into a line or queue policies look. It bounds the work of one command whatever the queue's length.
const lookAhead = 64

// first is the first of some requests that may begin.
func (v *View) first(list []*Request) *Request {
	for _, r := range list {
		if v.may(r) {
			return r
		}
	}
	return nil
}

// ready are the first requests of a list that may begin, at most lookAhead of them.
func (v *View) ready(list []*Request) iter.Seq[*Request] {
	return func(yield func(*Request) bool) {
		n := 0
		for _, r := range list {
			if !v.may(r) {
				continue
			}
			if n++; n > lookAhead || !yield(r) {
				return
			}
		}
	}
}

func (v *View) may(r *Request) bool {
	return !v.Now.Before(r.NotBefore) && (v.Ready == nil || v.Ready(r))
}

func (v *View) age(r *Request) float64 { return v.Now.Sub(r.Since).Seconds() }

// load is the expected time of a load, in seconds.
func (v *View) load(m domain.ModelKey) float64 {
	if !v.CanLoad {
		return 0
	}
	return v.Known(m).LoadSeconds
}

// wake asks to be asked again after some seconds.
func (v *View) wake(in float64) {
	at := v.Now.Add(max(time.Millisecond, time.Duration(in*float64(time.Second))))
	if v.Wake.IsZero() || at.Before(v.Wake) {
		v.Wake = at
	}
}

// want is a request as the pricing of options sees it.
func (v *View) want(r *Request) Want {
	k := v.Known(r.Model)
	w := Want{Model: r.Model, Key: r.Key, MemoryMiB: k.MemoryMiB, Now: v.Now}
	if v.CanLoad {
		w.LoadSeconds = k.LoadSeconds
	}
	return w
}

// warm finds the first free slot on a resource that has the model loaded, else on one that is loading it.
func (v *View) warm(r *Request) *Option {
	var loading *Option
	for _, o := range v.Fleet.Holders[r.Model] {
		if o.Free == 0 || o.Key != r.Key {
			continue
		}
		if o.Holds(r.Model).State == Loaded {
			return o
		}
		if loading == nil {
			loading = o
		}
	}
	return loading
}

// fits says whether a free slot can serve the request, evicting what nobody uses.
func (v *View) fits(r *Request, o *Option) bool {
	w := v.want(r)
	_, why := Price(v, nil, &w, o)
	return why == ""
}
