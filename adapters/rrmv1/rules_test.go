package rrmv1_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/adapters/rrmv1"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// One test for each numbered rule that clients in the field depend on.

func TestRule1EveryBodyIsJSONAndTextIsInBothFields(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		var seen int
		look := func(method, path string, body any) { // call fails for what is no JSON
			r := c.call(method, path, body)
			if r.status < 400 {
				return
			}
			seen++
			if r.doc["contents"] == "" || r.doc["contents"] == nil || r.doc["contents"] != r.doc["description"] {
				t.Errorf("%s %s: %d without text in both fields: %s", method, path, r.status, r.raw)
			}
		}
		for _, path := range []string{"/session/", "/session/status", "/session/log", "/session/err", "/session/job", "/session/imagefeed",
			"/session/schedule", "/session/open", "/session/x/y", "/session/" + string(id(9)) + "/", "/config/", "/config/x", "/admin/suspend",
			"/admin/nothing", "/imagefeed/x", "/api-docs", "/config.json", "/", "", "/nothing"} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
				for _, body := range []any{nil, "no JSON", "[]", `{"id": 1, "owner": {}}`} {
					look(method, path, body)
				}
			}
		}
		w.down = errors.New("no store")
		look("GET", "/session/status?session_id=x", nil)
		if seen < 100 {
			t.Errorf("only %d refusals were looked at", seen)
		}
	})
}

func TestRule2NoCodeZeroWithANotFound(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		for _, state := range []pool.SessionState{"", pool.SessionStateReleased, pool.SessionStateExpired, pool.SessionStateLost, pool.SessionStateFailed} {
			if state != "" {
				w.put(c.begin(), state)
			}
			r := c.call("GET", "/session/status", nil)
			code, has := r.doc["code"]
			if r.status == 404 && has {
				t.Errorf("%q: 404 with the code %v", state, code)
			}
			if r.status != 404 && (r.status != 200 || code == 0.0) {
				t.Errorf("%q: %d with the code %v", state, r.status, code)
			}
		}
	})
}

func TestRule3ImagefeedIsSchemeRelativeAndOnlyOfAUsableStream(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		c.must(404, "GET", "/session/imagefeed", nil)
		s := c.begin()
		c.must(400, "GET", "/session/imagefeed", nil)
		w.put(s, pool.SessionStateLoading)
		c.must(400, "GET", "/session/imagefeed", nil)
		w.put(s, pool.SessionStateReady)
		uri, _ := c.must(200, "GET", "/session/imagefeed", nil).doc["uri"].(string)
		if want := strings.TrimPrefix(c.url, "http:") + "/imagefeed/" + string(s); uri != want {
			t.Fatalf("the stream is at %q, not %q", uri, want)
		}
		if pictures := watch(t, "http:"+uri, 1); string(pictures[0]) != "a picture" {
			t.Errorf("the first picture is %q", pictures[0])
		}
	})
}

func TestRule4StatusRenewsInEveryStateAndSoDoesWhatIsForwarded(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		s := c.begin()
		renewals := func() int { return w.count(func() int { return len(w.renewals) }) }
		for n, state := range []pool.SessionState{pool.SessionStateOpened, pool.SessionStateQueued, pool.SessionStateStarting, pool.SessionStateLoading, pool.SessionStateReady} {
			w.put(s, state)
			c.must(200, "GET", "/session/status", nil)
			if renewals() != n+1 {
				t.Fatalf("%s: %d renewals after %d looks", state, renewals(), n+1)
			}
		}
		if got := w.sessions[s].LeaseSeconds; got != 300 {
			t.Errorf("the lease is of %v s", got)
		}
		before := renewals()
		c.must(200, "PUT", "/session/CAMERA", "{}")
		if renewals() != before+1 {
			t.Errorf("a forwarded call renewed %d times", renewals()-before)
		}
	})
}

func TestRule5WhatMustBeTolerated(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		c.must(404, "DELETE", "/session/", `{"owner":"bbpvizuser","configuration_id":"livre"}`)
		c.header.Set("HBP", "livre") // is not the session
		c.must(404, "GET", "/session/status", nil)
		r := c.must(201, "POST", "/session/", `{"owner":"x","renderer_id":"Livre"}`)
		c.session, c.cookie = r.doc["session_id"].(string), "HBP="+r.doc["session_id"].(string)
		if _, ok := w.sessions[id(1)]; !ok || w.sessions[id(1)].Renderer != "livre" {
			t.Fatalf("renderer_id is not taken for configuration_id: %v", w.sessions)
		}
		// "null" is no session, whoever's cookie is sent with it.
		bare := *c
		bare.query = false
		bare.must(404, "DELETE", "/session/?session_id=null", nil)
		if c.status(); w.sessions[id(1)].Ended {
			t.Fatal("session_id=null ended the cookie's session")
		}
		if r := c.call("PUT", "/session/CAMERA", `{"matrix":[1]}`); r.status < 400 || r.status >= 500 {
			t.Errorf("a camera before the renderer: %d", r.status)
		}
		if code, _ := c.status(); code != 0 {
			t.Errorf("the camera changed the session: code %v", code)
		}
		c.must(200, "PUT", "/session/schedule", "{}")
		if b := w.booked[0]; b.Model != "default" || b.Overrides.Key() != "" {
			t.Errorf("{} books %+v", b)
		}
		c.session, c.cookie = "", ""
		c.begin()
		c.must(200, "PUT", "/session/schedule", `{"params":"","environment":"A=1,B=2 C=$(x)\nD="}`)
		env := w.booked[1].Overrides.Environment
		if len(env) != 4 || env["A"] != "1" || env["B"] != "2" || env["C"] != "$(x)" || env["D"] != "" {
			t.Errorf("the environment is %q", env)
		}
	})
}

func TestRule6SlashesEitherWayAndNoRedirections(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		for _, slash := range []string{"", "/"} {
			c.session, c.cookie = "", ""
			r := c.must(201, "POST", "/session"+slash, `{"owner":"x","configuration_id":"livre"}`)
			c.session, c.cookie = r.doc["session_id"].(string), "HBP="+r.doc["session_id"].(string)
			c.must(200, "GET", "/session/status"+slash, nil)
			c.must(200, "GET", "/session"+slash, nil)
			c.must(200, "GET", "/session/"+c.session+slash, nil)
			c.must(200, "PUT", "/session/schedule"+slash, "{}")
			c.must(200, "GET", "/session/log"+slash, nil)
			c.must(201, "POST", "/config"+slash, `{"id":"x","command_line":"y"}`)
			c.must(200, "PUT", "/config"+slash, `{"id":"x","command_line":"y"}`)
			c.must(200, "DELETE", "/config"+slash, `{"id":"x"}`)
			c.must(200, "PUT", "/admin/resume"+slash, nil)
			c.must(200, "DELETE", "/session"+slash, nil)
		}
	})
}

func TestRule7JSONIsHTMLEscaped(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		s := c.begin()
		w.put(s, pool.SessionStateReady)
		w.sessions[s].Node = "<img src=x onerror=alert(1)>&"
		for _, path := range []string{"/session/log", "/session/status"} {
			r := c.must(200, "GET", path, nil)
			if strings.ContainsAny(string(r.raw), "<>&") {
				t.Errorf("%s is not escaped: %s", path, r.raw)
			}
		}
		if got := c.must(200, "GET", "/session/log", nil).doc["contents"]; got != "stdout: rendering <b>now</b>\n" {
			t.Errorf("the log reads %q", got)
		}
		// Clients write the description into innerHTML after they have read the JSON.
		if _, text := c.status(); strings.ContainsAny(text, "<>") || !strings.Contains(text, "img src=x") {
			t.Errorf("the description could become a tag: %q", text)
		}
	})
}

func TestRule8OriginsAreEchoedWithCredentials(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		const page = "https://viz.example.org"
		prefix := strings.TrimSuffix(c.url[strings.Index(c.url[8:], "/")+8:], base)
		w.tokens["secret"] = token("operator", "root")
		d := serve(t, w, func(cfg *rrmv1.Config) { cfg.Open, cfg.Origins = false, []string{page} })
		d.url, d.query = strings.Replace(d.url, base, prefix+base, 1), c.query
		check := func(r reply, allowed bool) {
			t.Helper()
			h := r.header
			if !allowed {
				if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("a foreign page may read: %v", h)
				}
				return
			}
			if h.Get("Access-Control-Allow-Origin") != page || h.Get("Access-Control-Allow-Credentials") != "true" || !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
				t.Errorf("the page may not read: %v", h)
			}
		}
		for _, origin := range []string{page, "https://evil.example.org"} {
			d.header = http.Header{"Origin": {origin}, "Access-Control-Request-Method": {"PUT"}, "Access-Control-Request-Headers": {"hbp"}}
			r := d.do("OPTIONS", "/session/schedule", nil) // without a token: a preflight has none
			if r.status != 204 {
				t.Errorf("a preflight is answered with %d", r.status)
			}
			check(r, origin == page)
			if origin == page && (r.header.Get("Access-Control-Allow-Methods") != "GET, POST, PUT, DELETE, OPTIONS" ||
				r.header.Get("Access-Control-Allow-Headers") != "Content-Type, HBP, Authorization") {
				t.Errorf("the preflight allows %v", r.header)
			}
			d.header = http.Header{"Origin": {origin}}
			check(d.must(401, "GET", "/session/", nil), origin == page) // refusals can be read too
			d.header.Set("Authorization", "Bearer secret")
			check(d.must(200, "GET", "/session/", nil), origin == page)
		}
		check(d.must(403, "POST", "/session/", `{"owner":"x","configuration_id":"livre"}`), false)
		if n := len(w.sessions); n != 0 {
			t.Errorf("a foreign page opened %d sessions", n)
		}
	})
}
