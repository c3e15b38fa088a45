package simulate

import (
	"context"
	"fmt"
	"math"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Compared is one policy beside the first.
type Compared struct {
	Name       string   `json:"name"`
	Mean       Result   `json:"mean"` // over the seeds
	Runs       []Result `json:"runs"` // one for each seed
	Difference float64  `json:"ttff_mean_difference_seconds"`
	Interval   float64  `json:"ttff_mean_difference_interval_seconds"` // half of the 95 % interval of the difference; 0 with one seed
}

// Case is a named simulation.
type Case struct {
	Name string
	Options
}

// RunAll runs every case with every seed, as many at once as there are cores,
// and gives the results by case, then seed.
func RunAll(ctx context.Context, cases []Case, seeds []uint64, done func(name string, r Result)) ([][]Result, error) {
	results := make([][]Result, len(cases))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	finished := make(chan func(), len(cases)*len(seeds))
	for i, c := range cases {
		results[i] = make([]Result, len(seeds))
		for k, seed := range seeds {
			group.Go(func() error {
				if err := ctx.Err(); err != nil {
					return fmt.Errorf("simulate %s: %w", c.Name, err)
				}
				o := c.Options
				o.Seed = seed
				r, err := Run(o)
				if err != nil {
					return fmt.Errorf("simulate %s with seed %d: %w", c.Name, seed, err)
				}
				results[i][k] = r
				finished <- func() { done(c.Name, r) }
				return nil
			})
		}
	}
	told := make(chan struct{})
	go func() {
		for f := range finished {
			f()
		}
		close(told)
	}()
	err := group.Wait()
	close(finished)
	<-told
	return results, err
}

// Compare sets every case beside the first: differences are of pairs with the
// same seed, which share their draws, so that chance weighs little.
func Compare(cases []Case, results [][]Result) []Compared {
	out := make([]Compared, len(cases))
	for i, c := range cases {
		out[i] = Compared{Name: c.Name, Runs: results[i], Mean: Mean(results[i])}
		var differences []float64
		for k := range results[i] {
			differences = append(differences, results[i][k].TTFFMean-results[0][k].TTFFMean)
		}
		out[i].Difference, out[i].Interval = interval(differences)
	}
	return out
}

// interval is the mean and half the 95 % confidence interval of it, by Student's distribution.
func interval(values []float64) (mean, half float64) {
	n := float64(len(values))
	for _, v := range values {
		mean += v / n
	}
	if n < 2 {
		return mean, 0
	}
	squares := 0.0
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	return mean, student(len(values)-1) * math.Sqrt(squares/(n-1)/n)
}

// student is the 97.5th percentile of Student's t by degrees of freedom, from any table.
func student(freedom int) float64 {
	t := []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086}
	if freedom <= len(t) {
		return t[freedom-1]
	}
	return 2.0 // within 4 % from here on
}

// Mean is the mean of results, figure by figure.
func Mean(all []Result) Result {
	m := all[0]
	n := float64(len(all))
	of := func(get func(*Result) *float64) {
		sum := 0.0
		for i := range all {
			sum += *get(&all[i])
		}
		*get(&m) = sum / n
	}
	for _, get := range []func(*Result) *float64{
		func(r *Result) *float64 { return &r.WarmRatio }, func(r *Result) *float64 { return &r.LoadSeconds },
		func(r *Result) *float64 { return &r.TTFFMean }, func(r *Result) *float64 { return &r.TTFFP50 },
		func(r *Result) *float64 { return &r.TTFFP95 }, func(r *Result) *float64 { return &r.TTFFP99 },
		func(r *Result) *float64 { return &r.TTFFMax }, func(r *Result) *float64 { return &r.WaitP95 },
		func(r *Result) *float64 { return &r.BusySeconds }, func(r *Result) *float64 { return &r.ResourceSeconds },
		func(r *Result) *float64 { return &r.Fairness }, func(r *Result) *float64 { return &r.Until },
	} {
		of(get)
	}
	whole := func(get func(*Result) *int) {
		sum := 0.0
		for i := range all {
			sum += float64(*get(&all[i]))
		}
		*get(&m) = int(math.Round(sum / n))
	}
	for _, get := range []func(*Result) *int{
		func(r *Result) *int { return &r.WarmHits }, func(r *Result) *int { return &r.Loads }, func(r *Result) *int { return &r.Evictions },
		func(r *Result) *int { return &r.ScaleUps }, func(r *Result) *int { return &r.ScaleDowns }, func(r *Result) *int { return &r.Rejected },
	} {
		whole(get)
	}
	return m
}
