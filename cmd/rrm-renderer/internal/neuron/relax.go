package neuron

import (
	"context"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

const (
	relaxRounds = 60
	relaxReach  = 7.0 // micrometres within which branches push each other apart
)

// relax lets the grown tree settle: each branch smooths itself as a bent rod
// does, and branches that grew too close push each other apart. Stems keep
// their place on the soma. progress is called with 0..1.
func relax(ctx context.Context, m *Morphology, branchOf []int32, progress func(float64)) error {
	children := make([]int32, len(m.Points)) // how many
	child := make([]int32, len(m.Points))    // the last of them
	for i := 1; i < len(m.Points); i++ {
		children[m.Points[i].Parent]++
		child[m.Points[i].Parent] = int32(i)
	}
	push := make([]scene.V3, len(m.Points))
	for round := range relaxRounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		g := newGrid(relaxReach)
		for i := range m.Points {
			g.insert(m.Points[i].P)
		}
		for i := range m.Points {
			push[i] = scene.V3{}
			parent := m.Points[i].Parent
			if parent <= 0 { // the soma and the stems' roots
				continue
			}
			push[i] = separation(m, g, branchOf, int32(i))
			if children[i] == 1 {
				middle := m.Points[parent].P.Lerp(m.Points[child[i]].P, 0.5)
				push[i] = push[i].Add(middle.Sub(m.Points[i].P).Mul(0.12))
			}
		}
		for i := range m.Points {
			m.Points[i].P = m.Points[i].P.Add(push[i])
		}
		progress(float64(round+1) / relaxRounds)
	}
	return nil
}

// separation is the push on point i by the branches near it.
func separation(m *Morphology, g *grid, branchOf []int32, i int32) scene.V3 {
	var sum scene.V3
	p, branch := m.Points[i].P, branchOf[i]
	g.near(p, func(k int32) {
		if branchOf[k] == branch {
			return
		}
		d := p.Sub(m.Points[k].P)
		d2 := d.Dot(d)
		if d2 >= relaxReach*relaxReach || d2 == 0 {
			return
		}
		f := 1 - d2/(relaxReach*relaxReach)
		sum = sum.Add(d.Mul(0.012 * f * f))
	})
	if l := sum.Len(); l > 0.3 {
		sum = sum.Mul(0.3 / l)
	}
	return sum
}
