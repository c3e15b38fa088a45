// Package raster draws a scene on the CPU. It draws into a depth buffer, band
// by band, then shades each sample once. The same scene and view give the same
// picture, byte for byte, with any number of workers.
package raster

import (
	"math"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// Camera looks at the centre of the model from a point on a sphere about it.
type Camera struct {
	Yaw      float64 `json:"yaw"`      // degrees about the y axis
	Pitch    float64 `json:"pitch"`    // degrees above the horizon, -90 to 90
	Distance float64 `json:"distance"` // in radii of the model's bounding sphere
	FOV      float64 `json:"fov"`      // degrees, vertical
}

// View is the camera and the size of the picture in pixels. Samples is the
// number of samples per axis in each pixel.
type View struct {
	Width, Height, Samples int
	Camera                 Camera
}

// nearPlane is what is cut off before the eye, in radii of the model.
const nearPlane = 0.004

// minPixelRadius keeps a thin branch visible: half its width, in pixels.
const minPixelRadius = 0.55

// projection takes points of the model to samples on the screen. View space
// has its unit in radii; z is the distance from the eye along its axis.
type projection struct {
	right, up, back scene.V3
	center          scene.V3
	inverse         float32 // 1 / radius
	distance        float32
	focal           float32 // in samples
	halfW, halfH    float32
	w, h            int     // in samples
	sinX, cosX      float32 // half angles of the frustum
	sinY, cosY      float32
	minRadius       float32 // of a capsule, in samples
}

// point is a place in view space: x to the right, y up, z away from the eye.
type point = scene.V3

func newProjection(s *scene.Scene, v View) projection {
	rad := math.Pi / 180
	sy, cy := math.Sincos(math.Mod(v.Camera.Yaw, 360) * rad)
	sp, cp := math.Sincos(v.Camera.Pitch * rad)
	p := projection{
		back:      scene.V3{X: float32(sy * cp), Y: float32(sp), Z: float32(cy * cp)},
		right:     scene.V3{X: float32(cy), Z: float32(-sy)},
		center:    s.Center,
		inverse:   1 / s.Radius,
		distance:  float32(v.Camera.Distance),
		w:         v.Width * v.Samples,
		h:         v.Height * v.Samples,
		minRadius: minPixelRadius * float32(v.Samples),
	}
	p.up = p.back.Cross(p.right)
	half := v.Camera.FOV / 2 * rad
	p.focal = float32(float64(p.h) / 2 / math.Tan(half))
	p.halfW, p.halfH = float32(p.w)/2, float32(p.h)/2
	s64, c64 := math.Sincos(half)
	p.sinY, p.cosY = float32(s64), float32(c64)
	s64, c64 = math.Sincos(math.Atan(math.Tan(half) * float64(v.Width) / float64(v.Height)))
	p.sinX, p.cosX = float32(s64), float32(c64)
	return p
}

// toView takes a point of the model to view space.
func (p *projection) toView(q scene.V3) point {
	d := q.Sub(p.center).Mul(p.inverse)
	return point{X: d.Dot(p.right), Y: d.Dot(p.up), Z: p.distance - d.Dot(p.back)}
}

// toScreen needs z >= nearPlane.
func (p *projection) toScreen(q point) (x, y, inverseZ float32) {
	iz := 1 / q.Z
	k := p.focal * iz
	return p.halfW + q.X*k, p.halfH - q.Y*k, iz
}

// sees says whether a sphere in view space may touch the frustum.
func (p *projection) sees(c point, radius float32) bool {
	if c.Z+radius < nearPlane {
		return false
	}
	// Distances to the four side planes, which all go through the eye.
	dx := abs(c.X)*p.cosX - c.Z*p.sinX
	dy := abs(c.Y)*p.cosY - c.Z*p.sinY
	return dx <= radius && dy <= radius
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// clampInt converts a screen coordinate, which may be far outside, to [lo, hi].
func clampInt(x float32, lo, hi int) int {
	if !(x > float32(lo)) {
		return lo
	}
	if x >= float32(hi) {
		return hi
	}
	return int(x)
}
