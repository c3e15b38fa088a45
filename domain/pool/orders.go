package pool

import (
	"cmp"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain/placement"
)

func bySeq[E interface{ seq() int64 }](a, b E) int { return cmp.Compare(a.seq(), b.seq()) }

func (r *Resource) seq() int64 { return r.Seq }
func (s *Session) seq() int64  { return s.Seq }
func (j *Job) seq() int64      { return j.Seq }

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

// place takes an entity into the maps and orders, in place of what has its key; nil: there is none.
func (s *State) place(e, before entity) {
	switch e := e.(type) {
	case *Service:
		s.service = e
	case *Pool:
		s.takePool(e)
	case *Model:
		s.of(e.Renderer).models[e.Model] = e
	case *Owner:
		s.of(e.Renderer).owners[e.Owner] = e
	case *Resource:
		before, _ := before.(*Resource)
		was := s.liftResource(before)
		was.own = nil // what stands in the fleet belongs to what was before
		s.resources[e.ID] = e
		s.settleResource(e, was)
	case *Session:
		before, _ := before.(*Session)
		was := s.liftSession(before)
		s.sessions[e.ID] = e
		s.settleSession(e, was)
	case *Job:
		before, _ := before.(*Job)
		was := s.liftJob(before)
		s.jobs[e.ID] = e
		s.settleJob(e, was)
	}
}

// stood is how a resource stood in the fleet before it changed.
type stood struct {
	before *placement.Option // a copy; nil: it was not there
	own    *placement.Option // what stands there, which may be changed in place
	ended  bool
}

// liftResource takes a resource out of the counts that depend on its values; nil: there was none.
func (s *State) liftResource(r *Resource) stood {
	if r == nil {
		return stood{}
	}
	s.count(r, -1)
	p := s.of(r.Renderer)
	p.countCopies(r, -1)
	was := stood{ended: r.Ended}
	if r.State == ResourceStateReady {
		was.own, was.before = p.fleet.Before(r.Seq)
	}
	return was
}

// settleResource puts a resource to where it belongs, as it is now.
func (s *State) settleResource(r *Resource, was stood) {
	s.count(r, 1)
	p := s.of(r.Renderer)
	p.countCopies(r, 1)
	p.fleet.Change(was.before, r.optionIn(was.own))
	if r.Ended {
		p.resources = without(p.resources, r, bySeq)
		s.end(keyOf(r), was.ended)
	} else {
		p.resources = insert(p.resources, r, bySeq)
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

// lifted is what of a session or job was counted before it changed.
type lifted struct {
	use   use
	ended bool
}

// liftSession takes a session out of what depends on its values; nil: there was none.
// By their age, which never changes, sessions stay where they are.
func (s *State) liftSession(e *Session) lifted {
	if e == nil {
		return lifted{}
	}
	s.count(e, -1)
	s.of(e.Renderer).requeue(rankSession, e.request(), rankSession, nil)
	return lifted{e.use(), e.Ended}
}

// settleSession puts a session to where it belongs, as it is now.
func (s *State) settleSession(e *Session, was lifted) {
	s.count(e, 1)
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
	p.requeue(0, nil, rankSession, e.request())
	p.countUse(e.Owner, was.use, e.use())
	if e.Ended {
		s.end(keyOf(e), was.ended)
	}
}

// liftJob takes a job out of the orders and counts that depend on its values; nil: there was none.
func (s *State) liftJob(j *Job) lifted {
	if j == nil {
		return lifted{}
	}
	s.count(j, -1)
	p := s.of(j.Renderer)
	if j.State == JobStateQueued {
		p.quit(j)
	}
	if j.timed() {
		p.timed = without(p.timed, j, byDeadline)
	}
	s.unlink(j)
	return lifted{j.use(), j.Ended}
}

// settleJob puts a job to where it belongs, as it is now.
func (s *State) settleJob(j *Job, was lifted) {
	s.count(j, 1)
	p := s.of(j.Renderer)
	if j.timed() {
		p.timed = insert(p.timed, j, byDeadline)
	}
	p.countUse(j.Owner, was.use, j.use())
	if j.State == JobStateQueued {
		p.join(j)
	}
	p.level(j.Owner)
	if j.State == JobStateWaiting {
		p.blocked = insert(p.blocked, j, bySeq)
		for _, after := range j.Pending {
			s.dependents[after] = insert(s.dependents[after], j, bySeq)
		}
	}
	if j.Ended {
		s.end(keyOf(j), was.ended)
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
	s.count(s.get(k), -1)
	switch e := s.get(k).(type) {
	case *Pool:
		s.find(e.Settings.ID).pool = nil
	case *Model:
		delete(s.of(e.Renderer).models, e.Model)
	case *Owner:
		delete(s.of(e.Renderer).owners, e.Owner)
	case *Resource:
		p := s.of(e.Renderer)
		p.countCopies(e, -1)
		p.fleet.Change(e.option(), nil)
		p.resources = without(p.resources, e, bySeq)
		delete(s.resources, e.ID)
	case *Session:
		p := s.of(e.Renderer)
		p.requeue(rankSession, e.request(), 0, nil)
		p.waiting, p.holding = without(p.waiting, e, bySeq), without(p.holding, e, bySeq)
		p.countUse(e.Owner, e.use(), use{})
		delete(s.sessions, e.ID)
	case *Job:
		p := s.of(e.Renderer)
		if e.State == JobStateQueued {
			p.quit(e)
		}
		if e.timed() {
			p.timed = without(p.timed, e, byDeadline)
		}
		p.countUse(e.Owner, e.use(), use{})
		p.level(e.Owner)
		s.unlink(e)
		delete(s.jobs, e.ID)
	}
}
