package wrap

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func ready(t *testing.T, change func(*Settings), command ...string) *config {
	t.Helper()
	s := usual()
	s.Command = own(t, append([]string{"{output}"}, command...)...)
	if change != nil {
		change(&s)
	}
	c, err := prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func body(t *testing.T, kind, model string, spec doc) []byte {
	t.Helper()
	b, err := json.Marshal(doc{"kind": kind, "model": model, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// blamed is the field that an error blames, or the code of the failure that it is.
func blamed(err error) string {
	var field *fieldError
	var f *failure
	switch {
	case err == nil:
		return ""
	case errors.As(err, &field):
		return field.field
	case errors.As(err, &f):
		return f.Code
	}
	return "?"
}

func TestSpecsAreChecked(t *testing.T) {
	c := ready(t, func(s *Settings) {
		s.Kinds = []string{kindImage, kindFrames}
		s.Allow = []string{`angle=-?[0-9]+(\.[0-9]+)?`, `at=[a-z]+:[0-9]+`}
		s.Defaults = []string{"tint=blue", "height=90", "frames=12"}
	}, "{spec.tint}", "{spec.angle}", "{spec.at}", "x={spec.shift}", "{width}", "{model}")
	good := doc{"angle": 1, "at": "a:1", "shift": 1}
	for _, x := range []struct {
		field string
		value any
		want  string // the field blamed; empty: taken
	}{
		{"width", 640, ""},
		{"width", 0, "spec.width"},
		{"width", -1, "spec.width"},
		{"width", 1.5, "spec.width"},
		{"width", "640", "spec.width"},
		{"width", 1 << 20, "spec.width"},
		{"width", nil, "spec.width"},
		{"frames", 10001, "spec.frames"},
		{"fps", 23.976, ""},
		{"fps", 0, "spec.fps"},
		{"tint", "light-blue_2.0", ""},
		{"tint", "", "spec.tint"},
		{"tint", "-rf", "spec.tint"},
		{"tint", "+O", "spec.tint"},
		{"tint", ".hidden", "spec.tint"},
		{"tint", "../up", "spec.tint"},
		{"tint", "a/b", "spec.tint"},
		{"tint", "http:x", "spec.tint"},
		{"tint", "a b", "spec.tint"},
		{"tint", "a\x00b", "spec.tint"},
		{"tint", "a\n", "spec.tint"},
		{"tint", strings.Repeat("a", 129), "spec.tint"},
		{"tint", 12, ""},
		{"tint", -12, "spec.tint"}, // the whole argument
		{"tint", true, ""},
		{"tint", nil, "spec.tint"},
		{"tint", []int{1}, "spec.tint"},
		{"tint", doc{}, "spec.tint"},
		{"shift", -12, ""}, // only a part of it
		{"angle", -12.5, ""},
		{"angle", "-12.5", ""},
		{"angle", "-rf", "spec.angle"},
		{"angle", "1\n", "spec.angle"},
		{"at", "pole:7", ""},
		{"at", "pole:7 and more", "spec.at"},
		{"colour", "red", "spec.colour"},
		{"input", "text", "spec.input"},
		{"frames_of", "job", "spec.frames_of"},
	} {
		spec := doc{}
		for k, v := range good {
			spec[k] = v
		}
		spec[x.field] = x.value
		if _, err := c.understand("id", "", body(t, "image", "m", spec)); blamed(err) != x.want {
			t.Errorf("%s = %v: %q blamed, not %q (%v)", x.field, x.value, blamed(err), x.want, err)
		}
	}
	for want, raw := range map[string]string{
		"spec.at": `{"kind":"image","model":"m","spec":{"angle":1,"shift":1}}`, // there is no default
		"spec":    `{"kind":"image","model":"m","spec":[]}`,
		"kind":    `{"kind":7}`,
		"":        `{"kind":"image","modle":"m"}`,
	} {
		if _, err := c.understand("id", "", []byte(raw)); err == nil || blamed(err) != want {
			t.Errorf("%s: %v", raw, err)
		}
	}
	for _, id := range []string{"", "-x", "a/b", "..", strings.Repeat("a", 129)} {
		if _, err := c.understand(id, "", body(t, "image", "m", good)); blamed(err) != "id" {
			t.Errorf("id %q: %v", id, err)
		}
	}
	if _, err := c.understand("id", "", body(t, "video", "m", good)); blamed(err) != codeUnsupported {
		t.Errorf("a kind that is not made: %v", err)
	}
}

func TestDefaults(t *testing.T) {
	c := ready(t, func(s *Settings) {
		s.Kinds, s.Defaults = []string{kindImage, kindFrames}, []string{"tint=blue", "height=90", "frames=12"}
	}, "{spec.tint}", "{width}", "{spec.width}")
	for kind, frames := range map[string]string{kindImage: "1", kindFrames: "12"} {
		w, err := c.understand("id", "", body(t, kind, "m", doc{}))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"spec.tint": "blue", "width": "640", "spec.width": "640", "height": "90", "frames": frames, "frame": "1", "fps": "24", "id": "id",
		} {
			if w.values[name] != want {
				t.Errorf("%s of %s: %q, not %q", name, kind, w.values[name], want)
			}
		}
	}
	w, err := c.understand("id", "", body(t, kindFrames, "m", doc{"tint": "red", "height": 10, "frames": 3}))
	if err != nil || w.values["spec.tint"] != "red" || w.values["height"] != "10" || w.frames != 3 {
		t.Errorf("given values: %v (%v)", w, err)
	}
}

func TestModelKeysAreChecked(t *testing.T) {
	c := ready(t, nil, "{model}")
	for model, ok := range map[string]bool{
		"neuron:1": true, "a/b.obj": true, "": false, "-x": false, "+x": false, "/etc/passwd": false, "../x": false, "a/../../x": false, "a b": false, "a..b": true,
	} {
		if _, err := c.understand("id", "", body(t, kindImage, model, nil)); (err == nil) != ok || err != nil && blamed(err) != "model" {
			t.Errorf("%q: %v", model, err)
		}
	}
	if w, err := c.understand("id", "header", []byte(`{"kind":"image"}`)); err != nil || w.values["model"] != "header" {
		t.Errorf("the header's model: %v", err)
	}
	if _, err := ready(t, nil, "{width}").understand("id", "", body(t, kindImage, "../ any thing", nil)); err != nil {
		t.Errorf("a model key that is not used: %v", err)
	}
}

func TestInputStaysBelowItsDirectory(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "in")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"secret": "s", "in/a.pov": "a", "in/sub/b c.pov": "b", "in/-x": "x"} {
		if err := os.WriteFile(filepath.Join(top, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"in/inside": "a.pov", "in/outside": "../secret", "in/absolute": filepath.Join(top, "secret"), "in/up": ".."} {
		if err := os.Symlink(to, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	c := ready(t, func(s *Settings) { s.InputDir = dir }, "{input}")
	for key, ok := range map[string]bool{
		"a.pov": true, "sub/b c.pov": true, "sub/../a.pov": true, "-x": true, "inside": true,
		"": false, ".": false, "sub": false, "missing": false, "../secret": false, "sub/../../secret": false, "outside": false, "absolute": false,
		"up/secret": false, filepath.Join(dir, "a.pov"): false, "/etc/passwd": false, "a.pov/": false, "a.pov\x00": false,
	} {
		w, err := c.understand("id", "", body(t, kindImage, key, nil))
		if (err == nil) != ok || err != nil && blamed(err) != codeModelNotFound {
			t.Errorf("%q: %v", key, err)
		}
		if ok && w.input != filepath.Join(dir, key) {
			t.Errorf("%q is %s", key, w.input)
		}
	}
	text := ready(t, func(s *Settings) { s.InputDir, s.FromSpec, s.MaxInput = dir, true, 10 }, "{input}")
	for _, x := range []struct {
		model string
		input any
		want  string
	}{{"a.pov", "scene", ""}, {"any", "scene", ""}, {"any", "longer than ten", "spec.input"}, {"any", "", "spec.input"}, {"any", 7, "spec.input"}} {
		w, err := text.understand("id", "", body(t, kindImage, x.model, doc{"input": x.input}))
		if blamed(err) != x.want || err == nil && (w.text != "scene" || w.input != "") {
			t.Errorf("%+v: %+v %v", x, w, err)
		}
	}
	if w, err := text.understand("id", "", body(t, kindImage, "a.pov", nil)); err != nil || w.text != "" || w.input == "" {
		t.Errorf("without a text the model is the input: %v", err)
	}
	only := ready(t, func(s *Settings) { s.FromSpec = true }, "{input}")
	if _, err := only.understand("id", "", body(t, kindImage, "a.pov", nil)); blamed(err) != "spec.input" {
		t.Errorf("no text: %v", err)
	}
}

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		pattern, line string
		want          float64
		ok            bool
	}{
		{"", "50%", 0, false},
		{`(\d+)%`, "at 50%", 0.5, true},
		{`(\d+)%`, "nothing", 0, false},
		{`(\d+)%`, "250%", 1, true},
		{`([0-9.]+)%`, "12.5%", 0.125, true},
		{`([0-9.]+)%`, "1.2.3%", 0, false},
		{`Rendered (\d+) of (\d+)`, "Rendered 3 of 12 pixels", 0.25, true},
		{`Rendered (\d+) of (\d+)`, "Rendered 3 of 0 pixels", 0, false},
		{`frame=\s*(?P<done>\d+)`, "frame=  6 fps=3", 0.25, true}, // of 24
		{`frame (?P<begun>\d+) of (?P<total>\d+)`, "frame 1 of 4", 0, true},
		{`frame (?P<begun>\d+) of (?P<total>\d+)`, "frame 4 of 4", 0.75, true},
		{`of (?P<total>\d+): (?P<done>\d+)`, "of 8: 2", 0.25, true},
		{`(?:at|is) (?P<percent>\d+)`, "is 7", 0.07, true},
	} {
		p, err := newProgress(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got, ok := p.read([]byte(c.line), 24); got != c.want || ok != c.ok {
			t.Errorf("%s of %q: %g %v", c.pattern, c.line, got, ok)
		}
	}
}
