package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
	"github.com/rendering-resource-manager/rrm/projections"
)

const base = "/rendering-resource-manager/v2"

// binDir holds the programs, built once for all tests of the package.
var binDir string

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveVariable); dir != "" {
		os.Exit(serve(dir))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "rrm-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	root := "github.com/rendering-resource-manager/rrm/"
	for _, program := range []string{"cmd/rrm", "cmd/rrm-renderer", "adapters/launch/launchtest/testrenderer"} {
		out, err := exec.Command("go", "build", "-o", dir+"/", root+program).CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", program, err, out)
			return 1
		}
	}
	binDir = dir
	if err := os.Setenv("PATH", dir+":"+os.Getenv("PATH")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// node is a running service with its URL, as a client sees it.
type node struct {
	t   *testing.T
	URL string
	*service.Service
}

// start runs a service on a database of its own. Tests that mostly wait, and
// bound no time tightly, run beside each other.
func start(t *testing.T, change func(*service.Config)) *node {
	t.Helper()
	cfg := service.Config{
		Listen: "127.0.0.1:0", DataDir: t.TempDir(), Keep: time.Hour, MaxResultBytes: 64 << 20, Log: logger(t),
	}
	if change != nil {
		change(&cfg)
	}
	if cfg.DatabaseURL == "" {
		cfg.DatabaseURL = dbtest.DSN(t)
	}
	s, err := service.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, URL: s.URL, Service: s}
	t.Cleanup(func() {
		if !cfg.NoManagers {
			n.stopAll()
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

func logger(t *testing.T) *slog.Logger {
	t.Helper()
	if os.Getenv("RRM_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// stopAll leaves no renderer running after a test.
func (n *node) stopAll() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	pools, err := n.Reader.Pools(ctx)
	if err != nil {
		return
	}
	for _, p := range pools {
		set := p.Settings
		set.Scaling = domain.ScalingSettings{}
		_, _ = n.Handler.ConfigureRenderer(ctx, commands.Call{Actor: "test"}, pool.ConfigureRenderer{Renderer: set})
	}
	for ctx.Err() == nil {
		live, err := n.Work.LiveResources(ctx)
		if err != nil || len(live) == 0 {
			return
		}
		for _, r := range live {
			_, _ = n.Handler.StopResource(ctx, commands.Call{Actor: "test"}, pool.StopResource{Resource: r.ID, Reason: "the test ends"})
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// eventually waits for a condition, looking often.
func eventually(t *testing.T, within time.Duration, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); ; pause(t.Context(), 10*time.Millisecond) {
		if is() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

type doc = map[string]any

// call sends a request and gives status, headers and the JSON that came back (nil if none).
func (n *node) call(method, path string, body any, header ...string) (int, http.Header, doc) {
	n.t.Helper()
	status, h, raw := n.raw(method, path, body, header...)
	var d doc
	if len(raw) > 0 && strings.Contains(h.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &d); err != nil {
			n.t.Fatalf("%s %s: %v in %s", method, path, err, raw)
		}
	}
	return status, h, d
}

func (n *node) raw(method, path string, body any, header ...string) (int, http.Header, []byte) {
	n.t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			n.t.Fatal(err)
		}
		r = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, n.URL+path, r)
	if err != nil {
		n.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, res.Header, raw
}

// must is call that expects a status.
func (n *node) must(want int, method, path string, body any, header ...string) doc {
	n.t.Helper()
	status, _, d := n.call(method, path, body, header...)
	if status != want {
		n.t.Fatalf("%s %s: %d, not %d: %v", method, path, status, want, d)
	}
	return d
}

// renderer configures a renderer with the reference renderer, changed as need be.
func (n *node) renderer(id string, change doc) {
	n.t.Helper()
	set := doc{
		"command_line": "rrm-renderer", "process_rest_parameters_format": "--listen ${rest_hostname}:${rest_port} --memory-mib 256",
		"launcher": "local", "model_loading": "http", "slots": 1, "models_per_resource": 2, "memory_mib": 256,
		"scaling": doc{"min": 0, "max": 4, "idle": "30s"},
		"probe":   doc{"start_timeout": "10s", "interval": "500ms", "timeout": "500ms", "failures": 3},
	}
	for k, v := range change {
		set[k] = v
	}
	status, _, d := n.call("PUT", base+"/renderers/"+id, set)
	if status != 200 && status != 201 {
		n.t.Fatalf("configure %s: %d %v", id, status, d)
	}
}

// book books and waits until the session is ready.
func (n *node) book(body doc) string {
	n.t.Helper()
	if _, ok := body["wait"]; !ok {
		body["wait"] = "60s"
	}
	status, _, d := n.call("POST", base+"/sessions", body)
	if status != 201 && status != 202 {
		n.t.Fatalf("book: %d %v", status, d)
	}
	id := d["id"].(string)
	n.state("/sessions/"+id, "ready")
	return id
}

// state waits until something is in a state, and gives it.
func (n *node) state(path string, want string) doc {
	n.t.Helper()
	var d doc
	eventually(n.t, 30*time.Second, path+" is "+want, func() bool {
		d = n.must(200, "GET", base+path, nil)
		return d["state"] == want
	})
	return d
}

// verify folds the log and expects every live row to be what came out.
func (n *node) verify() {
	n.t.Helper()
	v, err := projections.Verify(context.Background(), n.DB, nil, func(d projections.Difference) { n.t.Errorf("verify: %s", d) })
	if err != nil {
		n.t.Fatal(err)
	}
	if v.Events == 0 {
		n.t.Error("verify: the log is empty")
	}
}

// process finds the renderer of a resource on this machine.
func (n *node) process(resource string) int {
	n.t.Helper()
	r, err := n.Reader.Resource(n.t.Context(), domain.ResourceID(resource))
	if err != nil {
		n.t.Fatal(err)
	}
	var h struct{ PID int }
	if err := json.Unmarshal(r.Handle, &h); err != nil || h.PID == 0 {
		n.t.Fatalf("the handle of %s names no process: %s", resource, r.Handle)
	}
	return h.PID
}

func program(name string) string { return filepath.Join(binDir, name) }
