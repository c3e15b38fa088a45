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
func (forecast) Version() int { return 1 }

func (forecast) Wish(in *Inputs) Wish {
	a := in.Ahead
	slots, held := a.slots(a.Slots+a.Margin*a.Deviation), a.slots(a.Held)
	w := in.spareWish()
	beyond := in.beyondStart()
	w.Least = max(w.Least, in.resources(slots), in.Live+in.resources(beyond))
	w.Most = in.resources(max(slots, held))
	w.Patterns = true
	w.Reason = func() string {
		if in.Live+in.resources(beyond) >= w.Least && beyond > 0 {
			return fmt.Sprintf("%d wait, and without %d more slots some would for longer than the %.1f s of a start", in.Backlog, beyond, in.Start)
		}
		if in.resources(slots) >= w.Least {
			return fmt.Sprintf("%.1f slots are expected within the %.1f s of a start, and %d with the margin", a.Slots, in.Start, slots)
		}
		return in.spareReason()
	}
	w.Spare = func() string { return fmt.Sprintf("%.1f slots are expected, and %d with the margin", a.Slots, slots) }
	return w
}

// slots is a whole number of slots. For a part of one that is no greater than
// asleep there is none: the chance that it is needed is no greater either (Markov's inequality).
func (Forecast) slots(expected float64) int { return int(math.Ceil(max(0, expected-asleep))) }

// spareWish is what holds for every policy that forecasts: the slots of the
// buffer and those for bookings refused a moment ago are free.
func (in *Inputs) spareWish() Wish {
	free := max(in.Buffer, in.Unmet)
	return Wish{Least: in.Live + in.resources(max(0, free-in.spareSlots())), Free: in.Buffer + in.Unmet,
		Idle: time.Duration(in.Start * float64(time.Second))} // not sooner than it could be had back
}

func (in *Inputs) spareReason() string {
	if in.Unmet > in.Buffer {
		return fmt.Sprintf("%d bookings were refused for want of a slot", in.Unmet)
	}
	return fmt.Sprintf("%d free slots are fewer than the buffer of %d", in.spareSlots(), in.Buffer)
}

// catchUp is within what part of a start what is started has to serve those who waited for it.
const catchUp = 0.25

// beyondStart is how many more slots are needed so that nobody waits for much
// longer than a start takes. Who is served sooner by slots that come free needs
// none: what is started for them would come too late. While slots are held for
// long, that is one for each who waits; where they are held for a small part of
// the time that a start takes, one new slot serves several.
func (in *Inputs) beyondStart() int {
	if in.Backlog == 0 {
		return 0
	}
	each := max(1, catchUp*in.Start/in.Serve)
	rest := float64(in.Backlog) + (in.Arriving-in.Freeing)*in.Start - float64(in.ComingSlots)*each
	return int(math.Ceil(max(0, rest)/each - 1e-9))
}
