package pool

import (
	"fmt"
	"math"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Bounds of what a booking may ask for.
const (
	DefaultLease = 60 * time.Second
	MinLease     = time.Second
	MaxLease     = 24 * time.Hour
	MaxWait      = 24 * time.Hour
	MaxMaxTime   = 30 * 24 * time.Hour
)

func (c *BookResource) check() error {
	if c.Model == "" {
		return domain.Invalid("model", "a booking names the model")
	}
	if err := domain.CheckText("model", string(c.Model), domain.MaxModelKey); err != nil {
		return err
	}
	if err := domain.CheckText("owner", string(c.Owner), domain.MaxOwner); err != nil {
		return err
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	if c.OnLost == "" {
		c.OnLost = OnLostEnd
	}
	switch {
	case c.Lease < MinLease || c.Lease > MaxLease:
		return domain.Invalid("lease", "a lease lasts from %s to %s", MinLease, MaxLease)
	case c.Wait < 0 || c.Wait > MaxWait:
		return domain.Invalid("wait", "a booking waits for at most %s", MaxWait)
	case c.MaxTime < 0 || c.MaxTime > MaxMaxTime:
		return domain.Invalid("max_duration", "a session lasts for at most %s", MaxMaxTime)
	case c.OnLost != OnLostEnd && c.OnLost != OnLostMove:
		return domain.Invalid("on_lost", "on_lost is %q or %q", OnLostEnd, OnLostMove)
	}
	return nil
}

// book asks for a slot: allocated now, else queued if the client will wait, else rejected with a reason.
func (d *decider) book(c BookResource) error {
	if err := c.check(); err != nil {
		return err
	}
	if _, err := d.pool(c.Renderer); err != nil {
		return err
	}
	if d.s.sessions[c.Session] != nil {
		return nil
	}
	p := d.s.of(c.Renderer)
	if r := d.tooLarge(p, c.Model); r != nil {
		return r
	}
	over := d.overSessions(p, c.Owner)
	d.emit(c.Renderer, SessionRequested{
		Home:    d.home(d.s.of(c.Renderer), rankSession, c.Model, ""),
		Session: c.Session, Model: c.Model, Owner: c.Owner, Params: c.Params, OnLost: c.OnLost,
		WaitSeconds: c.Wait.Seconds(), LeaseSeconds: c.Lease.Seconds(), MaxSeconds: c.MaxTime.Seconds(),
	})
	if !d.s.service.Open {
		return d.reject(c, Place{Code: CodeAdmission, Reason: "new sessions are suspended" + because(d.s.service.Reason)}, 60)
	}
	if over != "" {
		return d.refuseSession(c, p, over)
	}
	d.placeSessions(c.Renderer)
	if c.Wait == 0 && d.s.sessions[c.Session].Waiting() {
		d.placeNow(d.s.sessions[c.Session])
	}
	if !d.s.sessions[c.Session].Waiting() {
		return nil
	}
	place := d.s.PlaceOfSession(c.Session, d.at)
	if c.Wait == 0 {
		return d.reject(c, place, retryAfter(place.EstimatedWaitSeconds))
	}
	d.sessionQueued(d.s.sessions[c.Session], place)
	return nil
}

// sessionQueued tells a session that it waits, where, and what it has to expect.
func (d *decider) sessionQueued(e *Session, place Place) {
	d.emit(e.Renderer, SessionQueued{
		Session: e.ID, Place: place.Position, EstimateSeconds: place.EstimatedWaitSeconds,
		LowSeconds: place.LowSeconds, HighSeconds: place.HighSeconds, RawSeconds: place.raw, Basis: place.basis,
		Decision: d.noSlot(e.Renderer, "queued", e.Model, place.Reason),
	})
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// retryAfter rounds an estimate to what a client can be told: whole seconds, from 1 to 120, so
// that a wrong estimate costs it two minutes at most.
func retryAfter(estimate float64) float64 { return min(120, max(1, math.Ceil(estimate))) }

func (d *decider) reject(c BookResource, place Place, retry float64) error {
	dec := d.noSlot(c.Renderer, "rejected", c.Model, place.Reason)
	pos := d.emit(c.Renderer, SessionRejected{
		Session: c.Session, Model: c.Model, Owner: c.Owner, Code: place.Code, Reason: place.Reason,
		RetryAfterSeconds: retry, Queue: max(0, place.Position-1), Decision: dec,
	})
	kind, field := domain.KindUnavailable, ""
	switch place.Code {
	case CodeAdmission:
		kind = domain.KindForbidden
	case CodeQuota:
		kind, field = domain.KindTooMany, "owner"
	}
	return &domain.Refusal{Kind: kind, Code: place.Code, Field: field, Reason: place.Reason, RetryAfter: seconds(retry),
		Position: pos, Queue: max(0, place.Position-1)}
}

func (d *decider) session(id domain.SessionID) (*Session, error) {
	if e := d.s.sessions[id]; e != nil {
		return e, nil
	}
	return nil, domain.NotFound("session", string(id))
}

func (d *decider) release(c ReleaseSession) error {
	e, err := d.session(c.Session)
	if err != nil || e.Ended {
		return err
	}
	d.emit(e.Renderer, SessionReleased{Session: e.ID, Resource: e.Resource, Reason: c.Reason})
	return nil
}

// open makes a session that holds nothing.
func (d *decider) open(c OpenSession) error {
	if _, err := d.pool(c.Renderer); err != nil {
		return err
	}
	if err := domain.CheckText("owner", string(c.Owner), domain.MaxOwner); err != nil {
		return err
	}
	switch {
	case c.Lease < MinLease || c.Lease > MaxLease:
		return domain.Invalid("lease", "a lease lasts from %s to %s", MinLease, MaxLease)
	case d.s.sessions[c.Session] != nil:
		return domain.Conflict("session_exists", "there is a session %q already", c.Session)
	case !d.s.service.Open:
		return domain.Forbidden(CodeAdmission, "new sessions are suspended%s", because(d.s.service.Reason))
	}
	d.emit(c.Renderer, SessionOpened{Session: c.Session, Owner: c.Owner, LeaseSeconds: c.Lease.Seconds()})
	return nil
}

// schedule books for an opened session: allocated now, else queued.
func (d *decider) schedule(c ScheduleSession) error {
	e, err := d.session(c.Session)
	if err != nil {
		return err
	}
	switch {
	case e.Ended:
		return domain.Conflict("session_ended", "session %q has ended; open a new one", e.ID)
	case e.State != SessionStateOpened:
		return domain.Conflict("session_scheduled", "session %q is %s already", e.ID, e.State)
	case c.Wait < 0 || c.Wait > MaxWait:
		return domain.Invalid("wait", "a booking waits for at most %s", MaxWait)
	}
	if c.Model == "" {
		return domain.Invalid("model", "a booking names the model")
	}
	if err := domain.CheckText("model", string(c.Model), domain.MaxModelKey); err != nil {
		return err
	}
	p, err := d.pool(e.Renderer)
	if err != nil {
		return err
	}
	if c.Overrides.Key() == "" {
		c.Overrides = nil
	}
	if c.Overrides != nil { // the settings themselves were checked when they were made
		if _, err := p.Settings.With(c.Overrides).Checked(); err != nil {
			return err
		}
	}
	if over := d.overSessions(d.s.of(e.Renderer), e.Owner); over != "" {
		return &domain.Refusal{Kind: domain.KindTooMany, Code: CodeQuota, Field: "owner", Reason: over, RetryAfter: seconds(retryAfter(p.expectHold()))}
	}
	d.emit(e.Renderer, SessionRequested{Home: d.home(d.s.of(e.Renderer), rankSession, c.Model, c.Overrides.Key()), Session: e.ID, Model: c.Model, Owner: e.Owner, WaitSeconds: c.Wait.Seconds(),
		LeaseSeconds: e.LeaseSeconds, OnLost: OnLostEnd, Overrides: c.Overrides})
	d.placeSessions(e.Renderer)
	if !d.s.sessions[e.ID].Waiting() {
		return nil
	}
	place := d.s.PlaceOfSession(e.ID, d.at)
	d.sessionQueued(d.s.sessions[e.ID], place)
	return nil
}

func (d *decider) expire(c ExpireSession) error {
	e, err := d.session(c.Session)
	if err != nil || e.Ended || e.State != SessionStateReady && !e.Throughout {
		return err
	}
	d.emit(e.Renderer, SessionExpired{Session: e.ID, Resource: e.Resource, Code: CodeLeaseEnded,
		Reason: fmt.Sprintf("the lease of %s was not renewed", seconds(e.LeaseSeconds))})
	return nil
}

// tickSessions ends waits and durations that are over.
func (d *decider) tickSessions(p *poolState) {
	var over []Event
	for _, e := range p.waiting {
		if e.WaitUntil != nil && !d.at.Before(*e.WaitUntil) {
			over = append(over, SessionExpired{Session: e.ID, Code: CodeWaitEnded,
				Reason: fmt.Sprintf("no slot came free within %s", e.WaitUntil.Sub(e.RequestedAt))})
		}
	}
	for _, e := range p.holding {
		if e.MaxSeconds > 0 && !d.at.Before(e.AllocatedAt.Add(seconds(e.MaxSeconds))) {
			over = append(over, SessionExpired{Session: e.ID, Resource: e.Resource, Code: CodeMaxDuration,
				Reason: fmt.Sprintf("the session reached its longest duration of %s", seconds(e.MaxSeconds))})
		}
	}
	for _, e := range over {
		d.emit(p.pool.Settings.ID, e)
	}
}
