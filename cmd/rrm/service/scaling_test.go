package service_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/domain"
)

// Another service is asked for the size, its answer is acted upon, a shadow is
// recorded beside it, and what another limit would do is told without doing it.
func TestAPoolIsScaledByAnotherServiceUnderAShadow(t *testing.T) {
	var size atomic.Int64
	size.Store(2)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q doc
		if json.NewDecoder(r.Body).Decode(&q) != nil || q["renderer"] != "neurons" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(doc{"size": size.Load(), "reason": "a class"})
	}))
	defer other.Close()
	host := strings.TrimPrefix(other.URL, "http://")
	n := start(t, func(c *service.Config) { c.CallbackHosts = []string{host} })
	n.renderer("neurons", doc{"scaling": doc{"max": 4, "idle": "0s", "policy": "webhook",
		"parameters": doc{"url": other.URL + "/size", "interval": "1s"}, "shadow": doc{"policy": "demand"}}})
	ready := func(want int) {
		t.Helper()
		eventually(t, 20*time.Second, "the pool has the size that was asked for", func() bool {
			live, err := n.Work.LiveResources(t.Context())
			return err == nil && len(live) == want
		})
	}
	ready(2)
	p := n.must(200, "GET", base+"/pools/neurons", nil)
	if a := p["advice"].([]any)[0].(doc); a["host"] != host || a["size"] != 2.0 || a["reason"] != "a class" {
		t.Errorf("advised %v", a)
	}
	if s := p["shadow"].(doc); s["policy"] != "demand" {
		t.Errorf("shadow %v", s)
	}
	plan := n.must(200, "POST", base+"/pools/neurons/scaling/plan", doc{"max": 1})
	if len(plan["stop"].([]any)) > 1 || plan["size"].(float64) > 2 || plan["reason"] == "" {
		t.Errorf("under a lower limit: %v", plan)
	}
	size.Store(0)
	ready(0)
	n.verify()
	for field, url := range map[string]string{"scaling.parameters.url": "http://127.0.0.1:1/", "scaling.shadow.parameters.url": "http://169.254.169.254/latest"} {
		set := domain.ScalingPolicy{Policy: "webhook", Parameters: domain.Parameters{"url": url}}
		body := doc{"command_line": "x", "scaling": doc{"policy": set.Policy, "parameters": set.Parameters}}
		if strings.Contains(field, "shadow") {
			body["scaling"] = doc{"shadow": set}
		}
		if status, _, d := n.call("PUT", base+"/renderers/other", body); status != 422 || d["field"] != field || d["code"] != "callback_not_allowed" {
			t.Errorf("%s: %d %v", url, status, d)
		}
	}
}
