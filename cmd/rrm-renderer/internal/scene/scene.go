// Package scene holds what can be drawn: triangle meshes and capsules, with
// their bounds and the memory they take. It knows nothing of files or pixels.
package scene

import (
	"context"
	"errors"
	"math"
	"slices"
	"unsafe"
)

// Meter reserves memory, in bytes, before it is taken; it fails when that
// would exceed the limit. A negative number gives memory back.
type Meter func(bytes int64) error

// Unmetered is the meter without a limit.
func Unmetered(int64) error { return nil }

// Color is 0xRRGGBB.
type Color uint32

// Capsule is a tapered cylinder with round ends.
type Capsule struct {
	A, B   V3
	RA, RB float32
	Color  Color
}

// Chunk is a run of neighbouring capsules, [First, First+Count), inside a sphere.
type Chunk struct {
	First, Count int
	Center       V3
	Radius       float32
}

// Scene is a model ready to be drawn. It does not change after Build.
type Scene struct {
	Mesh     *Mesh // nil: none
	Capsules []Capsule
	Chunks   []Chunk
	Center   V3      // of the bounding box
	Radius   float32 // of the sphere about the bounding box; more than 0
}

// CapsuleBytes is what one capsule takes in memory.
const CapsuleBytes = int64(unsafe.Sizeof(Capsule{}))

const (
	chunkSize  = 64
	chunkBytes = int64(unsafe.Sizeof(Chunk{}))
)

// ErrEmpty says that a model has nothing to draw.
var ErrEmpty = errors.New("the model has nothing to draw")

// FromMesh makes a scene of a finished mesh.
func FromMesh(m *Mesh) (*Scene, error) {
	if m.Triangles() == 0 {
		return nil, ErrEmpty
	}
	s := &Scene{Mesh: m}
	lo, hi := emptyBox()
	for _, p := range m.Points {
		lo, hi = lo.Min(p), hi.Max(p)
	}
	s.setBounds(lo, hi)
	return s, nil
}

// FromCapsules makes a scene of capsules, which it puts in spatial order and
// keeps. It returns the context's error when that is done.
func FromCapsules(ctx context.Context, caps []Capsule, meter Meter) (*Scene, error) {
	if len(caps) == 0 {
		return nil, ErrEmpty
	}
	lo, hi := emptyBox()
	for i := range caps {
		c := &caps[i]
		r := max(c.RA, c.RB)
		e := V3{r, r, r}
		lo, hi = lo.Min(c.A.Min(c.B).Sub(e)), hi.Max(c.A.Max(c.B).Add(e))
	}
	s := &Scene{}
	s.setBounds(lo, hi)
	// The order needs a second copy and the keys while it is made.
	extra := int64(len(caps)) * (CapsuleBytes + 16)
	if err := meter(extra); err != nil {
		return nil, err
	}
	defer func() { _ = meter(-extra) }()
	order, err := s.spatialOrder(ctx, caps)
	if err != nil {
		return nil, err
	}
	s.Capsules = order
	s.Chunks = chunks(order)
	return s, nil
}

// Bytes is the memory that the scene takes.
func (s *Scene) Bytes() int64 {
	n := int64(cap(s.Capsules))*CapsuleBytes + int64(cap(s.Chunks))*chunkBytes
	if s.Mesh != nil {
		n += s.Mesh.Bytes()
	}
	return n
}

func emptyBox() (lo, hi V3) {
	inf := float32(math.Inf(1))
	return V3{inf, inf, inf}, V3{-inf, -inf, -inf}
}

func (s *Scene) setBounds(lo, hi V3) {
	s.Center = lo.Add(hi).Mul(0.5)
	s.Radius = hi.Sub(lo).Len() / 2
	if !(s.Radius > 1e-12) {
		s.Radius = 1
	}
}

// spatialOrder sorts along a Morton curve, so that neighbours in space are
// neighbours in memory and a chunk is small.
func (s *Scene) spatialOrder(ctx context.Context, caps []Capsule) ([]Capsule, error) {
	type key struct {
		code  uint64
		index uint32
	}
	keys := make([]key, len(caps))
	scale := 1023 / (2 * s.Radius)
	cell := func(x, c float32) uint64 { return uint64(min(1023, max(0, (x-c+s.Radius)*scale))) }
	for i := range caps {
		m := caps[i].A.Lerp(caps[i].B, 0.5)
		code := spread(cell(m.X, s.Center.X)) | spread(cell(m.Y, s.Center.Y))<<1 | spread(cell(m.Z, s.Center.Z))<<2
		keys[i] = key{code, uint32(i)}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(keys, func(a, b key) int {
		switch {
		case a.code < b.code:
			return -1
		case a.code > b.code:
			return 1
		}
		return int(a.index) - int(b.index)
	})
	out := make([]Capsule, len(caps))
	for i, k := range keys {
		out[i] = caps[k.index]
	}
	return out, ctx.Err()
}

// spread puts two zero bits between the lowest ten bits of x.
func spread(x uint64) uint64 {
	x &= 0x3ff
	x = (x | x<<16) & 0x30000ff
	x = (x | x<<8) & 0x300f00f
	x = (x | x<<4) & 0x30c30c3
	return (x | x<<2) & 0x9249249
}

func chunks(caps []Capsule) []Chunk {
	out := make([]Chunk, 0, (len(caps)+chunkSize-1)/chunkSize)
	for first := 0; first < len(caps); first += chunkSize {
		run := caps[first:min(first+chunkSize, len(caps))]
		lo, hi := emptyBox()
		for i := range run {
			r := max(run[i].RA, run[i].RB)
			e := V3{r, r, r}
			lo, hi = lo.Min(run[i].A.Min(run[i].B).Sub(e)), hi.Max(run[i].A.Max(run[i].B).Add(e))
		}
		out = append(out, Chunk{first, len(run), lo.Add(hi).Mul(0.5), hi.Sub(lo).Len() / 2})
	}
	return out
}
