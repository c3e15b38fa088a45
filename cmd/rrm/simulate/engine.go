package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Options are a simulation.
type Options struct {
	Rows      []Row // compressed already
	Resources int   // there from the start, cold; 0: as scaling says
	Min, Max  int   // of resources, where Resources is 0
	Slots     int
	Models    int // that one resource holds
	Loads     Loads
	Start     time.Duration // of a resource
	Share     float64       // of requests that are sessions, the others are jobs
	Placement domain.PlacementSettings
	Scaling   domain.ScalingSettings // but for the limits
	Seed      uint64
	Tick      time.Duration // how often time is let pass where resources come and go
	Log       func(Served)  // of each request, when it has ended; may be nil
}

// Served is what became of a request. Times are since the start of the trace.
type Served struct {
	Row      int
	Arrival  time.Duration
	Placed   time.Duration // given its slot; a load begins
	Start    time.Duration // its work begins
	End      time.Duration
	Resource int // in order of request, from 0
	User     domain.Owner
	Key      domain.ModelKey
	Load     time.Duration // that it had to be loaded for; 0: it was there
	Evicted  []domain.ModelKey
}

const pools = domain.RendererID("pool")

// epoch is when traces start: a Monday, at midnight.
var epoch = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// machine is a resource as the simulation knows it.
type machine struct {
	number    int
	requested time.Duration
	ended     time.Duration
	live      bool
	loading   map[domain.ModelKey][]int // requests that wait for a load
}

// run is a simulation under way.
type run struct {
	Options
	state    *pool.State
	head     int64
	now      time.Duration
	next     int // row
	agenda   agenda
	seq      int
	commands int
	machines map[domain.ResourceID]*machine
	order    []*machine
	served   []Served
	ids      []string
	session  []bool
	begun    []bool
	loads    map[domain.ModelKey]time.Duration
	open     int // requests that have not ended
	result   Result
}

// Run simulates until the last request has ended.
func Run(o Options) (Result, error) {
	r, err := newRun(o)
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	for r.open > 0 {
		if err := r.step(); err != nil {
			return Result{}, err
		}
	}
	r.finish()
	r.result.Commands, r.result.Elapsed = r.commands, time.Since(began)
	return r.result, nil
}

func newRun(o Options) (*run, error) {
	n := len(o.Rows)
	r := &run{Options: o, state: pool.NewState(), machines: map[domain.ResourceID]*machine{}, served: make([]Served, n), ids: make([]string, n),
		session: make([]bool, n), begun: make([]bool, n), loads: map[domain.ModelKey]time.Duration{}, open: n}
	r.foresee()
	for i := range r.ids {
		r.ids[i] = "r" + strconv.Itoa(o.Rows[i].Row)
		r.session[i] = o.Share > 0 && rand.New(rand.NewPCG(o.Seed, uint64(o.Rows[i].Row))).Float64() < o.Share
	}
	set := domain.Renderer{ID: pools, CommandLine: "simulated", Launcher: domain.LauncherLocal, Slots: o.Slots, ModelsPerResource: o.Models,
		ModelLoading: domain.LoadHTTP, Scaling: o.Scaling, Placement: o.Placement}
	set.Scaling.Min, set.Scaling.Max = o.Min, o.Max
	if o.Resources > 0 {
		set.Scaling.Min, set.Scaling.Max, set.Scaling.Idle = o.Resources, o.Resources, domain.Duration(30*24*time.Hour)
	}
	reference := set.Placement
	set.Placement = domain.PlacementSettings{}
	set, err := set.Checked()
	if err != nil {
		return nil, fmt.Errorf("check settings: %w", err)
	}
	if err := reference.Check(true); err != nil {
		return nil, fmt.Errorf("check the policy: %w", err)
	}
	set.Placement = reference
	r.state.Evolve(pool.Recorded{Position: 1, Stream: domain.PoolStream(pools), Version: 1, At: epoch, Event: pool.RendererConfigured{Renderer: set}})
	r.head = 1
	r.state.Commit()
	if err := r.give(pool.Tick{}); err != nil {
		return nil, err
	}
	if o.Resources == 0 {
		r.plan(happening{at: o.Tick, kind: happensTick})
	}
	return r, nil
}

// foresee tells the state when each model is asked for next, for the policy that is told.
func (r *run) foresee() {
	if r.Placement.Policy != domain.PlaceBelady {
		return
	}
	uses := map[domain.ModelKey][]time.Duration{}
	for _, row := range r.Rows {
		uses[row.Key] = append(uses[row.Key], row.Arrival)
	}
	r.state.Foresee(func(m domain.ModelKey) (time.Time, bool) {
		i, _ := slices.BinarySearch(uses[m], r.now+1)
		if i == len(uses[m]) {
			return time.Time{}, false
		}
		return epoch.Add(uses[m][i]), true
	})
}

// step lets the next thing happen: at one instant ends, then arrivals, then timers.
func (r *run) step() error {
	const never = time.Duration(1<<63 - 1)
	planned, arrival, wake := never, never, never
	kind := 0
	if len(r.agenda) > 0 {
		planned, kind = r.agenda[0].at, r.agenda[0].kind
	}
	if r.next < len(r.Rows) {
		arrival = r.Rows[r.next].Arrival
	}
	if at, ok := r.state.Wake(pools); ok {
		wake = max(at.Sub(epoch), r.now+1)
	}
	switch {
	case planned < arrival && planned <= wake || planned == arrival && planned <= wake && kind != happensTick:
		h := r.agenda.next()
		r.now = h.at
		return r.happen(h)
	case arrival <= wake && arrival < never:
		r.now = arrival
		r.next++
		return r.arrive(r.next - 1)
	case wake < never:
		r.now = wake
		return r.give(pool.Tick{})
	}
	return fmt.Errorf("simulate: %d requests wait at %s and nothing will ever happen", r.open, r.now)
}

func (r *run) happen(h happening) error {
	switch {
	case h.kind == happensTick:
		r.plan(happening{at: r.now + r.Tick, kind: happensTick})
		return r.give(pool.Tick{})
	case h.kind == happensReady:
		return r.give(pool.ReportReady{Resource: h.resource, Address: "127.0.0.1:1", JobKinds: []string{pool.JobImage}})
	case h.request < 0:
		return r.loaded(h)
	}
	s := &r.served[h.request]
	s.End = r.now
	r.open--
	if r.Log != nil {
		r.Log(*s)
	}
	r.result.add(s, r.Rows[h.request].Work)
	if r.session[h.request] {
		return r.give(pool.ReleaseSession{Session: domain.SessionID(r.ids[h.request])})
	}
	return r.give(pool.ReportJobSucceeded{Job: domain.JobID(r.ids[h.request]), Resource: h.resource})
}

func (r *run) loaded(h happening) error {
	m := r.machines[h.resource]
	waiting := m.loading[h.model]
	delete(m.loading, h.model)
	if err := r.give(pool.ReportModelLoaded{Resource: h.resource, Model: h.model, Seconds: r.load(h.model).Seconds()}); err != nil {
		return err
	}
	for _, i := range waiting {
		if err := r.begin(i, h.resource); err != nil {
			return err
		}
	}
	return nil
}

// batch is how many commands are decided before they are committed: as many as the service takes into one append at most.
const batch = 512

// longLease outlasts every trace's session; the lease process, which would end it, does not run here.
const longLease = pool.MaxLease

func (r *run) arrive(i int) error {
	row := &r.Rows[i]
	r.served[i] = Served{Row: row.Row, Arrival: row.Arrival, User: row.User, Key: row.Key}
	if r.session[i] {
		id := domain.SessionID(r.ids[i])
		if err := r.give(pool.OpenSession{Session: id, Renderer: pools, Owner: row.User, Lease: longLease}); err != nil {
			return err
		}
		return r.give(pool.ScheduleSession{Session: id, Model: row.Key}) // waits without end
	}
	return r.give(pool.SubmitJob{Job: domain.JobID(r.ids[i]), Renderer: pools, Model: row.Key, Kind: pool.JobImage, Owner: row.User, MaxAttempts: 1})
}

// give gives a command to the deciders and carries out what they decided.
func (r *run) give(c pool.Command) error {
	r.commands++
	events, err := r.state.Decide(r.head, pool.Given{ID: "simulated", Actor: "simulation", At: epoch.Add(r.now), Command: c})
	r.head += int64(len(events))
	if r.commands%batch == 0 {
		r.state.Commit()
	}
	if err != nil {
		return fmt.Errorf("simulate: %T at %s: %w", c, r.now, err)
	}
	for i := range events {
		if err := r.follow(events[i].Event); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) plan(h happening) {
	r.seq++
	h.seq = r.seq
	r.agenda.add(h)
}

// follow does what an event asks of the world outside.
func (r *run) follow(e pool.Event) error {
	switch e := e.(type) {
	case pool.ResourceRequested:
		m := &machine{number: len(r.order), requested: r.now, live: true, loading: map[domain.ModelKey][]int{}}
		r.machines[e.Resource], r.order = m, append(r.order, m)
		if r.Resources > 0 {
			return r.happen(happening{at: r.now, kind: happensReady, resource: e.Resource})
		}
		r.result.ScaleUps++
		r.plan(happening{at: r.now + r.Start, kind: happensReady, number: m.number, resource: e.Resource})
	case pool.ResourceStopping:
		m := r.machines[e.Resource]
		m.live, m.ended = false, r.now
		r.result.ScaleDowns++
		return r.give(pool.ReportStopped{Resource: e.Resource})
	case pool.ModelEvicted:
		r.result.Evictions++
		m := r.machines[e.Resource]
		m.loading[""] = append(m.loading[""], len(r.result.evicted))
		r.result.evicted = append(r.result.evicted, e.Model)
	case pool.ModelLoading:
		r.result.Loads++
		m, takes := r.machines[e.Resource], r.load(e.Model)
		r.result.LoadSeconds += takes.Seconds()
		m.loading[e.Model] = []int{}
		r.plan(happening{at: r.now + takes, kind: happensEnd, number: m.number, resource: e.Resource, request: -1, model: e.Model})
	case pool.JobAssigned:
		return r.placed(string(e.Job), e.Resource, e.Model, e.Warm)
	case pool.SessionAllocated:
		return r.placed(string(e.Session), e.Resource, e.Model, e.Warm)
	}
	return nil
}

func (r *run) placed(id string, resource domain.ResourceID, model domain.ModelKey, warm bool) error {
	i := r.index(id)
	s, m := &r.served[i], r.machines[resource]
	s.Placed, s.Resource = r.now, m.number
	for _, n := range m.loading[""] {
		s.Evicted = append(s.Evicted, r.result.evicted[n])
	}
	delete(m.loading, "")
	if waiting, loading := m.loading[model]; loading {
		if len(waiting) == 0 {
			s.Load = r.load(model)
		}
		m.loading[model] = append(waiting, i)
		return nil
	}
	if warm {
		r.result.WarmHits++
	}
	return r.begin(i, resource)
}

// index finds a request by its ID: they are in order of their rows.
func (r *run) index(id string) int {
	n, _ := strconv.Atoi(id[1:])
	return sort.Search(len(r.Rows), func(i int) bool { return r.Rows[i].Row >= n })
}

func (r *run) begin(i int, resource domain.ResourceID) error {
	r.served[i].Start = r.now
	r.plan(happening{at: r.now + r.Rows[i].Work, kind: happensEnd, number: r.machines[resource].number, resource: resource, request: i})
	if r.session[i] {
		return nil
	}
	return r.give(pool.ReportJobStarted{Job: domain.JobID(r.ids[i]), Resource: resource})
}

func (r *run) load(m domain.ModelKey) time.Duration {
	if d, known := r.loads[m]; known {
		return d
	}
	d := time.Duration(0)
	if r.Placement.Policy != domain.PlaceAllWarm {
		d = r.Loads.Of(m, r.Seed)
	}
	r.loads[m] = d
	return d
}

func (r *run) finish() {
	for _, m := range r.order {
		if m.live {
			m.ended = r.now
		}
		r.result.ResourceSeconds += (m.ended - m.requested).Seconds()
	}
	if r.Resources > 0 {
		r.result.ScaleUps, r.result.ScaleDowns = 0, 0
	}
	r.result.finish(r.Placement.Policy)
}
