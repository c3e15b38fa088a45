package catalog

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// -add writes a file of testdata for each type that has none for its present
// schema. It never changes a file that is there: those were written by the past.
var add = flag.Bool("add", false, "add the missing files of testdata")

func file(typ string, schema int) string {
	return filepath.Join("testdata", fmt.Sprintf("%s.%d.json", typ, schema))
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *add {
		for _, e := range examples {
			typ, schema, data, err := Encode(e)
			if err != nil {
				panic(err)
			}
			name := file(typ, schema)
			if _, err := os.Stat(name); err == nil {
				continue
			}
			var pretty any
			if err := json.Unmarshal(data, &pretty); err != nil {
				panic(err)
			}
			data, _ = json.MarshalIndent(pretty, "", "  ")
			if err := os.WriteFile(name, append(data, '\n'), 0o644); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(m.Run())
}

func TestEverySchemaOfEveryTypeHasAFileThatDecodes(t *testing.T) {
	for _, typ := range Types() {
		for schema := 1; schema <= Schema(typ); schema++ {
			data, err := os.ReadFile(file(typ, schema))
			if err != nil {
				t.Errorf("%v (add it with -add)", err)
				continue
			}
			e, err := Decode(typ, schema, data)
			if err != nil {
				t.Errorf("%s: %v", file(typ, schema), err)
				continue
			}
			if e.Type() != typ {
				t.Errorf("%s decodes to a %s", file(typ, schema), e.Type())
			}
			if schema == Schema(typ) {
				sameAgain(t, typ, data, e)
			}
		}
	}
}

// sameAgain says that writing what was read gives what was written: a field
// that was renamed or dropped without an upcast would be lost.
func sameAgain(t *testing.T, typ string, data []byte, e pool.Event) {
	t.Helper()
	_, schema, again, err := Encode(e)
	if err != nil || schema != Schema(typ) {
		t.Errorf("%s is written with schema %d, %v", typ, schema, err)
		return
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(data, &a), json.Unmarshal(again, &b)); err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("%s is read and written again as\n%s, not\n%s %v", typ, again, data, err)
	}
}

var fileName = regexp.MustCompile(`^([a-z_.]+)\.([0-9]+)\.json$`)

// A file without a type is a type that was taken out: old logs could not be read any more.
func TestEveryFileBelongsToAType(t *testing.T) {
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		m := fileName.FindStringSubmatch(f.Name())
		if m == nil {
			t.Errorf("testdata/%s is not named type.schema.json", f.Name())
			continue
		}
		if schema, _ := strconv.Atoi(m[2]); schema < 1 || schema > Schema(m[1]) {
			t.Errorf("testdata/%s is of no type and schema that the catalog knows", f.Name())
		}
	}
}

func TestExamplesSetEveryFieldOfEveryType(t *testing.T) {
	var types []string
	for _, e := range examples {
		types = append(types, e.Type())
		checkSet(t, e.Type(), reflect.ValueOf(e))
	}
	slices.Sort(types)
	if !slices.Equal(types, Types()) {
		t.Errorf("there are examples of %q, and the types are %q", types, Types())
	}
}

func checkSet(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		name := path + "." + v.Type().Field(i).Name
		switch f := v.Field(i); {
		case f.IsZero():
			t.Errorf("%s is not set in the example", name)
		case f.Kind() == reflect.Struct && f.Type().PkgPath() != "time":
			checkSet(t, name, f)
		}
	}
}

func TestUnknownTypesAndSchemasAreRefused(t *testing.T) {
	for _, c := range []struct {
		typ    string
		schema int
		data   string
	}{
		{"session.vanished", 1, `{}`}, {"", 1, `{}`}, {"session.ready", 2, `{}`}, {"session.ready", 0, `{}`}, {"session.ready", -1, `{}`},
		{"session.ready", 1, `{`}, {"session.ready", 1, `{"session": 7}`}, {"session.ready", 1, ``}, {"session.ready", 1, `[]`},
	} {
		if e, err := Decode(c.typ, c.schema, json.RawMessage(c.data)); err == nil {
			t.Errorf("%s %d %s decodes to %+v", c.typ, c.schema, c.data, e)
		}
	}
	if Schema("session.vanished") != 0 || Schema("session.ready") != 1 {
		t.Errorf("schemas %d and %d", Schema("session.vanished"), Schema("session.ready"))
	}
	if _, _, _, err := Encode(unknown{}); err == nil {
		t.Error("an event that is not in the catalog is written")
	}
	if _, _, _, err := Encode(pool.JobSubmitted{Spec: json.RawMessage(`{`)}); err == nil {
		t.Error("a spec that is no JSON is written")
	}
}

type unknown struct{}

func (unknown) Type() string { return "test.unknown" }

// noted is an event of a later day: schema 1 had minutes, schema 2 seconds, schema 3 has a reason.
type noted struct {
	Seconds float64 `json:"seconds"`
	Reason  string  `json:"reason"`
}

func (noted) Type() string { return "test.noted" }

func change(f func(map[string]any)) upcast {
	return func(b json.RawMessage) (json.RawMessage, error) {
		m := map[string]any{}
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, err
		}
		f(m)
		return json.Marshal(m)
	}
}

func TestOldSchemasAreUpcastStepByStep(t *testing.T) {
	entries["test.noted"] = of[noted](
		change(func(m map[string]any) {
			m["seconds"] = m["minutes"].(float64) * 60
			delete(m, "minutes")
		}),
		change(func(m map[string]any) { m["reason"] = "not recorded then" }),
	)
	defer delete(entries, "test.noted")
	for _, c := range []struct {
		schema int
		data   string
		want   noted
	}{
		{1, `{"minutes": 2}`, noted{120, "not recorded then"}},
		{2, `{"seconds": 7}`, noted{7, "not recorded then"}},
		{3, `{"seconds": 7, "reason": "why not"}`, noted{7, "why not"}},
	} {
		if got, err := Decode("test.noted", c.schema, json.RawMessage(c.data)); err != nil || got != c.want {
			t.Errorf("schema %d gives %+v, %v", c.schema, got, err)
		}
	}
	if got, err := Decode("test.noted", 4, json.RawMessage(`{}`)); err == nil {
		t.Errorf("schema 4 of the future gives %+v", got)
	}
	if got, err := Decode("test.noted", 1, json.RawMessage(`[]`)); err == nil {
		t.Errorf("an upcast that fails gives %+v", got)
	}
	if _, schema, _, err := Encode(noted{}); err != nil || schema != 3 {
		t.Errorf("it is written with schema %d, %v", schema, err)
	}
}

// Every type with a method Type in the package pool is in the catalog, under the word that the method gives.
func TestEveryEventOfThePoolIsInTheCatalog(t *testing.T) {
	files, err := filepath.Glob("../pool/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	found := map[string]string{} // word -> Go type
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if goType, word, ok := typeMethod(d); ok {
				if other, twice := found[word]; twice {
					t.Errorf("%s and %s have one word, %s", other, goType, word)
				}
				found[word] = goType
			}
		}
	}
	for word, goType := range found {
		e, ok := entries[word]
		if !ok {
			t.Errorf("%s (%s) is not in the catalog", goType, word)
			continue
		}
		data, err := os.ReadFile(file(word, e.schema()))
		if err != nil {
			continue // said elsewhere
		}
		if got, err := e.decode(data); err != nil || reflect.TypeOf(got).Name() != goType {
			t.Errorf("%s decodes to %T, not to %s (%v)", word, got, goType, err)
		}
	}
	if len(found) != len(Types()) {
		t.Errorf("the pool has %d events and the catalog %d", len(found), len(Types()))
	}
}

// typeMethod finds "func (T) Type() string { return WORD }".
func typeMethod(d ast.Decl) (goType, word string, ok bool) {
	f, isFunc := d.(*ast.FuncDecl)
	if !isFunc || f.Recv == nil || f.Name.Name != "Type" || len(f.Body.List) != 1 {
		return "", "", false
	}
	ret, isReturn := f.Body.List[0].(*ast.ReturnStmt)
	name, isIdent := f.Recv.List[0].Type.(*ast.Ident)
	if !isReturn || !isIdent || len(ret.Results) != 1 {
		return "", "", false
	}
	lit, isLit := ret.Results[0].(*ast.BasicLit)
	if !isLit {
		return "", "", false
	}
	word, err := strconv.Unquote(lit.Value)
	return name.Name, word, err == nil
}
