package pool

import (
	"fmt"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// CodeQuota is the code of a refusal, and of a place in the queue, for want of room in the owner's quota.
const CodeQuota = "quota_exceeded"

// use is what one owner has in a pool, as quotas count it.
type use struct{ sessions, holding, running, queued int }

func (s *Session) use() use {
	switch {
	case s == nil:
	case s.Holding():
		return use{sessions: 1, holding: 1}
	case s.Waiting():
		return use{sessions: 1}
	}
	return use{}
}

func (j *Job) use() use {
	switch {
	case j == nil:
	case j.PartOf != "" && !j.Holding(): // its job counts
	case j.Holding():
		return use{running: 1}
	case j.State == JobStateQueued || j.State == JobStateWaiting:
		return use{queued: 1}
	}
	return use{}
}

// countUse keeps the owners' counts while an entity changes. Where nobody ever asked there are none to keep.
func (p *poolState) countUse(o domain.Owner, before, after use) {
	if p.uses == nil || before == after {
		return
	}
	u := p.uses[o]
	u.sessions += after.sessions - before.sessions
	u.holding += after.holding - before.holding
	u.running += after.running - before.running
	u.queued += after.queued - before.queued
	if u == (use{}) {
		delete(p.uses, o)
	} else {
		p.uses[o] = u
	}
}

// useOf counts what an owner has. The first question counts everything, so that pools without quotas pay nothing.
func (s *State) useOf(p *poolState, o domain.Owner) use {
	if p.uses == nil {
		p.uses = map[domain.Owner]use{}
		for _, e := range s.sessions {
			if s.of(e.Renderer) == p {
				p.countUse(e.Owner, use{}, e.use())
			}
		}
		for _, j := range s.jobs {
			if s.of(j.Renderer) == p {
				p.countUse(j.Owner, use{}, j.use())
			}
		}
	}
	return p.uses[o]
}

// overSessions says why an owner may not have another session; empty: it may.
func (d *decider) overSessions(p *poolState, o domain.Owner) string {
	limit := p.pool.Settings.Quotas.Of(o).Sessions
	if limit == nil {
		return ""
	}
	return over(d.s.useOf(p, o).sessions, *limit, o, "sessions")
}

func over(has, limit int, o domain.Owner, what string) string {
	if has < limit {
		return ""
	}
	return fmt.Sprintf("%s has %d %s of %d", o, has, what, limit)
}

// refuseSession refuses a booking over its owner's quota. A session of that
// owner that ends makes room, so that is when to ask again.
func (d *decider) refuseSession(c BookResource, p *poolState, reason string) error {
	retry := p.pool.expectHold()
	for _, e := range p.holding {
		if e.Owner == c.Owner {
			retry -= d.at.Sub(*e.AllocatedAt).Seconds()
			break
		}
	}
	return d.reject(c, Place{Code: CodeQuota, Reason: reason}, retryAfter(retry))
}

// refuseJob refuses a submission over its owner's quota of queued jobs, and records that; nil: it is not over.
func (d *decider) refuseJob(c SubmitJob, p *poolState) error {
	limit := p.pool.Settings.Quotas.Of(c.Owner).JobsQueued
	if limit == nil {
		return nil
	}
	reason := over(d.s.useOf(p, c.Owner).queued, *limit, c.Owner, "jobs queued")
	if reason == "" {
		return nil
	}
	retry := retryAfter(p.pool.expectJob())
	pos := d.emit(c.Renderer, JobRejected{Job: c.Job, Model: c.Model, Owner: c.Owner, Code: CodeQuota, Reason: reason,
		RetryAfterSeconds: retry, Queue: len(p.queue), Decision: d.noSlot(c.Renderer, "rejected", c.Model, reason)})
	return &domain.Refusal{Kind: domain.KindTooMany, Code: CodeQuota, Field: "owner", Reason: reason,
		RetryAfter: seconds(retry), Position: pos, Queue: len(p.queue)}
}

// HeldBack is the place of a queued job whatever is free: it may have to pause
// before its next attempt, or for its owner, who has so many running.
func (place Place) HeldBack(p *Pool, j *Job, running int, now time.Time) Place {
	if j.NotBefore != nil && now.Before(*j.NotBefore) {
		place.Code, place.Reason = "backoff", fmt.Sprintf("the next attempt is at %s: %s", j.NotBefore.Format(time.RFC3339), j.Reason)
		return place
	}
	if limit := p.Settings.Quotas.Of(j.Owner).JobsRunning; limit != nil && running >= *limit {
		place.Code, place.Reason = CodeQuota, over(running, *limit, j.Owner, "jobs running")
		place.EstimatedWaitSeconds = max(place.EstimatedWaitSeconds, p.expectJob()/float64(max(1, *limit)))
	}
	return place
}
