package neuron

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

func grow(t testing.TB, seed uint64) *Morphology {
	t.Helper()
	m, err := Grow(context.Background(), seed, func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGrownNeuronsArePyramidal(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		m := grow(t, seed)
		if n := len(m.Points); n < 1500 || n > maxPoints+200 {
			t.Errorf("seed %d: %d points", seed, n)
		}
		children := make([]int, len(m.Points))
		top, bottom := float32(0), float32(0)
		kinds := map[Kind]int{}
		for i, p := range m.Points {
			kinds[p.Kind]++
			if i > 0 {
				if p.Parent < 0 || int(p.Parent) >= i {
					t.Fatalf("seed %d: point %d has the parent %d", seed, i, p.Parent)
				}
				children[p.Parent]++
			}
			if !p.P.Usable() || !(p.R > 0) || p.R > 12 {
				t.Fatalf("seed %d: point %d: %+v", seed, i, p)
			}
			if p.Kind == Apical {
				top = max(top, p.P.Y)
			}
			if p.Kind == Axon {
				bottom = min(bottom, p.P.Y)
			}
		}
		if kinds[Soma] != 1 || kinds[Axon] < 200 || kinds[Basal] < 200 || kinds[Apical] < 300 {
			t.Errorf("seed %d: kinds %v", seed, kinds)
		}
		if top < 250 || bottom > -150 {
			t.Errorf("seed %d: from %v to %v", seed, bottom, top)
		}
		checkTaper(t, seed, m)
	}
}

// Branches taper: no point is thicker than the one before it.
func checkTaper(t *testing.T, seed uint64, m *Morphology) {
	t.Helper()
	for i, p := range m.Points[1:] {
		if q := m.Points[p.Parent]; q.Kind != Soma && p.R > q.R*1.001 {
			t.Fatalf("seed %d: point %d has the radius %v after %v", seed, i+1, p.R, q.R)
		}
	}
}

func TestSameSeedSameNeuron(t *testing.T) {
	five := grow(t, 5).Points
	if !slices.Equal(five, grow(t, 5).Points) {
		t.Error("the seed 5 gave two different neurons")
	}
	if slices.Equal(five, grow(t, 6).Points) {
		t.Error("the seeds 5 and 6 gave the same neuron")
	}
}

func TestGrowReportsProgressAndStops(t *testing.T) {
	last := -1.0
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Grow(ctx, 1, func(f float64) {
		if f < last || f > 1 {
			t.Fatalf("progress %v after %v", f, last)
		}
		if last = f; f > 0.6 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("err %v", err)
	}
}

func TestCircuit(t *testing.T) {
	sizes := map[int]int{}
	for _, n := range []int{1, 2} {
		s, err := Circuit(context.Background(), n, scene.Unmetered, func(float64) {})
		if err != nil {
			t.Fatal(err)
		}
		sizes[n] = len(s.Capsules)
		if got, guess := s.Bytes(), CircuitBytes(n); got > 2*guess || got < guess/2 {
			t.Errorf("%d neurons take %d bytes, estimated %d", n, got, guess)
		}
	}
	if sizes[2] < sizes[1]*3/2 {
		t.Errorf("capsules by neurons: %v", sizes)
	}
	refused := errors.New("full")
	if _, err := Circuit(context.Background(), 2, func(n int64) error { return refused }, func(float64) {}); !errors.Is(err, refused) {
		t.Errorf("without memory: %v", err)
	}
}

func TestParseSWC(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"good":               {"# note\n1 1 0 0 0 5 -1\n\n 2 3 0 10 0 1 1\r\n3 2 0 -9 0 -0.5 1", ""},
		"parents come later": {"2 3 0 10 0 1 1\n1 1 0 0 0 5 -1", ""},
		"several roots":      {"1 1 0 0 0 5 -1\n2 3 9 9 9 1 -1", ""},
		"empty":              {"# nothing\n", "nothing to draw"},
		"short line":         {"1 1 0 0 0 5", "line 1: 6 numbers"},
		"text":               {"1 1 0 0 zero 5 -1", `"zero" is not a number`},
		"NaN":                {"1 1 NaN 0 0 5 -1", "is not a number"},
		"infinite":           {"1 1 0 0 0 Inf -1", "is not a number"},
		"far out":            {"1 1 1e30 0 0 1 -1", "out of range"},
		"huge radius":        {"1 1 0 0 0 1e20 -1", "radius"},
		"huge id":            {"1e300 1 0 0 0 1 -1", "whole number"},
		"broken id":          {"1.5 1 0 0 0 1 -1", "whole number"},
		"twice":              {"1 1 0 0 0 5 -1\n1 1 0 0 0 5 -1", "twice"},
		"parent not there":   {"1 1 0 0 0 5 -1\n2 3 0 0 1 1 9", "parent 9"},
		"own parent":         {"1 1 0 0 0 5 1", "own ancestor"},
		"cycle":              {"1 1 0 0 0 5 3\n2 3 0 0 1 1 1\n3 3 0 0 2 1 2", "own ancestor"},
	} {
		m, err := ParseSWC([]byte(c.text), scene.Unmetered)
		if c.want == "" && (err != nil || len(m.Points) < 2) {
			t.Errorf("%s: %v", name, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzParseSWC(f *testing.F) {
	f.Add([]byte("1 1 0 0 0 5 -1\n2 3 0 10 0 1 1\n"))
	f.Add([]byte("1 1 0 0 0 5 2\n2 3 0 10 0 1 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseSWC(data, scene.Unmetered)
		if err != nil {
			return
		}
		if _, err := m.Scene(context.Background(), scene.Unmetered); err != nil {
			t.Fatalf("parsed, but no scene: %v", err)
		}
	})
}

func BenchmarkGrow(b *testing.B) {
	for b.Loop() {
		grow(b, 2)
	}
}
