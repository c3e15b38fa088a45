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

// best is the cheapest of a scene's slots for a request for A, and the record of that.
func (s *scene) best(p Policy, memory int) Choice {
	s.known["A"] = Known{LoadSeconds: 20, MemoryMiB: memory}
	r := &Request{ID: "a", Model: "A"}
	return Few(&s.View, p, r, Cheapest(&s.View, p, r))
}

func TestPrices(t *testing.T) {
	limit := func(mib int) func(*Option) { return func(o *Option) { o.MemoryMiB = mib } }
	for _, c := range []struct {
		name     string
		memory   int
		options  []*Option
		best     domain.ResourceID
		state    string
		seconds  float64
		evicts   []domain.ModelKey
		filtered map[string]int
	}{
		{name: "nothing there"},
		{name: "the warm one, also if it is more used and younger",
			options: []*Option{option("r1", 1).with(func(o *Option) { o.Free = 2 }), option("r2", 2, loaded("A", 5, 1))}, best: "r2", state: Warm},
		{name: "no slot of the warm one is free",
			options: []*Option{option("r1", 1), option("r2", 2, loaded("A", 5, 2)).with(full)},
			best:    "r1", state: Cold, seconds: 20}, // what is full is not looked at
		{name: "a load under way is cheaper than a new one",
			options: []*Option{option("r1", 1), option("r2", 2, loads("A", 20, 15))}, best: "r2", state: OnLoad, seconds: 5},
		{name: "a load that is overdue is still better than a new one, and never better than warm",
			options: []*Option{option("r1", 1), option("r2", 2, loads("A", 20, 500))}, best: "r2", state: OnLoad, seconds: 0.001},
		{name: "a load that takes longer than another is joined no more",
			options: []*Option{option("r1", 1), option("r2", 2, loads("A", 60, 1))}, best: "r1", state: Cold, seconds: 20},
		{name: "loaded goes before nearly loaded",
			options: []*Option{option("r1", 1, loads("A", 20, 500)), option("r2", 2, loaded("A", 20, 0))}, best: "r2", state: Warm},
		{name: "an empty place before an eviction",
			options: []*Option{option("r1", 1, loaded("B", 1, 0), loaded("C", 2, 0)), option("r2", 2, loaded("B", 1, 1))}, best: "r2", state: Cold, seconds: 20},
		{name: "what is worth least is evicted",
			options: []*Option{option("r1", 1, loaded("B", 9, 0), loaded("C", 2, 0))}, best: "r1", state: Cold, seconds: 20, evicts: []domain.ModelKey{"C"}},
		{name: "what is in use stays, however worthless",
			options: []*Option{option("r1", 1, loaded("B", 9, 0), loaded("C", 2, 1))}, best: "r1", state: Cold, seconds: 20, evicts: []domain.ModelKey{"B"}},
		{name: "of equal worth the longest unused goes",
			options: []*Option{option("r1", 1, loaded("B", 2, 0).unusedFor(60), loaded("C", 2, 0).unusedFor(3600))},
			best:    "r1", state: Cold, seconds: 20, evicts: []domain.ModelKey{"C"}},
		{name: "of equally long unused ones the first by name goes",
			options: []*Option{option("r1", 1, loaded("C", 2, 0), loaded("B", 2, 0))}, best: "r1", state: Cold, seconds: 20, evicts: []domain.ModelKey{"B"}},
		{name: "all places are taken by models in use",
			options: []*Option{option("r1", 1, loaded("B", 9, 1), loaded("C", 2, 1))}, filtered: map[string]int{ModelsInUse: 1}},
		{name: "memory: as many are evicted as are needed", memory: 700,
			options: []*Option{option("r1", 1, loaded("B", 3, 0).mib(400), loaded("C", 2, 0).mib(400)).with(func(o *Option) { o.MemoryMiB, o.MaxModels = 1000, 5 })},
			best:    "r1", state: Cold, seconds: 20, evicts: []domain.ModelKey{"C", "B"}},
		{name: "memory: no more than are needed", memory: 600,
			options: []*Option{option("r1", 1, loaded("B", 3, 0).mib(400), loaded("C", 2, 0).mib(400)).with(func(o *Option) { o.MemoryMiB, o.MaxModels = 1000, 5 })},
			best:    "r1", state: Cold, seconds: 20, evicts: []domain.ModelKey{"C"}},
		{name: "memory: exactly enough is enough", memory: 600,
			options: []*Option{option("r1", 1, loaded("B", 3, 0).mib(400)).with(limit(1000))}, best: "r1", state: Cold, seconds: 20},
		{name: "memory: what is in use is too much", memory: 601,
			options: []*Option{option("r1", 1, loaded("B", 3, 1).mib(400)).with(limit(1000))}, filtered: map[string]int{TooLarge: 1}},
		{name: "memory: no limit known", memory: 1 << 20,
			options: []*Option{option("r1", 1, loaded("B", 3, 1).mib(400))}, best: "r1", state: Cold, seconds: 20},
		{name: "bound to another model for life",
			options: []*Option{option("r1", 1, loaded("B", 3, 0)).with(func(o *Option) { o.Bound = "B" })}, filtered: map[string]int{OtherModel: 1}},
		{name: "bound to the model",
			options: []*Option{option("r1", 1, loaded("A", 0, 0)).with(func(o *Option) { o.Bound = "A" })}, best: "r1", state: Warm},
		{name: "started with other overrides, though it has the model",
			options: []*Option{option("r1", 1, loaded("A", 0, 0)).with(func(o *Option) { o.Key = "other" })}, filtered: map[string]int{StartedOtherwise: 1}},
		{name: "a tie goes to the fewest used", options: []*Option{option("r1", 1), option("r2", 2).with(func(o *Option) { o.Free = 2 })}, best: "r2", state: Cold, seconds: 20},
		{name: "then to the oldest", options: []*Option{option("r2", 2), option("r1", 1)}, best: "r1", state: Cold, seconds: 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene().has(c.options...)
			for _, o := range c.options {
				for _, h := range o.Models { // worth as much as they take to load
					s.known[h.Model], s.demand[h.Model] = Known{LoadSeconds: h.LoadSeconds}, 0.1
				}
			}
			got := s.best(given("ttff"), c.memory)
			var best Candidate
			if got.Best != nil {
				best = *got.Best
			}
			if best.Resource != c.best || best.State != c.state || math.Abs(best.Seconds-c.seconds) > 1e-9 || !slices.Equal(best.Evicts, c.evicts) {
				t.Errorf("best is %+v", best)
			}
			if len(got.Filtered) != len(c.filtered) {
				t.Errorf("left out are %v, not %v", got.Filtered, c.filtered)
			}
			for why, n := range c.filtered {
				if got.Filtered[why] != n {
					t.Errorf("left out are %v, not %v", got.Filtered, c.filtered)
				}
			}
		})
	}
}

// What has no free slot is in no list of free slots; asked all the same, it has a reason.
func TestPriceOfAFullResource(t *testing.T) {
	s := newScene()
	if _, why := Price(&s.View, leastLoaded{}, &Want{Model: "A", Now: now}, option("r1", 1, loaded("A", 1, 1)).with(full)); why != NoFreeSlot {
		t.Errorf("it is left out for %q", why)
	}
}

// Where nothing is loaded there are no costs: warm still goes first, then an empty place.
func TestPricesWithoutLoading(t *testing.T) {
	s := newScene().has(option("r1", 1, loaded("B", 0, 0), loaded("C", 0, 0)), option("r2", 2))
	s.CanLoad = false
	if c := s.best(given("ttff"), 0); c.Best.Resource != "r2" || c.Best.State != Cold || c.Best.Seconds != 0 {
		t.Errorf("%+v", c.Best)
	}
	s.has(option("r3", 3, loaded("A", 0, 1)))
	if c := s.best(given("ttff"), 0); c.Best.Resource != "r3" || c.Best.State != Warm {
		t.Errorf("%+v", c.Best)
	}
}

// The record has the chosen one first, whatever the order, then the best of the others.
func TestARecordKeepsTheFewBest(t *testing.T) {
	s := newScene()
	for i := range 10 {
		s.has(option(domain.ResourceID(rune('a'+i)), int64(10-i)))
	}
	r := &Request{ID: "a", Model: "A"}
	c := Few(&s.View, given("ttff"), r, Cheapest(&s.View, given("ttff"), r))
	if c.Count != 10 || len(c.Few) != few || c.Few[1].option != nil || c.Few[0].Resource != "j" || c.Few[3].Resource != "g" {
		t.Errorf("of %d candidates the few are %+v", c.Count, c.Few)
	}
	c = Few(&s.View, given("ttff"), r, s.Fleet.All[7]) // the eighth oldest: c
	var names string
	for _, f := range c.Few {
		names += string(f.Resource)
	}
	if names != "cjih" || c.Best.Resource != "c" || c.Count != 10 {
		t.Errorf("%s %+v", names, c.Best)
	}
	// One that would not do at all was not chosen.
	if c = Few(&s.View, given("ttff"), r, option("x", 99)); c.Best != nil || c.Count != 10 {
		t.Errorf("%+v", c)
	}
}

// What is evicted together is worth what each is.
func TestTheWorthOfWhatIsEvicted(t *testing.T) {
	s := newScene().has(option("r1", 1, loaded("B", 3, 0).mib(400), loaded("C", 2, 0).mib(400)).with(func(o *Option) { o.MemoryMiB, o.MaxModels = 1000, 5 }))
	s.known["B"], s.known["C"] = Known{LoadSeconds: 3}, Known{LoadSeconds: 2}
	s.demand["B"], s.demand["C"] = 0.5, 0.25
	if c := s.best(given("ttff"), 700); c.Best.Worth != 2 {
		t.Errorf("%+v", c.Best)
	}
	if c := s.best(given("ttff"), 600); c.Best.Worth != 0.5 {
		t.Errorf("%+v", c.Best)
	}
}

// dumb finds what the cheapest should be: it tries every option with every number of evictions.
func dumb(v *View, p Policy, r *Request) (best *Candidate) {
	for _, o := range v.Fleet.All {
		if c := dumbCandidate(v, p, r, o); c != nil && (best == nil || better(c, best)) {
			best = c
		}
	}
	return best
}

func better(a, b *Candidate) bool {
	if aWarm, bWarm := a.State == Warm, b.State == Warm; aWarm != bWarm {
		return aWarm
	}
	return cmp.Or(cmp.Compare(a.Seconds, b.Seconds), cmp.Compare(len(a.Evicts), len(b.Evicts)), cmp.Compare(b.Free, a.Free), cmp.Compare(a.option.Seq, b.option.Seq)) < 0
}

func dumbCandidate(v *View, p Policy, r *Request, o *Option) *Candidate {
	if o.Free < 1 || o.Key != r.Key || o.Bound != "" && o.Bound != r.Model {
		return nil
	}
	c := &Candidate{Resource: o.Resource, Free: o.Free, option: o, State: Cold, Seconds: v.load(r.Model)}
	for _, h := range o.Models {
		switch {
		case h.Model == r.Model && h.State == Loaded:
			c.State, c.Seconds = Warm, 0
			return c
		case h.Model == r.Model:
			c.State, c.Seconds = OnLoad, max(0.001, h.LoadSeconds-v.Now.Sub(h.Since).Seconds())
			return c
		}
	}
	order := slices.DeleteFunc(slices.Clone(o.Models), func(h Held) bool { return h.Users > 0 })
	slices.SortFunc(order, func(a, b Held) int {
		return cmp.Or(cmp.Compare(p.Worth(v, o, &a), p.Worth(v, o, &b)), a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Model, b.Model))
	})
	for n := range len(order) + 1 {
		gone := []domain.ModelKey{}
		for _, h := range order[:n] {
			gone = append(gone, h.Model)
		}
		needs, places := v.Known(r.Model).MemoryMiB, 1
		for _, h := range o.Models {
			if !slices.Contains(gone, h.Model) {
				needs, places = needs+h.MemoryMiB, places+1
			}
		}
		if places <= o.MaxModels && (o.MemoryMiB == 0 || needs <= o.MemoryMiB) {
			c.Evicts = gone
			return c
		}
	}
	return nil
}

// The clever and the dumb agree, for every policy's worth.
func TestTheCheapestIsWhatTryingAllGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := aScene(t)
		p := given(rapid.SampledFrom(everyPolicy()).Draw(t, "policy"))
		r := &Request{ID: "x", Model: rapid.SampledFrom(models).Draw(t, "wanted"), Key: rapid.SampledFrom([]string{"", "other"}).Draw(t, "wanted key")}
		got, want := Few(&s.View, p, r, Cheapest(&s.View, p, r)), dumb(&s.View, p, r)
		left := got.Count
		for _, n := range got.Filtered {
			left += n
		}
		if left != len(s.Fleet.Free) {
			t.Fatalf("%d free slots are %d candidates and %v", len(s.Fleet.Free), got.Count, got.Filtered)
		}
		if (got.Best == nil) != (want == nil) {
			t.Fatalf("best is %+v, and trying all gives %+v", got.Best, want)
		}
		if want != nil && (got.Best.Resource != want.Resource || got.Best.State != want.State || got.Best.Seconds != want.Seconds || !slices.Equal(got.Best.Evicts, want.Evicts)) {
			t.Fatalf("best is %+v, and trying all gives %+v", got.Best, want)
		}
	})
}

var models = []domain.ModelKey{"A", "B", "C", "D"}

// anOption has few slots and places, so that they are contested.
func anOption(t *rapid.T, i int) *Option {
	id := domain.ResourceID(rune('a' + i))
	o := &Option{Resource: id, Seq: int64(i + 1), Slots: 3, MaxModels: rapid.IntRange(1, 3).Draw(t, "places"),
		MemoryMiB: rapid.SampledFrom([]int{0, 0, 1000}).Draw(t, "memory"), Key: rapid.SampledFrom([]string{"", "", "", "other"}).Draw(t, "key")}
	for _, m := range rapid.SliceOfNDistinct(rapid.SampledFrom(models), 0, o.MaxModels, rapid.ID).Draw(t, "models") {
		h := Held{Model: m, State: rapid.SampledFrom([]string{Loaded, Loaded, Loading}).Draw(t, "state"),
			Since: ago(float64(rapid.IntRange(0, 30).Draw(t, "since"))), LastUsed: ago(float64(60 * rapid.IntRange(0, 3).Draw(t, "used"))),
			LoadSeconds: float64(rapid.IntRange(0, 30).Draw(t, "seconds")), MemoryMiB: rapid.IntRange(0, 600).Draw(t, "mib"), Served: float64(rapid.IntRange(0, 2000).Draw(t, "served"))}
		if len(o.Users) < o.Slots && rapid.Bool().Draw(t, "in use") {
			h.Users = 1
			o.Users = append(o.Users, User{Kind: "job", ID: string(id) + string(m), Model: m, Since: ago(float64(rapid.IntRange(0, 60).Draw(t, "at it"))),
				Seconds: float64(rapid.IntRange(0, 60).Draw(t, "expected"))})
		}
		o.Models = append(o.Models, h)
	}
	o.Free = min(rapid.IntRange(0, 3).Draw(t, "free"), o.Slots-len(o.Users))
	if len(o.Users) == 0 {
		o.IdleSince = ago(float64(rapid.IntRange(0, 90).Draw(t, "idle")))
	}
	if rapid.IntRange(0, 9).Draw(t, "bound") == 0 && len(o.Models) == 1 {
		o.Bound = o.Models[0].Model
	}
	return o
}

// aScene is random resources and requests.
func aScene(t *rapid.T) *scene {
	s := newScene()
	s.CanLoad = rapid.IntRange(0, 4).Draw(t, "can load") > 0
	s.Seconds = float64(rapid.SampledFrom([]int{0, 10, 100}).Draw(t, "mean"))
	for _, m := range models {
		s.known[m] = Known{LoadSeconds: float64(rapid.IntRange(0, 30).Draw(t, "load")), WorkSeconds: float64(rapid.IntRange(0, 30).Draw(t, "works")),
			MemoryMiB: rapid.SampledFrom([]int{0, 300, 900, 2000}).Draw(t, "needs")}
		s.demand[m] = float64(rapid.IntRange(0, 3).Draw(t, "demand"))
		s.next[m] = ago(-float64(rapid.IntRange(0, 100).Draw(t, "next use")))
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "options") {
		s.has(anOption(t, i))
	}
	for i := range rapid.IntRange(0, 8).Draw(t, "requests") {
		s.asks("q"+string(rune('0'+i)), rapid.SampledFrom(models).Draw(t, "model"), float64(rapid.IntRange(0, 120).Draw(t, "age")), func(r *Request) {
			r.Key = rapid.SampledFrom([]string{"", "", "", "other"}).Draw(t, "key")
			r.Seconds = float64(rapid.IntRange(0, 60).Draw(t, "work"))
			r.Owner = rapid.SampledFrom([]domain.Owner{"", "ann", "bob"}).Draw(t, "owner")
			if rapid.IntRange(0, 5).Draw(t, "deadline") == 0 {
				r.Due = now.Add(time.Minute)
			}
			if rapid.IntRange(0, 5).Draw(t, "later") == 0 {
				r.NotBefore = now.Add(time.Second)
			}
			s.held[r.ID] = rapid.IntRange(0, 5).Draw(t, "held") == 0
		})
	}
	s.Arrivals += int64(rapid.IntRange(0, 30).Draw(t, "gone"))
	s.shares["ann"] = float64(rapid.IntRange(0, 3).Draw(t, "share"))
	return s
}
