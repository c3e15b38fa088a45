package scene

import "math"

// Sphere returns a sphere of radius 1 about the origin.
func Sphere() *Mesh {
	return surface(96, 192, func(u, v float64) V3 {
		su, cu := math.Sincos(u * math.Pi)
		sv, cv := math.Sincos(v * 2 * math.Pi)
		return V3{float32(su * cv), float32(cu), float32(-su * sv)}
	})
}

// Torus returns a torus about the y axis, of radii 1 and 0.38.
func Torus() *Mesh {
	return surface(96, 192, func(u, v float64) V3 {
		su, cu := math.Sincos(u * 2 * math.Pi)
		sv, cv := math.Sincos(v * 2 * math.Pi)
		r := 1 + 0.38*cu
		return V3{float32(r * cv), float32(-0.38 * su), float32(-r * sv)}
	})
}

// surface samples f over the unit square in rows by columns quadrilaterals.
func surface(rows, columns uint32, f func(u, v float64) V3) *Mesh {
	m := &Mesh{}
	for j := range rows + 1 {
		for i := range columns + 1 {
			m.Points = append(m.Points, f(float64(j)/float64(rows), float64(i)/float64(columns)))
		}
	}
	for j := range rows {
		for i := range columns {
			p := j*(columns+1) + i
			q := p + columns + 1
			m.Indices = append(m.Indices, p, q, p+1, p+1, q, q+1)
		}
	}
	return m
}
