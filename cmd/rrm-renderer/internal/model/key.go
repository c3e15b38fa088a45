// Package model turns model keys into scenes: from files below one directory,
// or generated. It loads in the background within a limit of memory and knows
// the state of every model that it was asked for.
package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/format"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/neuron"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// The codes of errors about models, as the renderer protocol names them.
const (
	CodeNotFound  = "model_not_found"
	CodeInvalid   = "model_invalid"
	CodeTooLarge  = "model_too_large"
	CodeNotLoaded = "model_not_loaded"
	CodeBusy      = "busy"
	CodeFailed    = "load_failed"
)

// Error is a refusal with a code of the protocol.
type Error struct{ Code, Reason string }

func (e *Error) Error() string { return e.Reason }

func refuse(code, layout string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(layout, args...)}
}

const maxKeyBytes = 1024

// source makes the scene of one key.
type source struct {
	bytes int64 // a lower bound of what it takes, as far as known at once
	load  func(context.Context, scene.Meter, func(float64)) (*scene.Scene, error)
}

// Library resolves keys.
type Library struct{ root *os.Root }

// OpenLibrary serves files below dir, or none if dir is empty. Nothing outside
// of dir can be reached, neither by ".." nor through symbolic links.
func OpenLibrary(dir string) (*Library, error) {
	if dir == "" {
		return &Library{}, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the model directory: %w", err)
	}
	return &Library{root}, nil
}

// Close gives the directory back.
func (l *Library) Close() error {
	if l.root == nil {
		return nil
	}
	return l.root.Close()
}

func (l *Library) resolve(key string) (source, error) {
	switch {
	case key == "" || len(key) > maxKeyBytes:
		return source{}, refuse(CodeInvalid, "a model key has 1 to %d bytes", maxKeyBytes)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return source{}, refuse(CodeInvalid, "a model key is UTF-8 text without control characters")
	}
	kind, rest, _ := strings.Cut(key, ":")
	switch kind {
	case "neuron":
		return neuronSource(rest)
	case "circuit":
		return circuitSource(rest)
	case "file":
		return l.file(rest)
	}
	switch key {
	case "sphere":
		return solid(scene.Sphere), nil
	case "torus":
		return solid(scene.Torus), nil
	}
	return l.file(key)
}

func neuronSource(text string) (source, error) {
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return source{}, refuse(CodeInvalid, "neuron:%.40s: the seed is a whole number from 0 to 2^64-1", text)
	}
	return source{bytes: neuron.CircuitBytes(1) / 2, load: func(ctx context.Context, m scene.Meter, p func(float64)) (*scene.Scene, error) {
		return neuron.Single(ctx, seed, m, p)
	}}, nil
}

func circuitSource(text string) (source, error) {
	n, err := strconv.Atoi(text)
	switch {
	case errors.Is(err, strconv.ErrRange) || n > neuron.MaxCircuit:
		return source{}, refuse(CodeTooLarge, "a circuit has at most %d neurons", neuron.MaxCircuit)
	case err != nil || n < 1:
		return source{}, refuse(CodeInvalid, "circuit:%.40s: the number of neurons is 1 to %d", text, neuron.MaxCircuit)
	}
	return source{bytes: neuron.CircuitBytes(n), load: func(ctx context.Context, m scene.Meter, p func(float64)) (*scene.Scene, error) {
		return neuron.Circuit(ctx, n, m, p)
	}}, nil
}

func solid(f func() *scene.Mesh) source {
	return source{load: func(_ context.Context, m scene.Meter, _ func(float64)) (*scene.Scene, error) {
		mesh := f()
		if err := m(mesh.Bytes()); err != nil {
			return nil, err
		}
		if err := mesh.Finish(m); err != nil {
			return nil, err
		}
		return scene.FromMesh(mesh)
	}}
}

func (l *Library) file(name string) (source, error) {
	absent := refuse(CodeNotFound, "there is no model file %.200q", name)
	if l.root == nil || !fs.ValidPath(path.Clean(name)) || path.IsAbs(name) {
		return source{}, absent
	}
	name = path.Clean(name)
	info, err := l.root.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return source{}, absent
	}
	if !format.Known(name) {
		return source{}, refuse(CodeInvalid, "%.200q has none of the endings %s", name, strings.Join(format.Endings, ", "))
	}
	// A file is read whole, so what it weighs is needed at least.
	return source{bytes: info.Size(), load: func(ctx context.Context, m scene.Meter, p func(float64)) (*scene.Scene, error) {
		return format.Load(ctx, l.root.FS(), name, m, p)
	}}, nil
}
