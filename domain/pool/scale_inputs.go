package pool

import (
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// scalingInputs are what a policy of scaling may look at.
func (d *decider) scalingInputs(p *poolState) scaling.Inputs {
	set := p.pool.Settings
	in := scaling.Inputs{
		Now: d.at, Min: set.Scaling.Min, Max: set.Scaling.Max, Buffer: set.Scaling.Buffer, Slots: set.Slots,
		Idle: set.Scaling.Idle.Std(), Occupied: len(p.resources), Change: p.pool.change(d.at),
		Start: p.pool.expectStart(), Lateness: p.pool.demand().Lateness, Advice: p.pool.Advice,
		Idlers: func(w scaling.Wish) ([]scaling.Idle, map[domain.ModelKey]int) { return d.idlers(p, w), p.holders() },
	}
	jobs := d.countWaiting(p, &in)
	for _, u := range p.pool.Unmet {
		if d.at.Before(u.Until) {
			in.Unmet++
		}
	}
	if p.pool.BackoffUntil != nil {
		in.BackoffUntil = *p.pool.BackoffUntil
	}
	perSession, perJob := 1/p.pool.sessionSeconds(), 1/p.pool.jobSeconds()
	for _, r := range p.resources {
		if r.Live() {
			in.Live++
		}
		if r.Key != "" {
			continue // it serves only who asks for the same
		}
		if r.Coming() {
			in.ComingSlots += r.Slots
		}
		in.FreeSlots += r.Free()
		in.Busy += len(r.Users)
		for i := range r.Users {
			in.Freeing += freeing(&r.Users[i], d.at, perSession, perJob)
		}
	}
	if jobs { // the reserve is free for sessions only, so that it is nothing to jobs that wait
		in.FreeSlots = max(0, in.FreeSlots-p.reserve())
	}
	load := p.pool.demand().Fold(d.at, p.tally.busy, p.tally.waiting, 0, p.pool.spans())
	in.Ahead = load.Ahead(p.pool.spans())
	in.Arriving = load.Arriving(in.Ahead)
	if set.ModelLoading == domain.LoadCommandLine {
		// grant saw to these; a resource without a model would serve nobody
		in.Bound, in.Waiting, in.Backlog, in.Unmet, in.Buffer, in.Min = true, 0, 0, 0, 0, 0
	}
	return in
}

// sessionSeconds and jobSeconds are the mean times that one keeps its slot, steadier than what estimates of waits are made of.
func (p *Pool) sessionSeconds() float64 { return p.demand().Session.Or(p.expectHold()) }
func (p *Pool) jobSeconds() float64     { return p.demand().Job.Or(p.expectJob()) }

// freeing is how many slots a second come free of one in use: one in the time
// that one is usually held, or has been held already. Who stays long stays longer.
func freeing(u *User, at time.Time, sessions, jobs float64) float64 {
	rate := sessions
	if u.Kind == UserJob {
		rate = jobs
	}
	if held := at.Sub(u.Since).Seconds(); held*rate > 1 {
		return 1 / held
	}
	return rate
}

// countWaiting counts who waits and could be served by any new resource. A job
// that waits for its next attempt, or for a busy warm copy, is no reason to
// start one: the first cannot begin yet, the second would rather not. It says whether any jobs are due.
func (d *decider) countWaiting(p *poolState, in *scaling.Inputs) bool {
	serve := 0.0
	for _, e := range p.waiting {
		if e.Overrides == nil { // grant saw to the others
			in.Waiting++
			serve += p.pool.sessionSeconds()
		}
	}
	sessions, due := in.Waiting, d.dueJobs(p)
	ahead := map[domain.ModelKey]int{}
	for _, j := range due {
		if !d.waitsForWarm(p, j, ahead[j.Model], d.want(p, j.Model).LoadSeconds) {
			in.Waiting++
			serve += p.pool.jobSeconds()
		}
		ahead[j.Model]++
	}
	in.Backlog = in.Waiting
	if len(due) == lookAhead { // the rest of a long queue is like its beginning
		in.Backlog = sessions + (in.Waiting-sessions)*len(p.queue)/lookAhead
	}
	in.Serve = p.pool.demand().All.Or(holdSecondsUnseen)
	if in.Waiting > 0 {
		in.Serve = max(0.001, serve/float64(in.Waiting))
	}
	return len(due) > 0
}

// idlers are the resources that a wish may stop.
func (d *decider) idlers(p *poolState, w scaling.Wish) []scaling.Idle {
	var all []scaling.Idle
	over := len(p.resources) > p.pool.Settings.Scaling.Max
	for _, r := range p.resources {
		if r.IdleSince == nil || !over && d.at.Sub(*r.IdleSince) < w.Idle {
			continue
		}
		one := scaling.Idle{Resource: r.ID, Since: *r.IdleSince}
		if r.Key == "" {
			one.Slots = r.Slots // to be kept free for whoever comes; those of the others are for few
		}
		for i := range r.Models {
			one.Models = append(one.Models, d.warm(p, &r.Models[i], w.Patterns))
		}
		all = append(all, one)
	}
	return all
}

// worthLately is within what time a use counts as one of just now, in seconds.
const worthLately = 60

// warm is what a model on an idle resource is good for.
func (d *decider) warm(p *poolState, h *Loaded, patterns bool) scaling.Warm {
	m := scaling.Warm{Model: h.Model, Wanted: d.wanted(p, h.Model)}
	known, last := d.s.Model(p.pool.Settings.ID, h.Model), h.LastUsed
	if known != nil && known.LastUsed.After(last) {
		last = known.LastUsed
	}
	load := p.pool.expectLoad(known)
	m.Worth = load / max(worthLately, d.at.Sub(last).Seconds())
	if !patterns || h.State != placement.Loaded {
		return m
	}
	c := p.pool.chosen()
	var w scaling.Window
	if known != nil {
		w = known.Pattern.Window(c.head, c.tail)
	}
	m.Kept = w.Kept(d.at.Sub(last), seconds(p.pool.expectStart()+load), p.pool.Settings.Scaling.Idle.Std())
	return m
}

// wanted says whether somebody waits for the model, or was refused it a moment ago.
func (d *decider) wanted(p *poolState, m domain.ModelKey) bool {
	return p.tally.asked[m] > 0 || d.missed(p, m)
}

// missed says whether a booking for the model was refused a moment ago: its client will come again.
func (d *decider) missed(p *poolState, m domain.ModelKey) bool {
	for _, u := range p.pool.Unmet {
		if u.Model == m && d.at.Before(u.Until) {
			return true
		}
	}
	return false
}
