package scaling

import (
	"fmt"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// schedule is by the calendar: the first entry whose time it is bounds the
// size, within the pool's own limits, or sets it. How many there are between
// the bounds is for the next policy of a chain to say, or for demand. The
// minimum of an entry that begins within the time that a start takes holds
// already: so the resources are there when it begins.
type schedule struct {
	entries []domain.ScheduleEntry
	zones   []*time.Location
}

func newSchedule(p domain.ScalingPolicy) schedule {
	s := schedule{entries: p.Schedule}
	for _, e := range p.Schedule {
		s.zones = append(s.zones, e.Location())
	}
	return s
}

func (schedule) Name() string { return domain.ScalingSchedule }
func (schedule) Version() int { return 1 }

// at is the entry whose time it is; nil if it is that of none.
func (s schedule) at(t time.Time) *domain.ScheduleEntry {
	for i, e := range s.entries {
		if e.Holds(t, s.zones[i]) {
			return &s.entries[i]
		}
	}
	return nil
}

func (s schedule) Wish(in *Inputs) Wish {
	now := s.at(in.Now)
	soon := s.at(in.Now.Add(time.Duration(in.Start * float64(time.Second))))
	w := Wish{Pass: true}
	if now != nil {
		w.Low, w.High = now.Min, now.Max
		w.Reason = func() string { return "by the schedule: " + now.String() }
		if now.Target != nil {
			w.Pass, w.Least, w.Most = false, *now.Target, *now.Target
			w.Spare = w.Reason
		}
	}
	if soon == nil || soon == now {
		return w
	}
	low := soon.Min
	if soon.Target != nil {
		low = soon.Target
	}
	if low == nil || w.Low != nil && *w.Low >= *low || !w.Pass && w.Least >= *low {
		return w
	}
	w.Reason = func() string { return fmt.Sprintf("soon, by the schedule: %s", soon) }
	if w.Pass {
		w.Low = low
		if w.High != nil && *w.High < *low {
			w.High = low
		}
	} else {
		w.Least, w.Most = *low, *low
	}
	return w
}
