package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
)

// group is what settings are told together under.
type group struct {
	name, title, about, plot string
}

var groups = []group{
	{groupReal, "Real demand", "Requests to an image service (GenTD26, days 0 to 15), compressed until there is work. NxM @C: N resources that hold M models each, gaps between " +
		"arrivals divided by C. Load times are drawn for each model, lognormal, median 22.7 s and 95th percentile 45 s, anew with each seed.", "real.svg"},
	{groupLight, "Real demand, little of it", "The same requests as they came (@1), and at twice the pace (@2).", "light.svg"},
	{groupSynthetic, "Made-up demand", "Requests from the generator that ships with the project (cmd/rrm/simulate/synthetic.go): popularity by Zipf's law, users with habits, day and night, " +
		"bursts. Models are small (loads of 8 s, the median) or large (60 s), and their work is short (8 s) or long (60 s): all four kinds in one trace, or one kind alone. " +
		"The percentage is the offered load. Each seed is another trace.", "synthetic.svg"},
	{groupIdle, "Made-up demand, little of it", "The same with an offered load of 5 %.", ""},
}

// write writes the page and its plots.
func write(dir string, f *findings) error {
	names, err := plots(filepath.Join(dir, "quality"), f)
	if err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	var b page
	b.head(f)
	b.checks(f)
	for _, g := range groups {
		b.group(&g, inGroup(f.outcomes, g.name), names)
	}
	b.text("## The tail\n\nHow many requests waited for how long, in the setting " + f.tail.setting + " with the first seed.\n\n![tail](quality/tail.svg)\n")
	b.parts(f)
	b.scaling(f.scaling)
	return os.WriteFile(filepath.Join(dir, "quality.md"), b.Bytes(), 0o644) //nolint:gosec // documentation, for everybody
}

// page is Markdown in the making.
type page struct{ bytes.Buffer }

func (b *page) text(s string) { b.WriteString(s + "\n") }

// table writes a table. All columns are numbers but the first and those that are named as words.
func (b *page) table(header []string, rows [][]string, words ...int) {
	line := func(cells []string) { b.text("| " + strings.Join(cells, " | ") + " |") }
	line(header)
	marks := make([]string, len(header))
	for i := range marks {
		marks[i] = "---:"
	}
	marks[0] = "---"
	for _, i := range words {
		marks[i] = "---"
	}
	line(marks)
	for _, r := range rows {
		line(r)
	}
	b.text("")
}

func (b *page) head(f *findings) {
	b.text(`# What the policies are worth

Made by ` + "`make quality`" + `, which repeats all of it: the service's own deciders, run by the simulator with a virtual clock (docs/placement.md says what the
policies do). The same seeds give the same page, byte for byte, on every machine of the same architecture; nothing here is measured with a clock.

Times are seconds, and **time to first frame** is from the request to the moment its work can begin: waiting, starting and loading. Figures are means over the
seeds, the worst case is the worst of all. **The best baseline** is, in each setting, the best of ` + strings.Join(quoted(baselines()), ", ") + ` by the figure that
is named; the references ` + strings.Join(quoted(domain.PlacementReferences()), " and ") + `, which know or have what no service can, are none. Fairness is Jain's index of
the users' mean slowdown: 1 is equal.
`)
	seeds := make([]string, len(f.seeds))
	for i, s := range f.seeds {
		seeds[i] = strconv.FormatUint(s, 10)
	}
	b.text("Seeds: " + strings.Join(seeds, ", ") + ". Real traces are read from `../shared/data/traces`, and left out where they are not there.\n")
	if f.quick {
		b.text("**A quick run: few settings, one seed, parts of the traces. It shows nothing but that it runs.**\n")
	}
	for _, s := range f.skipped {
		b.text("Left out: " + s + ".\n")
	}
}

func quoted(names []string) []string {
	out := slices.Clone(names)
	for i := range out {
		out[i] = "`" + out[i] + "`"
	}
	return out
}

func (b *page) checks(f *findings) {
	short := 0
	for i := range f.checks {
		if !f.checks[i].Holds {
			short++
		}
	}
	b.text(fmt.Sprintf("## What was to be shown\n\nOf %d checks %d hold and %d fall short.\n", len(f.checks), len(f.checks)-short, short))
	for _, group := range []string{groupReal, groupLight, groupArrivals, groupSynthetic, groupIdle} {
		var rows [][]string
		for i := range f.checks {
			c := &f.checks[i]
			if c.Group != group {
				continue
			}
			verdict := c.verdict()
			if !c.Holds {
				verdict = "**" + verdict + "**"
			}
			rows = append(rows, []string{c.Asked, c.Limit, fmt.Sprintf("%.3f", c.Found), verdict, c.Details})
		}
		if len(rows) > 0 {
			b.text("**" + checkTitles[group] + "**\n")
			b.table([]string{"figure of `ttff`, unless another is named", "wanted", "found", "", "where"}, rows, 3, 4)
		}
	}
}

var checkTitles = map[string]string{
	groupReal:      "Real demand, offered load of 30 to 95 %",
	groupLight:     "Real demand, little of it",
	groupArrivals:  "Scaling, on real arrivals",
	groupSynthetic: "Made-up demand: not asked for with these limits, but does the method fit more than one file?",
	groupIdle:      "Made-up demand, little of it: the same question",
}

func (b *page) group(g *group, all []outcome, plots []string) {
	if len(all) == 0 {
		return
	}
	b.text("## " + g.title + "\n\n" + g.about + "\n")
	if slices.Contains(plots, g.plot) {
		b.text("![" + g.title + "](quality/" + g.plot + ")\n")
	}
	var rows [][]string
	for i := range all {
		o := &all[i]
		ttff, mean, p95, worst := o.by[domain.PlaceTTFF], best(o, byMean), best(o, byP95), best(o, byMax)
		rows = append(rows, []string{o.Name, percent(o.Load), seconds(ttff.Mean), seconds(o.by[mean].Mean) + " " + mean, share(ttff.Mean, o.by[mean].Mean),
			share(ttff.P95, o.by[p95].P95) + " " + p95, share(ttff.Max, o.by[worst].Max) + " " + worst, seconds(o.by[domain.PlaceAllWarm].Mean), percent(ttff.WarmRatio)})
	}
	b.table([]string{"setting", "offered load", "mean, `ttff`", "best baseline", "share", "p95, share of the best", "worst case, share of the best", "mean, `all-warm`", "found warm, `ttff`"}, rows)
	b.policies("Mean", all, func(f figures) string { return seconds(f.Mean) })
	b.policies("95th percentile", all, func(f figures) string { return seconds(f.P95) })
	b.policies("99th percentile", all, func(f figures) string { return seconds(f.P99) })
	b.policies("Worst case", all, func(f figures) string { return seconds(f.Max) })
	b.policies("Hours of loading", all, func(f figures) string { return fmt.Sprintf("%.1f", f.LoadSeconds/3600) })
	b.policies("Fairness", all, func(f figures) string { return fmt.Sprintf("%.3f", f.Fairness) })
}

// policies is a table of one figure for all policies.
func (b *page) policies(title string, all []outcome, cell func(figures) string) {
	header := []string{"setting"}
	for _, v := range variants() {
		header = append(header, v.Name)
	}
	var rows [][]string
	for i := range all {
		row := []string{all[i].Name}
		for _, v := range variants() {
			row = append(row, cell(all[i].by[v.Name]))
		}
		rows = append(rows, row)
	}
	b.text("**" + title + "**\n")
	b.table(header, rows)
}

func (b *page) parts(f *findings) {
	b.text("## What each part of ttff brings\n\nFigures without the part by those with it, geometric means over " + strconv.Itoa(len(f.parts)) +
		" of the settings above: more than 1 is what the part saves (of fairness: less than 1 is what it adds).\n")
	var rows [][]string
	for _, p := range parts() {
		without := p.variant().Name
		row := []string{p.Name + " (" + told(p.Absent) + ")"}
		for _, f1 := range []figure{byMean, byP95, byP99, byMax, loads, byFair} {
			var r []float64
			for i := range f.parts {
				r = append(r, ratio(f1.of(f.parts[i].by[without]), f1.of(f.parts[i].by[domain.PlaceTTFF])))
			}
			row = append(row, fmt.Sprintf("%.2f", geometric(r)))
		}
		rows = append(rows, row)
	}
	b.table([]string{"without", "mean", "p95", "p99", "worst case", "loading", "fairness"}, rows)
	header := []string{"mean, by setting"}
	for _, p := range parts() {
		header = append(header, p.Name)
	}
	rows = nil
	for i := range f.parts {
		o := &f.parts[i]
		row := []string{o.Name}
		for _, p := range parts() {
			row = append(row, share(o.by[p.variant().Name].Mean, o.by[domain.PlaceTTFF].Mean))
		}
		rows = append(rows, row)
	}
	b.table(header, rows)
}

// told is parameters as a command line has them.
func told(parameters map[string]float64) string {
	var all []string
	for name, v := range parameters {
		all = append(all, name+"="+strconv.FormatFloat(v, 'f', -1, 64))
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

func (b *page) scaling(f *scalingFindings) {
	b.text("## Scaling\n")
	if f == nil {
		b.text("Left out: the arrivals are not there.")
		return
	}
	b.text(fmt.Sprintf("%d requests in %.0f minutes (%s), all for one model with a load of %s. A request works for %s and %s for each token that was generated. From 0 to %d resources "+
		"of one slot; a resource may go after so long without use (idle). Waiting is from the request to its slot.\n\n![scaling](quality/scaling.svg)\n",
		f.requests, f.minutes, arrivalsTrace, scalingLoad, workAlways, workOneToken, scalingMost))
	var rows [][]string
	for i := range f.cases {
		r := &f.cases[i].result
		rows = append(rows, []string{"`" + f.cases[i].text + "`", f.cases[i].start.String(), f.cases[i].idle.String(), seconds(r.WaitP95), seconds(r.TTFFMean), seconds(r.TTFFMax), fmt.Sprintf("%.1f", r.ResourceSeconds/3600),
			percent(r.BusySeconds / r.ResourceSeconds), strconv.Itoa(r.ScaleUps)})
	}
	b.table([]string{"policy", "a start takes", "unused, to go", "p95 of waiting", "mean time to first frame", "worst", "resource-hours", "of them in use", "started"}, rows)
}

// seconds rounds to what can be read: three figures below a thousand, whole seconds above.
func seconds(v float64) string {
	switch {
	case math.Round(v) >= 1000:
		whole := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
		return whole[:len(whole)-3] + "," + whole[len(whole)-3:]
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }

func share(a, b float64) string { return fmt.Sprintf("%.2f", ratio(a, b)) }
