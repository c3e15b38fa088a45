package rrmv1_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestSessions(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		if r := c.must(200, "GET", "/session/", nil); r.list == nil || len(r.list) != 0 {
			t.Errorf("no sessions are %s", r.raw)
		}
		c.must(401, "POST", "/session/", `{"owner":"x"}`)
		c.must(401, "POST", "/session/", `{"configuration_id":"livre"}`)
		c.must(400, "POST", "/session/", `{"owner":`)
		c.must(404, "POST", "/session/", `{"owner":"x","configuration_id":"nothing"}`)
		c.must(200, "PUT", "/admin/suspend", nil)
		c.must(403, "POST", "/session/", `{"owner":"x","configuration_id":"livre"}`)
		c.must(200, "PUT", "/admin/resume", nil)
		w.down = domain.Unavailable("busy", 7e9, "too much waits already")
		if r := c.must(503, "POST", "/session/", `{"owner":"x","configuration_id":"livre"}`); r.header.Get("Retry-After") != "7" {
			t.Errorf("no Retry-After: %v", r.header)
		}
		w.down = nil
		s := c.begin()
		if r := c.must(200, "GET", "/session/", nil); len(r.list) != 1 {
			t.Errorf("the list is %s", r.raw)
		} else if got := r.list[0].(map[string]any); got["id"] != string(s) || got["owner"] != "bbpvizuser" || got["configuration_id"] != "livre" || len(got) != 3 {
			t.Errorf("a session in the list is %v", got)
		}
		w.put(s, pool.SessionStateReady)
		d := c.must(200, "GET", "/session/"+string(s)+"/", nil).doc
		if d["id"] != string(s) || d["owner"] != "bbpvizuser" || d["http_host"] != "10.0.0.7" || d["http_port"] != "3000" || d["cluster_node"] != "node7" || d["job_id"] != "livre-1" {
			t.Errorf("the session is %v", d)
		}
		c.must(404, "GET", "/session/"+string(id(99))+"/", nil)

		if r := c.must(200, "DELETE", "/session/", nil); r.doc["contents"] != "Session successfully destroyed" {
			t.Errorf("the end is %s", r.raw)
		}
		for _, gone := range [][2]string{{"DELETE", "/session/"}, {"GET", "/session/status"}, {"GET", "/session/log"}, {"PUT", "/session/schedule"}, {"PUT", "/session/open"}, {"GET", "/session/imagefeed"}, {"GET", "/session/x"}, {"GET", "/session/" + string(s) + "/"}} {
			if r := c.must(404, gone[0], gone[1], nil); r.doc["contents"] == "" {
				t.Errorf("%v: %s", gone, r.raw)
			}
		}
	})
}

func TestASecondSessionOfTheSameConfigurationByCookie(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.renderers["brayns"] = domain.Renderer{ID: "brayns", CommandLine: "brayns"}
	c := serve(t, w, nil)
	s := c.begin()
	if r := c.must(409, "POST", "/session/", `{"owner":"bbpvizuser","configuration_id":"livre"}`); r.doc["session_id"] != string(s) {
		t.Errorf("the duplicate is not named: %s", r.raw)
	}
	c.must(201, "POST", "/session/", `{"owner":"bbpvizuser","configuration_id":"brayns"}`)
	w.put(s, pool.SessionStateExpired)
	c.must(201, "POST", "/session/", `{"owner":"bbpvizuser","configuration_id":"livre"}`)

	// A client that names its sessions itself may have many, although its library keeps cookies.
	q := *c
	q.begin()
	q.header = http.Header{"Cookie": {q.cookie}}
	q.query = true
	cleared := q.must(200, "GET", "/session/status", nil).header.Get("Set-Cookie")
	if !strings.HasPrefix(cleared, "HBP=;") || !strings.Contains(cleared, "Max-Age=0") {
		t.Errorf("the cookie stays: %q", cleared)
	}
}

func TestStatusCodes(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		s := c.begin()
		for _, state := range []struct {
			state           pool.SessionState
			cookie, session float64
			text            string
		}{
			{pool.SessionStateOpened, 0, 0, "not started"}, {pool.SessionStateQueued, 1, 2, "at place 2"}, {pool.SessionStateStarting, 2, 4, "starting"},
			{pool.SessionStateLoading, 2, 4, "loading"}, {pool.SessionStateReady, 3, 5, "up and running on node7"},
		} {
			w.put(s, state.state)
			w.sessions[s].Queue = nil
			if state.state == pool.SessionStateQueued {
				w.sessions[s].Queue = &pool.Place{Position: 2, EstimatedWaitSeconds: 30, Reason: "all slots are in use"}
			}
			want := state.cookie
			if c.query {
				want = state.session
			}
			code, text := c.status()
			if code != want || !strings.Contains(text, state.text) {
				t.Errorf("%s: code %v, not %v; %q", state.state, code, want, text)
			}
		}
		w.sessions[s].Warning = "its time at the scheduler ends at 14:20"
		if _, text := c.status(); !strings.HasSuffix(text, "on node7; its resource is going: its time at the scheduler ends at 14:20") {
			t.Errorf("a warning is told as %q", text)
		}
		d := c.must(200, "GET", "/session/status", nil).doc
		if d["session"] != string(s) || d["session_id"] != string(s) || d["hostname"] != "10.0.0.7" || d["port"] != "3000" {
			t.Errorf("the status is %v", d)
		}
		for _, state := range []pool.SessionState{pool.SessionStateFailed, pool.SessionStateLost} {
			w.put(s, state)
			if !c.query {
				c.must(404, "GET", "/session/status", nil)
				continue
			}
			if code, text := c.status(); code != 7 || !strings.Contains(text, "of what the test says") {
				t.Errorf("%s: code %v, %q", state, code, text)
			}
			c.must(200, "GET", "/session/err", nil) // and why can be read
		}
	})
}

func TestOneTableOfCodesForAll(t *testing.T) {
	t.Parallel()
	for dialect, want := range map[string]float64{"cookie": 3, "session_id": 5} {
		for _, query := range []bool{false, true} {
			w := newWorld()
			c := serve(t, w, forced(dialect))
			c.query = query
			w.put(c.begin(), pool.SessionStateReady)
			if code, _ := c.status(); code != want {
				t.Errorf("%s, by the query %v: code %v", dialect, query, code)
			}
		}
	}
}

func TestScheduleAndOpen(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		set := w.renderers["livre"]
		set.Launcher = "slurm"
		w.renderers["livre"] = set
		s := c.begin()
		r := c.must(200, "PUT", "/session/schedule", `{"params":" --volume 'mem://#1024,1024' --fps 10","environment":"A=1","reservation":"class",
			"nb_cpus":"16","nb_gpus":2,"nb_nodes":1,"memory":2048,"queue":"interactive","exclusive":"true","allocation_time":"1-02:30:00"}`)
		if r.doc["message"] == "" || r.doc["jobId"] != string(s) {
			t.Errorf("the booking is %s", r.raw)
		}
		want := domain.Overrides{Arguments: "--volume 'mem://#1024,1024' --fps 10", Environment: map[string]string{"A": "1"}, Nodes: 1, CPUs: 16, GPUs: 2,
			Memory: 2048, Queue: "interactive", Reservation: "class", Exclusive: true, Time: domain.Duration(26*3600e9 + 30*60e9)}
		if got := w.booked[0]; got.Model != "mem://#1024,1024" || got.Overrides.Key() != want.Key() || got.Wait != 0 {
			t.Errorf("booked was %+v with %+v", got, got.Overrides)
		}
		c.must(403, "PUT", "/session/schedule", "{}")
		c.must(401, "PUT", "/session/open", "{}")
		c.cookie, c.session = "", ""
		c.begin()
		for _, bad := range []string{`{"nb_cpus":"many"}`, `{"nb_nodes":-1}`, `{"allocation_time":"soon"}`, `{"environment":"words"}`, `{"environment":{"A B":"x"}}`,
			`{"environment":{"LD_PRELOAD":"x"}}`, `{"environment":{"RRM_X":"x"}}`, `{"environment":{"A":"${rest_port}"}}`, `{"environment":{"A":"\u0000"}}`,
			`{"params":"a; b"}`, `{"params":"'a"}`, `{"params":"${model}"}`, `{"params":"a\nb"}`, `{"params":{}}`, `[]`, `{"exclusive":"maybe"}`} {
			c.must(400, "PUT", "/session/schedule", bad)
			c.must(400, "PUT", "/session/open", bad)
		}
		r = c.must(200, "PUT", "/session/open", `{"params":"","environment":null}`)
		if r.doc["message"] != "Process started" || r.doc["processId"] == "" {
			t.Errorf("the process is %s", r.raw)
		}
		if got := w.booked[1].Overrides; got.Launcher != "local" {
			t.Errorf("open books %+v", got)
		}
		c.must(401, "PUT", "/session/open", "{}")
		c.cookie, c.session = "", ""
		c.begin()
		delete(w.renderers, "livre")
		c.must(404, "PUT", "/session/open", "{}")
	})
}

// Where the service itself loads models, one resource can serve sessions of several.
func TestTheModelIsNoArgumentWhereTheServiceLoadsIt(t *testing.T) {
	t.Parallel()
	w := newWorld()
	set := w.renderers["livre"]
	set.ModelLoading = domain.LoadHTTP
	w.renderers["livre"] = set
	c := serve(t, w, nil)
	s := c.begin()
	c.must(200, "PUT", "/session/schedule", `{"params":"--volume neuron:1"}`)
	if got := w.booked[0]; got.Model != "neuron:1" || got.Overrides.Key() != "" {
		t.Errorf("booked was %+v with %+v", got, got.Overrides)
	}
	w.put(s, pool.SessionStateReady)
	c.must(200, "GET", "/session/x", nil)
	if got := w.forwarded[0].to.Model; got != "neuron:1" {
		t.Errorf("the renderer is told the model %q", got)
	}
}

func TestOutputs(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		for _, path := range []string{"/session/log", "/session/err", "/session/job"} {
			c.must(404, "GET", path, nil)
		}
		s := c.begin()
		for _, path := range []string{"/session/log", "/session/err", "/session/job"} {
			if got := c.must(200, "GET", path, nil).doc["contents"]; got != "Rendering resource is currently unavailable" {
				t.Errorf("%s of nothing: %v", path, got)
			}
		}
		w.put(s, pool.SessionStateReady)
		for path, want := range map[string]string{"/session/log": "stdout: rendering", "/session/err": "stderr: rendering", "/session/job": "launcher=local"} {
			if got, _ := c.must(200, "GET", path, nil).doc["contents"].(string); !strings.Contains(got, want) {
				t.Errorf("%s: %q", path, got)
			}
		}
		if got, _ := c.must(200, "GET", "/session/job", nil).doc["contents"].(string); !strings.Contains(got, "pid=4711") {
			t.Errorf("the launcher's own words are missing: %q", got)
		}
		w.away = errors.New("slurm_load_jobs error: Unable to contact slurm controller")
		for path, want := range map[string]string{"/session/log": "cannot be read at present", "/session/err": "cannot be read at present", "/session/job": "cannot tell more at present"} {
			if got, _ := c.must(200, "GET", path, nil).doc["contents"].(string); !strings.Contains(got, want) {
				t.Errorf("%s of a cluster that is away: %q", path, got)
			}
		}
	})
}

func TestForwarding(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		c.must(404, "GET", "/session/vocabulary", nil)
		s := c.begin()
		w.sessions[s].Model = "only for stickiness"
		w.put(s, pool.SessionStateReady)
		c.header.Set("X-Mine", "yes")
		c.header.Set("Authorization", "Bearer foreign")
		r := c.must(200, "PUT", "/session/a%2Fb/c/?x=1&y=%20z", `{"matrix":[1]}`)
		if r.doc["from"] != "the renderer" {
			t.Errorf("the answer is %s", r.raw)
		}
		f := w.forwarded[0]
		if f.method != "PUT" || f.path != "/a%2Fb/c/" || f.query != "x=1&y=%20z" || f.body != `{"matrix":[1]}` || f.header.Get("X-Mine") != "yes" {
			t.Errorf("forwarded was %+v", f)
		}
		if f.to.Address != "10.0.0.7:3000" || f.to.Session != s || f.to.Model != "" || f.header.Get("Authorization") != "" || f.header.Get("Cookie") != "" {
			t.Errorf("forwarded was %+v", f)
		}
		w.answer = func(rw http.ResponseWriter, _ *http.Request, _ func(int, string, string)) {
			rw.WriteHeader(418)
			_, _ = rw.Write([]byte(`{"from":"a teapot"}`))
		}
		c.must(418, "GET", "/session/CAMERA", nil)
		for gone, want := range map[int]int{502: 400, 504: 400, 403: 403} {
			w.answer = func(_ http.ResponseWriter, _ *http.Request, fail func(int, string, string)) {
				fail(gone, "code", "no answer")
			}
			c.must(want, "GET", "/session/CAMERA", nil)
		}
		for _, method := range []string{"POST", "DELETE", "PATCH"} {
			c.must(405, method, "/session/CAMERA", nil)
		}
	})
}

// The clients of the cookie ask for a vocabulary before they show anything.
func TestARendererWithoutVocabularyIsReady(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		s := c.begin()
		c.must(400, "GET", "/session/vocabulary", nil)
		w.put(s, pool.SessionStateReady)
		answer := func(status int) {
			w.answer = func(rw http.ResponseWriter, _ *http.Request, _ func(int, string, string)) {
				rw.Header().Set("Content-Length", "1")
				rw.WriteHeader(status)
				_, _ = rw.Write([]byte("7"))
				_ = http.NewResponseController(rw).Flush() // as proxies do
			}
		}
		answer(404)
		c.must(200, "GET", "/session/vocabulary", nil)
		if r := c.do("GET", "/session/other", nil); r.status != 404 {
			t.Errorf("another 404 of the renderer became %d", r.status)
		}
		answer(500)
		if r := c.do("GET", "/session/vocabulary", nil); r.status != 500 || string(r.raw) != "7" {
			t.Errorf("a vocabulary that fails: %d %s", r.status, r.raw)
		}
		answer(200)
		if r := c.do("GET", "/session/vocabulary", nil); r.status != 200 || string(r.raw) != "7" {
			t.Errorf("a vocabulary: %d %s", r.status, r.raw)
		}
	})
}

func TestConfigurations(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		delete(w.renderers, "livre")
		c.must(201, "POST", "/config/", `{"id":"Brayns","command_line":"braynsService","modules":"BBP/viz/latest, other","environment_variables":"A=1 B=2",
			"process_rest_parameters_format":"--zeroeq-http-server :${rest_port}","scheduler_rest_parameters_format":"-s","project":"proj3",
			"queue":"interactive","exclusive":true,"nb_nodes":1,"nb_cpus":16,"nb_gpus":1,"memory":4096,"graceful_exit":false,"wait_until_running":"False",
			"name":"Brayns","description":"Large scale Interactive Ray-Tracer"}`)
		r := w.renderers["brayns"]
		if r.Launcher != "local" || r.ModelLoading != domain.LoadNone || r.Slots != 1 || r.GracefulExit || r.WaitUntilReady || len(r.Modules) != 2 || r.Environment["B"] != "2" || r.Scaling.Max == 0 {
			t.Errorf("the renderer is %+v", r)
		}
		want := `{"id":"brayns","command_line":"braynsService","modules":"BBP/viz/latest,other","environment_variables":"A=1,B=2","process_rest_parameters_format":"--zeroeq-http-server :${rest_port}","scheduler_rest_parameters_format":"-s","project":"proj3","queue":"interactive","exclusive":true,"nb_nodes":1,"nb_cpus":16,"nb_gpus":1,"memory":4096,"graceful_exit":false,"wait_until_running":false,"name":"Brayns","description":"Large scale Interactive Ray-Tracer"}`
		var expected map[string]any
		_ = json.Unmarshal([]byte(want), &expected)
		shown := func() map[string]any {
			list := c.must(200, "GET", "/config/", nil).list
			if len(list) != 1 {
				t.Fatalf("the list is %v", list)
			}
			return list[0].(map[string]any)
		}
		got := shown()
		for name := range got {
			if got[name] != expected[name] {
				t.Errorf("%s is %v, not %v", name, got[name], expected[name])
			}
		}
		if len(got) != len(expected) {
			t.Errorf("the configuration has %d fields, not %d", len(got), len(expected))
		}
		c.must(409, "POST", "/config/", `{"id":"BRAYNS","command_line":"x"}`)
		c.must(400, "POST", "/config/", `{"id":"a b","command_line":"x"}`)
		c.must(400, "POST", "/config/", `{"id":"x"}`)
		c.must(400, "POST", "/config/", `{"command_line":"x"}`)
		// Version 2 adds what the predecessor does not know; a PUT leaves it.
		r.Slots, r.Environment = 4, map[string]string{"A": "x, y", "B": `"`}
		w.renderers["brayns"] = r
		back := shown()
		c.must(200, "PUT", "/config/", back)
		if now := w.renderers["brayns"]; now.Slots != 4 || now.Environment["A"] != "x, y" || now.Environment["B"] != `"` {
			t.Errorf("read and written back, the renderer is %+v", now)
		}
		c.must(200, "PUT", "/config/", `{"id":"brayns","command_line":"other"}`)
		if d := shown(); d["command_line"] != "other" || d["nb_cpus"] != 1.0 || d["nb_gpus"] != 0.0 || d["exclusive"] != false || d["graceful_exit"] != true || d["wait_until_running"] != true || d["environment_variables"] != "" || d["modules"] != "" {
			t.Errorf("the defaults are %v", d)
		}
		c.must(404, "PUT", "/config/", `{"id":"nothing","command_line":"x"}`)
		c.must(200, "DELETE", "/config/", `{"id":"Brayns"}`)
		c.must(404, "DELETE", "/config/", `{"id":"brayns"}`)
	})
}

func TestAdminAndPages(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, c *client) {
		c.must(401, "PUT", "/admin/reboot", nil)
		c.must(405, "GET", "/admin/suspend", nil)
		c.must(404, "PUT", "/admin/keepalive", nil)
		s := c.begin()
		if c.query {
			c.must(200, "PUT", "/admin/keepalive?session_id="+string(s), nil)
		} else {
			c.must(200, "PUT", "/admin/keepalive", nil)
		}
		if len(w.renewals) != 1 {
			t.Errorf("renewed %d times", len(w.renewals))
		}
		if d := c.must(200, "GET", "/config.json", nil).doc; d["auth"] == nil {
			t.Errorf("config.json is %v", d)
		}
		if d := c.must(200, "GET", "/api-docs", nil).doc; d["openapi"] == nil {
			t.Errorf("api-docs is %v", d)
		}
		c.header.Set("Accept", "text/html,*/*")
		if r := c.do("GET", "/api-docs/", nil); r.status != 200 || !strings.Contains(string(r.raw), "/session/schedule") || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
			t.Errorf("the page is %d %s", r.status, r.raw)
		}
	})
}
