package scaling

import (
	"fmt"
	"math"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// queueTime has enough resources that of those who wait the wished share
// begins within the goal.
//
// Erlang's second formula (Erlang 1917; the probability to wait, and the
// exponential tail of the wait behind it) says how many slots the load that is
// expected needs. Real demand is burstier than the formula's, and starts take
// time: so the load it is given is the forecast plus a part of what forecasts are
// wrong by, so large that the goal is held: that part is learned from how each
// wait came out (adaptive conformal inference; Gibbs and Candès 2021).
type queueTime struct {
	goal  float64 // seconds
	share float64 // of the requests
}

const (
	learnLateness = 0.003 // step of the correction: about 300 requests; at 0.01 a burst swings it
	leastLateness = -3
	aim           = 0.9 // of the goal: who aims at the goal itself misses it every other time
)

func newQueueTime(p domain.ScalingPolicy) queueTime {
	return queueTime{goal: p.Duration("goal").Seconds(), share: p.Number("share")}
}

func (queueTime) Name() string { return domain.ScalingQueueTime }
func (queueTime) Version() int { return 2 }

// QueueTime is the goal that a policy of that kind has, or a chain with one; nil for others.
func QueueTime(p Policy) *Goal {
	switch p := p.(type) {
	case queueTime:
		return &Goal{p}
	case chain:
		for _, one := range p {
			if g := QueueTime(one); g != nil {
				return g
			}
		}
	}
	return nil
}

// Goal is that of queue-time.
type Goal struct{ q queueTime }

// Late says whether somebody who waited so long counts against the goal, and which share may.
func (g Goal) Late(waited time.Duration) (late bool, miss float64) {
	return waited.Seconds() > aim*g.q.goal, 1 - g.q.share
}

func (q queueTime) Wish(in *Inputs) Wish {
	load, slots := q.slots(in, in.Ahead.Slots)
	_, held := q.slots(in, in.Ahead.Held)
	queue := q.queueSlots(in)
	late := max(0, queue-in.ComingSlots)
	w := in.spareWish(queue)
	w.Least = max(w.Least, in.resources(slots))
	w.Most = in.resources(max(slots, held))
	w.Patterns = true
	w.Reason = func() string {
		if late > 0 && in.Live+in.resources(late) >= in.resources(slots) {
			return fmt.Sprintf("%d wait, and without %d more slots not all would begin within %.0f s", in.Backlog, late, q.goal)
		}
		if in.resources(slots) >= w.Least {
			return fmt.Sprintf("for a load of %.1f slots it takes %d that %.4g %% wait for %.0f s at most", load, slots, 100*q.share, q.goal)
		}
		return in.spareReason(queue)
	}
	w.Spare = func() string { return fmt.Sprintf("%d slots keep the wait under %.0f s", slots, q.goal) }
	return w
}

// slots is how many keep the goal under what is expected, and the load that this is taken for.
func (q queueTime) slots(in *Inputs, expected float64) (load float64, n int) {
	if in.Ahead.slots(expected) == 0 {
		return 0, 0
	}
	ahead := max(0, 1-q.goal/in.Start) * in.Ahead.Margin * in.Ahead.Deviation // what cannot wait for a start has to be there before
	load = max(0, expected+ahead+in.Lateness*in.Ahead.Spread)
	return load, erlang(load, in.Serve, q.goal, 1-q.share, in.Max*in.Slots)
}

// queueSlots is how many slots have to come so that the last of those who wait now
// begins within the goal, as those before it are served before it; where a
// start comes too late for that, how many it takes to be no later than a start.
func (q queueTime) queueSlots(in *Inputs) int {
	if in.Backlog == 0 {
		return 0
	}
	if q.goal <= in.Start {
		return in.queueSlots()
	}
	each := 1 + (q.goal-in.Start)/in.Serve // begin on one new slot in time
	rest := float64(in.Backlog) - in.Freeing*q.goal
	return int(math.Ceil(max(0, rest)/each - 1e-9))
}

// erlang is the least number of slots with which, at a load of so many slots
// that are held for so many seconds, no more than the share miss waits longer
// than the goal; at most limit.
func erlang(load, serve, goal, miss float64, limit int) int {
	if load <= 0 {
		return 0
	}
	blocked := 1.0 // Erlang's first formula for n slots, by its recursion
	for n := 1; n < limit; n++ {
		blocked = load * blocked / (float64(n) + load*blocked)
		spare := float64(n) - load
		if spare <= 0 {
			continue
		}
		waits := float64(n) * blocked / (float64(n) - load*(1-blocked))
		if waits*math.Exp(-spare*goal/serve) <= miss {
			return n
		}
	}
	return limit
}
