package pool

import "github.com/rendering-resource-manager/rrm/domain"

// tally counts what a pool is asked for, so that nobody has to walk its queue.
type tally struct {
	busy    int                     // slots in use
	waiting int                     // sessions and jobs that could begin
	asked   map[domain.ModelKey]int // sessions and jobs that wait, for whatever, by model
}

// count adds an entity to the tally of its pool, or takes it away.
func (s *State) count(entity any, by int) {
	switch e := entity.(type) {
	case *Resource:
		s.of(e.Renderer).tally.busy += by * len(e.Users)
	case *Session:
		if e.Waiting() {
			s.of(e.Renderer).tally.ask(e.Model, by, by)
		}
	case *Job:
		switch e.State {
		case JobStateQueued:
			s.of(e.Renderer).tally.ask(e.Model, by, by)
		case JobStateWaiting:
			s.of(e.Renderer).tally.ask(e.Model, by, 0)
		}
	}
}

func (t *tally) ask(m domain.ModelKey, by, waiting int) {
	t.waiting += waiting
	if t.asked == nil {
		t.asked = map[domain.ModelKey]int{}
	}
	if t.asked[m] += by; t.asked[m] == 0 {
		delete(t.asked, m)
	}
}
