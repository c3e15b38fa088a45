package format

import (
	"github.com/qmuntal/gltf"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// matrix is a 4 by 4 matrix, column by column, as in glTF.
type matrix [16]float64

var identity = matrix(gltf.DefaultMatrix)

func (a matrix) times(b matrix) matrix {
	var c matrix
	for col := range 4 {
		for row := range 4 {
			for k := range 4 {
				c[4*col+row] += a[4*k+row] * b[4*col+k]
			}
		}
	}
	return c
}

func (a matrix) apply(p [3]float32) scene.V3 {
	x, y, z := float64(p[0]), float64(p[1]), float64(p[2])
	row := func(i int) float32 { return float32(a[i]*x + a[4+i]*y + a[8+i]*z + a[12+i]) }
	return scene.V3{X: row(0), Y: row(1), Z: row(2)}
}

// localMatrix is a node's own transformation: its matrix, or translation
// times rotation times scale.
func localMatrix(n *gltf.Node) matrix {
	if m := matrix(n.MatrixOrDefault()); m != identity {
		return m
	}
	t, s, q := n.TranslationOrDefault(), n.ScaleOrDefault(), n.RotationOrDefault()
	x, y, z, w := q[0], q[1], q[2], q[3]
	return matrix{
		s[0] * (1 - 2*(y*y+z*z)), s[0] * 2 * (x*y + z*w), s[0] * 2 * (x*z - y*w), 0,
		s[1] * 2 * (x*y - z*w), s[1] * (1 - 2*(x*x+z*z)), s[1] * 2 * (y*z + x*w), 0,
		s[2] * 2 * (x*z + y*w), s[2] * 2 * (y*z - x*w), s[2] * (1 - 2*(x*x+y*y)), 0,
		t[0], t[1], t[2], 1,
	}
}
