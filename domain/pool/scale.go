package pool

import (
	"fmt"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// scale adapts the number of resources to what is asked for.
func (d *decider) scale(id domain.RendererID) {
	p := d.s.of(id)
	if p.pool.Settings.Launcher == domain.LauncherStatic {
		return // those machines come and go by themselves
	}
	if p.pool.Settings.ModelLoading == domain.LoadCommandLine {
		d.scaleBound(p)
	}
	in := d.scalingInputs(p)
	plan := scaling.Decide(in)
	if plan.Start == 0 && len(plan.Stop) == 0 {
		return
	}
	d.emit(id, PoolScaled{From: in.Live, To: in.Live + plan.Start - len(plan.Stop), Stop: plan.Stop, Decision: Decision{
		Policy: scaling.Policy, Version: scaling.Version, Outcome: "scaled", Reason: plan.Reason, Inputs: in,
	}})
	for range plan.Start {
		d.request(p.pool, "", plan.Reason)
	}
	for _, r := range plan.Stop {
		d.emit(id, ResourceStopping{Resource: r, Reason: plan.Reason})
	}
}

func (d *decider) request(p *Pool, m domain.ModelKey, reason string) {
	p = d.s.Pool(p.Settings.ID) // its counter has moved
	d.emit(p.Settings.ID, ResourceRequested{
		Resource: d.nextResource(p), Launcher: p.Settings.Launcher, Slots: p.Settings.Slots, Model: m,
		MaxModels: p.Settings.ModelsPerResource, MemoryMiB: p.Settings.MemoryMiB, Reason: reason,
	})
}

func (d *decider) scalingInputs(p *poolState) scaling.Inputs {
	set := p.pool.Settings
	in := scaling.Inputs{
		Now: d.at, Min: set.Scaling.Min, Max: set.Scaling.Max, Buffer: set.Scaling.Buffer, Slots: set.Slots,
		Idle: set.Scaling.Idle.Std(), Occupied: len(p.resources), Waiting: len(p.waiting),
	}
	// A job that waits for its next attempt, or for a busy warm copy, is no reason to start a
	// resource: the first cannot begin yet, the second would rather not.
	ahead := map[domain.ModelKey]int{}
	for _, j := range d.dueJobs(p) {
		if !d.waitsForWarm(p, j, ahead[j.Model], d.want(p, j.Model).LoadSeconds) {
			in.Waiting++
		}
		ahead[j.Model]++
	}
	for _, u := range p.pool.Unmet {
		if d.at.Before(u.Until) {
			in.Unmet++
		}
	}
	if p.pool.BackoffUntil != nil {
		in.BackoffUntil = *p.pool.BackoffUntil
	}
	for _, r := range p.resources {
		if r.Live() {
			in.Live++
		}
		if r.Coming() {
			in.ComingSlots += r.Slots
		}
		in.FreeSlots += r.Free()
		if r.State == ResourceStateReady && r.IdleSince != nil {
			in.IdleOnes = append(in.IdleOnes, scaling.Idle{Resource: r.ID, Since: *r.IdleSince, Models: len(r.Models), Slots: r.Slots})
		}
	}
	if set.ModelLoading == domain.LoadCommandLine {
		in.Waiting, in.Unmet, in.Buffer, in.Min = 0, 0, 0, 0 // scaleBound saw to these; a resource without a model would serve nobody
	}
	return in
}

// scaleBound scales a pool whose resources keep one model for life: one is
// started for each model that is waited for and not coming, and where the pool
// is full the longest idle one makes room.
func (d *decider) scaleBound(p *poolState) {
	id := p.pool.Settings.ID
	if p.pool.BackoffUntil != nil && d.at.Before(*p.pool.BackoffUntil) {
		return
	}
	coming, leaving := map[domain.ModelKey]int{}, 0
	for _, r := range p.resources {
		if r.Coming() {
			coming[r.Model] += r.Slots
		} else if !r.Live() {
			leaving++
		}
	}
	for _, m := range d.wanted(p) {
		if coming[m]--; coming[m] >= 0 {
			continue
		}
		coming[m] += p.pool.Settings.Slots // also where room is only being made: it comes as soon as there is room
		live := len(p.resources)
		reason := fmt.Sprintf("no resource with %s has a free slot", m)
		if live < p.pool.Settings.Scaling.Max {
			d.scaled(p, live-leaving, 1, nil, reason)
			d.request(p.pool, m, reason)
		} else if leaving > 0 {
			leaving-- // its place will be free in a moment
		} else if r := longestIdle(p.resources, m); r != nil {
			d.scaled(p, live, -1, []domain.ResourceID{r.ID}, "makes room: "+reason)
			d.emit(id, ResourceStopping{Resource: r.ID, Reason: "makes room: " + reason})
		}
	}
}

func (d *decider) scaled(p *poolState, from, by int, stop []domain.ResourceID, reason string) {
	d.emit(p.pool.Settings.ID, PoolScaled{From: from, To: from + by, Stop: stop, Decision: Decision{
		Policy: scaling.Policy, Version: scaling.Version, Outcome: "scaled", Reason: reason,
	}})
}

// wanted are the models that sessions and jobs wait for, one entry for each
// that waits, in order, and last those of bookings that were refused a moment ago.
func (d *decider) wanted(p *poolState) []domain.ModelKey {
	var models []domain.ModelKey
	for _, e := range p.waiting[:min(len(p.waiting), lookAhead)] {
		models = append(models, e.Model)
	}
	ahead := map[domain.ModelKey]int{}
	for _, j := range d.dueJobs(p) {
		if !d.waitsForWarm(p, j, ahead[j.Model], p.pool.expectStart()) {
			models = append(models, j.Model)
		}
		ahead[j.Model]++
	}
	for _, u := range p.pool.Unmet {
		if d.at.Before(u.Until) && !anyFree(p.resources, u.Model) {
			models = append(models, u.Model)
		}
	}
	return models
}

// anyFree says whether a resource that keeps the model for life has a free slot.
func anyFree(resources []*Resource, m domain.ModelKey) bool {
	return slices.ContainsFunc(resources, func(r *Resource) bool { return r.Model == m && r.Free() > 0 })
}

func longestIdle(resources []*Resource, but domain.ModelKey) *Resource {
	var found *Resource
	for _, r := range resources {
		if r.State != ResourceStateReady || r.IdleSince == nil || r.Model == but {
			continue
		}
		if found == nil || r.IdleSince.Before(*found.IdleSince) {
			found = r
		}
	}
	return found
}
