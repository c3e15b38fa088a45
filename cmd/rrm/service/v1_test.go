package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image/jpeg"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
)

const (
	v1    = "/rendering-resource-manager/v1"
	page  = "http://viz.example.org"
	every = 100 * time.Millisecond // between two looks at a status; the real clients take 2 s
)

// old is a client of the predecessor. A browser or a Python session keeps
// cookies; who names its session in the query does it by hand.
type old struct {
	t      *testing.T
	url    string
	header http.Header
	http   *http.Client
}

func client(n *node, prefix string) *old {
	n.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return &old{t: n.t, url: n.URL + prefix + v1, header: http.Header{}, http: &http.Client{
		Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("no client follows redirections") },
	}}
}

// call sends a request as these clients do, and reads the answer as JSON.
func (c *old) call(method, path string, body any) (int, doc) {
	c.t.Helper()
	status, raw := c.raw(method, path, body)
	var d doc
	if err := json.Unmarshal(raw, &d); err != nil {
		c.t.Fatalf("%s %s: %d %s is no JSON: %v", method, path, status, raw, err)
	}
	return status, d
}

func (c *old) raw(method, path string, body any) (int, []byte) {
	c.t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, in)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header = c.header.Clone()
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if origin := req.Header.Get("Origin"); origin != "" && (res.Header.Get("Access-Control-Allow-Origin") != origin || res.Header.Get("Access-Control-Allow-Credentials") != "true") {
		c.t.Fatalf("%s %s: the page may not read the answer: %v", method, path, res.Header)
	}
	return res.StatusCode, raw
}

func (c *old) must(want int, method, path string, body any) doc {
	c.t.Helper()
	status, d := c.call(method, path, body)
	if status != want {
		c.t.Fatalf("%s %s: %d, not %d: %v", method, path, status, want, d)
	}
	return d
}

// until polls the status until the code says running, and gives the descriptions that were seen.
func (c *old) until(running float64, query string, each func(code float64)) (last doc, seen []string) {
	c.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for {
		last = c.must(200, "GET", "/session/status"+query, nil)
		code := last["code"].(float64)
		if text := last["description"].(string); len(seen) == 0 || seen[len(seen)-1] != text {
			seen = append(seen, text)
		}
		if each != nil {
			each(code)
		}
		if code == running {
			return last, seen
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("not running: %v", seen)
		}
		pause(c.t.Context(), every)
	}
}

// picture takes a picture out of a stream, as an <img> does, and loads it.
func picture(t *testing.T, uri string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if kind := res.Header.Get("Content-Type"); res.StatusCode != 200 || kind != "multipart/x-mixed-replace; boundary=frame" {
		t.Fatalf("the stream: %d %s", res.StatusCode, kind)
	}
	parts := multipart.NewReader(res.Body, "frame")
	for range 2 {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatalf("no picture: %v", err)
		}
		img, err := jpeg.Decode(part)
		if err != nil || img.Bounds().Dx() < 100 {
			t.Fatalf("the picture cannot be loaded: %v", err)
		}
	}
}

// configure makes a renderer as the predecessor's administrators do.
func configure(n *node, id, command, more string) {
	n.t.Helper()
	client(n, "").must(201, "POST", "/config/", doc{
		"id": id, "command_line": command, "environment_variables": "", "modules": "",
		"process_rest_parameters_format": "--listen ${rest_hostname}:${rest_port}" + more, "scheduler_rest_parameters_format": "",
		"graceful_exit": true, "wait_until_running": true, "name": id, "description": "made through version 1",
	})
}

// The sequences of the clients in the field, over one service with real renderers.
func TestV1Clients(t *testing.T) {
	n := start(t, func(cfg *service.Config) { cfg.CORSOrigins = []string{page} })
	configure(n, "neurons", "rrm-renderer", " --memory-mib 256")
	configure(n, "showcase", "rrm-renderer", " --memory-mib 256 --model neuron:1")
	t.Run("JSViewer", func(t *testing.T) { jsViewer(t, n) })
	t.Run("AngularVwsViewer", func(t *testing.T) { angular(t, n) })
	t.Run("Tide", func(t *testing.T) { tide(t, n) })
	t.Run("VizTools", func(t *testing.T) { vizTools(t, n) })
	t.Run("version 2 and back", func(t *testing.T) { versions(t, n) })
	n.verify()
}

func jsViewer(t *testing.T, n *node) {
	c := client(n, "/viz")
	c.t, c.header = t, http.Header{"Origin": {page}}
	open := doc{"owner": "bbpvizuser", "configuration_id": "neurons"}
	c.must(404, "DELETE", "/session/", open)
	c.must(201, "POST", "/session/", open)
	c.must(200, "PUT", "/session/schedule", doc{"params": " --model neuron:1", "environment": "EQ_WINDOW_IATTR_HINT_HEIGHT=400,EQ_WINDOW_IATTR_HINT_WIDTH=800"})
	camera := doc{"matrix": []int{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, -1, 1}}
	if status, _ := c.call("PUT", "/session/CAMERA", camera); status < 400 || status >= 500 {
		t.Errorf("a camera before the renderer runs: %d", status)
	}
	now, _ := c.until(3, "", func(float64) { c.must(200, "GET", "/session/log", nil) })
	c.must(200, "GET", "/session/vocabulary", nil)
	uri := c.must(200, "GET", "/session/imagefeed", nil)["uri"].(string)
	if !strings.HasPrefix(uri, strings.TrimPrefix(n.URL, "http:")+"/viz/") {
		t.Errorf("the stream is at %s", uri)
	}
	picture(t, "http:"+uri)
	status, raw := c.raw("GET", "/session/v1/camera", nil)
	if status != 200 || !bytes.Contains(raw, []byte("yaw")) {
		t.Errorf("the renderer's camera: %d %s", status, raw)
	}

	// It is a session like any other: it shows in version 2, with events and decisions.
	s := n.must(200, "GET", base+"/sessions/"+now["session"].(string), nil)
	if s["state"] != "ready" || s["owner"] != "bbpvizuser" || s["renderer"] != "neurons" || s["model"] != "--model neuron:1" || s["decision"] == nil {
		t.Errorf("in version 2 it is %v", s)
	}
	c.must(200, "DELETE", "/session/", open)
	n.state("/sessions/"+now["session"].(string), "released")
	c.must(404, "GET", "/session/status", nil)

	// The next one with the same parameters gets the warm renderer at once.
	c.must(201, "POST", "/session/", open)
	c.must(200, "PUT", "/session/schedule", doc{"params": " --model neuron:1", "environment": "EQ_WINDOW_IATTR_HINT_HEIGHT=400,EQ_WINDOW_IATTR_HINT_WIDTH=800"})
	again := c.must(200, "GET", "/session/status", nil)
	if again["code"] != 3.0 || again["port"] != now["port"] {
		t.Errorf("the second session did not get the warm renderer of %v: %v", now, again)
	}
	c.must(200, "DELETE", "/session/", nil)
}

func angular(t *testing.T, n *node) {
	c := client(n, "")
	c.t, c.header = t, http.Header{"HBP": {"neurons"}, "Origin": {page}}
	current, uri := 0.0, "" // as its controller keeps them
	requests := 0
	var do func(method, command string, body any)
	do = func(method, command string, body any) {
		if requests++; requests > 1000 {
			t.Fatal("it asks for ever")
		}
		_, d := c.call(method, "/session/"+command, body)
		switch command {
		case "status":
			code, ok := d["code"].(float64)
			if !ok {
				code = -1
			}
			current = code
		case "imagefeed":
			if uri, _ = d["uri"].(string); uri == "" {
				t.Fatalf("the stream was asked for once, in vain: %v", d)
			}
		}
		switch {
		case current == 0:
			current = 1
			do("PUT", "open", doc{"params": "--model neuron:2", "environment": ""})
		case current == 3 && uri == "":
			do("GET", "imagefeed", nil)
		}
	}
	do("POST", "", doc{"owner": "neuronsController", "renderer_id": "neurons"})
	for deadline := time.Now().Add(40 * time.Second); uri == ""; pause(t.Context(), every) {
		if do("GET", "status", nil); time.Now().After(deadline) {
			t.Fatalf("no stream; the code is %v", current)
		}
	}
	picture(t, "http:"+uri) // a page of http takes "//host" for it
	do("DELETE", "", nil)
	for range 3 {
		do("GET", "status", nil)
	}
	if current == 0 || current == 1 {
		t.Error("after the end it opens the session again")
	}
}

func tide(t *testing.T, n *node) {
	c := client(n, "")
	c.t = t
	_, raw := c.raw("GET", "/config/", nil)
	var list []doc
	if err := json.Unmarshal(raw, &list); err != nil || len(list) != 2 {
		t.Fatalf("the configurations are %s", raw)
	}
	var ids []string
	for range 2 { // it shows several at once, and its library keeps cookies
		d := c.must(201, "POST", "/session/", doc{"owner": "tide", "configuration_id": "showcase"})
		ids = append(ids, d["session_id"].(string))
		query := "?session_id=" + ids[len(ids)-1]
		c.must(200, "PUT", "/session/schedule"+query, doc{"params": "", "environment": "DEFLECT_HOST=wall.example.org"})
		c.must(200, "GET", "/session/job"+query, nil)
	}
	for _, id := range ids {
		query := "?session_id=" + id
		d, _ := c.until(5, query, nil)
		if d["session_id"] != id {
			t.Errorf("the status is of %v", d)
		}
		if job := c.must(200, "GET", "/session/job"+query, nil)["contents"].(string); !strings.Contains(job, "pid=") && !strings.Contains(job, "PID") {
			t.Errorf("the job is %q", job)
		}
		c.must(200, "GET", "/session/err"+query, nil)
		c.must(200, "GET", "/session/log"+query, nil)
	}
	c.must(404, "DELETE", "/session/?session_id=null", nil)
	for _, id := range ids {
		c.must(200, "DELETE", "/session/?session_id="+id, nil)
		c.must(404, "DELETE", "/session/?session_id="+id, nil)
	}
}

func vizTools(t *testing.T, n *node) {
	c := client(n, "/viz")
	c.t = t
	whole := doc{
		"id": "tools", "command_line": "rrm-renderer", "environment_variables": "A=1", "modules": "", "process_rest_parameters_format": "--listen ${rest_hostname}:${rest_port}",
		"scheduler_rest_parameters_format": "", "project": "p", "queue": "q", "exclusive": false, "nb_nodes": 1, "nb_cpus": 1, "nb_gpus": 0, "memory": 0,
		"graceful_exit": true, "wait_until_running": true, "name": "Tools", "description": "",
	}
	c.must(201, "POST", "/config/", whole)
	c.must(409, "POST", "/config/", whole)
	c.must(200, "PUT", "/config/", whole)
	for _, path := range []string{"/config/", "/session/"} {
		var list []doc
		if status, raw := c.raw("GET", path, nil); status != 200 || json.Unmarshal(raw, &list) != nil {
			t.Errorf("%s is %d %s", path, status, raw)
		}
	}
	c.must(201, "POST", "/session/", doc{"owner": "me", "configuration_id": "tools"})
	c.must(409, "POST", "/session/", doc{"owner": "me", "configuration_id": "tools"})
	c.must(200, "PUT", "/session/schedule", doc{"params": "--model neuron:3", "environment": "", "reservation": ""})
	c.until(3, "", func(float64) {
		for _, command := range []string{"log", "job", "imagefeed"} {
			c.call("GET", "/session/"+command, nil)
		}
	})
	picture(t, "http:"+c.must(200, "GET", "/session/imagefeed", nil)["uri"].(string))
	c.must(409, "DELETE", "/config/", doc{"id": "tools"}) // it is in use
	c.must(200, "DELETE", "/session/", nil)
	c.must(200, "DELETE", "/config/", doc{"id": "tools"})
	c.must(404, "GET", "/session/status", nil)
}

// versions: what is made in one version of the API is there in the other.
func versions(t *testing.T, n *node) {
	c := client(n, "")
	c.t = t
	r := n.must(200, "GET", base+"/renderers/neurons", nil)
	if r["launcher"] != "local" || r["model_loading"] != "none" || r["slots"] != 1.0 || r["description"] != "made through version 1" {
		t.Errorf("the renderer made through version 1 is %v", r)
	}
	n.renderer("loader", doc{"environment_variables": doc{"A": "x, \"y\" $(z)\n"}})
	_, raw := c.raw("GET", "/config/", nil)
	var list []doc
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if d["id"] == "loader" {
			d["description"] = "changed"
			c.must(200, "PUT", "/config/", d)
		}
	}
	r = n.must(200, "GET", base+"/renderers/loader", nil)
	if r["description"] != "changed" || r["model_loading"] != "http" || r["environment_variables"].(doc)["A"] != "x, \"y\" $(z)\n" {
		t.Errorf("after a change through version 1 the renderer is %v", r)
	}
	// The model of an old client's parameters is the model of version 2: it finds it warm.
	first := n.book(doc{"renderer": "loader", "model": "neuron:5"})
	n.must(200, "DELETE", base+"/sessions/"+first, nil)
	id := c.must(201, "POST", "/session/", doc{"owner": "x", "configuration_id": "loader"})["session_id"].(string)
	c.must(200, "PUT", "/session/schedule", doc{"params": "--volume neuron:5"})
	s := n.must(200, "GET", base+"/sessions/"+id, nil)
	if s["state"] != "ready" || s["warm"] != true || s["model"] != "neuron:5" {
		t.Errorf("the old client's session is %v", s)
	}
	picture(t, "http:"+c.must(200, "GET", "/session/imagefeed", nil)["uri"].(string))
	c.must(200, "PUT", "/admin/suspend", nil)
	if a := n.must(200, "GET", base+"/admission", nil); a["open"] != false {
		t.Errorf("admission is %v", a)
	}
	client(n, "").must(403, "POST", "/session/", doc{"owner": "x", "configuration_id": "loader"})
	c.must(200, "PUT", "/admin/resume", nil)
	c.must(200, "DELETE", "/session/", nil)
}

// The demonstration launcher never ends its sessions: their leases do.
func TestV1LeaseCleansUp(t *testing.T) {
	const lease, more = 1500 * time.Millisecond, 500 * time.Millisecond
	n := start(t, func(cfg *service.Config) { cfg.V1.Lease = lease })
	configure(n, "showcase", "rrm-renderer", " --memory-mib 256 --model neuron:1")
	never := client(n, "").must(201, "POST", "/session/", doc{"owner": "x", "configuration_id": "showcase"})["session_id"].(string) // books nothing
	c := client(n, "")
	c.header = http.Header{"HBP": {"showcase"}}
	idle := c.must(201, "POST", "/session/", doc{"owner": "bbpdemolauncher", "renderer_id": "showcase"})["session_id"].(string)
	for begin := time.Now(); time.Since(begin) < lease+more; pause(t.Context(), every) {
		if d := c.must(200, "GET", "/session/status", nil); d["description"] == "" || d["code"] != 0.0 { // it lives on, and holds nothing
			t.Fatalf("the opened session is %v", d)
		}
	}
	c.must(200, "PUT", "/session/schedule", doc{})
	_, seen := c.until(3, "", nil)
	for begin := time.Now(); time.Since(begin) < lease+more; pause(t.Context(), every) {
		c.must(200, "GET", "/session/status", nil)
	}
	if len(seen) < 2 || !strings.Contains(seen[len(seen)-1], "up and running") {
		t.Errorf("the descriptions were %q", seen)
	}
	n.state("/sessions/"+idle, "expired") // nobody looks at v1's status any more
	status, d := c.call("GET", "/session/status", nil)
	if _, has := d["code"]; status != 404 || has || !strings.Contains(d["description"].(string), "lease") {
		t.Errorf("after the end of the lease: %d %v", status, d)
	}
	n.state("/sessions/"+never, "expired")
	n.verify()
}

// What an environment holds reaches the renderer as it is, or is refused; no shell sees it.
func TestV1Environment(t *testing.T) {
	n := start(t, nil)
	configure(n, "plain", "testrenderer", "")
	exact := map[string]string{
		"COMMAS": "a,b,,c", "SPACES": "  a  b ", "QUOTES": `"a" 'b' ` + "`c`", "COMMAND": "$(touch pwned) `id` $HOME ; rm -rf x & | > y", "LINES": "a\nb\r\n\tc", "UNICODE": "ü‹›\u2028", "EMPTY": "",
		"BACK": `a\ b\n\`,
	}
	object, err := json.Marshal(exact)
	if err != nil {
		t.Fatal(err)
	}
	for _, sent := range []struct {
		environment any
		want        map[string]string // nil: refused
	}{
		{exact, exact},
		{string(object), exact},
		{"A=1,B=2 C=3\nD=$(id)", map[string]string{"A": "1", "B": "2", "C": "3", "D": "$(id)"}},
		{`A="x y"`, nil}, {"A=x,y", nil}, {"A=$(touch x)", nil}, {`A="x B=y"`, nil}, {map[string]string{"A": "x\x00"}, nil}, {map[string]string{"A B": "x"}, nil},
	} {
		c := client(n, "")
		c.must(201, "POST", "/session/", doc{"owner": "x", "configuration_id": "plain"})
		if sent.want == nil {
			c.must(400, "PUT", "/session/open", doc{"environment": sent.environment})
			c.must(200, "DELETE", "/session/", nil)
			continue
		}
		c.must(200, "PUT", "/session/open", doc{"params": "-lines 2", "environment": sent.environment})
		c.until(3, "", nil)
		status, raw := c.raw("GET", "/session/env", nil)
		var got map[string]string
		if err := json.Unmarshal(raw, &got); status != 200 || err != nil {
			t.Fatalf("the renderer's environment: %d %s", status, raw)
		}
		for name, value := range sent.want {
			if got[name] != value {
				t.Errorf("%s reached the renderer as %q, not %q", name, got[name], value)
			}
		}
		if log := c.must(200, "GET", "/session/log", nil)["contents"].(string); log != "stdout line 1\nstdout line 2\n" {
			t.Errorf("the log is %q", log)
		}
		c.must(200, "DELETE", "/session/", nil)
	}
	n.verify()
}
