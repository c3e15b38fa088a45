package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

const traces = "../../../../shared/data/traces"

// quick runs everything in small and gives what it wrote, by file.
func quick(t *testing.T, traces string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := quality(context.Background(), options{Quick: true, Out: dir, Traces: traces}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestThePageIsTheSameEachTime needs no real traces: with them it takes longer, and make quality -quick shows the same.
func TestThePageIsTheSameEachTime(t *testing.T) {
	first, again := quick(t, "nowhere"), quick(t, "nowhere")
	if len(first) < 3 {
		t.Fatalf("only %d files were written", len(first))
	}
	for name := range first {
		if first[name] != again[name] {
			t.Errorf("%s is another the second time", name)
		}
	}
	page := first["/quality.md"]
	for _, want := range []string{"Left out: the real demand", "Left out: scaling", "![Made-up demand](quality/synthetic.svg)", "## What each part of ttff brings", "A quick run"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for name := range first {
		if strings.HasSuffix(name, ".svg") && !strings.Contains(page, "](quality/"+filepath.Base(name)+")") {
			t.Errorf("the page does not show %s", name)
		}
	}
}

func TestRealTraces(t *testing.T) {
	settings, err := realSettings(traces, false)
	if err != nil {
		t.Fatal(err)
	}
	if settings == nil {
		t.Skip("../shared/data/traces is not there")
	}
	least, most := 1.0, 0.0
	for _, s := range inSettings(settings, groupReal) {
		least, most = min(least, s.Load), max(most, s.Load)
		rows, _, err := s.demand(1)
		if err != nil {
			t.Fatal(err)
		}
		if got := concurrency(rows) / float64(s.Resources); got < 0.99*s.Load || got > 1.01*s.Load {
			t.Errorf("%s: the offered load is %.3f, and is said to be %.3f", s.Name, got, s.Load)
		}
	}
	if least > 0.35 || most < 0.9 || most > 1 {
		t.Errorf("the settings cover offered loads from %.2f to %.2f only", least, most)
	}
	rows, err := readArrivals(filepath.Join(traces, arrivalsTrace))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 8819 || rows[0].Work != workAlways+10*workOneToken {
		t.Errorf("there are %d arrivals, and the first works for %s", len(rows), rows[0].Work)
	}
}

func inSettings(all []setting, group string) []setting {
	return slices.DeleteFunc(slices.Clone(all), func(s setting) bool { return s.Group != group })
}

func TestSyntheticSettingsOfferTheirLoad(t *testing.T) {
	for _, s := range syntheticSettings(false) {
		rows, loads, err := s.demand(2)
		if err != nil {
			t.Fatal(err)
		}
		if got := concurrency(rows) / float64(s.Resources); got < 0.999*s.Load || got > 1.001*s.Load {
			t.Errorf("%s: the offered load is %.3f", s.Name, got)
		}
		if loads.Of(rows[0].Key, 2) <= 0 {
			t.Errorf("%s: %s loads in no time", s.Name, rows[0].Key)
		}
	}
}

func TestEveryVariantCanBeRun(t *testing.T) {
	all := variants()
	for _, p := range parts() {
		all = append(all, p.variant())
	}
	for _, v := range all {
		if err := v.Placement.Check(true); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		if _, there := looks[v.Name]; !there && v.Placement.Parameters == nil {
			t.Errorf("%s has no look in plots", v.Name)
		}
	}
	if variants()[0].Name != domain.PlaceTTFF || slices.Contains(baselines(), domain.PlaceTTFF) {
		t.Error("ours is to come first, and is no baseline")
	}
	for _, text := range scalingTexts() {
		if _, err := domain.ParseScalingPolicy(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestScalingIsRunOnArrivals(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	b.WriteString("arrival_s,context_tokens,generated_tokens\n")
	for range 40 {
		b.WriteString("1.5,7,10\n")
	}
	file := filepath.Join(dir, arrivalsTrace)
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	rows, err := readArrivals(file)
	if err != nil {
		t.Fatal(err)
	}
	few, many := scalingCase{start: 20e9, idle: 1e9, text: "buffer:size=1"}, scalingCase{start: 20e9, idle: 1e9, text: "buffer:size=48"}
	for _, c := range []*scalingCase{&few, &many} {
		if err := c.run(rows); err != nil {
			t.Fatal(err)
		}
	}
	if few.result.Served != 40 || few.result.ResourceSeconds >= many.result.ResourceSeconds {
		t.Errorf("a buffer of one served %d of 40 with %.0f resource-seconds, one of 48 needs %.0f", few.result.Served, few.result.ResourceSeconds, many.result.ResourceSeconds)
	}
	if err := os.WriteFile(file, []byte("arrival_s\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readArrivals(file); err == nil {
		t.Error("arrivals without tokens were read")
	}
}

func TestFalling(t *testing.T) {
	times := make([]float64, 100)
	for i := range times {
		times[i] = float64(100 - i)
	}
	c := falling("x", times)
	if c.shares[0] != 1 || c.seconds[0] != 1 || c.seconds[len(c.seconds)-1] != 100 {
		t.Errorf("all waited at least 1 s and one 100 s; the curve goes from %g s (%g) to %g s", c.seconds[0], c.shares[0], c.seconds[len(c.seconds)-1])
	}
	for i, share := range c.shares {
		if at := 101 - c.seconds[i]; share*100 > at+0.51 || share*100 < at-0.51 {
			t.Errorf("%.1f of 100 are said to have waited %g s; by hand it is %g", share*100, c.seconds[i], at)
		}
	}
}

func TestSeconds(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234.6: "1,235", 12345: "12,345", 999.6: "1,000"} {
		if got := seconds(v); got != want {
			t.Errorf("%g is written %s, not %s", v, got, want)
		}
	}
}

func TestAFailedRunIsTold(t *testing.T) {
	s := syntheticSettings(true)[0]
	s.rows = func(uint64) ([]simulate.Row, simulate.Loads, error) { return nil, nil, fs.ErrInvalid }
	err := runAll(context.Background(), []job{{setting: s, variant: variants()[0]}}, []uint64{1}, func(int, int, string) {})
	if err == nil || !strings.Contains(err.Error(), s.Name) {
		t.Errorf("the error is %v", err)
	}
}
