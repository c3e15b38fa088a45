// Package static is the launcher of resources that come by themselves: someone
// else starts and stops them, registers them and sends their heartbeats. So it
// launches nothing; it says who was not heard of any more, and tells by way of the
// heartbeats' answers who is to stop. It also knows which addresses may register (Addresses).
//
// It may know the domain and the network. Heartbeats are kept elsewhere.
package static

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Missed is how many heartbeats in a row may be missed before a resource is lost.
const Missed = 3

// Bounds and defaults.
const (
	DefaultEvery = 5 * time.Second
	stopWait     = 25 * time.Second // less than the caller gives a stop, so that the reason is ours
)

// Heartbeats is what is known of who was last heard of when.
type Heartbeats interface {
	// Ages says, in one query and by one clock, how long ago each was last heard of.
	// One that never was, or that was deregistered by who runs it, is not among them.
	Ages(ctx context.Context, ids []domain.ResourceID) (map[domain.ResourceID]time.Duration, error)
	// AskToStop has the answers to later heartbeats say that the resource is to stop. Repeating is safe.
	AskToStop(ctx context.Context, id domain.ResourceID) error
}

// Launcher watches registered resources. It is safe for use from many goroutines.
type Launcher struct {
	heartbeats Heartbeats
	every      time.Duration
	now        func() time.Time // with a monotonic clock
	stopWait   time.Duration

	mu       sync.Mutex
	silences map[domain.ResourceID]time.Duration // for how long each could have been heard and was not
	looked   time.Time
}

// New makes the launcher. A heartbeat is expected every so often; 0: DefaultEvery.
func New(h Heartbeats, every time.Duration) *Launcher {
	if every <= 0 {
		every = DefaultEvery
	}
	return &Launcher{heartbeats: h, every: every, now: time.Now, stopWait: stopWait}
}

// patience is after how long of silence a resource is lost.
func (l *Launcher) patience() time.Duration { return Missed * l.every }

// overdue is after how long of silence a heartbeat counts as missed: some are late.
func (l *Launcher) overdue() time.Duration { return l.every + l.every/4 }

// Launch refuses: these resources are started elsewhere and register themselves.
func (l *Launcher) Launch(_ context.Context, spec domain.LaunchSpec) (domain.Launched, error) {
	return domain.Launched{}, &domain.Refusal{Kind: domain.KindInvalid, Code: "launch_failed", Field: "launcher", Reason: fmt.Sprintf(
		"resources of %q are not started by rrm; they register themselves, see rrm agent", spec.Renderer.ID)}
}

// Observe takes for running who was heard of, for gone who missed three
// heartbeats, and for unknown who missed one or two: its machine may be dead, or just
// the way to it, so that nothing else is to be concluded from its silence. Only what could have been heard counts as missed: not what came, or did
// not, before a start of rrm, or while the heartbeats could not be read (then all are unknown).
func (l *Launcher) Observe(ctx context.Context, resources []domain.Launched) ([]domain.Observed, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("observe registered resources: %w", err)
	}
	ids := make([]domain.ResourceID, len(resources))
	for i := range resources {
		ids[i] = resources[i].Resource
	}
	ages, err := l.heartbeats.Ages(ctx, ids)
	out := make([]domain.Observed, len(resources))
	if err != nil {
		for i, r := range resources {
			out[i] = domain.Observed{Launched: r, State: domain.LaunchUnknown, Reason: "heartbeats cannot be read: " + err.Error()}
		}
		return out, nil
	}
	silences := l.listen(ids, ages)
	for i, r := range resources {
		age, heard := ages[r.Resource]
		out[i] = domain.Observed{Launched: r, State: domain.LaunchRunning}
		switch o := &out[i]; {
		case silences[r.Resource] <= l.patience() && !heard:
			o.State, o.Reason = domain.LaunchPending, "no heartbeat has come yet"
		case silences[r.Resource] <= l.overdue():
		case silences[r.Resource] <= l.patience():
			o.State, o.Reason = domain.LaunchUnknown, fmt.Sprintf("its heartbeat is overdue, the last came %.1f s ago", age.Seconds())
		case !heard:
			o.State, o.Reason = domain.LaunchGone, "no heartbeat ever came"
		default:
			o.State, o.Reason = domain.LaunchGone, fmt.Sprintf("three heartbeats missed, the last came %.1f s ago", age.Seconds())
		}
	}
	return out, nil
}

// listen adds the time since the last look to the silence of those who were not heard of in
// it: at most one heartbeat's, because in a longer time nobody may have been able to hear.
func (l *Launcher) listen(ids []domain.ResourceID, ages map[domain.ResourceID]time.Duration) map[domain.ResourceID]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	passed := min(now.Sub(l.looked), l.every)
	silences := make(map[domain.ResourceID]time.Duration, len(ids))
	for _, id := range ids {
		silence, known := l.silences[id]
		if known {
			silence += passed
		}
		if age, heard := ages[id]; heard {
			silence = min(silence, age)
		}
		silences[id] = silence
	}
	l.looked, l.silences = now, silences // of whom nobody asks any more is forgotten
	return silences
}

// silence is for how long a resource could have been heard and was not, as far as is known.
func (l *Launcher) silence(id domain.ResourceID) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silences[id]
}

// List is empty: there is nothing that could be here and not in the log.
func (l *Launcher) List(context.Context) ([]domain.Launched, error) { return nil, nil }

// Stop asks for the resource to be stopped and waits, up to 25 s, until who runs it has
// deregistered it or has not been heard of for three heartbeats. After an
// error it may run on: stop it again. Graceful or not is for who runs it to say.
func (l *Launcher) Stop(ctx context.Context, r domain.Launched, _ bool) error {
	if err := l.heartbeats.AskToStop(ctx, r.Resource); err != nil {
		return fmt.Errorf("stop resource %s: %w", r.Resource, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.stopWait, errors.New("who runs it did not end it, and sends heartbeats"))
	defer cancel()
	look := time.NewTicker(max(l.every/20, 10*time.Millisecond))
	defer look.Stop()
	deaf := l.now().Add(-l.silence(r.Resource)) // before that it may have spoken and nobody heard
	for {
		ages, err := l.heartbeats.Ages(ctx, []domain.ResourceID{r.Resource})
		age, there := ages[r.Resource]
		switch {
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("stop resource %s: %w", r.Resource, err)
		case err == nil && !there:
			return nil
		case err == nil && min(age, l.now().Sub(deaf)) > l.patience():
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop resource %s: %w", r.Resource, context.Cause(ctx))
		case <-look.C:
		}
	}
}

// Output is not to be had: it is where the resource was started.
func (l *Launcher) Output(_ context.Context, r domain.Launched, _ string, _ int64) ([]byte, error) {
	return nil, &domain.Refusal{Kind: domain.KindNotFound, Code: "output_not_found",
		Reason: fmt.Sprintf("the output of resource %q is on %s, where it was started", r.Resource, node(r))}
}

func node(r domain.Launched) string {
	if r.Node != "" {
		return r.Node
	}
	return "its machine"
}
