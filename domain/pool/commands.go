package pool

import (
	"encoding/json"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Command is an intent. It either leads to events or is refused; given twice
// it does nothing the second time.
type Command interface{ isCommand() }

// Given is a command with what it may not find out by itself: who, when, and
// an identifier from which others are derived.
type Given struct {
	ID      domain.CommandID
	Actor   domain.Actor
	At      time.Time
	Command Command
}

// Settings.
type (
	// ConfigureRenderer creates or replaces a renderer's settings. Resources
	// that run keep theirs; the next ones get the new.
	ConfigureRenderer struct {
		Renderer domain.Renderer
		Create   bool // refuse if it exists (the predecessor's POST)
	}
	// RemoveRenderer deletes a renderer that has no resources, sessions or jobs left.
	RemoveRenderer struct{ Renderer domain.RendererID }
	// SetAdmission opens or suspends the admission of new sessions.
	SetAdmission struct {
		Open   bool
		Reason string
	}
)

// Sessions.
type (
	// BookResource asks for a slot for interactive use.
	BookResource struct {
		Session  domain.SessionID
		Renderer domain.RendererID
		Model    domain.ModelKey
		Owner    domain.Owner
		Params   json.RawMessage
		Wait     time.Duration // how long to stay in the queue; 0: refuse at once when no slot is free
		Lease    time.Duration
		MaxTime  time.Duration // 0: no bound but the lease
		OnLost   string
	}
	// OpenSession makes a session that holds nothing yet; ScheduleSession books for it.
	// Its lease counts from now on, in every state.
	OpenSession struct {
		Session  domain.SessionID
		Renderer domain.RendererID
		Owner    domain.Owner
		Lease    time.Duration
	}
	// ScheduleSession books for an opened session. It waits in the queue; it is never refused for want of a slot.
	ScheduleSession struct {
		Session   domain.SessionID
		Model     domain.ModelKey
		Wait      time.Duration // 0: as long as its lease is renewed
		Overrides *domain.Overrides
	}
	// ReleaseSession ends a session; one that has ended stays as it was.
	ReleaseSession struct {
		Session domain.SessionID
		Reason  string
	}
	// ExpireSession ends a session whose lease was claimed as ended.
	ExpireSession struct{ Session domain.SessionID }
)

// Jobs.
type (
	// SubmitJob puts work into the queue.
	SubmitJob struct {
		Job         domain.JobID
		Renderer    domain.RendererID
		Model       domain.ModelKey
		Kind        string
		Spec        json.RawMessage
		Owner       domain.Owner
		Priority    int
		Deadline    *time.Time
		After       []domain.JobID
		MaxAttempts int           // 0: the renderer's setting
		Timeout     time.Duration // 0: the renderer's setting
		CallbackURL string
	}
	// CancelJob ends a job that has not ended; one that was cancelled stays so, one that succeeded or failed is a conflict.
	CancelJob struct {
		Job    domain.JobID
		Reason string
	}
	// ReportJobStarted says that the renderer has taken the job.
	ReportJobStarted struct {
		Job      domain.JobID
		Resource domain.ResourceID
	}
	// ReportJobSucceeded says that the result has been stored.
	ReportJobSucceeded struct {
		Job      domain.JobID
		Resource domain.ResourceID
		Result   Result
	}
	// ReportJobMoved says that a job which was asked to make room has ended its frame, and how many
	// frames of this attempt are kept, as the result PieceID(Job, first).
	ReportJobMoved struct {
		Job      domain.JobID
		Resource domain.ResourceID
		Frames   int
	}
	// ReportJobGathered says that the parts of a job were put together and the result is stored; with a code, why they cannot be.
	ReportJobGathered struct {
		Job    domain.JobID
		Result Result
		Code   string
		Reason string
	}
	// ReportJobFailed says how an attempt failed.
	ReportJobFailed struct {
		Job      domain.JobID
		Resource domain.ResourceID
		Class    Class
		Code     string
		Reason   string
	}
)

// Resources and models.
type (
	// DrainResource lets a resource's work end and stops it then.
	DrainResource struct {
		Resource domain.ResourceID
		Reason   string
		Until    *time.Time // when it goes whatever still uses it, if that is known; its sessions are warned
	}
	// ReportAddress says that a resource is reached at another address than before, such as through a new tunnel.
	ReportAddress struct {
		Resource domain.ResourceID
		Address  string
		Node     string // empty: as was known before
	}
	// StopResource stops a resource now; what uses it moves or is lost.
	StopResource struct {
		Resource domain.ResourceID
		Reason   string
	}
	// RegisterResource takes in a resource that someone else started.
	RegisterResource struct {
		Resource domain.ResourceID // empty: made
		Renderer domain.RendererID
		Address  string // host:port
		Node     string
		Slots    int // 0: the renderer's setting
		Labels   map[string]string
	}
	// ReportStarting says that the launcher has started the resource.
	ReportStarting struct{ Launched domain.Launched }
	// ReportReady says that the renderer answered its probe.
	ReportReady struct {
		Resource     domain.ResourceID
		Address      string
		Node         string // where a scheduler placed it; empty: as was known before
		Capabilities []string
		JobKinds     []string
	}
	// ReportFailed says that a resource could not be launched, did not get ready, or hangs.
	ReportFailed struct {
		Resource domain.ResourceID
		Code     string
		Reason   string
		Output   string
	}
	// ReportLost says that a resource has gone by itself.
	ReportLost struct {
		Resource domain.ResourceID
		Reason   string
		Output   string
	}
	// ReportStopped says that a resource that was to stop has ended.
	ReportStopped struct{ Resource domain.ResourceID }
	// ReportModelLoaded says that a renderer has the model, and what it cost.
	ReportModelLoaded struct {
		Resource  domain.ResourceID
		Model     domain.ModelKey
		Seconds   float64
		MemoryMiB int
	}
	// ReportModelFailed says that a renderer could not load the model.
	ReportModelFailed struct {
		Resource domain.ResourceID
		Model    domain.ModelKey
		Code     string
		Reason   string
	}
	// ReportAdvice says what another service answered when it was asked for a pool's size, or that it did not.
	ReportAdvice struct {
		Renderer domain.RendererID
		URL      string
		Size     int
		Reason   string
		Problem  string // empty: it answered
	}
	// PlanScaling asks what other limits or another policy would do now. It changes nothing.
	PlanScaling struct {
		Renderer domain.RendererID
		Scaling  domain.ScalingSettings
	}
	// Tick lets time pass: waits and durations end, idle resources go, backed off pools try again.
	Tick struct{}
)

func (ConfigureRenderer) isCommand()  {}
func (RemoveRenderer) isCommand()     {}
func (SetAdmission) isCommand()       {}
func (BookResource) isCommand()       {}
func (OpenSession) isCommand()        {}
func (ScheduleSession) isCommand()    {}
func (RegisterResource) isCommand()   {}
func (ReleaseSession) isCommand()     {}
func (ExpireSession) isCommand()      {}
func (SubmitJob) isCommand()          {}
func (CancelJob) isCommand()          {}
func (ReportJobStarted) isCommand()   {}
func (ReportJobSucceeded) isCommand() {}
func (ReportJobFailed) isCommand()    {}
func (ReportJobMoved) isCommand()     {}
func (ReportJobGathered) isCommand()  {}
func (ReportAddress) isCommand()      {}
func (DrainResource) isCommand()      {}
func (StopResource) isCommand()       {}
func (ReportStarting) isCommand()     {}
func (ReportReady) isCommand()        {}
func (ReportFailed) isCommand()       {}
func (ReportLost) isCommand()         {}
func (ReportStopped) isCommand()      {}
func (ReportModelLoaded) isCommand()  {}
func (ReportModelFailed) isCommand()  {}
func (ReportAdvice) isCommand()       {}
func (PlanScaling) isCommand()        {}
func (Tick) isCommand()               {}
