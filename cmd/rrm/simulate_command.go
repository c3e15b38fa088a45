package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

// simulation is what its flags say.
type simulation struct {
	trace, load, loadByModel  string
	policy, scaling, compare  string
	log, output               string
	resources, low, high      int
	slots, models, seeds      int
	start, tick, idle         time.Duration
	compress, from, to, share float64
	buffer                    int
	seed                      uint64
}

// simulateCommand lets the service's own deciders serve the demand of a trace.
func (p *program) simulateCommand() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use: "simulate", Short: "Serve the demand of a trace with a virtual clock: what a policy would do", Args: needs(0, 0),
		Long: `Drives the very deciders of the service with a virtual clock. The trace is CSV with the columns
arrival_s,user,key,duration_s (seconds; key is the model); more columns are ignored. Each request is a job, or for
--interactive a session, and holds a slot for the load, if there is one, and its duration.

Time to first frame counts from the request to the moment its work can begin: waiting, starting and loading.
The same seed gives the same output, byte for byte.

Policies of placement: ` + strings.Join(domain.PlacementPolicies(), ", ") + `;
as references ` + strings.Join(domain.PlacementReferences(), " and ") + `. Policies of scaling: ` + strings.Join(domain.ScalingPolicies(), ", ") + `.`,
		Example: `  rrm simulate --trace demand.csv --resources 16 --compress 40
  rrm simulate --trace demand.csv --resources 16 --compress 40 --compare ttff,warm-first,sticky-lru,all-warm
  rrm simulate --trace demand.csv --min 0 --max 32 --start 45s --scaling buffer:size=2 -o json`,
	}
	cmd.RunE = p.run(func(cmd *cobra.Command, _ []string) error { return p.simulate(cmd.Context(), &s) })
	f := cmd.Flags()
	f.StringVar(&s.trace, "trace", "", "CSV `FILE` with arrival_s,user,key,duration_s")
	f.IntVar(&s.resources, "resources", 0, "a fleet of so many, there from the start and cold; 0: from --min to --max, as scaling says")
	f.IntVar(&s.low, "min", 0, "least number of resources")
	f.IntVar(&s.high, "max", 0, "greatest number of resources")
	f.IntVar(&s.slots, "slots", 1, "of one resource")
	f.IntVar(&s.models, "models-per-resource", 1, "that one resource holds")
	f.StringVar(&s.load, "load", "LOGNORMAL(p50=22.7s,p95=45s)", "load times, one drawn for each model")
	f.StringVar(&s.loadByModel, "load-by-model", "", "CSV `FILE` with key,load_s: exact load times instead")
	f.DurationVar(&s.start, "start", 20*time.Second, "time to start a resource")
	f.DurationVar(&s.tick, "tick", time.Second, "how often time is let pass where resources come and go")
	f.DurationVar(&s.idle, "idle", 5*time.Minute, "how long a resource may be unused before scaling removes it")
	f.IntVar(&s.buffer, "buffer", 0, "free slots to keep, whatever the policy of scaling")
	f.Float64Var(&s.compress, "compress", 1, "divides the gaps between arrivals, not the durations")
	f.Float64Var(&s.from, "from", 0, "first `DAY` of the trace, from 0")
	f.Float64Var(&s.to, "to", 0, "`DAY` of the trace before which to stop; 0: its end")
	f.Float64Var(&s.share, "interactive", 0, "`SHARE` of the requests that are sessions, 0 to 1")
	f.StringVar(&s.policy, "policy", domain.DefaultPlacement, "placement: `NAME[:param=value,...]`")
	f.StringVar(&s.scaling, "scaling", domain.DefaultScalingPolicy, "scaling: `NAME[:param=value,...]`")
	f.StringVar(&s.compare, "compare", "", "policies of placement to set beside each other: `NAME,NAME,...`; differences are from the first")
	f.Uint64Var(&s.seed, "seed", 1, "of all draws")
	f.IntVar(&s.seeds, "seeds", 5, "for --compare: how many, from --seed on")
	f.StringVar(&s.log, "log", "", "CSV `FILE` to write, one line for each request in order of the trace")
	f.StringVarP(&s.output, "output", "o", "table", "table or json")
	cmd.PreRunE = func(*cobra.Command, []string) error { return s.check() }
	return cmd
}

func (s *simulation) check() error {
	switch {
	case s.trace == "":
		return usage("--trace names the demand: CSV with arrival_s,user,key,duration_s")
	case s.output != "table" && s.output != "json":
		return usage("-o is table or json, not %q", s.output)
	case s.resources == 0 && s.high == 0:
		return usage("say how many resources: --resources N, or --min N --max N")
	case s.resources != 0 && (s.high != 0 || s.low != 0):
		return usage("--resources is a fleet that does not change: without --min and --max")
	case s.resources < 0 || s.resources > 10_000 || s.low < 0 || s.high > 10_000 || s.low > s.high:
		return usage("resources are from 1 to 10000, and --min is at most --max")
	case s.compress <= 0 || s.share < 0 || s.share > 1 || s.from < 0 || s.to != 0 && s.to <= s.from:
		return usage("--compress is over 0, --interactive from 0 to 1, and --from is before --to")
	case s.start < 0 || s.tick < time.Millisecond || s.seeds < 1 || s.seeds > 1000:
		return usage("--start is not negative, --tick at least 1ms, --seeds from 1 to 1000")
	case s.compare != "" && s.log != "":
		return usage("--log is of one simulation: without --compare")
	}
	return nil
}

// options reads the files and what the flags mean.
func (s *simulation) options() (simulate.Options, error) {
	rows, err := simulate.ReadTrace(s.trace)
	if err != nil {
		return simulate.Options{}, err
	}
	rows = simulate.Compress(simulate.Between(rows, s.from, s.to), s.compress)
	if len(rows) == 0 {
		return simulate.Options{}, errors.New("no request of the trace arrives between --from and --to")
	}
	o := simulate.Options{Rows: rows, Resources: s.resources, Min: s.low, Max: s.high, Slots: s.slots, Models: s.models, Start: s.start,
		Share: s.share, Seed: s.seed, Tick: s.tick}
	o.Scaling = domain.ScalingSettings{Idle: domain.Duration(s.idle), Buffer: s.buffer}
	if o.Scaling.ScalingPolicy, err = simulate.ParseScaling(s.scaling); err != nil {
		return o, usage("%v", err)
	}
	if o.Placement, err = simulate.ParsePlacement(s.policy); err != nil {
		return o, usage("--policy: %v", err)
	}
	if s.loadByModel != "" {
		o.Loads, err = simulate.ReadLoads(s.loadByModel, rows)
	} else if o.Loads, err = simulate.ParseLoad(s.load); err != nil {
		err = usage("%v", err)
	}
	return o, err
}

func (p *program) simulate(ctx context.Context, s *simulation) error {
	debug.SetGCPercent(800) // it makes much garbage and keeps little: a quarter of the time is saved
	o, err := s.options()
	if err != nil {
		return err
	}
	if s.compare != "" {
		return p.compare(ctx, s, o)
	}
	var log []simulate.Served
	if s.log != "" {
		o.Log = func(r simulate.Served) { log = append(log, r) }
	}
	before := simulate.Processor()
	r, err := simulate.Run(o)
	if err != nil {
		return err
	}
	spent := simulate.Processor() - before
	r.Scaling = s.named()
	if s.log != "" {
		if err := writeLog(s.log, log); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintln(p.stderr, speed(r.Commands, r.Elapsed, spent))
	if s.output == "json" {
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return writeJSON(p.stdout, raw)
	}
	p.table("", []string{"what", "value"}, resultRows(&r))
	return nil
}

// speed says how fast so many commands were decided, to whoever watches: it is
// no part of the output, which is the same each time.
func speed(commands int, took, spent time.Duration) string {
	text := fmt.Sprintf("%d commands decided in %s", commands, took.Round(time.Millisecond))
	if spent > 0 { // it is not known everywhere
		text += fmt.Sprintf(", %.0f a second of processor time (%s)", float64(commands)/spent.Seconds(), spent.Round(time.Millisecond))
	}
	return text
}

// named is the policy of scaling, where there is one at work.
func (s *simulation) named() string {
	if s.resources > 0 {
		return ""
	}
	return s.scaling
}

func resultRows(r *simulate.Result) [][]string {
	sec := func(v float64) string { return fmt.Sprintf("%.1f s", v) }
	rows := [][]string{
		{"policy", r.Policy}, {"requests", strconv.Itoa(r.Requests)}, {"served", strconv.Itoa(r.Served)}, {"rejected", strconv.Itoa(r.Rejected)},
		{"warm", fmt.Sprintf("%d (%.1f %%)", r.WarmHits, 100*r.WarmRatio)}, {"loads", fmt.Sprintf("%d, %s", r.Loads, sec(r.LoadSeconds))},
		{"evictions", strconv.Itoa(r.Evictions)},
		{"time to first frame", fmt.Sprintf("mean %s, p50 %s, p95 %s, p99 %s, max %s", sec(r.TTFFMean), sec(r.TTFFP50), sec(r.TTFFP95), sec(r.TTFFP99), sec(r.TTFFMax))},
		{"wait for a slot, p95", sec(r.WaitP95)}, {"slots busy", sec(r.BusySeconds)}, {"resources there", sec(r.ResourceSeconds)},
		{"fairness", fmt.Sprintf("%.3f", r.Fairness)}, {"last end", sec(r.Until)},
	}
	if r.Scaling != "" {
		rows = append(rows, []string{"scaling", fmt.Sprintf("%s: %d up, %d down", r.Scaling, r.ScaleUps, r.ScaleDowns)})
	}
	return rows
}

func (p *program) compare(ctx context.Context, s *simulation, o simulate.Options) error {
	var cases []simulate.Case
	for _, name := range simulate.Names(s.compare) {
		placement, err := simulate.ParsePlacement(name)
		if err != nil {
			return usage("--compare: %v", err)
		}
		c := simulate.Case{Name: name, Options: o}
		c.Placement = placement
		cases = append(cases, c)
	}
	seeds := make([]uint64, s.seeds)
	for i := range seeds {
		seeds[i] = s.seed + uint64(i)
	}
	progress := p.progress()
	done, commands, began, before := 0, 0, time.Now(), simulate.Processor()
	results, err := simulate.RunAll(ctx, cases, seeds, func(name string, r simulate.Result) {
		done, commands = done+1, commands+r.Commands
		progress.say("simulate", "%d of %d: %s, mean time to first frame %.1f s", done, len(cases)*len(seeds), name, r.TTFFMean)
	})
	progress.done()
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(p.stderr, speed(commands, time.Since(began), simulate.Processor()-before))
	compared := simulate.Compare(cases, results)
	if s.output == "json" {
		raw, err := json.Marshal(compared)
		if err != nil {
			return err
		}
		return writeJSON(p.stdout, raw)
	}
	var rows [][]string
	for _, c := range compared {
		sec := func(v float64) string { return fmt.Sprintf("%.1f", v) }
		rows = append(rows, []string{c.Name, sec(c.Mean.TTFFMean), fmt.Sprintf("%+.1f ± %.1f", c.Difference, c.Interval), sec(c.Mean.TTFFP50), sec(c.Mean.TTFFP95),
			sec(c.Mean.TTFFP99), sec(c.Mean.TTFFMax), fmt.Sprintf("%.1f %%", 100*c.Mean.WarmRatio), sec(c.Mean.LoadSeconds), fmt.Sprintf("%.3f", c.Mean.Fairness)})
	}
	p.table("", []string{"policy", "mean s", "difference s", "p50", "p95", "p99", "max", "warm", "load s", "fairness"}, rows)
	_, err = fmt.Fprintf(p.stdout, "Times to first frame, means over %s; differences from %s with their 95 %% interval.\n", count(len(seeds), "seed", "seeds"), compared[0].Name)
	return err
}

// writeLog writes one line for each request: times in seconds since the start of the trace.
func writeLog(file string, log []simulate.Served) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	slices.SortFunc(log, func(a, b simulate.Served) int { return cmp.Compare(a.Row, b.Row) })
	w := bufio.NewWriter(f)
	if err := logLines(w, log); err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	return w.Flush()
}

func logLines(w io.Writer, log []simulate.Served) error {
	if _, err := fmt.Fprintln(w, "row,arrival,placed,start,end,resource,key,load,evicted"); err != nil {
		return err
	}
	sec := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }
	for _, r := range log {
		var evicted []string
		for _, m := range r.Evicted {
			evicted = append(evicted, string(m))
		}
		if _, err := fmt.Fprintf(w, "%d,%s,%s,%s,%s,%d,%s,%s,%s\n", r.Row, sec(r.Arrival), sec(r.Placed), sec(r.Start), sec(r.End), r.Resource, r.Key, sec(r.Load), strings.Join(evicted, ";")); err != nil {
			return err
		}
	}
	return nil
}
