package scene

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
)

func cube() *Mesh {
	m := &Mesh{}
	for i := range 8 {
		m.Points = append(m.Points, V3{float32(i & 1), float32(i >> 1 & 1), float32(i >> 2)})
	}
	m.Indices = []uint32{0, 2, 1, 1, 2, 3, 4, 5, 6, 5, 7, 6, 0, 1, 4, 1, 5, 4, 2, 6, 3, 3, 6, 7, 0, 4, 2, 2, 4, 6, 1, 3, 5, 3, 7, 5}
	return m
}

// The edges of a cube stay sharp: each corner of a face has that face's normal.
func TestCreasesStaySharp(t *testing.T) {
	m := cube()
	if err := m.Finish(Unmetered); err != nil {
		t.Fatal(err)
	}
	for k := 0; k < len(m.Indices); k += 3 {
		f := m.faceNormal(k).Unit()
		for _, i := range m.Indices[k : k+3] {
			if m.Normals[i].Dot(f) < 0.99 {
				t.Fatalf("triangle %d: normal %v on a face towards %v", k/3, m.Normals[i], f)
			}
		}
	}
}

// A sphere is smooth: its normals point away from its centre, no point is doubled.
func TestSmoothSurfacesStaySmooth(t *testing.T) {
	m := Sphere()
	points := len(m.Points)
	if err := m.Finish(Unmetered); err != nil {
		t.Fatal(err)
	}
	for i, p := range m.Points[:points] {
		if m.Normals[i].Dot(p) < 0.99 && math.Abs(float64(p.Y)) < 0.999 { // at the poles triangles have no area
			t.Fatalf("normal %v at %v", m.Normals[i], p)
		}
	}
	if more := len(m.Points) - points; more > 2*3*192 {
		t.Errorf("%d points were doubled", more)
	}
}

func TestFinishRefuses(t *testing.T) {
	nan := float32(math.NaN())
	for want, m := range map[string]*Mesh{
		"nothing to draw":  {Points: []V3{{}}},
		"point 9 of 8":     {Points: cube().Points, Indices: []uint32{0, 1, 8}},
		"no finite number": {Points: []V3{{X: nan}, {}, {}}, Indices: []uint32{0, 1, 2}},
		"2 colors":         {Points: cube().Points, Indices: []uint32{0, 1, 2}, Colors: []Color{1, 2}},
	} {
		if err := m.Finish(Unmetered); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	full := errors.New("full")
	if err := cube().Finish(func(int64) error { return full }); !errors.Is(err, full) {
		t.Errorf("without memory: %v", err)
	}
}

// Every capsule is in exactly one chunk, and inside its sphere.
func TestChunksHoldAllCapsules(t *testing.T) {
	var caps []Capsule
	for i := range 1000 {
		s, c := math.Sincos(float64(i))
		p := V3{float32(s) * float32(i), float32(c) * 50, float32(i % 17)}
		caps = append(caps, Capsule{A: p, B: p.Add(V3{1, 1, 1}), RA: 0.5, RB: 0.1, Color: Color(i)})
	}
	var held int64
	s, err := FromCapsules(context.Background(), caps, func(n int64) error { held += n; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if held != 0 {
		t.Errorf("%d bytes of working memory were not given back", held)
	}
	seen := make(map[Color]bool)
	next := 0
	for _, ch := range s.Chunks {
		if ch.First != next {
			t.Fatalf("a chunk begins at %d, not at %d", ch.First, next)
		}
		next += ch.Count
		for _, c := range s.Capsules[ch.First:next] {
			seen[c.Color] = true
			if d := c.A.Sub(ch.Center).Len() + c.RA; d > ch.Radius*1.0001 {
				t.Fatalf("a capsule ends %v from the centre of a chunk of %v", d, ch.Radius)
			}
		}
	}
	if len(seen) != 1000 {
		t.Errorf("%d of 1000 capsules", len(seen))
	}
}

func TestNothingToDraw(t *testing.T) {
	if _, err := FromCapsules(context.Background(), nil, Unmetered); !errors.Is(err, ErrEmpty) {
		t.Errorf("capsules: %v", err)
	}
	if _, err := FromMesh(&Mesh{}); !errors.Is(err, ErrEmpty) {
		t.Errorf("mesh: %v", err)
	}
}
