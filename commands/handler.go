package commands

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// Call is who gives a command, and how.
type Call struct {
	Actor domain.Actor
	Key   string // the Idempotency-Key, at most 255 bytes; empty: the command is not meant to be repeated
	Trace string // W3C traceparent, or the request's id
}

// Leases renew what is no event: how long a session lasts.
type Leases interface {
	// Renew moves the end of a session's lease to now+lease by the database's
	// clock (0: as long as before). ok is false if there is no lease to
	// renew: the session waits, loads or has ended, or its end was claimed.
	Renew(ctx context.Context, id domain.SessionID, lease time.Duration) (expires time.Time, ok bool, err error)
}

// Handler has one method for each command. It is the only way to change anything.
type Handler struct {
	lane   *Lane
	log    *eventstore.Log
	views  Views
	leases Leases
	now    func() time.Time

	// CheckCallback refuses a callback_url that may not be called; nil allows none.
	CheckCallback func(url string) error
}

// NewHandler gives commands to a lane.
func NewHandler(lane *Lane, log *eventstore.Log, views Views, leases Leases) *Handler {
	return &Handler{lane: lane, log: log, views: views, leases: leases, now: time.Now}
}

// Booking is the answer to BookResource: the session, and its place if it has to wait.
type Booking struct {
	Session  pool.Session `json:"session"`
	Queue    *pool.Place  `json:"queue,omitempty"`
	Repeated bool         `json:"-"`
}

// JobAnswer is the answer to SubmitJob.
type JobAnswer struct {
	Job      pool.Job    `json:"job"`
	Queue    *pool.Place `json:"queue,omitempty"`
	Repeated bool        `json:"-"`
}

// BookResource books a session: allocated, or queued if Wait allows, or refused with a reason.
func (h *Handler) BookResource(ctx context.Context, c Call, cmd pool.BookResource) (Booking, error) {
	hash := hashOf(cmd)
	if cmd.Session == "" {
		cmd.Session = domain.SessionID(newID())
	}
	var out Booking
	repeated, err := h.do(ctx, c, hash, cmd, func(s *pool.State, m eventstore.Meta) any {
		return bookingOf(s, cmd.Session, m.DecidedAt)
	}, &out)
	out.Repeated = repeated
	return out, err
}

func bookingOf(s *pool.State, id domain.SessionID, at time.Time) Booking {
	e := s.Session(id)
	b := Booking{Session: *e}
	if e.Waiting() {
		p := s.PlaceOfSession(id, at)
		b.Queue = &p
	}
	return b
}

// OpenSession makes a session that holds nothing yet, for ScheduleSession to book for.
func (h *Handler) OpenSession(ctx context.Context, c Call, cmd pool.OpenSession) (pool.Session, error) {
	hash := hashOf(cmd)
	if cmd.Session == "" {
		cmd.Session = domain.SessionID(newID())
	}
	var out pool.Session
	_, err := h.do(ctx, c, hash, cmd, func(s *pool.State, _ eventstore.Meta) any { return s.Session(cmd.Session) }, &out)
	return out, err
}

// ScheduleSession books for an opened session: allocated, or queued.
func (h *Handler) ScheduleSession(ctx context.Context, c Call, cmd pool.ScheduleSession) (Booking, error) {
	var out Booking
	repeated, err := h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, m eventstore.Meta) any {
		return bookingOf(s, cmd.Session, m.DecidedAt)
	}, &out)
	out.Repeated = repeated
	return out, err
}

// RegisterResource takes in a resource that someone else started; it is ready when its probe is answered.
func (h *Handler) RegisterResource(ctx context.Context, c Call, cmd pool.RegisterResource) (pool.Resource, error) {
	var out pool.Resource
	_, err := h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, _ eventstore.Meta) any {
		for _, r := range s.ResourcesOf(cmd.Renderer) {
			if r.ID == cmd.Resource || cmd.Resource == "" && r.Address == cmd.Address {
				return r
			}
		}
		return nil
	}, &out)
	return out, err
}

// ReleaseSession ends a session. Repeating is safe: a session that has ended is given as it is.
func (h *Handler) ReleaseSession(ctx context.Context, c Call, cmd pool.ReleaseSession) (pool.Session, error) {
	var out pool.Session
	_, err := h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, _ eventstore.Meta) any { return s.Session(cmd.Session) }, &out)
	return out, err
}

// SubmitJob puts a job into the queue.
func (h *Handler) SubmitJob(ctx context.Context, c Call, cmd pool.SubmitJob) (JobAnswer, error) {
	if err := h.checkCallback(cmd.CallbackURL); err != nil {
		return JobAnswer{}, err
	}
	hash := hashOf(cmd)
	if cmd.Job == "" {
		cmd.Job = domain.JobID(newID())
	}
	var out JobAnswer
	repeated, err := h.do(ctx, c, hash, cmd, func(s *pool.State, m eventstore.Meta) any {
		a := JobAnswer{Job: *s.Job(cmd.Job)}
		if a.Job.State == pool.JobStateQueued || a.Job.State == pool.JobStateWaiting {
			p := s.PlaceOfJob(cmd.Job, m.DecidedAt)
			a.Queue = &p
		}
		return a
	}, &out)
	out.Repeated = repeated
	return out, err
}

func (h *Handler) checkCallback(url string) error {
	switch {
	case url == "":
		return nil
	case h.CheckCallback == nil:
		return domain.Invalid("callback_url", "this service makes no callbacks")
	}
	return h.CheckCallback(url)
}

// checkWebhooks refuses a policy that would ask an address which may not be called, as it would be with callbacks.
func (h *Handler) checkWebhooks(set domain.ScalingSettings) error {
	for _, w := range set.Webhooks() {
		if h.CheckCallback == nil {
			return domain.Invalid(w.Field, "this service asks no other")
		}
		err := h.CheckCallback(w.URL)
		if r, refused := domain.AsRefusal(err); refused {
			named := *r
			named.Field = w.Field
			return &named
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// PlanScaling says what other limits or another policy would do now, and does nothing.
func (h *Handler) PlanScaling(ctx context.Context, c Call, cmd pool.PlanScaling) (pool.ScalingPlan, error) {
	var out pool.ScalingPlan
	at := h.now().UTC()
	a, err := h.lane.Do(ctx, Request{
		Command: command{cmd, func(s *pool.State, m eventstore.Meta) any {
			return s.Plan(cmd, pool.Given{ID: m.Command, Actor: m.Actor, At: m.DecidedAt, Command: cmd})
		}},
		Transient: true, // nothing is written, so that the same may be asked again
		Meta:      eventstore.Meta{Command: domain.CommandID(newID()), Actor: c.Actor, Trace: c.Trace, DecidedAt: at},
	})
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(a.Body, &out); err != nil {
		return out, fmt.Errorf("read the plan: %w", err)
	}
	return out, nil
}

// CancelJob ends a job that has not ended.
func (h *Handler) CancelJob(ctx context.Context, c Call, cmd pool.CancelJob) (pool.Job, error) {
	var out pool.Job
	_, err := h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, _ eventstore.Meta) any { return s.Job(cmd.Job) }, &out)
	return out, err
}

// ConfigureRenderer creates or replaces a renderer's settings, and gives them with what was left out filled in.
func (h *Handler) ConfigureRenderer(ctx context.Context, c Call, cmd pool.ConfigureRenderer) (domain.Renderer, error) {
	var out domain.Renderer
	checked, err := cmd.Renderer.Checked()
	if err != nil {
		return out, err
	}
	cmd.Renderer = checked
	if err := h.checkWebhooks(checked.Scaling); err != nil {
		return out, err
	}
	_, err = h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, _ eventstore.Meta) any { return s.Pool(checked.ID).Settings }, &out)
	return out, err
}

// RemoveRenderer deletes a renderer without sessions and jobs; its idle resources are stopped.
func (h *Handler) RemoveRenderer(ctx context.Context, c Call, cmd pool.RemoveRenderer) error {
	_, err := h.do(ctx, c, hashOf(cmd), cmd, nil, nil)
	return err
}

// SetAdmission opens or suspends the admission of new sessions.
func (h *Handler) SetAdmission(ctx context.Context, c Call, cmd pool.SetAdmission) (pool.Service, error) {
	var out pool.Service
	_, err := h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, _ eventstore.Meta) any { return s.Service() }, &out)
	return out, err
}

// DrainResource lets a resource's work end and stops it then.
func (h *Handler) DrainResource(ctx context.Context, c Call, cmd pool.DrainResource) (pool.Resource, error) {
	var out pool.Resource
	_, err := h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, _ eventstore.Meta) any { return s.Resource(cmd.Resource) }, &out)
	return out, err
}

// StopResource stops a resource now.
func (h *Handler) StopResource(ctx context.Context, c Call, cmd pool.StopResource) (pool.Resource, error) {
	var out pool.Resource
	_, err := h.do(ctx, c, hashOf(cmd), cmd, func(s *pool.State, _ eventstore.Meta) any { return s.Resource(cmd.Resource) }, &out)
	return out, err
}

// RenewLease keeps a session: its lease ends lease from now (0: as long as
// before). It is no event. A session that waits or loads has no lease yet:
// the zero time and no error. One that has ended is a conflict.
func (h *Handler) RenewLease(ctx context.Context, _ Call, id domain.SessionID, lease time.Duration) (time.Time, error) {
	if lease != 0 && (lease < pool.MinLease || lease > pool.MaxLease) {
		return time.Time{}, domain.Invalid("lease", "a lease lasts from %s to %s", pool.MinLease, pool.MaxLease)
	}
	expires, ok, err := h.leases.Renew(ctx, id, lease)
	if err != nil || ok {
		return expires, err
	}
	rows, err := h.log.Rows(ctx, []eventstore.Ref{{View: pool.ViewSessions, ID: string(id)}})
	if err != nil {
		return time.Time{}, err
	}
	if len(rows) == 0 {
		return time.Time{}, domain.NotFound("session", string(id))
	}
	entity, err := h.views.Entity(rows[0])
	if err != nil {
		return time.Time{}, err
	}
	if e, is := entity.(*pool.Session); is && !e.Throughout && (e.Waiting() || e.State == pool.SessionStateLoading) {
		return time.Time{}, nil
	}
	return time.Time{}, domain.Conflict("session_ended", "session %q has ended; book a new one", id)
}

// Report gives a command of the service itself, which may be repeated freely and whose answer nobody keeps.
func (h *Handler) Report(ctx context.Context, actor domain.Actor, cmd pool.Command) error {
	_, err := h.lane.Do(ctx, Request{
		Command: command{Command: cmd}, Transient: true,
		Meta: eventstore.Meta{Command: domain.CommandID(newID()), Actor: actor, DecidedAt: h.now().UTC()},
	})
	return err
}

func (h *Handler) do(ctx context.Context, c Call, hash string, cmd pool.Command, answer func(*pool.State, eventstore.Meta) any, out any) (repeated bool, err error) {
	id := domain.CommandID(newID())
	if c.Key != "" {
		id = domain.CommandID(string(c.Actor) + "/" + c.Key) // one caller's keys are no concern of another's
	}
	a, err := h.lane.Do(ctx, Request{
		Command: command{cmd, answer}, ID: id, Hash: hash,
		Meta: eventstore.Meta{Command: id, Actor: c.Actor, Trace: c.Trace, DecidedAt: h.now().UTC()},
	})
	if err != nil {
		return a.Repeated, err
	}
	if out != nil && len(a.Body) > 0 {
		if err := json.Unmarshal(a.Body, out); err != nil {
			return a.Repeated, fmt.Errorf("read the answer of %T: %w", cmd, err)
		}
	}
	return a.Repeated, nil
}

// hashOf tells one request from another under the same key. It is taken before identifiers are made.
func hashOf(cmd pool.Command) string {
	b, err := json.Marshal(cmd)
	if err != nil { // commands are plain data
		panic(err)
	}
	sum := sha256.Sum256(append([]byte(fmt.Sprintf("%T ", cmd)), b...))
	return hex.EncodeToString(sum[:16])
}

// newID is a UUID that begins with the time, so that rows written together lie together.
func newID() string { return uuid.Must(uuid.NewV7()).String() }
