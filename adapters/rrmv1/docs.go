package rrmv1

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
)

//go:embed openapi.json
var openapi []byte

//go:embed docs.html
var docsTemplate string

// document is what /api-docs shows, as JSON and as a page.
type document struct {
	json json.RawMessage
	page []byte
}

// Document is the OpenAPI document, in JSON.
func Document() []byte { return openapi }

// documented is the part of the document that the page shows.
type documented struct {
	Info struct {
		Title       string `json:"title"`
		Description string `json:"description"`
	} `json:"info"`
	Paths map[string]map[string]json.RawMessage `json:"paths"`
}

type operation struct {
	Method, Path string
	Summary      string `json:"summary"`
	Description  string `json:"description"`
	Responses    map[string]struct {
		Description string `json:"description"`
	} `json:"responses"`
}

func loadDocument() (*document, error) {
	var doc documented
	if err := json.Unmarshal(openapi, &doc); err != nil {
		return nil, fmt.Errorf("read the API's document: %w", err)
	}
	var operations []operation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			if method == "parameters" {
				continue
			}
			op := operation{Method: strings.ToUpper(method), Path: BasePath + path}
			if err := json.Unmarshal(doc.Paths[path][method], &op); err != nil {
				return nil, fmt.Errorf("read %s %s of the API's document: %w", method, path, err)
			}
			operations = append(operations, op)
		}
	}
	t, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return nil, fmt.Errorf("read the template of the documentation page: %w", err)
	}
	var page bytes.Buffer
	if err := t.Execute(&page, map[string]any{"Info": doc.Info, "Operations": operations}); err != nil {
		return nil, fmt.Errorf("make the documentation page: %w", err)
	}
	return &document{json: openapi, page: page.Bytes()}, nil
}

// apiDocs answers GET /api-docs: a page for browsers, which ask for one, else JSON.
func (s *Server) apiDocs(c *call) error {
	if !strings.Contains(c.r.Header.Get("Accept"), "text/html") {
		return answer(c.w, http.StatusOK, s.document.json)
	}
	h := c.w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept")
	_, _ = c.w.Write(s.document.page) // who has gone needs no page
	return nil
}
