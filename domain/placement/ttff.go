package placement

import (
	"fmt"
	"math"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// ttff minimises the expected time to first frame over all who wait. What each
// part is for, and what it brings, is in docs/placement.md and docs/quality.md.
//
//   - Who is next in a line: the highest response ratio, age over the time that
//     the work itself is expected to take (Brinch Hansen 1971), so that short work
//     does not wait long for long work, and nobody starves. The work of an owner
//     who holds slots already counts for so many times longer: fair share.
//   - A free slot serves those who find their model loaded there, so that a load
//     is paid off, until that has served work worth payoff loads and an older
//     request waits for another model that is nowhere, or whose copies do not keep up.
//   - Who finds no warm slot free waits for a busy one only while that is expected
//     to be sooner than a load, and never for longer than patience loads: ski
//     rental. That gives a hot model another copy when its line outgrows a load.
//   - Of the lines that need a load the one goes first that serves the most
//     requests a second of the slot's time, the load included, weighted by its age.
//     Copies in use count by their root, between none (the hot model takes all) and
//     all (its users wait longest); so replicas are best spread (Cohen and Shenker 2002).
//   - What is evicted is worth the least: load time times demand over the copies.
//   - Whoever waited for more than overdue times the mean of late comes first.
type ttff struct {
	payoff   float64 // loads
	patience float64 // loads
	copies   float64 // loads
	overdue  float64 // times the mean time to first frame
	relief   float64 // times the age of the oldest
	share    float64 // 0: no fair share; 1: by slots held
	ratio    bool    // false: lines are served in order of arrival
	demand   bool    // false: the longest unused is evicted
}

func (ttff) Name() string { return "ttff" }
func (ttff) Version() int { return 1 }

// Worth is the load time saved a second by keeping this copy: demand, shared by the copies there are.
func (p ttff) Worth(v *View, _ *Option, h *Held) float64 {
	if !p.demand {
		return lru{}.Worth(v, nil, h)
	}
	return v.Known(h.Model).LoadSeconds * v.Demand(h.Model) / float64(max(1, len(v.Fleet.Holders[h.Model])))
}

func (p ttff) Next(v *View) (Assignment, bool) {
	if len(v.Fleet.Free) == 0 {
		return Assignment{}, false
	}
	if a, ok := p.urgent(v); ok {
		return a, true
	}
	var open []*Option // free slots for which nobody waits who finds his model there
	for _, o := range v.Fleet.Free {
		l, h := p.warmLine(v, o)
		if l == nil {
			open = append(open, o)
			continue
		}
		if a, ok := p.yields(v, o, h, l); ok {
			return a, true
		}
		r := p.pick(v, l)
		return Assignment{Request: r, Resource: v.warm(r)}, true // loaded there, if it is loaded anywhere
	}
	return p.load(v, open)
}

// urgent serves the head of the queue first if it has a deadline that it can
// still make, or has waited for too long. It does not force a load where its model is in use.
func (p ttff) urgent(v *View) (Assignment, bool) {
	r := v.first(v.Queue.Requests)
	if r == nil {
		return Assignment{}, false
	}
	reason := "it has a deadline"
	if r.Due.IsZero() {
		if left := p.late(v, r); left >= 0 {
			v.wake(left)
			return Assignment{}, false
		}
		reason = fmt.Sprintf("it waited for more than %g times as long as others of late", p.overdue)
	}
	o := v.warm(r)
	if o == nil && len(v.Fleet.Holders[r.Model]) == 0 {
		o = p.cheapest(v, r, v.Fleet.Free)
	}
	return Assignment{Request: r, Resource: o, Reason: reason}, o != nil
}

// warmLine is the line with the oldest head of those for models on the resource.
func (p ttff) warmLine(v *View, o *Option) (*Line, *Held) {
	var line *Line
	var held *Held
	var oldest *Request
	for i := range o.Models {
		h := &o.Models[i]
		l := v.Queue.Line(h.Model, o.Key)
		if l == nil {
			continue
		}
		if r := v.first(l.Requests); r != nil && (oldest == nil || r.before(oldest) < 0) {
			line, held, oldest = l, h, r
		}
	}
	return line, held
}

// yields gives the slot to an older request for another model, once the load here is paid off.
func (p ttff) yields(v *View, o *Option, h *Held, l *Line) (Assignment, bool) {
	if h.Served < p.payoff*h.LoadSeconds {
		return Assignment{}, false
	}
	here := v.first(l.Requests)
	other := here
	for _, c := range v.Queue.Lines {
		r := v.first(c.Requests)
		if r == nil || r.before(other) >= 0 {
			continue
		}
		if (len(v.Fleet.Holders[c.Model]) == 0 || p.relieves(v, o, r, here)) && v.fits(r, o) {
			other = r
		}
	}
	if other == here || h.Served < p.payoff*v.load(other.Model) {
		return Assignment{}, false
	}
	return Assignment{Request: other, Resource: o, Reason: fmt.Sprintf("it is older, and %q served there for long enough to pay off its load", h.Model)}, true
}

// relieves says whether a slot had better go to a line whose model is in use
// elsewhere: its copies do not keep up if its head is overdue, and the slot is needed less here.
func (p ttff) relieves(v *View, o *Option, r, here *Request) bool {
	return p.late(v, r) < 0 && v.age(r) >= p.relief*v.age(here) && o.Holds(r.Model) == nil && v.warm(r) == nil
}

// late is in how many seconds a request is overdue.
func (p ttff) late(v *View, r *Request) float64 {
	return p.overdue*max(v.Seconds, v.load(r.Model)) - v.age(r)
}

// pick is who is next in a line.
func (p ttff) pick(v *View, l *Line) *Request {
	first := v.first(l.Requests)
	if !p.ratio || !first.Due.IsZero() || p.late(v, first) < 0 {
		return first
	}
	best, most := first, -1.0
	for r := range v.ready(l.Requests) {
		age, work := v.age(r), max(1, r.Seconds)
		if most >= 0 && age/work <= most {
			continue // nor would it be with a share, which makes the work count for longer
		}
		if p.share > 0 && v.Share != nil {
			work *= 1 + p.share*v.Share(r.Owner)
		}
		if ratio := age / work; ratio > most {
			best, most = r, ratio
		}
	}
	return best
}

// load finds the line that is most worth a load now, and where that costs least.
func (p ttff) load(v *View, open []*Option) (Assignment, bool) {
	if len(open) == 0 {
		return Assignment{}, false
	}
	var line *Line
	var on *Option
	most := -1.0
	for _, l := range v.Queue.Lines {
		head := v.first(l.Requests)
		if head == nil {
			continue
		}
		load, age, n := v.load(l.Model), v.age(head), float64(len(l.Requests))
		users, left := p.busy(v, l)
		if users > 0 && p.waits(v, l, load, age, users, left) {
			continue
		}
		index := n / (load + n*v.Known(l.Model).WorkSeconds + 1) * (load + age) / math.Sqrt(float64(users+1))
		if index <= most {
			continue
		}
		if o := p.cheapest(v, head, open); o != nil {
			line, on, most = l, o, index
		}
	}
	if line == nil {
		return Assignment{}, false
	}
	return Assignment{Request: p.pick(v, line), Resource: on}, true
}

// busy counts who uses the model, and for how many seconds more they are expected to, together.
func (p ttff) busy(v *View, l *Line) (users int, seconds float64) {
	for _, o := range v.Fleet.Holders[l.Model] {
		if o.Key != l.Key {
			continue
		}
		h := o.Holds(l.Model)
		for i := range o.Users {
			if u := &o.Users[i]; u.Model == l.Model {
				users++
				seconds += Remaining(u, h, v.Now)
			}
		}
	}
	return users, seconds
}

// residual is what is expected of work that took longer than expected: half as
// much again as it took, as of service times whose hazard falls.
const residual = 0.5

// Remaining is for how many seconds more a user is expected to keep its slot; h is the model that it uses there.
func Remaining(u *User, h *Held, now time.Time) float64 {
	took := now.Sub(u.Since).Seconds()
	if h.State == Loading {
		return max(0, h.LoadSeconds-now.Sub(h.Since).Seconds()) + u.Seconds
	}
	if h.Since.After(u.Since) { // it waited for the load
		took = now.Sub(h.Since).Seconds()
	}
	return max(u.Seconds-took, residual*took)
}

// waits says whether a line had better wait for the busy copies of its model than load another.
func (p ttff) waits(v *View, l *Line, load, age float64, users int, seconds float64) bool {
	limit := p.patience * load
	if age >= limit {
		return false
	}
	for _, r := range l.Requests[:min(len(l.Requests), lookAhead)-1] { // the last of them waits for the others
		seconds += r.Seconds
	}
	if more := len(l.Requests) - lookAhead; more > 0 {
		seconds += float64(more) * v.Known(l.Model).WorkSeconds
	}
	if seconds/float64(users) >= p.copies*load {
		return false
	}
	v.wake(min(limit-age, max(1, load/10))) // what is expected changes with time
	return true
}

// cheapest is the slot where what has to be evicted is worth least: empty places first, then the oldest resource.
func (p ttff) cheapest(v *View, r *Request, among []*Option) *Option {
	w := v.want(r)
	var best *Option
	least := math.Inf(1)
	for _, o := range among {
		c, why := Price(v, p, &w, o)
		if why != "" {
			continue
		}
		worth := c.Worth
		if c.evicting > 0 {
			worth++ // an empty place costs nothing, a worthless model a little
		}
		if worth < least {
			best, least = o, worth
		}
	}
	return best
}

// formerly is the policy of settings from before there was a choice.
const formerly = "expected"

// New makes a policy from settings that were checked.
func New(s domain.PlacementSettings) Policy {
	if s.Policy == "" || s.Policy == formerly {
		s = domain.PlacementSettings{Policy: domain.DefaultPlacement}
	}
	n := s.Number
	switch s.Policy {
	case domain.PlaceRandom:
		return random{seed: n("seed")}
	case domain.PlaceRoundRobin:
		return roundRobin{}
	case domain.PlaceLeastLoaded, domain.PlaceAllWarm:
		return leastLoaded{}
	case domain.PlaceHash:
		return hashed{}
	case domain.PlaceHashBounded:
		return hashBounded{factor: n("factor"), moves: n("moves") > 0}
	case domain.PlaceStickyLRU:
		return stickyLRU{}
	case domain.PlaceDelay:
		return delay{wait: n("wait")}
	case domain.PlaceWarmFirst:
		return warmFirst{passes: n("passes")}
	case domain.PlaceBelady:
		return belady{warmFirst{passes: n("passes")}}
	}
	return ttff{
		payoff: n("payoff"), patience: n("patience"), copies: n("copies"), overdue: n("overdue"), relief: n("relief"), share: n("share"),
		ratio: n("ratio") > 0, demand: n("demand") > 0,
	}
}
