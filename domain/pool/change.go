package pool

import (
	"github.com/rendering-resource-manager/rrm/domain"
)

// batch is the time between two calls of Mark. What was made in it nobody has
// seen who might keep it: its rows are read before the Mark, and what a
// Rollback puts back is older. So it is changed in place, and one copy serves
// for all changes of a batch. It is told by its address, so it must have a size.
type batch struct{ _ byte }

// entity is a *Service, *Pool, *Resource, *Session, *Job, *Model or *Owner.
type entity interface {
	madeIn(b *batch) bool
	stamp(b *batch)
}

// origin is in which batch of which state this value was made; none: it came from a row.
type origin struct{ batch *batch }

func (o *origin) madeIn(b *batch) bool { return o.batch == b }
func (o *origin) stamp(b *batch)       { o.batch = b }

// put records a change and takes it in.
func (s *State) put(e entity) {
	prior := s.present(e)
	if prior == nil {
		s.remember(undo{e, true})
	} else {
		s.remember(undo{prior, false})
	}
	if prior == nil || !prior.madeIn(s.batch) {
		s.fresh = append(s.fresh, e)
	}
	e.stamp(s.batch)
	s.place(e, prior)
}

// drop records the removal of an entity made in this batch: a rejected session leaves no row.
func (s *State) drop(k Key) {
	if e, there := s.get(k).(entity); there {
		s.remember(undo{e, false})
		s.remove(k)
	}
}

// inPlace says whether an entity may be changed as it is, and records that it will be.
func (s *State) inPlace(e entity) bool {
	if !e.madeIn(s.batch) {
		return false
	}
	s.remember(undo{e, false})
	return true
}

func (s *State) remember(u undo) {
	if len(s.undo) == 0 {
		s.kept = len(s.ended)
	}
	s.undo = append(s.undo, u)
}

// present is what is there under the key of an entity; an untyped nil where there is nothing.
func (s *State) present(e entity) entity {
	switch e := e.(type) {
	case *Service:
		return s.service
	case *Pool:
		if p := s.find(e.Settings.ID); p != nil && p.pool != nil {
			return p.pool
		}
	case *Resource:
		if x := s.resources[e.ID]; x != nil {
			return x
		}
	case *Session:
		if x := s.sessions[e.ID]; x != nil {
			return x
		}
	case *Job:
		if x := s.jobs[e.ID]; x != nil {
			return x
		}
	case *Model:
		if x := s.Model(e.Renderer, e.Model); x != nil {
			return x
		}
	case *Owner:
		if x := s.owner(e.Renderer, e.Owner); x != nil {
			return x
		}
	}
	return nil
}

// The functions below change an entity, in place or as a copy. What f changes
// it is given; where orders depend on what changes, the entity is taken out of them meanwhile.

func (s *State) changePool(id domain.RendererID, f func(*Pool)) {
	ps := s.find(id)
	if ps == nil || ps.pool == nil {
		return
	}
	if s.inPlace(ps.pool) {
		f(ps.pool)
		return
	}
	next := ps.pool.copy()
	f(&next)
	s.put(&next)
}

func (s *State) changeResource(id domain.ResourceID, f func(*Resource)) {
	r := s.resources[id]
	if r == nil {
		return
	}
	if s.inPlace(r) {
		was := s.liftResource(r)
		f(r)
		s.settleResource(r, was)
		return
	}
	next := r.clone()
	f(next)
	s.put(next)
}

func (s *State) changeSession(id domain.SessionID, f func(*Session)) {
	e := s.sessions[id]
	if e == nil {
		return
	}
	if s.inPlace(e) {
		was := s.liftSession(e)
		f(e)
		s.settleSession(e, was)
		return
	}
	next := *e
	f(&next)
	s.put(&next)
}

func (s *State) changeJob(id domain.JobID, f func(*Job)) {
	e := s.jobs[id]
	if e == nil {
		return
	}
	if s.inPlace(e) {
		was := s.liftJob(e)
		f(e)
		s.settleJob(e, was)
		return
	}
	next := *e
	f(&next)
	s.put(&next)
}

func (s *State) changeModel(r domain.RendererID, m domain.ModelKey, seq int64, f func(*Model)) {
	e := s.Model(r, m)
	if e != nil && s.inPlace(e) {
		f(e)
		return
	}
	next := Model{Renderer: r, Model: m, Seq: seq}
	if e != nil {
		next = *e
	}
	f(&next)
	s.put(&next)
}

func (s *State) changeOwner(r domain.RendererID, o domain.Owner, seq int64, f func(*Owner)) {
	if o == "" {
		return // nobody in particular has no habits
	}
	e := s.owner(r, o)
	if e != nil && s.inPlace(e) {
		f(e)
		return
	}
	next := Owner{Renderer: r, Owner: o, Seq: seq}
	if e != nil {
		next = *e
	}
	f(&next)
	s.put(&next)
}
