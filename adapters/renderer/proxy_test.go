package renderer_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/renderer"
)

const prefix = "/api/sessions/s1/renderer"

// front serves a proxy to one address, as httpapi does, and returns its URL with the prefix.
type front struct {
	url    string
	active atomic.Int64
	cut    context.CancelFunc // ends the session
}

func newFront(t *testing.T, address string, opts renderer.ProxyOptions) *front {
	t.Helper()
	p := renderer.NewProxy(opts)
	session, cut := context.WithCancel(context.Background())
	f := &front{cut: cut}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(session, cancel)()
		p.ServeHTTP(w, r.WithContext(ctx), address, prefix, "s1", "neuron:1", func() { f.active.Add(1) })
	}))
	t.Cleanup(func() { cut(); s.Close(); p.Close() })
	f.url = s.URL + prefix
	return f
}

// plainly does a request without following redirects or changing its path.
func plainly(t *testing.T, method, address string, header http.Header, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	c := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestProxyPassesOn(t *testing.T) {
	t.Parallel()
	type seen struct {
		Method, URI, Host, Body string
		Header                  http.Header
	}
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Mine", "yes")
		w.Header().Set("Set-Cookie", "HBP=stolen")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.WriteHeader(http.StatusTeapot)
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, string(body), r.Header})
	})
	f := newFront(t, address, renderer.ProxyOptions{DropQuery: []string{"token"}})
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/v1/camera", "/v1/camera"},
		{"PUT", "/v1/camera?a=1&b=%20x&token=secret&c", "/v1/camera?a=1&b=%20x&c"},
		{"GET", "", "/"},
		{"GET", "/", "/"},
		{"POST", "/a//b/", "/a//b/"},
		{"GET", "/v1/models", "/v1/models"},
		{"GET", "/v1/models/file%2Fa%20b.obj", "/v1/models/file%2Fa%20b.obj"},
		{"GET", "/v1/models/100%25", "/v1/models/100%25"},
		{"PATCH", "/gr%C3%B6%C3%9Fe", "/gr%C3%B6%C3%9Fe"},
		{"PUT", "/CAMERA", "/CAMERA"},
		{"GET", "/registry", "/registry"},
		{"GET", "/v1/existing", "/v1/existing"},
		{"PUT", "/v1/modelsque", "/v1/modelsque"},
	} {
		res := plainly(t, c.method, f.url+c.path, http.Header{
			"Authorization": {"Bearer secret"}, "Cookie": {"HBP=secret"}, "Idempotency-Key": {"secret"}, "Proxy-Authorization": {"secret"},
			"X-RRM-Session": {"another"}, "X-RRM-Model": {"another"}, "X-Rrm-Secret": {"x"}, "X-HTTP-Method-Override": {"DELETE"}, "Origin": {"http://evil"},
			"X-Forwarded-For": {"1.2.3.4"}, "Connection": {"X-Hop"}, "X-Hop": {"x"}, "Accept": {"image/png"}, "X-Kept": {"a", "b"},
		}, "the body")
		var got seen
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusTeapot || res.Header.Get("X-Mine") != "yes" {
			t.Errorf("%s: answered %s with %v, want the renderer's own", c.path, res.Status, res.Header)
		}
		if res.Header.Get("Set-Cookie")+res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: headers that are rrm's to set came through: %v", c.path, res.Header)
		}
		if got.Method != c.method || got.URI != c.want || got.Host != address || got.Body != "the body" {
			t.Errorf("%s %s: the renderer saw %+v, want %s", c.method, c.path, got, c.want)
		}
		for _, name := range []string{
			"Authorization", "Cookie", "Idempotency-Key", "Proxy-Authorization", "X-Rrm-Secret", "X-Http-Method-Override", "Origin", "X-Hop", "Connection",
		} {
			if v, passed := got.Header[name]; passed {
				t.Errorf("%s: %s passed on: %q", c.path, name, v)
			}
		}
		for name, want := range map[string]string{
			"X-Rrm-Session": "s1", "X-Rrm-Model": "neuron:1", "Accept": "image/png", "X-Kept": "a,b", "X-Forwarded-For": "127.0.0.1",
			"X-Forwarded-Proto": "http", "X-Forwarded-Host": strings.TrimPrefix(strings.TrimSuffix(f.url, prefix), "http://"),
		} {
			if v := strings.Join(got.Header[name], ","); v != want {
				t.Errorf("%s: the renderer saw %s: %q, want %q", c.path, name, v, want)
			}
		}
	}
}

// direct calls the proxy with a path that no client library would send.
func direct(t *testing.T, method, path string, reached *bool) (status int, code string) {
	t.Helper()
	address := serve(t, func(http.ResponseWriter, *http.Request) { *reached = true })
	p := renderer.NewProxy(renderer.ProxyOptions{})
	defer p.Close()
	r := httptest.NewRequest(method, "/", nil)
	plain, err := url.PathUnescape(prefix + path)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Path, r.URL.RawPath = plain, prefix+path
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r, address, prefix, "s1", "m", nil)
	var body struct{ Code string }
	_ = json.Unmarshal(w.Body.Bytes(), &body)
	return w.Code, body.Code
}

func TestProxyRefusesPathsThatLeadOut(t *testing.T) {
	t.Parallel()
	for _, path := range []string{
		"/..", "/../x", "/a/../v1/exit", "/a/..", "/.", "/a/./b", "/%2e%2e/x", "/%2E./x", "/a%2f..%2fb", "/a%5c..%5cb", `/a\..\b`, "/..;x/y", "/%252e%252e/x", "/%25252e%25252e/x", "/%252e%252e/%25zz",
		"/a%00b", "/a%0d%0ab", "/a%7fb", "/a%ffb", "/%2525252525252541", "x", "x/y",
	} {
		reached := false
		status, code := direct(t, http.MethodGet, path, &reached)
		if status != http.StatusBadRequest || code != renderer.CodeBadPath || reached {
			t.Errorf("%s: answered %d %s, reached the renderer: %v; want 400 %s", path, status, code, reached, renderer.CodeBadPath)
		}
	}
}

func TestProxyRefusesToAdministrate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ method, path string }{
		{"PUT", "/v1/exit"}, {"GET", "/v1/exit"}, {"POST", "/exit"}, {"PUT", "/V1/EXIT"}, {"PUT", "/EXIT"}, {"PUT", "//v1//exit/"}, {"PUT", "/v1/%65xit"}, {"PUT", "/v1%2Fexit"}, {"PUT", "/v1/exit;x=1"}, {"PUT", "/v1;x/exit"},
		{"PUT", "/v1/%2565xit"}, {"PUT", `/v1%5Cexit`}, {"PUT", "/v1/exit%20"}, {"PUT", "/v1/exit/more"},
		{"PUT", "/registry"}, {"POST", "/registry/"}, {"PUT", "/v1/registry"},
		{"PUT", "/v1/models/neuron:2"}, {"DELETE", "/v1/models/neuron:1"}, {"POST", "/v1/models"}, {"PUT", "/v1/Models/x"}, {"PATCH", "/v1/models%2Fx"},
		{"POST", "/v1/jobs/j1"}, {"GET", "/v1/jobs/j1"}, {"GET", "/v1/jobs"}, {"DELETE", "/v1/jobs/j1"}, {"GET", "/v1/jobs/j1/result"},
	} {
		reached := false
		status, code := direct(t, c.method, c.path, &reached)
		if status != http.StatusForbidden || code != renderer.CodeAdministrated || reached {
			t.Errorf("%s %s: answered %d %s, reached the renderer: %v; want 403", c.method, c.path, status, code, reached)
		}
	}
	for _, method := range []string{http.MethodTrace, http.MethodConnect} {
		reached := false
		if status, _ := direct(t, method, "/v1/camera", &reached); status != http.StatusMethodNotAllowed || reached {
			t.Errorf("%s: answered %d, reached the renderer: %v; want 405", method, status, reached)
		}
	}
}

func TestProxyRedirectsStayOnTheResource(t *testing.T) {
	t.Parallel()
	var address string
	address = serve(t, func(w http.ResponseWriter, r *http.Request) {
		to := strings.ReplaceAll(r.URL.Query().Get("to"), "SELF", address)
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	})
	f := newFront(t, address, renderer.ProxyOptions{})
	for to, want := range map[string]string{
		"/x?a=1#f":            prefix + "/x?a=1#f",
		"y":                   prefix + "/dir/y",
		"../../../../admin":   prefix + "/admin",
		"http://SELF/z%2Fz":   prefix + "/z%2Fz",
		"//SELF/z":            prefix + "/z",
		"http://evil/x":       "",
		"//evil/x":            "",
		"https://SELF/x":      "",
		"http://u@SELF/x":     "",
		"javascript:alert(1)": "",
		"http://[broken":      "",
		"\\\\evil\\x":         prefix + "/dir/%5C%5Cevil%5Cx",
		"?again":              prefix + "/dir/page?again",
	} {
		res := plainly(t, http.MethodGet, f.url+"/dir/page?to="+url.QueryEscape(to), nil, "")
		if got := res.Header.Get("Location"); res.StatusCode != http.StatusFound || got != want {
			t.Errorf("%s: answered %s to %q, want %q", to, res.Status, got, want)
		}
	}
}

func TestProxyFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		address string
		status  int
		code    string
	}{
		"nobody": {nobody(t), 502, renderer.CodeUnreachable}, "hangs": {hangs(t), 504, renderer.CodeNoAnswer}, "closes": {breaks(t, ""), 502, renderer.CodeUnreachable},
		"not HTTP": {breaks(t, "hello\r\n"), 502, renderer.CodeUnreachable}, "no address": {"", 502, renderer.CodeUnreachable}, "a URL": {"http://x:1/y", 502, renderer.CodeUnreachable},
	} {
		var reason string
		f := newFront(t, c.address, renderer.ProxyOptions{
			HeaderTimeout: 100 * time.Millisecond,
			Fail: func(w http.ResponseWriter, _ *http.Request, status int, code, why string) {
				reason = why
				w.WriteHeader(status)
				_, _ = io.WriteString(w, code)
			},
		})
		res := plainly(t, http.MethodGet, f.url+"/v1/image", nil, "")
		code, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != c.status || string(code) != c.code || reason == "" || c.address != "" && strings.Contains(reason, c.address) {
			t.Errorf("%s: answered %d %s (%s), %v; want %d %s", name, res.StatusCode, code, reason, err, c.status, c.code)
		}
	}
}

// streams is a renderer whose stream has a frame every 20 ms until the client
// hangs up, which ended tells.
func streams(t *testing.T) (address string, ended <-chan struct{}) {
	end := make(chan struct{}, 1)
	address = serve(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { end <- struct{}{} }()
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := io.WriteString(w, "frame\n"); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	})
	return address, end
}

func within(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(5 * time.Second):
		t.Errorf("not within 5 s: %s", what)
	}
}

func TestProxyStreamsAndTellsOfActivity(t *testing.T) {
	t.Parallel()
	address, ended := streams(t)
	f := newFront(t, address, renderer.ProxyOptions{HeaderTimeout: time.Second}) // which is over before the stream is
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/v1/stream", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	start := time.Now()
	frames := 0
	for lines := bufio.NewScanner(res.Body); time.Since(start) < 2500*time.Millisecond; frames++ {
		if !lines.Scan() || lines.Text() != "frame" {
			t.Fatalf("after %d frames came %q, %v", frames, lines.Text(), lines.Err())
		}
	}
	if frames < 20 {
		t.Errorf("%d frames in 2.5 s, want them as they come, every 20 ms", frames)
	}
	if n := f.active.Load(); n != 3 {
		t.Errorf("told of activity %d times in 2.5 s, want at the beginning and once a second", n)
	}
	cancel()
	within(t, "the renderer sees that the client has gone", ended)
}

func TestProxyCutsAStreamWhenTheSessionEnds(t *testing.T) {
	t.Parallel()
	address, ended := streams(t)
	f := newFront(t, address, renderer.ProxyOptions{})
	res := plainly(t, http.MethodGet, f.url+"/v1/stream", nil, "")
	if _, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	f.cut()
	within(t, "the renderer sees that the session has ended", ended)
	if _, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Error("the client took the cut stream for a whole one")
	}
}
