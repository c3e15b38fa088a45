package main

import (
	"math"
	"slices"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

// tail is how many requests waited for how long, in one setting with one seed.
type tail struct {
	setting string
	curves  []curve
}

// curve is the share of requests, falling, whose time to first frame was at least so many seconds.
type curve struct {
	name    string
	seconds []float64
	shares  []float64
}

// tailSetting is the one that notes on real demand look at most: one model for each resource, and backlogs in office hours.
const tailSetting = "16x1 @40"

// findTail repeats one setting with the policies that are told apart there.
func findTail(settings []setting) (*tail, error) {
	s := settings[0]
	if i := slices.IndexFunc(settings, func(s setting) bool { return s.Name == tailSetting }); i >= 0 {
		s = settings[i]
	}
	t := &tail{setting: s.Name}
	rows, load, err := s.demand(1)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{domain.PlaceTTFF, domain.PlaceWarmFirst, domain.PlaceHashBounded, domain.PlaceLeastLoaded, domain.PlaceAllWarm} {
		var all []float64
		_, err := simulate.Run(simulate.Options{Rows: rows, Resources: s.Resources, Slots: 1, Models: s.Models, Loads: load, Placement: domain.PlacementSettings{Policy: name}, Seed: 1,
			Log: func(one simulate.Served) { all = append(all, (one.Start - one.Arrival).Seconds()) }})
		if err != nil {
			return nil, err
		}
		t.curves = append(t.curves, falling(name, all))
	}
	return t, nil
}

// curvePoints is enough for a smooth line, on a logarithmic scale of shares.
const curvePoints = 120

// falling makes a curve of times. Shares are taken at equal steps of their logarithm, from 1 to that of one request.
func falling(name string, times []float64) curve {
	slices.Sort(times)
	c := curve{name: name}
	n := float64(len(times))
	for i := range curvePoints + 1 {
		share := math.Pow(n, -float64(i)/curvePoints)
		at := len(times) - max(1, int(math.Round(share*n)))
		if x := times[at]; x >= 0.1 { // a logarithmic scale has no zero
			c.seconds, c.shares = append(c.seconds, x), append(c.shares, share)
		}
	}
	return c
}
