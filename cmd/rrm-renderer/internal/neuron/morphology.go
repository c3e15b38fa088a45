// Package neuron holds neurons as trees of points: read from SWC files, or
// grown from a seed. It makes capsules of them for a scene.
package neuron

import (
	"math"
	"unsafe"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// Kind is the compartment that a point belongs to, as numbered in SWC files.
type Kind uint8

// The standard kinds; any other is drawn in grey.
const (
	Soma   Kind = 1
	Axon   Kind = 2
	Basal  Kind = 3
	Apical Kind = 4
)

// Point is one point of the tree. Parent is the index of a point before or
// after it, -1 for a root. Lengths are in micrometres.
type Point struct {
	P      scene.V3
	R      float32
	Parent int32
	Kind   Kind
}

// PointBytes is what one point takes in memory.
const PointBytes = int64(unsafe.Sizeof(Point{}))

// Morphology is the form of one neuron.
type Morphology struct{ Points []Point }

// kindColors follow what neuroscience's viewers do: blue axon, red basal
// dendrites, purple apical dendrites.
var kindColors = map[Kind]scene.Color{Soma: 0xf2c14e, Axon: 0x5cb8f0, Basal: 0xf4606f, Apical: 0xc08af0}

// Color returns the color of a kind.
func (k Kind) Color() scene.Color {
	if c, ok := kindColors[k]; ok {
		return c
	}
	return 0xd0d8e0
}

// Placement puts a neuron into a circuit.
type Placement struct {
	Offset scene.V3
	Yaw    float64      // radians about the y axis
	Tint   *scene.Color // instead of the colors by kind, soma excepted
}

// AppendCapsules adds one capsule for each point to caps.
func (m *Morphology) AppendCapsules(caps []scene.Capsule, at Placement) []scene.Capsule {
	s64, c64 := math.Sincos(at.Yaw)
	sin, cos := float32(s64), float32(c64)
	place := func(p scene.V3) scene.V3 {
		return scene.V3{X: p.X*cos + p.Z*sin, Y: p.Y, Z: -p.X*sin + p.Z*cos}.Add(at.Offset)
	}
	for i := range m.Points {
		n := &m.Points[i]
		color := n.Kind.Color()
		if at.Tint != nil && n.Kind != Soma {
			color = *at.Tint
		}
		c := scene.Capsule{A: place(n.P), B: place(n.P), RA: n.R, RB: n.R, Color: color}
		if n.Parent >= 0 {
			q := &m.Points[n.Parent]
			// A thin branch leaves a thick one at its own size, not as a cone.
			c.A, c.RA = place(q.P), min(q.R, 1.5*n.R)
			if q.Kind == Soma && n.Kind != Soma {
				c = stem(c, q, n)
			}
		}
		caps = append(caps, c)
	}
	return caps
}

// stem is a branch's first piece: it leaves the soma as a cone, which gives
// the soma its corners, instead of as a ball of the soma's size.
func stem(c scene.Capsule, soma, first *Point) scene.Capsule {
	c.RA = first.R
	if d := first.P.Sub(soma.P).Len(); d > soma.R {
		c.RA = max(first.R, min(0.62*soma.R, 3.2*first.R))
	}
	return c
}
