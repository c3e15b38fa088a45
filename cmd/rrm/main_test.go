package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// runItself makes the test's own program behave as rrm, for tests that need a process.
const runItself = "TEST_RUN_RRM"

func TestMain(m *testing.M) {
	if os.Getenv(runItself) != "" {
		main()
	}
	for _, kv := range os.Environ() { // settings of whoever runs the tests
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "RRM_") && name != "RRM_POSTGRES_BIN" {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

// outcome is what a run of the program left.
type outcome struct {
	code     int
	out, err string
}

func rrm(t *testing.T, args ...string) outcome {
	t.Helper()
	return rrmWith(t, t.Context(), "", args...)
}

func rrmWith(t *testing.T, ctx context.Context, stdin string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(ctx, args, strings.NewReader(stdin), &out, &errs)
	return outcome{code, out.String(), errs.String()}
}

// answers maps "GET /sessions" (below the base path) to what the service answers.
type answers map[string]http.HandlerFunc

// service is a server that knows these answers and no others; RRM_SERVER names it.
func (a answers) serve(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range a {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+client.BasePath+path, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(404, client.Problem{Code: "not_found", Detail: r.Method + " " + r.URL.Path + " is not there"})(w, r)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Setenv("RRM_SERVER", s.URL)
	return s
}

func ok(v any) http.HandlerFunc { return status(http.StatusOK, v) }

func status(code int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if raw, text := v.(string); text {
			_, _ = io.WriteString(w, raw)
			return
		}
		_ = json.NewEncoder(w).Encode(v)
	}
}

func problem(code int, p client.Problem) http.HandlerFunc {
	p.Status = code
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(p)
	}
}

var longAgo = time.Now().Add(-3*time.Hour - time.Minute)

const (
	idA = "0193b2a0-6d2c-7b1e-8a54-0f2faaaaaaaa"
	idB = "0193b2a0-6d2c-7b1e-8a54-0f2fbbbbbbbb"
)

func aSession(id string, state client.SessionState) client.Session {
	return client.Session{
		ID: id, Renderer: "demo", Model: "neuron:1", Owner: "alice", State: state, StateSince: longAgo, RequestedAt: longAgo,
		URL: client.BasePath + "/sessions/" + id + "/renderer/", LeaseSeconds: 60, OnLost: "end", Resource: "demo-1-ab12",
	}
}

func aJob(id string, state client.JobState) client.Job {
	return client.Job{
		ID: id, Renderer: "demo", Model: "neuron:1", Kind: "image", Owner: "alice", State: state, StateSince: longAgo,
		SubmittedAt: longAgo, MaxAttempts: 3, TimeoutSeconds: 60,
	}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q:\n%s", what, part, text)
		}
	}
}

// A command that ends as documented, whatever went wrong.
func TestExitCodes(t *testing.T) {
	busy := problem(503, client.Problem{Code: "no_capacity", Detail: "all in use"})
	answers{
		"GET /sessions":        ok(client.SessionList{}),
		"GET /sessions/broken": problem(500, client.Problem{Code: "internal", Detail: "see the service's log", RequestID: "r17"}),
		"GET /sessions/proxy":  problem(502, client.Problem{}),
		"POST /sessions":       busy,
		"GET /pools/demo":      problem(401, client.Problem{Code: "unauthenticated", Detail: "send a token"}),
		"GET /pools/text":      ok("<html>hello</html>"),
	}.serve(t)
	for _, c := range []struct {
		args string
		code int
		err  string // part of stderr
	}{
		{"sessions", exitOK, ""},
		{"version", exitOK, ""},
		{"--help", exitOK, ""},
		{"", exitOK, ""},
		{"sessions broken", exitFailure, "request r17"},
		{"sessions proxy", exitFailure, "502"},
		{"pool text", exitFailure, "cannot be read"},
		{"frobnicate", exitUsage, `unknown command "frobnicate"`},
		{"renderers frobnicate", exitUsage, "takes no arguments"},
		{"sessions --frobnicate", exitUsage, "unknown flag"},
		{"sessions a b", exitUsage, `there is "b" too`},
		{"book demo", exitUsage, "book needs RENDERER MODEL"},
		{"book demo m --wait soon", exitUsage, "--wait is a time"},
		{"book demo m --params [1]", exitUsage, "--params is a JSON object"},
		{"book demo m --param x", exitUsage, "KEY=VALUE"},
		{"submit demo m --deadline never", exitUsage, "--deadline is a time"},
		{"submit demo m --spec 7", exitUsage, "--spec is not a JSON object"},
		{"submit demo m --spec @/no/such/file", exitUsage, "there is no file /no/such/file"},
		{"sessions -o xml", exitUsage, "table or json"},
		{"sessions --request-timeout 0", exitUsage, "--request-timeout"},
		{"sessions --server here", exitUsage, "not like http://HOST:PORT"},
		{"resources --logs", exitUsage, "--logs needs"},
		{"renderers apply", exitUsage, "-f FILE"},
		{"token", exitUsage, "create, list or revoke"},
		{"token create --role king --owner x", exitUsage, "--role is one of"},
		{"token create --role client", exitUsage, "--owner NAME"},
		{"serve --listen here", exitUsage, "HOST:PORT"},
		{"serve extra", exitUsage, "takes no arguments"},
		{"book demo m", exitRefused, "refused: all in use (no_capacity)"},
		{"pool demo", exitRefused, "RRM_TOKEN"},
		{"job nothing", exitRefused, "not_found"},
		{"sessions --server http://127.0.0.1:1", exitUnreachable, "rrm serve --demo"},
	} {
		got := rrm(t, strings.Fields(c.args)...)
		if got.code != c.code {
			t.Errorf("rrm %s: exit code %d, want %d: %s", c.args, got.code, c.code, got.err)
		}
		contains(t, "stderr of rrm "+c.args, got.err, c.err)
		if c.code != exitOK && got.out != "" {
			t.Errorf("rrm %s: wrote to stdout: %s", c.args, got.out)
		}
	}
}

func TestARefusalSaysWhatToDo(t *testing.T) {
	answers{"POST /sessions": problem(503, client.Problem{
		Code: "no_capacity", Detail: "all 4 slots are in use", RetryAfterSeconds: 12,
		Queue: client.QueueLength{Waiting: 3}, Decision: client.DecisionRef{Position: 4711},
	})}.serve(t)
	got := rrm(t, "book", "demo", "neuron:1")
	contains(t, "stderr", got.err, "all 4 slots are in use (no_capacity)", "Try again in 12 s (3 wait already)", "--wait", "rrm explain 4711")
}

// No answer within the time of a request: the service counts as unreachable.
func TestRequestTimeout(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	answers{"GET /sessions": func(http.ResponseWriter, *http.Request) { <-stop }}.serve(t)
	t.Setenv("RRM_REQUEST_TIMEOUT", "50ms")
	got := rrm(t, "sessions")
	if got.code != exitUnreachable || !strings.Contains(got.err, "no answer in time") {
		t.Errorf("%d %s", got.code, got.err)
	}
}

func TestTokenIsSent(t *testing.T) {
	var seen []string
	answers{"GET /sessions": func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		ok(client.SessionList{})(w, r)
	}}.serve(t)
	rrm(t, "sessions")
	t.Setenv("RRM_TOKEN", "one")
	rrm(t, "sessions")
	rrm(t, "sessions", "--token", "two")
	if got := strings.Join(seen, ","); got != ",Bearer one,Bearer two" {
		t.Errorf("sent %q", got)
	}
}
