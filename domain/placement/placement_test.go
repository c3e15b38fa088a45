package placement

import (
	"cmp"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rendering-resource-manager/rrm/domain"
)

var now = time.Date(2026, 3, 2, 14, 0, 0, 0, time.UTC)

// on is a resource with these models; it takes any model, and has one free slot of two.
func on(id domain.ResourceID, seq int64, models ...Held) Option {
	return Option{Resource: id, Seq: seq, Free: 1, Slots: 2, MaxModels: 2, CanLoad: true, Models: models}
}

func loaded(m domain.ModelKey, seconds float64, users int) Held {
	return Held{Model: m, State: Loaded, Since: now.Add(-time.Hour), LastUsed: now.Add(-time.Minute), LoadSeconds: seconds, Users: users}
}

func loads(m domain.ModelKey, seconds, since float64) Held {
	return Held{Model: m, State: Loading, Since: now.Add(-time.Duration(since * float64(time.Second))), LoadSeconds: seconds, Users: 1}
}

func (o Option) with(change func(*Option)) Option {
	change(&o)
	return o
}

func (h Held) mib(n int) Held {
	h.MemoryMiB = n
	return h
}

func (h Held) unusedFor(d time.Duration) Held {
	h.LastUsed = now.Add(-d)
	return h
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name     string
		memory   int
		options  []Option
		best     domain.ResourceID
		state    string
		seconds  float64
		evicts   []domain.ModelKey
		filtered map[string]int
	}{
		{name: "nothing there", filtered: map[string]int{}},
		{name: "the warm one, also if it is more used and younger",
			options: []Option{on("r1", 1).with(func(o *Option) { o.Free = 2 }), on("r2", 2, loaded("A", 5, 1))}, best: "r2", state: Warm},
		{name: "no slot of the warm one is free",
			options: []Option{on("r1", 1), on("r2", 2, loaded("A", 5, 2)).with(func(o *Option) { o.Free = 0 })},
			best:    "r1", state: Cold, seconds: 20, filtered: map[string]int{NoFreeSlot: 1}},
		{name: "a load under way is cheaper than a new one",
			options: []Option{on("r1", 1), on("r2", 2, loads("A", 20, 15))}, best: "r2", state: OnLoad, seconds: 5},
		{name: "a load that is overdue is still better than a new one, and never better than warm",
			options: []Option{on("r1", 1), on("r2", 2, loads("A", 20, 500))}, best: "r2", state: OnLoad, seconds: 0.001},
		{name: "a load that takes longer than another is joined no more",
			options: []Option{on("r1", 1), on("r2", 2, loads("A", 60, 1))}, best: "r1", state: Cold, seconds: 20},
		{name: "loaded goes before nearly loaded",
			options: []Option{on("r1", 1, loads("A", 20, 500)), on("r2", 2, loaded("A", 20, 0))}, best: "r2", state: Warm},
		{name: "an empty place before an eviction",
			options: []Option{on("r1", 1, loaded("B", 1, 0), loaded("C", 2, 0)), on("r2", 2, loaded("B", 1, 1))}, best: "r2", state: Cold, seconds: 20},
		{name: "the cheapest to bring back is evicted",
			options: []Option{on("r1", 1, loaded("B", 9, 0), loaded("C", 2, 0))}, best: "r1", state: Cold, seconds: 22, evicts: []domain.ModelKey{"C"}},
		{name: "what is in use stays, however cheap",
			options: []Option{on("r1", 1, loaded("B", 9, 0), loaded("C", 2, 1))}, best: "r1", state: Cold, seconds: 29, evicts: []domain.ModelKey{"B"}},
		{name: "of equally cheap ones the longest unused goes",
			options: []Option{on("r1", 1, loaded("B", 2, 0).unusedFor(time.Minute), loaded("C", 2, 0).unusedFor(time.Hour))},
			best:    "r1", state: Cold, seconds: 22, evicts: []domain.ModelKey{"C"}},
		{name: "all places are taken by models in use",
			options: []Option{on("r1", 1, loaded("B", 9, 1), loaded("C", 2, 1))}, filtered: map[string]int{ModelsInUse: 1}},
		{name: "memory: as many are evicted as are needed", memory: 700,
			options: []Option{on("r1", 1, loaded("B", 3, 0).mib(400), loaded("C", 2, 0).mib(400)).with(func(o *Option) { o.MemoryMiB, o.MaxModels = 1000, 5 })},
			best:    "r1", state: Cold, seconds: 25, evicts: []domain.ModelKey{"C", "B"}},
		{name: "memory: exactly enough is enough", memory: 600,
			options: []Option{on("r1", 1, loaded("B", 3, 0).mib(400)).with(func(o *Option) { o.MemoryMiB = 1000 })}, best: "r1", state: Cold, seconds: 20},
		{name: "memory: what is in use is too much", memory: 601,
			options:  []Option{on("r1", 1, loaded("B", 3, 1).mib(400)).with(func(o *Option) { o.MemoryMiB = 1000 })},
			filtered: map[string]int{TooLarge: 1}},
		{name: "memory: no limit known", memory: 1 << 20,
			options: []Option{on("r1", 1, loaded("B", 3, 1).mib(400))}, best: "r1", state: Cold, seconds: 20},
		{name: "bound to another model for life",
			options: []Option{on("r1", 1, loaded("B", 3, 0)).with(func(o *Option) { o.Bound = "B" })}, filtered: map[string]int{OtherModel: 1}},
		{name: "bound to the model",
			options: []Option{on("r1", 1, loaded("A", 0, 0)).with(func(o *Option) { o.Bound = "A" })}, best: "r1", state: Warm},
		{name: "no loading: cold costs nothing, and warm still goes first",
			options: []Option{on("r1", 1).with(func(o *Option) { o.CanLoad, o.Free = false, 2 }), on("r2", 2, loaded("A", 0, 1)).with(func(o *Option) { o.CanLoad = false })},
			best:    "r2", state: Warm},
		{name: "no loading: an empty place before an eviction, also where both cost nothing",
			options: []Option{on("r1", 1, loaded("B", 0, 0), loaded("C", 0, 0)).with(func(o *Option) { o.CanLoad = false }), on("r2", 2).with(func(o *Option) { o.CanLoad = false })},
			best:    "r2", state: Cold},
		{name: "a tie goes to the fewest used", options: []Option{on("r1", 1), on("r2", 2).with(func(o *Option) { o.Free = 2 })}, best: "r2", state: Cold, seconds: 20},
		{name: "then to the oldest", options: []Option{on("r2", 2), on("r1", 1)}, best: "r1", state: Cold, seconds: 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Choose(Want{Model: "A", LoadSeconds: 20, MemoryMiB: c.memory, Now: now}, c.options)
			var best Candidate
			if got.Best != nil {
				best = *got.Best
			}
			if best.Resource != c.best || best.State != c.state || math.Abs(best.Seconds-c.seconds) > 1e-9 || !slices.Equal(best.Evicts, c.evicts) {
				t.Errorf("best is %+v", best)
			}
			for why, n := range c.filtered {
				if got.Filtered[why] != n {
					t.Errorf("left out are %v, not %v", got.Filtered, c.filtered)
				}
			}
		})
	}
}

func TestChooseKeepsTheFewBest(t *testing.T) {
	var options []Option
	for i := range 10 {
		options = append(options, on(domain.ResourceID(rune('a'+i)), int64(10-i)))
	}
	c := Choose(Want{Model: "A", LoadSeconds: 20, Now: now}, options)
	if c.Count != 10 || len(c.Few) != few || c.Few[0].Resource != "j" || c.Few[3].Resource != "g" {
		t.Errorf("of %d candidates the few are %+v", c.Count, c.Few)
	}
}

// dumb finds what Choose should: it tries every option with every set of evictions.
func dumb(w Want, options []Option) (best *Candidate) {
	for i := range options {
		for _, c := range dumbCandidates(w, &options[i]) {
			if best == nil || better(&c, best) {
				best = &c
			}
		}
	}
	return best
}

func better(a, b *Candidate) bool {
	if aWarm, bWarm := a.State == Warm, b.State == Warm; aWarm != bWarm {
		return aWarm
	}
	if math.Abs(a.Seconds-b.Seconds) > 1e-6 {
		return a.Seconds < b.Seconds
	}
	return cmp.Or(cmp.Compare(len(a.Evicts), len(b.Evicts)), cmp.Compare(b.Free, a.Free), cmp.Compare(a.seq, b.seq)) < 0
}

// dumbCandidates are one option's ways to take the model in. Which models go is
// given by the policy (the cheapest first, until there is room): that it stops
// as soon as there is room, and no sooner, is what is tried here.
func dumbCandidates(w Want, o *Option) []Candidate {
	c := Candidate{Resource: o.Resource, Free: o.Free, seq: o.Seq}
	if o.Free < 1 || o.Bound != "" && o.Bound != w.Model {
		return nil
	}
	for _, h := range o.Models {
		if h.Model == w.Model && h.State == Loaded {
			c.State = Warm
			return []Candidate{c}
		}
		if h.Model == w.Model {
			c.State, c.Seconds = OnLoad, math.Max(0.001, h.LoadSeconds-w.Now.Sub(h.Since).Seconds())
			return []Candidate{c}
		}
	}
	var order []Held
	for _, h := range o.Models {
		if h.Users == 0 {
			order = append(order, h)
		}
	}
	slices.SortStableFunc(order, func(a, b Held) int {
		return cmp.Or(cmp.Compare(a.LoadSeconds, b.LoadSeconds), a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Model, b.Model))
	})
	for n := 0; n <= len(order); n++ {
		places, memory := o.MaxModels, o.MemoryMiB-w.MemoryMiB
		cost := w.LoadSeconds
		var gone []domain.ModelKey
		for _, h := range o.Models {
			if k := slices.IndexFunc(order, func(g Held) bool { return g.Model == h.Model }); k >= 0 && k < n {
				cost += h.LoadSeconds
				continue
			}
			places, memory = places-1, memory-h.MemoryMiB
		}
		for _, h := range order[:n] {
			gone = append(gone, h.Model)
		}
		if places < 1 || o.MemoryMiB > 0 && memory < 0 {
			continue
		}
		c.State, c.Seconds, c.Evicts = Cold, cost, gone
		if !o.CanLoad {
			c.Seconds = 0
		}
		return []Candidate{c}
	}
	return nil
}

func anOption(t *rapid.T, i int, canLoad bool) Option {
	o := Option{Resource: domain.ResourceID(rune('a' + i)), Seq: int64(i + 1), Slots: 3, CanLoad: canLoad,
		Free: rapid.IntRange(0, 3).Draw(t, "free"), MaxModels: rapid.IntRange(1, 4).Draw(t, "places"),
		MemoryMiB: rapid.SampledFrom([]int{0, 1000}).Draw(t, "memory")}
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom([]domain.ModelKey{"A", "B", "C", "D"}), 0, o.MaxModels, rapid.ID).Draw(t, "models") {
		o.Models = append(o.Models, Held{Model: m, State: rapid.SampledFrom([]string{Loaded, Loading}).Draw(t, "state"),
			Since:       now.Add(-time.Duration(rapid.IntRange(0, 30).Draw(t, "since")) * time.Second),
			LastUsed:    now.Add(-time.Duration(rapid.IntRange(0, 3).Draw(t, "used")) * time.Minute),
			LoadSeconds: float64(rapid.IntRange(0, 30).Draw(t, "seconds")), MemoryMiB: rapid.IntRange(0, 600).Draw(t, "mib"), Users: rapid.IntRange(0, 1).Draw(t, "users")})
	}
	if rapid.IntRange(0, 9).Draw(t, "bound") == 0 && len(o.Models) > 0 {
		o.Models = o.Models[:1]
		o.Bound = o.Models[0].Model
	}
	return o
}

// The clever and the dumb agree, and the rules hold for whatever is chosen.
func TestChooseIsWhatTryingAllGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		canLoad := rapid.Bool().Draw(t, "can load")
		var options []Option
		for i := range rapid.IntRange(0, 8).Draw(t, "options") {
			options = append(options, anOption(t, i, canLoad))
		}
		w := Want{Model: "A", LoadSeconds: float64(rapid.IntRange(0, 30).Draw(t, "cost")), MemoryMiB: rapid.IntRange(0, 900).Draw(t, "needs"), Now: now}
		got, want := Choose(w, options), dumb(w, options)
		if (got.Best == nil) != (want == nil) {
			t.Fatalf("best is %+v, and trying all gives %+v", got.Best, want)
		}
		left := got.Count
		for _, n := range got.Filtered {
			left += n
		}
		if left != len(options) {
			t.Fatalf("%d options are %d candidates and %v", len(options), got.Count, got.Filtered)
		}
		if want == nil {
			return
		}
		if got.Best.Resource != want.Resource || got.Best.State != want.State || !slices.Equal(got.Best.Evicts, want.Evicts) {
			t.Fatalf("best is %+v, and trying all gives %+v", got.Best, want)
		}
		// The order in which options come does not matter.
		slices.Reverse(options)
		if again := Choose(w, options); again.Best.Resource != got.Best.Resource {
			t.Fatalf("in another order the best is %+v, not %+v", again.Best, got.Best)
		}
	})
}

func TestWaitForWarm(t *testing.T) {
	for _, c := range []struct {
		name              string
		ahead, copies     int
		job, waited, cost float64
		wait              bool
	}{
		{name: "no copy to wait for", copies: 0, job: 1, cost: 20},
		{name: "soon free", copies: 1, job: 5, cost: 20, wait: true},
		{name: "as long as a load would take", copies: 1, job: 20, cost: 20},
		{name: "three ahead", ahead: 3, copies: 1, job: 5, cost: 20},
		{name: "two ahead", ahead: 2, copies: 1, job: 5, cost: 20, wait: true},
		{name: "three ahead of two copies", ahead: 3, copies: 2, job: 5, cost: 20, wait: true},
		{name: "waited as long as a load takes", copies: 1, job: 5, waited: 20, cost: 20},
		{name: "waited nearly as long", copies: 1, job: 5, waited: 19.9, cost: 20, wait: true},
		{name: "loading is free", copies: 1, job: 0, cost: 0},
	} {
		if got := WaitForWarm(c.ahead, c.copies, c.job, c.waited, c.cost); got != c.wait {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
