package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

// The groups of settings.
const (
	groupReal      = "real"      // a real trace, compressed until there is work for the fleet
	groupLight     = "light"     // the same trace as it was, and compressed by 2
	groupSynthetic = "synthetic" // demand that is made up
	groupIdle      = "idle"      // the same, of little
	groupArrivals  = "arrivals"  // for policies of scaling
)

// setting is a fleet and what is asked of it.
type setting struct {
	Group     string
	Name      string
	Resources int
	Models    int     // that one resource holds
	Compress  float64 // of the trace; 0: until the offered load is Load
	Load      float64 // offered: work asked for, loading excluded, as a share of what all slots could do
	rows      func(seed uint64) ([]simulate.Row, simulate.Loads, error)
}

// demand is what arrives with one seed.
func (s *setting) demand(seed uint64) ([]simulate.Row, simulate.Loads, error) {
	rows, loads, err := s.rows(seed)
	if err != nil {
		return nil, nil, err
	}
	by := s.Compress
	if by == 0 {
		by = s.Load * float64(s.Resources) / concurrency(rows)
	}
	return simulate.Compress(rows, by), loads, nil
}

// concurrency is how many slots a trace keeps busy on average, loading excluded.
func concurrency(rows []simulate.Row) float64 {
	var work time.Duration
	for i := range rows {
		work += rows[i].Work
	}
	return work.Seconds() / rows[len(rows)-1].Arrival.Seconds()
}

// realLoads are those that were measured in the service that the real trace is from.
var realLoads = simulate.Lognormal{P50: 22700 * time.Millisecond, P95: 45 * time.Second}

// realTrace is the requests of the first sixteen days of GenTD26; see ../shared/data/README.md.
const realTrace = "gentd26-days00-15.csv"

// realSettings are empty where the trace is not there.
func realSettings(traces string, quick bool) ([]setting, error) {
	rows, err := simulate.ReadTrace(filepath.Join(traces, realTrace))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if quick {
		rows = simulate.Between(rows, 4, 6)
	}
	source := func(uint64) ([]simulate.Row, simulate.Loads, error) { return rows, realLoads, nil }
	var all []setting
	add := func(group string, resources, models int, compress float64) {
		all = append(all, setting{Group: group, Name: fmt.Sprintf("%dx%d @%g", resources, models, compress), Resources: resources, Models: models,
			Compress: compress, Load: concurrency(rows) * compress / float64(resources), rows: source})
	}
	if quick {
		add(groupReal, 8, 2, 10)
		add(groupReal, 16, 1, 20)
		add(groupLight, 8, 2, 1)
		return all, nil
	}
	for _, f := range []struct {
		resources, models int
		compress          float64
	}{{8, 2, 10}, {8, 1, 10}, {12, 2, 20}, {12, 1, 20}, {16, 1, 30}, {16, 1, 40}, {16, 2, 40}, {16, 2, 50}, {16, 1, 50}, {24, 1, 80}, {24, 2, 60}} {
		add(groupReal, f.resources, f.models, f.compress)
	}
	slices.SortStableFunc(all, func(a, b setting) int { return int(1e6*a.Load) - int(1e6*b.Load) })
	for _, compress := range []float64{1, 2} {
		for _, f := range [][2]int{{4, 1}, {4, 2}, {8, 1}, {8, 2}, {16, 2}} {
			add(groupLight, f[0], f[1], compress)
		}
	}
	return all, nil
}

// A mix of sizes, by what it makes of the made-up trace.
type mix struct {
	name  string
	adapt func(*simulate.Synthetic)
}

// mixed is all four kinds of model in one trace; the others have one kind each.
var mixed = mix{"all kinds", func(*simulate.Synthetic) {}}

var mixes = []mix{
	{"small, short", func(s *simulate.Synthetic) { s.Large, s.Long = s.Small, s.Short }},
	{"small, long", func(s *simulate.Synthetic) { s.Large, s.Short = s.Small, s.Long }},
	{"large, short", func(s *simulate.Synthetic) { s.Small, s.Long = s.Large, s.Short }},
	{"large, long", func(s *simulate.Synthetic) { s.Small, s.Short = s.Large, s.Long }},
}

func syntheticSettings(quick bool) []setting {
	var all []setting
	add := func(group string, m mix, resources, models int, load float64) {
		all = append(all, setting{Group: group, Name: fmt.Sprintf("%dx%d, %s, %.0f %%", resources, models, m.name, 100*load), Resources: resources, Models: models, Load: load,
			rows: func(seed uint64) ([]simulate.Row, simulate.Loads, error) {
				s := simulate.DefaultSynthetic(seed)
				if quick {
					s.Days = 1
				}
				m.adapt(&s)
				rows, loads, err := s.Generate()
				return rows, loads, err
			}})
	}
	if quick {
		add(groupSynthetic, mixed, 8, 1, 0.7)
		add(groupSynthetic, mixes[3], 8, 2, 0.6)
		return all
	}
	for _, load := range []float64{0.4, 0.7, 0.9} {
		add(groupSynthetic, mixed, 8, 1, load)
		add(groupSynthetic, mixed, 12, 2, load)
	}
	for _, m := range mixes {
		add(groupSynthetic, m, 8, 2, 0.6)
	}
	add(groupIdle, mixed, 8, 1, 0.05)
	add(groupIdle, mixed, 8, 2, 0.05)
	return all
}

// variant is a policy as it is run.
type variant struct {
	Name      string
	Placement domain.PlacementSettings
}

// variants are all policies and references, ours first.
func variants() []variant {
	all := []variant{{domain.PlaceTTFF, domain.PlacementSettings{Policy: domain.PlaceTTFF}}}
	for _, name := range slices.Concat(baselines(), domain.PlacementReferences()) {
		all = append(all, variant{name, domain.PlacementSettings{Policy: name}})
	}
	return all
}

// baselines are all policies but ours.
func baselines() []string {
	return slices.DeleteFunc(domain.PlacementPolicies(), func(name string) bool { return name == domain.PlaceTTFF })
}

// part is a part of ttff, and what takes it away.
type part struct {
	Name   string
	Absent map[string]float64
}

func (p part) variant() variant {
	return variant{"ttff without " + p.Name, domain.PlacementSettings{Policy: domain.PlaceTTFF, Parameters: p.Absent}}
}

func parts() []part {
	return []part{
		{"paying off a load", map[string]float64{"payoff": 0}},
		{"an end to paying off", map[string]float64{"payoff": 1e6}},
		{"waiting for a busy copy", map[string]float64{"patience": 0, "copies": 0}},
		{"relief of lines that fell behind", map[string]float64{"relief": 1000}},
		{"fair share", map[string]float64{"share": 0}},
		{"response ratio", map[string]float64{"ratio": 0}},
		{"worth by demand (LRU instead)", map[string]float64{"demand": 0}},
		{"a bound for the overdue", map[string]float64{"overdue": 1000}},
	}
}

// partSettings are those in which parts are taken away: some of each group, since it takes long.
func partSettings(all []setting) []setting {
	var some []setting
	for i := range all {
		if all[i].Group != groupIdle && (i%3 == 0 || len(all) < 8) {
			some = append(some, all[i])
		}
	}
	return some
}
