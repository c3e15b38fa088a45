package httpapi

import (
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The document is valid, its examples too, and says enough of everything.
func TestDocument(t *testing.T) {
	doc, err := loadDocument()
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.Summary == "" {
				t.Errorf("%s %s has no summary", method, path)
			}
			if op.RequestBody == nil {
				continue
			}
			body := op.RequestBody.Value.Content.Get("application/json").Schema.Value
			if body.AdditionalProperties.Has == nil || *body.AdditionalProperties.Has {
				t.Errorf("the body of %s takes unknown fields", op.OperationID)
			}
			for name, p := range body.Properties {
				if p.Value.Description == "" && len(p.Value.Enum) == 0 {
					t.Errorf("%s.%s is not explained", op.OperationID, name)
				}
			}
		}
	}
	for name, ref := range doc.Components.Responses {
		for _, media := range ref.Value.Content {
			if strings.Contains(string(mustJSON(media.Example)), "code") && media.Schema.Ref == "#/components/schemas/Problem" {
				p := media.Example.(map[string]any)
				if code := p["code"].(string); titles[code] != p["title"] && code != "conflict" || p["type"] != "/docs#"+code {
					t.Errorf("the example of %s is not what the service says: %v", name, p)
				}
			}
		}
	}
}

// The page needs nothing from elsewhere, and its links lead somewhere.
func TestDocsPage(t *testing.T) {
	s := newSite(t)
	r := s.ask("", "GET //docs", "")
	page := string(r.body)
	if out := os.Getenv("RRM_DOCS_OUT"); out != "" {
		_ = os.WriteFile(out, r.body, 0o600)
	}
	if strings.Contains(page, "http://") && regexp.MustCompile(`(src|href)="https?:`).MatchString(page) || strings.Contains(page, "<script") || strings.Contains(page, "ZgotmplZ") {
		t.Error("the page reaches elsewhere")
	}
	if !strings.HasPrefix(r.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Error("the page has no policy")
	}
	for _, m := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(page, `id="`+m[1]+`"`) {
			t.Errorf("#%s leads nowhere", m[1])
		}
	}
	for _, want := range []string{"POST", "/rendering-resource-manager/v2/sessions", "no_capacity", "scaling", "64 KiB", `id="no_capacity"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if r = s.ask("", "GET //openapi.yaml", ""); !slices.Equal(r.body, Document()) {
		t.Error("the document is another")
	}
	if r = s.ask("", "GET //", ""); r.StatusCode != http.StatusFound {
		t.Errorf("/: %d", r.StatusCode)
	}
}

func TestReadyAndMetrics(t *testing.T) {
	ready := errors.New("no")
	extra := prometheus.NewGauge(prometheus.GaugeOpts{Name: "rrm_lane_waiting", Help: "x"})
	s := newSite(t, func(c *Config) {
		c.Ready = func(context.Context) error { return ready }
		c.Collectors = []prometheus.Collector{extra}
	})
	if p := s.ask("", "GET //readyz", "").problem(t); p.Status != 503 || p.Code != "store_unavailable" {
		t.Errorf("%+v", p)
	}
	ready = domain.Unavailable("migrations_pending", 1, "migrations are due")
	if p := s.ask("", "GET //readyz", "").problem(t); p.Status != 503 || p.Code != "migrations_pending" {
		t.Errorf("%+v", p)
	}
	ready = nil
	if r := s.ask("", "GET //readyz", ""); r.StatusCode != 200 {
		t.Errorf("%d", r.StatusCode)
	}
	s.ask("root", "GET /sessions/nothing-at-all", "")
	s.ask("root", "GET //some/path/nobody/knows", "")
	m := string(s.ask("", "GET //metrics", "").body)
	for _, want := range []string{
		`rrm_http_requests_total{method="GET",route="/rendering-resource-manager/v2/sessions/:id",status="404"} 1`,
		`rrm_http_request_seconds_count{`, "rrm_http_event_streams 0", "rrm_lane_waiting 0", "go_goroutines",
	} {
		if !strings.Contains(m, want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}
	if strings.Contains(m, "nobody") || strings.Contains(m, "nothing-at-all") {
		t.Error("a client's path became a label")
	}
}
