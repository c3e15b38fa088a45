package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Launch takes resources through their life: it launches those that are
// wished for, probes those that start, watches those that are ready, stops
// those that are to go, and says what it finds.
type Launch struct {
	Reporter Reporter
	Views    Views
	Outside  Outside
	Notes    Notes
	Log      *slog.Logger
	Now      func() time.Time
	// What happens before a scheduler ends a resource: no more is given to it, and its sessions are
	// warned; then what still uses it moves or is lost.
	WarnBefore, MoveBefore time.Duration

	*group
	mu      sync.Mutex
	probed  map[domain.ResourceID]*health
	orphans time.Time // when orphans were last looked for
	noted   map[domain.ResourceID]noted
}

// noted is what was last kept of a resource that is coming.
type noted struct {
	text     string
	expected time.Time
}

// health is what probing a ready resource has shown.
type health struct {
	last     time.Time
	failures int
}

// Bounds of single steps outside.
const (
	launchLimit = time.Minute
	stopLimit   = 30 * time.Second
	orphanEvery = 5 * time.Second
	outputKept  = 2048
)

// NewLaunch makes the manager.
func NewLaunch(r Reporter, v Views, o Outside, n Notes, log *slog.Logger) *Launch {
	return &Launch{Reporter: r, Views: v, Outside: o, Notes: n, Log: log, Now: time.Now, WarnBefore: 2 * time.Minute, MoveBefore: 20 * time.Second, group: newGroup(),
		probed: map[domain.ResourceID]*health{}, noted: map[domain.ResourceID]noted{}}
}

// RunOnce begins the next step of every resource.
func (m *Launch) RunOnce(ctx context.Context) error {
	settings, err := m.Views.Settings(ctx)
	if err != nil {
		return err
	}
	resources, err := m.Views.LiveResources(ctx)
	if err != nil {
		return err
	}
	seen := m.observe(ctx, resources)
	for i := range resources {
		r := &resources[i]
		set, ok := settings[r.Renderer]
		launcher := m.Outside.Launchers[r.Launcher]
		if !ok || launcher == nil {
			m.unlaunchable(ctx, r)
			continue
		}
		m.step(ctx, r, set.With(r.Overrides), launcher, seen[r.ID])
	}
	m.forget(resources)
	m.stopOrphans(ctx)
	return nil
}

// unlaunchable ends resources for whose launcher this service has no adapter.
func (m *Launch) unlaunchable(ctx context.Context, r *pool.Resource) {
	m.do(ctx, string(r.ID), launchLimit, func(ctx context.Context) {
		if r.State == pool.ResourceStateStopping {
			report(ctx, m.Reporter, m.Log, "launch", pool.ReportStopped{Resource: r.ID})
			return
		}
		m.fail(ctx, r, "launch_failed", fmt.Sprintf("the launcher %q is not set up in this service", r.Launcher), "")
	})
}

func (m *Launch) step(ctx context.Context, r *pool.Resource, set domain.Renderer, l Launcher, o domain.Observed) {
	key := string(r.ID)
	switch r.State {
	case pool.ResourceStateRequested:
		m.do(ctx, key, launchLimit, func(ctx context.Context) { m.launch(ctx, r, set, l) })
	case pool.ResourceStateStarting:
		m.do(ctx, key, set.Probe.Timeout.Std()+stopLimit, func(ctx context.Context) { m.probeStarting(ctx, r, set, l, o) })
	case pool.ResourceStateReady, pool.ResourceStateDraining:
		if o.State == domain.LaunchGone {
			m.do(ctx, key, launchLimit, func(ctx context.Context) { m.lost(ctx, r, l, goneReason(o)) })
		} else if cmd := m.dueChange(r, o); cmd != nil {
			m.do(ctx, key, launchLimit, func(ctx context.Context) { report(ctx, m.Reporter, m.Log, "launch", cmd) })
		} else if m.due(r.ID, set.Probe.Interval.Std()) {
			m.do(ctx, key, set.Probe.Timeout.Std()+stopLimit, func(ctx context.Context) { m.probeReady(ctx, r, set, l, o) })
		}
	case pool.ResourceStateStopping:
		m.do(ctx, key, stopLimit, func(ctx context.Context) {
			if err := l.Stop(ctx, launchedOf(r), set.GracefulExit); err != nil {
				m.Log.Warn("a resource could not be stopped; it will be tried again", "resource", r.ID, "error", err)
				return
			}
			report(ctx, m.Reporter, m.Log, "launch", pool.ReportStopped{Resource: r.ID})
		})
	}
}

func (m *Launch) launch(ctx context.Context, r *pool.Resource, set domain.Renderer, l Launcher) {
	launched, err := l.Launch(ctx, domain.LaunchSpec{Resource: r.ID, Renderer: set, Model: r.Model})
	if err != nil {
		if ctx.Err() != nil {
			return // we were stopped, not refused
		}
		reason := err.Error()
		if refusal, ok := domain.AsRefusal(err); ok {
			reason = refusal.Reason
		}
		m.fail(ctx, r, "launch_failed", reason, "")
		return
	}
	report(ctx, m.Reporter, m.Log, "launch", pool.ReportStarting{Launched: launched})
}

func goneReason(o domain.Observed) string { return "the renderer has gone: " + o.Reason }

// dueChange is what has to be reported of a resource that runs well: that it
// is reached elsewhere, which node it is on, or that its time at the scheduler is ending.
func (m *Launch) dueChange(r *pool.Resource, o domain.Observed) pool.Command {
	if now := cmp.Or(o.Address, r.Address); o.State == domain.LaunchRunning && (now != r.Address || cmp.Or(o.Node, r.Node) != r.Node) {
		return pool.ReportAddress{Resource: r.ID, Address: now, Node: o.Node}
	}
	if o.Ends.IsZero() {
		return nil
	}
	left := o.Ends.Sub(m.Now())
	reason := "its time at the scheduler ends at " + o.Ends.UTC().Format(time.RFC3339)
	switch {
	case left <= m.MoveBefore:
		return pool.StopResource{Resource: r.ID, Reason: reason}
	case left <= m.WarnBefore && r.State == pool.ResourceStateReady:
		return pool.DrainResource{Resource: r.ID, Reason: reason, Until: &o.Ends}
	}
	return nil
}

// note keeps what the launcher says of a resource that is coming, when it says something new.
func (m *Launch) note(ctx context.Context, r *pool.Resource, text string, expected time.Time) {
	now := noted{text, expected}
	m.mu.Lock()
	known := m.noted[r.ID] == now
	m.noted[r.ID] = now
	m.mu.Unlock()
	if known {
		return
	}
	if err := m.Notes.SetNote(ctx, r.ID, text, expected); err != nil {
		m.Log.Debug("a note was not kept", "resource", r.ID, "error", err)
	}
}

func (m *Launch) probeStarting(ctx context.Context, r *pool.Resource, set domain.Renderer, l Launcher, o domain.Observed) {
	switch o.State {
	case domain.LaunchGone:
		m.lost(ctx, r, l, goneReason(o))
		return
	case domain.LaunchPending: // in a scheduler's queue: the time to get ready has not begun
		m.note(ctx, r, o.Reason, o.Expects)
		return
	}
	where := ""
	if o.State == domain.LaunchRunning && o.Node != r.Node { // else it is on record already
		where = "on " + o.Node
	}
	m.note(ctx, r, where, time.Time{})
	address := r.Address
	if o.Address != "" {
		address = o.Address
	}
	if address == "" {
		m.notReady(ctx, r, set, l, o, errors.New("its address is not known yet"))
		return
	}
	var registry domain.Registry
	if set.WaitUntilReady {
		probe, cancel := context.WithTimeout(ctx, set.Probe.Timeout.Std())
		defer cancel()
		var err error
		if registry, err = m.Outside.Renderer(address).Probe(probe); err != nil {
			m.notReady(ctx, r, set, l, o, err)
			return
		}
	}
	report(ctx, m.Reporter, m.Log, "launch", pool.ReportReady{Resource: r.ID, Address: address, Node: o.Node,
		Capabilities: registry.Capabilities, JobKinds: registry.JobKinds})
}

// notReady gives up on a resource that takes too long to get ready.
func (m *Launch) notReady(ctx context.Context, r *pool.Resource, set domain.Renderer, l Launcher, o domain.Observed, cause error) {
	limit, since := set.Probe.StartTimeout.Std(), r.StateSince
	if o.Started.After(since) {
		since = o.Started
	}
	if ctx.Err() != nil || m.Now().Sub(since) < limit {
		return
	}
	output := m.output(ctx, r, l)
	if err := l.Stop(ctx, launchedOf(r), false); err != nil {
		m.Log.Warn("a resource could not be stopped", "resource", r.ID, "error", err)
	}
	m.fail(ctx, r, "start_timeout", fmt.Sprintf("not ready within %s: %v", limit, cause), output)
}

// probeReady notices renderers that run but do not answer any more. Of one that its
// launcher cannot see now nothing is concluded: it may be out of our reach for the same reason.
func (m *Launch) probeReady(ctx context.Context, r *pool.Resource, set domain.Renderer, l Launcher, o domain.Observed) {
	if !set.WaitUntilReady {
		return // it does not speak the probe; that its process lives must do
	}
	probe, cancel := context.WithTimeout(ctx, set.Probe.Timeout.Std())
	defer cancel()
	_, err := m.Outside.Renderer(r.Address).Probe(probe)
	if ctx.Err() != nil {
		return
	}
	failures := m.probeResult(r.ID, err == nil || o.State == domain.LaunchUnknown)
	if err == nil || failures < set.Probe.Failures {
		return
	}
	output := m.output(ctx, r, l)
	if err := l.Stop(ctx, launchedOf(r), false); err != nil {
		m.Log.Warn("a resource that hangs could not be stopped", "resource", r.ID, "error", err)
	}
	m.fail(ctx, r, "hung", fmt.Sprintf("%d probes in a row were not answered: %v", failures, err), output)
}

func (m *Launch) lost(ctx context.Context, r *pool.Resource, l Launcher, reason string) {
	output := m.output(ctx, r, l)
	m.Log.Warn("a resource is lost", "resource", r.ID, "reason", reason)
	report(ctx, m.Reporter, m.Log, "launch", pool.ReportLost{Resource: r.ID, Reason: withOutput(reason, output), Output: output})
}

func withOutput(reason, output string) string {
	if last := lastLine(output); last != "" {
		reason += "; its last output: " + last
	}
	return reason
}

func (m *Launch) fail(ctx context.Context, r *pool.Resource, code, reason, output string) {
	reason = withOutput(reason, output)
	m.Log.Warn("a resource failed", "resource", r.ID, "code", code, "reason", reason)
	report(ctx, m.Reporter, m.Log, "launch", pool.ReportFailed{Resource: r.ID, Code: code, Reason: reason, Output: output})
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	return last[:min(len(last), 300)]
}

// output is the end of what a resource wrote, errors first; nothing if it cannot be had.
func (m *Launch) output(ctx context.Context, r *pool.Resource, l Launcher) string {
	for _, stream := range []string{"stderr", "stdout"} {
		b, err := l.Output(ctx, launchedOf(r), stream, outputKept)
		if err == nil && len(strings.TrimSpace(string(b))) > 0 {
			return strings.ToValidUTF8(strings.ReplaceAll(string(b), "\x00", ""), "?")
		}
	}
	return ""
}

// observe asks each launcher once about all its resources.
func (m *Launch) observe(ctx context.Context, resources []pool.Resource) map[domain.ResourceID]domain.Observed {
	by := map[string][]domain.Launched{}
	for i := range resources {
		switch resources[i].State {
		case pool.ResourceStateStarting, pool.ResourceStateReady, pool.ResourceStateDraining:
			by[resources[i].Launcher] = append(by[resources[i].Launcher], launchedOf(&resources[i]))
		}
	}
	out := map[domain.ResourceID]domain.Observed{}
	for name, list := range by {
		l := m.Outside.Launchers[name]
		if l == nil {
			continue
		}
		seen, err := l.Observe(ctx, list)
		if err != nil {
			m.Log.Warn("a launcher could not look at its resources", "launcher", name, "error", err)
			continue
		}
		for _, o := range seen {
			out[o.Resource] = o
		}
	}
	return out
}

// stopOrphans stops what launchers run for us and no view wants. The list is
// taken before the views are read: whatever is launched is on record before.
func (m *Launch) stopOrphans(ctx context.Context) {
	m.mu.Lock()
	due := m.Now().Sub(m.orphans) >= orphanEvery
	if due {
		m.orphans = m.Now()
	}
	m.mu.Unlock()
	if !due {
		return
	}
	for name, l := range m.Outside.Launchers {
		found, err := l.List(ctx)
		if err != nil {
			m.Log.Warn("a launcher could not list its resources", "launcher", name, "error", err)
			continue
		}
		resources, err := m.Views.LiveResources(ctx)
		if err != nil {
			return
		}
		wanted := map[domain.ResourceID]bool{}
		for i := range resources {
			wanted[resources[i].ID] = true
		}
		for _, o := range found {
			if !wanted[o.Resource] {
				m.do(ctx, string(o.Resource), stopLimit, func(ctx context.Context) { m.stopOrphan(ctx, l, o) })
			}
		}
	}
}

func (m *Launch) stopOrphan(ctx context.Context, l Launcher, o domain.Launched) {
	m.Log.Warn("stopping an orphan: it runs, and the log does not want it", "resource", o.Resource)
	if err := l.Stop(ctx, o, true); err != nil {
		m.Log.Warn("an orphan could not be stopped; it will be tried again", "resource", o.Resource, "error", err)
	}
}

// due says whether it is time to probe a ready resource again.
func (m *Launch) due(id domain.ResourceID, interval time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.probed[id]
	if h == nil {
		h = &health{last: m.Now()} // it was probed just now, to get ready
		m.probed[id] = h
		return false
	}
	if m.Now().Sub(h.last) < interval {
		return false
	}
	h.last = m.Now()
	return true
}

func (m *Launch) probeResult(id domain.ResourceID, ok bool) (failures int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.probed[id]
	if h == nil {
		return 0
	}
	h.failures++
	if ok {
		h.failures = 0
	}
	return h.failures
}

func (m *Launch) forget(resources []pool.Resource) {
	live := map[domain.ResourceID]bool{}
	for i := range resources {
		live[resources[i].ID] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.probed {
		if !live[id] {
			delete(m.probed, id)
		}
	}
	for id := range m.noted {
		if !live[id] {
			delete(m.noted, id)
		}
	}
}
