package raster

import (
	"bytes"
	"context"
	"errors"
	"image"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/neuron"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

func meshScene(t testing.TB, m *scene.Mesh) *scene.Scene {
	t.Helper()
	if err := m.Finish(scene.Unmetered); err != nil {
		t.Fatal(err)
	}
	s, err := scene.FromMesh(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func capsuleScene(t testing.TB, caps ...scene.Capsule) *scene.Scene {
	t.Helper()
	s, err := scene.FromCapsules(context.Background(), caps, scene.Unmetered)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// grown is one neuron for all tests: it takes a while to grow.
var grown = sync.OnceValues(func() (*scene.Scene, error) {
	return neuron.Single(context.Background(), 2, scene.Unmetered, func(float64) {})
})

func neuronScene(t testing.TB) *scene.Scene {
	t.Helper()
	s, err := grown()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func draw(t testing.TB, s *scene.Scene, v View, workers int) *image.RGBA {
	t.Helper()
	img, err := New(workers).Draw(context.Background(), s, v)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func view(w, h, samples int, distance, fov float64) View {
	return View{w, h, samples, Camera{Yaw: 30, Pitch: 15, Distance: distance, FOV: fov}}
}

// covered counts the pixels that differ from the empty background, which is
// the same all along a row but for the dither.
func covered(img *image.RGBA) int {
	n := 0
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			p, q := img.RGBAAt(x, y), img.RGBAAt(0, y)
			if max(p.R, q.R)-min(p.R, q.R) > 2 || max(p.B, q.B)-min(p.B, q.B) > 2 {
				n++
			}
		}
	}
	return n
}

// A sphere of radius r at distance d is seen as a disc of the radius
// f * r / sqrt(d^2 - r^2); our unit is the radius of the box's sphere, sqrt(3) r.
func TestSphereSilhouette(t *testing.T) {
	ball := scene.Capsule{RA: 1, RB: 1, Color: 0xffffff}
	for name, s := range map[string]*scene.Scene{"mesh": meshScene(t, scene.Sphere()), "capsule": capsuleScene(t, ball)} {
		v := view(400, 300, 2, 6, 25)
		r := 1 / math.Sqrt(3)
		f := 150 / math.Tan(12.5*math.Pi/180)
		radius := f * r / math.Sqrt(36-r*r)
		want := math.Pi * radius * radius
		got := float64(covered(draw(t, s, v, 2)))
		if math.Abs(got/want-1) > 0.04 {
			t.Errorf("%s: %v pixels, want about %.0f", name, got, want)
		}
	}
}

// From inside of a closed surface nothing of the background is seen, wherever
// the near plane cuts it.
func TestInsideMesh(t *testing.T) {
	s := meshScene(t, scene.Sphere())
	for _, distance := range []float64{0.01, 0.3, 0.5, 0.57} {
		img := draw(t, s, view(160, 120, 1, distance, 90), 2)
		for i := 0; i < len(img.Pix); i += 4 {
			// The mesh's colour is far more red than blue, the background the reverse.
			if img.Pix[i] <= img.Pix[i+2] {
				t.Fatalf("distance %v: background at pixel %d: %v", distance, i/4, img.Pix[i:i+4])
			}
		}
	}
}

// A floor that runs from behind the eye to the horizon is one pair of huge
// triangles: cut at the near plane, it fills the picture's lower half.
func TestNearPlaneCutsTriangles(t *testing.T) {
	floor := &scene.Mesh{
		Points:  []scene.V3{{X: -100, Z: -100}, {X: 100, Z: -100}, {X: 100, Z: 100}, {X: -100, Z: 100}},
		Indices: []uint32{0, 2, 1, 0, 3, 2},
	}
	s := meshScene(t, floor)
	img := draw(t, s, View{200, 200, 1, Camera{Pitch: 5, Distance: 0.05, FOV: 60}}, 2)
	for y := 130; y < 200; y++ {
		for _, x := range []int{0, 50, 100, 199} {
			if p := img.RGBAAt(x, y); p.R <= p.B {
				t.Fatalf("no floor at %d, %d: %v", x, y, p)
			}
		}
	}
}

// A rod through the eye's side is cut, not dropped.
func TestNearPlaneCutsCapsules(t *testing.T) {
	rod := scene.Capsule{A: scene.V3{X: 0.2, Z: -10}, B: scene.V3{X: 0.2, Z: 10}, RA: 0.1, RB: 0.1, Color: 0xff8000}
	other := scene.Capsule{A: scene.V3{X: -0.2, Z: 10}, B: scene.V3{X: -0.2, Z: 9}, RA: 0.1, RB: 0.1} // keeps the centre free
	s := capsuleScene(t, rod, other)
	img := draw(t, s, View{200, 200, 1, Camera{Distance: 0.1, FOV: 60}}, 2)
	if n := covered(img); n < 2000 {
		t.Fatalf("%d pixels of the rod are seen", n)
	}
}

func TestSamePictureWithAnyNumberOfWorkers(t *testing.T) {
	for name, s := range map[string]*scene.Scene{"mesh": meshScene(t, scene.Torus()), "neuron": neuronScene(t)} {
		want := draw(t, s, view(331, 207, 2, 1.1, 60), 1)
		for _, workers := range []int{2, 3, 7} {
			if got := draw(t, s, view(331, 207, 2, 1.1, 60), workers); !bytes.Equal(got.Pix, want.Pix) {
				t.Errorf("%s: %d workers draw another picture than 1", name, workers)
			}
		}
	}
}

// The bands leave no seam: the picture is the same as if drawn in one piece.
func TestBandsLeaveNoSeam(t *testing.T) {
	for name, s := range map[string]*scene.Scene{"mesh": meshScene(t, scene.Torus()), "neuron": neuronScene(t)} {
		v := view(900, 300, 2, 0.9, 60)
		want := draw(t, s, v, 2)
		for _, rows := range []int{3, 300} {
			r := New(2)
			r.bandRows = rows
			got, err := r.Draw(context.Background(), s, v)
			if err != nil || !bytes.Equal(got.Pix, want.Pix) {
				t.Errorf("%s: another picture in bands of %d rows (%v)", name, rows, err)
			}
		}
	}
}

// What is nearer hides what is farther, in whatever order they come.
func TestTheNearerIsSeen(t *testing.T) {
	points := []scene.V3{{X: -1, Y: -1}, {X: 1, Y: -1}, {Y: 1}, {X: -1, Y: -1, Z: 1}, {X: 1, Y: -1, Z: 1}, {Y: 1, Z: 1}}
	colors := []scene.Color{0xff0000, 0xff0000, 0xff0000, 0x00ff00, 0x00ff00, 0x00ff00}
	for _, indices := range [][]uint32{{0, 1, 2, 3, 4, 5}, {3, 4, 5, 0, 1, 2}} {
		s := meshScene(t, &scene.Mesh{Points: points, Colors: colors, Indices: indices})
		p := draw(t, s, View{100, 100, 1, Camera{Distance: 3, FOV: 45}}, 1).RGBAAt(50, 55)
		if p.G <= p.R {
			t.Errorf("mesh %v: %v is not the green in front", indices, p)
		}
	}
	red := scene.Capsule{A: scene.V3{X: -1}, B: scene.V3{X: 1}, RA: 0.2, RB: 0.2, Color: 0xff0000}
	green := scene.Capsule{A: scene.V3{X: -1, Z: 1}, B: scene.V3{X: 1, Z: 1}, RA: 0.2, RB: 0.2, Color: 0x00ff00}
	both := capsuleScene(t, red, green)
	front := draw(t, both, View{100, 100, 1, Camera{Distance: 3, FOV: 45}}, 1).RGBAAt(50, 50)
	behind := draw(t, both, View{100, 100, 1, Camera{Yaw: 180, Distance: 3, FOV: 45}}, 1).RGBAAt(50, 50)
	if front.G <= front.R || behind.R <= behind.G {
		t.Errorf("capsules: %v is not green or, from behind, %v is not red", front, behind)
	}
}

// What a renderer drew before leaves no trace in the next picture.
func TestBuffersAreClean(t *testing.T) {
	r := New(2)
	ball, rod := meshScene(t, scene.Sphere()), neuronScene(t)
	v := view(200, 150, 2, 2.6, 40)
	want := draw(t, ball, v, 2)
	if _, err := r.Draw(context.Background(), rod, view(300, 300, 3, 1, 90)); err != nil {
		t.Fatal(err)
	}
	got, err := r.Draw(context.Background(), ball, v)
	if err != nil || !bytes.Equal(got.Pix, want.Pix) {
		t.Fatalf("another picture after a neuron (%v)", err)
	}
}

// A thin line stays visible and unbroken from afar.
func TestThinCapsuleIsUnbroken(t *testing.T) {
	s := capsuleScene(t, scene.Capsule{A: scene.V3{X: -1}, B: scene.V3{X: 1, Y: 0.3}, RA: 1e-5, RB: 1e-5, Color: 0xffffff})
	img := draw(t, s, View{200, 100, 2, Camera{Distance: 3, FOV: 40}}, 2)
	for x := 60; x < 140; x++ {
		column := 0
		for y := range 100 {
			if img.RGBAAt(x, y).R > 60 {
				column++
			}
		}
		if column == 0 {
			t.Fatalf("the line has a gap at column %d", x)
		}
	}
}

func TestColorsOfPointsAreMixed(t *testing.T) {
	m := &scene.Mesh{
		Points:  []scene.V3{{X: -1, Y: -1}, {X: 1, Y: -1}, {Y: 1}},
		Colors:  []scene.Color{0xff0000, 0x00ff00, 0x0000ff},
		Indices: []uint32{0, 1, 2},
	}
	img := draw(t, meshScene(t, m), View{200, 200, 1, Camera{Distance: 3, FOV: 45}}, 1)
	left, right := img.RGBAAt(70, 140), img.RGBAAt(130, 140)
	if left.R <= left.G || right.G <= right.R {
		t.Fatalf("left %v is not red or right %v is not green", left, right)
	}
}

func TestCancelledWithinAFrame(t *testing.T) {
	s, r := neuronScene(t), New(2)
	v := view(3000, 3000, 2, 0.2, 60)
	begun := time.Now()
	if _, err := r.Draw(context.Background(), s, v); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(begun)
	ctx, cancel := context.WithCancel(context.Background())
	begun = time.Now()
	time.AfterFunc(whole/20, cancel)
	_, err := r.Draw(ctx, s, v)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("err %v", err)
	}
	if took := time.Since(begun); took > whole/2 {
		t.Fatalf("it took %v, a whole frame %v", took, whole)
	}
}

func BenchmarkFrame(b *testing.B) {
	for name, s := range map[string]*scene.Scene{"neuron": neuronScene(b), "mesh": meshScene(b, scene.Torus())} {
		b.Run(name, func(b *testing.B) {
			r := New(0)
			v := view(640, 360, 2, 2.6, 40)
			for b.Loop() {
				if _, err := r.Draw(context.Background(), s, v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
