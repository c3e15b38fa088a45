package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/commands/process"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// site is a launcher, and the views and the reporter of a service, all in
// memory: what the manager finds and what it says. That it works with real
// processes, clusters and renderers is shown in cmd/rrm/service.
type site struct {
	mu        sync.Mutex
	resources []pool.Resource
	observed  map[domain.ResourceID]domain.Observed
	listed    []domain.Launched
	launchErr error
	probeErr  error
	output    string
	said      []string
	stopped   []domain.ResourceID
	notes     []string
	probes    []string // addresses
}

func (s *site) LiveResources(context.Context) ([]pool.Resource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.resources), nil
}
func (s *site) HeldJobs(context.Context) ([]pool.Job, error)      { return nil, nil }
func (s *site) GatheringJobs(context.Context) ([]pool.Job, error) { return nil, nil }
func (s *site) Settings(context.Context) (map[domain.RendererID]domain.Renderer, error) {
	set, err := domain.Renderer{ID: "demo", CommandLine: "x", WaitUntilReady: true, Probe: domain.ProbeSettings{
		StartTimeout: domain.Duration(10 * time.Second), Interval: domain.Duration(time.Second), Timeout: domain.Duration(time.Second), Failures: 2,
	}}.Checked()
	return map[domain.RendererID]domain.Renderer{"demo": set}, err
}

func (s *site) Report(_ context.Context, actor domain.Actor, cmd pool.Command) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := strings.TrimPrefix(fmt.Sprintf("%T", cmd), "pool.")
	switch c := cmd.(type) {
	case pool.ReportReady:
		line += strings.TrimSuffix(" "+c.Address+" on "+c.Node, " on ")
	case pool.ReportFailed:
		line += " " + c.Code + ": " + c.Reason
	case pool.ReportLost:
		line += " " + c.Reason
	case pool.ReportAddress:
		line += strings.TrimSuffix(" "+c.Address+" on "+c.Node, " on ")
	}
	if actor != "process:launch" {
		line += " by " + string(actor)
	}
	s.said = append(s.said, line)
	return nil
}

func (s *site) Launch(_ context.Context, spec domain.LaunchSpec) (domain.Launched, error) {
	return domain.Launched{Resource: spec.Resource, Address: "127.0.0.1:9"}, s.launchErr
}

func (s *site) Observe(_ context.Context, list []domain.Launched) ([]domain.Observed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []domain.Observed
	for _, l := range list {
		if o, ok := s.observed[l.Resource]; ok {
			o.Resource = l.Resource
			out = append(out, o)
		}
	}
	return out, nil
}
func (s *site) List(context.Context) ([]domain.Launched, error) { return s.listed, nil }
func (s *site) Stop(_ context.Context, r domain.Launched, _ bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = append(s.stopped, r.Resource)
	return nil
}

func (s *site) Output(context.Context, domain.Launched, string, int64) ([]byte, error) {
	return []byte(s.output), nil
}

func (s *site) SetNote(_ context.Context, id domain.ResourceID, note string, expected time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !expected.IsZero() {
		note += expected.Format(" 15:04")
	}
	s.notes = append(s.notes, string(id)+": "+note)
	return nil
}

// probed is a renderer of which only the probe is asked.
type probed struct {
	process.Renderer
	s       *site
	address string
}

func (p probed) Probe(context.Context) (domain.Registry, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.probes = append(p.s.probes, p.address)
	return domain.Registry{}, p.s.probeErr
}

func (s *site) manager(now time.Time) *process.Launch {
	m := process.NewLaunch(s, s, process.Outside{
		Launchers: map[string]process.Launcher{"local": s},
		Renderer:  func(address string) process.Renderer { return probed{s: s, address: address} },
	}, s, slog.New(slog.NewTextHandler(io.Discard, nil)))
	m.Now = func() time.Time { return now }
	return m
}

func (s *site) round(t *testing.T, m *process.Launch) string {
	t.Helper()
	s.said = nil
	if err := m.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Wait()
	slices.Sort(s.said)
	return strings.Join(s.said, "; ")
}

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func resource(state pool.ResourceState) pool.Resource {
	return pool.Resource{ID: "r1", Renderer: "demo", Launcher: "local", State: state, StateSince: began, Address: "127.0.0.1:9"}
}

func TestWhatIsSaidOfAResource(t *testing.T) {
	gone, running := domain.Observed{State: domain.LaunchGone, Reason: "exit status 3"}, domain.Observed{State: domain.LaunchRunning}
	moved := domain.Observed{State: domain.LaunchRunning, Launched: domain.Launched{Address: "127.0.0.1:10"}}
	placed := domain.Observed{State: domain.LaunchRunning, Launched: domain.Launched{Address: "10.0.0.7:9", Node: "n7"}}
	pending := domain.Observed{State: domain.LaunchPending, Reason: "Resources: 3 jobs ahead"}
	ends := func(in time.Duration) domain.Observed {
		return domain.Observed{State: domain.LaunchRunning, Ends: began.Add(in)}
	}
	lately := domain.Observed{State: domain.LaunchRunning, Started: began.Add(25 * time.Second)}
	for name, c := range map[string]struct {
		state  pool.ResourceState
		o      domain.Observed
		probe  error
		launch error
		after  time.Duration
		want   string
	}{
		"wished for":              {state: pool.ResourceStateRequested, want: "ReportStarting"},
		"cannot be launched":      {state: pool.ResourceStateRequested, launch: domain.Invalid("command_line", "no such program"), want: "ReportFailed launch_failed: no such program; its last output: last words"},
		"answers":                 {state: pool.ResourceStateStarting, o: running, want: "ReportReady 127.0.0.1:9"},
		"answers elsewhere":       {state: pool.ResourceStateStarting, o: moved, want: "ReportReady 127.0.0.1:10"},
		"answers on its node":     {state: pool.ResourceStateStarting, o: placed, want: "ReportReady 10.0.0.7:9 on n7"},
		"exits while it starts":   {state: pool.ResourceStateStarting, o: gone, want: "ReportLost the renderer has gone: exit status 3; its last output: last words"},
		"does not answer yet":     {state: pool.ResourceStateStarting, o: running, probe: errors.New("no"), after: 9 * time.Second},
		"takes too long":          {state: pool.ResourceStateStarting, o: running, probe: errors.New("no"), after: 10 * time.Second, want: "ReportFailed start_timeout: not ready within 10s: no; its last output: last words"},
		"waits in a queue":        {state: pool.ResourceStateStarting, o: pending, probe: errors.New("no"), after: time.Hour},
		"waited in a queue":       {state: pool.ResourceStateStarting, o: lately, probe: errors.New("no"), after: 30 * time.Second},
		"cannot be looked at":     {state: pool.ResourceStateReady, o: domain.Observed{State: domain.LaunchUnknown}},
		"is gone":                 {state: pool.ResourceStateReady, o: gone, want: "ReportLost the renderer has gone: exit status 3; its last output: last words"},
		"is gone while it drains": {state: pool.ResourceStateDraining, o: gone, want: "ReportLost the renderer has gone: exit status 3; its last output: last words"},
		"is reached elsewhere":    {state: pool.ResourceStateReady, o: moved, want: "ReportAddress 127.0.0.1:10"},
		"its node is known late":  {state: pool.ResourceStateReady, o: domain.Observed{State: domain.LaunchRunning, Launched: domain.Launched{Node: "n7"}}, want: "ReportAddress 127.0.0.1:9 on n7"},
		"has time":                {state: pool.ResourceStateReady, o: ends(3 * time.Minute)},
		"its time ends":           {state: pool.ResourceStateReady, o: ends(2 * time.Minute), want: "DrainResource"},
		"its time ends, known":    {state: pool.ResourceStateDraining, o: ends(2 * time.Minute)},
		"its time is over":        {state: pool.ResourceStateDraining, o: ends(20 * time.Second), want: "StopResource"},
		"is to stop":              {state: pool.ResourceStateStopping, want: "ReportStopped"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &site{resources: []pool.Resource{resource(c.state)}, observed: map[domain.ResourceID]domain.Observed{}, probeErr: c.probe, launchErr: c.launch, output: "first\nlast words\n"}
			if c.launch != nil {
				c.want = "ReportFailed launch_failed: no such program"
			}
			if c.o.State != "" {
				s.observed["r1"] = c.o
			}
			if got := s.round(t, s.manager(began.Add(c.after))); got != c.want {
				t.Errorf("it says %q, not %q", got, c.want)
			}
		})
	}
}

// Two probes in a row that are not answered, and not one, make a ready resource hung; it is stopped before that is said.
func TestHung(t *testing.T) {
	s := &site{resources: []pool.Resource{resource(pool.ResourceStateReady)}}
	now := began
	m := s.manager(now)
	m.Now = func() time.Time { return now }
	probe := func(err error) string {
		now = now.Add(time.Second)
		s.probeErr = err
		return s.round(t, m)
	}
	s.round(t, m) // it was probed to get ready
	for i, err := range []error{errors.New("no"), nil, errors.New("no")} {
		if got := probe(err); got != "" {
			t.Fatalf("probe %d: it says %q", i, got)
		}
	}
	if got := probe(errors.New("no")); !strings.HasPrefix(got, "ReportFailed hung: 2 probes in a row") || len(s.stopped) != 1 {
		t.Errorf("it says %q and stopped %v", got, s.stopped)
	}
}

// Of a resource that its launcher cannot see now, probes that are not answered prove nothing:
// it is the launcher that says when it is gone, and what counts begins anew when it is seen again.
func TestUnseenIsNotHung(t *testing.T) {
	s := &site{resources: []pool.Resource{resource(pool.ResourceStateReady)}, observed: map[domain.ResourceID]domain.Observed{}}
	now := began
	m := s.manager(now)
	m.Now = func() time.Time { return now }
	s.probeErr = errors.New("no")
	probe := func(state domain.LaunchState) string {
		now = now.Add(time.Second)
		s.observed["r1"] = domain.Observed{State: state}
		return s.round(t, m)
	}
	s.round(t, m) // it was probed to get ready
	for i, state := range []domain.LaunchState{domain.LaunchRunning, domain.LaunchUnknown, domain.LaunchUnknown, domain.LaunchUnknown, domain.LaunchRunning} {
		if got := probe(state); got != "" || len(s.stopped) != 0 {
			t.Fatalf("probe %d, seen as %s: it says %q and stopped %v", i, state, got, s.stopped)
		}
	}
	if got := probe(domain.LaunchRunning); !strings.HasPrefix(got, "ReportFailed hung") {
		t.Errorf("seen again, and hung: it says %q", got)
	}
}

// What runs for us and nobody wants is stopped; what is wanted is not.
func TestOrphans(t *testing.T) {
	s := &site{resources: []pool.Resource{resource(pool.ResourceStateReady)}, listed: []domain.Launched{{Resource: "r1"}, {Resource: "orphan"}}}
	s.round(t, s.manager(began))
	if fmt.Sprint(s.stopped) != "[orphan]" {
		t.Errorf("stopped %v", s.stopped)
	}
}

// A reason is kept when it is new, not in every round.
func TestNotes(t *testing.T) {
	s := &site{resources: []pool.Resource{resource(pool.ResourceStateStarting)}, observed: map[domain.ResourceID]domain.Observed{}}
	m := s.manager(began)
	later := began.Add(time.Hour)
	s.probeErr = errors.New("not yet")
	for _, o := range []domain.Observed{
		{State: domain.LaunchPending, Reason: "Priority"}, {State: domain.LaunchPending, Reason: "Priority"},
		{State: domain.LaunchPending, Reason: "Resources"}, {State: domain.LaunchPending, Reason: "Resources", Expects: later},
		{State: domain.LaunchRunning, Launched: domain.Launched{Node: "n7"}},
	} {
		s.observed["r1"] = o
		s.round(t, m)
	}
	if got := fmt.Sprint(s.notes); got != "[r1: Priority r1: Resources r1: Resources 04:04 r1: on n7]" {
		t.Errorf("noted %s", got)
	}
}

// A resource whose launcher this service does not have fails, instead of waiting for ever.
func TestNoSuchLauncher(t *testing.T) {
	r := resource(pool.ResourceStateRequested)
	r.Launcher = "slurm"
	s := &site{resources: []pool.Resource{r}}
	if got := s.round(t, s.manager(began)); !strings.Contains(got, `launch_failed: the launcher "slurm" is not set up`) {
		t.Errorf("it says %q", got)
	}
}
