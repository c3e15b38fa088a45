package pool

import (
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// Pool is all that is known of one renderer beyond its resources, sessions,
// jobs and models: its settings, what was learned, and how scaling stands.
type Pool struct {
	origin
	Settings     domain.Renderer `json:"settings"`
	Seq          int64           `json:"seq"`
	Version      int64           `json:"version"`       // length of the pool's stream
	Resources    int             `json:"resources"`     // ever requested
	Removed      bool            `json:"removed"`       // the renderer was deleted
	Starts       int             `json:"starts"`        // resources that got ready
	StartSeconds float64         `json:"start_seconds"` // learned, request to ready
	Loads        int             `json:"loads"`
	LoadSeconds  float64         `json:"load_seconds"` // learned over all models: what a model never seen is expected to take
	Holds        int             `json:"holds"`        // sessions that ended
	HoldSeconds  float64         `json:"hold_seconds"` // learned time that a session keeps its slot
	Jobs         int             `json:"jobs"`
	JobSeconds   float64         `json:"job_seconds"`
	Turns        int             `json:"turns,omitempty"`               // jobs that succeeded
	TurnSeconds  float64         `json:"turn_seconds,omitempty"`        // learned time that a job keeps its slot, loading included
	FrameRanges  bool            `json:"frame_ranges,omitempty"`        // its renderer can make some frames of a set, as the last that got ready said
	Rooms        int             `json:"rooms,omitempty"`               // jobs that made room for a session
	RoomSeconds  float64         `json:"room_seconds,omitempty"`        // learned time from being asked to having left
	Expectations Calibration     `json:"expectations,omitzero"`         // how right they were
	Arrivals     int64           `json:"arrivals,omitempty"`            // sessions and jobs that ever asked
	FirstFrame   float64         `json:"first_frame_seconds,omitempty"` // mean time to first frame of late, in seconds
	Failures     int             `json:"failures"`                      // starts that failed in a row
	BackoffUntil *time.Time      `json:"backoff_until,omitempty"`
	LastFailure  string          `json:"last_failure,omitempty"`
	Unmet        []Unmet         `json:"unmet,omitempty"` // bookings refused for want of a slot, oldest first
	LastScaling  *Scaling        `json:"last_scaling,omitempty"`
	Load         *scaling.Load   `json:"load,omitempty"` // what is learned of the demand; nil: nothing yet. Most events share it

	Advice []scaling.Advice `json:"advice,omitempty"` // what other services answered last
	Shadow *Shadow          `json:"shadow,omitempty"`

	policy *chosen // what the settings choose, made when it is first needed
}

// chosen is what the settings say of scaling, read once.
type chosen struct {
	scaling.Policy
	shadow     scaling.Policy // nil: there is none
	limits     scaling.Change
	goal       *scaling.Goal // of queue-time, if that may decide
	spans      scaling.Spans // with the start left out
	head, tail float64       // of what patterns of use say
}

func (p *Pool) chosen() *chosen {
	if p.policy == nil {
		set := p.Settings.Scaling
		learns := set.Learning()
		p.policy = &chosen{
			Policy: scaling.New(set.ScalingPolicy),
			limits: scaling.Change{UpPerMinute: set.Count("up_per_minute"), DownPerMinute: set.Count("down_per_minute")},
			spans:  scaling.Spans{Window: learns.Duration("window"), Risk: learns.Number("risk")},
			head:   learns.Number("head"), tail: learns.Number("tail"),
		}
		if set.Shadow != nil {
			p.policy.shadow = scaling.New(*set.Shadow)
		}
		if learns.Policy == domain.ScalingQueueTime {
			p.policy.spans.Risk, p.policy.spans.Goal = 1-learns.Number("share"), learns.Duration("goal")
		}
		p.policy.goal = scaling.QueueTime(p.policy.Policy)
	}
	return p.policy
}

// demand is what is learned of the demand.
func (p *Pool) demand() scaling.Load {
	if p.Load == nil {
		return scaling.Load{}
	}
	return *p.Load
}

// learn puts what is learned in place of what was known.
func (p *Pool) learn(l scaling.Load) { *p.learned() = l }

// learned is what is learned of the demand, to be changed: it belongs to this copy of the pool alone.
func (p *Pool) learned() *scaling.Load {
	if p.Load == nil {
		p.Load = new(scaling.Load)
	}
	return p.Load
}

// copy copies the pool deep enough to be changed.
func (p *Pool) copy() Pool {
	c := *p
	if p.Load != nil {
		load := *p.Load
		c.Load = &load
	}
	return c
}

// spans are the lengths that learning of the demand depends on.
func (p *Pool) spans() scaling.Spans {
	s := p.chosen().spans
	s.Start = seconds(p.expectStart())
	return s
}

// scaler is the policy of scaling that the settings choose.
func (p *Pool) scaler() scaling.Policy { return p.chosen().Policy }

// change is how fast the pool may change, and what it did in the minute under way.
func (p *Pool) change(at time.Time) scaling.Change {
	c := p.chosen().limits
	if l := p.LastScaling; l != nil && at.Sub(l.MinuteFrom) < time.Minute {
		c.Started, c.Stopped = l.Started, l.Stopped
	}
	return c
}

// Unmet is a booking that was refused for want of a slot. It counts as demand
// until its client comes again, or should have.
type Unmet struct {
	Model domain.ModelKey `json:"model"`
	Until time.Time       `json:"until"`
}

// Scaling is the last change of a pool's size.
type Scaling struct {
	Position int64     `json:"position"`
	At       time.Time `json:"at"`
	From     int       `json:"from"`
	To       int       `json:"to"`
	Reason   string    `json:"reason"`

	// How many were started and stopped in the minute that began with the first change after the last such minute.
	MinuteFrom time.Time `json:"minute_from,omitzero"`
	Started    int       `json:"started,omitempty"`
	Stopped    int       `json:"stopped,omitempty"`
}

// next is the record of a change of size that follows this one, which may be nil.
func (l *Scaling) next(r Recorded, e PoolScaled) *Scaling {
	n := &Scaling{Position: r.Position, At: r.At, From: e.From, To: e.To, Reason: e.Decision.Reason, MinuteFrom: r.At}
	if l != nil && r.At.Sub(l.MinuteFrom) < time.Minute {
		n.MinuteFrom, n.Started, n.Stopped = l.MinuteFrom, l.Started, l.Stopped
	}
	n.Stopped += len(e.Stop)
	n.Started += max(0, e.To-e.From+len(e.Stop))
	return n
}

// Service is what concerns all pools.
type Service struct {
	origin
	Version int64  `json:"version"`
	Open    bool   `json:"open"` // whether new sessions are admitted
	Reason  string `json:"reason,omitempty"`
}

// What is expected of a start and of a load before the first was seen, in
// seconds. They only order the first choices; learning replaces them at once.
const (
	startSecondsUnseen = 10
	loadSecondsUnseen  = 20
	holdSecondsUnseen  = 300
	jobSecondsUnseen   = 10
)

func orUnseen(v float64, n int, unseen float64) float64 {
	if n == 0 {
		return unseen
	}
	return v
}

// expectStart is the expected time from request to ready, in seconds.
func (p *Pool) expectStart() float64 { return orUnseen(p.StartSeconds, p.Starts, startSecondsUnseen) }
func (p *Pool) expectHold() float64  { return orUnseen(p.HoldSeconds, p.Holds, holdSecondsUnseen) }
func (p *Pool) expectJob() float64   { return orUnseen(p.JobSeconds, p.Jobs, jobSecondsUnseen) }

// expectTurn is how long a job is expected to keep its slot, in seconds.
func (p *Pool) expectTurn() float64 {
	if p.Turns == 0 {
		return p.expectJob()
	}
	return p.TurnSeconds
}

// expectLoad is the expected load time of a model, in seconds: its own, drawn to
// the mean of the pool while it was loaded few times; of one that was never
// loaded that mean, and where nothing was, a prior.
func (p *Pool) expectLoad(m *Model) float64 {
	mean := orUnseen(p.LoadSeconds, p.Loads, loadSecondsUnseen)
	if m == nil {
		return mean
	}
	n := float64(m.Loads)
	return (n*m.LoadSeconds + loadPrior*mean) / (n + loadPrior)
}
