// Command quality runs all placement and scaling policies on real and on
// made-up demand, and writes what they came to, with what was to be shown and
// whether it holds, to docs/quality.md: make quality.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var o options
	flag.BoolVar(&o.Quick, "quick", false, "few settings, one seed, parts of the traces: to see whether it works, not to show anything")
	flag.StringVar(&o.Out, "out", "docs", "directory that quality.md and quality/*.svg are written to")
	flag.StringVar(&o.Traces, "traces", "../shared/data/traces", "directory of the real traces; what is not there is left out")
	flag.BoolVar(&o.Scaling, "scaling", false, "only what is to be shown of policies of scaling; no page is written")
	flag.Parse()
	debug.SetGCPercent(800) // it makes much garbage and keeps little, as rrm simulate
	err := quality(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
		os.Exit(1)
	}
}

type options struct {
	Quick  bool
	Out    string
	Traces string

	Scaling bool // nothing but policies of scaling
}

func (o options) seeds() []uint64 {
	if o.Quick {
		return []uint64{1}
	}
	return []uint64{1, 2, 3}
}

// findings are all that the page says.
type findings struct {
	quick    bool
	seeds    []uint64
	outcomes []outcome
	parts    []outcome // with ttff without each of its parts
	tail     *tail
	scaling  *scalingFindings
	checks   []check
	skipped  []string
}

// quality runs everything, writes the page and its plots, and tells stdout what holds.
func quality(ctx context.Context, o options, stdout, stderr io.Writer) error {
	f, err := find(ctx, o, stderr)
	if err != nil {
		return err
	}
	for _, c := range f.checks {
		fmt.Fprintf(stdout, "%-11s  %-9s  %s: %s, %.3f (%s)\n", c.verdict(), c.Group, c.Asked, c.Limit, c.Found, c.Details)
	}
	for _, s := range f.skipped {
		fmt.Fprintln(stdout, "skipped:", s)
	}
	if o.Scaling {
		return nil
	}
	return write(o.Out, f)
}

func find(ctx context.Context, o options, stderr io.Writer) (*findings, error) {
	f := &findings{quick: o.Quick, seeds: o.seeds()}
	if !o.Scaling {
		if err := f.findPlacement(ctx, o, stderr); err != nil {
			return nil, err
		}
	}
	var err error
	if f.scaling, err = findScaling(ctx, o, progress(stderr)); err != nil {
		return nil, err
	}
	if f.scaling == nil {
		f.skipped = append(f.skipped, "scaling: "+arrivalsTrace+" is not there")
	} else {
		f.checks = append(f.checks, f.scaling.checks()...)
	}
	return f, nil
}

// findPlacement runs policies of placement.
func (f *findings) findPlacement(ctx context.Context, o options, stderr io.Writer) error {
	settings, err := realSettings(o.Traces, o.Quick)
	if err != nil {
		return err
	}
	if settings == nil {
		f.skipped = append(f.skipped, "the real demand: "+realTrace+" is not there")
	}
	settings = append(settings, syntheticSettings(o.Quick)...)
	some := partSettings(settings)
	var jobs []job
	for _, s := range settings {
		for _, v := range variants() {
			jobs = append(jobs, job{setting: s, variant: v})
		}
	}
	for _, s := range some {
		for _, p := range parts() {
			jobs = append(jobs, job{setting: s, variant: p.variant()})
		}
	}
	if err := runAll(ctx, jobs, f.seeds, progress(stderr)); err != nil {
		return err
	}
	f.outcomes, f.parts = gather(settings, jobs), gather(some, jobs)
	f.checks = allChecks(f.outcomes)
	f.tail, err = findTail(settings)
	return err
}

// progress tells how far it is, with the time since it began. It may be called by many at once.
func progress(w io.Writer) func(n, of int, what string) {
	began := time.Now()
	return func(n, of int, what string) {
		fmt.Fprintf(w, "%s %4d of %d: %s\n", time.Since(began).Round(time.Second), n, of, what)
	}
}
