package job

import (
	"archive/zip"
	"bufio"
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"os"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

// make writes the result to the job's file and returns its media type.
func (m *Manager) make(ctx context.Context, j *job, r Request) (contentType string, err error) {
	switch r.Kind {
	case Image:
		return r.Spec.ContentType(), m.toFile(j.path, func(w io.Writer) error { return m.image(ctx, w, r) })
	case Frames:
		return "application/zip", m.toFile(j.path, func(w io.Writer) error { return m.archive(ctx, w, j, r) })
	case Video:
		if m.video == nil {
			return "", errors.New("there is no video encoder")
		}
		return "video/" + r.Spec.Codec, m.video.encode(ctx, j.path, &r.Spec, func(w io.Writer) error {
			return m.frames(ctx, j, r, func(_ int, img *image.RGBA) error {
				_, err := w.Write(img.Pix)
				return err
			})
		})
	}
	return "", fmt.Errorf("unknown kind of job %q", r.Kind)
}

func (m *Manager) toFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the result's file: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("close the result's file: %w", e)
		}
	}()
	b := bufio.NewWriterSize(&bounded{w: f, left: maxResult}, 1<<18)
	if err := write(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// bounded refuses to write more than left bytes.
type bounded struct {
	w    io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooLarge
	}
	return b.w.Write(p)
}

func (m *Manager) image(ctx context.Context, w io.Writer, r Request) error {
	img, err := m.painter.Draw(ctx, r.Use.Scene, r.Spec.View(0))
	if err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return r.Spec.Encode(w, img)
}

// frames draws the frames of the spec's range in their order. It ends before
// the next one when the job is to stop.
func (m *Manager) frames(ctx context.Context, j *job, r Request, each func(i int, img *image.RGBA) error) error {
	from, to := r.Spec.Range()
	for i := from; i < to; i++ {
		if j.stopping() && r.Kind == Frames {
			return nil
		}
		img, err := m.painter.Draw(ctx, r.Use.Scene, r.Spec.View(i))
		if err != nil {
			return fmt.Errorf("draw frame %d: %w", i+1, err)
		}
		if err := each(i, img); err != nil {
			return fmt.Errorf("write frame %d: %w", i+1, err)
		}
		j.frames.Add(1)
		j.report(float64(i+1-from) / float64(to-from))
	}
	return nil
}

// archive is a zip of numbered images, stored as they are: they are
// compressed already. It carries no times, so the same job gives the same bytes.
func (m *Manager) archive(ctx context.Context, w io.Writer, j *job, r Request) error {
	z := zip.NewWriter(w)
	ending := r.Spec.Format
	if ending == picture.JPEG {
		ending = "jpg"
	}
	err := m.frames(ctx, j, r, func(i int, img *image.RGBA) error {
		f, err := z.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("frame_%04d.%s", i+1, ending), Method: zip.Store})
		if err != nil {
			return err
		}
		return r.Spec.Encode(f, img)
	})
	if err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return nil
}
