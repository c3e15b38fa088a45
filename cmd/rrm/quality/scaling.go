package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

// arrivalsTrace is the requests of an hour to a language model; see
// ../shared/data/README.md. It has no users, models or durations: here all ask for
// one model, and the work of a request follows from the tokens that were generated.
const arrivalsTrace = "azure-llm2023-code.csv"

// What a request of the arrivals takes: a little for the question, and the
// answer at 20 tokens a second, which is about how fast one is read aloud twice over.
const (
	workAlways   = 500 * time.Millisecond
	workOneToken = 50 * time.Millisecond
)

const (
	scalingModel = "code"
	scalingLoad  = 5 * time.Second // of that model
	scalingMost  = 200             // resources
	scalingTick  = time.Second
)

// scalingIdles are how long a resource is unused before it may go: at once, as
// with Agones, a minute, and as the settings have it by default. What a buffer costs
// and how long one waits with it depend on it, so that all are tried.
var scalingIdles = []time.Duration{0, time.Minute, 5 * time.Minute}

// scalingFindings is what policies of scaling came to, by how long a resource takes to start.
type scalingFindings struct {
	requests int
	minutes  float64
	cases    []scalingCase
}

// scalingCase is one policy with its parameters.
type scalingCase struct {
	start  time.Duration
	idle   time.Duration
	policy domain.ScalingPolicy
	text   string // with parameters
	result simulate.Result
}

// scalingGoals are those that queue-time is given: shorter than a start takes, and longer.
var scalingGoals = []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute}

// scalingSizes are the buffers that are tried: enough of them that what lies between can be told.
var scalingSizes = []string{"1", "2", "4", "8", "12", "16", "24", "32", "36", "40", "48", "64", "96", "128"}

// scalingTexts are the policies with their parameters, as command lines have
// them; those that need a calendar or another service have nothing to go by here.
func scalingTexts() []string {
	var all []string
	for _, policy := range domain.ScalingPolicies() {
		switch policy {
		case domain.ScalingBuffer:
			for _, size := range scalingSizes {
				all = append(all, policy+":size="+size)
			}
		case domain.ScalingDemand, domain.ScalingForecast:
			all = append(all, policy)
		case domain.ScalingQueueTime:
			for _, goal := range scalingGoals {
				all = append(all, policy+":goal="+goal.String())
			}
		}
	}
	return all
}

func findScaling(ctx context.Context, o options, done func(n, of int, what string)) (*scalingFindings, error) {
	rows, err := readArrivals(filepath.Join(o.Traces, arrivalsTrace))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	starts := []time.Duration{20 * time.Second, time.Minute}
	if o.Quick {
		starts = starts[:1]
		rows = rows[:1000]
	}
	f := &scalingFindings{requests: len(rows), minutes: rows[len(rows)-1].Arrival.Minutes()}
	for _, start := range starts {
		for _, idle := range scalingIdles {
			for _, text := range scalingTexts() {
				f.cases = append(f.cases, scalingCase{start: start, idle: idle, text: text})
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var finished atomic.Int64
	for i := range f.cases {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f.cases[i].run(rows); err != nil {
				return fmt.Errorf("simulate scaling %s: %w", f.cases[i].text, err)
			}
			done(int(finished.Add(1)), len(f.cases), "scaling, "+f.cases[i].text)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return f, nil
}

func (c *scalingCase) run(rows []simulate.Row) error {
	policy, err := domain.ParseScalingPolicy(c.text)
	if err != nil {
		return err
	}
	c.policy = policy
	c.result, err = simulate.Run(simulate.Options{Rows: rows, Min: 0, Max: scalingMost, Slots: 1, Models: 1, Loads: simulate.ByModel{scalingModel: scalingLoad},
		Start: c.start, Tick: scalingTick, Seed: 1, Placement: domain.PlacementSettings{Policy: domain.DefaultPlacement},
		Scaling: domain.ScalingSettings{Idle: domain.Duration(c.idle), ScalingPolicy: policy}})
	return err
}

// readArrivals reads arrivals and generated tokens.
func readArrivals(file string) ([]simulate.Row, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read arrivals: %w", err)
	}
	if len(all) < 2 {
		return nil, errors.New("read arrivals: there are none")
	}
	at, tokens := slices.Index(all[0], "arrival_s"), slices.Index(all[0], "generated_tokens")
	if at < 0 || tokens < 0 {
		return nil, errors.New("read arrivals: want the columns arrival_s and generated_tokens")
	}
	rows := make([]simulate.Row, 0, len(all)-1)
	for i, rec := range all[1:] {
		seconds, errAt := strconv.ParseFloat(rec[at], 64)
		n, errTokens := strconv.Atoi(rec[tokens])
		if err := errors.Join(errAt, errTokens); err != nil {
			return nil, fmt.Errorf("read arrivals: line %d: %w", i+2, err)
		}
		rows = append(rows, simulate.Row{Row: i, Arrival: time.Duration(seconds * float64(time.Second)).Round(time.Millisecond), User: "all", Key: scalingModel,
			Work: workAlways + time.Duration(n)*workOneToken})
	}
	return rows, nil
}

// point is what a policy costs and what it gives.
type point struct {
	wait float64 // 95th percentile, seconds
	cost float64 // resource-seconds
}

// costAt is what it costs to wait no longer than wait, by points that were
// tried: the least between neighbours on the line between them. ok is false
// where none waits so little.
func costAt(points []point, wait float64) (cost float64, ok bool) {
	for _, p := range points {
		if p.wait <= wait && (!ok || p.cost < cost) {
			cost, ok = p.cost, true
		}
	}
	if !ok {
		return 0, false
	}
	for _, a := range points { // a waits less and costs more than b, and wait is between them
		for _, b := range points {
			if a.wait <= wait && wait < b.wait && a.cost > b.cost {
				cost = min(cost, a.cost+(b.cost-a.cost)*(wait-a.wait)/(b.wait-a.wait))
			}
		}
	}
	return cost, true
}

// checks are that forecast costs no more than a buffer with which waiting is
// the same, and that queue-time keeps its goal.
func (f *scalingFindings) checks() []check {
	var list []check
	for i := range f.cases {
		c := &f.cases[i]
		what := fmt.Sprintf("`%s`, starts of %s, idle for %s", c.text, c.start, c.idle)
		switch c.policy.Policy {
		case domain.ScalingForecast:
			one := f.beside(c)
			one.Asked = what + ": resource-seconds, by what the best `buffer` of any idle time needs for the same 95th percentile of waiting"
			list = append(list, one)
		case domain.ScalingQueueTime:
			goal := c.policy.Duration("goal").Seconds()
			list = append(list, check{
				Asked: what + ": 95th percentile of waiting, by the goal", Group: groupArrivals, Limit: "at most 1",
				Found: c.result.WaitP95 / goal, Holds: c.result.WaitP95 <= goal, Details: fmt.Sprintf("%.1f s", c.result.WaitP95),
			})
		}
	}
	return list
}

// beside sets a case beside buffers. Where it waits less than any buffer that
// was tried nothing is known, so that it is not shown.
func (f *scalingFindings) beside(c *scalingCase) check {
	wait := c.result.WaitP95
	one := check{Group: groupArrivals, Limit: "at most 1", Found: math.Inf(1)}
	cost, ok := costAt(f.points(c.start, domain.ScalingBuffer), wait)
	if !ok {
		one.Details = fmt.Sprintf("waiting %.1f s, less than any buffer that was tried: larger ones have to be", wait)
		return one
	}
	one.Found, one.Holds = c.result.ResourceSeconds/cost, c.result.ResourceSeconds <= cost
	one.Details = fmt.Sprintf("%.1f resource-hours beside %.1f, waiting %.1f s", c.result.ResourceSeconds/3600, cost/3600, wait)
	return one
}

// points are what the cases of one policy came to, the least waiting first.
func (f *scalingFindings) points(start time.Duration, policy string) []point {
	return f.pointsOf(func(c *scalingCase) bool { return c.start == start && c.policy.Policy == policy })
}

func (f *scalingFindings) pointsOf(which func(*scalingCase) bool) []point {
	var all []point
	for i := range f.cases {
		if c := &f.cases[i]; which(c) {
			all = append(all, point{c.result.WaitP95, c.result.ResourceSeconds})
		}
	}
	slices.SortFunc(all, func(a, b point) int { return cmp.Or(cmp.Compare(a.wait, b.wait), cmp.Compare(a.cost, b.cost)) })
	return all
}
