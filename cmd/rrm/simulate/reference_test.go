package simulate_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
)

// reference is another simulator, of the three policies that leave no freedom:
// no events, no deciders, a list of resources and a loop. It shares nothing with
// the one that it checks but the conventions of docs/simulate.md.
type reference struct {
	policy string
	models int // that one resource holds
	rows   []simulate.Row
	loads  simulate.ByModel
	fleet  []machine
	queues [][]int // rows that wait: one queue, or one for each resource
	now    time.Duration
	lines  []string
}

type machine struct {
	user int // row; -1: none
	end  time.Duration
	idle time.Duration  // since
	held []simulate.Row // by last use, the latest last; only the keys matter
}

func (s *reference) run(n int) []string {
	s.fleet, s.queues, s.lines = make([]machine, n), make([][]int, n), make([]string, len(s.rows))
	for i := range s.fleet {
		s.fleet[i].user = -1
	}
	for next := 0; ; s.place() {
		at := -1 // whose end is next
		for i := range s.fleet {
			if m := &s.fleet[i]; m.user >= 0 && (at < 0 || m.end < s.fleet[at].end) {
				at = i
			}
		}
		switch {
		case at >= 0 && (next == len(s.rows) || s.fleet[at].end <= s.rows[next].Arrival):
			m := &s.fleet[at]
			m.use(s.rows[m.user])
			m.user, m.idle, s.now = -1, m.end, m.end
		case next < len(s.rows):
			home := 0
			if s.policy == "round-robin" {
				home = next % n
			}
			s.queues[home] = append(s.queues[home], next)
			s.now = s.rows[next].Arrival
			next++
		default:
			return s.lines
		}
	}
}

// use makes a model the last used.
func (m *machine) use(r simulate.Row) {
	if i := m.find(r); i >= 0 {
		m.held = slices.Delete(m.held, i, i+1)
	}
	m.held = append(m.held, r)
}

func (m *machine) find(r simulate.Row) int {
	return slices.IndexFunc(m.held, func(h simulate.Row) bool { return h.Key == r.Key })
}

func (s *reference) place() {
	for home := range s.queues {
		for len(s.queues[home]) > 0 {
			row := s.queues[home][0]
			at := s.choose(home, s.rows[row])
			if at < 0 {
				break
			}
			s.queues[home] = s.queues[home][1:]
			s.begin(row, at)
		}
	}
}

// choose is the resource for the head of a queue; -1: none is free.
func (s *reference) choose(home int, r simulate.Row) int {
	best, least := -1, 0
	for i := range s.fleet {
		m := &s.fleet[i]
		if m.user >= 0 || s.policy == "round-robin" && i != home {
			continue
		}
		rank := 0
		if s.policy == "sticky-lru" {
			switch {
			case m.find(r) >= 0:
				rank = -2
			case len(m.held) < s.models:
				rank = -1
			default:
				rank = int(m.idle)
			}
		}
		if best < 0 || rank < least {
			best, least = i, rank
		}
	}
	return best
}

func (s *reference) begin(row, at int) {
	r, m, load, evicted := s.rows[row], &s.fleet[at], time.Duration(0), ""
	if m.find(r) < 0 {
		load = s.loads[r.Key]
		if len(m.held) == s.models {
			evicted = string(m.held[0].Key)
			m.held = m.held[1:]
		}
	}
	m.use(r)
	m.user, m.end = row, s.now+load+r.Work
	line := fmt.Sprintf("%d:%g-%g-%g@%d", row, s.now.Seconds(), (s.now + load).Seconds(), m.end.Seconds(), at)
	if load > 0 {
		line += fmt.Sprintf(" load %g", load.Seconds())
	}
	if evicted != "" {
		line += " evicts " + evicted
	}
	s.lines[row] = line
}

// Request by request the same as another simulator, on demand that is made up
// and, where it is there, on fifteen days of real demand.
func TestBesideAnotherSimulator(t *testing.T) {
	made, _, err := simulate.DefaultSynthetic(1).Generate()
	if err != nil {
		t.Fatal(err)
	}
	made = made[:5000]
	for i := range made { // whole seconds: many things happen at one instant
		made[i].Arrival, made[i].Work = made[i].Arrival.Round(time.Second), made[i].Work.Round(time.Second)
	}
	traces := map[string][]simulate.Row{"made up": made}
	real, err := simulate.ReadTrace(filepath.Join("..", "..", "..", "..", "shared", "data", "traces", "gentd26-days00-15.csv"))
	if err != nil {
		t.Log("on made-up demand only:", err)
	} else {
		traces["real"] = real
	}
	for name, rows := range traces {
		for _, c := range []struct {
			n, models int
			compress  float64
		}{{8, 2, 10}, {12, 1, 20}} {
			demand := simulate.Compress(rows, c.compress)
			loads := simulate.ByModel{}
			for _, r := range demand {
				loads[r.Key] = time.Duration(1+len(r.Key)+int(r.Key[len(r.Key)-1])%7*9) * time.Second
			}
			for _, p := range []string{"least-loaded", "sticky-lru", "round-robin"} {
				want := (&reference{policy: p, models: c.models, rows: demand, loads: loads}).run(c.n)
				got, _ := by(t, simulate.Options{Rows: demand, Resources: c.n, Models: c.models, Loads: loads, Placement: policy(p)})
				for i := range want {
					if got[i] != want[i] {
						t.Errorf("%s demand, %s on %d of %d, first difference: %s, not %s", name, p, c.n, c.models, got[i], want[i])
						break
					}
				}
			}
		}
	}
}
