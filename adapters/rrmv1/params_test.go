package rrmv1

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"pgregory.net/rapid"
)

func TestTheModelIsTakenFromTheParams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ params, model, rest string }{
		{"", "default", ""},
		{"  ", "default", ""},
		{"--volume mem://#1024", "mem://#1024", ""},
		{" --fps 10 --volume uvf:///data/x.uvf --quality 5", "uvf:///data/x.uvf", "--fps 10 --quality 5"},
		{"-b /gpfs/BlueConfig", "/gpfs/BlueConfig", ""},
		{"--renderer exobj --morphology-folder '/data/my morphologies' --shadows", "/data/my morphologies", "--renderer exobj --shadows"},
		{`--nest-folder="/a b"`, "/a b", ""},
		{"--volume a --volume b", "a", "--volume b"},
		{"--volume --fps", "--volume --fps", "--volume --fps"},
		{"--volume", "--volume", "--volume"},
		{"--fps 10", "--fps 10", "--fps 10"},
		{"circuit:100", "circuit:100", ""},
		{"-b 'it'\\''s'", "it's", ""},
		{"--title 'a b' -b x", "x", "--title 'a b'"},
		{`--title "it's $(x)" -b x`, "x", `--title 'it'\''s $(x)'`},
	} {
		p, err := parseParams(c.params)
		if err != nil || string(p.model) != c.model || p.rest != c.rest || p.all != strings.TrimSpace(c.params) {
			t.Errorf("%q: %+v %v", c.params, p, err)
		}
	}
	for _, bad := range []string{"a;b", "a|b", "a&b", "'a", `"`, "(a)", "${x}", "${model}", "${", "-b " + strings.Repeat("x", 2000), "-b 'a\x01b'"} {
		if p, err := parseParams(bad); err == nil {
			t.Errorf("%q is taken: %+v", bad, p)
		}
	}
}

func TestWordsAreJoinedAsTheyWereSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(rapid.StringMatching(`[ -~]{1,12}`), 0, 5).Draw(t, "words")
		out, err := splitWords(join(in))
		if err != nil || strings.Join(out, "\x00") != strings.Join(in, "\x00") {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
	})
}

func TestAllocationTimes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "30": 30 * time.Minute, "1:30": 90 * time.Second, "1:00:00": time.Hour, "2-1": 49 * time.Hour, "1-0:30": 24*time.Hour + 30*time.Minute, "1-1:1:1": 25*time.Hour + 61*time.Second,
	} {
		if got, err := allocation(text); err != nil || got != want {
			t.Errorf("%q is %s, not %s: %v", text, got, want, err)
		}
	}
	for _, bad := range []string{"x", "-1", "1:2:3:4", "1-", "-", "1.5", "1-2-3", "99999999999", ":", "1:-1"} {
		if got, err := allocation(bad); err == nil {
			t.Errorf("%q is %s", bad, got)
		}
	}
}

func TestEnvironments(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]environment{
		"": {}, "A=1": {"A": "1"}, "A=1,B=2": {"A": "1", "B": "2"}, " A=1  B=2\n,C=": {"A": "1", "B": "2", "C": ""}, "A=x=y": {"A": "x=y"},
		"A=1,A=2": {"A": "2"}, `A="q"`: {"A": `"q"`}, "A=$(x)`y`": {"A": "$(x)`y`"}, `{"A": "x, y\n'"}`: {"A": "x, y\n'"},
	} {
		if got, err := parseEnvironment(text); err != nil || !maps.Equal(got, want) {
			t.Errorf("%q is %q: %v", text, got, err)
		}
	}
	// What may have been cut in two is refused, not passed on in pieces.
	for _, bad := range []string{"A", "A=1,2", `A="x y"`, `A="x B=y"`, "A='x B=y'", "A=$(x B=y)", "A=`x B=y`", `A=x\ B=y`, "1A=x", "A B=1", `{"A":1}`, "{"} {
		if got, err := parseEnvironment(bad); err == nil {
			t.Errorf("%q is taken for %q", bad, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		in := environment(rapid.MapOfN(rapid.StringMatching(`[A-Z][A-Z0-9_]{0,5}`), rapid.StringMatching("[ -~\n,\"'$(){}`\\\\]{0,8}"), 0, 4).Draw(t, "environment"))
		if out, err := parseEnvironment(in.String()); err != nil || !maps.Equal(in, out) {
			t.Fatalf("%q written as %q is read as %q: %v", in, in.String(), out, err)
		}
	})
}

func TestTheDocumentIsOpenAPI(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(Document())
	if err == nil {
		err = doc.Validate(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}
