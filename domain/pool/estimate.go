package pool

import (
	"fmt"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// Place is where someone stands in the queue, and why.
type Place struct {
	Position             int     `json:"position"` // 1 is next
	EstimatedWaitSeconds float64 `json:"estimated_wait_seconds"`
	Code                 string  `json:"code"`
	Reason               string  `json:"reason"`
}

// shortestWait is the least that is ever estimated, in seconds: who waits has not been served.
const shortestWait = 0.1

// PlaceOf says where someone stands with ahead others in front, how long that
// is expected to take, and what it waits for. The estimate is what has been
// learned of this pool: the start of a resource that is coming, else the turn
// that is needed until enough slots came free, at the mean time that a
// session (or job) keeps one. It is a mean, not a promise.
func PlaceOf(p *Pool, resources []*Resource, ahead int, job bool, now time.Time) Place {
	place := Place{Position: ahead + 1, Code: CodeNoCapacity}
	coming, slots, free, failing := 0, 0, 0, p.BackoffUntil != nil && now.Before(*p.BackoffUntil)
	var first *Resource
	for _, r := range resources {
		if r.Ended {
			continue
		}
		slots, free = slots+r.Slots, free+r.Free()
		if r.Coming() {
			if coming += r.Slots; first == nil {
				first = r
			}
		}
	}
	room := p.Settings.Scaling.Max > len(resources)
	hold := p.expectHold()
	if job {
		hold = p.expectJob()
	}
	switch {
	case ahead < coming:
		place.Reason = fmt.Sprintf("resource %s is %s", first.ID, first.State)
		if first.Note != "" {
			place.Reason += ": " + first.Note
		}
		place.EstimatedWaitSeconds = p.expectStart() - now.Sub(first.RequestedAt).Seconds()
	case failing:
		place.Code = CodeFailing
		place.Reason = fmt.Sprintf("resources of %q fail to start (%s); the next try is at %s", p.Settings.ID, p.LastFailure, p.BackoffUntil.Format(time.RFC3339))
		place.EstimatedWaitSeconds = p.BackoffUntil.Sub(now).Seconds() + p.expectStart()
	case room:
		place.Reason = fmt.Sprintf("a resource of %q has to be started", p.Settings.ID)
		place.EstimatedWaitSeconds = p.expectStart()
	default:
		place.Reason = fmt.Sprintf("all %d slots of %q are in use and it may not grow beyond %d resources", slots, p.Settings.ID, p.Settings.Scaling.Max)
		switch {
		case p.Settings.Scaling.Max == 0:
			place.Reason = fmt.Sprintf("the limit of %q is 0 resources", p.Settings.ID)
		case free > 0:
			place.Reason = fmt.Sprintf("the free slots of %q have no room for the model beside those in use, and it may not grow beyond %d resources", p.Settings.ID, p.Settings.Scaling.Max)
		}
		place.EstimatedWaitSeconds = hold * float64(ahead+1) / float64(max(1, slots))
	}
	place.EstimatedWaitSeconds = max(shortestWait, place.EstimatedWaitSeconds)
	return place
}

// PlaceOfSession is PlaceOf for a waiting session in the state.
func (s *State) PlaceOfSession(id domain.SessionID, now time.Time) Place {
	e := s.sessions[id]
	p := s.of(e.Renderer)
	ahead := 0
	for _, w := range p.waiting {
		if w.Seq < e.Seq {
			ahead++
		}
	}
	return PlaceOf(p.pool, p.resources, ahead, false, now)
}

// PlaceOfJob is PlaceOf for a queued job in the state; one that waits for other jobs says so.
func (s *State) PlaceOfJob(id domain.JobID, now time.Time) Place {
	j := s.jobs[id]
	p := s.of(j.Renderer)
	if j.State == JobStateWaiting {
		return Place{Code: "dependencies", Reason: fmt.Sprintf("waits for %d other jobs", len(j.Pending))}
	}
	ahead := 0
	for _, w := range p.queue {
		if byPriority(w, j) < 0 {
			ahead++
		}
	}
	running := 0
	if p.pool.Settings.Quotas != nil {
		running = s.useOf(p, j.Owner).running
	}
	return PlaceOf(p.pool, p.resources, ahead, true, now).HeldBack(p.pool, j, running, now)
}

// placed is the record of a placement.
func (d *decider) placed(p *poolState, outcome string, w placement.Want, c placement.Choice) Decision {
	reason := map[string]string{
		placement.Warm:   "the model is loaded there",
		placement.OnLoad: "the model is being loaded there",
		placement.Cold:   "no free slot has the model; loading is cheapest here",
	}[c.Best.State]
	filtered := c.Filtered
	if full := len(p.resources) - c.Count - sum(c.Filtered); full > 0 {
		filtered = map[string]int{placement.NoFreeSlot: full}
		for k, v := range c.Filtered {
			filtered[k] += v
		}
	}
	return Decision{Policy: placement.Policy, Version: placement.Version, Outcome: outcome, Reason: reason,
		Candidates: c.Few, Considered: len(p.resources), Filtered: filtered, Costs: map[string]float64{"load_seconds": w.LoadSeconds}}
}

func (d *decider) evicted(p *poolState, m domain.ModelKey, w placement.Want, best *placement.Candidate) Decision {
	r := d.s.resources[best.Resource]
	costs := map[string]float64{"load_seconds": w.LoadSeconds}
	if h := r.Holds(m); h != nil {
		costs["reload_seconds"] = h.LoadSeconds
	}
	return Decision{Policy: placement.Policy, Version: placement.Version, Outcome: "evicted",
		Reason: fmt.Sprintf("unused, and cheapest to bring back of what %s holds", best.Resource), Considered: len(r.Models), Costs: costs}
}

// noSlot is the record of a booking that found no slot.
func (d *decider) noSlot(id domain.RendererID, outcome string, m domain.ModelKey, reason string) Decision {
	p := d.s.of(id)
	filtered := map[string]int{}
	for _, r := range p.resources {
		switch {
		case r.State == ResourceStateReady && r.Free() == 0:
			filtered[placement.NoFreeSlot]++
		case r.State == ResourceStateReady:
			filtered[placement.ModelsInUse]++
		default:
			filtered[string(r.State)]++
		}
	}
	w := d.want(p, m)
	return Decision{Policy: placement.Policy, Version: placement.Version, Outcome: outcome, Reason: reason,
		Considered: len(p.resources), Filtered: filtered,
		Costs: map[string]float64{"load_seconds": w.LoadSeconds, "start_seconds": p.pool.expectStart(), "hold_seconds": p.pool.expectHold()}}
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}
