package format

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

func load(files map[string]string, name string, meter scene.Meter) (*scene.Scene, error) {
	fsys := fstest.MapFS{}
	for n, data := range files {
		fsys[n] = &fstest.MapFile{Data: []byte(data)}
	}
	return Load(context.Background(), fsys, name, meter, func(float64) {})
}

// limited is a meter of so many bytes.
func limited(bytes int64) scene.Meter {
	return func(n int64) error {
		if bytes -= n; bytes < 0 {
			return errFull
		}
		return nil
	}
}

var errFull = errors.New("no memory left")

const tetraOBJ = "# a tetrahedron\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1/1/1 2//2 4/3\nf -4 -1 -2\nf 2 3 4\n"

const plyHead = "ply\nformat %s 1.0\ncomment x\nelement vertex %s\nproperty float x\nproperty float y\nproperty float z\nelement face %s\nproperty list uchar int vertex_indices\nend_header\n"

// before is the text up to where a part begins.
func before(text, part string) string {
	head, _, _ := strings.Cut(text, part)
	return head
}

func ply(format, vertices, faces, body string) string {
	return fmt.Sprintf(plyHead, format, vertices, faces) + body
}

func binaryPLY(order binary.ByteOrder, name string) string {
	var b bytes.Buffer
	for _, x := range []float32{0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0} {
		_ = binary.Write(&b, order, x)
	}
	b.WriteByte(4)
	_ = binary.Write(&b, order, []int32{0, 1, 3, 2})
	return ply(name, "4", "1", b.String())
}

func binarySTL(announced uint32, triangles int, x float32) string {
	b := make([]byte, 80, 84+50*triangles)
	b = binary.LittleEndian.AppendUint32(b, announced)
	for i := range triangles {
		for _, f := range []float32{0, 0, 1, 0, 0, float32(i), 1, 0, float32(i), x, 1, float32(i)} {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
		}
		b = append(b, 0, 0)
	}
	return string(b)
}

const triangleSTL = "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid a\n"

// gltfText is a triangle whose parts may be replaced.
func gltfText(replace ...string) string {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, []float32{0, 0, 0, 1, 0, 0, 0, 1, 0})
	_ = binary.Write(&b, binary.LittleEndian, []uint16{0, 1, 2, 0})
	text := `{"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],
	"nodes":[{"mesh":0,"translation":[5,0,0],"scale":[2,2,2]}],
	"meshes":[{"primitives":[{"attributes":{"POSITION":0},"indices":1,"material":0}]}],
	"materials":[{"pbrMetallicRoughness":{"baseColorFactor":[1,0,0,1]}}],
	"accessors":[{"bufferView":0,"componentType":5126,"count":3,"type":"VEC3"},{"bufferView":1,"componentType":5123,"count":3,"type":"SCALAR"}],
	"bufferViews":[{"buffer":0,"byteOffset":0,"byteLength":36},{"buffer":0,"byteOffset":36,"byteLength":8}],
	"buffers":[{"byteLength":44,"uri":"data:application/octet-stream;base64,` + base64.StdEncoding.EncodeToString(b.Bytes()) + `"}]}`
	return strings.NewReplacer(replace...).Replace(text)
}

func glb(text string, announced uint32, bin []byte) string {
	for len(text)%4 != 0 {
		text += " "
	}
	var b bytes.Buffer
	b.WriteString("glTF")
	_ = binary.Write(&b, binary.LittleEndian, []uint32{2, uint32(28 + len(text) + len(bin)), uint32(len(text)), 0x4e4f534a})
	b.WriteString(text)
	_ = binary.Write(&b, binary.LittleEndian, []uint32{announced, 0x004e4942})
	b.Write(bin)
	return b.String()
}

func glbText(length string) string {
	return `{"asset":{"version":"2.0"},"nodes":[{"mesh":0}],"meshes":[{"primitives":[{"attributes":{"POSITION":0}}]}],
	"accessors":[{"bufferView":0,"componentType":5126,"count":3,"type":"VEC3"}],
	"bufferViews":[{"buffer":0,"byteLength":36}],"buffers":[{"byteLength":` + length + `}]}`
}

func TestGoodFiles(t *testing.T) {
	triangle := make([]byte, 36)
	binary.LittleEndian.PutUint32(triangle[12:], math.Float32bits(1))
	binary.LittleEndian.PutUint32(triangle[28:], math.Float32bits(1))
	colored := strings.Replace(ply("ascii", "3", "1", "0 0 0 255 0 0\n1 0 0 0 255 0\n0 1 0 0 0 255\n3 0 1 2\n"),
		"property float z\n", "property float z\nproperty uchar red\nproperty uchar green\nproperty uchar blue\n", 1)
	for _, c := range []struct {
		name, data string
		triangles  int
	}{
		{"a.obj", tetraOBJ, 4},
		{"crlf.OBJ", strings.ReplaceAll(tetraOBJ, "\n", "\r\n"), 4},
		{"quad.obj", "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4", 2},
		{"ascii.ply", ply("ascii", "4", "1", "0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"), 2},
		{"colored.ply", colored, 1},
		{"little.ply", binaryPLY(binary.LittleEndian, "binary_little_endian"), 2},
		{"big.ply", binaryPLY(binary.BigEndian, "binary_big_endian"), 2},
		{"a.stl", triangleSTL, 1},
		{"b.stl", binarySTL(3, 3, 0), 3},
		{"a.gltf", gltfText(), 1},
		{"a.glb", glb(glbText("36"), 36, triangle), 1},
	} {
		s, err := load(map[string]string{c.name: c.data}, c.name, scene.Unmetered)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if s.Mesh.Triangles() != c.triangles {
			t.Errorf("%s: %d triangles, want %d", c.name, s.Mesh.Triangles(), c.triangles)
		}
	}
}

func TestGLTFPlacesNodesAndColors(t *testing.T) {
	s, err := load(map[string]string{"a.gltf": gltfText()}, "a.gltf", scene.Unmetered)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Mesh.Points[1]; p != (scene.V3{X: 7}) {
		t.Errorf("the second point is at %v, want 7 0 0", p)
	}
	if c := s.Mesh.Colors[0]; c != 0xff0000 {
		t.Errorf("color %06x, want ff0000", uint32(c))
	}
}

func TestGLTFWithABufferInAnotherFile(t *testing.T) {
	data := make([]byte, 44)
	binary.LittleEndian.PutUint32(data[12:], math.Float32bits(1))
	binary.LittleEndian.PutUint32(data[28:], math.Float32bits(1))
	copy(data[36:], []byte{0, 0, 1, 0, 2, 0})
	text := gltfText()
	at := strings.Index(text, "data:")
	refer := func(uri string) string { return text[:at] + uri + `"}]}` }
	files := map[string]string{"d/a.gltf": refer("b.bin"), "d/b.bin": string(data), "d/up.gltf": refer("../b.bin"), "b.bin": string(data), "d/none.gltf": refer("none.bin")}
	if _, err := load(files, "d/a.gltf", scene.Unmetered); err != nil {
		t.Errorf("a buffer beside the file: %v", err)
	}
	for _, name := range []string{"d/up.gltf", "d/none.gltf"} {
		if _, err := load(files, name, scene.Unmetered); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestBadFiles(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"empty.obj", "", "nothing to draw"},
		{"points.obj", "v 0 0 0\n", "nothing to draw"},
		{"short.obj", "v 0 0\n", "line 1"},
		{"word.obj", "v 0 0 x\n", "not a number"},
		{"nan.obj", "v 0 0 nan\n", "no finite number"},
		{"inf.obj", "v 0 0 -inf\n", "no finite number"},
		{"huge.obj", "v 0 0 1e39\n", "no finite number"},
		{"zero.obj", "v 0 0 0\nf 0 1 1\n", "line 2"},
		{"beyond.obj", "v 0 0 0\nf 1 1 2\n", "point 2 of 1"},
		{"before.obj", "v 0 0 0\nf -1 -1 -2\n", "point -2 of 1"},
		{"two.obj", "v 0 0 0\nf 1 1\n", "2 points"},
		{"overflow.obj", "v 0 0 0\nf 1 1 99999999999999999999\n", "not the number"},

		{"no.ply", "plx\n", "no PLY header"},
		{"cut.ply", "ply\nformat ascii 1.0\n", "no PLY header"},
		{"format.ply", "ply\nformat utf 1.0\nend_header\n", "unknown format"},
		{"unformatted.ply", "ply\nend_header\n", "no format"},
		{"empty.ply", ply("ascii", "0", "0", ""), "nothing to draw"},
		{"lies.ply", ply("binary_little_endian", "4000000000", "1", "abc"), "announces 4000000000"},
		{"lies2.ply", ply("ascii", "3", "4000000000", "0 0 0 1 0 0 0 1 0 3 0 1 2"), "announces 4000000000"},
		{"more.ply", ply("ascii", "99999999999", "1", ""), "number of elements"},
		{"minus.ply", ply("ascii", "-1", "1", ""), "number of elements"},
		{"short.ply", binaryPLY(binary.LittleEndian, "binary_little_endian")[:230], "unexpected EOF"},
		{"list.ply", ply("ascii", "1", "1", "0 0 0\n-3 0 0 0\n"), "a list of -3"},
		{"long.ply", ply("ascii", "1", "1", "0 0 0\n1e9 0 0 0\n"), "a list of"},
		{"index.ply", ply("ascii", "1", "1", "0 0 0\n3 0 0 7\n"), "point 8 of 1"},
		{"negative.ply", ply("ascii", "1", "1", "0 0 0\n3 0 0 -1\n"), "point number -1"},
		{"nan.ply", ply("ascii", "3", "1", "0 0 nan\n0 1 0\n1 0 0\n3 0 1 2\n"), "no finite number"},
		{"type.ply", "ply\nformat ascii 1.0\nelement vertex 1\nproperty quux x\nend_header\n", "unknown type"},
		{"early.ply", "ply\nformat ascii 1.0\nproperty float x\nend_header\n", "before any element"},

		{"short.stl", binarySTL(4, 3, 0), "announces 4"},
		{"lies.stl", binarySTL(4_000_000_000, 1, 0), "announces 4000000000"},
		{"nan.stl", binarySTL(1, 1, float32(math.NaN())), "no finite number"},
		{"no.stl", "hello", "neither"},
		{"cut.stl", before(triangleSTL, "vertex 0 1 0"), "within a triangle"},
		{"word.stl", strings.Replace(triangleSTL, "vertex 1", "vertex a", 1), "line 5"},
		{"loop.stl", strings.Replace(triangleSTL, "vertex 1 0 0\n", "", 1), "a loop of 2"},

		{"no.gltf", "hello", "decode glTF"},
		{"nothing.gltf", `{"asset":{"version":"2.0"}}`, "nothing to draw"},
		{"lies.gltf", gltfText(`"count":3,"type":"VEC3"`, `"count":2000000000,"type":"VEC3"`), "announces 2000000000"},
		{"minus.gltf", gltfText(`"count":3,"type":"VEC3"`, `"count":-3,"type":"VEC3"`), "malformed"},
		{"offset.gltf", gltfText(`"byteOffset":36`, `"byteOffset":-36`), "malformed"},
		{"view.gltf", gltfText(`"bufferView":1`, `"bufferView":7`), "buffer view 7 of 2"},
		{"mesh.gltf", gltfText(`"nodes":[{"mesh":0`, `"nodes":[{"mesh":3`), "mesh 3 of 1"},
		{"node.gltf", gltfText(`"scenes":[{"nodes":[0]`, `"scenes":[{"nodes":[9]`), "node 9 of 1"},
		{"circle.gltf", gltfText(`"nodes":[{"mesh":0`, `"nodes":[{"children":[0],"mesh":0`), "circle"},
		{"length.gltf", gltfText(`"byteLength":44`, `"byteLength":-44`), "announces -44"},
		{"index.gltf", gltfText(`"POSITION":0`, `"POSITION":5`), "accessor 5 of 2"},
		{"short.gltf", gltfText(`"byteLength":36`, `"byteLength":12`), "announces 3 elements"},
		{"lies.glb", glb(glbText("4000000000"), 4000000000, nil), "announces 4000000000"},
		{"wrap.glb", glb(glbText("4294967332"), 36, make([]byte, 36)), "announces 4294967332"},
		{"short.glb", glb(glbText("36"), 36, make([]byte, 7)), "decode glTF"},
		{"cut.glb", glb(glbText("36"), 36, nil)[:40], "in a file of 40"},

		{"cycle.swc", "1 1 0 0 0 1 1\n", "own ancestor"},
	} {
		_, err := load(map[string]string{c.name: c.data}, c.name, scene.Unmetered)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Whatever the format, memory is asked for and a refusal ends the load.
func TestMemoryIsMetered(t *testing.T) {
	var big strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&big, "v %d 0 0\nv 0 %d 0\nv 0 0 %d\nf -1 -2 -3\n", i, i, i)
	}
	for name, data := range map[string]string{"a.obj": big.String(), "a.stl": binarySTL(3000, 3000, 0)} {
		files := map[string]string{name: data}
		if _, err := load(files, name, limited(1<<30)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, limit := range []int{1000, len(data) + 70_000} {
			if _, err := load(files, name, limited(int64(limit))); !errors.Is(err, errFull) {
				t.Errorf("%s within %d bytes: %v", name, limit, err)
			}
		}
	}
	if _, err := load(map[string]string{"a.gltf": gltfText(`"byteLength":44`, `"byteLength":400000000`)}, "a.gltf", limited(1<<20)); !errors.Is(err, errFull) {
		t.Errorf("gltf: %v", err)
	}
}

func TestLoadStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	fsys := fstest.MapFS{"a.obj": {Data: []byte(tetraOBJ)}}
	if _, err := Load(ctx, fsys, "a.obj", scene.Unmetered, func(float64) {}); !errors.Is(err, context.Canceled) {
		t.Fatalf("err %v", err)
	}
}

func fuzz(f *testing.F, name string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := load(map[string]string{name: string(data)}, name, limited(64<<20))
		if err == nil && (s.Mesh.Triangles() == 0 || !(s.Radius > 0)) {
			t.Fatal("accepted, but nothing to draw")
		}
	})
}

func FuzzOBJ(f *testing.F) { fuzz(f, "a.obj", tetraOBJ, "f 1 2 3\nv 1 2 3") }
func FuzzPLY(f *testing.F) {
	fuzz(f, "a.ply", ply("ascii", "3", "1", "0 0 0 1 0 0 0 1 0 3 0 1 2"), binaryPLY(binary.BigEndian, "binary_big_endian"))
}
func FuzzSTL(f *testing.F)  { fuzz(f, "a.stl", triangleSTL, binarySTL(2, 2, 0)) }
func FuzzGLTF(f *testing.F) { fuzz(f, "a.glb", gltfText(), glb(glbText("36"), 36, make([]byte, 36))) }
