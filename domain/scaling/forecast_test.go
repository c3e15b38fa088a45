package scaling

import (
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

func TestForecast(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    Inputs // Max 100, Slots 1, starts of 20 s, slots held for 10 s
		start int
		stop  int
	}{
		{name: "nothing asked for"},
		{name: "what is expected, and the margin", in: Inputs{Ahead: Forecast{Slots: 4, Margin: 1.5, Deviation: 2}}, start: 7},
		{name: "a little is none", in: Inputs{Ahead: Forecast{Slots: 0.05}}},
		{name: "a little more is one", in: Inputs{Ahead: Forecast{Slots: 0.06}}, start: 1},
		{name: "who waits, from zero", in: Inputs{Waiting: 3, Backlog: 3}, start: 3},
		{name: "who waits and is served before a start", in: Inputs{Waiting: 3, Backlog: 3, Busy: 2, Live: 2, Occupied: 2, Freeing: 0.2}},
		{name: "who is not", in: Inputs{Waiting: 6, Backlog: 6, Busy: 2, Live: 2, Occupied: 2, Freeing: 0.2}, start: 2},
		{name: "others come meanwhile", in: Inputs{Waiting: 3, Backlog: 3, Busy: 2, Live: 2, Occupied: 2, Freeing: 0.2, Arriving: 0.2}, start: 3},
		{name: "some are coming", in: Inputs{Waiting: 6, Backlog: 6, Busy: 2, Live: 4, Occupied: 4, ComingSlots: 2, Freeing: 0.2}},
		{name: "a long queue, not only its beginning", in: Inputs{Waiting: 64, Backlog: 640}, start: 100},
		{name: "the buffer", in: Inputs{Buffer: 2, Ahead: Forecast{Slots: 1}}, start: 2},
		{name: "the buffer, beside who is served sooner", in: Inputs{Buffer: 1, Waiting: 3, Backlog: 3, Busy: 2, Live: 2, Occupied: 2, Freeing: 0.2}, start: 1},
		{name: "it is coming, and nobody needs what is", in: Inputs{Buffer: 1, Waiting: 3, Backlog: 3, Busy: 2, Live: 3, Occupied: 3, ComingSlots: 1, Freeing: 0.2}},
		{name: "who waits and the buffer", in: Inputs{Buffer: 1, Waiting: 3, Backlog: 3}, start: 4},
		{name: "a booking that was refused", in: Inputs{Unmet: 1}, start: 1},
		{name: "more than enough", in: idlers(5, time.Hour), stop: 5},
		{name: "what was needed within the time of stabilisation stays", in: with(idlers(5, time.Hour), Forecast{Slots: 1, Held: 2.5}), stop: 2},
		{name: "what was unused for less than a start stays", in: idlers(5, 19*time.Second)},
		{name: "no longer", in: idlers(5, 20*time.Second), stop: 5},
	} {
		in := c.in
		in.Now, in.Max, in.Slots, in.Start, in.Serve = now, 100, 1, 20, 10
		if in.Idlers != nil {
			in = since(in)
		}
		got := Decide(New(chosen("forecast")), &in)
		if got.Start != c.start || len(got.Stop) != c.stop || got.Policy != domain.ScalingForecast || (got.Reason == "") != (c.start+c.stop == 0) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func with(in Inputs, f Forecast) Inputs {
	in.Ahead = f
	return in
}
