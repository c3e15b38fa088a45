package main

import (
	"bufio"
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
)

// process is `rrm serve` in a process of its own.
type process struct {
	cmd    *exec.Cmd
	url    string
	second string // the line after that of the address
	errs   *bytes.Buffer
	ended  chan error
}

var readyLine = regexp.MustCompile(`^rrm is ready at (http://127\.0\.0\.1:[0-9]+) \(API /rendering-resource-manager/v2, documentation /docs\)$`)

func startServe(t *testing.T, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(self, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...), errs: &bytes.Buffer{}, ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), runItself+"=1")
	p.cmd.Stderr = p.errs
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 8)
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
		p.ended <- p.cmd.Wait()
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	for _, line := range []*string{&p.url, &p.second} {
		select {
		case *line = <-lines:
		case err := <-p.ended:
			t.Fatalf("it ended: %v\n%s", err, p.errs)
		case <-time.After(30 * time.Second):
			t.Fatal("it is not ready within 30 s")
		}
	}
	m := readyLine.FindStringSubmatch(p.url)
	if m == nil {
		t.Fatalf("the first line is %q", p.url)
	}
	p.url = m[1]
	return p
}

// end tells the process to end, as impatient people do, and gives how it ended.
func (p *process) end(t *testing.T) error {
	t.Helper()
	for range 2 { // whoever passes signals on may send one twice
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end within 30 s")
		return nil
	}
}

// The service as a process, with a database of its own, and the commands that work beside it.
func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	p := startServe(t, "--data-dir", dir)
	if !strings.HasPrefix(p.second, "It is open") {
		t.Errorf("the second line is %q", p.second)
	}
	t.Setenv("RRM_SERVER", p.url)
	t.Setenv("RRM_DATA_DIR", dir)
	for _, path := range []string{"/readyz", "/docs"} {
		res, err := http.Get(p.url + path)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(path, res, err)
		}
		_ = res.Body.Close()
	}
	check := func(code int, text, args string) outcome {
		t.Helper()
		got := rrm(t, strings.Fields(args)...)
		if got.code != code || !strings.Contains(got.out+got.err, text) {
			t.Fatalf("rrm %s: %+v, want %d and %q", args, got, code, text)
		}
		return got
	}
	check(exitFailure, "in use by another rrm", "serve --listen 127.0.0.1:0")
	check(exitFailure, "an rrm runs on this data directory", "migrate")
	check(exitOK, "applied", "migrate --status")
	check(exitOK, "There are no sessions", "sessions")

	verifyAndRebuild(t, dir, check)
	tokens(t, check)

	if err := p.end(t); err != nil {
		t.Errorf("it ended with %v\n%s", err, p.errs)
	}
	check(exitUnreachable, "nothing answers", "sessions")
	check(exitOK, "operator", "token list")
	check(exitOK, "up to date", "migrate")
}

// verifyAndRebuild spoils a row of the live views: verify must find it, rebuild must put it right.
func verifyAndRebuild(t *testing.T, dir string, check func(int, string, string) outcome) {
	t.Helper()
	got := rrmWith(t, t.Context(), "id: some\ncommand_line: none\n", "renderers", "apply", "-f", "-")
	if got.code != 0 {
		t.Fatalf("%+v", got)
	}
	check(exitOK, "are what the log says: 1 row, 1 event", "verify")
	dsn, err := postgres.Embedded{DataDir: dir}.DSN()
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(`UPDATE pools SET body = body || '{"failures": 7}'`); err != nil {
		t.Fatal(err)
	}
	check(exitFailure, "pools/some: failures is 7", "verify")
	check(exitFailure, `"differences": 1`, "verify -o json")
	check(exitOK, "pools: 1 row put right", "rebuild")
	check(exitOK, "", "verify")
}

func tokens(t *testing.T, check func(int, string, string) outcome) {
	t.Helper()
	check(exitOK, "No token was made", "token list")
	secret := strings.TrimSpace(check(exitOK, "rrm_o_", "token create --role operator --owner root").out)
	for until := time.Now().Add(10 * time.Second); rrm(t, "sessions").code != exitRefused; {
		if time.Now().After(until) {
			t.Fatal("the service is still open")
		}
	}
	t.Setenv("RRM_TOKEN", secret)
	check(exitOK, "", "sessions")
	list := check(exitOK, "valid", "token list").out
	id := strings.Fields(strings.Split(list, "\n")[1])[0]
	check(exitRefused, "there is no token", "token revoke nothing")
	check(exitOK, "is revoked", "token revoke "+id)
	check(exitOK, "revoked 0s ago", "token list")
}

// On an address that others can reach nobody is let in without tokens.
func TestServeToTheWorldNeedsTokens(t *testing.T) {
	got := rrm(t, "serve", "--listen", "0.0.0.0:0", "--data-dir", filepath.Join(t.TempDir(), "data"))
	if got.code != exitFailure || !strings.Contains(got.err, "rrm token create") || got.out != "" {
		t.Errorf("%+v", got)
	}
}
