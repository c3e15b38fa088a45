package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/adapters/launch/local"
	"github.com/rendering-resource-manager/rrm/domain"
)

func spec(t *testing.T, id domain.ResourceID, args string) domain.LaunchSpec {
	t.Helper()
	return domain.LaunchSpec{Resource: id, Renderer: domain.Renderer{
		ID: "test", CommandLine: launchtest.Program(t, programDir), ProcessFormat: "-listen ${rest_hostname}:${rest_port} " + args,
	}}
}

func launch(t *testing.T, l *local.Launcher, s domain.LaunchSpec) domain.Launched {
	t.Helper()
	r, err := l.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Stop(context.Background(), r, false); err != nil {
			t.Error(err)
		}
	})
	return r
}

func observe(t *testing.T, l *local.Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	got, err := l.Observe(t.Context(), []domain.Launched{r})
	if err != nil || len(got) != 1 {
		t.Fatalf("observe: %v, %v", got, err)
	}
	return got[0]
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// get waits until the renderer answers.
func get(t *testing.T, r domain.Launched, path string, v any) {
	t.Helper()
	eventually(t, "the renderer answers", func() bool {
		res, err := http.Get("http://" + r.Address + path)
		if err != nil {
			return false
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		return err == nil && json.Unmarshal(b, v) == nil
	})
}

func recordPath(opts local.Options, id domain.ResourceID) string {
	return filepath.Join(opts.Dir, string(id), "record.json")
}

// changeRecord lets the record of a resource tell something else.
func changeRecord(t *testing.T, opts local.Options, id domain.ResourceID, change func(map[string]any)) {
	t.Helper()
	b, err := os.ReadFile(recordPath(opts, id))
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	rec := map[string]any{}
	if err := dec.Decode(&rec); err != nil {
		t.Fatal(err)
	}
	change(rec)
	if b, err = json.Marshal(rec); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordPath(opts, id), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNothingOfRRMsOwnEnvironmentReachesTheRenderer(t *testing.T) {
	t.Parallel()
	l, _ := open(t, func(o *local.Options) {
		o.Environ = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=/somewhere", "LC_TIME=C", "RRM_DATABASE_URL=postgres://secret", "RRM_TOKEN=secret",
			"AWS_SECRET_ACCESS_KEY=secret", "PGPASSWORD=secret", "LICENSE_SERVER=wanted", "RRM_RESOURCE=another",
		}
		o.AllowEnv = []string{"LICENSE_SERVER", "RRM_TOKEN"}
	})
	s := spec(t, "env", "")
	s.Renderer.Environment = map[string]string{"HOME": "/elsewhere"}
	r := launch(t, l, s)
	env := map[string]string{}
	get(t, r, "/env", &env)
	for name, value := range env {
		if strings.Contains(value, "secret") {
			t.Errorf("%s reached the renderer", name)
		}
	}
	for name, want := range map[string]string{"HOME": "/elsewhere", "LC_TIME": "C", "LICENSE_SERVER": "wanted", "RRM_RESOURCE": "env", "RRM_ADDRESS": r.Address} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
}

func TestWhatCannotBeLaunchedIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	noFormat := filepath.Join(dir, "no-format")
	if err := os.WriteFile(noFormat, []byte("neither script nor program"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, opts := open(t, func(o *local.Options) { o.BinDirs = []string{dir} })
	for name, c := range map[string]struct {
		change func(*domain.LaunchSpec)
		field  string
		reason string
	}{
		"modules":             {func(s *domain.LaunchSpec) { s.Renderer.Modules = []string{"viz"} }, "modules", "modules"},
		"no command":          {func(s *domain.LaunchSpec) { s.Renderer.CommandLine = "  " }, "command_line", "empty"},
		"empty program":       {func(s *domain.LaunchSpec) { s.Renderer.CommandLine = `""` }, "command_line", "no program"},
		"open quote":          {func(s *domain.LaunchSpec) { s.Renderer.CommandLine += ` "x` }, "command_line", "quotes"},
		"second command":      {func(s *domain.LaunchSpec) { s.Renderer.CommandLine += " ; rm -rf x" }, "command_line", "shell"},
		"pipe in format":      {func(s *domain.LaunchSpec) { s.Renderer.ProcessFormat += " | tee x" }, "process_rest_parameters_format", "shell"},
		"NUL":                 {func(s *domain.LaunchSpec) { s.Renderer.CommandLine += " a\x00b" }, "command_line", "NUL"},
		"unknown in command":  {func(s *domain.LaunchSpec) { s.Renderer.CommandLine += " ${HOME}" }, "command_line", "${HOME}"},
		"unknown in env":      {func(s *domain.LaunchSpec) { s.Renderer.Environment = map[string]string{"A": "${PATH}"} }, "environment_variables", "${PATH}"},
		"mark in env":         {func(s *domain.LaunchSpec) { s.Renderer.Environment = map[string]string{"RRM_RESOURCE": "x"} }, "environment_variables", "rrm itself"},
		"no model":            {func(s *domain.LaunchSpec) { s.Renderer.CommandLine += " ${model}" }, "command_line", "${model}"},
		"model as option":     {func(s *domain.LaunchSpec) { s.Renderer.CommandLine += " ${model}"; s.Model = "--listen=0.0.0.0:80" }, "model", "option"},
		"unsafe identity":     {func(s *domain.LaunchSpec) { s.Resource = "../escape" }, "resource", "identity"},
		"empty identity":      {func(s *domain.LaunchSpec) { s.Resource = "" }, "resource", "identity"},
		"unknown bare name":   {func(s *domain.LaunchSpec) { s.Renderer.CommandLine = "surely-no-such-program" }, "command_line", "surely-no-such-program"},
		"bare, no permission": {func(s *domain.LaunchSpec) { s.Renderer.CommandLine = "plain" }, "command_line", "not executable"},
		"path, no permission": {func(s *domain.LaunchSpec) { s.Renderer.CommandLine = plain }, "command_line", "not executable"},
		"directory":           {func(s *domain.LaunchSpec) { s.Renderer.CommandLine = dir }, "command_line", "directory"},
		"unknown format":      {func(s *domain.LaunchSpec) { s.Renderer.CommandLine = noFormat }, "command_line", "exec format error"},
	} {
		s := spec(t, "refused", "")
		c.change(&s)
		_, err := l.Launch(t.Context(), s)
		refusal, ok := domain.AsRefusal(err)
		if !ok || refusal.Kind != domain.KindInvalid || refusal.Field != c.field || !strings.Contains(refusal.Reason, c.reason) {
			t.Errorf("%s: got %v, want a refusal of %s with %q", name, err, c.field, c.reason)
		}
	}
	entries, err := os.ReadDir(opts.Dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("refused launches left %v, %v", entries, err)
	}
}

func TestBareNamesAreFoundBesideRRMFirst(t *testing.T) {
	t.Parallel()
	program := launchtest.Program(t, programDir)
	l, _ := open(t, func(o *local.Options) { o.BinDirs = []string{t.TempDir(), filepath.Dir(program)} })
	s := spec(t, "bare", "")
	s.Renderer.CommandLine = filepath.Base(program)
	var args []string
	get(t, launch(t, l, s), "/args", &args)
	if args[0] != filepath.Base(program) {
		t.Errorf("the program was called %q", args[0])
	}
}

func TestTheEndOfAChildIsToldAtOnce(t *testing.T) {
	t.Parallel()
	l, _ := open(t, nil)
	r := launch(t, l, spec(t, "short", "-exit 0"))
	select {
	case id := <-l.Exited():
		if id != "short" {
			t.Errorf("%s ended, want short", id)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nobody told of the end")
	}
	if o := observe(t, l, r); o.State != domain.LaunchGone || o.Reason != "exit status 0" {
		t.Errorf("observed %s, %q", o.State, o.Reason)
	}
	// It may be launched again; its earlier output is kept.
	again := launch(t, l, spec(t, "short", ""))
	var p int
	get(t, again, "/pid", &p)
	if out, err := l.Output(t.Context(), again, local.Stderr, 100); err != nil || len(out) == 0 {
		t.Errorf("output %q, %v", out, err)
	}
}

func TestARunawayOutputIsCut(t *testing.T) {
	t.Parallel()
	const bound = 10_000
	l, opts := open(t, func(o *local.Options) { o.MaxLog = bound })
	r := launch(t, l, spec(t, "noisy", "-lines 50000"))
	var p int
	get(t, r, "/pid", &p) // all is written before it answers
	observe(t, l, r)
	total := int64(0)
	for _, name := range []string{"stdout", "stdout.1"} {
		info, err := os.Stat(filepath.Join(opts.Dir, "noisy", name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 2*bound {
		t.Errorf("%d bytes are kept, want at most %d", total, 2*bound)
	}
	res, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+r.Address+"/v1/exit", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(res)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	want := "stdout line 50000\nasked to exit\n" // across the cut
	eventually(t, "the output ends with "+want, func() bool {
		out, err := l.Output(t.Context(), r, local.Stdout, int64(len(want)))
		return err == nil && string(out) == want
	})
}

func TestOnlyTheLastEndedResourcesAreKept(t *testing.T) {
	t.Parallel()
	l, opts := open(t, func(o *local.Options) { o.KeepEnded = 2 })
	for _, id := range []domain.ResourceID{"a", "b", "c", "d"} {
		r := launch(t, l, spec(t, id, ""))
		if err := l.Stop(t.Context(), r, false); err != nil {
			t.Fatal(err)
		}
	}
	live := launch(t, l, spec(t, "live", ""))
	entries, err := os.ReadDir(opts.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "c d live" {
		t.Errorf("kept %q, want the last two and what runs", got)
	}
	if _, err := l.Output(t.Context(), domain.Launched{Resource: "a"}, local.Stdout, 10); err == nil {
		t.Error("the output of a removed resource was read")
	} else if refusal, ok := domain.AsRefusal(err); !ok || refusal.Kind != domain.KindNotFound {
		t.Errorf("got %v, want not found", err)
	}
	if o := observe(t, l, live); o.State != domain.LaunchRunning {
		t.Errorf("the live one is %s", o.State)
	}
}

func TestAStopCanBeGivenUpAndRepeated(t *testing.T) {
	t.Parallel()
	l, _ := open(t, nil)
	r := launch(t, l, spec(t, "stubborn", "-ignore-sigterm -ignore-exit"))
	var p int
	get(t, r, "/pid", &p)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Stop(ctx, r, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v, want the deadline", err)
	}
	if o := observe(t, l, r); o.State != domain.LaunchRunning {
		t.Errorf("it is %s (%s), want it running", o.State, o.Reason)
	}
	if err := l.Stop(t.Context(), r, false); err != nil {
		t.Error(err)
	}
}

func TestPortsAreNotGivenTwice(t *testing.T) {
	t.Parallel()
	l, _ := open(t, nil)
	seen := map[string]domain.ResourceID{}
	for i := range 20 {
		id := domain.ResourceID(fmt.Sprint("r", i))
		r := launch(t, l, spec(t, id, "-exit 0"))
		if other, twice := seen[r.Address]; twice {
			t.Errorf("%s and %s both got %s", other, id, r.Address)
		}
		seen[r.Address] = id
	}
}
