package format

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// parseOBJ reads points and faces of a Wavefront OBJ file; polygons become
// fans. Everything else (materials, groups, curves) is passed over.
func parseOBJ(in *input, data []byte) (*scene.Mesh, error) {
	m := &scene.Mesh{}
	whole := len(data)
	for line := 1; len(data) > 0; line++ {
		if err := in.tick(whole - len(data)); err != nil {
			return nil, err
		}
		var text []byte
		text, data, _ = bytes.Cut(data, []byte{'\n'})
		word, rest, _ := bytes.Cut(bytes.TrimSpace(text), []byte{' '})
		var err error
		switch string(word) {
		case "v":
			err = objPoint(in, m, rest)
		case "f":
			err = objFace(in, m, rest)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
	return m, nil
}

func objPoint(in *input, m *scene.Mesh, text []byte) error {
	f := bytes.Fields(text)
	if len(f) < 3 {
		return fmt.Errorf("a point with %d coordinates", len(f))
	}
	p, err := parsePoint(f)
	if err != nil {
		return err
	}
	if err := in.take(12); err != nil {
		return err
	}
	m.Points = append(m.Points, p)
	return nil
}

func objFace(in *input, m *scene.Mesh, text []byte) error {
	var first, previous uint32
	n := 0
	for word := range bytes.FieldsSeq(text) {
		word, _, _ = bytes.Cut(word, []byte{'/'})
		i, err := strconv.ParseInt(string(word), 10, 64)
		switch {
		case err != nil || i == 0 || i > math.MaxUint32:
			return fmt.Errorf("%.40q is not the number of a point", word)
		case i < 0 && -i > int64(len(m.Points)):
			return fmt.Errorf("point %d of %d", i, len(m.Points))
		case i < 0: // counted back from the last point
			i += int64(len(m.Points)) + 1
		}
		v := uint32(i - 1)
		if n == 0 {
			first = v
		} else if n >= 2 {
			if err := in.take(12); err != nil {
				return err
			}
			m.Indices = append(m.Indices, first, previous, v)
		}
		previous = v
		n++
	}
	if n < 3 {
		return fmt.Errorf("a face with %d points", n)
	}
	return nil
}

// parsePoint reads three finite numbers.
func parsePoint(f [][]byte) (scene.V3, error) {
	var v [3]float32
	for i := range v {
		x, err := strconv.ParseFloat(string(f[i]), 32)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return scene.V3{}, fmt.Errorf("%.40q is not a number", f[i])
		}
		v[i] = float32(x)
	}
	p := scene.V3{X: v[0], Y: v[1], Z: v[2]}
	if !p.Usable() {
		return p, errors.New("a coordinate that is no finite number or beyond 1e15")
	}
	return p, nil
}
