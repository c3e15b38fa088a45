package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// Place is where someone stands in the queue, and why.
type Place struct {
	Position             int     `json:"position"` // 1 is next
	EstimatedWaitSeconds float64 `json:"estimated_wait_seconds"`
	LowSeconds           float64 `json:"low_seconds"`  // eight waits in ten end from here ...
	HighSeconds          float64 `json:"high_seconds"` // ... to here
	Code                 string  `json:"code"`
	Reason               string  `json:"reason"`

	basis string  // what it was reckoned from
	raw   float64 // before what was learned of such reckonings
}

// shortestWait is the least that is ever estimated, in seconds: who waits has not been served.
const shortestWait = 0.1

// Asker is who waits, as far as its wait depends on that.
type Asker struct {
	Job      bool // else a session
	Ahead    int  // of its kind in front of it
	Sessions int  // that wait, if it is a job: all of them go first
	Model    domain.ModelKey
	Key      string // of the overrides that its resource must have been started with
	Known    *Model // what has been learned of the model; nil: nothing
}

// supply is what a pool has for those who wait, counted in one pass.
type supply struct {
	coming, slots, free int // slots; coming ones are among them
	sessions, jobs      int // that hold one
	first               *Resource
}

func supplyOf(resources []*Resource) supply {
	var s supply
	for _, r := range resources {
		if !r.Live() {
			continue
		}
		s.slots += r.Slots
		if r.Coming() {
			if s.coming += r.Slots; s.first == nil {
				s.first = r
			}
			continue
		}
		s.free += r.Free()
		for i := range r.Users {
			if r.Users[i].Kind == UserJob {
				s.jobs++
			} else {
				s.sessions++
			}
		}
	}
	return s
}

// overdue is the share of the usual time that a start which should be over is expected to take yet.
const overdue = 0.25

// startLeft is what is expected to be left of a start that began then.
func (p *Pool) startLeft(since, now time.Time) float64 {
	usual := p.expectStart()
	return max(usual-now.Sub(since).Seconds(), overdue*usual)
}

// room is how many more resources may be started. Machines that come by themselves are not started.
func (p *Pool) room(occupied int) int {
	if p.Settings.Launcher == domain.LauncherStatic {
		return 0
	}
	return max(0, p.Settings.Scaling.Max-occupied)
}

// reckon says how long someone will wait, from what is learned of the pool's
// starts, sessions and jobs, and what that is reckoned from. What is
// coming, or can be started, serves the first; the others take turns at the
// rate at which slots come free.
func reckon(p *Pool, s supply, occupied int, a Asker, now time.Time) (wait float64, basis string) {
	ahead := a.Ahead + a.Sessions
	failing := p.BackoffUntil != nil && now.Before(*p.BackoffUntil)
	grow := p.room(occupied) * p.Settings.Slots
	switch {
	case ahead < s.coming:
		return p.startLeft(s.first.RequestedAt, now), BasisStart
	case failing:
		return p.BackoffUntil.Sub(now).Seconds() + p.expectStart(), BasisStart
	case ahead < s.coming+grow:
		return p.expectStart(), BasisStart
	}
	hold, turn := p.expectHold(), p.expectTurn()
	mine := hold
	if a.Job {
		mine = turn
	}
	rest := max(0, s.slots+grow-s.sessions-s.jobs)
	rate := float64(s.sessions)/max(hold, 0.001) + float64(s.jobs)/max(turn, 0.001) + float64(rest)/max(mine, 0.001)
	if rate == 0 {
		return mine * float64(ahead+1), BasisTurn
	}
	return float64(ahead+1) / rate, BasisTurn
}

// bound says why the pool does not grow.
func (p *Pool) bound() string {
	if p.Settings.Launcher == domain.LauncherStatic {
		return ", and its machines come by themselves"
	}
	return fmt.Sprintf(", and it may not grow beyond %d resources", p.Settings.Scaling.Max)
}

// PlaceOf says where someone stands, how long that is expected to take, within
// which interval eight waits of ten end, and what it waits for.
func PlaceOf(p *Pool, resources []*Resource, a Asker, now time.Time) Place {
	s := supplyOf(resources)
	place := Place{Position: a.Ahead + 1, Code: CodeNoCapacity}
	place.raw, place.basis = reckon(p, s, len(resources), a, now)
	beside := p.beside(s, resources, a, now)
	if beside.seconds > 0 {
		place.raw, place.basis = beside.seconds, BasisTurn
	}
	place.raw = max(shortestWait, place.raw)
	place.LowSeconds, place.EstimatedWaitSeconds, place.HighSeconds = p.Expectations.of(a.Job, place.basis).expect(place.raw)
	set := p.Settings
	switch ahead := a.Ahead + a.Sessions; {
	case ahead < s.coming:
		place.Reason = fmt.Sprintf("resource %s is %s", s.first.ID, s.first.State)
		if s.first.Note != "" {
			place.Reason += ": " + s.first.Note
		}
		// A cluster's scheduler knows more of its queue than was learned here; it errs by jobs that end early.
		if told := s.first.Expects.Sub(now).Seconds(); told > place.EstimatedWaitSeconds {
			place.EstimatedWaitSeconds, place.HighSeconds = told, max(place.HighSeconds, told)
		}
	case beside.reason != "":
		place.Reason = beside.reason
	case p.BackoffUntil != nil && now.Before(*p.BackoffUntil):
		place.Code = CodeFailing
		place.Reason = fmt.Sprintf("resources of %q fail to start (%s); the next try is at %s", set.ID, p.LastFailure, p.BackoffUntil.Format(time.RFC3339))
	case set.Launcher == domain.LauncherStatic && s.slots == 0:
		place.Reason = fmt.Sprintf("no machine of %q is there; they register themselves", set.ID)
	case p.room(len(resources)) > 0:
		place.Reason = fmt.Sprintf("a resource of %q has to be started", set.ID)
	case set.Scaling.Max == 0 && set.Launcher != domain.LauncherStatic:
		place.Reason = fmt.Sprintf("the limit of %q is 0 resources", set.ID)
	case s.free > 0:
		place.Reason = fmt.Sprintf("the free slots of %q have no room for the model beside those in use", set.ID) + p.bound()
	default:
		place.Reason = fmt.Sprintf("all %d slots of %q are in use", s.slots, set.ID) + p.bound()
	}
	return place
}

// PlaceOfSession is PlaceOf for a waiting session in the state.
func (s *State) PlaceOfSession(id domain.SessionID, now time.Time) Place {
	e := s.sessions[id]
	p := s.of(e.Renderer)
	ahead, _ := slices.BinarySearchFunc(p.waiting, e, bySeq)
	return PlaceOf(p.pool, p.resources, Asker{Ahead: ahead, Model: e.Model, Key: e.Overrides.Key(), Known: s.Model(e.Renderer, e.Model)}, now)
}

// PlaceOfJob is PlaceOf for a queued job in the state; one that waits for other jobs says so.
func (s *State) PlaceOfJob(id domain.JobID, now time.Time) Place {
	j := s.jobs[id]
	p := s.of(j.Renderer)
	if j.State == JobStateWaiting {
		return j.WaitsFor()
	}
	running := 0
	if p.pool.Settings.Quotas != nil {
		running = s.useOf(p, j.Owner).running
	}
	return PlaceOf(p.pool, p.resources, s.asker(p, j), now).HeldBack(p.pool, j, running, now)
}

// asker is a job that stands in the queue, or would.
func (s *State) asker(p *poolState, j *Job) Asker {
	ahead, _ := slices.BinarySearchFunc(p.queue, j, byUrgency)
	parked, _ := slices.BinarySearchFunc(p.parked, j, byUrgency)
	return Asker{Job: true, Ahead: ahead + parked, Sessions: len(p.waiting), Model: j.Model, Known: s.Model(j.Renderer, j.Model)}
}

// queued puts a job, or the parts of it, into the queue and says what it has to expect there: that
// is kept, and compared with what comes. A job that finds a slot in the same
// breath does not wait, and nothing is learned from it.
func (d *decider) queued(id domain.JobID) {
	j := d.s.jobs[id]
	if d.spread(j) {
		return
	}
	p := d.s.of(j.Renderer)
	supply := supplyOf(p.resources)
	e := JobQueued{Job: id, Home: d.home(p, j.rank(), j.Model, "")}
	if a := d.s.asker(p, j); supply.free == 0 || a.Ahead > 0 {
		raw, basis := reckon(p.pool, supply, len(p.resources), a, d.at)
		e.Place, e.Basis, e.RawSeconds = a.Ahead+1, basis, max(shortestWait, raw)
		e.LowSeconds, e.EstimateSeconds, e.HighSeconds = p.pool.Expectations.of(true, basis).expect(e.RawSeconds)
	}
	e.Warning = d.warning(p, j, e.EstimateSeconds)
	d.emit(j.Renderer, e)
}

// whyPlaced is why a slot was chosen, by how the model stood there.
var whyPlaced = map[string]string{
	placement.Warm:   "the model is loaded there",
	placement.OnLoad: "the model is being loaded there",
	placement.Cold:   "no free slot has the model; loading is cheapest here",
}

// placed is the record of a placement.
func (d *decider) placed(p *poolState, outcome, why string, w placement.Want, c placement.Choice) Decision {
	reason := whyPlaced[c.Best.State]
	if name := p.policy.Name(); c.Best.State == placement.Cold && name != domain.PlaceTTFF {
		reason = fmt.Sprintf("the policy %s gives it this one, and the model has to be loaded there", name)
	}
	if why != "" {
		reason += "; " + why
	}
	filtered := c.Filtered // of this choice alone
	if full := len(p.resources) - c.Count - sum(c.Filtered); full > 0 {
		if filtered == nil {
			filtered = map[string]int{}
		}
		filtered[placement.NoFreeSlot] += full
	}
	return Decision{Policy: p.policy.Name(), Version: p.policy.Version(), Outcome: outcome, Reason: reason,
		Candidates: c.Few, Considered: len(p.resources), Filtered: filtered, Costs: map[string]float64{"load_seconds": w.LoadSeconds}}
}

func (d *decider) evicted(p *poolState, m domain.ModelKey, w placement.Want, best *placement.Candidate) Decision {
	r := d.s.resources[best.Resource]
	costs := map[string]float64{"load_seconds": w.LoadSeconds}
	if h := r.Holds(m); h != nil {
		costs["reload_seconds"] = h.LoadSeconds
	}
	reason := "unused, and least worth its load time for how much it is asked for, of what %s holds"
	if set := p.pool.Settings.Placement; set.Policy != domain.PlaceTTFF || set.Number("demand") == 0 {
		reason = "unused for longest of what %s holds"
	}
	return Decision{Policy: p.policy.Name(), Version: p.policy.Version(), Outcome: "evicted",
		Reason: fmt.Sprintf(reason, best.Resource), Considered: len(r.Models), Costs: costs}
}

// noSlot is the record of a booking that found no slot.
func (d *decider) noSlot(id domain.RendererID, outcome string, m domain.ModelKey, reason string) Decision {
	p := d.s.of(id)
	filtered := map[string]int{}
	for _, r := range p.resources {
		switch {
		case r.State == ResourceStateReady && r.Free() == 0:
			filtered[placement.NoFreeSlot]++
		case r.State == ResourceStateReady:
			filtered[placement.ModelsInUse]++
		default:
			filtered[string(r.State)]++
		}
	}
	w := d.want(p, m)
	return Decision{Policy: p.policy.Name(), Version: p.policy.Version(), Outcome: outcome, Reason: reason,
		Considered: len(p.resources), Filtered: filtered,
		Costs: map[string]float64{"load_seconds": w.LoadSeconds, "start_seconds": p.pool.expectStart(), "hold_seconds": p.pool.expectHold()}}
}

func sum(m map[string]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}
