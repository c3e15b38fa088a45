package pool

import (
	"maps"
	"reflect"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
)

// lane is the queued jobs of one owner with a quota of running jobs. The first
// of them, as many as may run beside those that do, stand in the queue; the
// others are parked. So however many an owner has queued, nobody has to look past them.
type lane struct {
	jobs  []*Job // in order
	ready int    // of them stand in the queue
}

// join lets a job stand in the queue, or in its owner's lane.
func (p *poolState) join(j *Job) {
	if p.runLimit(j.Owner) == nil {
		p.admit(j)
		return
	}
	l := p.lanes[j.Owner]
	if l == nil {
		if p.lanes == nil {
			p.lanes = map[domain.Owner]*lane{}
		}
		l = &lane{}
		p.lanes[j.Owner] = l
	}
	i, _ := slices.BinarySearchFunc(l.jobs, j, byUrgency)
	l.jobs = slices.Insert(l.jobs, i, j)
	if i < l.ready {
		l.ready++
		p.admit(j)
	} else {
		p.parked = insert(p.parked, j, byUrgency)
	}
}

// quit takes a job out of wherever it stands.
func (p *poolState) quit(j *Job) {
	l := p.lanes[j.Owner]
	if l == nil {
		p.withdraw(j)
		return
	}
	i, found := slices.BinarySearchFunc(l.jobs, j, byUrgency)
	if !found {
		return
	}
	l.jobs = without(l.jobs, j, byUrgency)
	if i < l.ready {
		l.ready--
		p.withdraw(j)
	} else {
		p.parked = without(p.parked, j, byUrgency)
	}
	if len(l.jobs) == 0 {
		delete(p.lanes, j.Owner)
	}
}

// level lets as many of an owner's jobs stand in the queue as its quota leaves.
func (p *poolState) level(o domain.Owner) {
	l := p.lanes[o]
	if l == nil {
		return
	}
	want := min(len(l.jobs), max(0, *p.runLimit(o)-p.uses[o].running))
	for ; l.ready > want; l.ready-- {
		j := l.jobs[l.ready-1]
		p.withdraw(j)
		p.parked = insert(p.parked, j, byUrgency)
	}
	for ; l.ready < want; l.ready++ {
		j := l.jobs[l.ready]
		p.parked = without(p.parked, j, byUrgency)
		p.admit(j)
	}
}

func (p *poolState) admit(j *Job) {
	p.queue = insert(p.queue, j, byUrgency)
	p.requeue(0, nil, j.rank(), j.request())
}

func (p *poolState) withdraw(j *Job) {
	p.queue = without(p.queue, j, byUrgency)
	p.gone = j.asRequest()
	p.requeue(j.rank(), &p.gone, 0, nil)
}

// runLimit is how many jobs an owner may have running; nil: any number.
func (p *poolState) runLimit(o domain.Owner) *int {
	if p.pool == nil || p.pool.Settings.Quotas == nil {
		return nil
	}
	return p.pool.Settings.Quotas.Of(o).JobsRunning
}

// requota puts everybody into their place after the quotas were changed.
func (s *State) requota(p *poolState, before, after *domain.QuotaSettings) {
	if before == after || reflect.DeepEqual(before, after) {
		return
	}
	s.useOf(p, "") // from now on the owners' counts are kept
	all := slices.Concat(p.queue, p.parked)
	for _, q := range p.queue {
		p.requeue(q.rank(), q.request(), 0, nil)
	}
	p.queue, p.parked, p.lanes = nil, nil, nil
	slices.SortFunc(all, byUrgency)
	for _, j := range all {
		p.join(j)
	}
	for _, o := range slices.Sorted(maps.Keys(p.lanes)) {
		p.level(o)
	}
}
