package format

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"

	"github.com/qmuntal/gltf"
	"github.com/qmuntal/gltf/modeler"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

const (
	maxGLTFDepth = 64     // of the tree of nodes
	maxGLTFNodes = 100000 // visited, as nodes may be shared
)

// parseGLTF reads glTF 2.0 and its binary form: the triangles of the default
// scene, placed by their nodes, in their materials' base colors. Buffers in
// other files are read below the file's own directory.
func parseGLTF(in *input, files fs.FS, name string, data []byte) (*scene.Mesh, error) {
	if err := checkGLTFBuffers(in, data); err != nil {
		return nil, err
	}
	dir, err := fs.Sub(files, path.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	doc := &gltf.Document{}
	if err := gltf.NewDecoderFS(bytes.NewReader(data), metered{dir, in}).Decode(doc); err != nil {
		return nil, fmt.Errorf("decode glTF: %w", err)
	}
	w := &gltfWalk{in: in, doc: doc, m: &scene.Mesh{}}
	for _, root := range gltfRoots(doc) {
		if err := w.node(root, identity, 0); err != nil {
			return nil, err
		}
	}
	return w.m, nil
}

// checkGLTFBuffers looks at the announced lengths before the library
// allocates them.
func checkGLTFBuffers(in *input, data []byte) error {
	text := data
	if len(data) >= 20 && string(data[:4]) == "glTF" {
		n := int64(binary.LittleEndian.Uint32(data[12:]))
		if n > int64(len(data))-20 {
			return fmt.Errorf("a header of %d bytes in a file of %d", n, len(data))
		}
		text = data[20 : 20+n]
	}
	var head struct {
		Buffers []struct {
			ByteLength int64  `json:"byteLength"`
			URI        string `json:"uri"`
		} `json:"buffers"`
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&head); err != nil {
		return fmt.Errorf("decode glTF: %w", err)
	}
	for i, b := range head.Buffers {
		if b.ByteLength < 1 || b.ByteLength > math.MaxUint32 || b.URI == "" && b.ByteLength > int64(len(data)) {
			return fmt.Errorf("buffer %d announces %d bytes", i, b.ByteLength)
		}
		if err := in.take(b.ByteLength); err != nil {
			return err
		}
	}
	return nil
}

// metered asks for the memory of a whole file before it is opened to be read.
type metered struct {
	fs.FS
	in *input
}

func (m metered) Open(name string) (fs.File, error) {
	info, err := fs.Stat(m.FS, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", name)
	}
	if err := m.in.take(info.Size()); err != nil {
		return nil, err
	}
	return m.FS.Open(name)
}

func gltfRoots(doc *gltf.Document) []int {
	if doc.Scene != nil && *doc.Scene >= 0 && *doc.Scene < len(doc.Scenes) {
		return doc.Scenes[*doc.Scene].Nodes
	}
	if len(doc.Scenes) > 0 {
		return doc.Scenes[0].Nodes
	}
	roots := make([]int, len(doc.Nodes))
	for i := range roots {
		roots[i] = i
	}
	return roots
}

type gltfWalk struct {
	in      *input
	doc     *gltf.Document
	m       *scene.Mesh
	visited int
}

func (w *gltfWalk) node(i int, parent matrix, depth int) error {
	w.visited++
	switch {
	case i < 0 || i >= len(w.doc.Nodes):
		return fmt.Errorf("node %d of %d", i, len(w.doc.Nodes))
	case depth > maxGLTFDepth || w.visited > maxGLTFNodes:
		return errors.New("the nodes are nested too deeply, or in a circle")
	}
	if err := w.in.cancelled(); err != nil {
		return err
	}
	n := w.doc.Nodes[i]
	at := parent.times(localMatrix(n))
	if n.Mesh != nil {
		if *n.Mesh < 0 || *n.Mesh >= len(w.doc.Meshes) {
			return fmt.Errorf("mesh %d of %d", *n.Mesh, len(w.doc.Meshes))
		}
		for _, p := range w.doc.Meshes[*n.Mesh].Primitives {
			if err := w.primitive(p, at); err != nil {
				return fmt.Errorf("mesh %d: %w", *n.Mesh, err)
			}
		}
	}
	for _, c := range n.Children {
		if err := w.node(c, at, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// accessor checks what the library would believe.
func (w *gltfWalk) accessor(i int) (*gltf.Accessor, error) {
	if i < 0 || i >= len(w.doc.Accessors) {
		return nil, fmt.Errorf("accessor %d of %d", i, len(w.doc.Accessors))
	}
	a := w.doc.Accessors[i]
	var have int64
	if a.BufferView != nil {
		v, err := w.view(*a.BufferView)
		if err != nil {
			return nil, err
		}
		have = int64(v.ByteLength)
	}
	each := int64(gltf.SizeOfElement(a.ComponentType, a.Type))
	count := int64(a.Count)
	if count < 0 || count > math.MaxUint32 || a.ByteOffset < 0 || each <= 0 {
		return nil, fmt.Errorf("accessor %d is malformed", i)
	}
	if a.BufferView != nil && (int64(a.ByteOffset) > have || count > have/each+1) {
		return nil, fmt.Errorf("accessor %d announces %d elements in %d bytes", i, count, have)
	}
	if s := a.Sparse; s != nil {
		if s.Count < 0 || s.Count > a.Count || s.Indices.ByteOffset < 0 || s.Values.ByteOffset < 0 {
			return nil, fmt.Errorf("accessor %d is malformed", i)
		}
		for _, k := range []int{s.Indices.BufferView, s.Values.BufferView} {
			if _, err := w.view(k); err != nil {
				return nil, err
			}
		}
	}
	// What the library makes of it, and our own copy of points or indices.
	return a, w.in.take(count * (each + 16))
}

func (w *gltfWalk) view(i int) (*gltf.BufferView, error) {
	if i < 0 || i >= len(w.doc.BufferViews) {
		return nil, fmt.Errorf("buffer view %d of %d", i, len(w.doc.BufferViews))
	}
	v := w.doc.BufferViews[i]
	if v.Buffer < 0 || v.ByteOffset < 0 || v.ByteLength < 0 || v.ByteStride < 0 {
		return nil, fmt.Errorf("buffer view %d is malformed", i)
	}
	return v, nil
}

func (w *gltfWalk) primitive(p *gltf.Primitive, at matrix) error {
	position, ok := p.Attributes[gltf.POSITION]
	if !ok || p.Mode != gltf.PrimitiveTriangles && p.Mode != gltf.PrimitiveTriangleStrip && p.Mode != gltf.PrimitiveTriangleFan {
		return nil // points and lines have no surface
	}
	a, err := w.accessor(position)
	if err != nil {
		return err
	}
	points, err := modeler.ReadPosition(w.doc, a, nil)
	if err != nil {
		return fmt.Errorf("read positions: %w", err)
	}
	order, err := w.order(p, len(points))
	if err != nil {
		return err
	}
	base := uint32(len(w.m.Points))
	color := w.color(p)
	for _, q := range points[:min(len(points), a.Count)] {
		w.m.Points = append(w.m.Points, at.apply(q))
		w.m.Colors = append(w.m.Colors, color)
	}
	for k, step := 2, stride(p.Mode); k < len(order); k += step {
		tri := [3]uint32{order[k-2], order[k-1], order[k]}
		if p.Mode == gltf.PrimitiveTriangleFan {
			tri[0] = order[0]
		} else if p.Mode == gltf.PrimitiveTriangleStrip && k%2 == 1 {
			tri[0], tri[1] = tri[1], tri[0]
		}
		for _, i := range tri {
			if int64(i) >= int64(len(points)) {
				return fmt.Errorf("an index refers to point %d of %d", i, len(points))
			}
			w.m.Indices = append(w.m.Indices, base+i)
		}
	}
	return nil
}

func stride(mode gltf.PrimitiveMode) int {
	if mode == gltf.PrimitiveTriangles {
		return 3
	}
	return 1
}

// order is the sequence of points that makes the triangles.
func (w *gltfWalk) order(p *gltf.Primitive, points int) ([]uint32, error) {
	if p.Indices == nil {
		if err := w.in.take(4 * int64(points)); err != nil {
			return nil, err
		}
		order := make([]uint32, points)
		for i := range order {
			order[i] = uint32(i)
		}
		return order, nil
	}
	a, err := w.accessor(*p.Indices)
	if err != nil {
		return nil, err
	}
	order, err := modeler.ReadIndices(w.doc, a, nil)
	if err != nil {
		return nil, fmt.Errorf("read indices: %w", err)
	}
	// A strip of n points makes n-2 triangles of three indices.
	return order, w.in.take(12 * int64(len(order)))
}

// color is the base color, brought from linear light to the screen's.
func (w *gltfWalk) color(p *gltf.Primitive) scene.Color {
	const plain = 0xc9a27e
	if p.Material == nil || *p.Material < 0 || *p.Material >= len(w.doc.Materials) {
		return plain
	}
	pbr := w.doc.Materials[*p.Material].PBRMetallicRoughness
	if pbr == nil || pbr.BaseColorFactor == nil {
		return plain
	}
	var c scene.Color
	for _, v := range pbr.BaseColorFactor[:3] {
		c = c<<8 | scene.Color(channel(math.Pow(max(0, v), 1/2.2), "float"))
	}
	return c
}
