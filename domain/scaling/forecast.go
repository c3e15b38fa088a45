package scaling

import (
	"fmt"
	"math"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// forecast is the default: it has the slots that will be needed by the time a
// start takes, as Load learns it, with a margin; more while a queue would
// outlast a start; and lets go what is beyond that, but not what holds a model
// that is likely to be wanted again (see Pattern).
type forecast struct{}

func (forecast) Name() string { return domain.ScalingForecast }
func (forecast) Version() int { return 2 }

func (forecast) Wish(in *Inputs) Wish {
	a := in.Ahead
	slots, held := a.slots(a.Slots+a.Margin*a.Deviation), a.slots(a.Held)
	queue := in.queueSlots()
	beyond := max(0, queue-in.ComingSlots)
	w := in.spareWish(queue)
	w.Least = max(w.Least, in.resources(slots))
	w.Most = in.resources(max(slots, held))
	w.Patterns = true
	w.Reason = func() string {
		if beyond > 0 && in.Live+in.resources(beyond) >= in.resources(slots) {
			return fmt.Sprintf("%d wait, and without %d more slots some would for longer than the %.1f s of a start", in.Backlog, beyond, in.Start)
		}
		if in.resources(slots) >= w.Least {
			return fmt.Sprintf("%.1f slots are expected within the %.1f s of a start, and %d with the margin", a.Slots, in.Start, slots)
		}
		return in.spareReason(queue)
	}
	w.Spare = func() string { return fmt.Sprintf("%.1f slots are expected, and %d with the margin", a.Slots, slots) }
	return w
}

// slots is a whole number of slots. For a part of one that is no greater than
// asleep there is none: the chance that it is needed is no greater either (Markov's inequality).
func (Forecast) slots(expected float64) int { return int(math.Ceil(max(0, expected-asleep))) }

// spareWish is what holds for every policy that forecasts: so many slots that are coming are for the queue, and
// beside those the slots of the buffer, and those for bookings refused a moment ago, are free.
func (in *Inputs) spareWish(queue int) Wish {
	free := max(in.Buffer, in.Unmet)
	missing := max(0, queue-in.ComingSlots) + max(0, free-in.besideQueue(queue))
	return Wish{Least: in.Live + in.resources(missing), Free: in.Buffer + in.Unmet,
		Idle: time.Duration(in.Start * float64(time.Second))} // not sooner than it could be had back
}

// besideQueue are the slots that are free, or will be beside those that are coming for the queue.
func (in *Inputs) besideQueue(queue int) int { return in.FreeSlots + max(0, in.ComingSlots-queue) }

func (in *Inputs) spareReason(queue int) string {
	if in.Unmet > in.Buffer {
		return fmt.Sprintf("%d bookings were refused for want of a slot", in.Unmet)
	}
	return fmt.Sprintf("%d free slots are fewer than the buffer of %d", in.besideQueue(queue), in.Buffer)
}

// catchUp is within what part of a start what is started has to serve those who waited for it.
const catchUp = 0.25

// queueSlots is how many slots have to come so that nobody waits for much
// longer than a start takes. Who is served sooner by slots that come free needs
// none: what is started for them would come too late. While slots are held for
// long, that is one for each who waits; where they are held for a small part of
// the time that a start takes, one new slot serves several.
func (in *Inputs) queueSlots() int {
	if in.Backlog == 0 {
		return 0
	}
	each := max(1, catchUp*in.Start/in.Serve)
	rest := float64(in.Backlog) + (in.Arriving-in.Freeing)*in.Start
	return int(math.Ceil(max(0, rest)/each - 1e-9))
}
