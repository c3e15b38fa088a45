package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// lookAhead is how far into the queue placement looks for someone whom a free
// slot can serve. It bounds the work of one command whatever the queue's length.
const lookAhead = 64

// settle gives every free slot to whoever should have it next, then adapts
// the pool's size, then tells those who wait what is coming. Sessions go before jobs.
func (d *decider) settle(id domain.RendererID) {
	if d.s.Pool(id) == nil {
		return
	}
	d.endTooLarge(id)
	d.place(d.s.of(id))
	d.makeRoomForSessions(id)
	d.finishDraining(id)
	d.scale(id)
	d.promise(id)
}

// endTooLarge ends who waits for a model that turned out to be larger than any
// resource of the pool allows: to wait on, and to start resources for it, would be in vain.
func (d *decider) endTooLarge(id domain.RendererID) {
	p := d.s.of(id)
	if p.pool.Settings.MemoryMiB == 0 {
		return
	}
	for _, e := range slices.Clone(p.waiting[:min(len(p.waiting), lookAhead)]) {
		if m := d.tooLarge(p, e.Model); m != nil {
			d.emit(id, SessionFailed{Session: e.ID, Code: CodeTooLarge, Reason: m.Reason})
		}
	}
	for _, j := range d.dueJobs(p) {
		if m := d.tooLarge(p, j.Model); m != nil {
			d.emit(id, JobFailed{Job: j.ID, Class: ClassPermanent, Code: CodeTooLarge, Reason: m.Reason})
			d.jobEnded(j.ID, false)
		}
	}
}

// tooLarge refuses a model that is known to need more memory than the next
// resource will have, unless one that is there has it or has room for it.
func (d *decider) tooLarge(p *poolState, m domain.ModelKey) *domain.Refusal {
	limit, known := p.pool.Settings.MemoryMiB, d.s.Model(p.pool.Settings.ID, m)
	if known == nil || limit == 0 || known.MemoryMiB <= limit {
		return nil
	}
	for _, r := range p.resources {
		if r.Live() && (r.MemoryMiB == 0 || r.MemoryMiB >= known.MemoryMiB || r.Holds(m) != nil) {
			return nil
		}
	}
	return &domain.Refusal{Kind: domain.KindInvalid, Code: CodeTooLarge, Field: "model",
		Reason: fmt.Sprintf("the model takes %d MiB and a resource of %q has %d MiB for models", known.MemoryMiB, p.pool.Settings.ID, limit)}
}

// place gives free slots to those who wait, sessions first, then jobs by
// priority, as the pool's policy of placement says.
func (d *decider) place(p *poolState) {
	p.wake = time.Time{}
	for i := 0; i < len(p.queues) && len(p.fleet.Free) > 0; {
		q := p.queues[i]
		if d.placeQueue(p, q, p.forRank(q.Rank)) > 0 && i > 0 {
			i = 0 // what was loaded for these may be what those before them wait for
			continue
		}
		if i < len(p.queues) && p.queues[i] == q { // else it is empty, and gone
			i++
		}
	}
}

// placeSessions gives free slots to waiting sessions only.
func (d *decider) placeSessions(id domain.RendererID) {
	p := d.s.of(id)
	if i, found := p.queueOf(rankSession); found {
		d.placeQueue(p, p.queues[i], p.forRank(rankSession))
	}
}

// placeQueue gives at most so many slots to those in a queue, and says how many it gave.
func (d *decider) placeQueue(p *poolState, q *placement.Queue, most int) (given int) {
	v := d.view(p, q)
	for ; given < most && len(p.fleet.Free) > 0 && len(q.Requests) > 0; given++ {
		a, ok := p.policy.Next(v)
		if !ok {
			break
		}
		d.give(p, v, a)
		v.Arrivals, v.Seconds = p.pool.Arrivals, p.pool.FirstFrame
	}
	if !v.Wake.IsZero() && (p.wake.IsZero() || v.Wake.Before(p.wake)) {
		p.wake = v.Wake
	}
	return given
}

// view is what the policy may know now, until the next view of the pool.
func (d *decider) view(p *poolState, q *placement.Queue) *placement.View {
	if p.view == nil {
		p.view = d.s.newView(p)
	}
	v := p.view
	v.Now, v.Queue, v.Arrivals, v.Seconds, v.Wake = d.at, q, p.pool.Arrivals, p.pool.FirstFrame, time.Time{}
	v.CanLoad, v.NextUse = p.pool.Settings.ModelLoading == domain.LoadHTTP, d.s.nextUse
	return v
}

func (s *State) newView(p *poolState) *placement.View {
	v := &placement.View{Fleet: &p.fleet, Known: func(m domain.ModelKey) placement.Known { return s.known(p, m) }}
	v.Demand = func(m domain.ModelKey) float64 {
		if known := p.models[m]; known != nil {
			return known.demand(v.Now)
		}
		return 0
	}
	v.Share = func(o domain.Owner) float64 {
		u, weight := s.useOf(p, o), 1
		if w := p.pool.Settings.Quotas.Of(o).Weight; w != nil {
			weight = *w
		}
		return float64(u.running+u.holding) / float64(weight)
	}
	return v
}

func (s *State) known(p *poolState, m domain.ModelKey) placement.Known {
	known := p.models[m]
	k := placement.Known{LoadSeconds: p.pool.expectLoad(known), WorkSeconds: s.expectJobOf(p.pool, known, nil)}
	if known != nil {
		k.MemoryMiB = known.MemoryMiB
	}
	return k
}

// give gives a slot to a session or job.
func (d *decider) give(p *poolState, v *placement.View, a placement.Assignment) {
	c := placement.Few(v, p.policy, a.Request, a.Resource)
	w := d.want(p, a.Request.Model)
	warm, saved := d.occupy(p, w, c)
	id := p.pool.Settings.ID
	if a.Request.Kind == UserSession {
		e := d.s.sessions[domain.SessionID(a.Request.ID)]
		d.emit(id, SessionAllocated{
			Session: e.ID, Resource: a.Resource.Resource, Model: e.Model, Owner: e.Owner, Warm: warm,
			Waited: d.at.Sub(e.RequestedAt).Seconds(), Saved: saved, Decision: d.placed(p, "allocated", a.Reason, w, c),
		})
		return
	}
	j := d.s.jobs[domain.JobID(a.Request.ID)]
	d.emit(id, JobAssigned{
		Job: j.ID, Resource: a.Resource.Resource, Model: j.Model, Owner: j.Owner, Warm: warm, Attempt: j.Attempts + 1,
		Waited: d.at.Sub(j.SubmittedAt).Seconds(), Saved: saved, Decision: d.placed(p, "assigned", a.Reason, w, c),
	})
}

// placeNow gives a slot to a session whose client will not wait, where its
// policy would rather have it wait for a busy resource that has the model.
func (d *decider) placeNow(e *Session) {
	p := d.s.of(e.Renderer)
	i, found := p.queueOf(rankSession)
	if !found {
		return
	}
	v := d.view(p, p.queues[i])
	if o := placement.Cheapest(v, p.policy, e.request()); o != nil {
		d.give(p, v, placement.Assignment{Request: e.request(), Resource: o, Reason: "its client does not wait"})
	}
}

func (d *decider) want(p *poolState, m domain.ModelKey) placement.Want {
	known := d.s.Model(p.pool.Settings.ID, m)
	w := placement.Want{Model: m, LoadSeconds: p.pool.expectLoad(known), Now: d.at}
	if known != nil {
		w.MemoryMiB = known.MemoryMiB
	}
	return w
}

// occupy makes the chosen resource ready for the model: it evicts what must
// go and begins the load. It says whether the model is there already, and how
// many seconds of loading that is expected to save.
func (d *decider) occupy(p *poolState, w placement.Want, c placement.Choice) (warm bool, saved float64) {
	id, best := p.pool.Settings.ID, c.Best
	switch best.State {
	case placement.Warm:
		return true, w.LoadSeconds
	case placement.OnLoad:
		return false, max(0, w.LoadSeconds-best.Seconds)
	}
	for _, m := range best.Evicts {
		d.emit(id, ModelEvicted{Resource: best.Resource, Model: m, For: w.Model, Decision: d.evicted(p, m, w, best)})
	}
	d.emit(id, ModelLoading{Resource: best.Resource, Model: w.Model, Seconds: w.LoadSeconds})
	if p.pool.Settings.ModelLoading == domain.LoadHTTP {
		return false, 0
	}
	// Nothing is loaded over HTTP: the key only decides who comes here again.
	d.emit(id, ModelLoaded{Resource: best.Resource, Model: w.Model})
	return true, 0
}

// waitsForWarm says whether a job had better wait for a busy resource that has its model.
// Only slots that jobs hold count: a session may last for hours.
func (d *decider) waitsForWarm(p *poolState, j *Job, ahead int, cost float64) bool {
	known, jobSeconds := d.s.Model(j.Renderer, j.Model), p.pool.expectJob()
	if known != nil && known.Jobs > 0 {
		jobSeconds = known.JobSeconds
	}
	return placement.WaitForWarm(ahead, p.copies[j.Model], jobSeconds, d.at.Sub(*j.QueuedAt).Seconds(), cost)
}

// finishDraining stops drained resources that nobody uses any more.
func (d *decider) finishDraining(id domain.RendererID) {
	for _, r := range d.s.of(id).resources { // the event puts another in its place and moves none
		if r.State == ResourceStateDraining && len(r.Users) == 0 {
			d.emit(id, ResourceStopping{Resource: r.ID, Reason: r.Reason})
		}
	}
}

// promise tells waiting sessions, oldest first, that a resource is starting
// for them, and those for whom none is starting any more that they are back in the queue.
func (d *decider) promise(id domain.RendererID) {
	p := d.s.of(id)
	if len(p.waiting) == 0 {
		return
	}
	var starting []*Resource
	left, slots := map[domain.ResourceID]int{}, 0
	for _, r := range p.resources {
		if r.State == ResourceStateStarting {
			starting, slots = append(starting, r), slots+r.Slots
			left[r.ID] = r.Slots
		}
	}
	for i, e := range slices.Clone(p.waiting) {
		if i >= max(lookAhead, slots) && e.State != SessionStateStarting {
			break
		}
		r := suited(starting, left, e)
		if r != nil {
			left[r.ID]--
		}
		switch {
		case r != nil && e.State == SessionStateQueued:
			d.emit(id, SessionStarting{Session: e.ID, Resource: r.ID})
		case r == nil && e.State == SessionStateStarting:
			d.sessionQueued(e, d.s.PlaceOfSession(e.ID, d.at))
		}
	}
}

// suited finds a resource that a session could use, among those with slots left.
func suited(resources []*Resource, left map[domain.ResourceID]int, e *Session) *Resource {
	key := e.Overrides.Key()
	for _, r := range resources {
		if left[r.ID] > 0 && r.Key == key && (r.Model == "" || r.Model == e.Model) {
			return r
		}
	}
	return nil
}

// home says whose queue an arrival stands in, with policies that decide that on arrival; empty: nobody's.
func (d *decider) home(p *poolState, rank int, m domain.ModelKey, key string) domain.ResourceID {
	b, ok := p.policy.(placement.Binder)
	if !ok {
		return ""
	}
	q := &placement.Queue{}
	if i, found := p.queueOf(rank); found {
		q = p.queues[i]
	}
	if o := b.Bind(d.view(p, q), m, key); o != nil {
		return o.Resource
	}
	return ""
}
