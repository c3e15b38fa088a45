package pool

import (
	"encoding/json"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// Event is a fact. Its type is chosen by hand and never derived from a Go
// name: the log outlives the code. Subjects are what it is about, as
// "session:ID", "job:ID", "resource:ID", "model:RENDERER/KEY", "owner:NAME".
type Event interface{ Type() string }

// Recorded is an event in its place in the log.
type Recorded struct {
	Position int64
	Stream   domain.Stream
	Version  int64
	At       time.Time // when it was decided
	Event    Event
}

// when is a copy of the time, to be kept: a pointer to the field would keep the
// whole record, and cost every record that is folded in an allocation.
func (r *Recorded) when() *time.Time {
	at := r.At
	return &at
}

// Decision is why: the inputs that mattered, the few best candidates, and how
// many others were left out for which reason. It stays well under a kibibyte.
type Decision struct {
	Policy     string                `json:"policy"`
	Version    int                   `json:"version"`
	Outcome    string                `json:"outcome"` // allocated, queued, rejected, assigned, evicted, scaled
	Reason     string                `json:"reason"`
	Candidates []placement.Candidate `json:"candidates,omitempty"`
	Considered int                   `json:"considered"`
	Filtered   map[string]int        `json:"filtered,omitempty"`
	Costs      map[string]float64    `json:"costs,omitempty"` // seconds, learned
	Inputs     any                   `json:"inputs,omitempty"`
}

// Settings and admission.
type (
	RendererConfigured struct {
		Renderer domain.Renderer `json:"renderer"`
	}
	RendererRemoved  struct{}
	AdmissionChanged struct {
		Open   bool   `json:"open"`
		Reason string `json:"reason,omitempty"`
	}
)

// Resources.
type (
	ResourceRequested struct {
		Resource  domain.ResourceID `json:"resource"`
		Launcher  string            `json:"launcher"`
		Slots     int               `json:"slots"`
		MaxModels int               `json:"models_per_resource"`
		MemoryMiB int               `json:"memory_mib"`
		Model     domain.ModelKey   `json:"model,omitempty"`
		Overrides *domain.Overrides `json:"overrides,omitempty"`
		Labels    map[string]string `json:"labels,omitempty"`
		Reason    string            `json:"reason"`
	}
	ResourceStarting struct {
		Resource domain.ResourceID `json:"resource"`
		Handle   domain.Handle     `json:"handle,omitempty"`
		Address  string            `json:"address,omitempty"`
		Node     string            `json:"node,omitempty"`
	}
	ResourceReady struct {
		Resource     domain.ResourceID `json:"resource"`
		Address      string            `json:"address"`
		Node         string            `json:"node,omitempty"` // where a scheduler placed it; empty: as was known before
		Capabilities []string          `json:"capabilities,omitempty"`
		JobKinds     []string          `json:"job_kinds,omitempty"`
		Seconds      float64           `json:"seconds"` // from the request
	}
	ResourceReaddressed struct {
		Resource domain.ResourceID `json:"resource"`
		Address  string            `json:"address"`        // where it is reached from now on; it is the same process
		Node     string            `json:"node,omitempty"` // empty: as was known before
	}
	ResourceDraining struct {
		Resource domain.ResourceID `json:"resource"`
		Reason   string            `json:"reason"`
	}
	ResourceStopping struct {
		Resource domain.ResourceID `json:"resource"`
		Reason   string            `json:"reason"`
	}
	ResourceStopped struct {
		Resource domain.ResourceID `json:"resource"`
		Reason   string            `json:"reason,omitempty"`
	}
	ResourceFailed struct {
		Resource domain.ResourceID `json:"resource"`
		Code     string            `json:"code"` // launch_failed, exited, start_timeout, hung
		Reason   string            `json:"reason"`
		Output   string            `json:"output,omitempty"`
	}
	ResourceLost struct {
		Resource domain.ResourceID `json:"resource"`
		Reason   string            `json:"reason"`
	}
)

// Models on resources.
type (
	ModelLoading struct {
		Resource domain.ResourceID `json:"resource"`
		Model    domain.ModelKey   `json:"model"`
		Seconds  float64           `json:"expected_seconds"`
	}
	ModelLoaded struct {
		Resource  domain.ResourceID `json:"resource"`
		Model     domain.ModelKey   `json:"model"`
		Seconds   float64           `json:"seconds"` // that the load took; 0 where nothing was loaded
		MemoryMiB int               `json:"memory_mib,omitempty"`
	}
	ModelFailed struct {
		Resource domain.ResourceID `json:"resource"`
		Model    domain.ModelKey   `json:"model"`
		Code     string            `json:"code"`
		Reason   string            `json:"reason"`
	}
	ModelEvicted struct {
		Resource domain.ResourceID `json:"resource"`
		Model    domain.ModelKey   `json:"model"`
		For      domain.ModelKey   `json:"for"`
		Decision Decision          `json:"decision"`
	}
)

// Sessions.
type (
	SessionOpened struct {
		Session      domain.SessionID `json:"session"`
		Owner        domain.Owner     `json:"owner"`
		LeaseSeconds float64          `json:"lease_seconds"`
	}
	SessionRequested struct {
		Home         domain.ResourceID `json:"home,omitempty"` // whose queue it stands in, with policies that decide that on arrival
		Session      domain.SessionID  `json:"session"`
		Model        domain.ModelKey   `json:"model"`
		Owner        domain.Owner      `json:"owner"`
		Params       json.RawMessage   `json:"params,omitempty"`
		WaitSeconds  float64           `json:"wait_seconds,omitempty"`
		LeaseSeconds float64           `json:"lease_seconds"`
		MaxSeconds   float64           `json:"max_duration_seconds,omitempty"`
		OnLost       string            `json:"on_lost"`

		Overrides *domain.Overrides `json:"overrides,omitempty"`
	}
	SessionQueued struct {
		Session         domain.SessionID `json:"session"`
		Place           int              `json:"place"`
		EstimateSeconds float64          `json:"estimate_seconds"`
		LowSeconds      float64          `json:"low_seconds,omitempty"`
		HighSeconds     float64          `json:"high_seconds,omitempty"`
		RawSeconds      float64          `json:"raw_seconds,omitempty"` // as reckoned, before what was learned of such reckonings
		Basis           string           `json:"basis,omitempty"`       // start or turn
		Decision        Decision         `json:"decision"`
	}
	SessionStarting struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource"` // which is starting; another may serve first
	}
	SessionAllocated struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource"`
		Model    domain.ModelKey   `json:"model"`
		Owner    domain.Owner      `json:"owner"`
		Warm     bool              `json:"warm"` // the model is loaded: the session is ready at once
		Waited   float64           `json:"waited_seconds"`
		Saved    float64           `json:"saved_seconds"` // expected seconds of loading avoided
		Decision Decision          `json:"decision"`
	}
	SessionReady struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource"`
		Seconds  float64           `json:"seconds"` // from the request
	}
	SessionRejected struct {
		Session           domain.SessionID `json:"session"`
		Model             domain.ModelKey  `json:"model"`
		Owner             domain.Owner     `json:"owner"`
		Code              string           `json:"code"`
		Reason            string           `json:"reason"`
		RetryAfterSeconds float64          `json:"retry_after_seconds"`
		Queue             int              `json:"queue"`
		Decision          Decision         `json:"decision"`
	}
	SessionWarned struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource"`
		Reason   string            `json:"reason"`
		Until    *time.Time        `json:"until,omitempty"` // when the resource goes, if that is known
	}
	SessionReleased struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource,omitempty"`
		Reason   string            `json:"reason,omitempty"`
	}
	SessionExpired struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource,omitempty"`
		Code     string            `json:"code"` // lease_ended, wait_ended, max_duration
		Reason   string            `json:"reason"`
	}
	SessionLost struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource"`
		Reason   string            `json:"reason"`
	}
	SessionMoved struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource"` // the one it had
		Reason   string            `json:"reason"`
	}
	SessionFailed struct {
		Session  domain.SessionID  `json:"session"`
		Resource domain.ResourceID `json:"resource"`
		Code     string            `json:"code"`
		Reason   string            `json:"reason"`
	}
)

// Jobs.
type (
	JobSubmitted struct {
		Job            domain.JobID    `json:"job"`
		Model          domain.ModelKey `json:"model"`
		Kind           string          `json:"kind"`
		Spec           json.RawMessage `json:"spec,omitempty"`
		Owner          domain.Owner    `json:"owner"`
		Priority       int             `json:"priority"`
		Deadline       *time.Time      `json:"deadline,omitempty"`
		After          []domain.JobID  `json:"after,omitempty"`
		MaxAttempts    int             `json:"max_attempts"`
		TimeoutSeconds float64         `json:"timeout_seconds"`
		CallbackURL    string          `json:"callback_url,omitempty"`
		Pending        []domain.JobID  `json:"pending,omitempty"` // those of After that have not succeeded yet
		Warning        string          `json:"warning,omitempty"` // that it is expected to miss its deadline
		Frames         int             `json:"frames,omitempty"`  // that the spec asks for
		PartOf         domain.JobID    `json:"part_of,omitempty"` // whose spec it has, for some frames
		First          int             `json:"first,omitempty"`
		Last           int             `json:"last,omitempty"`
	}
	JobRejected struct { // it leaves nothing but this record
		Job               domain.JobID    `json:"job"`
		Model             domain.ModelKey `json:"model"`
		Owner             domain.Owner    `json:"owner"`
		Code              string          `json:"code"`
		Reason            string          `json:"reason"`
		RetryAfterSeconds float64         `json:"retry_after_seconds"`
		Queue             int             `json:"queue"`
		Decision          Decision        `json:"decision"`
	}
	JobUnblocked struct {
		Job domain.JobID `json:"job"`
		By  domain.JobID `json:"by"` // succeeded
	}
	JobSpread struct { // each part is submitted next
		Job      domain.JobID `json:"job"`
		Parts    []Part       `json:"parts"`
		Decision Decision     `json:"decision"`
	}
	JobQueued struct { // what it has to expect is left out where a slot is free
		Job             domain.JobID      `json:"job"`
		Home            domain.ResourceID `json:"home,omitempty"`  // whose queue it stands in, with policies that decide that on arrival
		Place           int               `json:"place,omitempty"` // 1 is next
		EstimateSeconds float64           `json:"estimate_seconds,omitempty"`
		LowSeconds      float64           `json:"low_seconds,omitempty"`
		HighSeconds     float64           `json:"high_seconds,omitempty"`
		RawSeconds      float64           `json:"raw_seconds,omitempty"` // as reckoned, before what was learned of such reckonings
		Basis           string            `json:"basis,omitempty"`       // start or turn
		Warning         string            `json:"warning,omitempty"`     // that it is expected to miss its deadline
	}
	JobLate struct {
		Job    domain.JobID `json:"job"`
		Reason string       `json:"reason"` // why it can no longer make its deadline
	}
	JobAssigned struct {
		Job      domain.JobID      `json:"job"`
		Resource domain.ResourceID `json:"resource"`
		Model    domain.ModelKey   `json:"model"`
		Owner    domain.Owner      `json:"owner"`
		Warm     bool              `json:"warm"`
		Attempt  int               `json:"attempt"`
		Waited   float64           `json:"waited_seconds"`
		Saved    float64           `json:"saved_seconds"`
		Decision Decision          `json:"decision"`
	}
	JobStarted struct {
		Job      domain.JobID      `json:"job"`
		Resource domain.ResourceID `json:"resource"`
	}
	JobSucceeded struct {
		Job         domain.JobID      `json:"job"`
		Resource    domain.ResourceID `json:"resource"`
		ContentType string            `json:"content_type"`
		Bytes       int64             `json:"bytes"`
		Seconds     float64           `json:"seconds"` // from started to succeeded
	}
	JobRetried struct {
		Job       domain.JobID      `json:"job"`
		Resource  domain.ResourceID `json:"resource,omitempty"`
		Class     Class             `json:"class"`
		Code      string            `json:"code"`
		Reason    string            `json:"reason"`
		NotBefore time.Time         `json:"not_before"`
	}
	JobYielding struct {
		Job      domain.JobID      `json:"job"`
		Resource domain.ResourceID `json:"resource"`
		For      domain.SessionID  `json:"session"` // that waits
		Decision Decision          `json:"decision"`
	}
	JobMoved struct {
		Job      domain.JobID      `json:"job"`
		Resource domain.ResourceID `json:"resource"` // the one it had
		First    int               `json:"first"`    // frame of this attempt
		Frames   int               `json:"frames"`   // made in it and kept
		Seconds  float64           `json:"seconds"`  // from being asked to having left
		Reason   string            `json:"reason"`
	}
	JobFailed struct {
		Job      domain.JobID      `json:"job"`
		Resource domain.ResourceID `json:"resource,omitempty"`
		Class    Class             `json:"class"`
		Code     string            `json:"code"`
		Reason   string            `json:"reason"`
	}
	JobCancelled struct {
		Job      domain.JobID      `json:"job"`
		Resource domain.ResourceID `json:"resource,omitempty"`
		Reason   string            `json:"reason,omitempty"`
	}
)

// Pools.
type (
	PoolScaled struct {
		From     int                 `json:"from"`
		To       int                 `json:"to"`
		Stop     []domain.ResourceID `json:"stop,omitempty"`
		Decision Decision            `json:"decision"`
	}
	PoolBackedOff struct {
		Failures int       `json:"failures"`
		Until    time.Time `json:"until"`
		Reason   string    `json:"reason"`
	}
	// PoolAdvised is what another service answered when it was asked for a size, where that is new.
	PoolAdvised struct {
		URL     string `json:"url"`
		Size    int    `json:"size"`
		Reason  string `json:"reason,omitempty"`
		Problem string `json:"problem,omitempty"` // it did not answer
	}
	// PoolShadowed says that the policy in the shadow would have another size than before. Nothing is done about it.
	PoolShadowed struct {
		Size     int      `json:"size"` // that it would have
		Live     int      `json:"live"` // that there are, coming or ready
		Decision Decision `json:"decision"`
	}
)

func (RendererConfigured) Type() string  { return "renderer.configured" }
func (RendererRemoved) Type() string     { return "renderer.removed" }
func (AdmissionChanged) Type() string    { return "admission.changed" }
func (ResourceRequested) Type() string   { return "resource.requested" }
func (ResourceStarting) Type() string    { return "resource.starting" }
func (ResourceReady) Type() string       { return "resource.ready" }
func (ResourceReaddressed) Type() string { return "resource.readdressed" }
func (ResourceDraining) Type() string    { return "resource.draining" }
func (ResourceStopping) Type() string    { return "resource.stopping" }
func (ResourceStopped) Type() string     { return "resource.stopped" }
func (ResourceFailed) Type() string      { return "resource.failed" }
func (ResourceLost) Type() string        { return "resource.lost" }
func (ModelLoading) Type() string        { return "model.loading" }
func (ModelLoaded) Type() string         { return "model.loaded" }
func (ModelFailed) Type() string         { return "model.failed" }
func (ModelEvicted) Type() string        { return "model.evicted" }
func (SessionOpened) Type() string       { return "session.opened" }
func (SessionRequested) Type() string    { return "session.requested" }
func (SessionQueued) Type() string       { return "session.queued" }
func (SessionStarting) Type() string     { return "session.starting" }
func (SessionAllocated) Type() string    { return "session.allocated" }
func (SessionReady) Type() string        { return "session.ready" }
func (SessionRejected) Type() string     { return "session.rejected" }
func (SessionWarned) Type() string       { return "session.warned" }
func (SessionReleased) Type() string     { return "session.released" }
func (SessionExpired) Type() string      { return "session.expired" }
func (SessionLost) Type() string         { return "session.lost" }
func (SessionMoved) Type() string        { return "session.moved" }
func (SessionFailed) Type() string       { return "session.failed" }
func (JobSubmitted) Type() string        { return "job.submitted" }
func (JobRejected) Type() string         { return "job.rejected" }
func (JobUnblocked) Type() string        { return "job.unblocked" }
func (JobSpread) Type() string           { return "job.spread" }
func (JobQueued) Type() string           { return "job.queued" }
func (JobLate) Type() string             { return "job.late" }
func (JobAssigned) Type() string         { return "job.assigned" }
func (JobStarted) Type() string          { return "job.started" }
func (JobSucceeded) Type() string        { return "job.succeeded" }
func (JobRetried) Type() string          { return "job.retried" }
func (JobYielding) Type() string         { return "job.yielding" }
func (JobMoved) Type() string            { return "job.moved" }
func (JobFailed) Type() string           { return "job.failed" }
func (JobCancelled) Type() string        { return "job.cancelled" }
func (PoolScaled) Type() string          { return "pool.scaled" }
func (PoolAdvised) Type() string         { return "pool.advised" }
func (PoolShadowed) Type() string        { return "pool.shadowed" }
func (PoolBackedOff) Type() string       { return "pool.backed_off" }
