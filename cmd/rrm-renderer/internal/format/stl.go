package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

const (
	stlHeader = 84 // bytes: a comment of 80 and the number of triangles
	stlRecord = 50 // bytes of a triangle: normal, three points, two unused bytes
)

// parseSTL reads binary and text STL; equal points are made one.
func parseSTL(in *input, data []byte) (*scene.Mesh, error) {
	w := welder{in: in, index: make(map[scene.V3]uint32)}
	if len(data) >= stlHeader {
		n := int64(binary.LittleEndian.Uint32(data[80:]))
		switch {
		case int64(len(data)) == stlHeader+n*stlRecord:
			return w.binary(data[stlHeader:])
		case !bytes.HasPrefix(bytes.TrimSpace(data), []byte("solid")):
			return nil, fmt.Errorf("the file announces %d triangles, which takes %d bytes, but has %d", n, stlHeader+n*stlRecord, len(data))
		}
	}
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("solid")) {
		return nil, errors.New("neither a text nor a binary STL file")
	}
	return w.text(data)
}

// welder joins points that are equal.
type welder struct {
	in    *input
	index map[scene.V3]uint32
	m     scene.Mesh
}

func (w *welder) add(p scene.V3) error {
	i, ok := w.index[p]
	if !ok {
		// The point, and its entry in the map.
		if err := w.in.take(12 + 48); err != nil {
			return err
		}
		i = uint32(len(w.m.Points))
		w.index[p] = i
		w.m.Points = append(w.m.Points, p)
	}
	if err := w.in.take(4); err != nil {
		return err
	}
	w.m.Indices = append(w.m.Indices, i)
	return nil
}

func (w *welder) binary(data []byte) (*scene.Mesh, error) {
	for at := 0; at < len(data); at += stlRecord {
		if err := w.in.tick(at); err != nil {
			return nil, err
		}
		for k := range 3 {
			d := data[at+12+12*k:]
			p := scene.V3{X: float32At(d), Y: float32At(d[4:]), Z: float32At(d[8:])}
			if !p.Usable() {
				return nil, fmt.Errorf("triangle %d has a coordinate that is no finite number or beyond 1e15", at/stlRecord+1)
			}
			if err := w.add(p); err != nil {
				return nil, err
			}
		}
	}
	return &w.m, nil
}

func (w *welder) text(data []byte) (*scene.Mesh, error) {
	whole, inLoop := len(data), 0
	for line := 1; len(data) > 0; line++ {
		if err := w.in.tick(whole - len(data)); err != nil {
			return nil, err
		}
		var text []byte
		text, data, _ = bytes.Cut(data, []byte{'\n'})
		f := bytes.Fields(text)
		switch {
		case len(f) == 0:
		case string(f[0]) == "vertex":
			if len(f) < 4 {
				return nil, fmt.Errorf("line %d: a point with %d coordinates", line, len(f)-1)
			}
			p, err := parsePoint(f[1:])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", line, err)
			}
			if err := w.add(p); err != nil {
				return nil, err
			}
			inLoop++
		case string(f[0]) == "endloop":
			if inLoop != 3 {
				return nil, fmt.Errorf("line %d: a loop of %d points", line, inLoop)
			}
			inLoop = 0
		}
	}
	if inLoop != 0 {
		return nil, errors.New("the file ends within a triangle")
	}
	return &w.m, nil
}

func float32At(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }
