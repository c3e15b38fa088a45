package pool

import (
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Pool is all that is known of one renderer beyond its resources, sessions,
// jobs and models: its settings, what was learned, and how scaling stands.
type Pool struct {
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
	Failures     int             `json:"failures"` // starts that failed in a row
	BackoffUntil *time.Time      `json:"backoff_until,omitempty"`
	LastFailure  string          `json:"last_failure,omitempty"`
	Unmet        []Unmet         `json:"unmet,omitempty"` // bookings refused for want of a slot, oldest first
	LastScaling  *Scaling        `json:"last_scaling,omitempty"`
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
}

// Service is what concerns all pools.
type Service struct {
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

// expectLoad is the expected load time of a model, in seconds: its own if it
// was ever loaded, else the mean of all models, else a prior.
func (p *Pool) expectLoad(m *Model) float64 {
	if m != nil && m.Loads > 0 {
		return m.LoadSeconds
	}
	return orUnseen(p.LoadSeconds, p.Loads, loadSecondsUnseen)
}
