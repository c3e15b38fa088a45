package main

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// story is the main job, end to end, told step by step. Each step checks what it tells.
type story struct {
	*call
	renderer string
	out      string
	begin    int64 // position of the log before it
	steps    int

	mine       map[string]string // sessions that have not ended: whose
	people     map[string]client.Session
	coldReady  float64 // seconds until the first session was ready
	jobs       []string
	unfinished map[string]bool
}

// tell tells it.
func (s *story) tell() error {
	s.people, s.unfinished = map[string]client.Session{}, map[string]bool{}
	if err := s.fitting(); err != nil {
		return err
	}
	for _, step := range []struct {
		title string
		f     func() error
	}{
		{"The pool is empty: nobody asks, nothing runs.", s.fromZero},
		{"Ada books neuron:1. The queue itself starts a renderer.", s.firstBooking},
		{"Frames come through the service: PNG, MJPEG, WebSocket.", s.frames},
		{"Ada releases; Ben asks for the same model and gets the warm resource.", s.warmBooking},
		{"Cleo, Dora and Emil ask for other models until the pool is at its limit.", s.toTheLimit},
		{"The next one waits in the queue; the one that will not wait is told why, and when to ask again.", s.queueAndRefusal},
		{"Forty image jobs queue up behind the sessions.", s.submitJobs},
		{"Ben releases: in the same commit his slot goes to Fred, who waited.", s.handOver},
		{"Jobs run between the sessions and after them.", s.runJobs},
		{"Nobody asks any more: idle resources are removed, down to zero.", s.toZero},
		{"What the log says: what was allocated where, and why.", s.whatHappened},
	} {
		s.steps++
		s.line("\n%d. %s", s.steps, step.title)
		if err := step.f(); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) say(format string, args ...any) {
	s.line("   %s", clean(fmt.Sprintf(format, args...), false))
}

func (s *story) pool() (client.Pool, error) {
	p, _, err := answer[client.Pool](s.api.GetPool(s.ctx, s.renderer))
	return p, err
}

// poolSize waits until the pool has so many resources that have not ended, telling each change.
func (s *story) poolSize(want int, within time.Duration) error {
	told, until := "", s.now().Add(within)
	for {
		p, err := s.pool()
		if err != nil {
			return err
		}
		n := 0
		for _, k := range p.Sizes {
			n += k
		}
		if text := sizesText(p.Sizes); text != told {
			s.say("resources: %s", text)
			told = text
		}
		if n == want {
			return nil
		}
		if s.now().After(until) {
			return expect(false, fmt.Sprintf("%d resources within %s", want, within), "%s", sizesText(p.Sizes))
		}
		if pause(s.ctx, 100*time.Millisecond); s.ctx.Err() != nil {
			return s.ctx.Err()
		}
	}
}

func (s *story) fromZero() (err error) {
	if err := s.poolSize(0, 45*time.Second); err != nil {
		return err
	}
	s.begin, err = s.head(s.ctx)
	return err
}

// book books for someone; the answer of a refusal is an error.
func (s *story) book(who, model, wait string) (client.Session, error) {
	e, _, err := answer[client.Session](s.api.BookResource(s.ctx, &client.BookResourceParams{IdempotencyKey: newKey()}, client.SessionRequest{
		Renderer: s.renderer, Model: model, Owner: who, Wait: wait, Lease: "2m",
	}))
	if err == nil {
		s.mine[e.ID], s.people[who] = who, e
	}
	return e, err
}

func (s *story) release(who string) error {
	e, _, err := answer[client.Session](s.api.ReleaseSession(s.ctx, s.people[who].ID))
	if err != nil {
		return err
	}
	delete(s.mine, e.ID)
	return expect(e.State == client.SessionStateReleased, who+"'s session released", "%s", e.State)
}

// ready follows someone's session until frames can be had.
func (s *story) ready(who string) (client.Session, error) {
	state, err := s.followSession(&progress{w: s.stdout, indent: "   " + who + ": "}, s.people[who])
	if err != nil {
		return client.Session{}, err
	}
	e, _, err := answer[client.Session](s.api.GetSession(s.ctx, s.people[who].ID))
	if err != nil {
		return e, err
	}
	s.people[who] = e
	return e, expect(state == string(client.SessionStateReady), who+"'s session ready", "%s (%s)", e.State, e.Reason)
}

func queued(who string, e client.Session, place int) error {
	waits := e.State == client.SessionStateQueued || e.State == client.SessionStateStarting
	return expect(e.Outcome == client.SessionOutcomeQueued && waits && e.Queue.Position == place && e.Queue.EstimatedWaitSeconds > 0 && e.Queue.Reason != "",
		fmt.Sprintf("%s queued at place %d, with an estimate and a reason", who, place), "%s, %s", e.State, queueText(e.Queue))
}

func (s *story) firstBooking() error {
	e, err := s.book("ada", "neuron:1", "1m")
	if err != nil {
		return err
	}
	if err := queued("Ada", e, 1); err != nil {
		return err
	}
	if e, err = s.ready("ada"); err != nil {
		return err
	}
	s.coldReady = e.ReadyAt.Sub(e.RequestedAt).Seconds()
	return expect(!e.Warm && e.Resource != "" && e.URL != "", "a resource that had to load the model", "warm: %t on %q", e.Warm, e.Resource)
}

func (s *story) warmBooking() error {
	first := s.people["ada"].Resource
	if err := s.release("ada"); err != nil {
		return err
	}
	e, err := s.book("ben", "neuron:1", "")
	if err != nil {
		return err
	}
	err = expect(e.Outcome == client.SessionOutcomeAllocated && e.State == client.SessionStateReady && e.Warm && e.Resource == first,
		"Ben allocated at once on the warm "+first, "%s, warm: %t, on %q", e.State, e.Warm, e.Resource)
	if err != nil {
		return err
	}
	took := e.ReadyAt.Sub(e.RequestedAt).Seconds()
	s.say("ben: warm: true, ready at once on %s; Ada waited %s", e.Resource, seconds(s.coldReady))
	return expect(took < s.coldReady, "Ben ready sooner than Ada", "%s", seconds(took))
}

func (s *story) toTheLimit() error {
	asked := map[string]string{"cleo": "neuron:2", "dora": "neuron:3", "emil": "neuron:4"}
	names := []string{"cleo", "dora", "emil"}
	for _, who := range names {
		if _, err := s.book(who, asked[who], "1m"); err != nil {
			return err
		}
	}
	var where []string
	for _, who := range names {
		e, err := s.ready(who)
		if err != nil {
			return err
		}
		where = append(where, e.Resource)
	}
	slices.Sort(where)
	p, err := s.pool()
	if err != nil {
		return err
	}
	s.say("pool: %s of at most %d; %d of %d slots free", sizesText(p.Sizes), p.Max, p.SlotsFree, p.SlotsTotal)
	return expect(len(slices.Compact(where)) == 3 && p.Sizes["ready"] == p.Max && p.SlotsTotal == 4 && p.SlotsFree == 0,
		"4 resources, each with one session", "%s, %d slots free, the three on %s", sizesText(p.Sizes), p.SlotsFree, strings.Join(where, ", "))
}

func (s *story) queueAndRefusal() error {
	e, err := s.book("fred", "neuron:5", "1m")
	if err != nil {
		return err
	}
	if err := queued("Fred", e, 1); err != nil {
		return err
	}
	s.say("fred: queued at %s", queueText(e.Queue))
	res, err := s.api.BookResource(s.ctx, nil, client.SessionRequest{Renderer: s.renderer, Model: "neuron:6", Owner: "gina"})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	status, after := res.StatusCode, res.Header.Get("Retry-After")
	_, _, err = answer[client.Session](res, nil)
	var no *client.Error
	if !errors.As(err, &no) {
		return expect(false, "Gina refused", "%d", status)
	}
	s.say("gina: %d %s: %s", status, no.Code, no.Detail)
	s.say("gina: Retry-After: %s (%d wait already; why: rrm explain %d)", after, no.Queue.Waiting, no.Decision.Position)
	return expect(status == http.StatusServiceUnavailable && no.Code == "no_capacity" && no.Detail != "" && after != "" && no.Queue.Waiting == 1 && no.Decision.Position > 0,
		"503 no_capacity with a reason and Retry-After", "%d %s, Retry-After %q", status, no.Code, after)
}

// handOver shows that a release and the next allocation are one append to the log.
func (s *story) handOver() error {
	before, err := s.head(s.ctx)
	if err != nil {
		return err
	}
	if err := s.release("ben"); err != nil {
		return err
	}
	if _, err := s.ready("fred"); err != nil {
		return err
	}
	var run []client.Event
	released, done := false, false
	err = s.eachEvent(s.ctx, client.ListEventsParams{}, before, func(e *client.Event) (bool, error) {
		f := read(e)
		released = released || e.Type == "session.released" && f.Session == s.people["ben"].ID
		if released {
			run = append(run, *e)
		}
		done = released && e.Type == "session.allocated" && f.Session == s.people["fred"].ID
		return !done, nil
	})
	if err != nil {
		return err
	}
	if err := expect(done, "Fred's session.allocated after Ben's session.released", "it is not in the log"); err != nil {
		return err
	}
	one := true
	var text []string
	for i, e := range run {
		text = append(text, fmt.Sprintf("%d %s", e.Position, e.Type))
		// All events of one append are recorded at the same microsecond, with neighbouring positions.
		one = one && e.RecordedAt.Equal(run[0].RecordedAt) && e.Position == run[0].Position+int64(i) && e.Version == run[0].Version+int64(i)
		one = one && e.Type != "job.assigned"
	}
	s.say("the log: %s", strings.Join(text, ", "))
	s.say("one append, recorded at %s; %d jobs waited too, sessions come first", run[0].RecordedAt.Format("15:04:05.000000"), len(s.jobs))
	return expect(one, "one append from the release to the allocation", "%s", strings.Join(text, ", "))
}

func (s *story) toZero() error {
	if err := s.poolSize(0, 45*time.Second); err != nil {
		return err
	}
	p, err := s.pool()
	if err != nil {
		return err
	}
	s.say("the pool was scaled to %d: %s", p.LastScaling.To, p.LastScaling.Reason)
	return expect(p.LastScaling.To == 0, "the last scaling to 0", "%d", p.LastScaling.To)
}

func (s *story) file(name string) string { return filepath.Join(s.out, name) }
