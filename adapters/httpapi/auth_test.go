package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// Who may do what: a client its owner's, an operator all, an auditor reads all, nobody nothing.
func TestRoles(t *testing.T) {
	for _, who := range []string{"", "wrong", "alice", "bob", "root", "audit"} {
		s := newSite(t)
		for what, body := range every(s) {
			if strings.HasSuffix(what, "own/events") || strings.HasSuffix(what, "/stream") {
				continue // tested with streams
			}
			r := s.ask(who, what, body)
			if got, want := r.StatusCode, allowed(who, what); want == 2 && got >= 300 && got != http.StatusConflict || want != 2 && got != want {
				t.Errorf("%q, %s: %d, want %d: %s", who, what, got, want, r.body)
			}
			if r.StatusCode == 401 && !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%s: WWW-Authenticate is %q", what, r.Header.Get("WWW-Authenticate"))
			}
		}
	}
}

// allowed is the status that a role gets; 2 for any success.
func allowed(who, what string) int {
	method, path, _ := strings.Cut(what, " ")
	reads := method == http.MethodGet
	private := strings.Contains(path, "-own") || path == "/decisions/7"
	operators := strings.HasPrefix(path, "/resources") || path == "/models" || !reads && !strings.HasPrefix(path, "/sessions") && !strings.HasPrefix(path, "/jobs")
	switch {
	case who == "" || who == "wrong":
		return 401
	case who == "root", who == "audit" && reads:
		return 2
	case who == "audit", operators:
		return 403
	case who == "bob" && private:
		return 404
	}
	return 2
}

func TestOwners(t *testing.T) {
	s := newSite(t)
	every(s)
	s.change(func() {
		s.sessions["s-bob"], s.jobs["j-bob"] = sessionOf("s-bob", "bob", pool.SessionStateReady), jobOf("j-bob", "bob", pool.JobStateQueued)
	})
	for what, body := range map[string]string{
		"GET /sessions?owner=bob": "", "GET /jobs?owner=bob": "",
		"POST /sessions": `{"renderer":"demo","model":"m","owner":"bob"}`, "POST /jobs": `{"renderer":"demo","model":"m","kind":"image","owner":"bob"}`,
	} {
		if p := s.ask("alice", what, body).problem(t); p.Status != 403 || p.Code != "owner_not_yours" || p.Field != "owner" {
			t.Errorf("%s: %+v", what, p)
		}
	}
	for _, what := range []string{"GET /sessions", "GET /sessions?owner=alice"} {
		if l := read[SessionList](t, s.ask("alice", what, ""), 200); len(l.Items) != 1 || l.Items[0].Owner != "alice" {
			t.Errorf("%s: %+v", what, l)
		}
	}
	if l := read[SessionList](t, s.ask("root", "GET /sessions", ""), 200); len(l.Items) != 2 || l.NextCursor == "" {
		t.Errorf("the operator's list: %+v", l)
	}
	// A job of others cannot be waited for: how it ends is not alice's to know.
	if p := s.ask("alice", "POST /jobs", `{"renderer":"demo","model":"m","kind":"image","after":["j-bob"]}`).problem(t); p.Status != 404 || p.Field != "after" {
		t.Errorf("after bob's job: %+v", p)
	}
	// What does not exist and what is another's cannot be told apart.
	other, none := s.ask("bob", "GET /sessions/s-own", "").problem(t), s.ask("bob", "GET /sessions/s-not", "").problem(t)
	if other.Code != none.Code || strings.ReplaceAll(other.Detail, "s-own", "s-not") != none.Detail {
		t.Errorf("%+v and %+v", other, none)
	}
	r := read[Renderer](t, s.ask("alice", "GET /renderers/demo", ""), 200)
	if r.CommandLine != "" || len(r.EnvironmentVariables) > 0 {
		t.Errorf("a client is shown %+v", r)
	}
	if r = read[Renderer](t, s.ask("audit", "GET /renderers/demo", ""), 200); r.CommandLine == "" || r.EnvironmentVariables["SECRET"] != "x" {
		t.Errorf("an auditor is shown %+v", r)
	}
	s.ask("audit", "DELETE /sessions/s-bob", "")
	if s.sessions["s-bob"].Ended {
		t.Error("an auditor released a session")
	}
}

func TestEventsOfOwners(t *testing.T) {
	s := newSite(t)
	s.say("resource.ready", "resource:r-1")
	s.say("session.ready", "session:s-1", "owner:alice")
	s.say("session.ready", "session:s-2", "owner:bob")
	s.say("session.released", "session:s-1", "owner:alice")
	for _, c := range []struct {
		who, query string
		want       []int64
		next       int64
	}{
		{"root", "", []int64{1, 2, 3, 4}, 4}, {"audit", "", []int64{1, 2, 3, 4}, 4}, {"alice", "", []int64{2, 4}, 4}, {"bob", "", []int64{3}, 3},
		{"alice", "?subject=session:s-2", nil, 3}, {"alice", "?subject=owner:bob", nil, 3}, {"alice", "?subject=resource:r-1", nil, 1},
		{"root", "?type=session.*", []int64{2, 3, 4}, 4}, {"root", "?type=session.ready&after=2", []int64{3}, 3},
		{"root", "?limit=1&after=2", []int64{3}, 3}, {"root", "?after=4", nil, 4},
	} {
		l := read[EventList](t, s.ask(c.who, "GET /events"+c.query, ""), 200)
		var got []int64
		for _, e := range l.Items {
			got = append(got, e.Position)
		}
		if len(got) != len(c.want) || l.NextAfter != c.next {
			t.Errorf("%s %s: %v then %d, want %v then %d", c.who, c.query, got, l.NextAfter, c.want, c.next)
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s %s: %v, want %v", c.who, c.query, got, c.want)
			}
		}
	}
}

// Each operation with a body refuses one that is too large, of another type, or no JSON.
func TestEveryBody(t *testing.T) {
	s := newSite(t)
	big := `{"reason":"` + strings.Repeat("x", 1<<20) + `"}`
	for what, body := range every(s) {
		method, path, _ := strings.Cut(what, " ")
		_, op := documented(method, BasePath+path)
		if op.RequestBody == nil {
			continue
		}
		if body == "" {
			body = "{}"
		}
		for status, r := range map[int]*reply{
			413: s.ask("root", what, big), 415: s.ask("root", what, body, "Content-Type", "application/xml"), 400: s.ask("root", what, `{"":1}`),
		} {
			if r.StatusCode != status {
				t.Errorf("%s: %d, not %d: %.200s", what, r.StatusCode, status, r.body)
			}
		}
	}
	for _, what := range []string{
		"DELETE /sessions/a%20b", "DELETE /jobs/a%20b", "GET /jobs/a%20b", "GET /jobs/a%20b/result", "GET /jobs/a%20b/events", "GET /sessions/a%20b/events",
		"GET /resources/a%20b", "DELETE /resources/a%20b", "GET /renderers/a%20b", "DELETE /renderers/a%20b", "GET /pools/a%20b", "GET /renderers?x=1",
	} {
		if p := s.ask("root", what, "").problem(t); p.Status != 400 {
			t.Errorf("%s: %+v", what, p)
		}
	}
	for _, what := range []string{
		"DELETE /sessions/none", "PUT /sessions/none/lease", "DELETE /jobs/none", "GET /jobs/none/result", "POST /resources/none/drain",
		"DELETE /resources/none", "GET /resources/none/logs", "GET /sessions/none/events", "GET /jobs/none/events",
	} {
		if p := s.ask("root", what, "").problem(t); p.Status != 404 {
			t.Errorf("%s: %+v", what, p)
		}
	}
	s.change(func() { s.refuse = errConflict })
	for _, what := range []string{"POST /resources/r-1/drain"} {
		if p := s.ask("root", what, "").problem(t); p.Status != 409 {
			t.Errorf("%s: %+v", what, p)
		}
	}
	if p := s.ask("root", "PUT /renderers/demo", `{"command_line":"x"}`).problem(t); p.Status != 409 {
		t.Errorf("%+v", p)
	}
}

// An open service is everyone's on this machine, and no page's from elsewhere.
func TestOpen(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *Config) {
		c.Open, c.Hosts, c.Origins = true, []string{"viz.local"}, []string{"https://viz.example.org"}
	})
	s.change(func() { s.tokens = map[string]projections.Token{} })
	v := read[Session](t, s.ask("", "POST /sessions", goodSession), 201)
	if v.Owner != "anonymous" || s.calls[0].Actor != "operator:anonymous" {
		t.Errorf("%+v %+v", v, s.calls)
	}
	foreign := []string{"Origin", "https://evil.example"}
	for _, c := range []struct {
		what, body string
		headers    []string
		status     int
	}{
		{"GET /sessions", "", []string{"Host", "evil.example"}, 403},
		{"GET //metrics", "", []string{"Host", "evil.example:8383"}, 403},
		{"GET //docs", "", []string{"Host", "evil.example"}, 403},
		{"GET //openapi.yaml", "", []string{"Host", "evil.example"}, 403},
		{"GET //healthz", "", []string{"Host", "evil.example"}, 200},
		{"GET /sessions", "", []string{"Host", "localhost:8383"}, 200},
		{"GET /sessions", "", []string{"Host", "[::1]:8383"}, 200},
		{"GET /sessions", "", []string{"Host", "VIZ.local:8383"}, 200},
		{"GET /sessions", "", foreign, 200}, // without CORS headers the page cannot read it
		{"POST /sessions", goodSession, foreign, 403},
		{"POST /sessions", goodSession, []string{"Origin", "null"}, 403},
		{"DELETE /sessions/" + v.ID, "", foreign, 403},
		{"GET /sessions/" + v.ID + "/renderer/v1/stream", "", foreign, 403},
		{"POST /sessions", goodSession, []string{"Origin", "https://viz.example.org"}, 201},
		{"POST /sessions", goodSession, []string{"Origin", s.url}, 201},
	} {
		if r := s.ask("", c.what, c.body, c.headers...); r.StatusCode != c.status {
			t.Errorf("%s %q: %d %s", c.what, c.headers, r.StatusCode, r.body)
		}
	}
	// Once a token is made the service closes, within the time that it trusts what it saw.
	s.change(func() { s.tokens["root"] = projections.Token{Owner: "root", Role: "operator"} })
	within(t, 10*time.Second, func() bool { return s.ask("", "GET /sessions", "").StatusCode == 401 })
	s.change(func() { delete(s.tokens, "root") })
	if r := s.ask("", "GET /sessions", ""); r.StatusCode != 401 {
		t.Errorf("it opened again: %d", r.StatusCode)
	}
}

func TestCORS(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Origins = []string{"https://viz.example.org"} })
	preflight := []string{"Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization", "Origin"}
	r := s.ask("", "OPTIONS /sessions", "", append(preflight, "https://viz.example.org")...)
	if r.StatusCode != 204 || r.Header.Get("Access-Control-Allow-Origin") != "https://viz.example.org" || !strings.Contains(r.Header.Get("Access-Control-Allow-Methods"), "PUT") ||
		!strings.Contains(r.Header.Get("Access-Control-Allow-Headers"), "Idempotency-Key") || r.Header.Get("Vary") != "Origin" {
		t.Errorf("preflight: %d %v", r.StatusCode, r.Header)
	}
	r = s.ask("", "OPTIONS /sessions", "", append(preflight, "https://evil.example")...)
	if r.Header.Get("Access-Control-Allow-Origin") != "" || r.Header.Get("Access-Control-Allow-Methods") != "" {
		t.Errorf("preflight of another: %v", r.Header)
	}
	r = s.ask("wrong", "GET /sessions", "", "Origin", "https://viz.example.org")
	if r.StatusCode != 401 || r.Header.Get("Access-Control-Allow-Origin") != "https://viz.example.org" {
		t.Errorf("a refusal that the page may read: %d %v", r.StatusCode, r.Header)
	}
	if r = s.ask("root", "GET /sessions", "", "Origin", "https://evil.example"); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %v", r.Header)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, h := range []string{"alice", "Basic alice", "Bearer", "Bearer ", "Bearer " + strings.Repeat("x", 600)} {
		if r := s.ask("", "GET /sessions", "", "Authorization", h); r.StatusCode != 401 {
			t.Errorf("%.20q: %d", h, r.StatusCode)
		}
	}
	if r := s.ask("", "GET /sessions", "", "Authorization", "bearer alice"); r.StatusCode != 200 {
		t.Errorf("bearer in lower case: %d", r.StatusCode)
	}
	if r := s.ask("", "GET /sessions?access_token=alice", ""); r.StatusCode != 401 {
		t.Errorf("a token in the query: %d", r.StatusCode)
	}
	s.change(func() { delete(s.tokens, "alice") })
	within(t, 10*time.Second, func() bool { return s.ask("alice", "GET /sessions", "").StatusCode == 401 })
}

// within waits until something is so.
func within(t *testing.T, limit time.Duration, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for !so() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it did not come to be")
		}
	}
}
