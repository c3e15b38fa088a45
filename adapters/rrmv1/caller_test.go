package rrmv1_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/adapters/rrmv1"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func forced(dialect string) func(*rrmv1.Config) {
	return func(cfg *rrmv1.Config) { cfg.Dialect = dialect }
}

// with is the same client with another token; none if it is empty.
func (c *client) with(secret string) *client {
	d := *c
	d.header = c.header.Clone()
	d.header.Del("Authorization")
	if secret != "" {
		d.header.Set("Authorization", "Bearer "+secret)
	}
	return &d
}

func guarded(t *testing.T, change func(*rrmv1.Config)) (*world, *client) {
	t.Helper()
	w := newWorld()
	w.tokens["root"], w.tokens["alice"] = token("operator", "root"), token("client", "alice")
	w.tokens["bob"], w.tokens["eve"] = token("client", "bob"), token("auditor", "eve")
	return w, serve(t, w, change)
}

func TestTokensAreHonouredAsInVersion2(t *testing.T) {
	t.Parallel()
	w, c := guarded(t, nil)
	for _, call := range [][2]string{{"GET", "/session/"}, {"POST", "/session/"}, {"GET", "/session/status"}, {"PUT", "/admin/suspend"}, {"GET", "/config/"}, {"POST", "/config/"}, {"GET", "/session/x"}} {
		body := `{"owner":"x","configuration_id":"livre","id":"x","command_line":"y"}`
		if r := c.must(401, call[0], call[1], body); r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%v: no WWW-Authenticate", call)
		}
		c.with("nobody's").must(401, call[0], call[1], body)
	}
	alice := c.with("alice")
	s := alice.begin()
	if got := w.sessions[s].Owner; got != "alice" {
		t.Errorf("alice's session belongs to %q", got)
	}
	w.put(s, pool.SessionStateReady)
	for _, call := range [][2]string{{"GET", "/session/status"}, {"GET", "/session/log"}, {"GET", "/session/imagefeed"}, {"GET", "/session/x"}, {"DELETE", "/session/"}, {"PUT", "/session/schedule"}, {"GET", "/session/" + string(s) + "/"}} {
		bob := c.with("bob")
		bob.cookie = alice.cookie
		bob.must(404, call[0], call[1], nil)
	}
	if n := len(c.with("bob").must(200, "GET", "/session/", nil).list); n != 0 {
		t.Errorf("bob sees %d sessions", n)
	}
	for _, call := range [][2]string{{"POST", "/config/"}, {"PUT", "/config/"}, {"DELETE", "/config/"}, {"PUT", "/admin/suspend"}, {"PUT", "/admin/resume"}} {
		alice.must(403, call[0], call[1], `{"id":"livre","command_line":"y"}`)
	}
	if d := alice.must(200, "GET", "/config/", nil).list[0].(map[string]any); d["command_line"] != "" || d["id"] != "livre" {
		t.Errorf("a client sees how a renderer is started: %v", d)
	}
	eve := c.with("eve")
	eve.cookie = alice.cookie
	before := len(w.renewals)
	eve.must(200, "GET", "/session/status", nil)
	if len(w.renewals) != before {
		t.Error("an auditor's look renewed the lease")
	}
	for _, call := range [][2]string{{"DELETE", "/session/"}, {"GET", "/session/x"}, {"PUT", "/session/schedule"}, {"POST", "/session/"}, {"PUT", "/admin/suspend"}} {
		eve.must(403, call[0], call[1], `{"owner":"x","configuration_id":"livre"}`)
	}
	if d := c.with("root").must(200, "GET", "/config/", nil).list[0].(map[string]any); d["command_line"] != "livre" {
		t.Errorf("the operator does not see how a renderer is started: %v", d)
	}
	root := c.with("root")
	root.cookie = alice.cookie
	root.must(200, "DELETE", "/session/", nil)
}

func TestClientsWithoutTokensWhereTheOperatorAllowsIt(t *testing.T) {
	t.Parallel()
	w, c := guarded(t, func(cfg *rrmv1.Config) { cfg.Anonymous = true })
	alice := c.with("alice")
	alices := alice.begin()
	s := c.begin()
	if got := w.sessions[s].Owner; got != "v1/bbpvizuser" {
		t.Errorf("a guest's session belongs to %q", got)
	}
	if list := c.must(200, "GET", "/session/", nil).list; len(list) != 1 || list[0].(map[string]any)["owner"] != "bbpvizuser" {
		t.Errorf("a guest sees %v", list)
	}
	c.must(200, "GET", "/session/status", nil)
	c.must(404, "GET", "/session/status?session_id="+string(alices), nil)
	c.must(403, "PUT", "/admin/suspend", nil)
	c.must(403, "POST", "/config/", `{"id":"x","command_line":"y"}`)
	if d := c.must(200, "GET", "/config/", nil).list[0].(map[string]any); d["command_line"] != "" {
		t.Errorf("a guest sees how a renderer is started: %v", d)
	}
	c.must(200, "DELETE", "/session/", nil)
}

func TestAuthorizationIsPassedOnAndNeverLogged(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	type passed struct{ authorization, identity string }
	var got []passed
	w, c := guarded(t, func(cfg *rrmv1.Config) {
		cfg.Anonymous = true
		cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.Credential = func(authorization, identity string) (string, error) {
			got = append(got, passed{authorization, identity})
			if strings.Contains(authorization, "wrong") {
				return "", domain.Invalid("Authorization", "it cannot be passed on")
			}
			return "a name", nil
		}
	})
	for launcher, want := range map[string][]passed{
		// Asked to book, and again by each look at the status; a token of ours, or none, is never passed on.
		domain.LauncherUnicore: {{"Bearer unicore-secret", ""}, {"Bearer unicore-secret", "a name"}},
		domain.LauncherSlurm:   nil,
	} {
		got = nil
		w.renderers["livre"] = domain.Renderer{ID: "livre", CommandLine: "livre", Launcher: launcher, ModelLoading: domain.LoadNone}
		for _, secret := range []string{"unicore-secret", "alice", ""} {
			d := c.with(secret)
			s := d.begin()
			d.must(200, "PUT", "/session/schedule", "{}")
			d.must(200, "GET", "/session/status", nil)
			d.call("GET", "/session/x", nil)
			identity := ""
			if o := w.sessions[s].Overrides; o != nil {
				identity = o.Identity
			}
			if wants := launcher == domain.LauncherUnicore && secret == "unicore-secret"; (identity == "a name") != wants {
				t.Errorf("%s, %q: on record is %q", launcher, secret, identity)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: passed on were %v, not %v", launcher, got, want)
		}
	}
	w.renderers["livre"] = domain.Renderer{ID: "livre", CommandLine: "livre", Launcher: domain.LauncherUnicore, ModelLoading: domain.LoadNone}
	d := c.with("wrong")
	d.begin()
	d.must(400, "PUT", "/session/schedule", "{}")
	d.must(200, "PUT", "/session/open", "{}") // on this machine it is nobody's business
	if strings.Contains(logged.String(), "secret") {
		t.Errorf("the log has the secret: %s", logged.String())
	}
}

func TestAnOpenServiceIsForThisMachineOnly(t *testing.T) {
	t.Parallel()
	w := newWorld()
	c := serve(t, w, func(cfg *rrmv1.Config) { cfg.Hosts = []string{"viz.local"} })
	for host, want := range map[string]int{"rebound.example.org": 403, "viz.local:80": 200, "localhost": 200, "[::1]:80": 200} {
		c.header = http.Header{"Host": {host}}
		c.must(want, "GET", "/session/", nil)
	}
	c.header = http.Header{"Origin": {"https://evil.example.org"}}
	for _, call := range [][2]string{{"POST", "/session/"}, {"PUT", "/admin/suspend"}, {"DELETE", "/session/"}, {"POST", "/config/"}} {
		c.must(403, call[0], call[1], `{"owner":"x","configuration_id":"livre"}`)
	}
	c.header = http.Header{"Origin": {strings.TrimSuffix(c.url, base)}} // its own pages
	c.must(201, "POST", "/session/", `{"owner":"x","configuration_id":"livre"}`)
	w.tokens["first"] = token("operator", "root") // from now on it is open no more, within a moment
}

func TestCookiesOverTLSWorkAcrossSites(t *testing.T) {
	t.Parallel()
	c := serve(t, newWorld(), nil)
	c.header.Set("X-Forwarded-Proto", "https")
	r := c.must(201, "POST", "/session/", `{"owner":"x","configuration_id":"livre"}`)
	if got := r.header.Get("Set-Cookie"); !strings.HasSuffix(got, "; Path=/; Secure; SameSite=None") {
		t.Errorf("the cookie is %q", got)
	}
	c.header.Del("X-Forwarded-Proto")
	r = c.must(201, "POST", "/session/", `{"owner":"x","configuration_id":"livre"}`)
	if got := r.header.Get("Set-Cookie"); got != "HBP="+r.doc["session_id"].(string)+"; Path=/" {
		t.Errorf("the cookie is %q", got)
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		base: true, base + "/": true, base + "/session/": true, "/viz" + base + "/session/": true, "/rendering-resource-manager/v2/sessions": false,
		"/rendering-resource-manager/v2/sessions/x/renderer" + base + "/session/": false, "/rendering-resource-manager/v10": false, "/docs": false,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := rrmv1.Match(r); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
