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
	if p.fixed() {
		return
	}
	if wishes := d.wishes(p); len(wishes) > 0 {
		d.grant(p, wishes)
	}
	// Twice: where some are started for everyone, idle ones that serve only some may go as well.
	if d.scaleOnce(p) {
		d.scaleOnce(p)
	}
	d.shadow(p)
}

// fixed says that whatever is asked for the pool has the size that it must
// have, that all of it is ready, and that all of it serves everybody.
func (p *poolState) fixed() bool {
	set := &p.pool.Settings
	if set.Scaling.Min != set.Scaling.Max || len(p.resources) != set.Scaling.Max || len(p.fleet.All) != len(p.resources) ||
		set.ModelLoading == domain.LoadCommandLine {
		return false
	}
	own := func(r *Resource) bool { return r.Key != "" }
	asks := func(e *Session) bool { return e.Overrides != nil }
	return !slices.ContainsFunc(p.resources, own) && !slices.ContainsFunc(p.waiting[:min(len(p.waiting), lookAhead)], asks)
}

// scaleOnce starts or stops what scaling says, and says whether it did.
func (d *decider) scaleOnce(p *poolState) bool {
	id, in := p.pool.Settings.ID, d.scalingInputs(p)
	plan := scaling.Decide(p.pool.scaler(), &in)
	in.Idlers = nil // the record is of values
	if plan.Start == 0 && len(plan.Stop) == 0 {
		d.makeRoom(p, in)
		return false
	}
	d.emit(id, PoolScaled{From: in.Live, To: plan.Size(&in), Stop: plan.Stop, Decision: Decision{
		Policy: plan.Policy, Version: plan.Version, Outcome: "scaled", Reason: plan.Reason, Inputs: in,
	}})
	for range plan.Start {
		d.request(p.pool, wish{}, plan.Reason)
	}
	for _, r := range plan.Stop {
		d.emit(id, ResourceStopping{Resource: r, Reason: plan.Reason})
	}
	return true
}

// makeRoom stops an idle resource that was started with overrides,
// when others wait, the pool is full, and nothing is coming or leaving for them.
func (d *decider) makeRoom(p *poolState, in scaling.Inputs) {
	if in.Waiting == 0 || in.Occupied < in.Max || in.ComingSlots > 0 || in.Now.Before(in.BackoffUntil) {
		return
	}
	if slices.ContainsFunc(p.resources, func(r *Resource) bool { return !r.Live() }) {
		return
	}
	if r := d.dispensable(p, kind{}); r != nil {
		reason := "makes room: it serves only sessions with the same overrides, and others wait"
		d.scaled(p, in.Live, -1, []domain.ResourceID{r.ID}, reason)
		d.emit(p.pool.Settings.ID, ResourceStopping{Resource: r.ID, Reason: reason})
	}
}

func (d *decider) request(p *Pool, w wish, reason string) {
	p = d.s.Pool(p.Settings.ID) // its counter has moved
	d.emit(p.Settings.ID, ResourceRequested{
		Resource: d.nextResource(p), Launcher: p.Settings.With(w.overrides).Launcher, Slots: p.Settings.Slots, Model: w.model, Overrides: w.overrides,
		MaxModels: p.Settings.ModelsPerResource, MemoryMiB: p.Settings.MemoryMiB, Reason: reason,
	})
}

// wish is a resource that only some can use: one that keeps a model for life,
// or one that is started with overrides.
type wish struct {
	model     domain.ModelKey
	overrides *domain.Overrides
}

// kind is a wish that can be compared.
type kind struct {
	model domain.ModelKey
	key   string
}

func (w wish) kind() kind { return kind{w.model, w.overrides.Key()} }

func (w wish) String() string {
	if w.model != "" {
		return string(w.model)
	}
	return "these settings"
}

// grant starts a resource for each wish that is not coming; where the pool is
// full an idle resource makes room.
func (d *decider) grant(p *poolState, wishes []wish) {
	id := p.pool.Settings.ID
	if p.pool.BackoffUntil != nil && d.at.Before(*p.pool.BackoffUntil) {
		return
	}
	coming, leaving := map[kind]int{}, 0
	for _, r := range p.resources {
		if r.Coming() {
			coming[kind{r.Model, r.Key}] += r.Slots
		} else if !r.Live() {
			leaving++
		}
	}
	for _, w := range wishes {
		k := w.kind()
		if coming[k]--; coming[k] >= 0 {
			continue
		}
		coming[k] += p.pool.Settings.Slots // also where room is only being made: it comes as soon as there is room
		live := len(p.resources)
		reason := fmt.Sprintf("no resource with %s has a free slot", w)
		if c := p.pool.change(d.at); c.UpPerMinute > 0 && c.Started >= c.UpPerMinute {
			return
		}
		if live < p.pool.Settings.Scaling.Max {
			d.scaled(p, live-leaving, 1, nil, reason)
			d.request(p.pool, w, reason)
		} else if leaving > 0 {
			leaving-- // its place will be free in a moment
		} else if r := d.dispensable(p, k); r != nil {
			d.scaled(p, live, -1, []domain.ResourceID{r.ID}, "makes room: "+reason)
			d.emit(id, ResourceStopping{Resource: r.ID, Reason: "makes room: " + reason})
		}
	}
}

func (d *decider) scaled(p *poolState, from, by int, stop []domain.ResourceID, reason string) {
	d.emit(p.pool.Settings.ID, PoolScaled{From: from, To: from + by, Stop: stop, Decision: Decision{
		Policy: p.pool.scaler().Name(), Version: p.pool.scaler().Version(), Outcome: "scaled", Reason: reason,
	}})
}

// wishes are for what sessions and jobs wait, one entry for each that waits for a
// resource of its own kind, in order, and last for what bookings were refused a moment ago.
func (d *decider) wishes(p *poolState) []wish {
	bound := p.pool.Settings.ModelLoading == domain.LoadCommandLine
	var all []wish
	for _, e := range p.waiting[:min(len(p.waiting), lookAhead)] {
		switch {
		case bound:
			all = append(all, wish{e.Model, e.Overrides})
		case e.Overrides != nil:
			all = append(all, wish{overrides: e.Overrides})
		}
	}
	if !bound {
		return all
	}
	ahead := map[domain.ModelKey]int{}
	for _, j := range d.dueJobs(p) {
		if !d.waitsForWarm(p, j, ahead[j.Model], p.pool.expectStart()) {
			all = append(all, wish{model: j.Model})
		}
		ahead[j.Model]++
	}
	for _, u := range p.pool.Unmet {
		if d.at.Before(u.Until) && !anyFree(p.resources, u.Model) {
			all = append(all, wish{model: u.Model})
		}
	}
	return all
}

// anyFree says whether a resource that keeps the model for life has a free slot.
func anyFree(resources []*Resource, m domain.ModelKey) bool {
	return slices.ContainsFunc(resources, func(r *Resource) bool { return r.Model == m && r.Key == "" && r.Free() > 0 })
}

// dispensable is the idle resource that makes room for others: the longest
// idle that nobody waits for, else the longest idle.
func (d *decider) dispensable(p *poolState, but kind) *Resource {
	var found *Resource
	foundWanted := false
	for _, r := range p.resources {
		if r.State != ResourceStateReady || r.IdleSince == nil || r.Model == but.model && r.Key == but.key {
			continue
		}
		wanted := slices.ContainsFunc(r.Models, func(h Loaded) bool { return d.wanted(p, h.Model) })
		if found == nil || foundWanted && !wanted || foundWanted == wanted && r.IdleSince.Before(*found.IdleSince) {
			found, foundWanted = r, wanted
		}
	}
	return found
}
