// Package launchtest is what every launcher must do, as one suite of tests.
// A new launcher passes it by calling Run from a test of its own.
package launchtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Launcher is the interface under test; its users state it for themselves.
type Launcher interface {
	Launch(ctx context.Context, spec domain.LaunchSpec) (domain.Launched, error)
	Observe(ctx context.Context, resources []domain.Launched) ([]domain.Observed, error)
	List(ctx context.Context) ([]domain.Launched, error)
	Stop(ctx context.Context, r domain.Launched, graceful bool) error
	Output(ctx context.Context, r domain.Launched, stream string, max int64) ([]byte, error)
}

// Options are what differs between launchers.
type Options struct {
	// Again makes a launcher over the same place as the first that knows
	// nothing of what the first had in memory: rrm, started again.
	Again func(t *testing.T, first Launcher) Launcher
	// Renderer fits the settings to the launcher (its name, its queue). The
	// arguments are in ProcessFormat; a scheduler's launcher moves them. Nil: as they are.
	Renderer func(domain.Renderer) domain.Renderer
	// ProgramDir is where the test's renderer is built, for launchers whose
	// nodes do not see the temporary directory of the test. Empty: a temporary one.
	ProgramDir string
	// Patience is how long anything may take to be seen; 0: 10 s.
	Patience time.Duration
	// Notice is how long after a resource was killed it may still be seen as running; 0: 2 s.
	Notice time.Duration
	// Kill ends a resource's processes behind the launcher's back.
	Kill func(t *testing.T, r domain.Launched)
	// LateFailures is true if a program that does not exist shows only when
	// the resource is gone, not as a refusal of Launch.
	LateFailures bool
	// Bring is for a launcher that starts nothing: it has the program started by somebody else, who
	// lets the launcher know of it, and ends it when the launcher wants it to end. Then the cases that are
	// about how a launcher starts a program, what it gives it and what it keeps of it are left out:
	// for those resources they are the business of whoever starts them. Nil: Launch starts it.
	Bring func(t *testing.T, l Launcher, spec domain.LaunchSpec) domain.Launched
	// Tunnelled is true if the address is that of a tunnel: its port is not the renderer's own, and each launcher may have another.
	Tunnelled bool
}

// suite is one test's launcher and helpers.
type suite struct {
	Options
	program string
}

// Run tests the launchers that make returns, a new one in a place of its own each time.
func Run(t *testing.T, make func(*testing.T) Launcher, opts Options) {
	if opts.Patience == 0 {
		opts.Patience = 10 * time.Second
	}
	if opts.Notice == 0 {
		opts.Notice = 2 * time.Second
	}
	s := suite{opts, Program(t, opts.ProgramDir)}
	for _, c := range []struct {
		name string
		test func(suite, *testing.T, Launcher)
		all  bool // also of launchers that start nothing
	}{
		{"a resource is launched, seen running, listed and stopped", suite.testLife, true},
		{"launching again finds what runs", suite.testLaunchTwice, false},
		{"launching at the same instant starts one", suite.testLaunchTogether, false},
		{"a graceful stop asks the renderer to exit", suite.testStopGraceful, false},
		{"a renderer that takes no notice is killed", suite.testStopByForce, false},
		{"stopping again, and stopping the unknown, is no error", suite.testStopTwice, true},
		{"children end with their renderer", suite.testChildren, false},
		{"the end of a big output is read", suite.testOutput, false},
		{"a new launcher adopts what runs", suite.testAdopt, true},
		{"an orphan is listed and can be stopped", suite.testOrphan, false},
		{"a program that does not exist is a failure with a reason", suite.testNoProgram, false},
		{"a program that exits at once tells its status", suite.testExitAtOnce, false},
		{"a resource killed from outside is seen as gone", suite.testKilled, true},
		{"environment values arrive unchanged", suite.testEnvironment, false},
		{"arguments arrive unchanged and placeholders are filled in", suite.testArguments, false},
		{"the working directory is entered", suite.testWorkDir, false},
		{"an unknown placeholder is refused by name", suite.testUnknownPlaceholder, false},
		{"what was never launched is gone", suite.testNeverLaunched, true},
	} {
		if s.Bring != nil && !c.all {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(s, t, make(t))
		})
	}
}

var programs sync.Map // directory -> func() (string, error)

// Program builds the test's renderer and returns its path, which has no
// spaces. It is built once for each directory; empty: a temporary one for t.
func Program(t *testing.T, dir string) string {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	build, _ := programs.LoadOrStore(dir, sync.OnceValues(func() (string, error) {
		path := filepath.Join(dir, "testrenderer")
		out, err := exec.Command("go", "build", "-o", path, "github.com/rendering-resource-manager/rrm/adapters/launch/launchtest/testrenderer").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build testrenderer: %w\n%s", err, out)
		}
		return path, nil
	}))
	path, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// spec is a resource of the test's renderer, with more arguments.
func (s suite) spec(id domain.ResourceID, args string) domain.LaunchSpec {
	r := domain.Renderer{
		ID: "test", CommandLine: s.program, ProcessFormat: "-listen ${rest_hostname}:${rest_port} " + args, GracefulExit: true, WaitUntilReady: true,
		Launcher: domain.LauncherLocal, Slots: 1, ModelsPerResource: 1, ModelLoading: domain.LoadNone, Nodes: 1, CPUs: 1,
	}
	return domain.LaunchSpec{Resource: id, Renderer: s.fit(r)}
}

func (s suite) fit(r domain.Renderer) domain.Renderer {
	if s.Renderer == nil {
		return r
	}
	return s.Renderer(r)
}

// launch launches and leaves nothing behind, whatever becomes of the test.
func (s suite) launch(t *testing.T, l Launcher, spec domain.LaunchSpec) domain.Launched {
	t.Helper()
	if s.Bring != nil {
		return s.Bring(t, l, spec)
	}
	r, err := l.Launch(t.Context(), spec)
	if err != nil {
		t.Fatalf("launch %s: %v", spec.Resource, err)
	}
	s.cleanUp(t, l, r)
	if r.Resource != spec.Resource || len(r.Handle) == 0 {
		t.Fatalf("launched %+v, want resource %s with a handle", r, spec.Resource)
	}
	return r
}

func (s suite) cleanUp(t *testing.T, l Launcher, r domain.Launched) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.Patience)
		defer cancel()
		if err := l.Stop(ctx, r, false); err != nil {
			t.Errorf("stop %s after the test: %v", r.Resource, err)
		}
	})
}

// ready waits until the renderer answers, as rrm's probe does, and returns
// how its launcher sees it then (a scheduler knows the address late).
func (s suite) ready(t *testing.T, l Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	var last domain.Observed
	s.eventually(t, s.Patience, func() (bool, string) {
		last = s.observe(t, l, r)
		if last.State == domain.LaunchGone {
			said, err := l.Output(t.Context(), r, "stderr", 2000)
			t.Fatalf("the resource is gone: %s; its last words: %q, %v", last.Reason, said, err)
		}
		if last.State != domain.LaunchRunning || last.Address == "" {
			return false, fmt.Sprintf("state %s, address %q", last.State, last.Address)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+last.Address+"/registry", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, err.Error()
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK, res.Status
	})
	return last
}

func (s suite) observe(t *testing.T, l Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	got, err := l.Observe(t.Context(), []domain.Launched{r})
	if err != nil || len(got) != 1 {
		t.Fatalf("observe: %d answers, %v; want one", len(got), err)
	}
	return got[0]
}

// gone waits until the launcher sees the resource as gone, which it must
// without ever saying that it could not look.
func (s suite) gone(t *testing.T, l Launcher, r domain.Launched, within time.Duration) domain.Observed {
	t.Helper()
	var last domain.Observed
	s.eventually(t, within, func() (bool, string) {
		last = s.observe(t, l, r)
		return last.State == domain.LaunchGone, string(last.State) + " " + last.Reason
	})
	if last.Reason == "" {
		t.Error("the resource is gone without a reason")
	}
	return last
}

// eventually polls a condition, which also says how far it is.
func (s suite) eventually(t *testing.T, within time.Duration, condition func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(within)
	for {
		done, state := condition()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, state)
		}
		<-tick.C
	}
}

// ask gets what the renderer says of itself.
func ask[T any](t *testing.T, o domain.Observed, path string) T {
	t.Helper()
	var v T
	res, err := http.Get("http://" + o.Address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// processExists tells of processes on this machine only.
func processExists(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return !errors.Is(err, os.ErrNotExist)
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
