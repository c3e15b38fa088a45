package service_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// beatEvery is the heartbeat of these tests; three missed are 0.9 s.
const beatEvery = 300 * time.Millisecond

// startStatic is a service whose renderer gpu is run by machines that register themselves.
func startStatic(t *testing.T, change func(*service.Config)) *node {
	t.Helper()
	n := start(t, func(c *service.Config) {
		c.HeartbeatEvery = beatEvery
		if change != nil {
			change(c)
		}
	})
	// Probes that are not answered should not be what ends a resource here.
	n.renderer("gpu", doc{"launcher": "static", "command_line": "", "probe": doc{"interval": "200ms", "timeout": "500ms", "failures": 1000}})
	return n
}

// agentProcess is `rrm agent` in a process of its own.
type agentProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	ids   chan string // of the resources that it registers
	ended chan int    // its exit code; -1: killed

	mu     sync.Mutex
	stderr bytes.Buffer
}

func (a *agentProcess) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stderr.Write(p)
}

func (a *agentProcess) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stderr.String()
}

var registered = regexp.MustCompile(`^rrm agent: registered as (\S+) at 127\.0\.0\.1:[0-9]+$`)

// agent starts an agent with the reference renderer.
func (n *node) agent(args ...string) *agentProcess {
	n.t.Helper()
	return n.agentWith(append(args, "--", "rrm-renderer", "--listen", "${rest_hostname}:${rest_port}", "--memory-mib", "256")...)
}

func (n *node) agentWith(args ...string) *agentProcess {
	n.t.Helper()
	a := &agentProcess{t: n.t, ids: make(chan string, 16), ended: make(chan int, 1)}
	a.cmd = exec.Command(program("rrm"), append([]string{"agent", "--server", n.URL, "--renderer", "gpu"}, args...)...)
	a.cmd.Stderr, a.cmd.WaitDelay = a, 2*time.Second
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			if m := registered.FindStringSubmatch(s.Text()); m != nil {
				a.ids <- m[1]
			}
		}
		_ = a.cmd.Wait()
		a.ended <- a.cmd.ProcessState.ExitCode()
	}()
	n.t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // which ends its renderer too
		if n.t.Failed() {
			n.t.Logf("the agent said:\n%s", a.said())
		}
	})
	return a
}

// next is the resource that the agent registers next, once it is ready.
func (a *agentProcess) next(n *node) string {
	a.t.Helper()
	select {
	case id := <-a.ids:
		n.state("/resources/"+id, "ready")
		return id
	case code := <-a.ended:
		a.t.Fatalf("the agent exited with %d:\n%s", code, a.said())
	case <-time.After(20 * time.Second):
		a.t.Fatalf("the agent registers nothing within 20 s:\n%s", a.said())
	}
	return ""
}

func (a *agentProcess) exits(want int) {
	a.t.Helper()
	select {
	case code := <-a.ended:
		if code != want {
			a.t.Errorf("the agent exited with %d, not %d:\n%s", code, want, a.said())
		}
	case <-time.After(20 * time.Second):
		a.t.Fatalf("the agent does not exit within 20 s:\n%s", a.said())
	}
}

func (a *agentProcess) signal(sig os.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(sig); err != nil {
		a.t.Fatal(err)
	}
}

// rendererPID is the process that listens at a resource's address.
func (n *node) rendererPID(a *agentProcess) int {
	n.t.Helper()
	all := regexp.MustCompile(`the renderer was started.* process=([0-9]+)`).FindAllStringSubmatch(a.said(), -1)
	if len(all) == 0 {
		n.t.Fatalf("the agent started no renderer:\n%s", a.said())
	}
	pid, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil {
		n.t.Fatal(err)
	}
	return pid
}

func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return errors.Is(err, os.ErrNotExist) || err == nil && strings.Contains(string(b), ") Z ")
}

func (n *node) frame(session string) {
	n.t.Helper()
	d := n.must(200, "GET", base+"/sessions/"+session, nil)
	status, h, picture := n.raw("GET", d["url"].(string)+"v1/image?format=png&width=64&height=64", nil)
	if status != 200 || h.Get("Content-Type") != "image/png" || len(picture) == 0 {
		n.t.Fatalf("frame: %d %s", status, h.Get("Content-Type"))
	}
}

// A machine comes, serves, is lost when its agent dies, comes back, and goes when it is drained.
func TestAgent(t *testing.T) {
	n := startStatic(t, nil)
	waiting := n.must(202, "POST", base+"/sessions", doc{"renderer": "gpu", "model": "neuron:1", "wait": "60s"})["id"].(string)
	a := n.agent("--slots", "2", "--label", "gpu=a100", "--node", "gpu7")
	first := a.next(n)
	r := n.must(200, "GET", base+"/resources/"+first, nil)
	if r["launcher"] != "static" || r["slots"] != 2.0 || r["node"] != "gpu7" || r["labels"].(doc)["gpu"] != "a100" || r["heartbeat_token"] != nil {
		t.Errorf("registered: %v", r)
	}
	n.state("/sessions/"+waiting, "ready") // who waited is served
	session := n.book(doc{"renderer": "gpu", "model": "neuron:1"})
	n.frame(session)
	if status, _, d := n.call("GET", base+"/resources/"+first+"/logs", nil); status != 404 || d["code"] != "output_not_found" {
		t.Errorf("logs: %d %v", status, d)
	}

	pid := n.rendererPID(a)
	a.signal(syscall.SIGKILL)
	a.exits(-1)
	killed := time.Now()
	eventually(t, 5*time.Second, "the renderer ends with its agent", func() bool { return gone(pid) })
	lost := n.state("/resources/"+first, "lost")
	if took := time.Since(killed); took < 2*beatEvery || took > 5*time.Second || !strings.Contains(lost["reason"].(string), "three heartbeats missed") {
		t.Errorf("lost after %s: %v", took, lost["reason"])
	}
	n.state("/sessions/"+session, "lost")

	a = n.agent()
	second := a.next(n)
	if second == first {
		t.Error("it came back as the resource that was lost")
	}
	session = n.book(doc{"renderer": "gpu", "model": "neuron:2"})
	n.must(200, "POST", base+"/resources/"+second+"/drain", doc{"reason": "a new driver"})
	eventually(t, 5*time.Second, "the agent hears that it is drained", func() bool { return strings.Contains(a.said(), "the resource is draining") })
	n.frame(session)
	pid = n.rendererPID(a)
	n.must(200, "DELETE", base+"/sessions/"+session, nil)
	a.exits(0)
	if !gone(pid) {
		t.Error("the agent exited and left its renderer")
	}
	n.state("/resources/"+second, "stopped")

	a = n.agent()
	third := a.next(n)
	n.must(200, "DELETE", base+"/resources/"+third, nil)
	a.exits(0)
	n.state("/resources/"+third, "stopped")
	n.verify()
}

// A machine that dies is lost, not failed, also where probes notice its silence first. All
// times are a tenth of the defaults: a heartbeat each 5 s, probes each 2 s, of which five may fail.
func TestADeadMachineIsLost(t *testing.T) {
	n := startStatic(t, func(c *service.Config) { c.HeartbeatEvery = 500 * time.Millisecond })
	n.renderer("gpu", doc{"launcher": "static", "command_line": "", "probe": doc{"interval": "200ms", "timeout": "200ms", "failures": 5}})
	a := n.agent()
	id := a.next(n)
	session := n.book(doc{"renderer": "gpu", "model": "neuron:1"})
	a.signal(syscall.SIGKILL)
	a.exits(-1)
	killed := time.Now()
	ended := func() bool { return n.must(200, "GET", base+"/resources/"+id, nil)["ended_at"] != nil }
	eventually(t, 10*time.Second, "the resource ends", ended)
	d := n.must(200, "GET", base+"/resources/"+id, nil)
	if took := time.Since(killed); d["state"] != "lost" || !strings.Contains(d["reason"].(string), "three heartbeats missed") || took < time.Second {
		t.Errorf("after %s it is %v: %v", took, d["state"], d["reason"])
	}
	n.state("/sessions/"+session, "lost")
}

// An agent starts its renderer again when it dies or hangs, and ends it with itself.
func TestAgentKeepsItsRenderer(t *testing.T) {
	n := startStatic(t, nil)
	n.renderer("gpu", doc{"launcher": "static", "command_line": "", "probe": doc{"interval": "100ms", "timeout": "300ms", "failures": 3}})
	a := n.agent()
	first := a.next(n)
	if err := syscall.Kill(n.rendererPID(a), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := a.next(n)
	if d := n.state("/resources/"+first, "stopped"); !strings.Contains(d["reason"].(string), "deregistered") {
		t.Errorf("the one that died: %v", d["reason"])
	}
	hung := n.rendererPID(a)
	if err := syscall.Kill(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	third := a.next(n)
	if d := n.state("/resources/"+second, "failed"); !strings.Contains(d["reason"].(string), "not answered") {
		t.Errorf("the one that hung: %v", d["reason"])
	}
	if !gone(hung) {
		t.Error("the renderer that hung runs on")
	}
	session := n.book(doc{"renderer": "gpu", "model": "neuron:1"})
	pid := n.rendererPID(a)
	a.signal(syscall.SIGTERM)
	a.exits(0)
	if !gone(pid) {
		t.Error("the agent exited and left its renderer")
	}
	n.state("/resources/"+third, "stopped")
	n.state("/sessions/"+session, "lost")

	a = n.agent("--drain", "20s")
	fourth := a.next(n)
	session = n.book(doc{"renderer": "gpu", "model": "neuron:1"})
	a.signal(syscall.SIGTERM)
	n.state("/resources/"+fourth, "draining")
	n.frame(session)
	n.must(200, "DELETE", base+"/sessions/"+session, nil)
	a.exits(0)
	n.verify()
}

// While the service is away nothing is lost: who could not be heard missed nothing.
func TestAgentOutlivesTheService(t *testing.T) {
	dsn := dbtest.DSN(t)
	listen := "127.0.0.1:0"
	config := func(c *service.Config) { c.DatabaseURL, c.Listen = dsn, listen }
	t.Setenv("PATH", binDir+":"+os.Getenv("PATH"))
	cfg := service.Config{DataDir: t.TempDir(), Keep: time.Hour, MaxResultBytes: 1 << 20, Log: logger(t), HeartbeatEvery: beatEvery}
	config(&cfg)
	s, err := service.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, URL: s.URL, Service: s}
	n.renderer("gpu", doc{"launcher": "static", "command_line": ""})
	a := n.agent()
	id := a.next(n)
	listen = strings.TrimPrefix(n.URL, "http://")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "four heartbeats are not heard", func() bool { return strings.Count(a.said(), "a heartbeat was not heard") >= 4 })
	pause(t.Context(), 4*beatEvery) // as long as would count as lost

	n = startStatic(t, config)
	eventually(t, 10*time.Second, "the service hears the agent again", func() bool { return strings.Contains(a.said(), "hears the heartbeats again") })
	pause(t.Context(), 5*beatEvery)
	if d := n.must(200, "GET", base+"/resources/"+id, nil); d["state"] != "ready" {
		t.Errorf("after the service was away: %v", d)
	}
	n.frame(n.book(doc{"renderer": "gpu", "model": "neuron:1"}))
	a.signal(syscall.SIGTERM)
	a.exits(0)
}

// Which addresses may register, with the real service, its resolver and its interfaces.
func TestRegisterAddresses(t *testing.T) {
	n := startStatic(t, nil)
	_, own, _ := net.SplitHostPort(strings.TrimPrefix(n.URL, "http://"))
	register := func(n *node, want int, code, address string, header ...string) doc {
		t.Helper()
		status, _, d := n.call("POST", base+"/resources", doc{"renderer": "gpu", "address": address}, header...)
		if status != want || code != "" && (d["code"] != code || d["field"] != "address") {
			t.Errorf("%s: %d %v, want %d %s", address, status, d, want, code)
		}
		return d
	}
	for _, address := range []string{
		"127.0.0.1:" + own, "localhost:" + own, "[::1]:" + own, "[::ffff:127.0.0.1]:" + own, "127.0.0.9:" + own,
		"169.254.169.254:80", "[::ffff:169.254.169.254]:80", "[::ffff:a9fe:a9fe]:80", "0.0.0.0:5000", "[::]:5000", "10.7.0.7:5000", "[2001:db8::1]:5000", "[fe80::1]:5000",
	} {
		register(n, 422, "address_not_allowed", address)
	}
	for _, address := range []string{"127.0.0.1", "127.0.0.1:0", "0x7f000001:80", "127.1:80", "http://127.0.0.1:80", "no-such-host.invalid:80"} {
		if status, _, d := n.call("POST", base+"/resources", doc{"renderer": "gpu", "address": address}); status != 422 && status != 503 {
			t.Errorf("%s: %d %v", address, status, d)
		}
	}
	d := register(n, 201, "", "localhost:1")
	if d["address"] != "127.0.0.1:1" || d["heartbeat_seconds"] != beatEvery.Seconds() || !strings.HasPrefix(d["heartbeat_token"].(string), "rrm_h_"+d["id"].(string)+".") {
		t.Errorf("pinned: %v", d)
	}
	register(n, 409, "", "127.0.0.1:1") // once is enough
	n.renderer("own", nil)
	if status, _, d := n.call("POST", base+"/resources", doc{"renderer": "own", "address": "127.0.0.1:2"}); status != 409 || d["code"] != "not_static" {
		t.Errorf("a renderer of the local launcher: %d %v", status, d)
	}

	// With tokens nothing is allowed by itself, and a list allows what is on it.
	_, secret, err := n.Tokens.Create(t.Context(), "operator", "root")
	if err != nil {
		t.Fatal(err)
	}
	root := []string{"Authorization", "Bearer " + secret}
	eventually(t, 10*time.Second, "the service is closed", func() bool {
		status, _, _ := n.call("GET", base+"/resources", nil)
		return status == 401
	})
	register(n, 422, "address_not_allowed", "127.0.0.1:3", root...)
	register(n, 401, "", "127.0.0.1:3")

	listed := startStatic(t, func(c *service.Config) { c.RegisterAllow = []string{"127.0.0.0/8", "10.7.0.0/16"} })
	register(listed, 201, "", "127.0.0.2:5")
	register(listed, 201, "", "[::ffff:10.7.0.7]:5")
	register(listed, 422, "address_not_allowed", "[::1]:5")
	if _, err := service.Start(t.Context(), service.Config{
		Listen: "127.0.0.1:0", DataDir: t.TempDir(), DatabaseURL: dbtest.DSN(t), RegisterAllow: []string{"10.7.0.0/99"}, NoManagers: true,
	}); err == nil || !strings.Contains(err.Error(), "10.7.0.0/99") {
		t.Errorf("a list that cannot be read: %v", err)
	}
}

// A resource's own token is for itself; heartbeats by hand, as another program sends them.
func TestHeartbeatTokens(t *testing.T) {
	n := startStatic(t, nil)
	register := func(address string, header ...string) (id string, token []string) {
		t.Helper()
		d := n.must(201, "POST", base+"/resources", doc{"renderer": "gpu", "address": address}, header...)
		return d["id"].(string), []string{"Authorization", "Bearer " + d["heartbeat_token"].(string)}
	}
	again := []string{"Idempotency-Key", "one"}
	a, old := register("127.0.0.1:1", again...)
	same, tokenA := register("127.0.0.1:1", again...)
	if same != a || tokenA[1] == old[1] {
		t.Errorf("repeated: %s and %s", a, same)
	}
	b, tokenB := register("127.0.0.1:2")
	path := func(id string) string { return base + "/resources/" + id + "/heartbeat" }
	// The token before may be taken for a moment more, while it is remembered; it never was asked for.
	for want, header := range map[int][][]string{200: {tokenA}, 401: {old, {"Authorization", tokenA[1] + "x"}}, 403: {tokenB}} {
		for _, h := range header {
			if h[1][:7] != "Bearer " {
				h = []string{"Authorization", "Bearer " + h[1]}
			}
			if status, _, d := n.call("POST", path(a), nil, h...); status != want {
				t.Errorf("a heartbeat of %s as %.40s: %d %v, want %d", a, h[1], status, d, want)
			}
		}
	}
	n.must(403, "DELETE", base+"/resources/"+b, nil, tokenA...)
	n.must(403, "GET", base+"/sessions", nil, tokenA...)
	d := n.must(200, "POST", path(b), doc{"draining": true}, tokenB...)
	if d["state"] != "stopping" { // it was only starting
		t.Errorf("drained: %v", d)
	}
	n.must(200, "DELETE", base+"/resources/"+b, nil, tokenB...)
	n.state("/resources/"+b, "stopped")
	// a sends nothing any more, and was never ready: it failed.
	n.state("/resources/"+a, "failed")
	if status, _, d := n.call("POST", path(a), nil, tokenA...); status != 410 || d["code"] != "resource_ended" {
		t.Errorf("a heartbeat of one that ended: %d %v", status, d)
	}
	var events struct {
		Items []struct{ Type, Actor string }
	}
	_, _, raw := n.raw("GET", base+"/events?limit=500&subject=resource:"+b, nil)
	if err := json.Unmarshal(raw, &events); err != nil {
		t.Fatal(err)
	}
	actors := map[string]bool{}
	for _, e := range events.Items {
		actors[e.Actor] = true
		if bytes.Contains(raw, []byte("rrm_h_")) {
			t.Fatal("a token is in the log")
		}
	}
	if !actors["resource:"+b] {
		t.Errorf("the log does not say that it was the resource itself: %v", events)
	}
	n.verify()
}

// An agent that cannot work says why and exits as the other commands do.
func TestAgentExitCodes(t *testing.T) {
	n := startStatic(t, nil)
	n.renderer("own", nil)
	sleeper := []string{"--", "rrm-renderer", "--listen", "${rest_hostname}:${rest_port}"}
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{3, "not_static", append([]string{"--renderer", "own"}, sleeper...)},
		{3, "renderer_not_found", append([]string{"--renderer", "none"}, sleeper...)},
		{2, "no COMMAND", nil},
		{2, "executable file not found", []string{"--", "no-such-program", "${rest_port}"}},
		{2, "unknown placeholder ${rest_prot}", []string{"--", "true", "${rest_prot}"}},
		{2, "--port-range", append([]string{"--port-range", "5000"}, sleeper...)},
		{2, "KEY=VALUE", append([]string{"--label", "x"}, sleeper...)},
		{4, "nothing answers", append([]string{"--server", "http://127.0.0.1:1", "--wait", "0"}, sleeper...)},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd := exec.CommandContext(ctx, program("rrm"), append([]string{"agent", "--server", n.URL, "--renderer", "gpu"}, c.args...)...)
		out, _ := cmd.CombinedOutput()
		cancel()
		if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("rrm agent %q: exit code %d, want %d and %q:\n%s", c.args, cmd.ProcessState.ExitCode(), c.code, c.says, out)
		}
	}
	narrow := startStatic(t, func(c *service.Config) { c.RegisterAllow = []string{"10.7.0.0/16"} })
	a := narrow.agent()
	a.exits(3)
	if !strings.Contains(a.said(), "address_not_allowed") || !gone(narrow.rendererPID(a)) {
		t.Errorf("it said:\n%s", a.said())
	}
}
