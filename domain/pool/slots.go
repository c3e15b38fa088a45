package pool

import (
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
)

// freeSlots are a pool's resources with a free slot while these are given
// out. Many in a queue want the same, so that what was found for one holds for
// the next until a slot is taken.
type freeSlots struct {
	d       *decider
	p       *poolState
	options []placement.Option
	found   map[kind]found
	bounded bool // by the reserve for sessions, see forJobs
	left    int  // slots that may be given, if it is bounded
}

type found struct {
	want   placement.Want
	choice placement.Choice
}

// freeSlots takes the pool's options as they are now. They are good until the next call.
func (d *decider) freeSlots(p *poolState) *freeSlots {
	p.options = p.options[:0]
	for _, r := range p.resources {
		if r.Free() > 0 {
			p.options = append(p.options, p.option(r))
		}
	}
	return &freeSlots{d: d, p: p, options: p.options}
}

func (p *poolState) option(r *Resource) placement.Option {
	return placement.Option{
		Resource: r.ID, Seq: r.Seq, Free: r.Free(), Slots: r.Slots, MaxModels: r.MaxModels, MemoryMiB: r.MemoryMiB,
		Bound: r.Model, Key: r.Key, CanLoad: p.pool.Settings.ModelLoading == domain.LoadHTTP, Models: r.Models,
	}
}

func (f *freeSlots) none() bool { return len(f.options) == 0 || f.bounded && f.left == 0 }

// best is the best slot for a model and overrides, and what was asked of placement.
func (f *freeSlots) best(k kind) (placement.Want, placement.Choice) {
	if known, ok := f.found[k]; ok {
		return known.want, known.choice
	}
	w := f.d.want(f.p, k.model)
	w.Key = k.key
	c := placement.Choose(w, f.options)
	if f.found == nil {
		f.found = map[kind]found{}
	}
	f.found[k] = found{w, c}
	return w, c
}

// taken tells that a slot of a resource was given.
func (f *freeSlots) taken(id domain.ResourceID) {
	f.left--
	r := f.d.s.resources[id]
	i := slices.IndexFunc(f.options, func(o placement.Option) bool { return o.Seq == r.Seq })
	if r.Free() > 0 {
		f.options[i] = f.p.option(r)
	} else {
		f.options = slices.Delete(f.options, i, i+1)
	}
	clear(f.found)
}

func (d *decider) want(p *poolState, m domain.ModelKey) placement.Want {
	known := d.s.Model(p.pool.Settings.ID, m)
	w := placement.Want{Model: m, LoadSeconds: p.pool.expectLoad(known), Now: d.at}
	if known != nil {
		w.MemoryMiB = known.MemoryMiB
	}
	return w
}
