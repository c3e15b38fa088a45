package pool

import (
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// State is the live state of all pools. The first change of an entity after a
// Mark puts a new value, so that a batch of commands whose append did not succeed
// can be taken back; the next ones, until the next Mark, change that value in
// place, see change.go. It is not safe for concurrent use; one lane owns it.
type State struct {
	service    *Service
	pools      map[domain.RendererID]*poolState
	last       *poolState // that find found last, and its ID
	lastID     domain.RendererID
	resources  map[domain.ResourceID]*Resource
	sessions   map[domain.SessionID]*Session
	jobs       map[domain.JobID]*Job
	dependents map[domain.JobID][]*Job                 // jobs that wait for the key, by Seq
	nextUse    func(domain.ModelKey) (time.Time, bool) // the future, which only a simulation can tell
	undo       []undo
	seen       int      // of undo, by ChangedBy
	batch      *batch   // since the last Mark
	fresh      []entity // made in it, in order
	ended      []Key    // resources, sessions and jobs that ended, oldest first, to be forgotten
	kept       int      // length of ended at the last Commit, for Rollback
	marked     int      // length of undo at the last Mark
	keptMarked int      // length of ended at the last Mark

	decided []Recorded // room for the events of one command, see Decide
	touched []domain.RendererID
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
	ViewOwners    = "owners"
)

// serviceID is the id of the one row of the service view.
const serviceID = "service"

// poolState is a pool with the orders in which its parts are looked at.
type poolState struct {
	pool      *Pool
	stream    domain.Stream
	models    map[domain.ModelKey]*Model
	owners    map[domain.Owner]*Owner
	resources []*Resource // not ended, by Seq
	waiting   []*Session  // queued or starting, by Seq: one that was moved keeps its place
	queue     []*Job      // queued, by priority, deadline and Seq, see byUrgency
	parked    []*Job      // queued, but their owner may not have more running, see lane
	timed     []*Job      // queued or waiting for other jobs, with a deadline, by deadline
	blocked   []*Job      // waiting for other jobs, by Seq
	holding   []*Session  // with a slot, by Seq

	tally  tally
	copies map[domain.ModelKey]int // slots of ready resources that jobs hold, by model
	lanes  map[domain.Owner]*lane  // of owners with a quota of running jobs and with jobs queued
	uses   map[domain.Owner]use    // for quotas; nil until one asks

	policy placement.Policy   // as the settings say
	fleet  placement.Fleet    // ready resources
	queues []*placement.Queue // sessions first, then jobs by priority
	view   *placement.View    // see State.view
	gone   placement.Request  // who is taken out of a queue, see withdraw
	wake   time.Time          // time alone changes a placement then, at the earliest; zero: it does not
}

// undo is how to take back one change.
type undo struct {
	entity entity // as it was before, or what was made; itself, if it was changed in place
	made   bool   // there was nothing
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
		dependents: map[domain.JobID][]*Job{},
		batch:      &batch{},
	}
}

// Put takes in an entity as the live views hold it, without recording a
// change: *Service, *Pool, *Resource, *Session, *Job, *Model or *Owner.
func (s *State) Put(e any) {
	if e, ok := e.(entity); ok {
		s.place(e, s.present(e))
		return
	}
	panic("pool: not an entity")
}

// Commit forgets how to take back what was done since the last Commit, and
// the oldest of the ended sessions and jobs.
func (s *State) Commit() {
	s.Mark()
	s.CommitMarked()
}

// Mark ends what Changed visits: what changes after it belongs to another append.
func (s *State) Mark() {
	s.marked, s.keptMarked = len(s.undo), len(s.ended)
	s.newBatch()
}

// newBatch ends the time in which what was made is changed in place.
func (s *State) newBatch() {
	s.batch = &batch{}
	clear(s.fresh)
	s.fresh = s.fresh[:0]
}

// CommitMarked is Commit for what was done before the last Mark; Rollback still takes back what was done after it.
func (s *State) CommitMarked() {
	rest := copy(s.undo, s.undo[s.marked:])
	clear(s.undo[rest:])
	s.undo, s.seen, s.kept, s.marked = s.undo[:rest], max(0, s.seen-s.marked), s.keptMarked, 0
	for len(s.ended) > keepEnded {
		k := s.ended[0]
		s.ended, s.kept = s.ended[1:], max(0, s.kept-1)
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
		if u.made {
			s.remove(keyOf(u.entity))
		} else if now := s.present(u.entity); now != u.entity { // else it was changed in place, and goes with what made it
			s.place(u.entity, now)
		}
	}
	s.ended = s.ended[:s.kept]
	clear(s.undo)
	s.undo, s.seen, s.marked = s.undo[:0], 0, 0
	s.newBatch()
}

// Changed visits what changed since the last Mark, in order of the first
// change. What was made and removed again in between is left out. What it shows may
// still change until the next Mark.
func (s *State) Changed(visit func(Key, any)) {
	shown := make(map[Key]struct{}, len(s.fresh))
	for _, e := range s.fresh {
		k := keyOf(e)
		if _, already := shown[k]; already { // it was removed, and made again
			continue
		}
		shown[k] = struct{}{}
		if e := s.get(k); e != nil {
			visit(k, e)
		}
	}
}

// ChangedBy visits the keys that were put since it was last called, or since
// the last Commit, repetitions included: what the last event touched.
func (s *State) ChangedBy(visit func(Key)) {
	for ; s.seen < len(s.undo); s.seen++ {
		visit(keyOf(s.undo[s.seen].entity))
	}
}

// Has says whether an entity is in memory.
func (s *State) Has(k Key) bool { return s.get(k) != nil }

// Service, Pool, Resource, Session, Job and Model read the state; nil where there is none. What they return must not be changed.

// Service is the settings that concern all pools.
func (s *State) Service() *Service { return s.service }

// Pool finds a pool that was not removed.
func (s *State) Pool(id domain.RendererID) *Pool {
	if p := s.find(id); p != nil && p.pool != nil && !p.pool.Removed {
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
func (s *State) Model(r domain.RendererID, m domain.ModelKey) *Model {
	if p := s.find(r); p != nil {
		return p.models[m]
	}
	return nil
}

// owner finds what was learned of an owner in a pool; nil: nothing.
func (s *State) owner(r domain.RendererID, o domain.Owner) *Owner {
	if p := s.find(r); p != nil {
		return p.owners[o]
	}
	return nil
}

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
	if p := s.find(id); p != nil {
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
	case *Owner:
		return Key{ViewOwners, ownerID(e.Renderer, e.Owner)}
	}
	panic("pool: not an entity")
}

// get gives an untyped nil where there is nothing.
func (s *State) get(k Key) any {
	switch k.View {
	case ViewService:
		return s.service
	case ViewPools:
		if p := s.find(domain.RendererID(k.ID)); p != nil && p.pool != nil {
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
		if e := s.Model(modelOf(k.ID)); e != nil {
			return e
		}
	case ViewOwners:
		if e := s.owner(ownerOf(k.ID)); e != nil {
			return e
		}
	}
	return nil
}

// find is the pool's state, nil if there never was such a pool. One command asks
// for the same again and again; what was once there is never taken out.
func (s *State) find(id domain.RendererID) *poolState {
	if s.last != nil && s.lastID == id {
		return s.last
	}
	p := s.pools[id]
	s.last, s.lastID = p, id
	return p
}

func (s *State) of(id domain.RendererID) *poolState {
	p := s.find(id)
	if p == nil {
		p = &poolState{stream: domain.PoolStream(id), models: map[domain.ModelKey]*Model{}, owners: map[domain.Owner]*Owner{}, copies: map[domain.ModelKey]int{}}
		s.pools[id] = p
	}
	return p
}
