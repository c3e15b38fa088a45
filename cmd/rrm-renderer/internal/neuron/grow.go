package neuron

import (
	"context"
	"math"
	"math/rand/v2"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

const (
	stepLength = 3.0  // micrometres that a growth cone advances at once
	reach      = 18.0 // how far a growth cone senses other branches
	candidates = 20   // directions that it tries before each step
	maxPoints  = 12000
)

// rule is how one kind of branch grows.
type rule struct {
	kind        Kind
	wander      float64  // how much each step turns, 0 to 1
	pull        scene.V3 // where it is drawn to
	pullWeight  float64
	branchEvery float64 // mean length between bifurcations, micrometres
	maxOrder    int
	angle       float64 // of a bifurcation, radians, each side
}

// cone is the tip of a growing branch.
type cone struct {
	at      int32
	dir     scene.V3
	left    float64 // length still to grow
	since   float64 // length since the last bifurcation
	order   int
	rule    *rule
	oblique *rule   // not nil: side branches of this rule leave on the way
	every   float64 // mean length between side branches
	tuft    *rule   // not nil: at its end it opens into a tuft
	branch  int32   // number of the unbranched piece, which does not repel itself
}

// growth simulates all cones of one neuron at once, step by step, each
// sensing what the others have grown.
type growth struct {
	rng      *rand.Rand
	m        Morphology
	branchOf []int32
	branches int32
	cones    []cone
	grid     *grid
	spread   float64 // size of this neuron, about 1
}

// Grow makes the pyramidal neuron of a seed: soma, basal dendrites, an apical
// dendrite with obliques and tuft, and an axon with collaterals. The same seed
// gives the same neuron. progress is called with 0..1. It takes some tenths of
// a second and fails only with the context's error.
func Grow(ctx context.Context, seed uint64, progress func(float64)) (*Morphology, error) {
	g := &growth{rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), grid: newGrid(reach)}
	g.spread = 0.85 + 0.3*g.rng.Float64()
	g.plant()
	for round := 0; len(g.cones) > 0 && len(g.m.Points) < maxPoints; round++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		g.round()
		progress(0.5 * min(1, float64(round)/260))
	}
	if err := relax(ctx, &g.m, g.branchOf, func(f float64) { progress(0.5 + 0.5*f) }); err != nil {
		return nil, err
	}
	g.thicken()
	progress(1)
	return &g.m, nil
}

func (g *growth) uniform(lo, hi float64) float64 { return lo + (hi-lo)*g.rng.Float64() }

func (g *growth) add(p scene.V3, parent int32, kind Kind, branch int32) int32 {
	g.m.Points = append(g.m.Points, Point{P: p, Parent: parent, Kind: kind})
	g.branchOf = append(g.branchOf, branch)
	g.grid.insert(p)
	return int32(len(g.m.Points) - 1)
}

func (g *growth) newBranch() int32 { g.branches++; return g.branches }

// plant sets the soma and the cones that leave it.
func (g *growth) plant() {
	g.add(scene.V3{}, -1, Soma, 0)
	g.m.Points[0].R = float32(g.uniform(7.5, 10))
	down := scene.V3{Y: -1}
	basal := &rule{Basal, 0.26, down, 0.02, 46, 4, 0.55}
	oblique := &rule{Apical, 0.26, scene.V3{Y: 1}, 0.02, 60, 3, 0.55}
	tuft := &rule{Apical, 0.26, scene.V3{Y: 1}, 0.03, 48, 4, 0.6}
	trunk := &rule{Apical, 0.12, scene.V3{Y: 1}, 0.4, math.Inf(1), 0, 0}
	axon := &rule{Axon, 0.2, down, 0.25, math.Inf(1), 0, 0}
	collateral := &rule{Axon, 0.34, scene.V3{}, 0, 95, 4, 0.6}
	stems := 5 + g.rng.IntN(4)
	turn := g.uniform(0, 2*math.Pi)
	for i := range stems {
		az := turn + (float64(i)+g.uniform(-0.3, 0.3))*2*math.Pi/float64(stems)
		el := g.uniform(-0.95, 0.15)
		g.sprout(basal, direction(az, el), g.uniform(150, 230)*g.spread)
	}
	g.sprout(trunk, scene.V3{X: float32(g.uniform(-0.08, 0.08)), Y: 1, Z: float32(g.uniform(-0.08, 0.08))}.Unit(), g.uniform(260, 360)*g.spread)
	c := &g.cones[len(g.cones)-1]
	c.oblique, c.every, c.tuft = oblique, 22, tuft
	g.sprout(axon, scene.V3{X: float32(g.uniform(-0.3, 0.3)), Y: -1, Z: float32(g.uniform(-0.3, 0.3))}.Unit(), g.uniform(240, 340)*g.spread)
	c = &g.cones[len(g.cones)-1]
	c.oblique, c.every = collateral, 34
}

// sprout starts a branch at the soma's surface.
func (g *growth) sprout(r *rule, dir scene.V3, length float64) {
	b := g.newBranch()
	at := g.add(dir.Mul(g.m.Points[0].R*1.25), 0, r.kind, b)
	g.cones = append(g.cones, cone{at: at, dir: dir, left: length, rule: r, branch: b})
}

// round lets every cone advance by a step; what ends is replaced by what it
// branched into.
func (g *growth) round() {
	cones := g.cones
	g.cones = make([]cone, 0, len(cones)+4)
	for _, c := range cones {
		g.advance(&c)
		switch {
		case c.left <= 0 && c.tuft != nil:
			g.openTuft(&c)
		case c.left <= 0:
		case c.order < c.rule.maxOrder && c.since > 12 && g.rng.Float64() < stepLength/c.rule.branchEvery:
			g.bifurcate(&c)
		default:
			if c.oblique != nil && c.since > 15 && g.rng.Float64() < stepLength/c.every {
				g.sideBranch(&c)
			}
			g.cones = append(g.cones, c)
		}
	}
}

// advance tries some directions near the present one and takes the one with
// the least cost: straightness and the pull of the target against crowding.
func (g *growth) advance(c *cone) {
	from := g.m.Points[c.at].P
	best, bestCost := c.dir, math.Inf(1)
	for range candidates {
		d := c.dir.Add(g.randomUnit().Mul(float32(c.rule.wander))).Unit()
		cost := -0.5*float64(d.Dot(c.dir)) - c.rule.pullWeight*float64(d.Dot(c.rule.pull))
		// Look ahead twice: beside the next point and farther on.
		cost += g.crowding(from.Add(d.Mul(stepLength)), c.branch)
		cost += 0.6 * g.crowding(from.Add(d.Mul(3*stepLength)), c.branch)
		cost += g.uniform(0, c.rule.wander)
		if cost < bestCost {
			best, bestCost = d, cost
		}
	}
	c.dir = best
	c.at = g.add(from.Add(best.Mul(stepLength)), c.at, c.rule.kind, c.branch)
	c.left -= stepLength
	c.since += stepLength
}

// crowding is how densely other branches fill the surroundings of p.
func (g *growth) crowding(p scene.V3, branch int32) float64 {
	var sum float32
	g.grid.near(p, func(i int32) {
		if g.branchOf[i] == branch {
			return
		}
		d := g.m.Points[i].P.Sub(p)
		if d2 := d.Dot(d); d2 < reach*reach {
			f := 1 - d2/(reach*reach)
			sum += f * f
		}
	})
	return 0.05 * float64(sum)
}

// bifurcate ends a branch in two daughters that share what length is left,
// one of them usually with less.
func (g *growth) bifurcate(c *cone) {
	side := c.dir.Cross(g.randomUnit()).Unit()
	for k, sign := range []float32{1, -1} {
		a := float32(math.Tan(c.rule.angle * g.uniform(0.6, 1.3)))
		d := *c
		d.dir = c.dir.Add(side.Mul(sign * a)).Unit()
		d.order, d.since, d.branch = c.order+1, 0, g.newBranch()
		if k == 1 {
			d.left *= g.uniform(0.6, 1.05)
		}
		g.cones = append(g.cones, d)
	}
}

func (g *growth) sideBranch(c *cone) {
	side := c.dir.Cross(g.randomUnit()).Unit()
	dir := side.Add(c.dir.Mul(float32(g.uniform(0.1, 0.7)))).Unit()
	length := g.uniform(90, 190)
	if c.rule.kind == Axon {
		length = g.uniform(160, 380)
	}
	g.cones = append(g.cones, cone{at: c.at, dir: dir, left: length * g.spread, rule: c.oblique, branch: g.newBranch()})
	c.since = 0
}

// openTuft replaces the trunk's tip by the main branches of the tuft.
func (g *growth) openTuft(c *cone) {
	side := c.dir.Cross(g.randomUnit()).Unit()
	for _, sign := range []float32{1, -1} {
		dir := c.dir.Add(side.Mul(sign * float32(g.uniform(0.5, 0.95)))).Unit()
		g.cones = append(g.cones, cone{at: c.at, dir: dir, left: g.uniform(150, 240) * g.spread, rule: c.tuft, branch: g.newBranch()})
	}
}

func (g *growth) randomUnit() scene.V3 {
	return direction(g.uniform(0, 2*math.Pi), math.Asin(g.uniform(-1, 1)))
}

func direction(azimuth, elevation float64) scene.V3 {
	sa, ca := math.Sincos(azimuth)
	se, ce := math.Sincos(elevation)
	return scene.V3{X: float32(ce * ca), Y: float32(se), Z: float32(ce * sa)}
}

// thicken gives every branch its radius from the tips inwards by Rall's
// three-halves power law (Rall 1959), with some taper along each branch.
func (g *growth) thicken() {
	tips := map[Kind]float64{Axon: 0.17, Basal: 0.27, Apical: 0.27}
	taper := map[Kind]float64{Axon: 0.00022, Basal: 0.0016, Apical: 0.0014}
	most := map[Kind]float64{Axon: 0.8, Basal: 1.6, Apical: 3.0}
	power := make([]float64, len(g.m.Points))    // sum of the daughters' r^1.5
	thickest := make([]float64, len(g.m.Points)) // of the daughters
	for i := len(g.m.Points) - 1; i > 0; i-- {
		p := &g.m.Points[i]
		r := tips[p.Kind]
		if thickest[i] > 0 {
			// Real trees are not quite as thick as the law says.
			r = max(thickest[i], math.Pow(0.8*power[i], 2.0/3)) + taper[p.Kind]*stepLength
		}
		r = min(r, most[p.Kind])
		p.R = float32(r)
		power[p.Parent] += math.Pow(r, 1.5)
		thickest[p.Parent] = max(thickest[p.Parent], r)
	}
}
