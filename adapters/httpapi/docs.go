package httpapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
)

//go:embed docs.html
var docsTemplate string

// docsPage answers GET /docs. The page needs nothing from elsewhere, and its
// policy allows nothing else.
func (s *Server) docsPage(c echo.Context) error {
	h := c.Response().Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-cache")
	return c.HTMLBlob(http.StatusOK, s.docs)
}

// What the template is given.
type (
	docsData struct {
		Title, Version, Base string
		Intro                template.HTML
		Tags                 []docsTag
		Schemas              []docsSchema
		Codes                []docsCode
	}
	docsTag struct {
		Name       string
		Text       template.HTML
		Operations []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary string
		Text                      template.HTML
		Params                    []docsField
		Body                      string // name of the schema
		Example                   string
		Responses                 []docsResponse
	}
	docsResponse struct {
		Status  string
		Text    template.HTML
		Schema  string
		Example string
	}
	docsSchema struct {
		Name   string
		Text   template.HTML
		Type   template.HTML
		Fields []docsField
	}
	docsField struct {
		Name, In string
		Needed   bool
		Type     template.HTML
		Text     template.HTML
	}
	docsCode struct{ Code, Title string }
)

func renderDocs(doc *openapi3.T) ([]byte, error) {
	t, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("read the template of the documentation page: %w", err)
	}
	data := docsData{Title: doc.Info.Title, Version: doc.Info.Version, Base: BasePath, Intro: prose(doc.Info.Description)}
	for _, tag := range doc.Tags {
		data.Tags = append(data.Tags, docsTag{Name: tag.Name, Text: prose(tag.Description), Operations: docsOperations(doc, tag.Name)})
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas)) {
		s := doc.Components.Schemas[name].Value
		data.Schemas = append(data.Schemas, docsSchema{Name: name, Text: prose(s.Description), Type: docsType(&openapi3.SchemaRef{Value: s}), Fields: docsFields(s)})
	}
	for _, code := range slices.Sorted(maps.Keys(titles)) {
		data.Codes = append(data.Codes, docsCode{code, titles[code]})
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("write the documentation page: %w", err)
	}
	return out.Bytes(), nil
}

var methodOrder = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete}

func docsOperations(doc *openapi3.T, tag string) []docsOperation {
	var out []docsOperation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		item := doc.Paths.Value(path)
		for _, method := range methodOrder {
			op := item.GetOperation(method)
			if op == nil || !slices.Contains(op.Tags, tag) {
				continue
			}
			shown := BasePath + path
			if len(item.Servers) > 0 {
				shown = path
			}
			o := docsOperationOf(op, method, shown, slices.Concat(item.Parameters, op.Parameters))
			if tag == tagRendering {
				o.Method = "ANY" // they are all the same
				out = append(out, o)
				break
			}
			out = append(out, o)
		}
	}
	return out
}

func docsOperationOf(op *openapi3.Operation, method, path string, params openapi3.Parameters) docsOperation {
	o := docsOperation{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, Text: prose(op.Description)}
	for _, p := range params {
		o.Params = append(o.Params, docsField{
			Name: p.Value.Name, In: p.Value.In, Needed: p.Value.Required, Type: docsType(p.Value.Schema), Text: prose(p.Value.Description),
		})
	}
	if op.RequestBody != nil {
		media := op.RequestBody.Value.Content.Get("application/json")
		o.Body, o.Example = refName(media.Schema), pretty(media.Example)
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses.Map())) {
		r := op.Responses.Value(status).Value
		d := docsResponse{Status: status}
		if r.Description != nil {
			d.Text = prose(*r.Description)
		}
		for _, kind := range slices.Sorted(maps.Keys(r.Content)) {
			media := r.Content[kind]
			if d.Schema = refName(media.Schema); d.Schema == "" {
				d.Text += prose("`" + kind + "`")
			}
			d.Example = pretty(media.Example)
		}
		o.Responses = append(o.Responses, d)
	}
	return o
}

func docsFields(s *openapi3.Schema) []docsField {
	var out []docsField
	names := slices.SortedFunc(maps.Keys(s.Properties), func(a, b string) int {
		// What is needed first.
		if x, y := slices.Contains(s.Required, a), slices.Contains(s.Required, b); x != y {
			if x {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		p := s.Properties[name]
		text := p.Value.Description
		if p.Ref != "" {
			text = "" // the type's own page says it
		}
		out = append(out, docsField{Name: name, Needed: slices.Contains(s.Required, name), Type: docsType(p), Text: prose(text)})
	}
	return out
}

func refName(ref *openapi3.SchemaRef) string {
	if ref == nil {
		return ""
	}
	name, _ := strings.CutPrefix(ref.Ref, "#/components/schemas/")
	return name
}

// docsType says what a value may be: its type, bounds, choices, default.
func docsType(ref *openapi3.SchemaRef) template.HTML {
	if name := refName(ref); name != "" {
		return template.HTML(`<a href="#schema-` + html.EscapeString(name) + `">` + html.EscapeString(name) + `</a>`)
	}
	s := ref.Value
	if len(s.AllOf) == 1 {
		return docsType(s.AllOf[0])
	}
	var parts []string
	for _, one := range s.OneOf {
		parts = append(parts, string(docsType(one)))
	}
	if len(parts) > 0 {
		return template.HTML(strings.Join(parts, " or "))
	}
	kind := "any"
	if s.Type != nil {
		kind = strings.Join(s.Type.Slice(), " or ")
	}
	if s.Format != "" && s.Format != "double" && s.Format != "int64" {
		kind += " (" + s.Format + ")"
	}
	switch {
	case s.Type.Is(openapi3.TypeArray) && s.Items != nil:
		return "array of " + docsType(s.Items)
	case s.AdditionalProperties.Schema != nil:
		return "object of " + docsType(s.AdditionalProperties.Schema)
	}
	return template.HTML(html.EscapeString(strings.Join(append([]string{kind}, docsBounds(s)...), ", ")))
}

func docsBounds(s *openapi3.Schema) []string {
	var out []string
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	switch {
	case s.Min != nil && s.Max != nil:
		out = append(out, number(*s.Min)+" to "+number(*s.Max))
	case s.Min != nil:
		out = append(out, "at least "+number(*s.Min))
	}
	if s.MaxLength != nil {
		out = append(out, fmt.Sprintf("%d to %d characters", s.MinLength, *s.MaxLength))
	}
	if len(s.Enum) > 0 {
		var all []string
		for _, v := range s.Enum {
			all = append(all, fmt.Sprint(v))
		}
		out = append(out, "one of "+strings.Join(all, ", "))
	}
	if s.Default != nil {
		out = append(out, fmt.Sprintf("default %v", s.Default))
	}
	return out
}

func pretty(example any) string {
	switch v := example.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	b, err := json.MarshalIndent(example, "", "  ")
	if err != nil {
		return ""
	}
	return string(b)
}

var marks = []struct {
	find *regexp.Regexp
	as   string
}{
	{regexp.MustCompile("`([^`]+)`"), "<code>$1</code>"},
	{regexp.MustCompile(`\*\*([^*]+)\*\*`), "<b>$1</b>"},
	{regexp.MustCompile(`\*([^*]+)\*`), "<i>$1</i>"},
}

// prose writes the little markup that the document uses: paragraphs, code, bold, italics.
func prose(text string) template.HTML {
	var out strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if paragraph == "" {
			continue
		}
		p := html.EscapeString(paragraph)
		for _, m := range marks {
			p = m.find.ReplaceAllString(p, m.as)
		}
		out.WriteString("<p>" + p + "</p>")
	}
	return template.HTML(out.String())
}
