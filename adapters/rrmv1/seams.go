package rrmv1

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// Commands is all that changes anything; *commands.Handler is one. A "no" is a *domain.Refusal.
type Commands interface {
	// OpenSession makes a session that holds nothing; its lease counts from now on, in every state.
	OpenSession(ctx context.Context, c commands.Call, cmd pool.OpenSession) (pool.Session, error)
	// ScheduleSession books for an opened session. One that was booked for is a conflict
	// "session_scheduled", one that has ended a conflict "session_ended".
	ScheduleSession(ctx context.Context, c commands.Call, cmd pool.ScheduleSession) (commands.Booking, error)
	ReleaseSession(ctx context.Context, c commands.Call, cmd pool.ReleaseSession) (pool.Session, error)
	// RenewLease with a lease of 0 renews for as long as before; a session that has ended is a conflict.
	RenewLease(ctx context.Context, c commands.Call, id domain.SessionID, lease time.Duration) (time.Time, error)
	ConfigureRenderer(ctx context.Context, c commands.Call, cmd pool.ConfigureRenderer) (domain.Renderer, error)
	RemoveRenderer(ctx context.Context, c commands.Call, cmd pool.RemoveRenderer) error
	SetAdmission(ctx context.Context, c commands.Call, cmd pool.SetAdmission) (pool.Service, error)
}

// Views answers questions; *projections.Reader is one. What a command changed
// is seen by every call that begins after its answer. What does not exist is a not_found refusal.
type Views interface {
	Pools(ctx context.Context) ([]pool.Pool, error)
	Resource(ctx context.Context, id domain.ResourceID) (pool.Resource, error)
	Session(ctx context.Context, id domain.SessionID) (projections.SessionView, error)
	Sessions(ctx context.Context, f projections.SessionFilter, p projections.Page) ([]projections.SessionView, string, error)
}

// Tokens knows who may use the service; *projections.Tokens is one.
type Tokens interface {
	Lookup(ctx context.Context, secret string) (projections.Token, bool, error)
	// Any says whether a token was ever made.
	Any(ctx context.Context) (bool, error)
}

// Outputs tells what became of a resource outside.
type Outputs interface {
	// Output opens the last lines, at most tail, of "stdout" or "stderr" of a
	// resource; the caller closes it. not_found if nothing was kept.
	Output(ctx context.Context, resource pool.Resource, stream string, tail int) (io.ReadCloser, error)
	// Info is what the resource's launcher knows of it, as text for people: a
	// process ID, or what scontrol says of the Slurm job.
	Info(ctx context.Context, resource pool.Resource) (string, error)
}

// Frames takes pictures.
type Frames interface {
	// Frame is the session's picture of now, as JPEG. model is empty where only the
	// renderer knows what it shows. not_found: this renderer gives no pictures.
	Frame(ctx context.Context, address string, session domain.SessionID, model domain.ModelKey) ([]byte, error)
}

// Target is where a session's request goes, and what of its path is ours.
type Target struct {
	Address string // host:port of the session's resource
	Prefix  string // of the escaped path, without a slash at its end; what follows is the renderer's
	Session domain.SessionID
	Model   domain.ModelKey // empty where only the renderer knows what it shows
}

// Forwarder passes a request on to a renderer and to nothing else, until it is over or r's context ends.
type Forwarder interface {
	// Forward calls onActivity while bytes flow, not more than once a second; and
	// fail, at most once and before anything was written to w, when the request
	// cannot be passed on: with 502 or 504 when the renderer did not answer.
	Forward(w http.ResponseWriter, r *http.Request, to Target, onActivity func(), fail func(status int, code, reason string))
}
