package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

const goodSession = `{"renderer":"demo","model":"m"}`

var badRequests = []struct {
	what, body  string
	headers     []string
	status      int
	code, field string
}{
	{"POST /sessions", `{"renderer":"demo","modle":"m"}`, nil, 400, "unknown_field", "modle"},
	{"POST /sessions", `{"renderer":"demo"}`, nil, 400, "invalid", "model"},
	{"POST /sessions", `{"renderer":"demo","model":7}`, nil, 400, "invalid", "model"},
	{"POST /sessions", `{"renderer":"demo","model":null}`, nil, 400, "invalid", "model"},
	{"POST /sessions", `{"renderer":"demo","model":"a\nb"}`, nil, 400, "invalid", "model"},
	{"POST /sessions", `{"renderer":"demo","model":"a\u0000b"}`, nil, 400, "malformed_json", "model"},
	{"POST /sessions", `{"renderer":"demo","model":"` + strings.Repeat("x", 1025) + `"}`, nil, 400, "invalid", "model"},
	{"POST /sessions", `{"renderer":"de mo","model":"m"}`, nil, 400, "invalid", "renderer"},
	{"POST /sessions", `{"renderer":"demo","model":"m","wait":30}`, nil, 400, "invalid", "wait"},
	{"POST /sessions", `{"renderer":"demo","model":"m","wait":"soon"}`, nil, 400, "invalid", "wait"},
	{"POST /sessions", `{"renderer":"demo","model":"m","wait":"-3s"}`, nil, 400, "invalid", "wait"},
	{"POST /sessions", `{"renderer":"demo","model":"m","wait":"99999999999999h"}`, nil, 400, "invalid", "wait"},
	{"POST /sessions", `{"renderer":"demo","model":"m","on_lost":"cry"}`, nil, 400, "invalid", "on_lost"},
	{"POST /sessions", `{"renderer":"demo","model":"m","params":[1]}`, nil, 400, "invalid", "params"},
	{"POST /sessions", `{"renderer":"demo","model":"m","params":{"a":1e999}}`, nil, 400, "malformed_json", "params.a"},
	{"POST /sessions", `{"renderer":"demo","model":"m","model":"n"}`, nil, 400, "malformed_json", "model"},
	{"POST /sessions", `{"renderer":"demo","Model":"m","model":"n"}`, nil, 400, "unknown_field", "Model"},
	{"POST /sessions", `[]`, nil, 400, "invalid", ""},
	{"POST /sessions", `{"renderer":`, nil, 400, "malformed_json", ""},
	{"POST /sessions", goodSession + `x`, nil, 400, "malformed_json", ""},
	{"POST /sessions", goodSession + `{}`, nil, 400, "malformed_json", ""},
	{"POST /sessions", ``, nil, 400, "malformed_json", ""},
	{"POST /sessions", strings.Repeat("[", 100000), nil, 400, "malformed_json", ""},
	{"POST /sessions?wait=3s", goodSession, nil, 400, "unknown_parameter", "wait"},
	{"POST /sessions", goodSession, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type", ""},
	{"POST /sessions", goodSession, []string{"Content-Type", "application/json; charset=latin1"}, 415, "unsupported_media_type", ""},
	{"POST /sessions", `{"renderer":"demo","model":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "body_too_large", ""},
	{"POST /sessions", goodSession, []string{"Idempotency-Key", ""}, 400, "invalid_idempotency_key", "Idempotency-Key"},
	{"POST /sessions", goodSession, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "invalid_idempotency_key", "Idempotency-Key"},
	{"POST /sessions", goodSession, []string{"Idempotency-Key", "a\tb"}, 400, "invalid_idempotency_key", "Idempotency-Key"},
	{"POST /sessions", goodSession, []string{"Idempotency-Key", "schlüssel"}, 400, "invalid_idempotency_key", "Idempotency-Key"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"movie"}`, nil, 400, "invalid", "kind"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"image","priority":1.5}`, nil, 400, "invalid", "priority"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"image","priority":2000}`, nil, 400, "invalid", "priority"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"image","deadline":"noon"}`, nil, 400, "invalid", "deadline"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"image","after":["a","b c"]}`, nil, 400, "invalid", "after.1"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"image","max_attempts":-1}`, nil, 400, "invalid", "max_attempts"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"image","callback_url":"file:///etc/passwd"}`, nil, 400, "invalid", "callback_url"},
	{"POST /jobs", `{"renderer":"demo","model":"m","kind":"image","timeout":"0s"}`, nil, 422, "invalid", "timeout"},
	{"PUT /renderers/x", `{"command_line":"r","slots":-1}`, nil, 400, "invalid", "slots"},
	{"PUT /renderers/x", `{"command_line":"r","scaling":{"min":-1}}`, nil, 400, "invalid", "scaling.min"},
	{"PUT /renderers/x", `{"command_line":"r","scaling":{"mim":1}}`, nil, 400, "unknown_field", "scaling.mim"},
	{"PUT /renderers/x", `{"command_line":"r","scaling":{"min":5,"max":2}}`, nil, 422, "invalid", "scaling.min"},
	{"PUT /renderers/x", `{"command_line":"r","quotas":{"sessions":-1}}`, nil, 400, "invalid", "quotas.sessions"},
	{"PUT /renderers/x", `{"command_line":"r","quotas":{"owners":{"":{"sessions":1}}}}`, nil, 422, "invalid", "quotas.owners"},
	{"PUT /renderers/x", `{"command_line":"r","scaling":{"policy":"best"}}`, nil, 422, "invalid", "scaling.policy"},
	{"PUT /renderers/x", `{"command_line":"r","scaling":{"policy":"buffer","parameters":{"sizes":1}}}`, nil, 422, "invalid", "scaling.parameters.sizes"},
	{"PUT /renderers/x", `{"command_line":"r","scaling":{"shadow":{"policy":"buffer","parameters":{"size":"0%"}}}}`, nil, 422, "invalid", "scaling.shadow.parameters.size"},
	{"PUT /renderers/x", `{"command_line":"r","id":"y"}`, nil, 422, "invalid", "id"},
	{"PUT /renderers/x", `{"command_line":"r","environment_variables":7}`, nil, 400, "invalid", "environment_variables"},
	{"PUT /renderers/x", `{"command_line":"r","environment_variables":{"A":1}}`, nil, 400, "invalid", "environment_variables.A"},
	{"PUT /renderers/x", `{"command_line":"r","environment_variables":"A"}`, nil, 422, "invalid", "environment_variables"},
	{"PUT /renderers/x", `{"command_line":"r","probe":{"interval":"0s"}}`, nil, 422, "invalid", "probe.interval"},
	{"PUT /renderers/x", `{}`, nil, 422, "invalid", "command_line"},
	{"PUT /renderers/.x", `{"command_line":"r"}`, nil, 400, "invalid", "id"},
	{"GET /sessions?state=asleep", "", nil, 400, "invalid", "state"},
	{"GET /sessions?state=queued&state=ready", "", nil, 400, "invalid", "state"},
	{"GET /sessions?limit=0", "", nil, 400, "invalid", "limit"},
	{"GET /sessions?limit=501", "", nil, 400, "invalid", "limit"},
	{"GET /sessions?limit=ten", "", nil, 400, "invalid", "limit"},
	{"GET /sessions?cursor=broken", "", nil, 400, "invalid", "cursor"},
	{"GET /sessions?color=red", "", nil, 400, "unknown_parameter", "color"},
	{"GET /sessions?model=a%00b", "", nil, 400, "invalid", "model"},
	{"GET /sessions?%zz", "", nil, 400, "invalid", ""},
	{"GET /sessions/a%20b", "", nil, 400, "invalid", "id"},
	{"GET /sessions/a%2Fb", "", nil, 400, "invalid", "id"},
	{"GET /jobs?state=ready", "", nil, 400, "invalid", "state"},
	{"GET /resources?state=gone", "", nil, 400, "invalid", "state"},
	{"GET /resources?ended=maybe", "", nil, 400, "invalid", "ended"},
	{"GET /resources/r-1/logs?stream=stdin", "", nil, 400, "invalid", "stream"},
	{"GET /resources/r-1/logs?tail=-1", "", nil, 400, "invalid", "tail"},
	{"POST /resources", `{"renderer":"gpu"}`, nil, 400, "invalid", "address"},
	{"POST /resources", `{"renderer":"gpu","address":"10.7.0.8:5000","token":"x"}`, nil, 400, "unknown_field", "token"},
	{"POST /resources", `{"renderer":"gpu","address":"10.7.0.8:5000","slots":0}`, nil, 400, "invalid", "slots"},
	{"POST /resources", `{"renderer":"gpu","address":"10.7.0.8:5000","slots":1025}`, nil, 400, "invalid", "slots"},
	{"POST /resources", `{"renderer":"gpu","address":"10.7.0.8:5000","labels":{"a":1}}`, nil, 400, "invalid", "labels.a"},
	{"POST /resources", `{"renderer":"gpu","address":"10.7.0.8:5000","labels":{"a":"b\nc"}}`, nil, 400, "invalid", "labels.a"},
	{"POST /resources", `{"renderer":"gpu","address":"10.7.0.8:5000","node":"a\u0001"}`, nil, 400, "invalid", "node"},
	{"POST /resources", `{"renderer":"gpu","address":"` + strings.Repeat("x", 263) + `"}`, nil, 400, "invalid", "address"},
	{"POST /resources", goodResource, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type", ""},
	{"POST /resources", `{"renderer":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "body_too_large", ""},
	{"POST /resources", goodResource, []string{"Idempotency-Key", ""}, 400, "invalid_idempotency_key", "Idempotency-Key"},
	{"POST /resources/m-1/heartbeat", `{"draining":"yes"}`, nil, 400, "invalid", "draining"},
	{"POST /resources/m-1/heartbeat", `{"state":"ready"}`, nil, 400, "unknown_field", "state"},
	{"POST /resources/m-1/heartbeat", `{}`, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type", ""},
	{"POST /resources/m-1/heartbeat", `{"draining":` + strings.Repeat(" ", 1<<20) + `true}`, nil, 413, "body_too_large", ""},
	{"GET /models?limit=x", "", nil, 400, "invalid", "limit"},
	{"GET /events?after=-1", "", nil, 400, "invalid", "after"},
	{"GET /events?subject=alice", "", nil, 400, "invalid", "subject"},
	{"GET /events?type=session", "", nil, 400, "invalid", "type"},
	{"GET /events/stream?after=x", "", nil, 400, "invalid", "after"},
	{"GET /events/stream", "", []string{"Last-Event-ID", "x"}, 400, "invalid", "Last-Event-ID"},
	{"GET /events/stream?after=9999", "", nil, 400, "invalid", "after"},
	{"GET /decisions/x", "", nil, 400, "invalid", "position"},
	{"PUT /admission", `{"reason":"x"}`, nil, 400, "invalid", "open"},
	{"GET /admission", `{"open":true}`, nil, 400, "invalid", ""},
}

// Whatever is wrong with a request is named, with its field, before anything is done.
func TestBadRequests(t *testing.T) {
	s := newSite(t)
	for _, c := range badRequests {
		r := s.ask("root", c.what, c.body, c.headers...)
		p := r.problem(t)
		if r.StatusCode != c.status || p.Code != c.code || p.Field != c.field || p.Status != c.status || p.Detail == "" || p.RequestID == "" || p.Type != "/docs#"+c.code {
			t.Errorf("%s %.80s %q: %d %+v, want %d %s %q", c.what, c.body, c.headers, r.StatusCode, p, c.status, c.code, c.field)
		}
	}
	if len(s.booked)+len(s.submitted) > 0 || s.pools["x"] != nil {
		t.Error("a refused request did something")
	}
}

func TestNowhere(t *testing.T) {
	s := newSite(t)
	for what, want := range map[string]struct {
		status int
		code   string
	}{
		"GET //nowhere":              {404, "not_found"},
		"GET /sessions/s-1/x":        {404, "not_found"},
		"GET /":                      {404, "not_found"},
		"PATCH /sessions":            {405, "method_not_allowed"},
		"DELETE /sessions":           {405, "method_not_allowed"},
		"POST //healthz":             {405, "method_not_allowed"},
		"GET /sessions/s-1":          {404, "session_not_found"},
		"GET /jobs/j-1":              {404, "job_not_found"},
		"GET /resources/x":           {404, "resource_not_found"},
		"GET /renderers/x":           {404, "renderer_not_found"},
		"GET /pools/x":               {404, "renderer_not_found"},
		"POST /pools/x/scaling/plan": {404, "renderer_not_found"},
		"GET /decisions/99":          {404, "decision_not_found"},
		"GET /models?renderer=x":     {404, "renderer_not_found"},
	} {
		r := s.ask("root", what, map[bool]string{true: "{}"}[strings.HasPrefix(what, "POST /pools")])
		if p := r.problem(t); r.StatusCode != want.status || p.Code != want.code {
			t.Errorf("%s: %d %+v", what, r.StatusCode, p)
		}
		if r.StatusCode == http.StatusMethodNotAllowed && !strings.Contains(r.Header.Get("Allow"), "GET") {
			t.Errorf("%s: Allow is %q", what, r.Header.Get("Allow"))
		}
	}
}

// Every kind of refusal has its status, and carries what helps.
func TestRefusals(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct {
		refusal *domain.Refusal
		status  int
	}{
		{domain.Invalid("lease", "too long"), 422},
		{domain.NotFound("renderer", "demo"), 404},
		{domain.Conflict("idempotency_key_reused", "another request"), 409},
		{domain.Forbidden("admission_suspended", "maintenance"), 403},
		{domain.Unavailable("busy", 1500*time.Millisecond, "busy"), 503},
		{&domain.Refusal{Kind: domain.KindTooMany, Code: "quota_exceeded", Reason: "8 of 8"}, 429},
	} {
		s.change(func() { s.refuse = c.refusal })
		for what, body := range map[string]string{
			"POST /sessions": goodSession, "POST /jobs": `{"renderer":"demo","model":"m","kind":"image"}`, "PUT /renderers/demo": `{"command_line":"x"}`,
		} {
			if strings.HasPrefix(what, "PUT") && (c.status == 404 || c.status == 429) {
				continue // no such refusals there
			}
			r := s.ask("root", what, body)
			p := r.problem(t)
			if r.StatusCode != c.status || p.Code != c.refusal.Code || p.Detail != c.refusal.Reason {
				t.Errorf("%s, %v: %d %+v", what, c.refusal, r.StatusCode, p)
			}
			if want := map[int]string{503: "2", 429: "2"}[c.status]; r.Header.Get("Retry-After") != want {
				t.Errorf("%s, %v: Retry-After %q", what, c.refusal, r.Header.Get("Retry-After"))
			}
		}
	}
	s.change(func() {
		s.refuse = nil
		s.reject["m"] = &domain.Refusal{Kind: domain.KindUnavailable, Code: "no_capacity", Reason: "full", RetryAfter: 12 * time.Second, Position: 4711, Queue: 3}
	})
	r := s.ask("alice", "POST /sessions", goodSession)
	p := r.problem(t)
	if r.Header.Get("Retry-After") != "12" || p.RetryAfterSeconds != 12 || p.Queue.Waiting != 3 || p.Decision.Position != 4711 || p.Decision.URL != BasePath+"/decisions/4711" {
		t.Errorf("no capacity: %q %+v", r.Header.Get("Retry-After"), p)
	}
}

// every is one request of each operation that a healthy service answers.
func every(s *site) map[string]string {
	s.change(func() {
		s.sessions["s-own"] = sessionOf("s-own", "alice", pool.SessionStateReady)
		s.jobs["j-own"] = jobOf("j-own", "alice", pool.JobStateQueued)
		s.pools["spare"] = &pool.Pool{Settings: s.pools["demo"].Settings}
	})
	s.decide(7, "alice")
	return map[string]string{
		"GET /sessions": "", "POST /sessions": goodSession, "GET /sessions/s-own": "", "DELETE /sessions/s-own": "", "PUT /sessions/s-own/lease": "{}",
		"GET /jobs": "", "POST /jobs": `{"renderer":"demo","model":"m","kind":"image"}`, "GET /jobs/j-own": "", "DELETE /jobs/j-own": "", "GET /jobs/j-own/result": "",
		"GET /renderers": "", "GET /renderers/demo": "", "PUT /renderers/new": `{"command_line":"x"}`, "DELETE /renderers/spare": "", "GET /pools/demo": "",
		"POST /pools/demo/scaling/plan": `{"max":9}`,
		"GET /resources":                "", "GET /resources/r-1": "", "POST /resources/r-1/drain": "", "DELETE /resources/r-1": "", "GET /resources/r-1/logs": "",
		"POST /resources": goodResource, "POST /resources/m-1/heartbeat": "",
		"GET /models": "", "GET /admission": "", "PUT /admission": `{"open":true}`, "GET /events": "", "GET /decisions/7": "",
		"GET /sessions/s-own/events": "", "GET /jobs/j-own/events": "", "GET /events/stream": "",
	}
}

// Without its database the service says so everywhere, and when to ask again.
func TestStoreAway(t *testing.T) {
	s := newSite(t)
	requests := every(s)
	s.ask("root", "GET /admission", "") // so that the token is known
	s.change(func() { s.down = errDown })
	for what, body := range requests {
		r := s.ask("root", what, body)
		if p := r.problem(t); r.StatusCode != 503 || p.Code != "store_unavailable" || r.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %+v", what, r.StatusCode, p)
		}
	}
	if r := s.ask("alice", "GET /admission", ""); r.StatusCode != 503 {
		t.Errorf("a token that cannot be looked up: %d", r.StatusCode)
	}
}

// An unforeseen error shows nothing of the inside.
func TestInternalError(t *testing.T) {
	s := newSite(t)
	s.change(func() { s.refuse = errInside })
	r := s.ask("root", "POST /sessions", goodSession)
	if p := r.problem(t); r.StatusCode != 500 || p.Code != "internal" || strings.Contains(string(r.body), "secret") || p.RequestID != r.Header.Get("X-Request-Id") {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	s.change(func() { s.sessions["s-nil"] = nil; s.refuse = nil; s.pools = nil })
	s.server.Views = panics{s.world}
	r = s.ask("root", "GET /admission", "")
	if p := r.problem(t); r.StatusCode != 500 || p.Code != "internal" || strings.Contains(string(r.body), "boom") {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}
