package main

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
)

// figures are what a policy came to in a setting: means over the seeds, and of
// the worst case the worst. Times are seconds.
type figures struct {
	Mean, P50, P95, P99, Max float64 // time to first frame
	LoadSeconds              float64
	WarmRatio                float64
	Fairness                 float64
}

func averaged(results []simulate.Result) figures {
	var f figures
	n := float64(len(results))
	for i := range results {
		r := &results[i]
		f.Mean += r.TTFFMean / n
		f.P50 += r.TTFFP50 / n
		f.P95 += r.TTFFP95 / n
		f.P99 += r.TTFFP99 / n
		f.Max = max(f.Max, r.TTFFMax)
		f.LoadSeconds += r.LoadSeconds / n
		f.WarmRatio += r.WarmRatio / n
		f.Fairness += r.Fairness / n
	}
	return f
}

// outcome is a setting with what each policy came to in it, by the variant's name.
type outcome struct {
	setting
	by map[string]figures
}

// job is one setting with one policy.
type job struct {
	setting setting
	variant variant
	results []simulate.Result // one for each seed
}

// runAll runs every job with every seed, as many at once as there are cores.
func runAll(ctx context.Context, jobs []job, seeds []uint64, done func(n, of int, what string)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	var finished atomic.Int64
	for i := range jobs {
		jobs[i].results = make([]simulate.Result, len(seeds))
		for k, seed := range seeds {
			group.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				j := &jobs[i]
				r, err := run(&j.setting, &j.variant, seed)
				if err != nil {
					return fmt.Errorf("simulate %s in %s with seed %d: %w", j.variant.Name, j.setting.Name, seed, err)
				}
				j.results[k] = r
				done(int(finished.Add(1)), len(jobs)*len(seeds), j.setting.Name+", "+j.variant.Name)
				return nil
			})
		}
	}
	return group.Wait()
}

func run(s *setting, v *variant, seed uint64) (simulate.Result, error) {
	rows, loads, err := s.demand(seed)
	if err != nil {
		return simulate.Result{}, err
	}
	return simulate.Run(simulate.Options{Rows: rows, Resources: s.Resources, Slots: 1, Models: s.Models, Loads: loads, Placement: v.Placement, Seed: seed})
}

// gather puts together what the jobs came to, settings in their order.
func gather(settings []setting, jobs []job) []outcome {
	all := make([]outcome, len(settings))
	for i, s := range settings {
		all[i] = outcome{s, map[string]figures{}}
		for k := range jobs {
			if jobs[k].setting.Group == s.Group && jobs[k].setting.Name == s.Name {
				all[i].by[jobs[k].variant.Name] = averaged(jobs[k].results)
			}
		}
	}
	return all
}
