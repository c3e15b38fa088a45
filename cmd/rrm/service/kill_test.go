package service_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/projections"
)

// serveVariable makes the test binary be the service, so that it can be killed.
const serveVariable = "RRM_TEST_SERVE"

// serve is the service in a process of its own: it prints its URL and the
// process ID of its Postgres, and ends on SIGTERM.
func serve(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("RRM_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	s, err := service.Start(ctx, service.Config{Listen: "127.0.0.1:0", DataDir: dir, Keep: time.Hour, MaxResultBytes: 64 << 20, Log: log})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.URL, s.PostgresPID())
	<-ctx.Done()
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a service in a process of its own, on a data directory.
type child struct {
	node
	cmd      *exec.Cmd
	postgres int
}

func spawn(t *testing.T, dir string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"="+dir, "PATH="+binDir+":"+os.Getenv("PATH"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd}
	t.Cleanup(func() { c.kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the service did not start: %v", err)
	}
	if _, err := fmt.Sscan(line, &c.URL, &c.postgres); err != nil {
		t.Fatalf("the service said %q: %v", line, err)
	}
	c.t = t
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func (c *child) end() {
	c.t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("after SIGTERM the service should exit with 0: %v", err)
	}
}

// empty stops all of a child's resources, so that no renderer outlives the test.
func (c *child) empty(renderer string) {
	c.t.Helper()
	c.node.renderer(renderer, doc{"scaling": doc{"min": 0, "max": 0, "idle": "1s"}})
	eventually(c.t, 20*time.Second, "no resource is left", func() bool {
		items := c.must(200, "GET", base+"/resources?renderer="+renderer, nil)["items"].([]any)
		for _, i := range items {
			c.call("DELETE", base+"/resources/"+i.(doc)["id"].(string), nil)
		}
		return len(items) == 0
	})
}

// SIGKILL of the service and then of its Postgres, in the middle of load:
// nothing acknowledged is lost, nothing is allocated twice, the renderers are
// adopted, and the live views are what the log says.
func TestKilledServiceAndPostgres(t *testing.T) {
	dir := t.TempDir()
	c := spawn(t, dir)
	c.node.renderer("neurons", doc{"slots": 4, "scaling": doc{"min": 1, "max": 2, "idle": "60s"}})
	keeper := c.book(doc{"renderer": "neurons", "model": "neuron:1", "lease": "10m"})
	before := c.must(200, "GET", base+"/sessions/"+keeper, nil)

	l := newLoad()
	l.run(t, func() string { return c.URL }, time.Second)
	c.kill()
	l.stop()
	c = spawn(t, dir)
	after := c.must(200, "GET", base+"/sessions/"+keeper, nil)
	if after["state"] != "ready" || after["resource"] != before["resource"] {
		t.Errorf("the session that was ready before the kill: %v", after)
	}
	if status, _, _ := c.raw("GET", after["url"].(string)+"v1/image?width=64&height=64", nil); status != 200 {
		t.Errorf("the adopted renderer gives no frame: %d", status)
	}
	l.check(t, c)

	l.run(t, func() string { return c.URL }, time.Second)
	if err := syscall.Kill(c.postgres, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the service works again after its Postgres was killed", func() bool {
		status, _, _ := c.call("GET", "/readyz", nil)
		return status == 200
	})
	l.stop()
	l.check(t, c)
	job := c.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": "neuron:1", "kind": "image", "spec": doc{"width": 32, "height": 32}})
	c.state("/jobs/"+job["id"].(string), "succeeded")
	c.must(200, "DELETE", base+"/sessions/"+keeper, nil)
	c.empty("neurons")
	c.end()
	verifyDir(t, dir)
}

// verifyDir verifies the database of a data directory that no service uses.
func verifyDir(t *testing.T, dir string) {
	t.Helper()
	server, err := postgres.Embedded{DataDir: dir}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Stop(context.Background()) }()
	db, err := postgres.Open(t.Context(), server.DSN(), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	v, err := projections.Verify(t.Context(), db, nil, func(d projections.Difference) { t.Errorf("verify: %s", d) })
	if err != nil || v.Events == 0 {
		t.Errorf("verify: %+v %v", v, err)
	}
}

// load is clients that book and release, and remember what was acknowledged.
type load struct {
	mu       sync.Mutex
	booked   map[string]string // session → key, acknowledged as allocated
	released map[string]bool   // acknowledged
	wg       sync.WaitGroup
	end      chan struct{}
}

func newLoad() *load { return &load{booked: map[string]string{}, released: map[string]bool{}} }

// run starts the clients and returns after a time, while they go on.
func (l *load) run(t *testing.T, url func() string, d time.Duration) {
	t.Helper()
	l.end = make(chan struct{})
	for client := range 8 {
		l.wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-l.end:
					return
				default:
					l.once(url(), fmt.Sprintf("%d-%d-%d", time.Now().UnixNano(), client, i))
				}
			}
		})
	}
	pause(t.Context(), d)
}

func (l *load) stop() {
	close(l.end)
	l.wg.Wait()
}

var impatient = &http.Client{Timeout: 5 * time.Second}

// once books and releases every other session; what is not answered is not acknowledged.
func (l *load) once(url, key string) {
	body := strings.NewReader(`{"renderer": "neurons", "model": "neuron:1", "lease": "10m"}`)
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+base+"/sessions", body)
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	res, err := impatient.Do(req)
	if err != nil {
		return
	}
	_ = res.Body.Close()
	id := strings.TrimPrefix(res.Header.Get("Location"), base+"/sessions/")
	if res.StatusCode != http.StatusCreated {
		return
	}
	l.mu.Lock()
	l.booked[id] = key
	l.mu.Unlock()
	req, err = http.NewRequestWithContext(context.Background(), http.MethodDelete, url+base+"/sessions/"+id, nil)
	if err != nil {
		return
	}
	if res, err = impatient.Do(req); err != nil {
		return
	}
	_ = res.Body.Close()
	if res.StatusCode == http.StatusOK {
		l.mu.Lock()
		l.released[id] = true
		l.mu.Unlock()
	}
}

// check asks for all that was acknowledged.
func (l *load) check(t *testing.T, c *child) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.booked) < 10 {
		t.Errorf("only %d bookings were acknowledged: too little to prove anything", len(l.booked))
	}
	for id, key := range l.booked {
		var status int
		var d doc
		eventually(t, 20*time.Second, "the store answers", func() bool { // a killed Postgres may not have been missed yet
			status, _, d = c.call("GET", base+"/sessions/"+id, nil)
			return status != 503
		})
		if status != 200 {
			t.Errorf("session %s (%s) was acknowledged and is lost: %d", id, key, status)
		} else if l.released[id] && d["state"] != "released" {
			t.Errorf("the release of %s was acknowledged, and it is %v", id, d["state"])
		}
		if d["state"] == "ready" {
			c.must(200, "DELETE", base+"/sessions/"+id, nil)
			l.released[id] = true
		}
	}
	users := 0
	for _, i := range c.must(200, "GET", base+"/resources?renderer=neurons", nil)["items"].([]any) {
		r := i.(doc)
		list, _ := r["users"].([]any)
		if users += len(list); len(list) > int(r["slots"].(float64)) {
			t.Errorf("resource %v has more users than slots: %v", r["id"], list)
		}
	}
}
