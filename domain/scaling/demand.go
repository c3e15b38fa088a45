package scaling

import (
	"fmt"

	"github.com/rendering-resource-manager/rrm/domain"
)

// demand has a slot for each who waits and for the buffer, and lets resources go that have been idle for a time.
type demand struct{}

func (demand) Name() string { return domain.ScalingDemand }
func (demand) Version() int { return 1 }

func (demand) Wish(in *Inputs) Wish {
	forQueue := max(0, in.Waiting-in.ComingSlots)
	forUnmet := max(0, in.Unmet-max(0, in.ComingSlots-in.Waiting)-in.FreeSlots)
	// Slots that come for who waits are spoken for; what is left over counts for the buffer.
	spare := in.spareSlots()
	forBuffer := max(0, in.Buffer-spare)
	w := Wish{Free: in.Buffer + in.Unmet, Idle: in.Idle}
	w.Least = in.Live + in.resources(forQueue+max(forUnmet, forBuffer))
	w.Reason = func() string {
		switch {
		case forQueue > 0:
			return fmt.Sprintf("%d wait and %d slots are coming", in.Waiting, in.ComingSlots)
		case forUnmet > 0 && forUnmet >= forBuffer:
			return fmt.Sprintf("%d bookings were refused for want of a slot", in.Unmet)
		}
		return fmt.Sprintf("%d free slots are fewer than the buffer of %d", spare, in.Buffer)
	}
	return w
}

// spareSlots are free, or will be when what is coming has served who waits.
func (in *Inputs) spareSlots() int { return in.FreeSlots + max(0, in.ComingSlots-in.Waiting) }
