package placement

import (
	"fmt"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
)

// counted counts what a policy asks of a view.
func (s *scene) counted() *int {
	n := new(int)
	known, demand, ready := s.Known, s.Demand, s.Ready
	s.Known = func(m domain.ModelKey) Known { *n++; return known(m) }
	s.Demand = func(m domain.ModelKey) float64 { *n++; return demand(m) }
	s.Ready = func(r *Request) bool { *n++; return ready(r) }
	return n
}

// How much a policy looks at grows with the resources and with what is wanted,
// not with the length of the queue.
func TestWorkIsBounded(t *testing.T) {
	asked := func(name string, requests int) int {
		s := newScene()
		for i := range 100 {
			m := domain.ModelKey(fmt.Sprint("m", i%20))
			o := option(domain.ResourceID(fmt.Sprint("r", i)), int64(i+1), loaded(m, 20, 1))
			if i%10 > 0 {
				full(o)
			}
			s.has(o)
		}
		for i := range requests {
			s.asks(fmt.Sprint("q", i), domain.ModelKey(fmt.Sprint("m", 10+i%30)), 1)
		}
		n := s.counted()
		given(name).Next(&s.View)
		return *n
	}
	for _, name := range []string{"ttff", "least-loaded", "sticky-lru", "delay", "warm-first", "hash", "random", "round-robin"} {
		if few, many := asked(name, 3000), asked(name, 30_000); many > few {
			t.Errorf("%s asks %d times with 3,000 waiting, and %d times with 30,000", name, few, many)
		} else {
			t.Logf("%s asks %d times", name, many)
		}
	}
}
