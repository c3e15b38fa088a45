package pool

import (
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Foresee tells the state when a model will be asked for next. Only a
// simulation knows, and only the policy belady asks.
func (s *State) Foresee(nextUse func(domain.ModelKey) (time.Time, bool)) { s.nextUse = nextUse }

// Wake is when time alone changes a placement in a pool, at the earliest; false: it does not.
func (s *State) Wake(id domain.RendererID) (time.Time, bool) {
	p := s.find(id)
	if p == nil || p.wake.IsZero() {
		return time.Time{}, false
	}
	return p.wake, true
}
