package pool

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// What the tests need to see of the state, and the program does not.

// AllSessions are the sessions in memory, by Seq.
func AllSessions(s *State) []*Session { return sorted(s.sessions, bySeq[*Session]) }

// AllJobs are the jobs in memory, by Seq.
func AllJobs(s *State) []*Job { return sorted(s.jobs, bySeq[*Job]) }

// AllResources are the resources in memory, by Seq.
func AllResources(s *State) []*Resource { return sorted(s.resources, bySeq[*Resource]) }

// AllModels are the models of all pools, by key.
func AllModels(s *State) []*Model {
	var all []*Model
	for _, id := range slices.Sorted(maps.Keys(s.pools)) {
		all = append(all, sorted(s.pools[id].models, func(a, b *Model) int { return cmp.Compare(a.Model, b.Model) })...)
	}
	return all
}

// AllPools are the pools, removed ones too, by ID.
func AllPools(s *State) []*Pool {
	var all []*Pool
	for _, id := range slices.Sorted(maps.Keys(s.pools)) {
		if p := s.pools[id].pool; p != nil {
			all = append(all, p)
		}
	}
	return all
}

// Waiting are the sessions that wait for a slot, in the order in which they are served.
func Waiting(s *State, r domain.RendererID) []*Session { return s.of(r).waiting }

func sorted[K comparable, E any](m map[K]E, order func(a, b E) int) []E {
	return slices.SortedFunc(maps.Values(m), order)
}

// Entities are all entities with their keys.
func Entities(s *State) map[Key]any {
	all := map[Key]any{{ViewService, serviceID}: s.service}
	add := func(e any) { all[keyOf(e)] = e }
	for _, e := range AllPools(s) {
		add(e)
	}
	for _, e := range s.resources {
		add(e)
	}
	for _, e := range s.sessions {
		add(e)
	}
	for _, e := range s.jobs {
		add(e)
	}
	for _, e := range AllModels(s) {
		add(e)
	}
	for _, p := range s.pools {
		for _, e := range p.owners {
			add(e)
		}
	}
	return all
}

// Rows are all entities as JSON, as the live views would hold them.
func Rows(s *State) map[Key]string {
	rows := map[Key]string{}
	for k, e := range Entities(s) {
		b, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		rows[k] = string(b)
	}
	return rows
}

// Orders are all orders that the state keeps, one line for each that is not empty.
func Orders(s *State) []string {
	var all []string
	for _, id := range slices.Sorted(maps.Keys(s.pools)) {
		p := s.pools[id]
		all = line(all, id, "resources", p.resources, func(e *Resource) any { return e.ID })
		all = line(all, id, "waiting", p.waiting, func(e *Session) any { return e.ID })
		all = line(all, id, "holding", p.holding, func(e *Session) any { return e.ID })
		all = line(all, id, "queue", p.queue, func(e *Job) any { return e.ID })
		all = line(all, id, "parked", p.parked, func(e *Job) any { return e.ID })
		all = line(all, id, "timed", p.timed, func(e *Job) any { return e.ID })
		all = line(all, id, "blocked", p.blocked, func(e *Job) any { return e.ID })
		all = line(all, id, "free", p.fleet.Free, func(o *placement.Option) any { return o.Resource })
		all = line(all, id, "all", p.fleet.All, func(o *placement.Option) any { return fmt.Sprint(o.Resource, o.Free, o.Models, o.Users) })
		for _, m := range slices.Sorted(maps.Keys(p.fleet.Holders)) {
			all = line(all, id, "holders of "+string(m), p.fleet.Holders[m], func(o *placement.Option) any { return fmt.Sprint(o.Resource, o.Free) })
		}
		for _, q := range p.queues {
			all = line(all, id, fmt.Sprint("rank ", q.Rank), q.Requests, func(r *placement.Request) any { return *r })
			for _, l := range q.Lines {
				all = line(all, id, fmt.Sprintf("rank %d %s %s", q.Rank, l.Model, l.Key), l.Requests, func(r *placement.Request) any { return r.ID })
			}
		}
		if t := p.tally; t.busy != 0 || t.waiting != 0 || len(t.asked) > 0 {
			all = append(all, fmt.Sprintf("%s asks for %v", id, t))
		}
		all = line(all, id, "copies", slices.Sorted(maps.Keys(p.copies)), func(m domain.ModelKey) any { return fmt.Sprint(m, " ", p.copies[m]) })
	}
	for _, id := range slices.Sorted(maps.Keys(s.dependents)) {
		all = line(all, domain.RendererID(id), "dependents", s.dependents[id], func(e *Job) any { return e.ID })
	}
	return all
}

// dueTime is a job's deadline if it can make it, else the end of time.
func dueTime(j *Job) int64 {
	if j.Deadline == nil || j.Late {
		return math.MaxInt64
	}
	return j.Deadline.UnixNano()
}

// Ended are those in line to be forgotten.
func Ended(s *State) string { return fmt.Sprint(s.ended) }

func line[E any](all []string, of domain.RendererID, name string, list []E, id func(E) any) []string {
	if len(list) == 0 {
		return all
	}
	text := fmt.Sprintf("%s %s:", of, name)
	for _, e := range list {
		text += fmt.Sprint(" ", id(e))
	}
	return append(all, text)
}

// SortedOrders are what Orders should be: every order made anew by sorting what the maps hold.
func SortedOrders(s *State) []string {
	fresh := NewState()
	for _, id := range slices.Sorted(maps.Keys(s.pools)) {
		p := fresh.of(id)
		for _, r := range AllResources(s) {
			if r.Renderer == id && !r.Ended {
				p.resources = append(p.resources, r)
				p.fleet.Change(nil, r.option())
			}
		}
		for _, e := range AllSessions(s) {
			if e.Renderer == id && e.Waiting() {
				p.waiting = append(p.waiting, e)
				p.requeue(0, nil, rankSession, e.request())
			}
			if e.Renderer == id && e.Holding() {
				p.holding = append(p.holding, e)
			}
		}
		for _, j := range AllJobs(s) {
			if j.Renderer == id && j.State == JobStateQueued {
				p.queue = append(p.queue, j)
			}
			if j.Renderer == id && j.State == JobStateWaiting {
				p.blocked = append(p.blocked, j)
			}
		}
		slices.SortStableFunc(p.queue, func(a, b *Job) int {
			if c := cmp.Compare(b.Priority, a.Priority); c != 0 {
				return c
			}
			return cmp.Compare(dueTime(a), dueTime(b))
		})
		for _, j := range AllJobs(s) {
			if j.Renderer == id && j.Deadline != nil && len(j.Parts) == 0 && (j.State == JobStateQueued || j.State == JobStateWaiting) {
				p.timed = append(p.timed, j)
			}
		}
		slices.SortStableFunc(p.timed, func(a, b *Job) int { return a.Deadline.Compare(*b.Deadline) })
		for _, r := range p.resources {
			p.tally.busy += len(r.Users)
		}
		p.tally.waiting = len(p.waiting) + len(p.queue)
		p.tally.asked = map[domain.ModelKey]int{}
		for _, e := range p.waiting {
			p.tally.asked[e.Model]++
		}
		for _, j := range append(slices.Clone(p.queue), p.blocked...) {
			p.tally.asked[j.Model]++
		}
		park(s, id, p)
		for _, j := range AllJobs(s) {
			if r := s.resources[j.Resource]; j.Renderer == id && j.Holding() && r.State == ResourceStateReady {
				p.copies[j.Model]++
			}
		}
	}
	for _, j := range AllJobs(s) {
		if j.State == JobStateWaiting {
			for _, after := range j.Pending {
				fresh.dependents[after] = append(fresh.dependents[after], j)
			}
		}
	}
	return Orders(fresh)
}

// Uses are what the owners of a pool use, as it is kept (empty where nobody asked) and counted anew.
func Uses(s *State, r domain.RendererID) (kept, counted string) {
	p := s.of(r)
	if p.uses == nil {
		return "", ""
	}
	fresh := map[domain.Owner]use{}
	add := func(o domain.Owner, u use) {
		f := fresh[o]
		f.sessions, f.holding = f.sessions+u.sessions, f.holding+u.holding
		f.running, f.queued = f.running+u.running, f.queued+u.queued
		if f != (use{}) {
			fresh[o] = f
		}
	}
	for _, e := range AllSessions(s) {
		if e.Renderer == r {
			add(e.Owner, e.use())
		}
	}
	for _, j := range AllJobs(s) {
		if j.Renderer == r {
			add(j.Owner, j.use())
		}
	}
	return fmt.Sprint(p.uses), fmt.Sprint(fresh)
}

// park takes those out of the queue whose owner may not have more running.
func park(s *State, id domain.RendererID, p *poolState) {
	running := map[domain.Owner]int{}
	for _, j := range AllJobs(s) {
		if j.Renderer == id && j.Holding() {
			running[j.Owner]++
		}
	}
	all := p.queue
	p.queue = nil
	for _, j := range all {
		var limit *int
		if pool := s.pools[id].pool; pool != nil {
			limit = pool.Settings.Quotas.Of(j.Owner).JobsRunning
		}
		if limit != nil && running[j.Owner] >= *limit {
			p.parked = append(p.parked, j)
			continue
		}
		running[j.Owner]++
		p.queue = append(p.queue, j)
		p.requeue(0, nil, j.rank(), j.request())
	}
}

// ExpectLoad is what a load is expected to take, in seconds.
func ExpectLoad(s *State, r domain.RendererID, m domain.ModelKey) float64 {
	return s.Pool(r).expectLoad(s.Model(r, m))
}
