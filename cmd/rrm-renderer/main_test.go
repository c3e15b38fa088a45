package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's own binary be the program.
func TestMain(m *testing.M) {
	if os.Getenv("BE_RRM_RENDERER") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"--listen", "nonsense"},
		{"--listen", "127.0.0.1:0", "--memory-mib", "0"},
		{"--listen", "127.0.0.1:0", "--memory-mib", "many"},
		{"--listen", "127.0.0.1:0", "--workers", "-1"},
		{"--listen", "127.0.0.1:0", "--model-dir", "/does/not/exist"},
		{"--listen", "127.0.0.1:0", "surplus"},
		{"--unknown"},
	} {
		var stderr bytes.Buffer
		if code := Main(context.Background(), args, io.Discard, &stderr); code != 2 || !strings.Contains(stderr.String(), "Usage:") {
			t.Errorf("%v: exit code %d, %s", args, code, stderr.String())
		}
	}
}

func TestAModelThatFailsEndsTheProgram(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.obj"), []byte("f 1 2 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The last is found out only while it loads.
	for _, key := range []string{"none.obj", "circuit:10000", "bad.obj"} {
		var stderr bytes.Buffer
		// Should it get ready after all, the test ends it.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		code := Main(ctx, []string{"--listen", "127.0.0.1:0", "--model-dir", dir, "--model", key}, io.Discard, &stderr)
		cancel()
		if code != 1 || !strings.Contains(stderr.String(), key) {
			t.Errorf("%s: exit code %d, %s", key, code, stderr.String())
		}
	}
}

func TestAPortInUseEndsTheProgram(t *testing.T) {
	p := startProgram(t)
	if code := Main(context.Background(), []string{"--listen", strings.TrimPrefix(p.url, "http://")}, io.Discard, io.Discard); code != 1 {
		t.Errorf("exit code %d", code)
	}
	p.put("/v1/exit")
}

type program struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	temp string
}

// startProgram starts a real process and waits until it is ready.
func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, temp: t.TempDir()}
	p.cmd = exec.Command(self, append([]string{"--listen", "127.0.0.1:0", "--model", "sphere"}, args...)...)
	p.cmd.Env = append(os.Environ(), "BE_RRM_RENDERER=1", "TMPDIR="+p.temp)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	at := strings.Index(line, "http://")
	if err != nil || at < 0 {
		t.Fatalf("%q %v", line, err)
	}
	p.url = strings.TrimSpace(line[at:])
	deadline := time.After(15 * time.Second)
	for p.put("/registry") != http.StatusOK {
		select {
		case <-deadline:
			t.Fatal("not ready")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return p
}

func (p *program) put(path string) int { return p.send(http.MethodPut, path, "") }

func (p *program) send(method, path, body string) int {
	p.t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// ended checks that the program ends by itself, in time, with 0 and leaves nothing.
func (p *program) ended(since time.Time) {
	p.t.Helper()
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("it ended with %v", err)
	}
	if took := time.Since(since); took > 2*time.Second {
		p.t.Errorf("it ended after %v", took)
	}
	if left, err := filepath.Glob(filepath.Join(p.temp, "*")); err != nil || len(left) > 0 {
		p.t.Errorf("it left %v (%v)", left, err)
	}
}

// The exit is graceful and in time also in the midst of work.
func TestExit(t *testing.T) {
	for name, end := range map[string]func(p *program){
		"request": func(p *program) {
			if got := p.put("/v1/exit"); got != 200 {
				p.t.Errorf("PUT /v1/exit: %d", got)
			}
		},
		"SIGTERM": func(p *program) {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				p.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProgram(t)
			if got := p.put("/v1/models/circuit%3A500"); got != 202 {
				t.Errorf("load: %d", got)
			}
			if got := p.send("POST", "/v1/jobs/a", `{"kind":"frames","model":"sphere","spec":{"width":2000,"height":2000,"frames":9999}}`); got != 202 {
				t.Errorf("job: %d", got)
			}
			res, err := http.Get(p.url + "/v1/stream?model=sphere")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			begun := time.Now()
			end(p)
			p.ended(begun)
		})
	}
}
