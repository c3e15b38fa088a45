package httpapi

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/projections"
)

// Commands is all that changes anything; *commands.Handler is one. A "no" is a
// *domain.Refusal. Commands that are repeated under the same Call.Key and by
// the same actor are answered as the first was.
type Commands interface {
	BookResource(ctx context.Context, c commands.Call, cmd pool.BookResource) (commands.Booking, error)
	ReleaseSession(ctx context.Context, c commands.Call, cmd pool.ReleaseSession) (pool.Session, error)
	// RenewLease gives the zero time for a session that has no lease yet, and a conflict for one that has ended.
	RenewLease(ctx context.Context, c commands.Call, id domain.SessionID, lease time.Duration) (time.Time, error)
	SubmitJob(ctx context.Context, c commands.Call, cmd pool.SubmitJob) (commands.JobAnswer, error)
	CancelJob(ctx context.Context, c commands.Call, cmd pool.CancelJob) (pool.Job, error)
	ConfigureRenderer(ctx context.Context, c commands.Call, cmd pool.ConfigureRenderer) (domain.Renderer, error)
	RemoveRenderer(ctx context.Context, c commands.Call, cmd pool.RemoveRenderer) error
	// PlanScaling changes nothing.
	PlanScaling(ctx context.Context, c commands.Call, cmd pool.PlanScaling) (pool.ScalingPlan, error)
	SetAdmission(ctx context.Context, c commands.Call, cmd pool.SetAdmission) (pool.Service, error)
	DrainResource(ctx context.Context, c commands.Call, cmd pool.DrainResource) (pool.Resource, error)
	StopResource(ctx context.Context, c commands.Call, cmd pool.StopResource) (pool.Resource, error)
	RegisterResource(ctx context.Context, c commands.Call, cmd pool.RegisterResource) (pool.Resource, error)
}

// Views answers questions; *projections.Reader is one. What a command changed
// is seen by every call that begins after its answer. What does not exist is a
// not_found refusal.
type Views interface {
	Pools(ctx context.Context) ([]pool.Pool, error)
	Pool(ctx context.Context, id domain.RendererID) (projections.PoolView, error)
	Resources(ctx context.Context, f projections.ResourceFilter, p projections.Page) ([]pool.Resource, string, error)
	Resource(ctx context.Context, id domain.ResourceID) (pool.Resource, error)
	Sessions(ctx context.Context, f projections.SessionFilter, p projections.Page) ([]projections.SessionView, string, error)
	Session(ctx context.Context, id domain.SessionID) (projections.SessionView, error)
	Jobs(ctx context.Context, f projections.JobFilter, p projections.Page) ([]projections.JobView, string, error)
	Job(ctx context.Context, id domain.JobID) (projections.JobView, error)
	Models(ctx context.Context, renderer domain.RendererID, p projections.Page) ([]projections.ModelView, string, error)
	Service(ctx context.Context) (pool.Service, error)
	// Events gives matching events after a position, in order; none: there is none up to the end of the log.
	Events(ctx context.Context, f projections.EventFilter) ([]eventstore.Event, error)
	Decision(ctx context.Context, position int64) (projections.DecisionView, error)
	Result(ctx context.Context, id domain.JobID) (projections.ResultInfo, io.ReadCloser, error)
}

// Log is the end of the log; *eventstore.Log is one.
type Log interface {
	Head(ctx context.Context) (position, epoch int64, err error)
	// Read gives the events after a position, in order, at most limit.
	Read(ctx context.Context, after int64, limit int) ([]eventstore.Event, error)
}

// Wake tells that there may be new events; *eventstore.Bus is one. Wake-ups
// may come for nothing and may be missed: the log is looked at each second anyway.
type Wake interface {
	Subscribe() (c <-chan struct{}, end func())
}

// Tokens knows who may use the service; *projections.Tokens is one.
type Tokens interface {
	Lookup(ctx context.Context, secret string) (projections.Token, bool, error)
	// Any says whether a token was ever made.
	Any(ctx context.Context) (bool, error)
}

// Heartbeats keeps resources that registered themselves alive; *projections.Heartbeats is one.
type Heartbeats interface {
	// Enrol counts as a first heartbeat, and makes the resource's token in place of any before it.
	Enrol(ctx context.Context, id domain.ResourceID) (secret string, err error)
	// Lookup finds the resource of a token.
	Lookup(ctx context.Context, secret string) (domain.ResourceID, bool, error)
	// Beat notes a heartbeat, and says whether the resource's launcher has asked it to stop.
	Beat(ctx context.Context, id domain.ResourceID) (stop bool, err error)
	// Leave notes that nobody needs to wait for the resource's heartbeats any more. Repeating is safe.
	Leave(ctx context.Context, id domain.ResourceID) error
}

// Outputs gives what renderers wrote.
type Outputs interface {
	// Output opens the last lines, at most tail, of "stdout" or "stderr" of a
	// resource; the caller closes it. not_found if nothing was kept.
	Output(ctx context.Context, resource pool.Resource, stream string, tail int) (io.ReadCloser, error)
}

// Target is where a session's request goes, and what of its path is ours.
type Target struct {
	Address string // host:port of the session's resource
	Prefix  string // of the escaped path, without a slash at its end; what follows is the renderer's
	Session domain.SessionID
	Model   domain.ModelKey
}

// Forwarder passes a request on to a renderer and to nothing else, streams and
// WebSockets too, until it is over or r's context ends.
type Forwarder interface {
	// Forward calls onActivity while bytes flow, not more than once a second,
	// from the goroutine that copies them; and fail, at most once and before
	// anything was written to w, when the request cannot be passed on.
	Forward(w http.ResponseWriter, r *http.Request, to Target, onActivity func(), fail func(status int, code, reason string))
}
