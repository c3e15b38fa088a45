package scaling

import (
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

func chosen(policy string, parameters ...string) domain.ScalingPolicy {
	p := domain.ScalingPolicy{Policy: policy, Parameters: domain.Parameters{}}
	for i := 0; i < len(parameters); i += 2 {
		p.Parameters[parameters[i]] = parameters[i+1]
	}
	return p
}

func TestBuffer(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  string
		in    Inputs // Max 100, Slots 1, Idle 5m unless it says otherwise
		start int
		stop  []domain.ResourceID
	}{
		{name: "a number, of nothing", size: "2", start: 2},
		{name: "a number beside those in use", size: "2", in: Inputs{Busy: 3, Live: 4, Occupied: 4, FreeSlots: 1}, start: 1},
		{name: "enough", size: "2", in: Inputs{Busy: 3, Live: 5, Occupied: 5, FreeSlots: 2}},
		{name: "what is coming counts", size: "2", in: Inputs{Busy: 3, Live: 5, Occupied: 5, ComingSlots: 2}},
		{name: "what is coming for who waits does not", size: "2", in: Inputs{Busy: 3, Waiting: 1, Live: 5, Occupied: 5, ComingSlots: 2}, start: 1},
		{name: "who waits and the buffer", size: "2", in: Inputs{Waiting: 3}, start: 5},
		{name: "a share of all slots, as Agones counts it", size: "20%", in: Inputs{Busy: 8, Live: 8, Occupied: 8}, start: 2},
		{name: "a share, rounded up", size: "20%", in: Inputs{Busy: 9, Live: 9, Occupied: 9}, start: 3},
		{name: "half", size: "50%", in: Inputs{Busy: 9, Live: 9, Occupied: 9}, start: 9},
		{name: "a share of nothing", size: "20%"},
		{name: "the pool's own buffer is the least", size: "20%", in: Inputs{Buffer: 3, Busy: 4, Live: 4, Occupied: 4}, start: 3},
		{name: "several slots each", size: "3", in: Inputs{Slots: 2}, start: 2},
		{name: "too many go when they have been idle", size: "1", in: Inputs{Busy: 1, Live: 4, Occupied: 4, FreeSlots: 3,
			Idlers: these(idle("r1", 5*time.Minute, 1), idle("r2", 6*time.Minute, 1), idle("r3", time.Minute, 0))}, stop: []domain.ResourceID{"r2", "r1"}},
		{name: "not more than leave the buffer", size: "50%", in: Inputs{Busy: 2, Live: 5, Occupied: 5, FreeSlots: 3,
			Idlers: these(idle("r1", time.Hour, 1), idle("r2", time.Hour, 1), idle("r3", time.Hour, 0))}, stop: []domain.ResourceID{"r3"}},
		{name: "no more in a minute than may be started", size: "9", in: Inputs{Change: Change{UpPerMinute: 4, Started: 1}}, start: 3},
		{name: "none in this minute", size: "9", in: Inputs{Change: Change{UpPerMinute: 4, Started: 5}}},
		{name: "no more in a minute than may be stopped", size: "0", in: Inputs{Live: 2, Occupied: 2, FreeSlots: 2, Change: Change{DownPerMinute: 2, Stopped: 1},
			Idlers: these(idle("r1", time.Hour, 1), idle("r2", time.Hour, 1))}, stop: []domain.ResourceID{"r1"}},
		{name: "the limit goes before that", size: "0", in: Inputs{Live: 102, Occupied: 102, FreeSlots: 2, Change: Change{DownPerMinute: 1, Stopped: 1},
			Idlers: these(idle("r1", 0, 1), idle("r2", 0, 1))}, stop: []domain.ResourceID{"r1", "r2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := c.in
			in.Now, in.Max, in.Idle, in.Slots = now, 100, 5*time.Minute, max(1, in.Slots)
			got := Decide(New(chosen("buffer", "size", c.size)), &in)
			if got.Start != c.start || !slices.Equal(got.Stop, c.stop) || got.Policy != "buffer" || (got.Reason == "") != (c.start == 0 && len(c.stop) == 0) {
				t.Errorf("%+v", got)
			}
		})
	}
}
