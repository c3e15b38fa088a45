package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/projections"
)

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body []byte
}

func (r *reply) problem(t *testing.T) Problem {
	t.Helper()
	var p Problem
	if err := json.Unmarshal(r.body, &p); err != nil || r.Header.Get("Content-Type") != problemType {
		t.Fatalf("%d %q is no problem: %s", r.StatusCode, r.Header.Get("Content-Type"), r.body)
	}
	return p
}

func read[T any](t *testing.T, r *reply, status int) T {
	t.Helper()
	var v T
	if r.StatusCode != status {
		t.Fatalf("%s %s: %d, not %d: %s", r.Request.Method, r.Request.URL, r.StatusCode, status, r.body)
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// site is a server over a world, and checks each answer against the document.
type site struct {
	*world
	t      *testing.T
	server *Server
	url    string
}

func newSite(t *testing.T, change ...func(*Config)) *site {
	t.Helper()
	w := newWorld()
	config := Config{
		Commands: w, Views: w, Log: w, Tokens: w, Wake: w, Outputs: w, Forward: &forwarder{},
		Heartbeats: heartbeats{w}, HeartbeatEvery: 5 * time.Second, CheckAddress: checkAddress,
	}
	for _, f := range change {
		f(&config)
	}
	server, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(server)
	h.Config = HTTPServer(server, nil)
	h.Start()
	t.Cleanup(func() { server.Close(); h.Close() })
	return &site{world: w, t: t, server: server, url: h.URL}
}

// ask sends "METHOD /path" below the base path (or outside it, with "METHOD //path") as the owner of a token.
func (s *site) ask(who, what, body string, headers ...string) *reply {
	s.t.Helper()
	method, path, _ := strings.Cut(what, " ")
	target := BasePath + path
	if rest, ok := strings.CutPrefix(path, "//"); ok {
		target = "/" + rest
	}
	var from io.Reader
	if body != "" {
		from = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+target, from)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+who)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else if req.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			req.Header[headers[i]] = []string{""}
		}
	}
	res, err := noRedirect.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	r := &reply{Response: res}
	if r.body, err = io.ReadAll(res.Body); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	conform(s.t, what, r)
	return r
}

var noRedirect = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// spec is the document, made strict: an answer may hold nothing that it does not name.
var spec = sync.OnceValue(func() *openapi3.T {
	doc, err := loadDocument()
	if err != nil {
		panic(err)
	}
	no := false
	for _, ref := range doc.Components.Schemas {
		if s := ref.Value; len(s.Properties) > 0 && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
			s.AdditionalProperties.Has = &no
		}
	}
	return doc
})

// seen collects which operations were answered with which status in the whole run.
var seen = struct {
	sync.Mutex
	by map[string]map[string]bool
}{by: map[string]map[string]bool{}}

// conform checks an answer against the document: its status is there, its
// type, its body, and the headers that are promised.
func conform(t *testing.T, what string, r *reply) {
	t.Helper()
	method, op := documented(r.Request.Method, r.Request.URL.Path)
	if op == nil || method != r.Request.Method {
		return // nothing that the document speaks of
	}
	status := fmt.Sprint(r.StatusCode)
	response := op.Responses.Value(status)
	if forwarded := slices.Contains(op.Tags, "rendering"); forwarded && r.Header.Get("Content-Type") != problemType {
		return // the renderer's own
	}
	if response == nil && r.StatusCode == http.StatusInternalServerError {
		response = op.Responses.Default()
	}
	if response == nil {
		t.Errorf("%s: the document knows no %s for %s: %s", what, status, op.OperationID, r.body)
		return
	}
	seen.Lock()
	if seen.by[op.OperationID] == nil {
		seen.by[op.OperationID] = map[string]bool{}
	}
	seen.by[op.OperationID][status] = true
	seen.Unlock()
	for name := range response.Value.Headers {
		if r.Header.Get(name) == "" && !(name == "Retry-After" && r.StatusCode == http.StatusConflict) {
			t.Errorf("%s: %s without %s", what, status, name)
		}
	}
	if len(response.Value.Content) == 0 {
		return
	}
	media := response.Value.Content.Get(r.Header.Get("Content-Type"))
	if media == nil {
		t.Errorf("%s: %s with %q, which the document does not know", what, status, r.Header.Get("Content-Type"))
		return
	}
	if !strings.Contains(r.Header.Get("Content-Type"), "json") {
		return
	}
	var v any
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	if err := media.Schema.Value.VisitJSON(v, openapi3.VisitAsResponse(), openapi3.EnableFormatValidation()); err != nil {
		t.Errorf("%s: the answer is not what the document says: %v\n%s", what, err, r.body)
	}
}

// documented finds the operation of a real path.
func documented(method, path string) (string, *openapi3.Operation) {
	doc := spec()
	for _, template := range doc.Paths.InMatchingOrder() {
		item := doc.Paths.Value(template)
		full := BasePath + template
		if len(item.Servers) > 0 {
			full = template
		}
		a, b := strings.Split(full, "/"), strings.Split(path, "/")
		if len(a) != len(b) {
			continue
		}
		if slices.EqualFunc(a, b, func(a, b string) bool { return a == b || strings.HasPrefix(a, "{") }) {
			return method, item.GetOperation(method)
		}
	}
	return "", nil
}

// TestMain fails the run if an operation of the document was never answered, or
// one of its errors never seen. It looks only when all tests ran.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if run := flag.Lookup("test.run"); code == 0 && (run == nil || run.Value.String() == "") {
		code = complete()
	}
	os.Exit(code)
}

// unseen are the documented answers that these tests do not bring about, with the reason.
var unseen = map[string]string{
	"setAdmission 422": "everything that the document allows is taken",
}

func complete() int {
	code := 0
	var missing bytes.Buffer
	for _, item := range spec().Paths.Map() {
		for _, op := range item.Operations() {
			if slices.Contains(op.Tags, "rendering") {
				continue // answered by the renderer; see forward_test.go
			}
			for status := range op.Responses.Map() {
				key := op.OperationID + " " + status
				if status == "default" || seen.by[op.OperationID][status] || unseen[key] != "" {
					continue
				}
				_, _ = fmt.Fprintf(&missing, "  %s\n", key)
				code = 1
			}
		}
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "documented answers that no test has seen:\n%s", missing.String())
	}
	return code
}

// forwarder answers like a renderer that says what it was asked.
type forwarder struct {
	mu     sync.Mutex
	last   Target
	header http.Header
	serve  func(w http.ResponseWriter, r *http.Request, to Target, active func(), fail func(int, string, string))
}

func (f *forwarder) Forward(w http.ResponseWriter, r *http.Request, to Target, active func(), fail func(int, string, string)) {
	f.mu.Lock()
	f.last, f.header = to, r.Header.Clone()
	serve := f.serve
	f.mu.Unlock()
	if serve != nil {
		serve(w, r, to, active, fail)
		return
	}
	active()
	_, _ = fmt.Fprintf(w, "%s %s at %s", r.Method, strings.TrimPrefix(r.URL.EscapedPath(), to.Prefix), to.Address)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// What the service is made of is what this package asks for.
var (
	_ Commands   = (*commands.Handler)(nil)
	_ Views      = (*projections.Reader)(nil)
	_ Log        = (*eventstore.Log)(nil)
	_ Wake       = (*eventstore.Bus)(nil)
	_ Tokens     = (*projections.Tokens)(nil)
	_ Heartbeats = (*projections.Heartbeats)(nil)
)
