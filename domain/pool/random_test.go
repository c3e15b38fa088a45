package pool_test

import (
	"flag"
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// machine gives random commands, sensible and senseless, early, late and
// twice, to a world that checks the rules after each.
type machine struct {
	*world
	t        *rapid.T
	sessions int
	jobs     int
}

const hook = "http://hooks.example.org/size"

var (
	renderers = []domain.RendererID{"demo", "bound", "plain"}
	keys      = []domain.ModelKey{"A", "B", "C", "D"}
	owners    = []domain.Owner{"ann", "bob"}
	policies  = []domain.ScalingPolicy{
		{}, {Policy: "demand"}, {Policy: "buffer", Parameters: domain.Parameters{"size": "2"}},
		{Policy: "buffer", Parameters: domain.Parameters{"size": "40%", "up_per_minute": "2", "down_per_minute": "1"}},
		{Policy: "forecast"}, {Policy: "forecast", Parameters: domain.Parameters{"risk": "0.3", "window": "5m", "up_per_minute": "1"}},
		{Policy: "queue-time", Parameters: domain.Parameters{"goal": "20s"}}, {Policy: "webhook", Parameters: domain.Parameters{"url": hook}},
		{Policy: "chain", Chain: []domain.ScalingPolicy{
			{Policy: "schedule", Schedule: []domain.ScheduleEntry{{From: "14:10", To: "14:40", Max: new(int)}}},
			{Policy: "webhook", Parameters: domain.Parameters{"url": hook, "valid": "1m"}}, {Policy: "forecast"},
		}},
	}
)

func pick[T any](m *machine, name string, from []T) T {
	return rapid.SampledFrom(from).Draw(m.t, name)
}

func (m *machine) number(name string, low, high int) int {
	return rapid.IntRange(low, high).Draw(m.t, name)
}

func (m *machine) chance(name string, percent int) bool { return m.number(name, 1, 100) <= percent }

// settings are random, but of few values, so that models and slots are contested.
func (m *machine) settings(id domain.RendererID) domain.Renderer {
	r := domain.Renderer{ID: id, CommandLine: "renderer", Slots: m.number("slots", 1, 3), ModelsPerResource: m.number("models", 1, 3)}
	r.MemoryMiB = pick(m, "memory", []int{0, 0, 1000, 2000})
	r.Scaling.Max = m.number("max", 0, 4)
	r.Scaling.Min = m.number("min", 0, min(1, r.Scaling.Max))
	r.Scaling.Buffer = pick(m, "buffer", []int{0, 0, 1, 3})
	r.Scaling.ScalingPolicy = pick(m, "policy", policies)
	if m.chance("shadowed", 30) {
		shadow := pick(m, "shadow", policies)
		if shadow.Policy != "" {
			r.Scaling.Shadow = &shadow
		}
	}
	r.Scaling.Idle = domain.Duration(pick(m, "idle", []time.Duration{0, time.Minute, 5 * time.Minute}))
	r.Placement = m.placement()
	r.Job.MaxAttempts = m.number("attempts", 1, 3)
	r.Quotas = pick(m, "quotas", []*domain.QuotaSettings{nil, nil, {Quota: domain.Quota{Sessions: of(2), JobsRunning: of(1), JobsQueued: of(3)}},
		{Quota: domain.Quota{JobsRunning: of(2)}, Owners: map[domain.Owner]domain.Quota{"ann": {Sessions: of(1), JobsRunning: of(1)}}}})
	r.Job.Spread = pick(m, "spread", []int{0, 2, 3})
	r.Sessions.Reserve = pick(m, "reserve", []int{0, 0, 1})
	r.Sessions.Moves, r.Sessions.Settled = m.number("moves", 0, 2), domain.Duration(pick(m, "settled", []time.Duration{0, 5 * time.Second}))
	switch id {
	case "demo":
		r.ModelLoading = domain.LoadHTTP
	case "bound":
		r.ModelLoading, r.ModelsPerResource = domain.LoadCommandLine, 1
	}
	return r
}

// placement is a policy by name, often the default, sometimes with a parameter that is as low as may
// be, or about twice what it is usually: who has delay wait for a day is not served in the hour that a test gives.
func (m *machine) placement() domain.PlacementSettings {
	s := domain.PlacementSettings{Policy: pick(m, "placement", append(domain.PlacementPolicies(), domain.PlaceTTFF, domain.PlaceTTFF, domain.PlaceTTFF))}
	if of := domain.PlacementParametersOf(s.Policy); len(of) > 0 && m.chance("parameter", 30) {
		p := pick(m, "which", of)
		s.Parameters = map[string]float64{p.Name: pick(m, "value", []float64{p.Low, min(p.High, 2*p.Default+1)})}
	}
	return s
}

func (m *machine) someSession() domain.SessionID {
	return domain.SessionID(fmt.Sprintf("s%d", m.number("session", 1, m.sessions+1)))
}

func (m *machine) someJob() domain.JobID {
	return domain.JobID(fmt.Sprintf("j%d", m.number("job", 1, m.jobs+1)))
}

// someResource is any that ever was, more often one of the last; or none at all.
func (m *machine) someResource() domain.ResourceID {
	all := pool.AllResources(m.state)
	if len(all) == 0 || m.chance("foreign", 3) {
		return "nobody-1-0000"
	}
	return all[max(0, len(all)-1-m.number("resource", 0, 7))].ID
}

func (m *machine) try(c pool.Command) {
	before := m.head
	events, err := m.decide(c)
	if _, ok := domain.AsRefusal(err); err != nil && !ok {
		m.Fatalf("%#v is refused without a refusal: %v", c, err)
	}
	if err != nil && len(events) == 0 && m.head != before {
		m.Fatalf("%#v is refused and yet changed something", c)
	}
	switch c.(type) {
	case pool.BookResource, pool.SubmitJob:
		if err != nil {
			return // one that was refused for want of a slot or of quota may be repeated and is refused anew
		}
	}
	if m.meansAnother(c) {
		return
	}
	if again, _ := m.decide(c); len(again) > 0 {
		m.Fatalf("%#v given twice adds %q after %q", c, m.lines(again), m.lines(m.events[max(0, len(m.events)-len(again)-20):]))
	}
}

// meansAnother says that a report, given again, is one about the next try: a
// job that failed for a reason of ours goes back at once, perhaps to where it
// was, and a load that failed may begin anew for the next in the queue. The
// same report sent twice is told apart by the id of its command.
func (m *machine) meansAnother(c pool.Command) bool {
	switch c := c.(type) {
	case pool.ReportJobFailed:
		return c.Class == pool.ClassInterrupted
	case pool.ReportModelFailed:
		r := m.state.Resource(c.Resource)
		return r != nil && r.Holds(c.Model) != nil
	}
	return false
}

func (m *machine) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"configure": func(*rapid.T) {
			m.try(pool.ConfigureRenderer{Renderer: m.settings(pick(m, "renderer", renderers)), Create: m.chance("create", 20)})
		},
		"remove": func(*rapid.T) {
			if m.chance("really", 20) {
				m.try(pool.RemoveRenderer{Renderer: pick(m, "renderer", renderers)})
			}
		},
		"admission": func(*rapid.T) { m.try(pool.SetAdmission{Open: m.chance("open", 80), Reason: "a random one"}) },
		"book":      func(*rapid.T) { m.book() },
		"book more": func(*rapid.T) { m.book() },
		"open": func(*rapid.T) {
			m.sessions++
			m.try(pool.OpenSession{Session: domain.SessionID(fmt.Sprintf("s%d", m.sessions)), Renderer: pick(m, "renderer", renderers), Owner: pick(m, "owner", owners), Lease: time.Minute})
		},
		"schedule": func(*rapid.T) {
			m.try(pool.ScheduleSession{Session: m.someSession(), Model: pick(m, "model", keys), Wait: pick(m, "wait", []time.Duration{0, time.Hour}),
				Overrides: pick(m, "overrides", []*domain.Overrides{nil, {}, {CPUs: 4}, {Arguments: "--volume A"}})})
		},
		"submit": func(*rapid.T) { m.submit() },
		"submit more": func(*rapid.T) {
			for range m.number("jobs", 1, 6) {
				m.submit()
			}
		},
		"release": func(*rapid.T) { m.try(pool.ReleaseSession{Session: m.someSession(), Reason: "done"}) },
		"expire":  func(*rapid.T) { m.try(pool.ExpireSession{Session: m.someSession()}) },
		"cancel":  func(*rapid.T) { m.try(pool.CancelJob{Job: m.someJob()}) },
		"drain":   func(*rapid.T) { m.try(pool.DrainResource{Resource: m.someResource(), Reason: "drained"}) },
		"stop": func(*rapid.T) {
			m.try(pool.StopResource{Resource: m.someResource(), Reason: pick(m, "why", []string{"", "stopped"})})
		},
		"fail":   func(*rapid.T) { m.try(pool.ReportFailed{Resource: m.someResource(), Code: "hung", Reason: "it hangs"}) },
		"lose":   func(*rapid.T) { m.try(pool.ReportLost{Resource: m.someResource(), Reason: "exit status 3"}) },
		"report": func(*rapid.T) { m.report() },
		"progress": func(*rapid.T) {
			m.pass(time.Duration(m.number("ms", 1, 8000)) * time.Millisecond)
			m.progress(func() bool { return m.chance("goes on", 60) })
		},
		"advise": func(*rapid.T) {
			m.try(pool.ReportAdvice{Renderer: pick(m, "renderer", renderers), URL: hook, Size: m.number("size", -1, 5),
				Reason: pick(m, "why", []string{"", "a \x00 class"}), Problem: pick(m, "problem", []string{"", "", "503", "\xff"})})
		},
		"plan": func(*rapid.T) { m.plan() },
		"tick": func(*rapid.T) {
			m.pass(pick(m, "time", []time.Duration{time.Second, 10 * time.Second, time.Minute, 10 * time.Minute}))
			m.try(pool.Tick{})
		},
		"": func(*rapid.T) { m.pass(time.Duration(m.number("ns", 0, 1_000_000_000))) },
	}
}

func (m *machine) book() {
	m.sessions++
	c := pool.BookResource{Session: domain.SessionID(fmt.Sprintf("s%d", m.sessions)), Renderer: pick(m, "renderer", renderers),
		Model: pick(m, "model", keys), Owner: pick(m, "owner", owners), Wait: pick(m, "wait", []time.Duration{0, time.Minute, time.Hour}),
		OnLost: pick(m, "on lost", []string{"", pool.OnLostMove}), MaxTime: pick(m, "longest", []time.Duration{0, 0, 10 * time.Minute}),
		Params: []byte(`{"camera":{"yaw":30}}`)}
	m.try(c)
}

func (m *machine) submit() {
	c := pool.SubmitJob{Renderer: pick(m, "renderer", renderers), Model: pick(m, "model", keys), Owner: pick(m, "owner", owners),
		Kind: pick(m, "kind", []string{pool.JobImage, pool.JobFrames}), Priority: pick(m, "priority", []int{0, 0, 0, 5, -1}), Spec: []byte(pick(m, "spec", []string{`{"width":64}`, `{"frames":20}`}))}
	for i := m.number("after", 0, 3) - 1; i > 0 && m.jobs > 0; i-- {
		c.After = append(c.After, domain.JobID(fmt.Sprintf("j%d", m.number("job", 1, m.jobs))))
	}
	if m.chance("deadline", 20) {
		at := m.now.Add(time.Duration(m.number("minutes", -1, 20)) * time.Minute)
		c.Deadline = &at
	}
	m.jobs++
	c.Job = domain.JobID(fmt.Sprintf("j%d", m.jobs))
	m.try(c)
}

// report says something that may or may not be so.
func (m *machine) report() {
	r, j, k := m.someResource(), m.someJob(), pick(m, "model", keys)
	class := pick(m, "class", []pool.Class{pool.ClassPermanent, pool.ClassTransient, pool.ClassTimeout, pool.ClassInterrupted})
	if x := m.state.Job(j); x != nil && m.chance("its own", 70) {
		r = x.Resource
	}
	m.try(pick(m, "report", []pool.Command{
		pool.ReportStarting{Launched: domain.Launched{Resource: r, Handle: domain.Handle(`{"pid":7}`), Node: "node7"}},
		pool.ReportReady{Resource: r, Address: "127.0.0.1:9000", Capabilities: []string{domain.CapabilityRanges}},
		pool.ReportStopped{Resource: r},
		pool.ReportModelLoaded{Resource: r, Model: k, Seconds: float64(m.number("seconds", 0, 30)), MemoryMiB: m.number("mib", 0, 1200)},
		pool.ReportModelFailed{Resource: r, Model: k, Code: pick(m, "code", []string{"model_not_found", "unreachable"}), Reason: "no \x00 such\xff model"},
		pool.ReportJobStarted{Job: j, Resource: r},
		pool.ReportJobSucceeded{Job: j, Resource: r, Result: pool.Result{ContentType: "image/png", Bytes: 17}},
		pool.ReportJobMoved{Job: j, Resource: r, Frames: 2},
		pool.ReportJobGathered{Job: j, Code: pick(m, "gathered", []string{"", "part_lost"})},
		pool.ReportJobFailed{Job: j, Resource: r, Class: class, Code: "broken", Reason: "it broke"},
	}))
}

// progress does what the process managers do when all goes well, where the world goes on.
func (m *machine) progress(goesOn func() bool) {
	for _, r := range pool.AllResources(m.state) {
		if r.Ended || !goesOn() {
			continue
		}
		switch r.State {
		case pool.ResourceStateRequested:
			m.try(pool.ReportStarting{Launched: domain.Launched{Resource: r.ID, Address: "127.0.0.1:9000"}})
		case pool.ResourceStateStarting:
			m.try(pool.ReportReady{Resource: r.ID, Address: "127.0.0.1:9000", Capabilities: []string{domain.CapabilityRanges}})
		case pool.ResourceStateStopping:
			m.try(pool.ReportStopped{Resource: r.ID})
		}
		for _, h := range r.Models {
			if h.State == placement.Loading {
				m.try(pool.ReportModelLoaded{Resource: r.ID, Model: h.Model, Seconds: 3, MemoryMiB: 400})
			}
		}
	}
	for _, j := range pool.AllJobs(m.state) {
		if j.Gathering() && goesOn() {
			m.try(pool.ReportJobGathered{Job: j.ID, Result: pool.Result{ContentType: "application/zip", Bytes: 17}})
		}
		if !j.Holding() || !goesOn() {
			continue
		}
		if h := m.state.Resource(j.Resource).Holds(j.Model); h == nil || h.State != placement.Loaded {
			continue
		}
		switch {
		case j.Yielding != nil:
			m.try(pool.ReportJobMoved{Job: j.ID, Resource: j.Resource, Frames: m.number("frames", 0, 3)})
		case j.State == pool.JobStateAssigned:
			m.try(pool.ReportJobStarted{Job: j.ID, Resource: j.Resource})
		default:
			m.try(pool.ReportJobSucceeded{Job: j.ID, Resource: j.Resource, Result: pool.Result{ContentType: "image/png", Bytes: 17}})
		}
	}
}

// A failure is repeated by the seed that it prints; files of failures would be left behind in the tree.
func init() {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
}

func TestRandomCommandsKeepTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{world: newWorld(t), t: t}
		m.also = newBatched(7) // not a divisor of how often anything else is done
		for _, r := range renderers[:m.number("renderers", 1, 3)] {
			m.try(pool.ConfigureRenderer{Renderer: m.settings(r)})
		}
		t.Repeat(m.actions())
		m.foldedWholeLogIsTheState()
		m.rowsAreTheState()
		m.allThatWaitsIsServedOnceAllGoesWell()
		m.anIdlePoolGoesToItsMinimum()
		m.foldedWholeLogIsTheState()
	})
}

// plan asks what other settings would do, which changes nothing, and compares it with what they do.
func (m *machine) plan() {
	id := pick(m, "renderer", renderers)
	c := pool.PlanScaling{Renderer: id, Scaling: m.settings(id).Scaling}
	if events, err := m.decide(c); len(events) > 0 || (err == nil) != (m.state.Pool(id) != nil) {
		m.Fatalf("%#v gives %q and %v", c, m.lines(events), err)
	} else if err != nil {
		return
	}
	before := pool.Rows(m.state)
	plan := m.state.Plan(c, pool.Given{At: m.now})
	if !maps.Equal(before, pool.Rows(m.state)) {
		m.Fatalf("%#v changed something", c)
	}
	set := m.state.Pool(id).Settings
	if set.Scaling = c.Scaling; plan.Start > 0 && len(plan.Stop) > 0 || plan.Size > max(plan.Live, set.Scaling.Max) || plan.Reason == "" {
		m.Fatalf("%#v gives %+v", c, plan)
	}
}
