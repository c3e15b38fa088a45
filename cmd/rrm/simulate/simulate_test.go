package simulate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

// rows reads a trace that is written as "arrival user key duration", one line for each request.
func rows(t *testing.T, text string) []simulate.Row {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace.csv")
	lines := "arrival_s,user,key,duration_s\n"
	for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
		lines += strings.Join(strings.Fields(l), ",") + "\n"
	}
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := simulate.ReadTrace(file)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func policy(name string, params ...any) domain.PlacementSettings {
	s := domain.PlacementSettings{Policy: name, Parameters: map[string]float64{}}
	for i := 0; i < len(params); i += 2 {
		s.Parameters[params[i].(string)] = params[i+1].(float64)
	}
	return s
}

// by simulates and gives each request as "row:placed-start-end@resource load evicted", in order of the rows.
func by(t *testing.T, o simulate.Options) (lines []string, r simulate.Result) {
	t.Helper()
	var log []simulate.Served
	o.Log = func(s simulate.Served) { log = append(log, s) }
	if o.Slots == 0 {
		o.Slots = 1
	}
	if o.Models == 0 {
		o.Models = 1
	}
	r, err := simulate.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(log, func(a, b simulate.Served) int { return a.Row - b.Row })
	for _, s := range log {
		line := fmt.Sprintf("%d:%g-%g-%g@%d", s.Row, s.Placed.Seconds(), s.Start.Seconds(), s.End.Seconds(), s.Resource)
		if s.Load > 0 {
			line += fmt.Sprintf(" load %g", s.Load.Seconds())
		}
		for _, m := range s.Evicted {
			line += " evicts " + string(m)
		}
		lines = append(lines, line)
	}
	return lines, r
}

var tens = simulate.ByModel{"A": 10 * time.Second, "B": 10 * time.Second, "C": 10 * time.Second}

// Worked out by hand.
func TestRequestByRequest(t *testing.T) {
	const demand = `
		0  u A 5
		1  v B 5
		2  u A 5
		3  w A 5
		40 u B 5`
	for _, c := range []struct {
		policy domain.PlacementSettings
		n      int
		want   []string
	}{
		{policy("least-loaded"), 1, []string{"0:0-10-15@0 load 10", "1:15-25-30@0 load 10 evicts A", "2:30-40-45@0 load 10 evicts B", "3:45-45-50@0", "4:50-60-65@0 load 10 evicts A"}},
		{policy("warm-first"), 1, []string{"0:0-10-15@0 load 10", "1:25-35-40@0 load 10 evicts A", "2:15-15-20@0", "3:20-20-25@0", "4:40-40-45@0"}},
		{policy("sticky-lru"), 2, []string{"0:0-10-15@0 load 10", "1:1-11-16@1 load 10", "2:15-15-20@0", "3:16-26-31@1 load 10 evicts B", "4:40-50-55@0 load 10 evicts A"}},
		{policy("round-robin"), 2, []string{"0:0-10-15@0 load 10", "1:1-11-16@1 load 10", "2:15-15-20@0", "3:16-26-31@1 load 10 evicts B", "4:40-50-55@0 load 10 evicts A"}},
		{policy("all-warm"), 1, []string{"0:0-0-5@0", "1:5-5-10@0 evicts A", "2:10-10-15@0 evicts B", "3:15-15-20@0", "4:40-40-45@0 evicts A"}},
		{policy("ttff"), 2, []string{"0:0-10-15@0 load 10", "1:1-11-16@1 load 10", "2:15-15-20@0", "3:18-28-33@1 load 10 evicts B", "4:40-50-55@0 load 10 evicts A"}},
	} {
		got, r := by(t, simulate.Options{Rows: rows(t, demand), Resources: c.n, Loads: tens, Placement: c.policy})
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n  %s\nnot\n  %s", c.policy.Policy, strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
		}
		if r.Served != 5 || r.Rejected != 0 || r.Requests != 5 {
			t.Errorf("%s: %+v", c.policy.Policy, r)
		}
	}
}

// Ends come before arrivals at one instant, and the lowest resource's end first.
func TestOrderAtOneInstant(t *testing.T) {
	got, _ := by(t, simulate.Options{Resources: 2, Loads: simulate.ByModel{"A": 0, "B": 0, "C": 0}, Placement: policy("least-loaded"), Rows: rows(t, `
		0 u A 5
		0 u B 5
		1 u C 1
		5 u A 1`)})
	if want := []string{"0:0-0-5@0", "1:0-0-5@1", "2:5-5-6@0 evicts A", "3:5-5-6@1 evicts B"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// The figures, worked out by hand: warm-first on one resource, as above without the last request.
func TestFigures(t *testing.T) {
	_, r := by(t, simulate.Options{Resources: 1, Loads: tens, Placement: policy("warm-first"), Rows: rows(t, `
		0  u A 5
		1  v B 5
		2  u A 5
		3  w A 5`)})
	// Times to first frame are 10, 34, 13 and 17; slowdowns u (15/5+18/5)/2 = 3.3, v 39/5 = 7.8, w 22/5 = 4.4.
	jain := (3.3 + 7.8 + 4.4) * (3.3 + 7.8 + 4.4) / (3 * (3.3*3.3 + 7.8*7.8 + 4.4*4.4))
	for name, v := range map[string][2]float64{
		"mean": {r.TTFFMean, 18.5}, "p50": {r.TTFFP50, 13}, "p95": {r.TTFFP95, 34}, "max": {r.TTFFMax, 34}, "wait p95": {r.WaitP95, 24},
		"warm": {r.WarmRatio, 0.5}, "loads": {float64(r.Loads), 2}, "load seconds": {r.LoadSeconds, 20}, "evictions": {float64(r.Evictions), 1},
		"busy": {r.BusySeconds, 40}, "resources": {r.ResourceSeconds, 40}, "fairness": {r.Fairness, jain}, "until": {r.Until, 40},
	} {
		if d := v[0] - v[1]; d > 1e-9 || d < -1e-9 {
			t.Errorf("%s is %v, not %v", name, v[0], v[1])
		}
	}
}

// Resources come from zero in the time that a start takes, and go when nobody wants them.
func TestScaling(t *testing.T) {
	got, r := by(t, simulate.Options{Max: 2, Start: 20 * time.Second, Tick: time.Second, Loads: tens, Placement: policy("ttff"),
		Scaling: domain.ScalingSettings{Idle: domain.Duration(30 * time.Second), ScalingPolicy: domain.ScalingPolicy{Policy: "demand"}}, Rows: rows(t, `
		0   u A 5
		300 u A 5`)})
	if want := []string{"0:20-30-35@0 load 10", "1:320-330-335@1 load 10"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if r.ScaleUps != 2 || r.ScaleDowns != 1 || r.ResourceSeconds < 65+35 || r.ResourceSeconds > 67+35 {
		t.Errorf("%d up, %d down, %g s", r.ScaleUps, r.ScaleDowns, r.ResourceSeconds)
	}
}

// Sessions go before jobs, and are served like them otherwise.
func TestInteractive(t *testing.T) {
	demand := rows(t, "0 u A 5\n1 v A 5\n2 w A 5")
	share := 0.5
	for seed := uint64(0); ; seed++ {
		got, _ := by(t, simulate.Options{Resources: 1, Loads: tens, Placement: policy("ttff"), Share: share, Seed: seed, Rows: demand})
		if got[2] == "2:15-15-20@0" { // drawn as a session, with a job before it
			break
		}
		if seed == 50 {
			t.Fatal("no seed lets a session pass a job")
		}
	}
}

func TestSameSeedSameOutput(t *testing.T) {
	var demand []simulate.Row
	for i := range 1000 {
		demand = append(demand, simulate.Row{Row: i, Arrival: time.Duration(i) * 3 * time.Second, User: domain.Owner(fmt.Sprint("u", i%17)),
			Key: domain.ModelKey(fmt.Sprint("m", i*i%13)), Work: time.Duration(5+i%23) * time.Second})
	}
	o := simulate.Options{Rows: demand, Resources: 3, Slots: 2, Models: 2, Loads: simulate.Lognormal{P50: 20 * time.Second, P95: time.Minute},
		Placement: policy("ttff"), Share: 0.3, Seed: 7}
	a, first := by(t, o)
	b, second := by(t, o)
	x, errX := json.Marshal(first)
	y, errY := json.Marshal(second)
	if err := errors.Join(errX, errY); err != nil || !slices.Equal(a, b) || string(x) != string(y) {
		t.Errorf("%v\n%s\n%s", err, x, y)
	}
	o.Seed = 8
	if c, _ := by(t, o); slices.Equal(a, c) {
		t.Error("another seed changes nothing")
	}
}

// A policy that nobody can choose for the service serves sessions too.
func TestReferencesServeSessions(t *testing.T) {
	for _, name := range domain.PlacementReferences() {
		_, r := by(t, simulate.Options{Rows: rows(t, "0 ann A 5\n1 bob B 5\n2 ann A 5"), Resources: 1, Share: 1, Loads: simulate.ByModel{"A": time.Second, "B": time.Second}, Placement: policy(name)})
		if r.Served != 3 {
			t.Errorf("%s served %d of 3", name, r.Served)
		}
	}
}
