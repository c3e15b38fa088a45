package placement

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// part is an example in which one part of ttff decides.
type part struct {
	name    string
	scene   func() *scene
	with    string   // what is said
	without string   // what is said when it is taken away
	by      []string // the ways of taking it away
}

// taken are the ways in which a part of ttff can be taken away by a parameter.
var taken = map[string]Policy{
	"never yields":     given("ttff", "payoff", 1e6),
	"no patience":      given("ttff", "patience", 0.0),
	"no second copies": given("ttff", "copies", 100.0),
	"nobody overdue":   given("ttff", "overdue", 1000.0),
	"no relief":        given("ttff", "relief", 1000.0),
	"no shares":        given("ttff", "share", 0.0),
	"no ratio":         given("ttff", "ratio", 0.0),
	"no demand":        given("ttff", "demand", 0.0),
}

var parts = []part{
	{"response ratio: short work does not wait for long work", func() *scene {
		// 10 s old for 100 s of work: 0.1. 5 s old for 5 s: 1.
		return newScene().has(option("r1", 1, loaded("A", 20, 0))).asks("old", "A", 10, work(100)).asks("short", "A", 5, work(5))
	}, "short on r1", "old on r1", []string{"no ratio"}},

	{"fair share: who holds slots waits longer for the next", func() *scene {
		// ann: 4 s for 10 s of work, three times as long for her two slots: 0.133. bob: 5 s for 20 s: 0.25.
		s := newScene().has(option("r1", 1, loaded("A", 20, 0))).asks("bob", "A", 5, work(20), by("bob")).asks("ann", "A", 4, work(10), by("ann"))
		s.shares["ann"] = 2
		return s
	}, "bob on r1", "ann on r1", []string{"no shares"}},

	{"payoff: a load that is paid off yields to an older request for a model that is nowhere", func() *scene {
		return newScene().has(option("r1", 1, loaded("A", 20, 0).served(1000)).with(onePlace)).asks("b", "B", 10).asks("a", "A", 5)
	}, "b on r1", "a on r1", []string{"never yields"}},

	{"ski rental: to wait for a busy copy is sooner than a load", func() *scene {
		// The user goes in 3 s, a load takes 20.
		return newScene().has(option("r1", 1, loaded("A", 20, 1)).with(full).with(since(7, 10)), option("r2", 2)).asks("a", "A", 5)
	}, "nothing", "a on r2", []string{"no patience"}},

	{"another copy: the line outgrew a load", func() *scene {
		// 3 s, and 10 for each of the two before the last: 23.
		return newScene().has(option("r1", 1, loaded("A", 20, 1)).with(full).with(since(7, 10)), option("r2", 2)).
			asks("a", "A", 5).asks("b", "A", 4).asks("c", "A", 3)
	}, "a on r2", "nothing", []string{"no second copies"}},

	{"overdue: who waited for too long comes first", func() *scene {
		s := newScene().has(option("r1", 1, loaded("A", 20, 0)).with(onePlace)).asks("b", "B", 251).asks("a", "A", 5)
		s.Seconds = 100
		return s
	}, "b on r1", "a on r1", []string{"nobody overdue"}},

	{"relief: a line whose copies do not keep up gets a slot where nobody is in need", func() *scene {
		s := newScene().has(option("r1", 1, loaded("A", 20, 0).served(1000)).with(onePlace), option("r2", 2, loaded("B", 20, 1)).with(full)).asks("b", "B", 251).asks("a", "A", 62)
		s.Seconds = 100
		return s
	}, "b on r1", "a on r1", []string{"no relief", "never yields", "nobody overdue"}},

	{"demand: the model that is asked for less goes", func() *scene {
		s := newScene().has(option("r1", 1, loaded("B", 20, 0).unusedFor(10)).with(onePlace), option("r2", 2, loaded("C", 20, 0).unusedFor(99)).with(onePlace)).asks("a", "A", 5)
		s.demand["B"], s.demand["C"] = 0.01, 0.1
		return s
	}, "a on r1", "a on r2", []string{"no demand"}},
}

// To take a part away changes what it decides, and nothing else.
func TestEveryPartDecidesItsOwn(t *testing.T) {
	used := map[string]bool{}
	for _, c := range parts {
		t.Run(c.name, func(t *testing.T) {
			c.scene().says(t, given("ttff"), c.with)
			for _, way := range slices.Sorted(maps.Keys(taken)) {
				want := c.with
				if slices.Contains(c.by, way) {
					want, used[way] = c.without, true
				}
				if a, ok := taken[way].Next(&c.scene().View); said(a, ok) != want {
					t.Errorf("%s: %s, not %s", way, said(a, ok), want)
				}
			}
		})
	}
	if len(used) != len(taken) {
		t.Errorf("only %v are tried", used)
	}
}

func TestResponseRatio(t *testing.T) {
	p := given("ttff")
	warm := func() *scene { return newScene().has(option("r1", 1, loaded("A", 20, 0))) }
	// Work of less than a second counts as one.
	warm().asks("one", "A", 4, work(1)).asks("none", "A", 3, work(0)).says(t, p, "one on r1")
	warm().asks("one", "A", 3, work(1)).asks("none", "A", 4, work(0)).says(t, p, "none on r1")
	// Of the same ratio the first.
	warm().asks("one", "A", 8, work(4)).asks("two", "A", 2, work(1)).says(t, p, "one on r1")
	// Nobody starves: who waits grows past those who come.
	warm().asks("long", "A", 201, work(100)).asks("short", "A", 2, work(1)).says(t, p, "long on r1")
	// A deadline goes first in its line, whatever the ratio; so does who is overdue.
	warm().asks("short", "A", 9, work(1)).asks("due", "A", 1, work(100), dueIn(60)).says(t, p, "due on r1")
	s := warm().asks("old", "A", 300, work(1000)).asks("short", "A", 9, work(1))
	s.says(t, p, "short on r1")
	s.Seconds = 100
	s.says(t, p, "old on r1")
	// So it is where the head of the queue has to wait for another.
	s = warm().has(option("r2", 2, loaded("B", 20, 1)).with(full)).asks("dueB", "B", 9, dueIn(30)).asks("short", "A", 9, work(1)).asks("dueA", "A", 1, work(100), dueIn(60))
	s.says(t, p, "dueA on r1")
	s = warm().has(option("r2", 2, loaded("B", 20, 1)).with(full)).asks("oldB", "B", 301).asks("oldA", "A", 300, work(1000)).asks("short", "A", 9, work(1))
	s.says(t, p, "short on r1")
	s.Seconds = 100
	s.says(t, p, "oldA on r1")
	// Who may not begin is not chosen; of those who may the first 64 are compared.
	s = warm().asks("held", "A", 99, work(1)).asks("later", "A", 99, work(1), notBefore(1)).asks("a", "A", 1)
	s.held["held"] = true
	s.says(t, p, "a on r1")
	for _, c := range []struct {
		before int
		want   string
	}{{63, "short on r1"}, {64, "q0 on r1"}} {
		s = warm()
		for i := range c.before {
			s.asks(fmt.Sprint("q", i), "A", 9)
		}
		s.asks("short", "A", 9, work(1)).says(t, p, c.want)
	}
}

func TestFairShare(t *testing.T) {
	both := func(held float64) *scene {
		s := newScene().has(option("r1", 1, loaded("A", 20, 0))).asks("ann", "A", 30, by("ann")).asks("bob", "A", 10, by("bob"))
		s.shares["ann"] = held
		return s
	}
	// Ages of 30 and 10 for the same work: until ann holds two slots she is before bob, with three she is not.
	both(0).says(t, given("ttff"), "ann on r1")
	both(2).says(t, given("ttff"), "ann on r1") // 1 each: the first
	both(3).says(t, given("ttff"), "bob on r1")
	both(3).says(t, given("ttff", "share", 0.5), "ann on r1")
	both(3).says(t, given("ttff", "share", 0.0), "ann on r1")
	s := both(3)
	s.Share = nil // nobody keeps count
	s.says(t, given("ttff"), "ann on r1")
}

func TestPayoff(t *testing.T) {
	p := given("ttff", "payoff", 50.0)
	one := func(served, loadB float64) *scene {
		s := newScene().has(option("r1", 1, loaded("A", 20, 0).served(served)).with(onePlace)).asks("b", "B", 10).asks("a", "A", 5)
		s.known["B"] = Known{LoadSeconds: loadB, WorkSeconds: 10}
		return s
	}
	one(999, 20).says(t, p, "a on r1") // 50 loads of 20 s are 1000
	if a := one(1000, 20).says(t, p, "b on r1"); a.Reason == "" {
		t.Error("it yields without saying why")
	}
	one(1000, 21).says(t, p, "a on r1") // the other load is to be worth it too
	one(1050, 21).says(t, p, "b on r1")
	one(100, 20).says(t, given("ttff", "payoff", 5.0), "b on r1")
	// Only to somebody older, whose model is nowhere, and whom the slot fits.
	newScene().has(option("r1", 1, loaded("A", 20, 0).served(9999))).asks("a", "A", 10).asks("b", "B", 5).says(t, p, "a on r1")
	newScene().has(option("r1", 1, loaded("A", 20, 0).served(9999)), option("r2", 2, loaded("B", 20, 1)).with(full)).asks("b", "B", 10).asks("a", "A", 5).says(t, p, "a on r1")
	newScene().has(option("r1", 1, loaded("A", 20, 1).served(9999)).with(onePlace)).asks("b", "B", 10).asks("a", "A", 5).says(t, p, "a on r1")
	// Of several the oldest.
	newScene().has(option("r1", 1, loaded("A", 20, 0).served(9999))).asks("c", "C", 20).asks("b", "B", 10).asks("a", "A", 5).says(t, p, "c on r1")
}

func TestRelief(t *testing.T) {
	p := given("ttff", "payoff", 5.0)
	// b is overdue from 250 s on; its model is in use on r2.
	two := func(served, ageA, ageB float64) *scene {
		s := newScene().has(option("r1", 1, loaded("A", 20, 0).served(served)).with(onePlace), option("r2", 2, loaded("B", 20, 1)).with(full)).asks("b", "B", ageB).asks("a", "A", ageA)
		s.Seconds = 100
		return s
	}
	two(100, 65, 260).says(t, p, "b on r1")
	two(99, 65, 260).says(t, p, "a on r1")  // not paid off
	two(100, 66, 260).says(t, p, "a on r1") // not four times as old
	two(100, 10, 250).says(t, p, "a on r1") // not overdue
	two(100, 130, 260).says(t, given("ttff", "payoff", 5.0, "relief", 2.0), "b on r1")
	// Not to a model that this resource holds as well, in use there, nor where a warm slot is free.
	both := option("r1", 1, loaded("A", 20, 0).served(100), loaded("B", 20, 1)).with(func(o *Option) { o.Free = 1 })
	s := newScene().has(both).asks("b", "B", 260).asks("a", "A", 65)
	s.Seconds = 100
	s.says(t, p, "b on r1")
	s = two(100, 65, 260).has(option("r3", 3, loaded("B", 20, 0)))
	s.says(t, p, "b on r3")
}

func TestSkiRental(t *testing.T) {
	p := given("ttff")
	wait := func(took, expected, age float64, more ...*Option) *scene {
		return newScene().has(option("r1", 1, loaded("A", 20, 1)).with(full).with(since(took, expected)), option("r2", 2)).has(more...).asks("a", "A", age)
	}
	wait(0, 19.9, 0).says(t, p, "nothing")
	wait(0, 20, 0).says(t, p, "a on r2")                                                                    // as long as a load
	wait(0, 36, 0, option("r3", 3, loaded("A", 20, 1)).with(full).with(since(9, 10))).says(t, p, "a on r2") // (36 + 4.5) / 2
	wait(0, 35, 0, option("r3", 3, loaded("A", 20, 1)).with(full).with(since(9, 10))).says(t, p, "nothing") // (35 + 4.5) / 2
	// Whatever was expected, nobody waits for longer than patience loads.
	wait(5, 10, 29.9).says(t, p, "nothing")
	wait(5, 10, 30).says(t, p, "a on r2")
	wait(5, 10, 10).says(t, given("ttff", "patience", 0.5), "a on r2")
	// A copy that was started otherwise, or that nobody uses, is none to wait for.
	wait(5, 10, 0).with(func(s *scene) { s.asks("o", "A", 1, otherwise("other")) }).says(t, p, "nothing")
	newScene().has(option("r1", 1, loaded("A", 20, 1)).with(full).with(func(o *Option) { o.Key = "other" }), option("r2", 2)).asks("a", "A", 0).says(t, p, "a on r2")
	// Only those who use the model count.
	both := option("r1", 1, loaded("A", 20, 1), loaded("C", 20, 1)).with(full).with(since(7, 10))
	both.Users[1].Seconds = 1000
	newScene().has(both, option("r2", 2)).asks("a", "A", 0).says(t, p, "nothing")
	// Time alone changes the answer: at the latest when patience ends, and every tenth of a load.
	for age, in := range map[float64]time.Duration{0: 2 * time.Second, 29: time.Second, 29.9: 100 * time.Millisecond} {
		s := wait(5, 10, age)
		s.says(t, p, "nothing")
		if !s.Wake.Equal(now.Add(in)) {
			t.Errorf("at the age of %v it asks to be asked again in %v, not %v", age, s.Wake.Sub(now), in)
		}
	}
	s := wait(5, 10, 0)
	s.known["A"] = Known{LoadSeconds: 6}
	if s.says(t, p, "nothing"); !s.Wake.Equal(now.Add(time.Second)) { // and not more often than every second
		t.Errorf("asks to be asked again in %v", s.Wake.Sub(now))
	}
	// In a backlog nothing is free, nobody is asked, and nothing changes by itself.
	s = newScene().has(option("r1", 1, loaded("A", 20, 1)).with(full)).asks("a", "A", 0).asks("b", "B", 0)
	if s.says(t, p, "nothing"); !s.Wake.IsZero() {
		t.Errorf("asks to be asked again at %v", s.Wake)
	}
}

// What is left of work: what was expected of it, and where it took longer half as much again.
func TestRemaining(t *testing.T) {
	for _, c := range []struct {
		name           string
		took, expected float64
		h              Held
		want           float64
	}{
		{"just begun", 0, 10, loaded("A", 20, 1), 10},
		{"in the middle", 4, 10, loaded("A", 20, 1), 6},
		{"as long as expected: half as much again", 10, 10, loaded("A", 20, 1), 5},
		{"much longer", 100, 10, loaded("A", 20, 1), 50},
		{"nearly over: not less than half of what it took", 9, 10, loaded("A", 20, 1), 4.5},
		{"nothing was expected of it", 0, 0, loaded("A", 20, 1), 0},
		{"the load first", 5, 10, loads("A", 20, 5), 25},
		{"a load that is overdue", 50, 10, loads("A", 20, 50), 10},
		{"it waited for the load: only since then", 50, 10, Held{Model: "A", State: Loaded, Since: ago(4)}, 6},
	} {
		if got := Remaining(&User{Model: "A", Since: ago(c.took), Seconds: c.expected}, &c.h, now); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
	}
}

func TestAnotherCopy(t *testing.T) {
	p := given("ttff")
	line := func(n int, copies ...*Option) *scene {
		s := newScene().has(option("r9", 9)).has(copies...)
		for i := range n {
			s.asks(fmt.Sprint("q", i), "A", 1, work(6))
		}
		return s
	}
	one := func(id domain.ResourceID, seq int64) *Option {
		return option(id, seq, loaded("A", 20, 1)).with(full).with(since(0, 6))
	}
	// The last of n waits for 6 s of the user and 6 of each before it: 18 of three are less than a load of 20, 24 of four are not.
	line(3, one("r1", 1)).says(t, p, "nothing")
	line(4, one("r1", 1)).says(t, p, "q0 on r9")
	// Two copies bear twice as many.
	line(5, one("r1", 1), one("r2", 2)).says(t, p, "nothing")  // (12 + 24) / 2 = 18
	line(7, one("r1", 1), one("r2", 2)).says(t, p, "q0 on r9") // (12 + 36) / 2 = 24
	line(4, one("r1", 1)).says(t, given("ttff", "copies", 2.0), "nothing")
	// A long line counts as a whole: those beyond the first 64 by what work with the model takes on the mean.
	s := line(200, one("r1", 1))
	for _, r := range s.Queue.Requests {
		r.Seconds = 0.1
	}
	s.says(t, p, "q0 on r9")
	s.known["A"] = Known{LoadSeconds: 20, WorkSeconds: 0.01}
	s.says(t, p, "nothing")
}

// Of the lines that need a load the first is the one that serves the most a
// second of the slot's time, weighted by its age.
func TestIndexOfLines(t *testing.T) {
	p := given("ttff")
	two := func(ageA, ageB float64, loadB float64) *scene {
		s := newScene().has(option("r1", 1)).asks("a", "A", ageA).asks("b1", "B", ageB).asks("b2", "B", ageB).asks("b3", "B", ageB)
		s.known["B"] = Known{LoadSeconds: loadB, WorkSeconds: 10}
		return s
	}
	// A: 1/31 · (20 + 10) = 0.97. B: 3/51 · (20 + 10) = 1.76: three for one load.
	two(10, 10, 20).says(t, p, "b1 on r1")
	// A: 1/31 · (20 + 35) = 1.774. A younger line that serves more is passed in time.
	two(35, 10, 20).says(t, p, "a on r1")
	two(34, 10, 20).says(t, p, "b1 on r1") // 1.742
	// B with a load of 200 s: 3/231 · (200 + 10) = 2.73, and A at 64.6: 2.73.
	two(64, 10, 200).says(t, p, "b1 on r1")
	two(65, 10, 200).says(t, p, "a on r1")
	// A line whose model is in use elsewhere shares the slot's worth with its copies.
	s := two(10, 10, 20).has(option("r2", 2, loaded("B", 20, 2)).with(full).with(since(0, 300)))
	s.says(t, p, "b1 on r1") // B: 1.76 / √3 = 1.02
	s = two(11, 10, 20).has(option("r2", 2, loaded("B", 20, 2)).with(full).with(since(0, 300)))
	s.says(t, p, "b1 on r1") // A: 1
	s = two(12, 10, 20).has(option("r2", 2, loaded("B", 20, 2)).with(full).with(since(0, 300)))
	s.says(t, p, "a on r1") // A: 1.03
	// Within the line it is the response ratio again.
	s = newScene().has(option("r1", 1)).asks("long", "A", 10, work(100)).asks("short", "A", 9, work(5))
	s.says(t, p, "short on r1")
}

func TestWorthOfACopy(t *testing.T) {
	p := given("ttff")
	s := newScene().has(option("r1", 1, loaded("B", 20, 0)), option("r2", 2, loaded("B", 20, 0)), option("r3", 3, loaded("C", 20, 0)))
	s.demand["B"], s.demand["C"], s.known["C"] = 0.1, 0.1, Known{LoadSeconds: 5}
	for i, want := range []float64{1, 1, 0.5} { // 20 · 0.1 / 2 copies, and 5 · 0.1
		o := s.Fleet.All[i]
		if got := p.Worth(&s.View, o, &o.Models[0]); got != want {
			t.Errorf("what %s holds is worth %v, not %v", o.Resource, got, want)
		}
	}
	// Where it is cheapest: an empty place, then what is worth least, then the oldest.
	at := func(options ...*Option) *scene {
		s := newScene().has(options...).asks("a", "A", 5)
		s.demand["B"], s.demand["C"] = 0.1, 0.01
		return s
	}
	held := func(id domain.ResourceID, seq int64, m domain.ModelKey) *Option {
		return option(id, seq, loaded(m, 20, 0)).with(onePlace)
	}
	at(held("r1", 1, "B"), held("r2", 2, "C")).says(t, p, "a on r2")
	at(held("r1", 1, "C"), option("r2", 2)).says(t, p, "a on r2")
	at(held("r1", 1, "worthless"), option("r2", 2)).says(t, p, "a on r2")
	at(held("r1", 1, "X"), held("r2", 2, "Y")).says(t, p, "a on r1")
	at(option("r1", 1, loaded("B", 20, 1)).with(onePlace), held("r2", 2, "B")).says(t, p, "a on r2")
}

func TestOverdue(t *testing.T) {
	p := given("ttff")
	one := func(age, mean float64, change ...func(*Request)) *scene {
		s := newScene().has(option("r1", 1, loaded("A", 20, 0)).with(onePlace)).asks("b", "B", age, change...).asks("a", "A", 1)
		s.Seconds = mean
		return s
	}
	s := one(200, 100)
	s.says(t, p, "a on r1")
	if want := now.Add(50 * time.Second); !s.Wake.Equal(want) { // when it is 2.5 means old
		t.Errorf("asks to be asked again at %v, not %v", s.Wake, want)
	}
	one(250, 100).says(t, p, "a on r1")
	if a := one(250.1, 100).says(t, p, "b on r1"); a.Reason == "" {
		t.Error("it comes first without saying why")
	}
	// Never sooner than that many loads: a pool in which nobody waits forces none.
	one(49, 0).says(t, p, "a on r1")
	one(50.1, 0).says(t, p, "b on r1")
	one(30, 0).says(t, given("ttff", "overdue", 1.0), "b on r1")
	// A deadline that can be made comes first at once.
	if a := one(0, 100, dueIn(60)).says(t, p, "b on r1"); a.Reason == "" {
		t.Error("it comes first without saying why")
	}
	one(0, 100, dueIn(60), notBefore(1)).says(t, p, "a on r1")
	// No load is forced while the model is in use: it is its users' turn to end.
	s = one(999, 100).has(option("r2", 2, loaded("B", 20, 1)).with(full))
	s.says(t, p, "a on r1")
	// Where it is warm it is served there.
	s = one(999, 100).has(option("r2", 2, loaded("B", 20, 1)))
	s.says(t, p, "b on r2")
	// And where nothing would do, the others go on.
	s = one(999, 100)
	s.known["B"] = Known{LoadSeconds: 20, MemoryMiB: 2000}
	s.Fleet.Change(s.Fleet.All[0], option("r1", 1, loaded("A", 20, 0)).with(func(o *Option) { o.MemoryMiB = 1000 }))
	s.says(t, p, "a on r1")
}

// A free slot is for whoever finds his model there: the oldest head, loaded
// before loading, and each line only where it was started the same way.
func TestAFreeSlotServesWhoIsWarmThere(t *testing.T) {
	p := given("ttff")
	newScene().has(option("r1", 1), option("r2", 2, loaded("A", 20, 0))).asks("b", "B", 9).asks("a", "A", 1).says(t, p, "a on r2")
	newScene().has(option("r1", 1, loaded("A", 20, 0), loaded("B", 20, 0))).asks("b", "B", 9).asks("a", "A", 10).says(t, p, "b on r1")
	newScene().has(option("r1", 1, loads("A", 20, 1)), option("r2", 2, loaded("A", 20, 1))).asks("a", "A", 1).says(t, p, "a on r2")
	newScene().has(option("r1", 1, loaded("A", 20, 0)).with(func(o *Option) { o.Key = "other" }), option("r2", 2)).asks("a", "A", 1).says(t, p, "a on r2")
	newScene().has(option("r1", 1, loaded("A", 20, 0))).asks("a", "A", 1, notBefore(1)).asks("b", "B", 1).says(t, p, "b on r1")
}

// Where nothing is loaded there is nothing to pay off or to wait for.
func TestWithoutLoading(t *testing.T) {
	s := newScene().has(option("r1", 1, loaded("A", 0, 1)).with(full).with(since(7, 10)), option("r2", 2)).asks("a", "A", 0)
	s.CanLoad = false
	s.says(t, given("ttff"), "a on r2")
	s = newScene().has(option("r1", 1, loaded("A", 0, 0)).with(onePlace)).asks("b", "B", 10).asks("a", "A", 5)
	s.CanLoad = false
	s.says(t, given("ttff"), "b on r1")
}
