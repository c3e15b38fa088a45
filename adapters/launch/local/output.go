package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The streams of a resource's output.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

func (l *Launcher) outputPath(id domain.ResourceID, stream string) string {
	return filepath.Join(l.dir(id), stream)
}

// Output returns the last bytes (last: at least 0, at most twice Options.MaxLog)
// that the resource wrote to Stdout or Stderr. Only they are read. After the
// resource has ended its output stays until KeepEnded others have ended.
func (l *Launcher) Output(_ context.Context, r domain.Launched, stream string, last int64) ([]byte, error) {
	if err := checkID(r.Resource); err != nil {
		return nil, err
	}
	if stream != Stdout && stream != Stderr {
		return nil, domain.Invalid("stream", "a resource writes to %s and %s, not to %q", Stdout, Stderr, stream)
	}
	if last < 0 {
		return nil, domain.Invalid("tail", "the number of bytes must not be negative")
	}
	path := l.outputPath(r.Resource, stream)
	newest, err := tail(path, min(last, 2*l.opts.MaxLog))
	if errors.Is(err, os.ErrNotExist) {
		return nil, domain.NotFound("output", string(r.Resource))
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of resource %s: %w", stream, r.Resource, err)
	}
	older, err := tail(path+cutSuffix, min(last, 2*l.opts.MaxLog)-int64(len(newest)))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read %s of resource %s: %w", stream, r.Resource, err)
	}
	return append(older, newest...), nil
}

// tail reads the last n bytes of a file.
func tail(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-n)
	return io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
}

// cutSuffix names the file with what was cut off an output.
const cutSuffix = ".1"

// boundOutput cuts outputs that have grown over MaxLog: their last part is
// copied aside and the file emptied. The renderer goes on writing at its
// new beginning, because the file was opened for appending. What is written
// between copying and emptying is lost; a renderer that writes that much has
// lost more already.
func (l *Launcher) boundOutput(id domain.ResourceID) {
	for _, stream := range []string{Stdout, Stderr} {
		path := l.outputPath(id, stream)
		if info, err := os.Stat(path); err != nil || info.Size() <= l.opts.MaxLog {
			continue
		}
		unlock, err := l.tryLock(id) // another rrm may be cutting it
		if err != nil {
			continue
		}
		err = cut(path, l.opts.MaxLog)
		unlock()
		if err != nil {
			l.log.Warn("output of a resource not cut", "resource", id, "stream", stream, "error", err)
			continue
		}
		l.log.Info("output of a resource cut", "resource", id, "stream", stream, "kept_bytes", l.opts.MaxLog)
	}
}

func cut(path string, keep int64) error {
	from, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open output: %w", err)
	}
	defer func() { _ = from.Close() }()
	info, err := from.Stat()
	if err != nil {
		return fmt.Errorf("look at output: %w", err)
	}
	aside, err := os.OpenFile(path+cutSuffix+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open aside: %w", err)
	}
	start := max(0, info.Size()-keep)
	_, err = io.Copy(aside, io.NewSectionReader(from, start, info.Size()-start))
	if err := errors.Join(err, aside.Close()); err != nil {
		// A full disk is helped best by emptying the file all the same.
		_ = os.Remove(path + cutSuffix + ".new")
		return errors.Join(fmt.Errorf("copy output aside: %w", err), os.Truncate(path, 0))
	}
	if err := os.Rename(path+cutSuffix+".new", path+cutSuffix); err != nil {
		return fmt.Errorf("keep output aside: %w", err)
	}
	if err := os.Truncate(path, 0); err != nil {
		return fmt.Errorf("empty output: %w", err)
	}
	return nil
}
