package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// reapPatience is how long Observe waits for the exit status of a child that
// has ended just now, and Stop for it to be on record.
const reapPatience = time.Second

// Observe looks at the given resources, in their order. What cannot be looked
// at is LaunchUnknown; the error is that of the context only. It also keeps the
// outputs within bounds, so it must be called every few seconds.
func (l *Launcher) Observe(ctx context.Context, resources []domain.Launched) ([]domain.Observed, error) {
	out := make([]domain.Observed, 0, len(resources))
	for _, r := range resources {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("observe local resources: %w", err)
		}
		o, err := l.observe(ctx, r)
		if err != nil {
			o = domain.Observed{Launched: r, State: domain.LaunchUnknown, Reason: err.Error()}
		}
		if o.State == domain.LaunchRunning {
			l.boundOutput(r.Resource)
		}
		out = append(out, o)
	}
	return out, nil
}

func (l *Launcher) observe(ctx context.Context, r domain.Launched) (domain.Observed, error) {
	if err := checkID(r.Resource); err != nil {
		return domain.Observed{}, err
	}
	rec, known, err := l.read(r.Resource)
	if err != nil {
		return domain.Observed{}, err
	}
	if known && rec.Phase == phaseRunning {
		alive, err := l.runs(rec)
		if err != nil {
			return domain.Observed{}, err
		}
		if alive {
			return l.running(rec), nil
		}
		return l.ended(ctx, rec)
	}
	if known && rec.Phase == phaseEnded {
		return gone(r, rec), nil
	}
	return l.observeUnrecorded(r)
}

// observeUnrecorded looks for a resource of which there is no record, or only
// that its start was begun.
func (l *Launcher) observeUnrecorded(r domain.Launched) (domain.Observed, error) {
	if _, err := os.Stat(l.dir(r.Resource)); errors.Is(err, os.ErrNotExist) {
		if h, ok := readHandle(r.Handle); ok && h.Node != "" && h.Node != l.node {
			return domain.Observed{}, fmt.Errorf("it was launched on %s; this is %s", h.Node, l.node)
		}
	}
	unlock, err := l.tryLock(r.Resource)
	if errors.Is(err, errBusy) {
		return domain.Observed{Launched: r, State: domain.LaunchPending, Reason: "it is being started"}, nil
	}
	if err != nil {
		return domain.Observed{}, err
	}
	defer unlock()
	f, err := l.find(r.Resource)
	if err != nil {
		return domain.Observed{}, err
	}
	if f.alive {
		return l.running(f.record), nil
	}
	if !f.known {
		if l.handleAlive(r.Handle) {
			return domain.Observed{Launched: r, State: domain.LaunchRunning}, nil
		}
		_ = os.RemoveAll(l.dir(r.Resource)) // made by the lock just now
		return domain.Observed{Launched: r, State: domain.LaunchGone, Reason: "nothing is known of it here"}, nil
	}
	f.record.Phase, f.record.Ended = phaseEnded, time.Now().UTC()
	f.record.Reason = "it never started: rrm ended while starting it"
	return gone(r, f.record), l.write(f.record)
}

// ended is a resource whose process is no more and whose end is not on record yet.
func (l *Launcher) ended(ctx context.Context, rec record) (domain.Observed, error) {
	l.mu.Lock()
	c, own := l.children[rec.Resource]
	l.mu.Unlock()
	reason := "it ended; its exit status is not known, because an earlier run of rrm started it"
	if rec.Boot != l.boot {
		reason = "the machine was started anew"
	}
	if own && c.pid == rec.PID {
		if err := await(ctx, c.done); err != nil {
			return domain.Observed{}, fmt.Errorf("wait for the exit status: %w", err)
		}
	} else if err := l.finish(ctx, rec, reason, false); err != nil {
		return domain.Observed{}, err
	}
	now, known, err := l.read(rec.Resource)
	if err != nil {
		return domain.Observed{}, err
	}
	if known && now.Phase == phaseRunning && now.PID != rec.PID { // launched again meanwhile
		return l.running(now), nil
	}
	return gone(l.launched(rec), now), nil
}

func await(ctx context.Context, done <-chan struct{}) error {
	patience := time.NewTimer(reapPatience)
	defer patience.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return errors.New("it has ended but nobody could say how")
	}
}

func (l *Launcher) running(rec record) domain.Observed {
	return domain.Observed{Launched: l.launched(rec), State: domain.LaunchRunning, Started: rec.Started}
}

func gone(r domain.Launched, rec record) domain.Observed {
	return domain.Observed{Launched: r, State: domain.LaunchGone, Reason: rec.Reason, Started: rec.Started}
}

// handleAlive is for resources whose directory was lost while they ran.
func (l *Launcher) handleAlive(raw domain.Handle) bool {
	h, ok := readHandle(raw)
	if !ok || h.Boot != l.boot || h.Node != l.node {
		return false
	}
	alive, err := process{h.PID, h.StartTime}.alive()
	return err == nil && alive
}

func readHandle(raw domain.Handle) (h handle, ok bool) {
	return h, len(raw) > 0 && json.Unmarshal(raw, &h) == nil
}

// List names every resource of this service whose process runs here, in the
// order of their identities, from the records and the process table both.
func (l *Launcher) List(ctx context.Context) ([]domain.Launched, error) {
	all, err := scan(l.opts.Service)
	if err != nil {
		return nil, err
	}
	live := map[domain.ResourceID]record{}
	for _, m := range all {
		if m.leads {
			first, _ := leader(all, m.resource)
			live[m.resource] = record{Resource: m.resource, PID: first.pid, StartTime: first.start, Boot: l.boot, Port: first.port}
		}
	}
	entries, err := os.ReadDir(l.opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("list run directory: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list local resources: %w", err)
		}
		id := domain.ResourceID(e.Name())
		if checkID(id) != nil {
			continue
		}
		rec, known, err := l.read(id)
		if err != nil || !known || rec.Phase != phaseRunning {
			continue
		}
		if alive, err := l.runs(rec); err == nil && alive {
			live[id] = rec
		}
	}
	out := make([]domain.Launched, 0, len(live))
	for _, rec := range live {
		out = append(out, l.launched(rec))
	}
	slices.SortFunc(out, func(a, b domain.Launched) int { return strings.Compare(string(a.Resource), string(b.Resource)) })
	return out, nil
}
