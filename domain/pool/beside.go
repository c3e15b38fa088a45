package pool

import (
	"fmt"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// beside is why somebody waits beside a free slot that would do.
type beside struct {
	reason  string  // empty: there is no such slot, or there is one to come that is promised
	seconds float64 // expected wait; 0: as for anybody else
}

// beside says for what somebody waits although a slot is free that has, or has
// room for, the model: what else the pool's policy would have it wait for.
func (p *Pool) beside(s supply, resources []*Resource, a Asker, now time.Time) beside {
	set := p.Settings
	if s.free == 0 || a.Ahead+a.Sessions < s.coming || !a.anyWouldDo(resources) {
		return beside{}
	}
	if a.Job && freeFor(resources, "") <= p.reserve(resources) {
		return beside{reason: fmt.Sprintf("the free slots of %q are kept for sessions", set.ID)}
	}
	switch set.Placement.Policy {
	case domain.PlaceRandom, domain.PlaceRoundRobin, domain.PlaceHash, domain.PlaceHashBounded:
		return beside{reason: fmt.Sprintf("the policy %s of %q gives it a slot of one resource, whatever is free elsewhere", set.Placement.Policy, set.ID)}
	case domain.PlaceTTFF, domain.PlaceDelay:
		if holder, left := a.busy(resources, now); holder != nil {
			load := p.expectLoad(a.Known)
			return beside{
				reason: fmt.Sprintf("resource %s has the model and is expected to have a slot free in %.1f s; a load on a free one takes %.1f s", holder.ID, left, load),
				// Who waited in vain for long enough is given another slot.
				seconds: max(shortestWait, min(left, p.patience(load))),
			}
		}
	}
	return beside{reason: "others that wait come first"}
}

// patience is the longest that the policy lets somebody wait for a busy resource that has the model, in seconds.
func (p *Pool) patience(load float64) float64 {
	if set := p.Settings.Placement; set.Policy == domain.PlaceDelay {
		return set.Number("wait")
	}
	return load * p.Settings.Placement.Number("patience")
}

// anyWouldDo says whether a free slot has the model, or has room for it once nobody's models are gone.
func (a Asker) anyWouldDo(resources []*Resource) bool {
	for _, r := range resources {
		if r.Free() > 0 && r.Key == a.Key && (r.Model == "" || r.Model == a.Model) && (r.Holds(a.Model) != nil || a.hasRoom(r)) {
			return true
		}
	}
	return false
}

// freeFor counts the free slots of resources that were started so.
func freeFor(resources []*Resource, key string) int {
	n := 0
	for _, r := range resources {
		if r.Key == key {
			n += r.Free()
		}
	}
	return n
}

func (a Asker) hasRoom(r *Resource) bool {
	places, memory := r.MaxModels, r.MemoryMiB
	for i := range r.Models {
		if h := &r.Models[i]; h.Users > 0 {
			places, memory = places-1, memory-h.MemoryMiB
		}
	}
	needs := 0
	if a.Known != nil {
		needs = a.Known.MemoryMiB
	}
	return places > 0 && (r.MemoryMiB == 0 || memory >= needs)
}

// busy is the resource on which the model is in use and expected to be free
// first, and the mean time that those who use it anywhere are expected to take yet.
func (a Asker) busy(resources []*Resource, now time.Time) (first *Resource, left float64) {
	users, least := 0, 0.0
	for _, r := range resources {
		h := r.Holds(a.Model)
		if h == nil || r.State != ResourceStateReady || r.Key != a.Key {
			continue
		}
		for i := range r.Users {
			if r.Users[i].Model != a.Model {
				continue
			}
			yet := placement.Remaining(&r.Users[i], h, now)
			left += yet
			if users++; first == nil || yet < least {
				first, least = r, yet
			}
		}
	}
	return first, left / float64(max(1, users))
}
