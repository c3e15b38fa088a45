package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rendering-resource-manager/rrm/domain"
)

// dumbFleet is what a Fleet should be: everything sorted anew.
func dumbFleet(all map[int64]*Option) string {
	var f Fleet
	for _, seq := range slices.Sorted(maps.Keys(all)) {
		o := all[seq]
		f.All = append(f.All, o)
		if o.Free > 0 {
			f.Free = append(f.Free, o)
		}
		for _, h := range o.Models {
			if f.Holders == nil {
				f.Holders = map[domain.ModelKey][]*Option{}
			}
			f.Holders[h.Model] = append(f.Holders[h.Model], o)
		}
	}
	return fleetText(&f)
}

// fleetText names the very options: one that was replaced must not stay anywhere.
func fleetText(f *Fleet) string {
	text := ""
	line := func(name string, list []*Option) {
		text += name
		for _, o := range list {
			text += fmt.Sprintf(" %s(%p)", o.Resource, o)
		}
		text += "\n"
	}
	line("all", f.All)
	line("free", f.Free)
	for _, m := range slices.Sorted(maps.Keys(f.Holders)) {
		line(string(m), f.Holders[m])
	}
	return text
}

func TestAFleetIsWhatSortingGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f Fleet
		all := map[int64]*Option{}
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			seq := int64(rapid.IntRange(1, 8).Draw(t, "seq"))
			before := all[seq]
			var after *Option
			if rapid.IntRange(0, 3).Draw(t, "stays") > 0 {
				after = &Option{Resource: domain.ResourceID(fmt.Sprint("r", seq)), Seq: seq, Free: rapid.IntRange(0, 2).Draw(t, "free")}
				for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom([]domain.ModelKey{"A", "B", "C"}), 0, 3, rapid.ID).Draw(t, "models") {
					after.Models = append(after.Models, Held{Model: m})
				}
				all[seq] = after
			} else {
				delete(all, seq)
			}
			f.Change(before, after)
			if got, want := fleetText(&f), dumbFleet(all); got != want {
				t.Fatalf("the fleet is\n%s and sorting gives\n%s", got, want)
			}
		}
	})
}

// queueText names the very requests.
func queueText(requests []*Request, lines []*Line) string {
	text := ""
	list := func(name string, requests []*Request) {
		text += name
		for _, r := range requests {
			text += fmt.Sprintf(" %s(%p)", r.ID, r)
		}
		text += "\n"
	}
	list("all", requests)
	for _, l := range lines {
		list(fmt.Sprintf("%s %q", l.Model, l.Key), l.Requests)
	}
	return text
}

func dumbQueue(all map[int64]*Request) string {
	requests := slices.Collect(maps.Values(all))
	slices.SortFunc(requests, func(a, b *Request) int {
		switch {
		case !a.Due.IsZero() && !b.Due.IsZero() && !a.Due.Equal(b.Due):
			return a.Due.Compare(b.Due)
		case a.Due.IsZero() != b.Due.IsZero():
			return cmp.Compare(b.Due.Unix(), a.Due.Unix()) // a zero time is before all others, and its owner comes last
		}
		return cmp.Compare(a.Seq, b.Seq)
	})
	var lines []*Line
	for _, r := range requests {
		i := slices.IndexFunc(lines, func(l *Line) bool { return l.Model == r.Model && l.Key == r.Key })
		if i < 0 {
			lines, i = append(lines, &Line{Model: r.Model, Key: r.Key}), len(lines)
		}
		lines[i].Requests = append(lines[i].Requests, r)
	}
	slices.SortFunc(lines, func(a, b *Line) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.Key, b.Key))
	})
	return queueText(requests, lines)
}

func aRequest(t *rapid.T, seq int64) *Request {
	r := &Request{ID: fmt.Sprint("q", seq), Seq: seq, Model: rapid.SampledFrom([]domain.ModelKey{"A", "B"}).Draw(t, "model"),
		Key: rapid.SampledFrom([]string{"", "", "other"}).Draw(t, "key")}
	if rapid.IntRange(0, 2).Draw(t, "deadline") == 0 {
		r.Due = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "due")) * time.Minute)
	}
	return r
}

func TestAQueueIsWhatSortingGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q Queue
		all := map[int64]*Request{}
		for n := range int64(rapid.IntRange(1, 60).Draw(t, "changes")) {
			known := slices.Sorted(maps.Keys(all))
			if len(known) > 0 && rapid.IntRange(0, 2).Draw(t, "goes") == 0 {
				r := all[rapid.SampledFrom(known).Draw(t, "who")]
				copied := *r // the pool keeps another copy of the same
				q.Remove(&copied)
				delete(all, r.Seq)
			} else {
				r := aRequest(t, n+1)
				q.Add(r)
				all[r.Seq] = r
			}
			if got, want := queueText(q.Requests, q.Lines), dumbQueue(all); got != want {
				t.Fatalf("the queue is\n%s and sorting gives\n%s", got, want)
			}
			for _, m := range []domain.ModelKey{"A", "B"} {
				for _, key := range []string{"", "other"} {
					i := slices.IndexFunc(q.Lines, func(l *Line) bool { return l.Model == m && l.Key == key })
					if l := q.Line(m, key); (i < 0) != (l == nil) || i >= 0 && l != q.Lines[i] {
						t.Fatalf("the line of %s %q is %+v", m, key, l)
					}
				}
			}
		}
	})
}

func TestAQueueReplacesAndForgets(t *testing.T) {
	var q Queue
	a := &Request{ID: "a", Seq: 1, Model: "A"}
	again := *a
	q.Add(a)
	q.Add(&again)
	if len(q.Requests) != 1 || q.Requests[0] != &again || len(q.Lines) != 1 || q.Lines[0].Requests[0] != &again {
		t.Errorf("%+v", q)
	}
	q.Remove(&Request{ID: "x", Seq: 9, Model: "X"}) // nobody
	q.Remove(a)
	q.Remove(a)
	if len(q.Requests) != 0 || len(q.Lines) != 0 {
		t.Errorf("%+v", q)
	}
}
