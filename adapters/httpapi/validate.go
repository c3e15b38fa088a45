package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
)

const (
	maxBody        = 1 << 20 // bytes
	idempotencyKey = "Idempotency-Key"
	maxKey         = 255 // bytes
	opForward      = "forward"
	tagRendering   = "rendering" // of what is forwarded, which the document can only sketch
	forwardRoute   = BasePath + "/sessions/:id/renderer"
)

// operation is one operation of the document, as requests are checked against it.
type operation struct {
	id, method string
	params     []*openapi3.Parameter
	body       *openapi3.Schema // nil: it takes none
	bodyNeeded bool
}

func loadDocument() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, fmt.Errorf("read openapi.yaml: %w", err)
	}
	return doc, nil
}

// operations indexes the document by method and route as echo writes it.
func operations(doc *openapi3.T) (map[string]*operation, error) {
	out := map[string]*operation{}
	for _, path := range doc.Paths.InMatchingOrder() {
		item := doc.Paths.Value(path)
		if len(item.Servers) > 0 {
			continue // outside the base path: nothing to check
		}
		for method, op := range item.Operations() {
			if slices.Contains(op.Tags, tagRendering) {
				continue
			}
			o := &operation{id: op.OperationID, method: method}
			for _, p := range slices.Concat(item.Parameters, op.Parameters) {
				o.params = append(o.params, p.Value)
			}
			if op.RequestBody != nil {
				media := op.RequestBody.Value.Content.Get("application/json")
				if media == nil {
					return nil, fmt.Errorf("openapi.yaml: %s has a body that is not JSON", op.OperationID)
				}
				o.body, o.bodyNeeded = media.Schema.Value, op.RequestBody.Value.Required
			}
			out[method+" "+BasePath+route(path)] = o
		}
	}
	return out, nil
}

// route writes /jobs/{id} as /jobs/:id.
func route(path string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(path)
}

var forwardOperation = &operation{id: opForward}

// routeOf finds the operation behind a route, or nil.
func (s *Server) routeOf(method, path string) *operation {
	if path == forwardRoute || path == forwardRoute+"/*" {
		return forwardOperation
	}
	return s.api[method+" "+path]
}

// check refuses what the document does not allow. The body is read once,
// here, and left for the handler.
func (o *operation) check(c echo.Context) error {
	r := c.Request()
	if err := checkKey(r.Header); err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fail(http.StatusBadRequest, codeInvalid, "", "the query cannot be read: %v", err)
	}
	for name := range query {
		if !slices.ContainsFunc(o.params, func(p *openapi3.Parameter) bool { return p.In == "query" && p.Name == name }) {
			return fail(http.StatusBadRequest, codeUnknownParameter, name, "there is no query parameter %q here", name)
		}
	}
	for _, p := range o.params {
		if err := checkParameter(p, c, query); err != nil {
			return err
		}
	}
	return o.checkBody(r)
}

// checkKey is stricter than a parameter: a key that is there but broken is a
// client's mistake, on which its belief that repeating is safe rests.
func checkKey(h http.Header) error {
	values, there := h[idempotencyKey]
	if !there {
		return nil
	}
	why := ""
	switch key := values[0]; {
	case len(values) > 1:
		why = "it is given more than once"
	case key == "":
		why = "it is empty"
	case len(key) > maxKey:
		why = fmt.Sprintf("it is longer than %d bytes", maxKey)
	case strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }):
		why = "it has characters that are not printable ASCII"
	default:
		return nil
	}
	return fail(http.StatusBadRequest, codeIdempotencyKey, idempotencyKey, "%s: %s", idempotencyKey, why)
}

func checkParameter(p *openapi3.Parameter, c echo.Context, query url.Values) error {
	var values []string
	switch p.In {
	case openapi3.ParameterInPath:
		text := c.Param(p.Name)
		if c.Request().URL.RawPath != "" { // only then does echo leave the escapes in
			plain, err := url.PathUnescape(text)
			if err != nil {
				return fail(http.StatusBadRequest, codeInvalid, p.Name, "%s: its escapes are broken", p.Name)
			}
			text = plain
		}
		values = []string{text}
	case openapi3.ParameterInQuery:
		values = query[p.Name]
	case openapi3.ParameterInHeader:
		values = c.Request().Header.Values(p.Name)
	}
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 {
		return fail(http.StatusBadRequest, codeInvalid, p.Name, "%s is given more than once", p.Name)
	}
	v, err := scalar(p.Schema.Value, values[0])
	if err != nil {
		return fail(http.StatusBadRequest, codeInvalid, p.Name, "%s: %v", p.Name, err)
	}
	return schemaProblem(p.Schema.Value.VisitJSON(v), p.Name)
}

// scalar reads a parameter's text as the schema's type.
func scalar(s *openapi3.Schema, text string) (any, error) {
	switch {
	case s.Type.Is(openapi3.TypeInteger):
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number", text)
		}
		return float64(n), nil
	case s.Type.Is(openapi3.TypeBoolean):
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return text == "true", nil
	}
	return text, nil
}

func (o *operation) checkBody(r *http.Request) error {
	// One byte more than allowed tells too large from just fitting.
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return fail(http.StatusBadRequest, codeMalformed, "", "the body broke off: %v", err)
	case len(raw) > maxBody:
		// What is left is not read: net/http closes the connection.
		return fail(http.StatusRequestEntityTooLarge, codeTooLarge, "", "a body has at most 1 MiB")
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	switch {
	case len(raw) == 0 && !o.bodyNeeded:
		return nil
	case o.body == nil:
		return fail(http.StatusBadRequest, codeInvalid, "", "this request takes no body")
	case len(raw) == 0:
		return fail(http.StatusBadRequest, codeMalformed, "", "the body is missing")
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return fail(http.StatusUnsupportedMediaType, codeMediaType, "", `send "Content-Type: application/json"`)
	}
	v, err := parseJSON(raw)
	if err != nil {
		return err
	}
	return schemaProblem(o.body.VisitJSON(v, openapi3.VisitAsRequest()), "")
}

func parseJSON(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if field, err := walk(d); err != nil {
		return nil, fail(http.StatusBadRequest, codeMalformed, field, "the body cannot be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fail(http.StatusBadRequest, codeMalformed, "", "there is something after the body's JSON")
	}
	var v any
	d = json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, fail(http.StatusBadRequest, codeMalformed, "", "the body cannot be read: %v", err)
	}
	return v, nil
}

const maxNumber = 100 // characters

// storable refuses what JSON allows and the store's jsonb does not.
func storable(t json.Token) error {
	switch v := t.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return errors.New("there is a NUL character in it")
		}
	case json.Number:
		f, err := v.Float64()
		mantissa, _, _ := strings.Cut(strings.ToLower(v.String()), "e")
		if err != nil || len(v) > maxNumber || f == 0 && strings.ContainsAny(mantissa, "123456789") {
			return fmt.Errorf("the number %.20s is out of range", v.String())
		}
	}
	return nil
}

const maxDepth = 64 // of nested values; ours have five

// walk goes over one value and refuses a field that is there twice: which of
// the two is meant would be a guess, and two readers might guess differently.
func walk(d *json.Decoder) (field string, err error) {
	type object struct {
		seen map[string]bool // nil: an array
		key  bool            // a key is next
		name string          // of the field that is being read
	}
	var stack []object
	path := func() string {
		var names []string
		for _, o := range stack {
			if o.name != "" {
				names = append(names, o.name)
			}
		}
		return strings.Join(names, ".")
	}
	for {
		t, err := d.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if err := storable(t); err != nil {
			return path(), err
		}
		top := len(stack) - 1
		if name, ok := t.(string); ok && top >= 0 && stack[top].key {
			if stack[top].seen[name] {
				return name, fmt.Errorf("the field %q is there twice", name)
			}
			stack[top].seen[name], stack[top].key, stack[top].name = true, false, name
			continue
		}
		switch t {
		case json.Delim('{'):
			stack = append(stack, object{seen: map[string]bool{}, key: true})
		case json.Delim('['):
			stack = append(stack, object{})
		default:
			if t == json.Delim('}') || t == json.Delim(']') {
				stack = stack[:top]
			}
			if len(stack) == 0 {
				return "", nil
			}
			top := len(stack) - 1
			stack[top].key = stack[top].seen != nil
			continue
		}
		if len(stack) > maxDepth {
			return "", fmt.Errorf("it is nested more than %d deep", maxDepth)
		}
	}
}

// schemaProblem tells a client which field is to blame, dotted, and why.
func schemaProblem(err error, at string) error {
	if err == nil {
		return nil
	}
	var e *openapi3.SchemaError
	if !errors.As(err, &e) {
		return fail(http.StatusBadRequest, codeInvalid, at, "%v", err)
	}
	e = deepest(e)
	path := slices.DeleteFunc(append([]string{at}, e.JSONPointer()...), func(s string) bool { return s == "" })
	field, reason := strings.Join(path, "."), e.Reason
	switch e.SchemaField {
	case "properties", "additionalProperties":
		if name, ok := quoted(e.Reason, "property ", " is unsupported"); ok {
			field = strings.Join(append(path, name), ".")
			return fail(http.StatusBadRequest, codeUnknownField, field, "%s: there is no such field", field)
		}
	case "required":
		reason = "it is missing"
	case "pattern":
		reason = pattern(e.Schema)
	case "enum":
		reason = fmt.Sprintf("it is one of %v", e.Schema.Enum)
	case "type":
		reason = fmt.Sprintf("it must be of type %s", strings.Join(e.Schema.Type.Slice(), " or "))
	}
	return fail(http.StatusBadRequest, codeInvalid, field, "%s", strings.TrimPrefix(field+": "+reason, ": "))
}

// deepest finds what is wrong inside where a schema only says that nothing fits.
func deepest(e *openapi3.SchemaError) *openapi3.SchemaError {
	for {
		var inner *openapi3.SchemaError
		if e.Origin == nil || !errors.As(e.Origin, &inner) || inner == e {
			return e
		}
		e = inner
	}
}

func quoted(s, before, after string) (string, bool) {
	s, ok := strings.CutPrefix(s, before)
	s, found := strings.CutSuffix(s, after)
	if !ok || !found {
		return "", false
	}
	name, err := strconv.Unquote(s)
	return name, err == nil
}

// pattern says in words what a regular expression wants, for those of the document that people meet.
func pattern(s *openapi3.Schema) string {
	switch {
	case strings.Contains(s.Pattern, "ns|us"):
		return `it is a length of time such as "30s" or "1h30m"`
	case strings.HasPrefix(s.Pattern, `^[^\x00-\x1f`):
		return "it must not contain control characters"
	}
	return "it must match " + s.Pattern
}
