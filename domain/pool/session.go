package pool

import (
	"encoding/json"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// SessionState is where a session is in its life.
type SessionState string

// The life of a session: queued → starting → loading → ready, then released, expired, lost or failed.
const (
	SessionStateOpened   SessionState = "opened"   // holds nothing yet; the predecessor's clients begin so
	SessionStateQueued   SessionState = "queued"   // waits for a slot
	SessionStateStarting SessionState = "starting" // waits for a slot on a resource that is starting
	SessionStateLoading  SessionState = "loading"  // has its slot; the model is being loaded
	SessionStateReady    SessionState = "ready"    // frames can be had
	SessionStateReleased SessionState = "released" // ended by its client
	SessionStateExpired  SessionState = "expired"  // its lease, its wait or its time ended
	SessionStateLost     SessionState = "lost"     // its resource went away
	SessionStateFailed   SessionState = "failed"   // its model could not be loaded
	SessionStateRejected SessionState = "rejected" // refused; only in the answer and the log, never in a view
)

// What happens to a session whose resource goes away.
const (
	OnLostEnd  = "end"
	OnLostMove = "move" // it goes back to the queue, in its old place
)

// Session is a client's interactive use of a resource.
type Session struct {
	origin
	ID           domain.SessionID  `json:"id"`
	Seq          int64             `json:"seq"`
	Renderer     domain.RendererID `json:"renderer"`
	Model        domain.ModelKey   `json:"model"`
	Owner        domain.Owner      `json:"owner"`
	Params       json.RawMessage   `json:"params,omitempty"`
	State        SessionState      `json:"state"`
	StateSince   time.Time         `json:"state_since"`
	Code         string            `json:"code,omitempty"`
	Reason       string            `json:"reason,omitempty"`
	RequestedAt  time.Time         `json:"requested_at"`
	WaitUntil    *time.Time        `json:"wait_until,omitempty"`
	LeaseSeconds float64           `json:"lease_seconds"`
	MaxSeconds   float64           `json:"max_duration_seconds,omitempty"`
	OnLost       string            `json:"on_lost"`
	Home         domain.ResourceID `json:"home,omitempty"`             // whose queue it stands in
	Number       int64             `json:"number,omitempty"`           // of its arrival in the pool
	Seconds      float64           `json:"expected_seconds,omitempty"` // that it keeps its slot, as was expected when it came
	Overrides    *domain.Overrides `json:"overrides,omitempty"`
	Throughout   bool              `json:"leased_throughout,omitempty"` // its lease counts from the opening on, in every state
	Resource     domain.ResourceID `json:"resource,omitempty"`
	Warm         bool              `json:"warm"` // the model was loaded when the slot was given
	AllocatedAt  *time.Time        `json:"allocated_at,omitempty"`
	ReadyAt      *time.Time        `json:"ready_at,omitempty"`
	EndedAt      *time.Time        `json:"ended_at,omitempty"`
	Moves        int               `json:"moves,omitempty"`
	Warning      string            `json:"warning,omitempty"`  // its resource is going: why
	GoesAt       *time.Time        `json:"goes_at,omitempty"`  // and when, if that is known
	Expected     *Expectation      `json:"expected,omitempty"` // what was first said of its wait
	Decision     int64             `json:"decision,omitempty"` // position of the event that decided last
	Ended        bool              `json:"ended"`
}

// Waiting says that the session has no slot yet and wants one.
func (s *Session) Waiting() bool {
	return s.State == SessionStateQueued || s.State == SessionStateStarting
}

// Holding says that the session holds a slot.
func (s *Session) Holding() bool {
	return s.State == SessionStateLoading || s.State == SessionStateReady
}

func (s *Session) enter(st SessionState, at time.Time) {
	s.State, s.StateSince = st, at
}

func (s *Session) end(st SessionState, at time.Time, code, reason string) {
	s.enter(st, at)
	s.Code, s.Reason, s.Ended, s.EndedAt = code, reason, true, &at
}
