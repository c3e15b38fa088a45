package pool

import (
	"encoding/json"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// JobState is where a job is in its life.
type JobState string

// The life of a job: (waiting →) queued → assigned → running, then succeeded, failed or cancelled; a failed attempt goes back to queued.
const (
	JobStateWaiting   JobState = "waiting"  // for the jobs named in after
	JobStateQueued    JobState = "queued"   // for a slot, or for its next attempt
	JobStateAssigned  JobState = "assigned" // has its slot; the model may still be loading
	JobStateRunning   JobState = "running"
	JobStateSucceeded JobState = "succeeded"
	JobStateFailed    JobState = "failed"
	JobStateCancelled JobState = "cancelled"
)

// The kinds of job.
const (
	JobImage  = "image"
	JobFrames = "frames"
	JobVideo  = "video"
)

// Class says what a failed attempt means for the next one.
type Class string

// The classes of failure.
const (
	ClassPermanent   Class = "permanent"   // trying again cannot help: a spec that is wrong, a model that does not exist
	ClassTransient   Class = "transient"   // the resource was lost or did not answer: tried again, counted
	ClassTimeout     Class = "timeout"     // the attempt took too long: tried again, counted
	ClassInterrupted Class = "interrupted" // we took the resource away ourselves: tried again, not counted
)

// Result is where a job's output is and what it is; the bytes are no part of the state.
type Result struct {
	ContentType string `json:"content_type"`
	Bytes       int64  `json:"bytes"`
}

// Job is one piece of asynchronous work: an image, a set of frames, a video.
type Job struct {
	origin
	ID             domain.JobID      `json:"id"`
	Seq            int64             `json:"seq"`
	Renderer       domain.RendererID `json:"renderer"`
	Model          domain.ModelKey   `json:"model"`
	Kind           string            `json:"kind"`
	Spec           json.RawMessage   `json:"spec,omitempty"`
	Owner          domain.Owner      `json:"owner"`
	Priority       int               `json:"priority"` // higher goes first
	Deadline       *time.Time        `json:"deadline,omitempty"`
	After          []domain.JobID    `json:"after,omitempty"`
	Pending        []domain.JobID    `json:"pending,omitempty"` // those of After that have not succeeded yet
	MaxAttempts    int               `json:"max_attempts"`
	TimeoutSeconds float64           `json:"timeout_seconds"`
	Home           domain.ResourceID `json:"home,omitempty"`             // whose queue it stands in
	Number         int64             `json:"number,omitempty"`           // of its arrival in the pool
	Seconds        float64           `json:"expected_seconds,omitempty"` // that it works, as was expected when it came
	CallbackURL    string            `json:"callback_url,omitempty"`
	State          JobState          `json:"state"`
	StateSince     time.Time         `json:"state_since"`
	Code           string            `json:"code,omitempty"`
	Reason         string            `json:"reason,omitempty"`
	Attempts       int               `json:"attempts"` // begun, interrupted ones left out
	Resource       domain.ResourceID `json:"resource,omitempty"`
	Warm           bool              `json:"warm"`
	SubmittedAt    time.Time         `json:"submitted_at"`
	QueuedAt       *time.Time        `json:"queued_at,omitempty"`
	NotBefore      *time.Time        `json:"not_before,omitempty"`
	AssignedAt     *time.Time        `json:"assigned_at,omitempty"`
	StartedAt      *time.Time        `json:"started_at,omitempty"`
	EndedAt        *time.Time        `json:"ended_at,omitempty"`
	Result         *Result           `json:"result,omitempty"`
	Frames         int               `json:"frames,omitempty"`      // that the spec asks for, of a set of frames; 0: it does not say
	PartOf         domain.JobID      `json:"part_of,omitempty"`     // the set of frames of which it makes some
	Parts          []Part            `json:"parts,omitempty"`       // which it was cut into
	FirstFrame     int               `json:"first_frame,omitempty"` // of those that are left to make; 0: the spec's
	LastFrame      int               `json:"last_frame,omitempty"`  // 0: the spec's
	Pieces         []Piece           `json:"pieces,omitempty"`      // frames made before it was moved
	Moves          int               `json:"moves,omitempty"`       // how often it made room for a session
	Yielding       *time.Time        `json:"yielding,omitempty"`    // since when it is asked to make room
	Late           bool              `json:"late,omitempty"`        // it can no longer make its deadline, or did not
	Warning        string            `json:"warning,omitempty"`     // that it is expected to miss its deadline, or did
	Expected       *Expectation      `json:"expected,omitempty"`    // what was first said of its wait
	Decision       int64             `json:"decision,omitempty"`
	Ended          bool              `json:"ended"`
}

// Holding says that the job holds a slot.
func (j *Job) Holding() bool { return j.State == JobStateAssigned || j.State == JobStateRunning }

func (j *Job) enter(st JobState, at time.Time) { j.State, j.StateSince = st, at }

func (j *Job) end(st JobState, at time.Time, code, reason string) {
	j.enter(st, at)
	j.Code, j.Reason, j.Ended, j.EndedAt, j.Yielding = code, reason, true, &at, nil
}
