package placement

import (
	"slices"
	"time"
)

// The baselines with one central queue. They are here to be compared with, and
// for sites that want their plainness; each does what its source says and no more.

// lru is what most of them think of a loaded model: the longest unused goes first.
type lru struct{}

func (lru) Version() int { return 1 }

// Worth is the time of the last use.
func (lru) Worth(_ *View, _ *Option, h *Held) float64 { return float64(h.LastUsed.UnixMilli()) }

// head is the first request, of those that may begin, that some free slot can
// serve. Where all resources are alike that is the first.
func (v *View) head() *Request {
	if len(v.Fleet.Free) == 0 {
		return nil
	}
	for r := range v.ready(v.Queue.Requests) {
		for _, o := range v.Fleet.Free {
			if v.fits(r, o) {
				return r
			}
		}
	}
	return nil
}

// leastLoaded gives the head of the queue to the resource with the fewest users.
type leastLoaded struct{ lru }

func (leastLoaded) Name() string { return "least-loaded" }

func (leastLoaded) Next(v *View) (Assignment, bool) {
	r := v.head()
	if r == nil {
		return Assignment{}, false
	}
	var best *Option
	for _, o := range v.Fleet.Free {
		if v.fits(r, o) && (best == nil || len(o.Users) < len(best.Users)) {
			best = o
		}
	}
	return Assignment{Request: r, Resource: best}, true
}

// stickyLRU gives the head of the queue to a resource that has its model, else
// to one with an empty place, else to the one idle longest, and evicts the
// least recently used: what the model multiplexing of Ray Serve does.
type stickyLRU struct{ lru }

func (stickyLRU) Name() string { return "sticky-lru" }

func (stickyLRU) Next(v *View) (Assignment, bool) {
	r := v.head()
	if r == nil {
		return Assignment{}, false
	}
	return Assignment{Request: r, Resource: sticky(v, r)}, true
}

func sticky(v *View, r *Request) *Option {
	if o := v.warm(r); o != nil {
		return o
	}
	var empty, longest *Option
	for _, o := range v.Fleet.Free {
		switch {
		case !v.fits(r, o):
		case len(o.Models) < o.MaxModels && empty == nil:
			empty = o
		case longest == nil || idleSince(v, o).Before(idleSince(v, longest)):
			longest = o
		}
	}
	if empty != nil {
		return empty
	}
	return longest
}

// idleSince of a resource in use is now.
func idleSince(v *View, o *Option) time.Time {
	if o.IdleSince.IsZero() {
		return v.Now
	}
	return o.IdleSince
}

// warmFirst lets a free slot take the earliest request, among the first 64,
// that is warm there, unless the head of the queue was passed over more often
// than it bears; after OpenCue's Maestro. Who was passed over is counted by
// arrivals: all that came later and wait no more went by, one way or another.
type warmFirst struct {
	lru
	passes float64
}

func (warmFirst) Name() string { return "warm-first" }

func (p warmFirst) Next(v *View) (Assignment, bool) {
	head := v.head()
	if head == nil {
		return Assignment{}, false
	}
	if float64(v.passedOver(head)) <= p.passes {
		if r, o := firstWarm(v); r != nil {
			return Assignment{Request: r, Resource: o}, true
		}
	}
	return Assignment{Request: head, Resource: sticky(v, head)}, true
}

// passedOver counts the requests that came after r and wait no more.
func (v *View) passedOver(r *Request) int64 {
	later := int64(0)
	if v.Queue.Requests[0] == r {
		later = int64(len(v.Queue.Requests)) - 1
	} else {
		for _, o := range v.Queue.Requests {
			if o.Seq > r.Seq {
				later++
			}
		}
	}
	return max(0, v.Arrivals-r.Number-later)
}

// firstWarm goes through the free slots in their order for the earliest request that is warm there.
func firstWarm(v *View) (*Request, *Option) {
	for _, o := range v.Fleet.Free {
		for r := range v.ready(v.Queue.Requests) {
			if r.Key == o.Key && o.Holds(r.Model) != nil {
				return r, v.warm(r) // where it is loaded already, if it is still loading on this one
			}
		}
	}
	return nil, nil
}

// delay lets a request wait for a slot that is warm for it, and those behind it
// pass, but not for longer than so many seconds: delay scheduling (Zaharia et
// al., EuroSys 2010) with the bound in time, as in its implementation for Hadoop.
// There the data is always somewhere; here nobody waits for what is nowhere.
type delay struct {
	lru
	wait float64
}

func (delay) Name() string { return "delay" }

func (p delay) Next(v *View) (Assignment, bool) {
	if len(v.Fleet.Free) == 0 {
		return Assignment{}, false
	}
	for r := range v.ready(v.Queue.Requests) {
		if o := v.warm(r); o != nil {
			return Assignment{Request: r, Resource: o}, true
		}
		if left := p.wait - v.age(r); left > 0 && v.anywhere(r) {
			v.wake(left)
			continue
		}
		if o := sticky(v, r); o != nil {
			return Assignment{Request: r, Resource: o}, true
		}
	}
	return Assignment{}, false
}

// anywhere says whether some resource has the model, or is loading it, and loading matters.
func (v *View) anywhere(r *Request) bool {
	return v.CanLoad && slices.ContainsFunc(v.Fleet.Holders[r.Model], func(o *Option) bool { return o.Key == r.Key })
}

// belady is warm-first that evicts what is needed last, which it is told: the
// bound of what eviction could gain (Belady 1966). Only a simulation can have it.
type belady struct{ warmFirst }

func (belady) Name() string { return "belady" }

// Worth is the sooner the next use, the more.
func (belady) Worth(v *View, _ *Option, h *Held) float64 {
	at, again := v.NextUse(h.Model)
	if !again {
		return 0
	}
	return 1 / (1 + at.Sub(v.Now).Seconds())
}
