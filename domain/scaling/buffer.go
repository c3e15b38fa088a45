package scaling

import (
	"fmt"
	"math"

	"github.com/rendering-resource-manager/rrm/domain"
)

// buffer keeps slots free, a number or a share of all, as Agones' Buffer policy
// does (FleetAutoscaler, bufferSize): a share of p percent is that of the slots
// there will be, so that there are busy*100/(100-p). Who waits counts as busy.
// Agones takes what is too much at once; here it goes after the pool's idle time, which may be 0.
type buffer struct {
	size    float64
	percent bool
}

func newBuffer(p domain.ScalingPolicy) buffer {
	var b buffer
	b.size, b.percent = p.Size("size")
	return b
}

func (buffer) Name() string { return domain.ScalingBuffer }
func (buffer) Version() int { return 1 }

func (b buffer) Wish(in *Inputs) Wish {
	asked := in.Busy + in.Waiting + in.Unmet
	free := b.size
	if b.percent {
		free = math.Ceil(float64(asked)*100/(100-b.size)-1e-9) - float64(asked)
	}
	keep := max(in.Buffer, int(free))
	// Slots that are free count only beside those who wait, not for them: they could not be served there.
	missing := max(0, in.Waiting-in.ComingSlots) + max(0, keep+in.Unmet-in.spareSlots())
	return Wish{
		Least: in.Live + in.resources(missing), Free: keep + in.Unmet, Idle: in.Idle,
		Reason: func() string {
			return fmt.Sprintf("%d slots are in use or asked for and %d are free or coming; the buffer is %d", asked, in.FreeSlots+in.ComingSlots, keep)
		},
	}
}
