package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// given is one slot that was given out, or several jobs' of one model.
type given struct {
	who, what, model string
	where            map[string]int
	n, warm          int
	waited, most     float64
	saved            float64
	why              map[string]int
	position         int64
}

func (g *given) add(f *fields) {
	if g.where == nil {
		g.where, g.why = map[string]int{}, map[string]int{}
	}
	g.n++
	g.where[f.Resource]++
	why := f.Decision.Reason
	if _, rest, ok := strings.Cut(why, "; "); ok {
		why = rest // "no free slot has the model; loading is cheapest here": the column for warm says the first
	}
	g.why[why]++
	if f.Warm {
		g.warm++
	}
	g.waited += f.Waited
	g.most = max(g.most, f.Waited)
	g.saved += f.Saved
}

// told is what the log says about the story.
type told struct {
	rows             []*given
	jobs             map[string]*given
	allocated, warm  int
	loads, evictions int
	loadSeconds      float64
	saved            float64
	refused          []string
	sizes            []string
}

// fold reads one event.
func (t *told) fold(e *client.Event) {
	f := read(e)
	switch e.Type {
	case "session.allocated", "job.assigned":
		row := &given{who: f.Owner, what: "session", model: f.Model, position: e.Position}
		if e.Type == "job.assigned" {
			if t.jobs[f.Model] == nil {
				row.what = "jobs"
				t.jobs[f.Model] = row
				t.rows = append(t.rows, row)
			}
			row = t.jobs[f.Model]
		} else {
			t.rows = append(t.rows, row)
		}
		row.add(&f)
		t.allocated++
		t.saved += f.Saved
		if f.Warm {
			t.warm++
		}
	case "model.loaded":
		t.loads++
		t.loadSeconds += f.Seconds
	case "model.evicted":
		t.evictions++
	case "session.rejected":
		t.refused = append(t.refused, f.Owner+" ("+f.Code+")")
	case "pool.scaled":
		if len(t.sizes) == 0 {
			t.sizes = append(t.sizes, itoa(f.From))
		}
		t.sizes = append(t.sizes, itoa(f.To))
	}
}

// whatHappened tells the story once more, from the log alone.
func (s *story) whatHappened() error {
	t := &told{jobs: map[string]*given{}}
	sessions, jobs := 0, 0
	err := s.eachEvent(s.ctx, client.ListEventsParams{}, s.begin, func(e *client.Event) (bool, error) {
		if e.Stream == "pool/"+s.renderer {
			t.fold(e)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	var rows [][]string
	for _, g := range t.rows {
		if g.what == "session" {
			sessions++
		} else {
			jobs += g.n
		}
		rows = append(rows, g.row())
	}
	s.line("")
	s.table("", []string{"who", "what", "model", "where", "waited", "warm", "avoided", "why"}, rows)
	s.line("")
	s.say("%d slots given out, %d of them warm (%.0f %%); refused: %s", t.allocated, t.warm, 100*float64(t.warm)/float64(max(1, t.allocated)), strings.Join(t.refused, ", "))
	s.say("%s loaded in %s, %d evicted; %s of loading avoided", count(t.loads, "model", "models"), seconds(t.loadSeconds), t.evictions, seconds(t.saved))
	s.say("resources: %s", strings.Join(t.sizes, " → "))
	return expect(sessions == len(s.people) && jobs >= demoJobs && len(t.refused) == 1 && t.warm > t.allocated/2 && t.saved > 0 && t.sizes[len(t.sizes)-1] == "0",
		fmt.Sprintf("%d sessions, %d jobs, 1 refusal, most of them warm, and the pool back at zero", len(s.people), demoJobs),
		"%d sessions, %d jobs, %d refusals, %d of %d warm, resources %s", sessions, jobs, len(t.refused), t.warm, t.allocated, strings.Join(t.sizes, ", "))
}

func (g *given) row() []string {
	what, waited, warm := g.what, seconds(g.waited), yes(g.warm > 0, "warm", "cold")
	if g.what == "jobs" {
		what = fmt.Sprintf("%d jobs", g.n)
		waited = fmt.Sprintf("%s to %s", seconds(g.waited/float64(g.n)), seconds(g.most))
		warm = fmt.Sprintf("%d of %d", g.warm, g.n)
	}
	return []string{g.who, what, g.model, tally(g.where), waited, warm, optionalSeconds(g.saved), tally(g.why)}
}

// tally lists what was counted, the most frequent first; a count of one is not said.
func tally(counts map[string]int) string {
	keys := slices.Sorted(maps.Keys(counts))
	slices.SortStableFunc(keys, func(a, b string) int { return counts[b] - counts[a] })
	var out []string
	for _, k := range keys {
		if n := counts[k]; n > 1 {
			k = fmt.Sprintf("%s ×%d", k, n)
		}
		out = append(out, k)
	}
	return strings.Join(out, ", ")
}
