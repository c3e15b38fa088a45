package renderer_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rendering-resource-manager/rrm/adapters/renderer"
	"github.com/rendering-resource-manager/rrm/domain"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(&closing{m})
}

// closing closes the shared connections when the tests are done, before leaks are looked for.
type closing struct{ m *testing.M }

func (c *closing) Run() int {
	defer renderer.CloseIdle()
	return c.m.Run()
}

// serve runs a renderer made of one handler and returns its address.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// says is a renderer that always gives the same answer.
func says(t *testing.T, status int, body string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// hangs is a renderer that answers when the test ends.
func hangs(t *testing.T) string {
	t.Helper()
	end := make(chan struct{})
	address := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(end) })
	return address
}

// nobody is an address that refuses connections.
func nobody(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// breaks is a renderer that closes the connection after some bytes.
func breaks(t *testing.T, after string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, after)
		_ = conn.Close()
	})
}

// all calls every method once.
func all(c *renderer.Client, ctx context.Context) map[string]error {
	errs := map[string]error{}
	_, errs["probe"] = c.Probe(ctx)
	errs["exit"] = c.Exit(ctx)
	_, errs["load"] = c.LoadModel(ctx, "m")
	_, errs["model"] = c.ModelStatus(ctx, "m")
	_, errs["models"] = c.Models(ctx)
	errs["unload"] = c.UnloadModel(ctx, "m")
	_, errs["submit"] = c.SubmitJob(ctx, "j", renderer.JobRequest{Kind: "image", Model: "m"})
	_, errs["job"] = c.JobStatus(ctx, "j")
	errs["cancel"] = c.CancelJob(ctx, "j")
	res, err := c.JobResult(ctx, "j")
	if errs["result"] = err; err == nil {
		_, errs["result"] = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	_, errs["picture"] = c.ImageJPEG(ctx, "s", "m", nil)
	return errs
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		ready  bool
		want   string
	}{
		"full":        {200, `{"name":"n","version":"1","capabilities":["models","jobs"],"job_kinds":["image"]}`, true, "{n 1 [models jobs] [image]}"},
		"empty":       {200, "", true, "{  [] []}"},
		"not JSON":    {200, "<html>", true, "{  [] []}"},
		"wrong types": {200, `{"name":7}`, true, "{  [] []}"},
		"huge":        {200, strings.Repeat("x", 3<<20), true, "{  [] []}"},
		"not ready":   {503, `{"code":"starting","reason":"wait"}`, false, ""},
		"no content":  {204, "", false, ""},
		"not found":   {404, "", false, ""},
	} {
		got, err := renderer.New(says(t, c.status, c.body), renderer.Options{}).Probe(t.Context())
		if (err == nil) != c.ready || c.ready && fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, %v; want ready %v, %s", name, got, err, c.ready, c.want)
		}
	}
	if (renderer.Registry{Capabilities: []string{"models"}}).Can("jobs") {
		t.Error("a renderer can what it does not say")
	}
}

func TestCallsAreWhatTheProtocolSays(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"state":"loaded","progress":7,"models":[{"model":"a","state":"loading"}],"memory_mib":3}`)
	})
	c := renderer.New(address, renderer.Options{})
	jobs := renderer.New(serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, `{"id":"j/1","state":"running","progress":0.5}`)
	}), renderer.Options{})
	ctx := t.Context()
	for _, step := range []struct {
		want string
		call func() error
	}{
		{"PUT /v1/models/neuron:1", func() error {
			m, err := c.LoadModel(ctx, "neuron:1")
			if m.State != renderer.ModelLoaded || m.Progress != 1 {
				t.Errorf("model %+v, want loaded, progress within 0 and 1", m)
			}
			return err
		}},
		{"GET /v1/models/file%2F%2Fa%20b%3F%23%25.obj", func() error { _, err := c.ModelStatus(ctx, "file//a b?#%.obj"); return err }},
		{"DELETE /v1/models/%2E%2E", func() error { return c.UnloadModel(ctx, "..") }},
		{"GET /v1/models", func() error {
			m, err := c.Models(ctx)
			if len(m.Models) != 1 || m.Models[0].Model != "a" || m.MemoryMiB != 3 {
				t.Errorf("models %+v", m)
			}
			return err
		}},
		{"PUT /v1/exit", func() error { return c.Exit(ctx) }},
		{"POST /v1/jobs/j%2F1", func() error {
			j, err := jobs.SubmitJob(ctx, "j/1", renderer.JobRequest{Kind: "image", Model: "m", Spec: json.RawMessage(`{"width": 7}`)})
			if j.State != renderer.JobRunning || j.Progress != 0.5 {
				t.Errorf("job %+v", j)
			}
			if want := `{"kind":"image","model":"m","spec":{"width":7}}`; string(body) != want || got.Header.Get("Content-Type") != "application/json" {
				t.Errorf("sent %s as %s, want %s", body, got.Header.Get("Content-Type"), want)
			}
			return err
		}},
		{"GET /v1/jobs/j%2F1", func() error { _, err := jobs.JobStatus(ctx, "j/1"); return err }},
		{"DELETE /v1/jobs/j%2F1", func() error { return jobs.CancelJob(ctx, "j/1") }},
	} {
		if err := step.call(); err != nil {
			t.Errorf("%s: %v", step.want, err)
		}
		if request := got.Method + " " + got.RequestURI; request != step.want {
			t.Errorf("sent %s, want %s", request, step.want)
		}
		if _, sent := got.Header["Idempotency-Key"]; sent {
			t.Errorf("%s: an Idempotency-Key was sent", step.want)
		}
	}
}

func TestPicture(t *testing.T) {
	t.Parallel()
	picture := strings.Repeat("jpeg", 1<<19) // more than MaxBody
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-RRM-Session") != "s" || r.Header.Get("X-RRM-Model") != "größe:1" || r.URL.Query().Get("width") != "640" {
			t.Errorf("got %s with %v", r.URL, r.Header)
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"data": base64.StdEncoding.EncodeToString([]byte(picture))})
	})
	got, err := renderer.New(address, renderer.Options{}).ImageJPEG(t.Context(), "s", "größe:1", url.Values{"width": {"640"}})
	if err != nil || string(got) != picture {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(picture))
	}
}

func TestErrorsKeepWhatTheRendererSays(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		want   renderer.Error
	}{
		"as the protocol says": {422, `{"code":"model_invalid","reason":"no faces","field":"spec.x"}`, renderer.Error{Status: 422, Code: "model_invalid", Reason: "no faces", Field: "spec.x"}},
		"text":                 {500, "it\nbroke\x00", renderer.Error{Status: 500, Code: "unexpected_status", Reason: "it broke"}},
		"nothing":              {507, "", renderer.Error{Status: 507, Code: "unexpected_status", Reason: "Insufficient Storage"}},
		"long":                 {500, strings.Repeat("é", 5000), renderer.Error{Status: 500, Code: "unexpected_status", Reason: strings.Repeat("é", 250)}},
		"redirect":             {302, "", renderer.Error{Status: 302, Code: "unexpected_status", Reason: "Found"}},
	} {
		for method, err := range all(renderer.New(says(t, c.status, c.body), renderer.Options{}), t.Context()) {
			var e *renderer.Error
			if !errors.As(err, &e) || *e != c.want {
				t.Errorf("%s, %s: got %v, want %v", name, method, err, &c.want)
			}
			if errors.Is(err, renderer.ErrUnreachable) || errors.Is(err, renderer.ErrNoAnswer) {
				t.Errorf("%s, %s: %v counts as unreachable", name, method, err)
			}
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	huge := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for range 1 << 10 {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return // the client had enough
			}
		}
		if !strings.HasSuffix(r.URL.Path, "/result") {
			t.Errorf("%s %s: all 64 MiB of the answer were read", r.Method, r.URL)
		}
	})
	unknownState := says(t, 200, `{"state":"dancing","models":[{"state":"dancing"}]}`)
	html := says(t, 200, "<html>")
	for name, address := range map[string]string{"huge": huge, "unknown state": unknownState, "not JSON": html} {
		for method, err := range all(renderer.New(address, renderer.Options{MaxJPEG: 1 << 20}), t.Context()) {
			switch method {
			case "probe", "result":
				continue // any 200 is an answer
			case "exit", "unload", "cancel":
				if name != "huge" {
					continue // nothing is expected in the body
				}
			}
			var e *renderer.Error
			if !errors.As(err, &e) || e.Code != renderer.CodeBadAnswer {
				t.Errorf("%s, %s: got %v, want %s", name, method, err, renderer.CodeBadAnswer)
			}
		}
	}
}

func TestAnotherJobsAnswerIsNotTaken(t *testing.T) {
	t.Parallel()
	c := renderer.New(says(t, 200, `{"id":"other","state":"succeeded"}`), renderer.Options{})
	if j, err := c.JobStatus(t.Context(), "mine"); err == nil {
		t.Errorf("got %+v", j)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	live := says(t, 200, `{"state":"loaded"}`)
	for name, address := range map[string]string{
		"a user of a live one": "user@" + live, "a query of a live one": "?x=" + live, "a scheme of a live one": "http://" + live,
		"nobody": nobody(t), "no address": "", "no port": "localhost", "a URL": "http://localhost:80", "a user": "user@localhost:80", "a path": "localhost:80/x",
		"closed at once": breaks(t, ""), "closed in the header": breaks(t, "HTTP/1.1 200 O"), "not HTTP": breaks(t, "SSH-2.0-OpenSSH\r\n"),
		"closed in the body": breaks(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
	} {
		for method, err := range all(renderer.New(address, renderer.Options{}), t.Context()) {
			if method == "result" && name == "closed in the body" {
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("a result that breaks off: %v, want an error of reading", err)
				}
				continue
			}
			if !errors.Is(err, renderer.ErrUnreachable) {
				t.Errorf("%s, %s: got %v, want unreachable", name, method, err)
			}
		}
	}
}

func TestARendererThatHangs(t *testing.T) {
	t.Parallel()
	address := hangs(t)
	start := time.Now()
	for method, err := range all(renderer.New(address, renderer.Options{Timeout: 50 * time.Millisecond}), t.Context()) {
		if !errors.Is(err, renderer.ErrNoAnswer) || errors.Is(err, renderer.ErrUnreachable) {
			t.Errorf("%s: got %v, want no answer", method, err)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := renderer.New(address, renderer.Options{}).Probe(ctx); !errors.Is(err, renderer.ErrNoAnswer) {
		t.Errorf("with the caller's deadline: %v, want no answer", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	for method, err := range all(renderer.New(address, renderer.Options{}), ctx) {
		if !errors.Is(err, context.Canceled) || errors.Is(err, renderer.ErrUnreachable) || errors.Is(err, renderer.ErrNoAnswer) {
			t.Errorf("%s: got %v, want the caller's own cancelling", method, err)
		}
	}
}

func TestNothingButTheGivenAddressIsAsked(t *testing.T) {
	elsewhere := serve(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("asked elsewhere: %s %s", r.Method, r.URL) })
	t.Setenv("HTTP_PROXY", "http://"+elsewhere)
	t.Setenv("http_proxy", "http://"+elsewhere)
	here := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+elsewhere+"/", http.StatusTemporaryRedirect)
	})
	for method, err := range all(renderer.New(here, renderer.Options{}), t.Context()) {
		var e *renderer.Error
		if !errors.As(err, &e) || e.Status != http.StatusTemporaryRedirect {
			t.Errorf("%s: got %v, want the redirect as an error", method, err)
		}
	}
	// Proxies are not used for loopback addresses anyway, so look at the setting itself.
	if renderer.NewTransport().Proxy != nil {
		t.Error("proxies of the environment are used")
	}
}

func TestResultStreams(t *testing.T) {
	t.Parallel()
	const size = 5 << 20 // more than MaxBody
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/v1/jobs/j/result" {
			t.Errorf("asked for %s", r.RequestURI)
		}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = w.Write(make([]byte, size))
	})
	// The timeout is for the header; the body may take its time.
	res, err := renderer.New(address, renderer.Options{}).JobResult(t.Context(), "j")
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n != size || res.Size != size || res.ContentType != "image/png" {
		t.Errorf("%d bytes of %d, %q, %v", n, res.Size, res.ContentType, err)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
}

func TestAResultThatStalls(t *testing.T) {
	t.Parallel()
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "beginning")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done() // the client must hang up
	})
	c := renderer.New(address, renderer.Options{Stall: 100 * time.Millisecond})
	res, err := c.JobResult(t.Context(), domain.JobID("j"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if string(got) != "beginning" || !errors.Is(err, renderer.ErrNoAnswer) {
		t.Errorf("got %q, %v; want the beginning, then no answer", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	res, err = c.JobResult(ctx, "j")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	cancel()
	if _, err := io.ReadAll(res.Body); !errors.Is(err, context.Canceled) || errors.Is(err, renderer.ErrNoAnswer) {
		t.Errorf("got %v, want the caller's own cancelling", err)
	}
}
