package scaling

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rendering-resource-manager/rrm/domain"
)

// A failure is repeated by the seed that it prints; files of failures would be left behind in the tree.
func init() {
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
}

var now = time.Date(2026, 3, 2, 14, 0, 0, 0, time.UTC)

// idle is a resource with one slot, unused for so long.
func idle(id domain.ResourceID, since time.Duration, models int) Idle {
	r := Idle{Resource: id, Since: now.Add(-since), Slots: 1}
	for i := range models {
		r.Models = append(r.Models, Warm{Model: domain.ModelKey(fmt.Sprint(id, "-", i)), Worth: 1})
	}
	return r
}

// these are the idle ones, and no others hold their models unless some of them do.
func these(all ...Idle) func(Wish) ([]Idle, map[domain.ModelKey]int) {
	return func(Wish) ([]Idle, map[domain.ModelKey]int) {
		holders := map[domain.ModelKey]int{}
		for _, r := range all {
			for _, m := range r.Models {
				holders[m.Model]++
			}
		}
		return slices.Clone(all), holders
	}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name   string
		in     Inputs // Max 4, Slots 1, Idle 5m unless it says otherwise
		start  int
		stop   []domain.ResourceID
		reason string
	}{
		{name: "nothing asked for, nothing there"},
		{name: "from zero", in: Inputs{Waiting: 1}, start: 1, reason: "1 wait"},
		{name: "as many as wait", in: Inputs{Waiting: 3}, start: 3, reason: "3 wait"},
		{name: "not beyond the limit", in: Inputs{Waiting: 9}, start: 4},
		{name: "those on their way out count for the limit", in: Inputs{Waiting: 9, Occupied: 3, Live: 1}, start: 1},
		{name: "none at the limit", in: Inputs{Waiting: 9, Occupied: 4, Live: 4}},
		{name: "none beyond it", in: Inputs{Waiting: 9, Occupied: 6, Live: 4}},
		{name: "several slots each", in: Inputs{Waiting: 5, Slots: 2}, start: 3},
		{name: "those that are coming will do", in: Inputs{Waiting: 2, ComingSlots: 2, Live: 2, Occupied: 2}},
		{name: "those that are coming will not do", in: Inputs{Waiting: 3, ComingSlots: 2, Live: 2, Occupied: 2}, start: 1},
		{name: "the minimum", in: Inputs{Min: 2}, start: 2, reason: "fewer than the minimum of 2"},
		{name: "the minimum, in part", in: Inputs{Min: 2, Live: 1, Occupied: 1}, start: 1},
		{name: "the minimum, while one leaves", in: Inputs{Min: 4, Live: 3, Occupied: 4}},
		{name: "the buffer", in: Inputs{Buffer: 3, FreeSlots: 1, Live: 1, Occupied: 1}, start: 2, reason: "fewer than the buffer of 3"},
		{name: "the buffer is there", in: Inputs{Buffer: 1, FreeSlots: 1, Live: 1, Occupied: 1}},
		{name: "the buffer is coming", in: Inputs{Buffer: 1, ComingSlots: 1, Live: 1, Occupied: 1}},
		{name: "the buffer comes after who waits", in: Inputs{Buffer: 1, ComingSlots: 1, Waiting: 1, Live: 1, Occupied: 1}, start: 1, reason: "fewer than the buffer of 1"},
		{name: "a booking that was refused", in: Inputs{Unmet: 1}, start: 1, reason: "1 bookings were refused"},
		{name: "a slot came free for it", in: Inputs{Unmet: 1, FreeSlots: 1, Live: 1, Occupied: 1}},
		{name: "one is coming for it", in: Inputs{Unmet: 1, ComingSlots: 1, Live: 1, Occupied: 1}},
		{name: "one is coming, but somebody waits for that", in: Inputs{Unmet: 1, ComingSlots: 1, Waiting: 1, Live: 1, Occupied: 1}, start: 1, reason: "refused"},
		{name: "refused ones and the buffer are not added up", in: Inputs{Unmet: 2, Buffer: 3}, start: 3, reason: "buffer"},
		{name: "backed off", in: Inputs{Waiting: 1, BackoffUntil: now.Add(time.Nanosecond)}},
		{name: "backed off until now", in: Inputs{Waiting: 1, BackoffUntil: now}, start: 1},

		{name: "idle for long enough", in: Inputs{Live: 1, Occupied: 1, FreeSlots: 1, Idlers: these(idle("r1", 5*time.Minute, 1))}, stop: []domain.ResourceID{"r1"}, reason: "idle for 5m"},
		{name: "not idle for long enough", in: Inputs{Live: 1, Occupied: 1, FreeSlots: 1, Idlers: these(idle("r1", 5*time.Minute-1, 1))}},
		{name: "the coldest goes first, then the longest idle", in: Inputs{Min: 1, Live: 4, Occupied: 4, FreeSlots: 4,
			Idlers: these(idle("r1", time.Hour, 2), idle("r2", 9*time.Minute, 1), idle("r3", 8*time.Minute, 0), idle("r4", 10*time.Minute, 1))},
			stop: []domain.ResourceID{"r3", "r4", "r2"}},
		{name: "none below the minimum", in: Inputs{Min: 1, Live: 1, Occupied: 1, FreeSlots: 1, Idlers: these(idle("r1", time.Hour, 0))}},
		{name: "none while somebody waits", in: Inputs{Waiting: 1, ComingSlots: 1, Live: 2, Occupied: 2, FreeSlots: 1, Idlers: these(idle("r1", time.Hour, 0))}},
		{name: "none of the buffer", in: Inputs{Buffer: 1, Live: 2, Occupied: 2, FreeSlots: 2, Idlers: these(idle("r1", time.Hour, 0), idle("r2", time.Hour, 0))}, stop: []domain.ResourceID{"r1"}},
		{name: "none that a refused client may come back for", in: Inputs{Unmet: 1, Live: 1, Occupied: 1, FreeSlots: 1, Idlers: these(idle("r1", time.Hour, 0))}},
		{name: "one with fewer slots than the settings say now", in: Inputs{Slots: 4, Live: 1, Occupied: 1, FreeSlots: 1, Idlers: these(idle("r1", time.Hour, 0))}, stop: []domain.ResourceID{"r1"}},
		{name: "the limit was lowered: idle ones go at once, the buffer notwithstanding", in: Inputs{Buffer: 4, Live: 6, Occupied: 6, FreeSlots: 3,
			Idlers: these(idle("r1", 0, 1), idle("r2", 0, 0), idle("r3", 0, 2))}, stop: []domain.ResourceID{"r2", "r1"}, reason: "more than the maximum of 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := c.in
			in.Now, in.Max, in.Idle, in.Slots = now, 4, 5*time.Minute, max(1, in.Slots)
			got := Decide(demand{}, &in)
			if got.Start != c.start || !slices.Equal(got.Stop, c.stop) {
				t.Errorf("start %d, stop %v: %s", got.Start, got.Stop, got.Reason)
			}
			if changes := c.start > 0 || len(c.stop) > 0; changes != (got.Reason != "") || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("the reason is %q", got.Reason)
			}
		})
	}
}

// enough is what grow has to bring about, said another way: who waits gets a
// slot, and of what is left there is a buffer, or one for each refused booking, and a minimum.
func enough(in Inputs, more int) bool {
	left := in.ComingSlots + more*in.Slots - in.Waiting
	return left >= 0 && in.FreeSlots+left >= in.Buffer && in.FreeSlots+left >= in.Unmet && in.Live+more >= in.Min
}

func someInputs(t *rapid.T) Inputs {
	n := func(name string, most int) int { return rapid.IntRange(0, most).Draw(t, name) }
	in := Inputs{Now: now, Max: n("max", 8), Slots: 1 + n("slots", 3), Buffer: n("buffer", 6), Unmet: n("unmet", 4), Idle: 5 * time.Minute}
	in.Min = n("min", in.Max)
	in.Waiting = n("waiting", 12)
	coming := n("coming", 3)
	in.ComingSlots = coming * in.Slots
	var ones []Idle
	for i := range n("idle", 4) {
		o := idle(domain.ResourceID(fmt.Sprint("r", i)), time.Duration(n("minutes", 10))*time.Minute, n("models", 2))
		o.Slots = in.Slots
		ones = append(ones, o)
	}
	in.Idlers = these(ones...)
	busy := n("busy", 4)
	in.FreeSlots = len(ones)*in.Slots + n("free", busy*(in.Slots-1))
	in.Live = coming + len(ones) + busy
	in.Occupied = in.Live + n("leaving", 2)
	if n("failing", 4) == 0 {
		in.BackoffUntil = now.Add(time.Duration(n("backoff", 2)) * time.Second)
	}
	return in
}

func TestDecideStartsTheFewestThatAreEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := someInputs(t)
		got := Decide(demand{}, &in).Start
		most := max(0, in.Max-in.Occupied)
		want := 0
		for want < most && !enough(in, want) {
			want++
		}
		if now.Before(in.BackoffUntil) {
			want = 0
		}
		if got != want {
			t.Fatalf("it starts %d, and trying one after the other gives %d: %+v", got, want, in)
		}
	})
}

// somePolicy is one that decides by what somePolicyInputs gives.
func somePolicy(t *rapid.T) Policy {
	return rapid.SampledFrom([]Policy{
		demand{}, New(chosen("buffer", "size", "2")), New(chosen("buffer", "size", "40%")), New(chosen("forecast")),
		New(chosen("queue-time", "goal", "5s")), New(chosen("queue-time", "goal", "60s")),
		New(domain.ScalingPolicy{Policy: "chain", Chain: []domain.ScalingPolicy{
			scheduled(domain.ScheduleEntry{From: "00:00", To: "24:00", Min: n(1), Max: n(3)}), chosen("forecast")}}),
	}).Draw(t, "policy")
}

// foreseen adds what is learned to inputs.
func foreseen(t *rapid.T, in Inputs) Inputs {
	f := func(name string, most float64) float64 { return rapid.Float64Range(0, most).Draw(t, name) }
	in.Backlog = in.Waiting * rapid.IntRange(1, 3).Draw(t, "backlog")
	in.Start, in.Serve, in.Freeing, in.Arriving, in.Lateness = 20, 1+f("serve", 60), f("freeing", 1), f("arriving", 1), f("lateness", 3)
	in.Ahead = Forecast{Slots: f("slots", 8), Deviation: 1, Margin: f("margin", 3), Spread: 1, Held: f("held", 8)}
	return in
}

func TestDecideTwiceChangesNothingMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy, in := somePolicy(t), foreseen(t, someInputs(t))
		p := Decide(policy, &in)
		if p.Start > 0 && len(p.Stop) > 0 {
			t.Fatalf("it starts and stops at once: %+v", p)
		}
		if over := in.Live - in.Max; len(p.Stop) > 0 && in.Live-len(p.Stop) < in.Min || policy == (demand{}) && over <= 0 && len(p.Stop) > 0 && in.FreeSlots-len(p.Stop)*in.Slots < in.Buffer {
			t.Fatalf("it stops what is to be kept: %+v of %+v", p, in)
		}
		in.Live, in.Occupied, in.ComingSlots = in.Live+p.Start, in.Occupied+p.Start, in.ComingSlots+p.Start*in.Slots
		in.Live, in.FreeSlots = in.Live-len(p.Stop), in.FreeSlots-len(p.Stop)*in.Slots // what is stopped is on its way out yet
		ones, _ := in.Idlers(Wish{})
		in.Idlers = these(slices.DeleteFunc(ones, func(i Idle) bool { return slices.Contains(p.Stop, i.Resource) })...)
		if again := Decide(policy, &in); again.Start > 0 || len(again.Stop) > 0 {
			t.Fatalf("%s: first %+v, then %+v on %+v", policy.Name(), p, again, in)
		}
	})
}

func TestBackoff(t *testing.T) {
	for n, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		if got := Backoff(n); got != want*time.Second {
			t.Errorf("after %d failures %s, not %s", n, got, want*time.Second)
		}
	}
	for _, n := range []int{-1, 1 << 40} {
		if got := Backoff(n); got < 0 || got > 5*time.Minute {
			t.Errorf("after %d failures %s", n, got)
		}
	}
}
