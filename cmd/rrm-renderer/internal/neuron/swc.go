package neuron

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// ParseSWC reads the SWC format (Cannon et al. 1998): lines of id, kind, x, y,
// z, radius, parent. Parents may come after their children, and there may be
// several roots; a cycle is an error. meter is asked for what it will take.
func ParseSWC(data []byte, meter scene.Meter) (*Morphology, error) {
	m := &Morphology{}
	index := make(map[int64]int32)
	var parents []int64
	for line := 1; len(data) > 0; line++ {
		var text []byte
		text, data, _ = bytes.Cut(data, []byte{'\n'})
		text = bytes.TrimSpace(text)
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		// The point, its entry in the index (about 32 bytes) and its parent's id.
		if err := meter(PointBytes + 40); err != nil {
			return nil, err
		}
		id, parent, p, err := parseSWCLine(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if _, twice := index[id]; twice {
			return nil, fmt.Errorf("line %d: point %d appears twice", line, id)
		}
		index[id] = int32(len(m.Points))
		m.Points, parents = append(m.Points, p), append(parents, parent)
	}
	if len(m.Points) == 0 {
		return nil, scene.ErrEmpty
	}
	for i, id := range parents {
		k, ok := index[id]
		if !ok && id >= 0 {
			return nil, fmt.Errorf("point number %d has the parent %d, which is not in the file", i+1, id)
		}
		if !ok {
			k = -1
		}
		m.Points[i].Parent = k
	}
	if err := m.checkTree(); err != nil {
		return nil, err
	}
	return m, nil
}

func parseSWCLine(text []byte) (id, parent int64, p Point, err error) {
	f := bytes.Fields(text)
	if len(f) < 7 {
		return 0, 0, p, fmt.Errorf("%d numbers where 7 are needed", len(f))
	}
	var v [7]float64
	for i := range v {
		v[i], err = strconv.ParseFloat(string(f[i]), 64)
		if err != nil || math.IsNaN(v[i]) || math.IsInf(v[i], 0) {
			return 0, 0, p, fmt.Errorf("%.40q is not a number", f[i])
		}
	}
	for _, i := range []int{0, 1, 6} {
		if v[i] != math.Trunc(v[i]) || math.Abs(v[i]) > 1<<40 {
			return 0, 0, p, fmt.Errorf("%.40q is not a whole number in range", f[i])
		}
	}
	// Published reconstructions hold a few negative radii; only the sign is wrong.
	v[5] = math.Abs(v[5])
	p = Point{P: scene.V3{X: float32(v[2]), Y: float32(v[3]), Z: float32(v[4])}, R: float32(v[5])}
	if v[1] >= 0 && v[1] <= 255 {
		p.Kind = Kind(v[1])
	}
	if !p.P.Usable() {
		return 0, 0, p, errors.New("a coordinate is out of range")
	}
	if v[5] > 1e9 {
		return 0, 0, p, fmt.Errorf("the radius %.40q is out of range", f[5])
	}
	return int64(v[0]), int64(v[6]), p, nil
}

// checkTree finds cycles: every walk to a root must end.
func (m *Morphology) checkTree() error {
	const (
		unseen = iota
		underway
		rooted
	)
	state := make([]uint8, len(m.Points))
	var walk []int32
	for i := range m.Points {
		walk = walk[:0]
		k := int32(i)
		for k >= 0 && state[k] == unseen {
			state[k] = underway
			walk = append(walk, k)
			k = m.Points[k].Parent
		}
		if k >= 0 && state[k] == underway {
			return fmt.Errorf("point number %d is its own ancestor", k+1)
		}
		for _, w := range walk {
			state[w] = rooted
		}
	}
	return nil
}
