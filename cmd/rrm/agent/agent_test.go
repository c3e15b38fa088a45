package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// beRenderer makes the test's own program a renderer as small as one can be.
const beRenderer = "TEST_BE_RENDERER"

func TestMain(m *testing.M) {
	if os.Getenv(beRenderer) != "" {
		serveRenderer(os.Args[1])
	}
	os.Exit(m.Run())
}

func serveRenderer(listen string) {
	if listen == "exit" {
		os.Exit(7)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /registry", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"name":"test"}`) })
	mux.HandleFunc("PUT /v1/exit", func(http.ResponseWriter, *http.Request) { time.AfterFunc(10*time.Millisecond, func() { os.Exit(0) }) })
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(append([]string{strconv.Itoa(os.Getpid())}, os.Environ()...))
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(listen, mux))
	os.Exit(1)
}

// desk is a service as an agent sees it. Answers are taken from the front of
// its lists; when one is empty the answer is that all is well.
type desk struct {
	mu                     sync.Mutex
	registering, beating   []int                // statuses
	state                  client.ResourceState // in heartbeats
	codes                  map[int]string
	keys, addresses, paths []string
	n                      int
	changed                chan struct{}
}

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() { close(d.changed); d.changed = make(chan struct{}) }()
	path := strings.TrimPrefix(r.URL.Path, client.BasePath)
	d.paths = append(d.paths, r.Method+" "+path+" "+r.Header.Get("Authorization"))
	status, body := http.StatusOK, any(client.Resource{})
	take := func(list *[]int) {
		if len(*list) > 0 {
			status, *list = (*list)[0], (*list)[1:]
			body = client.Problem{Status: status, Code: d.codes[status], Detail: "no"}
		}
	}
	switch {
	case r.Method == "GET":
		body = client.Renderer{ID: "gpu", Launcher: "static", GracefulExit: true, WaitUntilRunning: true}
	case path == "/resources":
		var in client.ResourceRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		d.n++
		d.keys, d.addresses = append(d.keys, r.Header.Get("Idempotency-Key")), append(d.addresses, in.Address)
		status, body = http.StatusCreated, client.Resource{ID: fmt.Sprintf("r-%d", d.n), HeartbeatSeconds: 0.05, HeartbeatToken: fmt.Sprintf("token-%d", d.n)}
		take(&d.registering)
	case strings.HasSuffix(path, "/heartbeat"):
		body = client.Heartbeat{State: d.state, HeartbeatSeconds: 0.05}
		take(&d.beating)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// run is an agent at work.
type run struct {
	*desk
	t      *testing.T
	end    context.CancelFunc
	err    chan error
	mu     sync.Mutex
	output bytes.Buffer
}

func (r *run) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.Write(p)
}

func begin(t *testing.T, d *desk, change func(*Settings)) *run {
	t.Helper()
	t.Setenv(beRenderer, "1")
	d.changed = make(chan struct{})
	if d.state == "" {
		d.state = "ready"
	}
	d.codes = map[int]string{409: "address_in_use", 410: "resource_ended", 422: "address_not_allowed", 429: "quota_exceeded", 503: "store_unavailable"}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	api, err := client.New(server.URL, "operator", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &run{desk: d, t: t, end: cancel, err: make(chan error, 1)}
	set := Settings{
		API: api.ClientInterface, Renderer: "gpu", Host: "127.0.0.1", Command: []string{os.Args[0], "${rest_hostname}:${rest_port}"},
		Log: slog.New(slog.NewTextHandler(r, nil)), Output: r, pause: 10 * time.Millisecond,
	}
	if change != nil {
		change(&set)
	}
	go func() { r.err <- Run(ctx, set, io.Discard) }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Logf("the agent said:\n%s", r.output.String())
		}
	})
	return r
}

// until waits for what the desk has seen.
func (r *run) until(what string, is func(*desk) bool) {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for {
		r.desk.mu.Lock()
		done, next := is(r.desk), r.changed
		r.desk.mu.Unlock()
		if done {
			return
		}
		select {
		case <-next:
		case err := <-r.err:
			r.t.Fatalf("the agent ended before %s: %v", what, err)
		case <-late:
			r.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func (r *run) ends() error {
	r.t.Helper()
	select {
	case err := <-r.err:
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatal("the agent does not end")
		return nil
	}
}

func beats(id string, n int) func(*desk) bool {
	return func(d *desk) bool {
		seen := 0
		for _, p := range d.paths {
			if strings.HasPrefix(p, "POST /resources/"+id+"/heartbeat") {
				seen++
			}
		}
		return seen >= n
	}
}

func left(id string) func(*desk) bool {
	return func(d *desk) bool {
		return slices.ContainsFunc(d.paths, func(p string) bool { return strings.HasPrefix(p, "DELETE /resources/"+id+" ") })
	}
}

// askRenderer asks the renderer at an address what it is.
func askRenderer(t *testing.T, address string) (pid int, environ []string) {
	t.Helper()
	res, err := http.Get("http://" + address + "/env")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var all []string
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	if pid, err = strconv.Atoi(all[0]); err != nil {
		t.Fatal(err)
	}
	return pid, all[1:]
}

// A registration whose answer was lost is the same when it is repeated; after a refusal it is another.
func TestRegistrationIsRepeated(t *testing.T) {
	r := begin(t, &desk{registering: []int{503, 502, 409, 503}}, nil)
	r.until("the first heartbeat", beats("r-5", 1))
	k := r.keys
	if len(k) != 5 || k[0] != k[1] || k[1] != k[2] || k[2] == k[3] || k[3] != k[4] || k[0] == "" {
		t.Errorf("the keys were %q", k)
	}
	r.end()
	if err := r.ends(); err != nil {
		t.Error(err)
	}
	if !left("r-5")(r.desk) {
		t.Errorf("it did not deregister: %q", r.paths)
	}
	for _, p := range r.paths {
		want := "Bearer operator"
		if strings.Contains(p, "/r-5") {
			want = "Bearer token-5"
		}
		if !strings.HasSuffix(p, " "+want) {
			t.Errorf("sent %q, want the token %s", p, want)
		}
	}
	if conn, err := net.Dial("tcp", r.addresses[4]); err == nil {
		_ = conn.Close()
		t.Error("the renderer runs on")
	}
}

// What is refused for good ends the agent, and its renderer.
func TestRefused(t *testing.T) {
	r := begin(t, &desk{registering: []int{422}}, nil)
	var no *client.Error
	if err := r.ends(); !errors.As(err, &no) || no.Code != "address_not_allowed" {
		t.Errorf("it ended with %v", err)
	}
	if conn, err := net.Dial("tcp", r.addresses[0]); err == nil {
		_ = conn.Close()
		t.Error("the renderer runs on")
	}
}

// Heartbeats that are not heard are sent again, with the same resource; one that is gone is registered anew, with a new renderer.
func TestHeartbeats(t *testing.T) {
	t.Setenv("RRM_TOKEN", "secret")
	t.Setenv("RRM_SERVER", "http://127.0.0.1:1")
	r := begin(t, &desk{beating: []int{503, 500, 429, 503, 502}}, nil)
	r.until("the heartbeats are heard again", beats("r-1", 7))
	first, environ := askRenderer(t, r.addresses[0])
	if strings.Contains(strings.Join(environ, "\n"), "RRM_") {
		t.Errorf("the renderer is told what is rrm's: %q", environ)
	}
	r.desk.mu.Lock()
	r.beating = []int{410}
	r.desk.mu.Unlock()
	r.until("it registers anew", beats("r-2", 1))
	second, _ := askRenderer(t, r.addresses[1])
	if first == second {
		t.Error("the renderer that counted as gone was kept, with all that it holds")
	}
	if left("r-1")(r.desk) {
		t.Error("it deregistered what has ended")
	}
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("the one that died is deregistered", left("r-2"))
	r.until("it registers anew", beats("r-3", 1))
	r.desk.mu.Lock()
	r.state = "stopping"
	r.desk.mu.Unlock()
	if err := r.ends(); err != nil || !left("r-3")(r.desk) {
		t.Errorf("told to stop: %v, %q", err, r.paths[len(r.paths)-1])
	}
}

// A renderer that never gets ready is given up, with how it ended.
func TestFailedStarts(t *testing.T) {
	d := &desk{}
	r := begin(t, d, func(s *Settings) { s.Command, s.Port = []string{os.Args[0], "exit"}, 5000 })
	if err := r.ends(); err == nil || !strings.Contains(err.Error(), "5 starts in a row failed") || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("it ended with %v", err)
	}
	if len(d.keys) > 0 {
		t.Error("it registered a renderer that is not ready")
	}
}

// Work goes on for a while after a signal, if that is wished.
func TestDrain(t *testing.T) {
	r := begin(t, &desk{}, func(s *Settings) { s.Drain = 10 * time.Second })
	r.until("a heartbeat", beats("r-1", 1))
	r.end()
	r.until("it goes on", beats("r-1", 5))
	r.desk.mu.Lock()
	gone := left("r-1")(r.desk)
	r.state = "stopping"
	r.desk.mu.Unlock()
	if err := r.ends(); err != nil || gone || !left("r-1")(r.desk) {
		t.Errorf("%v, deregistered before its work ended: %v", err, gone)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		set  Settings
		want string
	}{
		{Settings{}, "no COMMAND"},
		{Settings{Command: []string{"/no/such/program", "${rest_port}"}}, "cannot be started"},
		{Settings{Command: []string{"true", "${HOME}", "${rest_port}"}}, "unknown placeholder ${HOME}"},
		{Settings{Command: []string{"true"}}, "cannot know its port"},
		{Settings{Command: []string{"true"}, Port: 1, Low: 5, High: 6}, "leave --port-range away"},
		{Settings{Command: []string{"true", "${rest_port}"}, Low: 6, High: 5}, "LOW-HIGH"},
		{Settings{Command: []string{"true", "${rest_port}"}, Low: 6, High: 65536}, "LOW-HIGH"},
		{Settings{Command: []string{"true"}, Port: 5000}, ""},
	} {
		err := c.set.check()
		var wrong *SettingError
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &wrong) || !strings.Contains(wrong.Reason, c.want)) {
			t.Errorf("%v: %v, want %q", c.set.Command, err, c.want)
		}
	}
	s := Settings{Command: []string{"r", "--at=${rest_hostname}:${rest_port}", "$(id)", "${rest_port} x"}}
	if got := s.command("gpu7", 5); !slices.Equal(got, []string{"r", "--at=gpu7:5", "$(id)", "5 x"}) {
		t.Errorf("%q", got)
	}
}

func TestPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	s := Settings{Host: "127.0.0.1", Low: taken, High: taken}
	if port, err := s.pickPort(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the port %d is in use: %d, %v", taken, port, err)
	}
	s.High = min(taken+20, maxPort)
	for range 20 {
		if port, err := s.pickPort(t.Context()); err != nil || port <= taken || port > s.High {
			t.Fatalf("from %d to %d: %d, %v", s.Low, s.High, port, err)
		}
	}
	s = Settings{Host: "203.0.113.9"} // not of this machine: behind another address
	if port, err := s.pickPort(t.Context()); err != nil || port == 0 {
		t.Errorf("any port: %d, %v", port, err)
	}
	if ip, err := OwnAddress(t.Context(), l.Addr().String()); err != nil || ip != "127.0.0.1" {
		t.Errorf("on the way to %s this machine is %s, %v", l.Addr(), ip, err)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{first: 100 * time.Millisecond, most: time.Second}
	for _, most := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		most *= time.Millisecond
		if d := b.next(); d > most || d < most*7/10-time.Millisecond {
			t.Errorf("a pause of %s, want up to %s", d, most)
		}
	}
	b.n = 1 << 40
	if d := b.next(); d > time.Second {
		t.Errorf("after long: %s", d)
	}
}
