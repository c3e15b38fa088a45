package neuron

import (
	"math"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// grid finds the points near a place: a hash of cells, each a list through
// next. It is walked in the order of insertion, reversed, so that the same
// insertions give the same sums.
type grid struct {
	size  float32
	heads map[[3]int32]int32
	next  []int32
}

func newGrid(size float32) *grid {
	return &grid{size: size, heads: make(map[[3]int32]int32)}
}

func (g *grid) cell(p scene.V3) [3]int32 {
	f := func(x float32) int32 { return int32(math.Floor(float64(x / g.size))) }
	return [3]int32{f(p.X), f(p.Y), f(p.Z)}
}

// insert adds the point with the next number.
func (g *grid) insert(p scene.V3) {
	c := g.cell(p)
	head, ok := g.heads[c]
	if !ok {
		head = -1
	}
	g.next = append(g.next, head)
	g.heads[c] = int32(len(g.next) - 1)
}

// near calls f with the number of every point in the 27 cells about p: all
// within the cell size, and some beyond.
func (g *grid) near(p scene.V3, f func(i int32)) {
	c := g.cell(p)
	for dx := int32(-1); dx <= 1; dx++ {
		for dy := int32(-1); dy <= 1; dy++ {
			for dz := int32(-1); dz <= 1; dz++ {
				head, ok := g.heads[[3]int32{c[0] + dx, c[1] + dy, c[2] + dz}]
				for ok && head >= 0 {
					f(head)
					head = g.next[head]
				}
			}
		}
	}
}
