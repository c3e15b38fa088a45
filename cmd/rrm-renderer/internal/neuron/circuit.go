package neuron

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// MaxCircuit is the largest circuit, in neurons.
const MaxCircuit = 10_000

// meanPoints is how many points a grown neuron has on average (measured over
// the seeds 1 to 40; from about 2,500 to 7,000).
const meanPoints = 4200

var palette = []scene.Color{0x5cb8f0, 0xf4606f, 0x78c496, 0xf5bd52, 0xc08af0, 0xff9e62, 0x1fcfb8, 0xd2dae4}

// CircuitBytes estimates the memory that a circuit of n neurons takes once loaded.
func CircuitBytes(n int) int64 {
	return int64(n) * meanPoints * (scene.CapsuleBytes + 1)
}

// Single makes the scene of the neuron of a seed.
func Single(ctx context.Context, seed uint64, meter scene.Meter, progress func(float64)) (*scene.Scene, error) {
	m, err := Grow(ctx, seed, progress)
	if err != nil {
		return nil, err
	}
	return m.Scene(ctx, meter)
}

// Scene makes a scene of one neuron.
func (m *Morphology) Scene(ctx context.Context, meter scene.Meter) (*scene.Scene, error) {
	if err := meter(int64(len(m.Points)) * scene.CapsuleBytes); err != nil {
		return nil, err
	}
	caps := m.AppendCapsules(make([]scene.Capsule, 0, len(m.Points)), Placement{})
	return scene.FromCapsules(ctx, caps, meter)
}

// Circuit grows n different neurons, one after the other, and sets them into a
// column whose volume grows with n. n is 1 to MaxCircuit; the same n gives the
// same circuit.
func Circuit(ctx context.Context, n int, meter scene.Meter, progress func(float64)) (*scene.Scene, error) {
	rng := rand.New(rand.NewPCG(uint64(n), 0xc0105eed))
	size := math.Cbrt(float64(n))
	var caps []scene.Capsule
	for i := range n {
		m, err := Grow(ctx, 1_000_003*uint64(i)+17, func(f float64) { progress((float64(i) + f) / float64(n)) })
		if err != nil {
			return nil, err
		}
		before := cap(caps)
		if need := len(caps) + len(m.Points); need > before {
			// Grown by a quarter at a time; the old run lives until it is copied.
			grown := max(need, before+before/4)
			if err := meter(int64(grown-before) * scene.CapsuleBytes); err != nil {
				return nil, err
			}
			caps = append(make([]scene.Capsule, 0, grown), caps...)
		}
		caps = m.AppendCapsules(caps, place(rng, i, size))
	}
	return scene.FromCapsules(ctx, caps, meter)
}

// place gives neuron i its place in a column of so many times the size of one.
func place(rng *rand.Rand, i int, size float64) Placement {
	turn, away := rng.Float64()*2*math.Pi, 110*size*math.Sqrt(rng.Float64())
	sin, cos := math.Sincos(turn)
	height := (rng.Float64() - 0.5) * 260 * size
	return Placement{
		Offset: scene.V3{X: float32(away * cos), Y: float32(height), Z: float32(away * sin)},
		Yaw:    rng.Float64() * 2 * math.Pi,
		Tint:   &palette[i%len(palette)],
	}
}
