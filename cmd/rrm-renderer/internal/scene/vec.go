package scene

import "math"

// V3 is a point or a direction in the model's own unit of length.
type V3 struct{ X, Y, Z float32 }

// Add returns a + b.
func (a V3) Add(b V3) V3 { return V3{a.X + b.X, a.Y + b.Y, a.Z + b.Z} }

// Sub returns a - b.
func (a V3) Sub(b V3) V3 { return V3{a.X - b.X, a.Y - b.Y, a.Z - b.Z} }

// Mul returns a scaled by s.
func (a V3) Mul(s float32) V3 { return V3{a.X * s, a.Y * s, a.Z * s} }

// Dot returns the scalar product.
func (a V3) Dot(b V3) float32 { return a.X*b.X + a.Y*b.Y + a.Z*b.Z }

// Cross returns the vector product.
func (a V3) Cross(b V3) V3 {
	return V3{a.Y*b.Z - a.Z*b.Y, a.Z*b.X - a.X*b.Z, a.X*b.Y - a.Y*b.X}
}

// Len returns the length.
func (a V3) Len() float32 { return float32(math.Sqrt(float64(a.Dot(a)))) }

// Unit returns a with length 1, or the z axis if a has no direction.
func (a V3) Unit() V3 {
	l := a.Len()
	if !(l > 0) || math.IsInf(float64(l), 0) {
		return V3{0, 0, 1}
	}
	return a.Mul(1 / l)
}

// Lerp returns the point at t between a (0) and b (1).
func (a V3) Lerp(b V3, t float32) V3 { return a.Add(b.Sub(a).Mul(t)) }

// Min returns the smaller of each coordinate.
func (a V3) Min(b V3) V3 { return V3{min(a.X, b.X), min(a.Y, b.Y), min(a.Z, b.Z)} }

// Max returns the larger of each coordinate.
func (a V3) Max(b V3) V3 { return V3{max(a.X, b.X), max(a.Y, b.Y), max(a.Z, b.Z)} }

// coordinateLimit bounds what a model may hold: its square, and the squares
// of differences, still fit a float32.
const coordinateLimit = 1e15

// Usable says whether every coordinate is a number that can be drawn: neither
// NaN nor infinite nor beyond 1e15.
func (a V3) Usable() bool {
	return abs(a.X) <= coordinateLimit && abs(a.Y) <= coordinateLimit && abs(a.Z) <= coordinateLimit
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }
