package placement

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The baselines, each by examples reckoned by hand from what its source says.

func TestLeastLoaded(t *testing.T) {
	p := given("least-loaded")
	newScene().says(t, p, "nothing")
	s := newScene().has(option("r1", 1, loaded("A", 9, 2)), option("r2", 2, loaded("B", 9, 1)), option("r3", 3, loaded("B", 9, 1)))
	s.says(t, p, "nothing")
	s.asks("q1", "A", 5).asks("q2", "A", 4).asks("q3", "A", 3).asks("q4", "A", 2)
	// The fewest users, the lowest number; that r1 has the model is nothing to it.
	if got := s.run(p, 9); !slices.Equal(got, []string{"q1 on r2", "q2 on r3", "q3 on r1"}) {
		t.Error(got)
	}
	// Whom no free slot can serve holds up nobody; who may not begin neither.
	s = newScene().has(option("r1", 1, loaded("B", 9, 1)).with(onePlace)).asks("q1", "A", 5).asks("q2", "B", 4, notBefore(1)).asks("q3", "B", 3).asks("q4", "B", 2)
	s.held["q3"] = true
	s.says(t, p, "q4 on r1")
}

func TestStickyLRU(t *testing.T) {
	p := given("sticky-lru")
	idle := func(seconds float64) func(*Option) { return func(o *Option) { o.IdleSince = ago(seconds) } }
	for _, c := range []struct {
		name, want string
		s          *scene
	}{
		{"where the model is, however used", "q1 on r2", newScene().has(option("r1", 1), option("r2", 2, loaded("A", 9, 5)))},
		{"the lowest of those", "q1 on r1", newScene().has(option("r2", 2, loaded("A", 9, 0)), option("r1", 1, loaded("A", 9, 1)))},
		{"loaded before loading", "q1 on r2", newScene().has(option("r1", 1, loads("A", 9, 1)), option("r2", 2, loaded("A", 9, 1)))},
		{"loading before empty", "q1 on r2", newScene().has(option("r1", 1), option("r2", 2, loads("A", 900, 1)))},
		{"not with other overrides", "q1 on r1", newScene().has(option("r1", 1, loaded("B", 9, 0)), option("r2", 2, loaded("A", 9, 0)).with(func(o *Option) { o.Key = "other" }))},
		{"an empty place before the longest idle", "q1 on r2", newScene().has(option("r1", 1, loaded("B", 9, 0), loaded("C", 9, 0)).with(idle(999)), option("r2", 2, loaded("B", 9, 0)))},
		{"the lowest of those with an empty place", "q1 on r1", newScene().has(option("r2", 2), option("r1", 1, loaded("B", 9, 1)))},
		{"the longest idle", "q1 on r2", newScene().has(option("r1", 1, loaded("B", 9, 0)).with(onePlace).with(idle(10)), option("r2", 2, loaded("C", 9, 0)).with(onePlace).with(idle(20)))},
		{"one in use is idle since now", "q1 on r2", newScene().has(option("r1", 1, loaded("B", 9, 0), loaded("C", 9, 1)), option("r2", 2, loaded("B", 9, 0)).with(onePlace).with(idle(1)))},
	} {
		t.Run(c.name, func(t *testing.T) { c.s.asks("q1", "A", 5).asks("q2", "A", 4).says(t, p, c.want) })
	}
	s := newScene().has(option("r1", 1, loaded("B", 9, 0).unusedFor(10), loaded("C", 9, 0).unusedFor(20))).asks("q1", "A", 5)
	if c := s.give(p, s.says(t, p, "q1 on r1")); !slices.Equal(c.Best.Evicts, []domain.ModelKey{"C"}) {
		t.Errorf("it evicts %v", c.Best.Evicts)
	}
}

// fleetOf is resources with one slot and one place each, and nothing loaded.
func fleetOf(n int) *scene {
	s := newScene()
	for i := range n {
		s.has(option(domain.ResourceID(fmt.Sprint("r", i+1)), int64(i+1)).with(onePlace))
	}
	return s
}

func TestRoundRobin(t *testing.T) {
	p := given("round-robin")
	s := fleetOf(3)
	for i := range 5 {
		s.asks(fmt.Sprint("q", i+1), "A", 5)
	}
	if got := s.run(p, 9); !slices.Equal(got, []string{"q1 on r1", "q2 on r2", "q3 on r3"}) {
		t.Error(got)
	}
	// The fourth belongs to the first resource: nobody else has it, however idle.
	fleetOf(3).with(func(s *scene) {
		s.Fleet.Change(s.Fleet.All[0], option("r1", 1, loaded("A", 9, 1)).with(full))
	}).asks("q4", "A", 5, numbered(4)).says(t, p, "nothing")
	// Who is first in its own queue and cannot be served holds up those behind.
	s = fleetOf(2).with(func(s *scene) { s.Fleet.Change(s.Fleet.All[0], option("r1", 1, loaded("B", 9, 1)).with(onePlace)) })
	s.asks("q1", "A", 9, numbered(1)).asks("q3", "B", 8, numbered(3)).says(t, p, "nothing")
	s.asks("q4", "A", 7, numbered(4)).says(t, p, "q4 on r2")
}

func (s *scene) with(change func(*scene)) *scene {
	change(s)
	return s
}

func TestRandom(t *testing.T) {
	lots := func(p Policy) (all string, count map[domain.ResourceID]int) {
		count = map[domain.ResourceID]int{}
		for n := range int64(3000) {
			a, ok := p.Next(&fleetOf(3).asks("q", "A", 1, numbered(n+1)).View)
			if !ok {
				t.Fatalf("number %d gets nothing", n+1)
			}
			all += string(a.Resource.Resource)
			count[a.Resource.Resource]++
		}
		return all, count
	}
	one, count := lots(given("random", "seed", 1.0))
	again, _ := lots(given("random", "seed", 1.0))
	other, _ := lots(given("random", "seed", 2.0))
	if one != again || one == other {
		t.Error("the lots follow from something else than the seed")
	}
	for _, r := range []domain.ResourceID{"r1", "r2", "r3"} {
		if n := count[r]; n < 900 || n > 1100 { // 1000, and nearly four standard deviations of 26
			t.Errorf("%s has %d of 3000", r, n)
		}
	}
}

// Who may be served by some only has one of those: with the same overrides, and bound to no other model.
func TestOwnQueuesAreOfThoseWhoMayServe(t *testing.T) {
	for _, name := range []string{"round-robin", "random", "hash", "hash-bounded"} {
		for n := range int64(8) {
			s := fleetOf(3).has(option("b", 4).with(func(o *Option) { o.Bound = "B" }), option("x", 5).with(func(o *Option) { o.Key = "other" }))
			s.asks("q", "B", 1, numbered(n+1), otherwise("other")).says(t, given(name), "q on x")
			s = fleetOf(1).has(option("b", 4).with(func(o *Option) { o.Bound = "B" }))
			s.asks("q", "A", 1, numbered(n+1)).says(t, given(name), "q on r1")
			s = newScene().has(option("b", 4).with(func(o *Option) { o.Bound = "B" }))
			s.asks("q", "A", 1, numbered(n+1)).says(t, given(name), "nothing")
		}
	}
}

// owners says to which of n resources, without those left out, each of 1000 models goes.
func owners(p Policy, n int, without ...int) map[domain.ModelKey]domain.ResourceID {
	all := map[domain.ModelKey]domain.ResourceID{}
	for i := range 1000 {
		s := fleetOf(n)
		for _, k := range without {
			s.Fleet.Change(s.Fleet.All[slices.IndexFunc(s.Fleet.All, func(o *Option) bool { return o.Seq == int64(k) })], nil)
		}
		m := domain.ModelKey(fmt.Sprint("circuit:", i))
		if a, ok := p.Next(&s.asks("q", m, 1).View); ok {
			all[m] = a.Resource.Resource
		}
	}
	return all
}

func TestHash(t *testing.T) {
	p := given("hash")
	five, four, six := owners(p, 5), owners(p, 5, 2), owners(p, 6)
	count := map[domain.ResourceID]int{}
	for m, r := range five {
		count[r]++
		if r != "r2" && four[m] != r {
			t.Errorf("%s goes from %s to %s because r2 is gone", m, r, four[m])
		}
		if six[m] != r && six[m] != "r6" {
			t.Errorf("%s goes from %s to %s because r6 came", m, r, six[m])
		}
	}
	for r, n := range count {
		if n < 150 || n > 250 { // 200, and four standard deviations of 12.6
			t.Errorf("%s has %d of 1000 models", r, n)
		}
	}
	// A model waits for its own, whatever is idle; and others pass.
	s := fleetOf(5).asks("q1", "circuit:0", 9).asks("q2", "circuit:0", 8).asks("q3", "circuit:1", 7)
	if five["circuit:0"] == five["circuit:1"] {
		t.Fatal("the example wants two models of two resources")
	}
	if got := s.run(p, 9); !slices.Equal(got, []string{"q1 on " + string(five["circuit:0"]), "q3 on " + string(five["circuit:1"])}) {
		t.Error(got)
	}
	// Only what was started the same way counts.
	s = fleetOf(4).has(option("x", 9).with(func(o *Option) { o.Key = "other" })).asks("q1", "A", 1, otherwise("other"))
	s.says(t, p, "q1 on x")
	fleetOf(4).asks("q1", "A", 1, otherwise("other")).says(t, p, "nothing")
}

func TestDelay(t *testing.T) {
	p := given("delay", "wait", 15.0)
	busy := option("r1", 1, loaded("A", 9, 1)).with(full)
	// Nothing is warm for the first: it waits, and those behind it pass.
	s := newScene().has(busy, option("r2", 2, loaded("B", 9, 0))).asks("q1", "A", 5).asks("q2", "B", 4)
	s.says(t, p, "q2 on r2")
	s = newScene().has(busy, option("r2", 2)).asks("q1", "A", 5).asks("q2", "A", 4)
	s.says(t, p, "nothing")
	if want := now.Add(10 * time.Second); !s.Wake.Equal(want) { // when the first has waited for 15
		t.Errorf("asks to be asked again at %v, not %v", s.Wake, want)
	}
	newScene().has(busy, option("r2", 2)).asks("q1", "A", 14.999).says(t, p, "nothing")
	newScene().has(busy, option("r2", 2)).asks("q1", "A", 15).says(t, p, "q1 on r2")
	newScene().has(busy, option("r2", 2)).asks("q1", "A", 0).says(t, given("delay", "wait", 0.0), "q1 on r2")
	// Warm goes at once, also where one before it is still in its delay.
	held := option("r3", 3, loaded("B", 9, 1)).with(full)
	newScene().has(option("r1", 1, loaded("A", 9, 0)), option("r2", 2), held).asks("q0", "B", 3).asks("q1", "A", 1).says(t, p, "q1 on r1")
	// Nobody waits for what is nowhere, or only where it was started otherwise, or where loading is no matter.
	newScene().has(option("r1", 1)).asks("q1", "A", 0).says(t, p, "q1 on r1")
	newScene().has(busy, option("r2", 2).with(func(o *Option) { o.Key = "other" })).asks("q1", "A", 0, otherwise("other")).says(t, p, "q1 on r2")
	s = newScene().has(busy, option("r2", 2)).asks("q1", "A", 0)
	s.CanLoad = false
	s.says(t, p, "q1 on r2")
	// Two that have waited enough: the first of them, and where sticky-lru would put it.
	newScene().has(option("r1", 1, loaded("C", 9, 0)).with(onePlace), option("r2", 2)).asks("q1", "A", 20).asks("q2", "B", 30).says(t, p, "q1 on r2")
}

func TestWarmFirst(t *testing.T) {
	p := given("warm-first")
	s := newScene().has(option("r1", 1, loaded("A", 9, 0))).asks("q1", "B", 9).asks("q2", "C", 8).asks("q3", "A", 7).asks("q4", "A", 6)
	s.says(t, p, "q3 on r1")
	// Sixteen may pass the head, and no more: those that came after it and wait no more.
	s.Arrivals = 1 + 3 + 16
	s.says(t, p, "q3 on r1")
	s.Arrivals++
	s.says(t, p, "q1 on r1")
	s.says(t, given("warm-first", "passes", 17.0), "q3 on r1")
	// Who may not begin yet is no head: the next is, and was passed over by as many.
	s.held["q1"] = true
	s.says(t, p, "q2 on r1")
	s.Arrivals--
	s.says(t, p, "q3 on r1")
	// Nothing is warm: the head, where sticky-lru would put it.
	newScene().has(option("r1", 1, loaded("C", 9, 0)).with(onePlace), option("r2", 2)).asks("q1", "A", 9).asks("q2", "B", 8).says(t, p, "q1 on r2")
	// Slot by slot: the first slot takes what is warm there, also before an older one elsewhere.
	newScene().has(option("r1", 1, loaded("A", 9, 0)), option("r2", 2, loaded("B", 9, 0))).asks("q1", "B", 9).asks("q2", "A", 8).says(t, p, "q2 on r1")
	// Not where the model is still loading, while it is loaded elsewhere.
	newScene().has(option("r1", 1, loads("A", 9, 1)), option("r2", 2, loaded("A", 9, 0))).asks("q1", "A", 8).says(t, p, "q1 on r2")
	// The first 64 are looked at, and no further.
	for _, c := range []struct {
		before int
		want   string
	}{{63, "qA on r1"}, {64, "q0 on r1"}} {
		s = newScene().has(option("r1", 1, loaded("A", 9, 0)))
		for i := range c.before {
			s.asks(fmt.Sprint("q", i), "B", 9)
		}
		s.asks("qA", "A", 1).says(t, p, c.want)
	}
}

func TestBelady(t *testing.T) {
	p := given("belady")
	s := newScene().has(option("r1", 1, loaded("B", 9, 0).unusedFor(999), loaded("C", 9, 0).unusedFor(10))).asks("q1", "A", 5)
	s.next["B"], s.next["C"] = now.Add(time.Minute), now.Add(time.Hour)
	a := s.says(t, p, "q1 on r1")
	if c := Few(&s.View, p, a.Request, a.Resource); !slices.Equal(c.Best.Evicts, []domain.ModelKey{"C"}) {
		t.Errorf("C is needed last, and it evicts %v", c.Best.Evicts)
	}
	delete(s.next, "B")
	if c := Few(&s.View, p, a.Request, a.Resource); !slices.Equal(c.Best.Evicts, []domain.ModelKey{"B"}) {
		t.Errorf("B is never needed again, and it evicts %v", c.Best.Evicts)
	}
	// In all else it is warm-first.
	newScene().has(option("r1", 1, loaded("A", 9, 0))).asks("q1", "B", 9).asks("q2", "A", 8).says(t, p, "q2 on r1")
}

// order is the resources in the order in which a model takes them.
func (s *scene) order(m domain.ModelKey) (all []domain.ResourceID) {
	gone := map[domain.ResourceID]bool{}
	for range s.Fleet.All {
		o := rendezvous(s.Fleet.All, m, "", func(o *Option) bool { return !gone[o.Resource] })
		all, gone[o.Resource] = append(all, o.Resource), true
	}
	return all
}

// With bounded loads who arrives goes to the first resource in the order of its
// model that has fewer than 1.25 times the mean, and stays.
func TestHashBounded(t *testing.T) {
	p := given("hash-bounded", "factor", 1.25).(Binder)
	s := fleetOf(4)
	h := s.order("A")
	// The most that one may have of 1, 2 and 3 requests on 4 resources is 1, of 4, 5 and 6 it is 2.
	for i, want := range []domain.ResourceID{h[0], h[1], h[2], h[0], h[1], h[2]} {
		home := p.Bind(&s.View, "A", "")
		if home == nil || home.Resource != want {
			t.Fatalf("number %d goes to %+v, not to %s", i+1, home, want)
		}
		s.asks(fmt.Sprint("q", i+1), "A", 5, func(r *Request) { r.Home = home.Resource })
	}
	place := given("hash-bounded", "factor", 1.25)
	if got := s.run(place, 9); !slices.Equal(got, []string{"q1 on " + string(h[0]), "q2 on " + string(h[1]), "q3 on " + string(h[2])}) {
		t.Error(got) // the fourth waits for its own, though another is idle
	}
	// Those who hold a slot count as well as those who wait: seven in all, so 3 is the most, and the first has 2.
	if home := p.Bind(&s.View, "A", ""); home.Resource != h[0] {
		t.Errorf("the next goes to %s", home.Resource)
	}
	// Who holds a slot there counts: of three in all nobody has more than one.
	s = fleetOf(4)
	i := slices.IndexFunc(s.Fleet.All, func(o *Option) bool { return o.Resource == h[0] })
	s.Fleet.Change(s.Fleet.All[i], option(h[0], s.Fleet.All[i].Seq, loaded("A", 9, 2)))
	if home := p.Bind(&s.View, "A", ""); home.Resource != h[1] {
		t.Errorf("with two on %s the next goes to %s", h[0], home.Resource)
	}
	// Whose resource is gone goes where its model would.
	s = fleetOf(4).asks("q1", "A", 5, func(r *Request) { r.Home = "gone" })
	s.says(t, place, "q1 on "+string(h[0]))
	if home := p.Bind(&newScene().View, "A", ""); home != nil {
		t.Errorf("of no resources it is %+v", home)
	}
	fleetOf(2).asks("q1", "A", 5, otherwise("other")).says(t, place, "nothing")
}

// With moves those who wait are dealt out anew each time.
func TestHashBoundedWithMoves(t *testing.T) {
	four := func() *scene {
		return fleetOf(4).asks("q1", "A", 5).asks("q2", "A", 5).asks("q3", "A", 5).asks("q4", "A", 5)
	}
	h := four().order("A")
	even, loose := given("hash-bounded", "factor", 1.0, "moves", 1.0), given("hash-bounded", "factor", 100.0, "moves", 1.0)
	if got := four().run(even, 9); !slices.Equal(got, []string{"q1 on " + string(h[0]), "q2 on " + string(h[1]), "q3 on " + string(h[2]), "q4 on " + string(h[3])}) {
		t.Error(got)
	}
	if got := four().run(loose, 9); !slices.Equal(got, []string{"q1 on " + string(h[0])}) {
		t.Error(got) // nothing bounds the first
	}
	if even.(Binder).Bind(&four().View, "A", "") != nil {
		t.Error("who will move is bound")
	}
	// Who may not begin has its place among the dealt all the same.
	s := four()
	s.held["q1"] = true
	s.says(t, even, "q2 on "+string(h[1]))
}

// No resource ever gets more than factor times the mean, whoever comes.
func TestHashBoundedIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, factor := rapid.IntRange(1, 6).Draw(t, "resources"), rapid.SampledFrom([]float64{1, 1.25, 2}).Draw(t, "factor")
		s, p := fleetOf(n), given("hash-bounded", "factor", factor).(Binder)
		count := map[domain.ResourceID]int{}
		for i := range rapid.IntRange(1, 40).Draw(t, "requests") {
			m := rapid.SampledFrom(models).Draw(t, "model")
			home := p.Bind(&s.View, m, "")
			s.asks(fmt.Sprint("q", i), m, 1, func(r *Request) { r.Home = home.Resource })
			count[home.Resource]++
			if most := int(math.Ceil(factor * float64(i+1) / float64(n))); count[home.Resource] > most {
				t.Fatalf("of %d requests %d are for one of %d resources", i+1, count[home.Resource], n)
			}
		}
	})
}
