package raster

import (
	"context"
	"math"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// clippedBit marks the number of a triangle that was cut at the near plane.
const clippedBit = 1 << 31

const meshColor scene.Color = 0xc9a27e

// vertex is a point on the screen, or (inverseZ 0) one before the near plane.
type vertex struct{ x, y, inverseZ float32 }

type triangle struct {
	v       [3]vertex
	n       [3]scene.V3
	c       [3]scene.Color
	uniform bool // all corners have the color c[0]
}

type spanOf func(y0, y1 float32) (lo, hi int)

func (r *Renderer) projectMesh(ctx context.Context, m *scene.Mesh, p *projection, span spanOf) error {
	if cap(r.verts) < len(m.Points) {
		r.verts = make([]vertex, len(m.Points))
	}
	r.verts = r.verts[:len(m.Points)]
	err := r.share(ctx, len(m.Points), func(_, lo, hi int) {
		for i := lo; i < hi; i++ {
			q := p.toView(m.Points[i])
			if q.Z < nearPlane {
				r.verts[i] = vertex{}
				continue
			}
			x, y, iz := p.toScreen(q)
			r.verts[i] = vertex{x, y, iz}
		}
	})
	if err != nil {
		return err
	}
	return r.share(ctx, m.Triangles(), func(k, lo, hi int) {
		b := &r.bins[k]
		for t := lo; t < hi; t++ {
			a, c, d := r.verts[m.Indices[3*t]], r.verts[m.Indices[3*t+1]], r.verts[m.Indices[3*t+2]]
			if a.inverseZ > 0 && c.inverseZ > 0 && d.inverseZ > 0 {
				b.addTriangle(uint32(t), a, c, d, p, span)
			} else if a.inverseZ > 0 || c.inverseZ > 0 || d.inverseZ > 0 {
				b.clipTriangle(r.corners(m, t), m, t, p, span)
			}
		}
	})
}

// addTriangle puts a triangle into its bands, unless no sample's centre is in its box.
func (b *bin) addTriangle(number uint32, a, c, d vertex, p *projection, span spanOf) {
	y0, y1 := min(a.y, c.y, d.y), max(a.y, c.y, d.y)
	x0, x1 := min(a.x, c.x, d.x), max(a.x, c.x, d.x)
	if y1 < 0 || x1 < 0 || y0 >= float32(p.h) || x0 >= float32(p.w) {
		return
	}
	if clampInt(y0+0.5, 0, p.h) == clampInt(y1+0.5, 0, p.h) && y1 < float32(p.h)-1 && y0 > 0 {
		return
	}
	lo, hi := span(y0, y1)
	for band := lo; band <= hi; band++ {
		b.trisOf[band] = append(b.trisOf[band], number)
	}
}

// corner is a triangle's corner in view space.
type corner struct {
	p point
	n scene.V3
	c scene.Color
}

func (r *Renderer) corners(m *scene.Mesh, t int) [3]int {
	return [3]int{int(m.Indices[3*t]), int(m.Indices[3*t+1]), int(m.Indices[3*t+2])}
}

// clipTriangle cuts off what is before the near plane: what stays is a
// triangle or two.
func (b *bin) clipTriangle(index [3]int, m *scene.Mesh, t int, p *projection, span spanOf) {
	var in [3]corner
	for k, i := range index {
		in[k] = corner{p.toView(m.Points[i]), m.Normals[i], colorOf(m, i)}
	}
	var out [4]corner
	n := 0
	for k := range in {
		a, c := in[k], in[(k+1)%3]
		if a.p.Z >= nearPlane {
			out[n] = a
			n++
		}
		if (a.p.Z >= nearPlane) != (c.p.Z >= nearPlane) {
			u := (nearPlane - a.p.Z) / (c.p.Z - a.p.Z)
			cut := corner{a.p.Lerp(c.p, u), a.n.Lerp(c.n, u), mix(a.c, c.c, u)}
			cut.p.Z = nearPlane
			out[n] = cut
			n++
		}
	}
	for k := 2; k < n; k++ {
		tri := triangle{uniform: m.Colors == nil}
		for j, q := range [3]corner{out[0], out[k-1], out[k]} {
			x, y, iz := p.toScreen(q.p)
			tri.v[j], tri.n[j], tri.c[j] = vertex{x, y, iz}, q.n, q.c
		}
		b.clipped = append(b.clipped, tri)
		b.addTriangle(uint32(len(b.clipped)-1)|clippedBit, tri.v[0], tri.v[1], tri.v[2], p, span)
	}
}

func colorOf(m *scene.Mesh, i int) scene.Color {
	if m.Colors == nil {
		return meshColor
	}
	return m.Colors[i]
}

func mix(a, b scene.Color, t float32) scene.Color {
	ch := func(shift uint) scene.Color {
		x, y := float32(a>>shift&255), float32(b>>shift&255)
		return scene.Color(x+(y-x)*t+0.5) << shift
	}
	return ch(16) | ch(8) | ch(0)
}

func (r *Renderer) triangleOf(m *scene.Mesh, t int) triangle {
	tri := triangle{uniform: m.Colors == nil}
	for k := range 3 {
		i := m.Indices[3*t+k]
		tri.v[k], tri.n[k], tri.c[k] = r.verts[i], m.Normals[i], meshColor
		if m.Colors != nil {
			tri.c[k] = m.Colors[i]
		}
	}
	return tri
}

// fill draws a triangle. 1/z, and attributes over z, are linear on the screen:
// that makes depth, normals and colors right in perspective.
func (l *layer) fill(t *triangle) {
	a, b, c := t.v[0], t.v[1], t.v[2]
	ax, ay, bx, by, cx, cy := float64(a.x), float64(a.y), float64(b.x), float64(b.y), float64(c.x), float64(c.y)
	area := (bx-ax)*(cy-ay) - (by-ay)*(cx-ax)
	if area == 0 || math.IsNaN(area) || math.IsInf(area, 0) {
		return
	}
	x0 := clampInt(min(a.x, b.x, c.x)-0.5, 0, l.w)
	x1 := clampInt(max(a.x, b.x, c.x)+0.5, 0, l.w)
	y0 := clampInt(min(a.y, b.y, c.y)-0.5, l.y0, l.y1)
	y1 := clampInt(max(a.y, b.y, c.y)+0.5, l.y0, l.y1)
	inv := 1 / area
	// Two barycentric coordinates, linear on the screen; the third is the rest.
	ux, uy := (by-cy)*inv, (cx-bx)*inv
	vx, vy := (cy-ay)*inv, (ax-cx)*inv
	for y := y0; y < y1; y++ {
		py := float64(y) + 0.5
		px := float64(x0) + 0.5
		u := (px-cx)*ux + (py-cy)*uy
		v := (px-cx)*vx + (py-cy)*vy
		row := (y - l.y0) * l.w
		for x := x0; x < x1; x++ {
			if u >= 0 && v >= 0 && u+v <= 1 {
				l.plot(row+x, t, float32(u), float32(v))
			}
			u += ux
			v += vx
		}
	}
}

func (l *layer) plot(o int, t *triangle, u, v float32) {
	wa, wb, wc := u*t.v[0].inverseZ, v*t.v[1].inverseZ, (1-u-v)*t.v[2].inverseZ
	iz := wa + wb + wc
	if iz <= l.inverseZ[o] {
		return
	}
	l.inverseZ[o] = iz
	n0, n1, n2 := &t.n[0], &t.n[1], &t.n[2]
	l.normal[o] = scene.V3{
		X: wa*n0.X + wb*n1.X + wc*n2.X,
		Y: wa*n0.Y + wb*n1.Y + wc*n2.Y,
		Z: wa*n0.Z + wb*n1.Z + wc*n2.Z,
	}
	if t.uniform {
		l.color[o] = t.c[0]
		return
	}
	l.color[o] = mix(mix(t.c[0], t.c[1], wb/max(1e-20, wa+wb)), t.c[2], wc/iz)
}
