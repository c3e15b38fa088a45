// Package process holds the process managers: loops that act outside (start,
// probe, load, render, stop) and report back with commands. Each compares what
// the live views wish for with what it finds, does one step, and can be
// stopped between any two of them: whatever is not reported is found again.
//
// Each manager has RunOnce, which begins whatever is due and returns; what
// takes long goes on in the background, one action for each resource or job,
// and Wait waits for it.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Reporter gives a command that may be repeated freely.
type Reporter interface {
	Report(ctx context.Context, actor domain.Actor, cmd pool.Command) error
}

// Views are what the managers read. Each call gives one instant.
type Views interface {
	// LiveResources are all resources that have not ended.
	LiveResources(ctx context.Context) ([]pool.Resource, error)
	// HeldJobs are all jobs that hold a slot.
	HeldJobs(ctx context.Context) ([]pool.Job, error)
	// GatheringJobs are all jobs whose parts are made and are to be put together.
	GatheringJobs(ctx context.Context) ([]pool.Job, error)
	// Settings of every renderer, removed ones too: their resources are still to be stopped.
	Settings(ctx context.Context) (map[domain.RendererID]domain.Renderer, error)
}

// Launcher starts and stops resources somewhere. See launchtest for all that it must do.
type Launcher interface {
	// Launch starts the resource, or finds that it runs already: repeating is safe.
	Launch(ctx context.Context, spec domain.LaunchSpec) (domain.Launched, error)
	// Observe looks at many in one go; what it could not look at is unknown, not gone.
	Observe(ctx context.Context, resources []domain.Launched) ([]domain.Observed, error)
	// List names all resources of this service that exist there, wanted or not.
	List(ctx context.Context) ([]domain.Launched, error)
	// Stop ends the resource and returns when it is gone. Repeating is safe.
	Stop(ctx context.Context, r domain.Launched, graceful bool) error
	// Output gives the end of what it wrote, at most limit bytes.
	Output(ctx context.Context, r domain.Launched, stream string, limit int64) ([]byte, error)
}

// Renderer is one renderer, spoken to by the renderer protocol.
type Renderer interface {
	Probe(ctx context.Context) (domain.Registry, error)
	LoadModel(ctx context.Context, m domain.ModelKey) (domain.ModelStatus, error)
	ModelStatus(ctx context.Context, m domain.ModelKey) (domain.ModelStatus, error)
	Models(ctx context.Context) ([]domain.ModelStatus, error)
	UnloadModel(ctx context.Context, m domain.ModelKey) error
	// SubmitJob gives the job; the same id again gives the state of the first.
	SubmitJob(ctx context.Context, id domain.JobID, kind string, m domain.ModelKey, spec json.RawMessage) (domain.JobStatus, error)
	JobStatus(ctx context.Context, id domain.JobID) (domain.JobStatus, error)
	// StopJob lets a set of frames end before its next frame; then its state is
	// stopped, and its result the frames until then. One that has ended stays as it is.
	StopJob(ctx context.Context, id domain.JobID) (domain.JobStatus, error)
	// JobResult streams; the body must be closed.
	JobResult(ctx context.Context, id domain.JobID) (body io.ReadCloser, contentType string, err error)
	CancelJob(ctx context.Context, id domain.JobID) error
}

// Outside is how the managers reach what is outside.
type Outside struct {
	Launchers map[string]Launcher           // by the name in the renderer's settings
	Renderer  func(address string) Renderer // a client of one renderer
	// Failure tells what a renderer answered in an error: its code and
	// whether it said so itself (else it could not be reached).
	Failure func(err error) (code, reason string, status int, answered bool)
}

// Notes are what launchers say of resources that are coming; observations, no events.
type Notes interface {
	// SetNote keeps the text, and when the resource is expected to start; zero if that is not known.
	SetNote(ctx context.Context, id domain.ResourceID, note string, expected time.Time) error
}

// Progress of what is under way; an observation, no event.
type Progress interface {
	SetProgress(ctx context.Context, kind, id string, value float64) error
}

const actorPrefix = "process:"

// group runs one action for each key at a time, in the background.
type group struct {
	mu      sync.Mutex
	running map[string]context.CancelFunc
	wg      sync.WaitGroup
	sem     chan struct{}
}

// atOnce bounds the actions of one manager that are under way together.
const atOnce = 256

func newGroup() *group {
	return &group{running: map[string]context.CancelFunc{}, sem: make(chan struct{}, atOnce)}
}

// do begins f unless the key is busy or too much is under way: the next round will try again.
func (g *group) do(ctx context.Context, key string, limit time.Duration, f func(context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, busy := g.running[key]; busy {
		return
	}
	select {
	case g.sem <- struct{}{}:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	g.running[key] = cancel
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		f(ctx)
		cancel()
		g.mu.Lock()
		delete(g.running, key)
		g.mu.Unlock()
		<-g.sem
	}()
}

// keep cancels the actions whose key is not wanted any more.
func (g *group) keep(wanted func(key string) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, cancel := range g.running {
		if !wanted(key) {
			cancel()
		}
	}
}

// Wait waits for all that was begun.
func (g *group) Wait() { g.wg.Wait() }

// Loop calls runOnce on every wake-up and at least every interval, never more
// often than every gap, until ctx ends. Errors are logged and the loop goes on.
func Loop(ctx context.Context, name string, log *slog.Logger, interval, gap time.Duration, wake <-chan struct{}, runOnce func(context.Context) error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		err := runOnce(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			log.Warn("a process manager fails; it tries again", "manager", name, "error", err)
		}
		if failing && err == nil {
			log.Info("a process manager works again", "manager", name)
		}
		failing = err != nil
		pause := time.NewTimer(gap)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		timer.Reset(interval)
	}
}

// report gives a command and logs what cannot be given: the next round finds the same again.
func report(ctx context.Context, r Reporter, log *slog.Logger, manager string, cmd pool.Command) {
	err := r.Report(ctx, domain.Actor(actorPrefix+manager), cmd)
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Warn("a report was not taken; it will be made again", "manager", manager, "command", cmd, "error", err)
	}
}

func launchedOf(r *pool.Resource) domain.Launched {
	return domain.Launched{Resource: r.ID, Handle: r.Handle, Address: r.Address, Node: r.Node}
}
