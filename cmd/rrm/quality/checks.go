package main

import (
	"fmt"
	"math"

	"github.com/rendering-resource-manager/rrm/domain"
)

// check is one of the things that are to be shown, and what was found.
type check struct {
	Asked   string
	Group   string
	Limit   string // as words: "at most 0.55"
	Found   float64
	Holds   bool
	Details string
}

// A figure is one of those that policies are compared by.
type figure struct {
	name string
	of   func(figures) float64
}

var (
	byMean = figure{"mean", func(f figures) float64 { return f.Mean }}
	byP95  = figure{"95th percentile", func(f figures) float64 { return f.P95 }}
	byP99  = figure{"99th percentile", func(f figures) float64 { return f.P99 }}
	byMax  = figure{"worst case", func(f figures) float64 { return f.Max }}
	loads  = figure{"loading seconds", func(f figures) float64 { return f.LoadSeconds }}
	byFair = figure{"fairness", func(f figures) float64 { return f.Fairness }}
)

// best is the baseline with the least of a figure in a setting; the references are none.
func best(o *outcome, f figure) string {
	least := ""
	for _, name := range baselines() {
		if is, ran := o.by[name]; ran && (least == "" || f.of(is) < f.of(o.by[least])) {
			least = name
		}
	}
	return least
}

// versus says what ttff is set beside in a setting.
type versus struct {
	name string
	of   func(o *outcome) string
}

func against(name string) versus { return versus{name, func(*outcome) string { return name }} }

// bestBy is the best baseline of each setting, by a figure.
func bestBy(f figure) versus {
	return versus{"the best baseline by " + f.name, func(o *outcome) string { return best(o, f) }}
}

// ratio of two figures; nothing beside nothing is 1.
func ratio(a, b float64) float64 {
	if a == b {
		return 1
	}
	return a / b
}

// ratios of ttff's figure to another's, in each setting.
func ratios(all []outcome, f figure, v versus) []float64 {
	out := make([]float64, len(all))
	for i := range all {
		o := &all[i]
		out[i] = ratio(f.of(o.by[domain.PlaceTTFF]), f.of(o.by[v.of(o)]))
	}
	return out
}

// geometric is the geometric mean.
func geometric(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(x)))
}

// worst is the greatest ratio with where it was found, and how many are above 1.
// sign is 1 where less is better, -1 where more is.
func worst(all []outcome, r []float64, v versus, sign float64) (value float64, where string, worse int) {
	at := 0
	for i := range r {
		if sign*r[i] > sign*1 {
			worse++
		}
		if sign*r[i] > sign*r[at] {
			at = i
		}
	}
	return r[at], fmt.Sprintf("%s beside %s", all[at].Name, v.of(&all[at])), worse
}

// onAverage checks the geometric mean of the ratios.
func onAverage(group string, all []outcome, f figure, v versus, limit float64) check {
	r := ratios(all, f, v)
	found := geometric(r)
	_, where, worse := worst(all, r, v, 1)
	least, most := extremes(r)
	return check{
		Asked: fmt.Sprintf("%s, by that of %s, geometric mean", f.name, v.name), Group: group, Limit: fmt.Sprintf("at most %g", limit),
		Found: found, Holds: found <= limit, Details: fmt.Sprintf("%.3f to %.3f, the most in %s; above 1 in %d of %d settings", least, most, where, worse, len(r)),
	}
}

// nowhere checks that ttff is worse in no setting.
func nowhere(group string, all []outcome, f figure, v versus) check {
	r := ratios(all, f, v)
	found, where, worse := worst(all, r, v, 1)
	return check{
		Asked: fmt.Sprintf("%s, by that of %s, in the worst setting", f.name, v.name), Group: group, Limit: "at most 1",
		Found: found, Holds: worse == 0, Details: fmt.Sprintf("%s; worse in %d of %d settings", where, worse, len(r)),
	}
}

// fair checks that fairness, of which more is better, is no less than another's: on average, and in each setting.
func fair(group string, all []outcome, v versus) []check {
	r := ratios(all, byFair, v)
	least, where, worse := worst(all, r, v, -1)
	asked := "fairness, by that of " + v.name
	return []check{
		{Asked: asked + ", geometric mean", Group: group, Limit: "at least 1", Found: geometric(r), Holds: geometric(r) >= 1, Details: fmt.Sprintf("below 1 in %d of %d settings", worse, len(r))},
		{Asked: asked + ", in the worst setting", Group: group, Limit: "at least 1", Found: least, Holds: worse == 0, Details: where + fmt.Sprintf("; worse in %d of %d settings", worse, len(r))},
	}
}

func extremes(x []float64) (least, most float64) {
	least, most = x[0], x[0]
	for _, v := range x {
		least, most = min(least, v), max(most, v)
	}
	return least, most
}

// inGroup are the outcomes of one group.
func inGroup(all []outcome, group string) []outcome {
	var some []outcome
	for i := range all {
		if all[i].Group == group {
			some = append(some, all[i])
		}
	}
	return some
}

// busyChecks are those for settings in which there is work.
func busyChecks(group string, all []outcome) []check {
	mean := bestBy(byMean)
	list := []check{
		onAverage(group, all, byMean, mean, 0.55),
		onAverage(group, all, byP95, bestBy(byP95), 0.62),
		nowhere(group, all, byMean, mean),
		nowhere(group, all, byP95, bestBy(byP95)),
		onAverage(group, all, byMean, against(domain.PlaceAllWarm), 1.15),
		onAverage(group, all, loads, against(domain.PlaceLeastLoaded), 0.15),
	}
	return append(list, tailChecks(group, all)...)
}

// lightChecks are those for settings in which there is little.
func lightChecks(group string, all []outcome) []check {
	mean := bestBy(byMean)
	list := []check{
		onAverage(group, all, byMean, mean, 0.85),
		nowhere(group, all, byMean, mean),
		nowhere(group, all, byMax, mean),
		nowhere(group, all, byMax, bestBy(byMax)),
	}
	return append(list, tailChecks(group, all)...)
}

// tailChecks are those for all settings.
func tailChecks(group string, all []outcome) []check {
	list := fair(group, all, against(domain.PlaceWarmFirst))
	return append(list, nowhere(group, all, byP99, bestBy(byMean)), nowhere(group, all, byP99, bestBy(byP99)))
}

// allChecks checks the groups that were run.
func allChecks(all []outcome) []check {
	var list []check
	for _, g := range []struct {
		group  string
		checks func(string, []outcome) []check
	}{{groupReal, busyChecks}, {groupLight, lightChecks}, {groupSynthetic, busyChecks}, {groupIdle, lightChecks}} {
		if some := inGroup(all, g.group); len(some) > 0 {
			list = append(list, g.checks(g.group, some)...)
		}
	}
	return list
}

// verdict in words.
func (c *check) verdict() string {
	if c.Holds {
		return "holds"
	}
	return "falls short"
}
