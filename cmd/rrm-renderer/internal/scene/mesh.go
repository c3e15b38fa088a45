package scene

import (
	"fmt"
	"math"
)

// Mesh is an indexed triangle mesh: three indices a triangle. Normals and
// Colors are one per point; Colors may be nil.
type Mesh struct {
	Points  []V3
	Normals []V3
	Colors  []Color
	Indices []uint32
}

// creaseCosine is how far a face may be from the smooth normal of its point:
// 32 degrees, which makes an edge sharp when it bends by more than about 60.
var creaseCosine = float32(math.Cos(32 * math.Pi / 180))

// Triangles is how many the mesh has.
func (m *Mesh) Triangles() int { return len(m.Indices) / 3 }

// Bytes is the memory that the mesh takes.
func (m *Mesh) Bytes() int64 {
	return 12*int64(cap(m.Points)+cap(m.Normals)) + 4*int64(cap(m.Indices)+cap(m.Colors))
}

// Finish checks every point and index and gives the points normals: smooth
// ones, with points doubled where the surface has a crease. It fails on an
// index out of range, a coordinate that is no finite number, or no triangle.
func (m *Mesh) Finish(meter Meter) error {
	if len(m.Indices) < 3 || len(m.Indices)%3 != 0 {
		return ErrEmpty
	}
	if m.Colors != nil && len(m.Colors) != len(m.Points) {
		return fmt.Errorf("%d colors for %d points", len(m.Colors), len(m.Points))
	}
	for i, p := range m.Points {
		if !p.Usable() {
			return fmt.Errorf("point %d has a coordinate that is no finite number or beyond 1e15", i+1)
		}
	}
	for i, k := range m.Indices {
		if int64(k) >= int64(len(m.Points)) {
			return fmt.Errorf("triangle %d refers to point %d of %d", i/3+1, int64(k)+1, len(m.Points))
		}
	}
	if err := meter(12 * int64(len(m.Points))); err != nil {
		return err
	}
	m.smoothNormals()
	return m.splitCreases(meter)
}

func (m *Mesh) faceNormal(t int) V3 {
	a := m.Points[m.Indices[t]]
	return m.Points[m.Indices[t+1]].Sub(a).Cross(m.Points[m.Indices[t+2]].Sub(a))
}

// smoothNormals weighs the faces about a point by their area.
func (m *Mesh) smoothNormals() {
	m.Normals = make([]V3, len(m.Points))
	for t := 0; t < len(m.Indices); t += 3 {
		f := m.faceNormal(t)
		for _, i := range m.Indices[t : t+3] {
			m.Normals[i] = m.Normals[i].Add(f)
		}
	}
	for i := range m.Normals {
		m.Normals[i] = m.Normals[i].Unit()
	}
}

// splitCreases gives a corner its own point, with the normal of its face,
// where the smooth normal is far from it: edges of a cube stay sharp.
func (m *Mesh) splitCreases(meter Meter) error {
	for t := 0; t < len(m.Indices); t += 3 {
		f := m.faceNormal(t).Unit()
		for k := t; k < t+3; k++ {
			i := m.Indices[k]
			if m.Normals[i].Dot(f) >= creaseCosine {
				continue
			}
			if err := meter(28); err != nil {
				return err
			}
			m.Points = append(m.Points, m.Points[i])
			m.Normals = append(m.Normals, f)
			if m.Colors != nil {
				m.Colors = append(m.Colors, m.Colors[i])
			}
			m.Indices[k] = uint32(len(m.Points) - 1)
		}
	}
	return nil
}
