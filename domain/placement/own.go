package placement

import (
	"math"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The baselines in which each resource has a queue of its own: who belongs to
// which follows from the request and from the resources that are there, so that
// nothing has to be remembered, and who belonged to one that is gone belongs to another.

// mix spreads a number over all 64 bits (the finalizer of SplitMix64, Steele et al. 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hash is FNV-1a of a model, a zero byte and a key, mixed.
func hash(m domain.ModelKey, key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(m) {
		h = (h ^ uint64(m[i])) * 1099511628211
	}
	h *= 1099511628211
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return mix(h)
}

// owned finds the first request that belongs to a resource with a free slot that can serve it.
func owned(v *View, of func(*Request) *Option) (Assignment, bool) {
	if len(v.Fleet.Free) == 0 {
		return Assignment{}, false
	}
	blocked := map[*Option]bool{} // the first in its queue cannot be served: nor can those behind
	for _, r := range v.Queue.Requests {
		if !v.may(r) {
			continue
		}
		o := of(r)
		if o == nil || o.Free == 0 || blocked[o] {
			continue
		}
		if v.fits(r, o) {
			return Assignment{Request: r, Resource: o}, true
		}
		if blocked[o] = true; len(blocked) == len(v.Fleet.Free) {
			break
		}
	}
	return Assignment{}, false
}

// may says whether a resource was started for such requests.
func (o *Option) may(m domain.ModelKey, key string) bool {
	return o.Key == key && (o.Bound == "" || o.Bound == m)
}

// dealt is the n-th resource, or the n-th of those that were started for such a request.
func (v *View) dealt(r *Request, n uint64) *Option {
	if o := v.Fleet.All[n%uint64(len(v.Fleet.All))]; o.may(r.Model, r.Key) {
		return o
	}
	var all []*Option
	for _, o := range v.Fleet.All {
		if o.may(r.Model, r.Key) {
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[n%uint64(len(all))]
}

// roundRobin gives the n-th request to the n-th resource, and begins again after the last.
type roundRobin struct{ lru }

func (roundRobin) Name() string { return "round-robin" }

func (roundRobin) Next(v *View) (Assignment, bool) {
	return owned(v, func(r *Request) *Option { return v.dealt(r, uint64(r.Number-1)) })
}

// random gives each request to a resource by lot.
type random struct {
	lru
	seed float64
}

func (random) Name() string { return "random" }

func (p random) Next(v *View) (Assignment, bool) {
	return owned(v, func(r *Request) *Option {
		return v.dealt(r, mix(uint64(r.Number)^mix(uint64(int64(p.seed)))))
	})
}

// hashed gives a model to the resource whose point on the circle comes next
// after the model's: consistent hashing (Karger et al. 1997), in the form of
// rendezvous hashing (Thaler and Ravishankar 1998), which needs no circle to be kept.
type hashed struct{ lru }

func (hashed) Name() string { return "hash" }

func (hashed) Next(v *View) (Assignment, bool) {
	if len(v.Fleet.Free) == 0 {
		return Assignment{}, false
	}
	var best Assignment
	for _, l := range v.Queue.Lines {
		o := v.Fleet.owner(l)
		if o == nil || o.Free == 0 { // of most lines
			continue
		}
		r := v.first(l.Requests)
		if r != nil && (best.Request == nil || r.before(best.Request) < 0) && v.fits(r, o) {
			best = Assignment{Request: r, Resource: o}
		}
	}
	return best, best.Request != nil
}

// owner is the resource to which a line belongs, whoever is free. It follows
// from which resources there are, so it is kept in the line until that changes.
func (f *Fleet) owner(l *Line) *Option {
	if l.dealt != f.changes+1 {
		l.dealt, l.owner = f.changes+1, -1
		if o := rendezvous(f.All, l.Model, l.Key, nil); o != nil {
			l.owner, _ = find(f.All, o.Seq)
		}
	}
	if l.owner < 0 {
		return nil
	}
	return f.All[l.owner]
}

// rendezvous is the resource with the highest hash together with the model, of those that are let.
func rendezvous(all []*Option, m domain.ModelKey, key string, let func(*Option) bool) *Option {
	var best *Option
	var most uint64
	h := hash(m, key)
	for _, o := range all {
		if n := mix(h ^ mix(uint64(o.Seq))); (best == nil || n > most) && o.may(m, key) && (let == nil || let(o)) {
			best, most = o, n
		}
	}
	return best
}

// hashBounded is consistent hashing with bounded loads (Mirrokni, Thorup and
// Zadimoghaddam, SODA 2018), as load balancers have it: who arrives goes to the
// first resource in the order of its model that has no more than factor times
// the mean number of requests, and stays. With moves, those who wait are dealt
// out anew whenever somebody comes or goes, as the paper's moves allow.
type hashBounded struct {
	lru
	factor float64
	moves  bool
}

func (hashBounded) Name() string { return "hash-bounded" }

// Bind counts who holds a slot and who waits.
func (p hashBounded) Bind(v *View, m domain.ModelKey, key string) *Option {
	if p.moves || len(v.Fleet.All) == 0 {
		return nil
	}
	waiting := map[domain.ResourceID]int{}
	for _, r := range v.Queue.Requests {
		waiting[r.Home]++
	}
	total := 1 // the one that arrives
	for _, o := range v.Fleet.All {
		total += len(o.Users) + waiting[o.Resource]
	}
	most := p.most(v, total)
	return rendezvous(v.Fleet.All, m, key, func(o *Option) bool { return len(o.Users)+waiting[o.Resource] < most })
}

func (p hashBounded) most(v *View, total int) int {
	return int(math.Ceil(p.factor * float64(total) / float64(len(v.Fleet.All))))
}

// homes says whose queue a request stands in.
func homes(v *View) func(*Request) *Option {
	at := make(map[domain.ResourceID]*Option, len(v.Fleet.All))
	for _, o := range v.Fleet.All {
		at[o.Resource] = o
	}
	return func(r *Request) *Option {
		if o := at[r.Home]; o != nil {
			return o
		}
		return rendezvous(v.Fleet.All, r.Model, r.Key, nil) // its own is gone, or came later
	}
}

// dealtAhead is how many waiting requests are dealt out to find who is next.
const dealtAhead = 1024

func (p hashBounded) Next(v *View) (Assignment, bool) {
	if !p.moves {
		return owned(v, homes(v))
	}
	if len(v.Fleet.Free) == 0 {
		return Assignment{}, false
	}
	queue := v.Queue.Requests[:min(len(v.Queue.Requests), dealtAhead)]
	loads, total := make(map[*Option]int, len(v.Fleet.All)), len(queue)
	for _, o := range v.Fleet.All {
		loads[o] = len(o.Users)
		total += len(o.Users)
	}
	most := p.most(v, total)
	for _, r := range queue {
		o := rendezvous(v.Fleet.All, r.Model, r.Key, func(o *Option) bool { return loads[o] < most })
		if o == nil {
			continue
		}
		loads[o]++
		if o.Free > 0 && v.may(r) && v.fits(r, o) {
			return Assignment{Request: r, Resource: o}, true
		}
	}
	return Assignment{}, false
}
