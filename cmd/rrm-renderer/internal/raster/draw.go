package raster

import (
	"context"
	"image"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// bandRows is the height of a band in pixels: enough that its borders cost
// little, few enough that its buffers are small even for the largest picture.
const bandRows = 32

// Renderer draws frames, one at a time; it keeps its buffers from one to the
// next. Several renderers may draw the same scene at once.
type Renderer struct {
	workers  int
	bandRows int
	verts    []vertex
	bins     []bin
	layers   []layer
}

// bin is what one worker found to draw: primitives, and for each band the
// numbers of those that touch it, in the order of the model.
type bin struct {
	caps    []capsule
	clipped []triangle
	capsOf  [][]uint32
	trisOf  [][]uint32
}

// layer is a band's depth, normal and color for each sample.
type layer struct {
	inverseZ []float32 // 0: nothing
	normal   []scene.V3
	color    []scene.Color
	y0, y1   int // the rows held: the band and a border that shading looks at
	w        int
}

// New makes a renderer with so many workers; 0 or less means one per CPU.
func New(workers int) *Renderer {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Renderer{workers: workers, bandRows: bandRows, bins: make([]bin, workers), layers: make([]layer, workers)}
}

// Draw makes the picture. It fails only with the context's error, soon after
// the context is done.
func (r *Renderer) Draw(ctx context.Context, s *scene.Scene, v View) (*image.RGBA, error) {
	p := newProjection(s, v)
	bands := (v.Height + r.bandRows - 1) / r.bandRows
	halo := haloOf(p.w)
	rows := r.bandRows * v.Samples
	for i := range r.bins {
		r.bins[i].reset(bands)
	}
	// A primitive is put into every band whose rows, border included, it touches.
	span := func(y0, y1 float32) (int, int) {
		lo := max(0, clampInt(y0, 0, p.h)-halo) / rows
		hi := min(p.h-1, clampInt(y1, 0, p.h)+halo) / rows
		return lo, hi
	}
	if s.Mesh != nil {
		if err := r.projectMesh(ctx, s.Mesh, &p, span); err != nil {
			return nil, err
		}
	}
	if len(s.Capsules) > 0 {
		if err := r.projectCapsules(ctx, s, &p, span); err != nil {
			return nil, err
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, v.Width, v.Height))
	var next atomic.Int64
	err := r.parallel(ctx, func(k int) {
		for ctx.Err() == nil {
			band := int(next.Add(1)) - 1
			if band >= bands {
				return
			}
			l := &r.layers[k]
			l.clear(max(0, band*rows-halo), min(p.h, (band+1)*rows+halo), p.w)
			r.drawBand(ctx, l, s.Mesh, &p, band)
			shade(img, l, &p, v.Samples, band*r.bandRows, min(v.Height, (band+1)*r.bandRows))
		}
	})
	if err != nil {
		return nil, err
	}
	return img, nil
}

func (r *Renderer) drawBand(ctx context.Context, l *layer, m *scene.Mesh, p *projection, band int) {
	for k := range r.bins {
		b := &r.bins[k]
		for i, t := range b.trisOf[band] {
			if i&4095 == 4095 && ctx.Err() != nil {
				return
			}
			if t&clippedBit != 0 {
				l.fill(&b.clipped[t&^clippedBit])
				continue
			}
			tri := r.triangleOf(m, int(t))
			l.fill(&tri)
		}
		for i, c := range b.capsOf[band] {
			if i&4095 == 4095 && ctx.Err() != nil {
				return
			}
			l.capsule(&b.caps[c], p)
		}
	}
}

// parallel runs f for each worker and waits for all.
func (r *Renderer) parallel(ctx context.Context, f func(k int)) error {
	var wg sync.WaitGroup
	for k := 1; k < r.workers; k++ {
		wg.Go(func() { f(k) })
	}
	f(0)
	wg.Wait()
	return ctx.Err()
}

// share splits n things into one run for each worker, in order, and walks
// each run in pieces between which the context is looked at.
func (r *Renderer) share(ctx context.Context, n int, f func(k, lo, hi int)) error {
	const piece = 16384
	return r.parallel(ctx, func(k int) {
		end := n * (k + 1) / r.workers
		for lo := n * k / r.workers; lo < end && ctx.Err() == nil; lo += piece {
			f(k, lo, min(end, lo+piece))
		}
	})
}

func (b *bin) reset(bands int) {
	b.caps, b.clipped = b.caps[:0], b.clipped[:0]
	b.capsOf, b.trisOf = resetLists(b.capsOf, bands), resetLists(b.trisOf, bands)
}

func resetLists(lists [][]uint32, n int) [][]uint32 {
	for i := range lists {
		lists[i] = lists[i][:0]
	}
	for len(lists) < n {
		lists = append(lists, nil)
	}
	return lists
}

func (l *layer) clear(y0, y1, w int) {
	n := (y1 - y0) * w
	if cap(l.inverseZ) < n {
		l.inverseZ = make([]float32, n)
		l.normal = make([]scene.V3, n)
		l.color = make([]scene.Color, n)
	}
	l.inverseZ, l.normal, l.color = l.inverseZ[:n], l.normal[:n], l.color[:n]
	clear(l.inverseZ)
	l.y0, l.y1, l.w = y0, y1, w
}
