package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// plySizes are the bytes of each type, by both of its names.
var plySizes = map[string]int{
	"char": 1, "uchar": 1, "int8": 1, "uint8": 1,
	"short": 2, "ushort": 2, "int16": 2, "uint16": 2,
	"int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4,
	"double": 8, "float64": 8,
}

const (
	maxPLYElements   = 64
	maxPLYProperties = 256
	maxPLYPolygon    = 1 << 16 // corners
)

type plyProperty struct {
	name, kind string
	count      string // type of a list's length; "" if it is no list
}

type plyElement struct {
	name       string
	count      int64
	properties []plyProperty
}

type plyFile struct {
	order    binary.ByteOrder // nil: text
	elements []plyElement
}

// parsePLY reads the Stanford format, text and binary of either byte order.
func parsePLY(in *input, data []byte) (*scene.Mesh, error) {
	header, body, ok := cutPLYHeader(data)
	if !ok {
		return nil, errors.New("no PLY header")
	}
	file, err := parsePLYHeader(header)
	if err != nil {
		return nil, err
	}
	// Believe no count that the bytes which are there cannot hold.
	var least int64
	for _, e := range file.elements {
		each := e.leastBytes(file.order == nil)
		if each > 0 && e.count > (int64(len(body))-least)/each+1 {
			return nil, fmt.Errorf("the header announces %d of %q, but the file has only %d bytes after it", e.count, e.name, len(body))
		}
		least += e.count * each
	}
	r := plyReader{file: file, body: body}
	b := plyMesh{in: in, r: &r, before: len(data) - len(body)}
	for i := range file.elements {
		if err := b.element(&file.elements[i]); err != nil {
			return nil, err
		}
	}
	return &b.m, nil
}

func cutPLYHeader(data []byte) (header, body []byte, ok bool) {
	if !bytes.HasPrefix(data, []byte("ply")) {
		return nil, nil, false
	}
	const end = "end_header"
	at := bytes.Index(data[:min(len(data), 1<<20)], []byte(end))
	if at < 0 {
		return nil, nil, false
	}
	body = data[at+len(end):]
	body = bytes.TrimPrefix(body, []byte{'\r'})
	return data[:at], bytes.TrimPrefix(body, []byte{'\n'}), true
}

func parsePLYHeader(header []byte) (*plyFile, error) {
	file := &plyFile{}
	known := false
	for n, line := range strings.Split(string(header), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		var err error
		switch f[0] {
		case "format":
			known = true
			err = file.format(f[1:])
		case "element":
			err = file.element(f[1:])
		case "property":
			err = file.property(f[1:])
		}
		if err != nil {
			return nil, fmt.Errorf("header line %d: %w", n+1, err)
		}
	}
	if !known {
		return nil, errors.New("the header names no format")
	}
	return file, nil
}

func (p *plyFile) format(f []string) error {
	if len(f) == 0 {
		return errors.New("no format")
	}
	switch f[0] {
	case "ascii":
	case "binary_little_endian":
		p.order = binary.LittleEndian
	case "binary_big_endian":
		p.order = binary.BigEndian
	default:
		return fmt.Errorf("unknown format %.40q", f[0])
	}
	return nil
}

func (p *plyFile) element(f []string) error {
	if len(f) != 2 || len(p.elements) >= maxPLYElements {
		return errors.New("a bad element")
	}
	n, err := strconv.ParseUint(f[1], 10, 32)
	if err != nil {
		return fmt.Errorf("%.40q is not a number of elements", f[1])
	}
	p.elements = append(p.elements, plyElement{name: f[0], count: int64(n)})
	return nil
}

func (p *plyFile) property(f []string) error {
	var q plyProperty
	switch {
	case len(p.elements) == 0:
		return errors.New("a property before any element")
	case len(f) == 4 && f[0] == "list":
		q = plyProperty{name: f[3], kind: f[2], count: f[1]}
	case len(f) == 2:
		q = plyProperty{name: f[1], kind: f[0]}
	default:
		return errors.New("a bad property")
	}
	if plySizes[q.kind] == 0 || q.count != "" && plySizes[q.count] == 0 {
		return fmt.Errorf("unknown type in property %.40q", q.name)
	}
	e := &p.elements[len(p.elements)-1]
	if len(e.properties) >= maxPLYProperties {
		return fmt.Errorf("more than %d properties", maxPLYProperties)
	}
	e.properties = append(e.properties, q)
	return nil
}

// leastBytes is what one element takes at least; in text a number and a space.
func (e *plyElement) leastBytes(text bool) int64 {
	var n int64
	for _, p := range e.properties {
		switch {
		case text:
			n += 2
		case p.count != "":
			n += int64(plySizes[p.count])
		default:
			n += int64(plySizes[p.kind])
		}
	}
	return n
}

// plyMesh collects the mesh from the elements.
type plyMesh struct {
	in     *input
	r      *plyReader
	m      scene.Mesh
	before int // bytes of the header
}

func (b *plyMesh) element(e *plyElement) error {
	if len(e.properties) == 0 {
		return nil
	}
	// An element of lists may be announced by the billion in no bytes: the
	// count was compared with the bytes that are there.
	for i := range e.count {
		if err := b.in.tick(b.before + b.r.at); err != nil {
			return err
		}
		var err error
		switch e.name {
		case "vertex":
			err = b.vertex(e)
		default:
			err = b.other(e)
		}
		if err != nil {
			return fmt.Errorf("%s %d: %w", e.name, i+1, err)
		}
	}
	return nil
}

func (b *plyMesh) vertex(e *plyElement) error {
	var p scene.V3
	var rgb [3]float64
	colored := 0
	for i := range e.properties {
		q := &e.properties[i]
		if q.count != "" {
			if err := b.list(q, false); err != nil {
				return err
			}
			continue
		}
		v, err := b.r.number(q.kind)
		if err != nil {
			return err
		}
		switch q.name {
		case "x":
			p.X = float32(v)
		case "y":
			p.Y = float32(v)
		case "z":
			p.Z = float32(v)
		case "red", "green", "blue":
			rgb[strings.Index("rgb", q.name[:1])] = channel(v, q.kind)
			colored++
		}
	}
	if err := b.in.take(16); err != nil {
		return err
	}
	b.m.Points = append(b.m.Points, p)
	if colored == 3 {
		b.m.Colors = append(b.m.Colors, scene.Color(rgb[0])<<16|scene.Color(rgb[1])<<8|scene.Color(rgb[2]))
	}
	return nil
}

// channel brings a color to 0..255; floating-point ones are 0..1.
func channel(v float64, kind string) float64 {
	if strings.HasPrefix(kind, "float") || strings.HasPrefix(kind, "double") {
		v *= 255
	}
	if !(v > 0) {
		return 0
	}
	return min(255, v)
}

func (b *plyMesh) other(e *plyElement) error {
	for i := range e.properties {
		q := &e.properties[i]
		if q.count == "" {
			if _, err := b.r.number(q.kind); err != nil {
				return err
			}
			continue
		}
		corners := e.name == "face" && (q.name == "vertex_indices" || q.name == "vertex_index")
		if err := b.list(q, corners); err != nil {
			return err
		}
	}
	return nil
}

// list reads a list; if it holds a face's corners, the face becomes a fan.
func (b *plyMesh) list(q *plyProperty, corners bool) error {
	count, err := b.r.number(q.count)
	if err != nil {
		return err
	}
	if !(count >= 0 && count <= maxPLYPolygon) {
		return fmt.Errorf("a list of %v", count)
	}
	var first, previous uint32
	for k := range int(count) {
		v, err := b.r.number(q.kind)
		if err != nil {
			return err
		}
		if !corners {
			continue
		}
		if !(v >= 0 && v < 1<<32) {
			return fmt.Errorf("the point number %v", v)
		}
		i := uint32(v)
		if k == 0 {
			first = i
		} else if k >= 2 {
			if err := b.in.take(12); err != nil {
				return err
			}
			b.m.Indices = append(b.m.Indices, first, previous, i)
		}
		previous = i
	}
	return nil
}
