package pool

import (
	"fmt"
	"slices"

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
	d.placeSessions(id)
	d.placeJobs(id)
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

// placeSessions serves waiting sessions, oldest first; one that no free slot
// can serve does not hold up the next, which may find its model warm.
func (d *decider) placeSessions(id domain.RendererID) {
	p := d.s.of(id)
	if len(p.waiting) == 0 {
		return
	}
	free := d.freeSlots(p)
	for _, e := range slices.Clone(p.waiting[:min(len(p.waiting), lookAhead)]) {
		if free.none() {
			return
		}
		w, c := free.best(kind{e.Model, e.Overrides.Key()})
		if c.Best == nil {
			continue
		}
		warm, saved := d.occupy(p, w, c)
		d.emit(id, SessionAllocated{
			Session: e.ID, Resource: c.Best.Resource, Model: e.Model, Owner: e.Owner, Warm: warm,
			Waited: d.at.Sub(e.RequestedAt).Seconds(), Saved: saved, Decision: d.placed(p, "allocated", w, c),
		})
		free.taken(c.Best.Resource)
	}
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

// placeJobs serves queued jobs in two passes. First each free slot takes the
// earliest job that finds its model warm there, so that a load is paid off,
// but only while the head of the queue is patient. Then the rest goes in order.
func (d *decider) placeJobs(id domain.RendererID) {
	p := d.s.of(id)
	if len(p.queue) == 0 {
		return
	}
	free := d.freeSlots(p).forJobs()
	if free.none() {
		return
	}
	due := d.dueJobs(p)
	if len(due) == 0 {
		return
	}
	if d.patient(p, due[0]) {
		due = d.placeWarm(p, due, free)
	}
	ahead := map[domain.ModelKey]int{}
	for _, j := range due {
		if free.none() {
			return
		}
		w, c := free.best(kind{model: j.Model})
		if c.Best == nil || c.Best.State == placement.Cold && d.waitsForWarm(p, j, ahead[j.Model], c.Best.Seconds) {
			ahead[j.Model]++
			continue
		}
		d.assign(p, j, w, c)
		free.taken(c.Best.Resource)
	}
}

func (d *decider) patient(p *poolState, head *Job) bool {
	waited := d.at.Sub(*head.QueuedAt).Seconds()
	return waited < placement.Patience*d.want(p, head.Model).LoadSeconds
}

// placeWarm gives jobs of the head's priority the slots that are warm for them, and returns the jobs left over.
func (d *decider) placeWarm(p *poolState, due []*Job, free *freeSlots) []*Job {
	var left []*Job
	for _, j := range due {
		if j.Priority == due[0].Priority && !free.none() {
			if w, c := free.best(kind{model: j.Model}); c.Best != nil && c.Best.State == placement.Warm {
				d.assign(p, j, w, c)
				free.taken(c.Best.Resource)
				continue
			}
		}
		left = append(left, j)
	}
	return left
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

func (d *decider) assign(p *poolState, j *Job, w placement.Want, c placement.Choice) {
	warm, saved := d.occupy(p, w, c)
	d.emit(j.Renderer, JobAssigned{
		Job: j.ID, Resource: c.Best.Resource, Model: j.Model, Owner: j.Owner, Warm: warm, Attempt: j.Attempts + 1,
		Waited: d.at.Sub(j.SubmittedAt).Seconds(), Saved: saved, Decision: d.placed(p, "assigned", w, c),
	})
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
