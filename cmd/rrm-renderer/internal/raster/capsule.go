package raster

import (
	"context"
	"math"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// capsule is a capsule on the screen: two discs and what is between them. The
// radius of the picture is linear along it, as radius over z is.
type capsule struct {
	ax, ay, ar, aiz float32
	bx, by, br, biz float32
	color           scene.Color
	front           scene.V3 // normal of the side that faces the eye
	stretch         float32  // how much deeper the tilted surface bulges than an upright one
}

func (r *Renderer) projectCapsules(ctx context.Context, s *scene.Scene, p *projection, span spanOf) error {
	return r.share(ctx, len(s.Chunks), func(k, lo, hi int) {
		b := &r.bins[k]
		for _, ch := range s.Chunks[lo:hi] {
			// A thin branch is drawn thicker than it is: leave room for that.
			c := p.toView(ch.Center)
			radius := ch.Radius * p.inverse
			if !p.sees(c, radius+max(0, c.Z+radius)*p.minRadius/p.focal) {
				continue
			}
			for i := ch.First; i < ch.First+ch.Count; i++ {
				if c, ok := p.capsule(&s.Capsules[i]); ok {
					b.addCapsule(c, p, span)
				}
			}
		}
	})
}

// capsule projects one, cut at the near plane; not ok if nothing is left.
func (p *projection) capsule(s *scene.Capsule) (capsule, bool) {
	a, b := p.toView(s.A), p.toView(s.B)
	ra, rb := s.RA*p.inverse, s.RB*p.inverse
	if a.Z < nearPlane && b.Z < nearPlane {
		return capsule{}, false
	}
	if a.Z < nearPlane {
		u := (nearPlane - a.Z) / (b.Z - a.Z)
		a, ra = a.Lerp(b, u), ra+(rb-ra)*u
		a.Z = nearPlane
	} else if b.Z < nearPlane {
		u := (nearPlane - b.Z) / (a.Z - b.Z)
		b, rb = b.Lerp(a, u), rb+(ra-rb)*u
		b.Z = nearPlane
	}
	var c capsule
	c.ax, c.ay, c.aiz = p.toScreen(a)
	c.bx, c.by, c.biz = p.toScreen(b)
	c.ar, c.br = ra*p.focal*c.aiz, rb*p.focal*c.biz
	// What is thinner than a pixel is drawn as wide as one, but fainter.
	faint := min(1, 0.85+0.15*max(c.ar, c.br)/p.minRadius)
	c.color = mix(0, s.Color, faint)
	c.front, c.stretch = p.tilt(s.B.Sub(s.A), max(c.ar, c.br) > p.minRadius)
	c.ar, c.br = max(p.minRadius, c.ar), max(p.minRadius, c.br)
	return c, true
}

// tilt describes the surface of a cylinder along axis. Without it the round
// ends of a chain of tilted capsules show as ribs. Thin ones need not care, nor
// those seen nearly from the end.
func (p *projection) tilt(axis scene.V3, matters bool) (front scene.V3, stretch float32) {
	if matters {
		axis = axis.Unit()
		front = p.back.Sub(axis.Mul(p.back.Dot(axis)))
		if cos := front.Len(); cos > 0.35 {
			return front.Mul(1 / cos), 1 / cos
		}
	}
	return p.back, 1
}

func (b *bin) addCapsule(c capsule, p *projection, span spanOf) {
	y0, y1 := min(c.ay-c.ar, c.by-c.br), max(c.ay+c.ar, c.by+c.br)
	x0, x1 := min(c.ax-c.ar, c.bx-c.br), max(c.ax+c.ar, c.bx+c.br)
	if y1 < 0 || x1 < 0 || y0 >= float32(p.h) || x0 >= float32(p.w) {
		return
	}
	b.caps = append(b.caps, c)
	lo, hi := span(y0, y1)
	for band := lo; band <= hi; band++ {
		b.capsOf[band] = append(b.capsOf[band], uint32(len(b.caps)-1))
	}
}

// capsule draws one as an impostor: each sample finds its place along the axis
// and takes the normal and the depth of the round surface there.
func (l *layer) capsule(c *capsule, p *projection) {
	y0 := clampInt(min(c.ay-c.ar, c.by-c.br)-0.5, l.y0, l.y1)
	y1 := clampInt(max(c.ay+c.ar, c.by+c.br)+1.5, l.y0, l.y1)
	dx, dy := c.bx-c.ax, c.by-c.ay
	var inv float32
	if l2 := dx*dx + dy*dy; l2 > 0 {
		inv = 1 / l2
	}
	for y := y0; y < y1; y++ {
		py := float32(y) + 0.5 - c.ay
		left, right := c.rowSpan(py, dx, dy)
		x0, x1 := clampInt(left-0.5, 0, l.w), clampInt(right+1.5, 0, l.w)
		row := (y - l.y0) * l.w
		for x := x0; x < x1; x++ {
			px := float32(x) + 0.5 - c.ax
			along := (px*dx + py*dy) * inv
			u := min(1, max(0, along))
			ox, oy := px-u*dx, py-u*dy
			r := c.ar + u*(c.br-c.ar)
			d2 := ox*ox + oy*oy
			if d2 > r*r {
				continue
			}
			nz := float32(math.Sqrt(float64(1 - d2/(r*r))))
			front, stretch := p.back, float32(1) // of the round ends
			if along == u {
				front, stretch = c.front, c.stretch
			}
			// The surface bulges towards the eye by nz radii of z*r/focal.
			bulge := 1 - nz*r*stretch/p.focal
			iz := (c.aiz + u*(c.biz-c.aiz)) / bulge
			if bulge <= 0 || iz > 1/nearPlane || iz <= l.inverseZ[row+x] {
				continue
			}
			l.inverseZ[row+x] = iz
			l.normal[row+x] = p.right.Mul(ox / r).Add(p.up.Mul(-oy / r)).Add(front.Mul(nz))
			l.color[row+x] = c.color
		}
	}
}

// rowSpan bounds the x of a row that the capsule can reach; py is the row's
// place below end a.
func (c *capsule) rowSpan(py, dx, dy float32) (left, right float32) {
	r := max(c.ar, c.br)
	u0, u1 := float32(0), float32(1)
	if abs(dy) > 1e-6 {
		s, t := (py-r)/dy, (py+r)/dy
		u0, u1 = max(0, min(s, t)), min(1, max(s, t))
	}
	xa, xb := c.ax+u0*dx, c.ax+u1*dx
	return min(xa, xb) - r, max(xa, xb) + r
}
