package pool

import (
	"cmp"
	"maps"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// take puts a pool's settings and what was learned in place of what was there.
func (p *poolState) take(e *Pool) {
	if p.pool == nil || p.policy == nil || p.pool.Settings.Placement.Policy != e.Settings.Placement.Policy ||
		!maps.Equal(p.pool.Settings.Placement.Parameters, e.Settings.Placement.Parameters) {
		p.policy = placement.New(e.Settings.Placement)
	}
	p.pool = e
}

// takePool is take, for a pool of the state.
func (s *State) takePool(e *Pool) {
	p := s.of(e.Settings.ID)
	var before *domain.QuotaSettings
	if p.pool != nil {
		before = p.pool.Settings.Quotas
	}
	p.take(e)
	s.requota(p, before, e.Settings.Quotas)
}

// option is a ready resource as placement sees it; nil: it is not ready.
func (r *Resource) option() *placement.Option { return r.optionIn(nil) }

// optionIn is option, in the room of one that may be overwritten; nil: in new room.
func (r *Resource) optionIn(room *placement.Option) *placement.Option {
	if r == nil || r.State != ResourceStateReady {
		return nil
	}
	if room == nil {
		room = new(placement.Option)
	}
	*room = placement.Option{
		Resource: r.ID, Seq: r.Seq, Free: r.Free(), Slots: r.Slots, MaxModels: r.MaxModels, MemoryMiB: r.MemoryMiB,
		Bound: r.Model, Key: r.Key, Models: r.Models, Users: r.Users,
	}
	if r.IdleSince != nil {
		room.IdleSince = *r.IdleSince
	}
	return room
}

// rankSession puts sessions before jobs of any priority.
const rankSession = MaxPriority + 1

// request is a waiting session as placement sees it; nil: it does not wait.
func (s *Session) request() *placement.Request {
	if s == nil || !s.Waiting() {
		return nil
	}
	return &placement.Request{Kind: UserSession, ID: string(s.ID), Seq: s.Seq, Number: s.Number, Model: s.Model, Key: s.Overrides.Key(),
		Owner: s.Owner, Home: s.Home, Since: s.RequestedAt, Seconds: s.Seconds}
}

// request is a queued job as placement sees it; nil: it is not queued.
func (j *Job) request() *placement.Request {
	if j == nil || j.State != JobStateQueued {
		return nil
	}
	r := j.asRequest()
	return &r
}

func (j *Job) asRequest() placement.Request {
	r := placement.Request{Kind: UserJob, ID: string(j.ID), Seq: j.Seq, Number: j.Number, Model: j.Model, Owner: j.Owner, Home: j.Home,
		Since: *j.QueuedAt, Seconds: j.Seconds}
	if j.NotBefore != nil {
		r.NotBefore = *j.NotBefore
	}
	if j.Deadline != nil && !j.Late {
		r.Due = *j.Deadline
	}
	return r
}

// queue changes the place of one who waits; nil: it did not or does not.
func (p *poolState) requeue(beforeRank int, before *placement.Request, rank int, after *placement.Request) {
	if before != nil {
		i, found := p.queueOf(beforeRank)
		if found {
			if p.queues[i].Remove(before); len(p.queues[i].Requests) == 0 {
				p.queues = slices.Delete(p.queues, i, i+1)
			}
		}
	}
	if after != nil {
		i, found := p.queueOf(rank)
		if !found {
			p.queues = slices.Insert(p.queues, i, &placement.Queue{Rank: rank})
		}
		p.queues[i].Add(after)
	}
}

func (p *poolState) queueOf(rank int) (int, bool) {
	return slices.BinarySearchFunc(p.queues, rank, func(q *placement.Queue, rank int) int { return cmp.Compare(rank, q.Rank) })
}

func (j *Job) rank() int {
	if j == nil {
		return 0
	}
	return j.Priority
}
