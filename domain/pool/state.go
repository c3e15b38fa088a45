package pool

import (
	"cmp"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// State is the live state of all pools. Entities in it are never changed in
// place: every change puts a new value, so that a batch of commands whose
// append did not succeed can be taken back, and so that the rows that changed
// are known. It is not safe for concurrent use; one lane owns it.
type State struct {
	service   *Service
	pools     map[domain.RendererID]*poolState
	resources map[domain.ResourceID]*Resource
	sessions  map[domain.SessionID]*Session
	jobs      map[domain.JobID]*Job
	models    map[string]*Model

	dependents map[domain.JobID][]*Job // jobs that wait for the key, by Seq
	undo       []undo
	seen       int // of undo, by ChangedBy
	changed    map[Key]struct{}
	order      []Key // of changed, in order of first change
	ended      []Key // resources, sessions and jobs that ended, oldest first, to be forgotten
	kept       int   // length of ended at the last Commit, for Rollback
}

// Key names one entity of the state, as the live views do.
type Key struct{ View, ID string }

// The live views.
const (
	ViewService   = "service"
	ViewPools     = "pools"
	ViewResources = "resources"
	ViewSessions  = "sessions"
	ViewJobs      = "jobs"
	ViewModels    = "models"
)

// serviceID is the id of the one row of the service view.
const serviceID = "service"

// poolState is a pool with the orders in which its parts are looked at.
type poolState struct {
	pool      *Pool
	resources []*Resource // not ended, by Seq
	waiting   []*Session  // queued or starting, by Seq: one that was moved keeps its place
	queue     []*Job      // queued, by priority, then Seq
	blocked   []*Job      // waiting for other jobs, by Seq
	holding   []*Session  // with a slot, by Seq

	copies  map[domain.ModelKey]int // slots of ready resources that jobs hold, by model
	options []placement.Option      // of the decision under way; kept for its memory
}

type undo struct {
	key   Key
	prior any // *Service, *Pool, ... or nil
}

// keepEnded is how many ended sessions and jobs stay in memory, so that
// repeated releases and cancels need no look-up in the views.
const keepEnded = 4096

// NewState is the state before the first event.
func NewState() *State {
	return &State{
		service:    &Service{Open: true},
		pools:      map[domain.RendererID]*poolState{},
		resources:  map[domain.ResourceID]*Resource{},
		sessions:   map[domain.SessionID]*Session{},
		jobs:       map[domain.JobID]*Job{},
		models:     map[string]*Model{},
		dependents: map[domain.JobID][]*Job{},
		changed:    map[Key]struct{}{},
	}
}

// Put takes in an entity as the live views hold it, without recording a
// change: *Service, *Pool, *Resource, *Session, *Job or *Model.
func (s *State) Put(entity any) { s.place(entity) }

// Commit forgets how to take back what was done since the last Commit, and
// the oldest of the ended sessions and jobs.
func (s *State) Commit() {
	s.undo, s.order, s.seen = s.undo[:0], s.order[:0], 0
	clear(s.changed)
	for len(s.ended) > keepEnded {
		k := s.ended[0]
		s.ended = s.ended[1:]
		switch k.View {
		case ViewSessions:
			delete(s.sessions, domain.SessionID(k.ID))
		case ViewJobs:
			delete(s.jobs, domain.JobID(k.ID))
		case ViewResources:
			delete(s.resources, domain.ResourceID(k.ID))
		}
	}
}

// Rollback takes back all that was done since the last Commit.
func (s *State) Rollback() {
	if len(s.undo) == 0 {
		return
	}
	for i := len(s.undo) - 1; i >= 0; i-- {
		u := s.undo[i]
		if u.prior == nil {
			s.remove(u.key)
			continue
		}
		s.place(u.prior)
	}
	s.ended = s.ended[:s.kept]
	s.undo, s.order, s.seen = s.undo[:0], s.order[:0], 0
	clear(s.changed)
}

// Changed visits what changed since the last Commit, in order of the first
// change. What was made and removed again in between is left out.
func (s *State) Changed(visit func(Key, any)) {
	for _, k := range s.order {
		if e := s.get(k); e != nil {
			visit(k, e)
		}
	}
}

// ChangedBy visits the keys that were put since it was last called, or since
// the last Commit, repetitions included: what the last event touched.
func (s *State) ChangedBy(visit func(Key)) {
	for ; s.seen < len(s.undo); s.seen++ {
		visit(s.undo[s.seen].key)
	}
}

// Has says whether an entity is in memory.
func (s *State) Has(k Key) bool { return s.get(k) != nil }

// Service, Pool, Resource, Session, Job and Model read the state; nil where there is none. What they return must not be changed.

// Service is the settings that concern all pools.
func (s *State) Service() *Service { return s.service }

// Pool finds a pool that was not removed.
func (s *State) Pool(id domain.RendererID) *Pool {
	if p := s.pools[id]; p != nil && p.pool != nil && !p.pool.Removed {
		return p.pool
	}
	return nil
}

// Resource finds a resource.
func (s *State) Resource(id domain.ResourceID) *Resource { return s.resources[id] }

// Session finds a session.
func (s *State) Session(id domain.SessionID) *Session { return s.sessions[id] }

// Job finds a job.
func (s *State) Job(id domain.JobID) *Job { return s.jobs[id] }

// Model finds what was learned of a model in a pool.
func (s *State) Model(r domain.RendererID, m domain.ModelKey) *Model { return s.models[modelID(r, m)] }

// Pools are the renderers that were not removed, by ID.
func (s *State) Pools() []domain.RendererID {
	var ids []domain.RendererID
	for id := range s.pools {
		if s.Pool(id) != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// ResourcesOf are a pool's resources that have not ended, oldest first.
func (s *State) ResourcesOf(id domain.RendererID) []*Resource {
	if p := s.pools[id]; p != nil {
		return p.resources
	}
	return nil
}

func keyOf(entity any) Key {
	switch e := entity.(type) {
	case *Service:
		return Key{ViewService, serviceID}
	case *Pool:
		return Key{ViewPools, string(e.Settings.ID)}
	case *Resource:
		return Key{ViewResources, string(e.ID)}
	case *Session:
		return Key{ViewSessions, string(e.ID)}
	case *Job:
		return Key{ViewJobs, string(e.ID)}
	case *Model:
		return Key{ViewModels, modelID(e.Renderer, e.Model)}
	}
	panic("pool: not an entity")
}

// put records a change and takes it in.
func (s *State) put(entity any) {
	k := keyOf(entity)
	s.remember(k)
	if _, known := s.changed[k]; !known {
		s.changed[k] = struct{}{}
		s.order = append(s.order, k)
	}
	s.place(entity)
}

// drop records the removal of an entity made in this batch: a rejected session leaves no row.
func (s *State) drop(k Key) {
	s.remember(k)
	s.remove(k)
}

// remember notes how to take back the change of an entity that comes next.
func (s *State) remember(k Key) {
	if len(s.undo) == 0 {
		s.kept = len(s.ended)
	}
	s.undo = append(s.undo, undo{k, s.get(k)})
}

// get gives an untyped nil where there is nothing.
func (s *State) get(k Key) any {
	switch k.View {
	case ViewService:
		return s.service
	case ViewPools:
		if p := s.pools[domain.RendererID(k.ID)]; p != nil && p.pool != nil {
			return p.pool
		}
	case ViewResources:
		if e := s.resources[domain.ResourceID(k.ID)]; e != nil {
			return e
		}
	case ViewSessions:
		if e := s.sessions[domain.SessionID(k.ID)]; e != nil {
			return e
		}
	case ViewJobs:
		if e := s.jobs[domain.JobID(k.ID)]; e != nil {
			return e
		}
	case ViewModels:
		if e := s.models[k.ID]; e != nil {
			return e
		}
	}
	return nil
}

func (s *State) of(id domain.RendererID) *poolState {
	p := s.pools[id]
	if p == nil {
		p = &poolState{copies: map[domain.ModelKey]int{}}
		s.pools[id] = p
	}
	return p
}

func bySeq[E interface{ seq() int64 }](a, b E) int { return cmp.Compare(a.seq(), b.seq()) }

func (r *Resource) seq() int64 { return r.Seq }
func (s *Session) seq() int64  { return s.Seq }
func (j *Job) seq() int64      { return j.Seq }

// byPriority orders the queue of jobs: higher priority first, then age.
func byPriority(a, b *Job) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Seq, b.Seq))
}

// insert and without keep a slice in order; an element equal in order is replaced.
func insert[E any](list []E, e E, order func(a, b E) int) []E {
	i, found := slices.BinarySearchFunc(list, e, order)
	if found {
		list[i] = e
		return list
	}
	return slices.Insert(list, i, e)
}

func without[E any](list []E, e E, order func(a, b E) int) []E {
	i, found := slices.BinarySearchFunc(list, e, order)
	switch {
	case !found:
		return list
	case i < len(list)/2: // most leave near the front of a long queue: move what is before, not what is after
		copy(list[1:i+1], list[:i])
		var none E
		list[0] = none
		return list[1:]
	}
	return slices.Delete(list, i, i+1)
}

// place takes an entity into the maps and orders, in place of what had its key.
func (s *State) place(entity any) {
	switch e := entity.(type) {
	case *Service:
		s.service = e
	case *Pool:
		s.of(e.Settings.ID).pool = e
	case *Model:
		s.models[modelID(e.Renderer, e.Model)] = e
	case *Resource:
		before := s.resources[e.ID]
		s.resources[e.ID] = e
		p := s.of(e.Renderer)
		p.countCopies(before, -1)
		p.countCopies(e, 1)
		if e.Ended {
			p.resources = without(p.resources, e, bySeq)
			s.end(keyOf(e), before != nil && before.Ended)
		} else {
			p.resources = insert(p.resources, e, bySeq)
		}
	case *Session:
		s.placeSession(e)
	case *Job:
		s.placeJob(e)
	}
}

// countCopies keeps count of the slots that jobs hold and so will free.
func (p *poolState) countCopies(r *Resource, by int) {
	if r == nil || r.State != ResourceStateReady {
		return
	}
	for _, u := range r.Users {
		if u.Kind != UserJob {
			continue
		}
		if p.copies[u.Model] += by; p.copies[u.Model] == 0 {
			delete(p.copies, u.Model)
		}
	}
}

// end puts what has ended in line to be forgotten, once.
func (s *State) end(k Key, already bool) {
	if !already {
		s.ended = append(s.ended, k)
	}
}

func (s *State) placeSession(e *Session) {
	before := s.sessions[e.ID]
	s.sessions[e.ID] = e
	p := s.of(e.Renderer)
	if e.Waiting() {
		p.waiting = insert(p.waiting, e, bySeq)
	} else {
		p.waiting = without(p.waiting, e, bySeq)
	}
	if e.Holding() {
		p.holding = insert(p.holding, e, bySeq)
	} else {
		p.holding = without(p.holding, e, bySeq)
	}
	if e.Ended {
		s.end(keyOf(e), before != nil && before.Ended)
	}
}

func (s *State) placeJob(e *Job) {
	before := s.jobs[e.ID]
	s.jobs[e.ID] = e
	p := s.of(e.Renderer)
	if e.State == JobStateQueued {
		p.queue = insert(p.queue, e, byPriority)
	} else {
		p.queue = without(p.queue, e, byPriority)
	}
	if before != nil {
		s.unlink(before)
	}
	if e.State == JobStateWaiting {
		p.blocked = insert(p.blocked, e, bySeq)
		for _, after := range e.Pending {
			s.dependents[after] = insert(s.dependents[after], e, bySeq)
		}
	}
	if e.Ended {
		s.end(keyOf(e), before != nil && before.Ended)
	}
}

// unlink takes a waiting job out of the orders of those that wait for others.
func (s *State) unlink(j *Job) {
	if j.State != JobStateWaiting {
		return
	}
	p := s.of(j.Renderer)
	p.blocked = without(p.blocked, j, bySeq)
	for _, after := range j.Pending {
		left := without(s.dependents[after], j, bySeq)
		if len(left) == 0 {
			delete(s.dependents, after)
		} else {
			s.dependents[after] = left
		}
	}
}

func (s *State) remove(k Key) {
	switch e := s.get(k).(type) {
	case *Pool:
		s.pools[e.Settings.ID].pool = nil
	case *Model:
		delete(s.models, k.ID)
	case *Resource:
		p := s.of(e.Renderer)
		p.countCopies(e, -1)
		p.resources = without(p.resources, e, bySeq)
		delete(s.resources, e.ID)
	case *Session:
		p := s.of(e.Renderer)
		p.waiting, p.holding = without(p.waiting, e, bySeq), without(p.holding, e, bySeq)
		delete(s.sessions, e.ID)
	case *Job:
		p := s.of(e.Renderer)
		p.queue = without(p.queue, e, byPriority)
		s.unlink(e)
		delete(s.jobs, e.ID)
	}
}
