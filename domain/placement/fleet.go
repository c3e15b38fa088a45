package placement

import (
	"cmp"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Fleet is a pool's ready resources as placement sees them, in the orders in
// which it looks at them, so that no choice has to go through all of them.
type Fleet struct {
	All     []*Option // by Seq
	Free    []*Option // those with a free slot, by Seq
	Holders map[domain.ModelKey][]*Option

	before  Option // room for Before
	models  []Held // of it
	changes int64  // how often a resource came or went
}

// Before finds the option of a resource that is there, and copies it to be
// given to Change when the option itself was changed in place. The copy holds until the next.
func (f *Fleet) Before(seq int64) (now, before *Option) {
	i, found := find(f.All, seq)
	if !found {
		return nil, nil
	}
	now = f.All[i]
	f.models = append(f.models[:0], now.Models...)
	f.before = *now
	f.before.Models, f.before.Users = f.models, nil
	return now, &f.before
}

// Change takes in a resource in place of what it was before; nil: it was or is not there.
func (f *Fleet) Change(before, after *Option) {
	if f.Holders == nil {
		f.Holders = map[domain.ModelKey][]*Option{}
	}
	if (before == nil) != (after == nil) {
		f.changes++
	}
	if before != nil {
		if after == nil {
			f.All = take(f.All, before)
		}
		if before.Free > 0 && (after == nil || after.Free == 0) {
			f.Free = take(f.Free, before)
		}
		for i := range before.Models {
			m := before.Models[i].Model
			if after != nil && after.Holds(m) != nil {
				continue
			}
			if left := take(f.Holders[m], before); len(left) == 0 {
				delete(f.Holders, m)
			} else {
				f.Holders[m] = left
			}
		}
	}
	if after == nil {
		return
	}
	f.All = give(f.All, after)
	if after.Free > 0 {
		f.Free = give(f.Free, after)
	}
	for i := range after.Models {
		m := after.Models[i].Model
		f.Holders[m] = give(f.Holders[m], after)
	}
}

func find(list []*Option, seq int64) (int, bool) {
	return slices.BinarySearchFunc(list, seq, func(o *Option, seq int64) int { return cmp.Compare(o.Seq, seq) })
}

// give puts an option into its place; one of the same resource is replaced.
func give(list []*Option, o *Option) []*Option {
	i, found := find(list, o.Seq)
	if found {
		list[i] = o
		return list
	}
	return slices.Insert(list, i, o)
}

func take(list []*Option, o *Option) []*Option {
	if i, found := find(list, o.Seq); found {
		return slices.Delete(list, i, i+1)
	}
	return list
}
