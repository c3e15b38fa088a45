// Package agent starts a renderer on its own machine, registers it with a
// service, and keeps it alive: it sends heartbeats, starts the renderer again when it
// dies, and ends it when it is told to, by a signal or by the service. It knows the
// service through its API only, and the renderer through the renderer protocol.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
	"github.com/rendering-resource-manager/rrm/adapters/renderer"
)

// Settings are all that an agent is told.
type Settings struct {
	API       client.ClientInterface // of the service, with an operator's token
	Renderer  string
	Host      string // where the service and this agent reach the renderer
	Port      int    // 0: one of Low to High, and if these are 0, any that is free
	Low, High int
	Slots     int // 0: the renderer's setting
	Labels    map[string]string
	Node      string        // empty: this machine's name
	Command   []string      // the program and its arguments, with placeholders
	Wait      time.Duration // how long the service may be away at first
	Drain     time.Duration // how long work may go on after a signal
	Log       *slog.Logger
	Output    io.Writer // of the renderer

	program string
	pause   time.Duration // the first between two tries; tests have less
}

// Bounds and defaults.
const (
	firstPause  = time.Second
	maxPause    = 30 * time.Second // between two starts of the renderer
	maxAway     = 10 * time.Second // between two tries to reach the service
	provenAfter = time.Minute      // a renderer that ran so long was no failed start
	maxFailures = 5                // starts in a row that fail before anything was registered
	startLimit  = 2 * time.Minute  // where the service does not say
)

type agent struct {
	Settings
	set        client.Renderer
	out        io.Writer
	registered bool // at least once
}

// Outcomes of one run of the renderer that are followed by another.
var (
	errEnded  = errors.New("the renderer ended")
	errCounts = errors.New("the service counts it as gone")
)

// Run works until ctx ends or the service tells it to stop; both are nil. It
// says on stdout what it registers. A *SettingError is a setting that cannot be
// meant, a *client.Error what the service refuses.
func Run(ctx context.Context, set Settings, stdout io.Writer) error {
	if err := set.check(); err != nil {
		return err
	}
	if set.Node == "" {
		set.Node = hostName()
	}
	if set.pause == 0 {
		set.pause = firstPause
	}
	a := &agent{Settings: set, out: stdout}
	defer renderer.CloseIdle()
	var err error
	if a.set, err = a.settings(ctx); err != nil {
		return over(ctx, err)
	}
	pause, failures := backoff{first: a.pause, most: maxPause}, 0
	for {
		begin := time.Now()
		err := a.once(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return over(ctx, err)
		case errors.Is(err, errCounts):
		case errors.Is(err, errEnded), errors.Is(err, errNotReady):
			if failures++; failures >= maxFailures && !a.registered {
				return fmt.Errorf("%d starts in a row failed: %w", failures, err)
			}
		default:
			return err
		}
		if time.Since(begin) > provenAfter {
			pause, failures = backoff{first: a.pause, most: maxPause}, 0
		}
		wait := pause.next()
		a.Log.Warn("the renderer will be started again", "reason", err, "seconds", wait.Seconds())
		if !sleep(ctx, nil, wait) {
			return nil
		}
	}
}

// over makes nothing of an error that is only the end of ctx.
func over(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// once starts the renderer and takes it through one registration. Nil: it was
// told to stop, and did. A renderer that counts as gone is started anew: it may
// hold models and jobs that the service knows nothing of any more.
func (a *agent) once(ctx context.Context) error {
	port, err := a.pickPort(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotReady, err)
	}
	p, err := start(a.program, a.command(a.Host, port), join(a.Host, port), a.Output)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotReady, err)
	}
	defer p.end(a.set.GracefulExit)
	a.Log.Info("the renderer was started", "address", p.address, "process", p.cmd.Process.Pid)
	if a.set.WaitUntilRunning {
		limit, err := time.ParseDuration(a.set.Probe.StartTimeout)
		if err != nil || limit <= 0 {
			limit = startLimit
		}
		if err := p.ready(ctx, limit); err != nil {
			return err
		}
	}
	r, err := a.register(ctx, p)
	if err != nil {
		return err
	}
	a.registered = true
	fmt.Fprintf(a.out, "rrm agent: registered as %s at %s\n", r.id, p.address)
	return a.keep(ctx, p, r)
}

// keep sends heartbeats until the renderer, the service or ctx ends it.
func (a *agent) keep(ctx context.Context, p *process, r *registration) error {
	wait, away := jitter(r.every), backoff{}
	for {
		if !sleep(ctx, p.ended, wait) {
			if ctx.Err() != nil {
				a.drain(ctx, p, r)
				a.leave(ctx, r)
				return ctx.Err()
			}
			a.Log.Warn("the renderer ended", "resource", r.id, "how", p.how())
			a.leave(ctx, r)
			return fmt.Errorf("%w: %s", errEnded, p.how())
		}
		h, err := a.beat(ctx, r, false)
		if no, is := refused(err); is {
			a.Log.Warn("the service does not know this resource any more", "resource", r.id, "error", no)
			return errCounts
		}
		if err != nil {
			if ctx.Err() == nil {
				away.first, away.most = r.every/4, r.every
				wait = away.next()
				a.Log.Warn("a heartbeat was not heard; trying again", "resource", r.id, "error", err)
			}
			continue
		}
		if away.n > 0 {
			a.Log.Info("the service hears the heartbeats again", "resource", r.id)
		}
		wait, away = jitter(r.every), backoff{}
		if a.told(r, h) {
			p.end(a.set.GracefulExit)
			a.leave(ctx, r)
			return nil
		}
	}
}

// told notes what a heartbeat was answered, and says whether the resource is to end.
func (a *agent) told(r *registration, h client.Heartbeat) bool {
	if h.State != r.state {
		a.Log.Info("the resource is "+string(h.State), "resource", r.id, "reason", h.Reason, "users", h.Users)
		r.state = h.State
	}
	return h.State == client.ResourceStateStopping || h.State == client.ResourceStateStopped
}

// drain lets the work of a resource end after a signal, as long as the settings allow.
func (a *agent) drain(ctx context.Context, p *process, r *registration) {
	if a.Drain <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.Drain)
	defer cancel()
	a.Log.Info("letting the work end", "resource", r.id, "at_most", a.Drain)
	for {
		h, err := a.beat(ctx, r, true)
		if _, is := refused(err); is || err == nil && a.told(r, h) {
			return
		}
		if !sleep(ctx, p.ended, min(r.every, time.Second)) {
			return
		}
	}
}

// backoff doubles the pause from try to try.
type backoff struct {
	first, most time.Duration
	n           int
}

func (b *backoff) next() time.Duration {
	d := b.first
	for range b.n {
		if d = 2 * d; d >= b.most {
			d = b.most
			break
		}
	}
	b.n++
	return jitter(d)
}

// jitter shortens a time by up to three tenths, so that many agents do not speak at once.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.7 + 0.3*rand.Float64()))
}

// sleep is false if ctx or the process (nil: none) ended meanwhile.
func sleep(ctx context.Context, ended <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-ended:
		return false
	case <-timer.C:
		return true
	}
}
