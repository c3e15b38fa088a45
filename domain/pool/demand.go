package pool

import "github.com/rendering-resource-manager/rrm/domain"

// learnDemand folds an event into what is known of the demand on its pool.
// Most events change nothing of it.
func (s *State) learnDemand(r Recorded, p *Pool) {
	t := &s.of(p.Settings.ID).tally
	known := p.Load
	if known == nil && t.busy+t.waiting > 0 || known != nil && (t.busy != known.Busy || t.waiting != known.Waiting) {
		p.learned().Update(r.At, t.busy, t.waiting, 0, p.spans())
	}
	goal := p.chosen().goal
	if goal == nil {
		return
	}
	switch e := r.Event.(type) {
	case SessionAllocated:
		p.learn(p.demand().Waited(goal.Late(seconds(e.Waited))))
	case JobAssigned:
		if j := s.jobs[e.Job]; j != nil && j.QueuedAt != nil && e.Attempt == 1 {
			p.learn(p.demand().Waited(goal.Late(r.At.Sub(*j.QueuedAt))))
		}
	case SessionRejected:
		if e.Code == CodeNoCapacity {
			_, miss := goal.Late(0)
			p.learn(p.demand().Waited(true, miss))
		}
	}
}

// arrive counts a request that has just been put into the queue. Who was
// refused and asks again was counted before, and so was a job that is tried again.
func (s *State) arrive(r Recorded) {
	id := rendererOf(r.Stream)
	s.changePool(id, func(p *Pool) {
		t := &s.of(id).tally
		p.learned().Update(r.At, t.busy, t.waiting, 1, p.spans())
	})
}

// holders counts the live resources that have each model loaded or are loading it.
func (p *poolState) holders() map[domain.ModelKey]int {
	n := map[domain.ModelKey]int{}
	for _, r := range p.resources {
		if r.Live() {
			for i := range r.Models {
				n[r.Models[i].Model]++
			}
		}
	}
	return n
}
