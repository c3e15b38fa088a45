package picture

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"sync"
	"sync/atomic"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/raster"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

const (
	// Each frame under way has its own buffers. Jobs draw two at once, so a
	// session's frame finds the third.
	framesAtOnce = 3
	maxWaiting   = 64 // frames of sessions that wait for their turn
)

// ErrBusy says that too many frames wait already.
var ErrBusy = errors.New("too many frames are waiting to be drawn")

// Painter draws frames, a few at once, the others in turn. It is safe for
// concurrent use.
type Painter struct {
	renderers chan *raster.Renderer
	waiting   atomic.Int64
}

// NewPainter makes a painter whose frames use so many goroutines each; 0: one
// per CPU.
func NewPainter(workers int) *Painter {
	p := &Painter{renderers: make(chan *raster.Renderer, framesAtOnce)}
	for range framesAtOnce {
		p.renderers <- raster.New(workers)
	}
	return p
}

// Draw draws one frame, however long it has to wait for its turn. It fails
// with the context's error.
func (p *Painter) Draw(ctx context.Context, s *scene.Scene, v raster.View) (*image.RGBA, error) {
	select {
	case r := <-p.renderers:
		defer func() { p.renderers <- r }()
		return r.Draw(ctx, s, v)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// DrawNow is Draw for somebody who looks on: if many wait already it fails
// with ErrBusy.
func (p *Painter) DrawNow(ctx context.Context, s *scene.Scene, v raster.View) (*image.RGBA, error) {
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > maxWaiting {
		return nil, ErrBusy
	}
	return p.Draw(ctx, s, v)
}

// pngBuffers keeps the encoder's tables from one frame to the next.
type pngBuffers struct{ pool sync.Pool }

func (b *pngBuffers) Get() *png.EncoderBuffer {
	e, _ := b.pool.Get().(*png.EncoderBuffer)
	return e
}
func (b *pngBuffers) Put(e *png.EncoderBuffer) { b.pool.Put(e) }

// BestSpeed: frames are made to be looked at once; the default takes three
// times as long for a tenth less.
var pngEncoder = png.Encoder{CompressionLevel: png.BestSpeed, BufferPool: &pngBuffers{}}

// Encode writes the image in the spec's format.
func (s *Spec) Encode(w io.Writer, img image.Image) error {
	var err error
	if s.Format == JPEG {
		err = jpeg.Encode(w, img, &jpeg.Options{Quality: s.Quality})
	} else {
		err = pngEncoder.Encode(w, img)
	}
	if err != nil {
		return fmt.Errorf("encode the image: %w", err)
	}
	return nil
}
