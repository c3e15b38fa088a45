package scaling

import (
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// By Erlang's second formula: with 5 slots and a load of 4, 0.554 wait at all; with 6, 0.285; with 2 and a load of 1, a third.
func TestErlang(t *testing.T) {
	for _, c := range []struct {
		load, serve, goal, miss float64
		limit, want             int
	}{
		{0, 10, 10, 0.05, 99, 0}, {4, 10, 20, 0.1, 99, 5}, {4, 10, 20, 0.05, 99, 6}, {4, 10, 20, 0.05, 5, 5},
		{1, 10, 0.01, 0.34, 99, 2}, {1, 10, 0.01, 0.3, 99, 3}, {0.2, 1, 60, 0.05, 99, 1}, {1000, 10, 10, 0.05, 20_000, 1003},
	} {
		if got := erlang(c.load, c.serve, c.goal, c.miss, c.limit); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestQueueTime(t *testing.T) {
	for _, c := range []struct {
		name  string
		goal  string
		in    Inputs // Max 100, Slots 1, starts of 20 s, slots held for 10 s
		start int
	}{
		{"nobody", "60s", Inputs{}, 0},
		{"from zero, one slot serves five in time", "60s", Inputs{Waiting: 5, Backlog: 5}, 1},
		{"from zero, six are one too many", "60s", Inputs{Waiting: 6, Backlog: 6}, 2},
		{"those in use serve them in time", "60s", Inputs{Waiting: 10, Backlog: 10, Busy: 2, Live: 2, Occupied: 2, Freeing: 0.2}, 0},
		{"and do not", "60s", Inputs{Waiting: 14, Backlog: 14, Busy: 2, Live: 2, Occupied: 2, Freeing: 0.2}, 1},
		{"what is coming serves them", "60s", Inputs{Waiting: 10, Backlog: 10, Live: 2, Occupied: 2, ComingSlots: 2}, 0},
		{"a goal below a start: no later than a start", "5s", Inputs{Waiting: 4, Backlog: 4}, 4},
		{"the load that is expected", "60s", Inputs{Ahead: Forecast{Slots: 4, Spread: 1}}, 5},
		{"was late lately", "60s", Inputs{Ahead: Forecast{Slots: 4, Spread: 2}, Lateness: 2}, 9},
		{"was never late", "60s", Inputs{Ahead: Forecast{Slots: 4, Spread: 2}, Lateness: -1}, 3},
		{"a goal below a start needs them in advance", "5s", Inputs{Ahead: Forecast{Slots: 4, Margin: 2, Deviation: 2}}, 10},
		{"next to nothing is expected", "60s", Inputs{Ahead: Forecast{Slots: 0.04, Spread: 1}}, 0},
	} {
		in := c.in
		in.Now, in.Max, in.Slots, in.Start, in.Serve = now, 100, 1, 20, 10
		if got := Decide(New(chosen("queue-time", "goal", c.goal)), &in); got.Start != c.start || got.Policy != "queue-time" || (got.Reason == "") != (c.start == 0) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestWhoIsLate(t *testing.T) {
	g := QueueTime(New(domain.ScalingPolicy{Policy: "chain", Chain: []domain.ScalingPolicy{chosen("demand"), chosen("queue-time", "goal", "10s", "share", "0.9")}}))
	if g == nil || QueueTime(demand{}) != nil {
		t.Fatal("whose goal?")
	}
	var l Load
	for range 1000 { // one in ten is late, as may be
		for i := range 10 {
			l = l.Waited(g.Late(time.Duration(i) * time.Second))
		}
		l = l.Waited(g.Late(0))
	}
	if late, miss := g.Late(9 * time.Second); late || miss < 0.099 || miss > 0.101 {
		t.Errorf("%v %v", late, miss)
	}
	before := l.Lateness
	for range 1000 {
		l = l.Waited(g.Late(time.Minute))
	}
	if l.Lateness <= before || l.Lateness > maxMargin {
		t.Errorf("from %v to %v", before, l.Lateness)
	}
	for range 100_000 {
		l = l.Waited(g.Late(0))
	}
	if l.Lateness < leastLateness || l.Lateness > leastLateness+0.1 {
		t.Errorf("%v", l.Lateness)
	}
}

// Of two that hold what somebody wants, one stays; of two that hold what will be wanted again, too.
func TestTheLastHolderStays(t *testing.T) {
	for name, m := range map[string]Warm{"wanted": {Model: "A", Wanted: true}, "kept": {Model: "A", Kept: true}} {
		a, b := idle("r1", time.Hour, 0), idle("r2", time.Hour, 0)
		a.Models, b.Models = []Warm{m}, []Warm{m}
		in := Inputs{Now: now, Max: 4, Slots: 1, Live: 2, Occupied: 2, FreeSlots: 2, Idlers: these(a, b)}
		got := Decide(forecast{}, &in)
		if len(got.Stop) != 1 {
			t.Errorf("%s: %+v", name, got)
		}
		if in.Max = 0; len(Decide(forecast{}, &in).Stop) != 2 { // the limit was lowered
			t.Errorf("%s: above the limit both go", name)
		}
	}
}
