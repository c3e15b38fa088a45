// Package format reads model files into scenes: OBJ, PLY, STL, glTF, GLB and
// SWC. Bad files give errors that say what is wrong and where; no number that
// a file announces is believed before the memory for it was granted.
package format

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/neuron"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// Endings are the names' endings of the files that can be read.
var Endings = []string{".obj", ".ply", ".stl", ".gltf", ".glb", ".swc"}

// Known says whether the name's ending is one of Endings.
func Known(name string) bool { return slices.Contains(Endings, ending(name)) }

func ending(name string) string { return strings.ToLower(path.Ext(name)) }

// readPiece is how much is read between two looks at the context.
const readPiece = 1 << 20

// Load reads the file and what it refers to, all within files. meter is asked
// before memory is taken, for the file itself too while it is parsed.
// progress is called with 0..1.
func Load(ctx context.Context, files fs.FS, name string, meter scene.Meter, progress func(float64)) (*scene.Scene, error) {
	data, err := read(ctx, files, name, meter, func(f float64) { progress(0.3 * f) })
	if err != nil {
		return nil, err
	}
	defer func() { _ = meter(-int64(len(data))) }()
	in := &input{cancelled: ctx.Err, meter: meter, size: len(data), progress: func(f float64) { progress(0.3 + 0.6*f) }}
	s, err := parse(ctx, in, files, name, data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path.Base(name), err)
	}
	progress(1)
	return s, nil
}

func parse(ctx context.Context, in *input, files fs.FS, name string, data []byte) (*scene.Scene, error) {
	var m *scene.Mesh
	var err error
	switch ending(name) {
	case ".swc":
		tree, err := neuron.ParseSWC(data, in.take)
		if err != nil {
			return nil, err
		}
		return tree.Scene(ctx, in.take)
	case ".obj":
		m, err = parseOBJ(in, data)
	case ".ply":
		m, err = parsePLY(in, data)
	case ".stl":
		m, err = parseSTL(in, data)
	case ".gltf", ".glb":
		m, err = parseGLTF(in, files, name, data)
	default:
		return nil, errors.New("unknown format")
	}
	if err != nil {
		return nil, err
	}
	if err := m.Finish(in.take); err != nil {
		return nil, err
	}
	return scene.FromMesh(m)
}

func read(ctx context.Context, files fs.FS, name string, meter scene.Meter, progress func(float64)) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the model file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at the model file: %w", err)
	}
	if err := meter(info.Size()); err != nil {
		return nil, err
	}
	data := make([]byte, info.Size())
	for at := 0; at < len(data); at += readPiece {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(f, data[at:min(at+readPiece, len(data))]); err != nil {
			return nil, fmt.Errorf("read the model file: %w", err)
		}
		progress(float64(at) / float64(len(data)))
	}
	return data, nil
}

// input is what the parsers share: the meter, the progress and whether to go on.
type input struct {
	cancelled func() error // why to stop; nil: go on
	meter     scene.Meter
	progress  func(float64)
	size      int // of the file, bytes
	ticks     int
	credit    int64
}

// take reserves memory in larger pieces: parsers ask for a few bytes at a time.
func (in *input) take(bytes int64) error {
	in.credit -= bytes
	if in.credit >= 0 {
		return nil
	}
	more := max(-in.credit, 1<<16)
	if err := in.meter(more); err != nil {
		return err
	}
	in.credit += more
	return nil
}

// tick is called for each line or element; now and then it looks whether to go
// on and reports where in the file the parser is.
func (in *input) tick(offset int) error {
	in.ticks++
	if in.ticks&8191 != 0 {
		return nil
	}
	in.progress(float64(offset) / float64(max(1, in.size)))
	return in.cancelled()
}
