package launchtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

func (s suite) testLife(t *testing.T, l Launcher) {
	r := s.launch(t, l, s.spec("life", ""))
	o := s.ready(t, l, r)
	s.eventually(t, s.Patience, func() (bool, string) { // a batch system may be told of later than the renderer answers
		o = s.observe(t, l, o.Launched)
		return o.Node != "", "no node is named"
	})
	if s.Bring == nil { // who starts nothing knows of no start, and has no orphans to list
		if o.Started.IsZero() || time.Since(o.Started) > time.Minute {
			t.Errorf("started at %v, want just now", o.Started)
		}
		if ids := listed(t, l); len(ids) != 1 || ids[0] != "life" {
			t.Errorf("listed %v, want life only", ids)
		}
	}
	pid := ask[int](t, o, "/pid")
	if err := l.Stop(t.Context(), o.Launched, true); err != nil {
		t.Fatal(err)
	}
	if processExists(pid) {
		t.Error("Stop returned while the process was there")
	}
	s.gone(t, l, r, s.Notice)
	if ids := listed(t, l); len(ids) != 0 {
		t.Errorf("listed %v after the stop, want none", ids)
	}
}

func listed(t *testing.T, l Launcher) (ids []domain.ResourceID) {
	t.Helper()
	all, err := l.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		ids = append(ids, r.Resource)
	}
	return ids
}

func (s suite) testLaunchTwice(t *testing.T, l Launcher) {
	spec := s.spec("twice", "")
	first := s.ready(t, l, s.launch(t, l, spec))
	second := s.ready(t, l, s.launch(t, l, spec))
	if a, b := ask[int](t, first, "/pid"), ask[int](t, second, "/pid"); a != b || first.Address != second.Address {
		t.Errorf("process %d at %s, then %d at %s; want the same", a, first.Address, b, second.Address)
	}
	if !bytes.Equal(first.Handle, second.Handle) {
		t.Errorf("handle %s, then %s; want the same", first.Handle, second.Handle)
	}
}

func (s suite) testLaunchTogether(t *testing.T, l Launcher) {
	spec := s.spec("together", "")
	launchers := []Launcher{l, s.Again(t, l), s.Again(t, l)}
	got := make([]domain.Launched, len(launchers))
	errs := make([]error, len(launchers))
	var wg sync.WaitGroup
	for i, l := range launchers {
		wg.Go(func() { got[i], errs[i] = l.Launch(t.Context(), spec) })
	}
	wg.Wait()
	for i := range launchers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		s.cleanUp(t, launchers[i], got[i])
		if !bytes.Equal(got[i].Handle, got[0].Handle) {
			t.Errorf("launcher %d has %s, launcher 0 %s; want the same", i, got[i].Handle, got[0].Handle)
		}
	}
}

func (s suite) testStopGraceful(t *testing.T, l Launcher) {
	o := s.ready(t, l, s.launch(t, l, s.spec("graceful", "-ignore-sigterm")))
	start := time.Now()
	if err := l.Stop(t.Context(), o.Launched, true); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > s.Notice {
		t.Errorf("took %s; the renderer exits at once when it is asked to", took)
	}
	out, err := l.Output(t.Context(), o.Launched, "stdout", 1000)
	if err != nil || !strings.Contains(string(out), "asked to exit") {
		t.Errorf("stdout is %q, %v; want it to say that the exit was asked for", out, err)
	}
}

func (s suite) testStopByForce(t *testing.T, l Launcher) {
	o := s.ready(t, l, s.launch(t, l, s.spec("stubborn", "-ignore-sigterm -ignore-exit")))
	pid := ask[int](t, o, "/pid")
	if err := l.Stop(t.Context(), o.Launched, true); err != nil {
		t.Fatal(err)
	}
	if processExists(pid) {
		t.Error("Stop returned while the process was there")
	}
	s.gone(t, l, o.Launched, s.Notice)
}

func (s suite) testStopTwice(t *testing.T, l Launcher) {
	o := s.ready(t, l, s.launch(t, l, s.spec("stopped", "")))
	for i := range 2 {
		if err := l.Stop(t.Context(), o.Launched, false); err != nil {
			t.Fatalf("stop number %d: %v", i+1, err)
		}
	}
	if err := l.Stop(t.Context(), domain.Launched{Resource: "never-launched"}, true); err != nil {
		t.Errorf("stop of a resource that never was: %v", err)
	}
	if ids := listed(t, l); len(ids) != 0 {
		t.Errorf("listed %v, want none", ids)
	}
}

func (s suite) testChildren(t *testing.T, l Launcher) {
	o := s.ready(t, l, s.launch(t, l, s.spec("parent", "-child")))
	child := ask[int](t, o, "/child")
	if !processExists(child) {
		t.Fatal("the child does not run")
	}
	if err := l.Stop(t.Context(), o.Launched, true); err != nil {
		t.Fatal(err)
	}
	// The child's new parent may take a moment to reap it.
	s.eventually(t, s.Patience, func() (bool, string) { return !processExists(child), "the child runs on" })
}

func (s suite) testOutput(t *testing.T, l Launcher) {
	const lines = 10_000
	o := s.ready(t, l, s.launch(t, l, s.spec("output", fmt.Sprint("-lines ", lines))))
	for _, stream := range []string{"stdout", "stderr"} {
		last := fmt.Sprintf("%s line %d\n%s line %d\n", stream, lines-1, stream, lines)
		got, err := l.Output(t.Context(), o.Launched, stream, int64(len(last)))
		if err != nil || string(got) != last {
			t.Errorf("the last %d bytes of %s are %q, %v; want %q", len(last), stream, got, err, last)
		}
		all, err := l.Output(t.Context(), o.Launched, stream, 1<<20)
		if err != nil || bytes.Count(all, []byte("\n")) != lines || !bytes.HasPrefix(all, []byte(stream+" line 1\n")) {
			t.Errorf("%s has %d lines, %v; want all %d", stream, bytes.Count(all, []byte("\n")), err, lines)
		}
		none, err := l.Output(t.Context(), o.Launched, stream, 0)
		if err != nil || len(none) != 0 {
			t.Errorf("the last 0 bytes of %s are %q, %v", stream, none, err)
		}
	}
	for _, stream := range []string{"", "stdin", "../record.json", "stdout/../lock"} {
		if got, err := l.Output(t.Context(), o.Launched, stream, 100); err == nil {
			t.Errorf("stream %q is %q, want a refusal", stream, got)
		}
	}
	if got, err := l.Output(t.Context(), o.Launched, "stdout", -1); err == nil {
		t.Errorf("the last -1 bytes are %q, want a refusal", got)
	}
	// What a resource wrote is wanted most when it is gone.
	if err := l.Stop(t.Context(), o.Launched, false); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Output(t.Context(), o.Launched, "stdout", 100); err != nil || len(got) == 0 {
		t.Errorf("after the stop the output is %q, %v; want it kept", got, err)
	}
}

func (s suite) testAdopt(t *testing.T, l Launcher) {
	spec := s.spec("adopted", "")
	before := s.ready(t, l, s.launch(t, l, spec))
	second := s.Again(t, l)
	if o := s.observe(t, second, before.Launched); o.State != domain.LaunchRunning || (!s.Tunnelled || o.Address == "") && o.Address != before.Address {
		t.Errorf("the second launcher sees %s at %s, want running at %s", o.State, o.Address, before.Address)
	}
	again := before
	if s.Bring == nil {
		again = s.ready(t, second, s.launch(t, second, spec))
	}
	if a, b := ask[int](t, before, "/pid"), ask[int](t, again, "/pid"); a != b {
		t.Errorf("the second launcher started process %d beside %d", b, a)
	}
	if err := second.Stop(t.Context(), again.Launched, true); err != nil {
		t.Fatal(err)
	}
	s.gone(t, second, before.Launched, s.Notice)
	s.gone(t, l, before.Launched, s.Notice)
}

func (s suite) testOrphan(t *testing.T, l Launcher) {
	for _, id := range []domain.ResourceID{"orphan-b", "orphan-a"} {
		s.ready(t, l, s.launch(t, l, s.spec(id, "")))
	}
	second := s.Again(t, l)
	orphans, err := second.List(t.Context())
	if err != nil || len(orphans) != 2 {
		t.Fatalf("listed %d, %v; want both orphans", len(orphans), err)
	}
	for _, o := range orphans {
		if got := s.observe(t, second, o); got.State != domain.LaunchRunning || got.Address == "" {
			t.Errorf("orphan %s is seen as %s at %q, want running", o.Resource, got.State, got.Address)
		}
		if err := second.Stop(t.Context(), o, false); err != nil {
			t.Errorf("stop orphan %s: %v", o.Resource, err)
		}
	}
	if ids := listed(t, second); len(ids) != 0 {
		t.Errorf("listed %v after the stops, want none", ids)
	}
}

func (s suite) testNoProgram(t *testing.T, l Launcher) {
	spec := s.spec("no-program", "")
	spec.Renderer.CommandLine = s.program + "-that-does-not-exist"
	r, err := l.Launch(t.Context(), spec)
	if s.LateFailures && err == nil {
		s.cleanUp(t, l, r)
		s.gone(t, l, r, s.Patience)
		return
	}
	refusal, ok := domain.AsRefusal(err)
	if !ok || refusal.Kind != domain.KindInvalid || refusal.Code != "launch_failed" || !strings.Contains(refusal.Reason, "no such file") {
		t.Errorf("got %v, want the refusal launch_failed with the reason", err)
	}
	if ids := listed(t, l); len(ids) != 0 {
		t.Errorf("listed %v, want none", ids)
	}
}

func (s suite) testExitAtOnce(t *testing.T, l Launcher) {
	r := s.launch(t, l, s.spec("exits", "-exit 3"))
	if o := s.gone(t, l, r, s.Patience); !strings.Contains(o.Reason, "exit status 3") {
		t.Errorf("the reason is %q, want the exit status 3", o.Reason)
	}
	out, err := l.Output(t.Context(), r, "stderr", 1000)
	if err != nil || !strings.Contains(string(out), "exiting at once") {
		t.Errorf("stderr is %q, %v; want its last words", out, err)
	}
	if o := s.observe(t, s.Again(t, l), r); o.State != domain.LaunchGone || !strings.Contains(o.Reason, "exit status 3") {
		t.Errorf("after a restart of rrm it is %s, %q; want gone, exit status 3", o.State, o.Reason)
	}
}

func (s suite) testKilled(t *testing.T, l Launcher) {
	if s.Bring != nil { // who starts nothing knows that it is silent, and no more
		own := s.ready(t, l, s.launch(t, l, s.spec("killed", "")))
		s.Kill(t, own.Launched)
		if o := s.gone(t, l, own.Launched, s.Notice); !strings.Contains(o.Reason, "missed") {
			t.Errorf("the reason is %q, want the heartbeats", o.Reason)
		}
		return
	}
	own := s.ready(t, l, s.launch(t, l, s.spec("killed", "-child")))
	child := ask[int](t, own, "/child")
	s.Kill(t, own.Launched)
	if o := s.gone(t, l, own.Launched, s.Notice); !strings.Contains(o.Reason, "signal 9") {
		t.Errorf("the reason is %q, want signal 9", o.Reason)
	}
	s.eventually(t, s.Patience, func() (bool, string) { return !processExists(child), "the child runs on" })
	if ids := listed(t, l); len(ids) != 0 {
		t.Errorf("listed %v, want none", ids)
	}
}

func (s suite) testEnvironment(t *testing.T, l Launcher) {
	marker := t.TempDir() + "/a-shell-was-here"
	hostile := map[string]string{
		"EMPTY": "", "COMMAS": "a,b,,c", "SPACES": "  a  b ", "QUOTES": `it's "so"`, "SUBSTITUTION": "$(touch " + marker + ") `touch " + marker + "`",
		"NEWLINES": "one\ntwo\n\nthree\n", "DOLLARS": "$HOME $$ %s \\n", "SEMICOLON": "x; touch " + marker, "EQUALS": "a=b=c", "UNICODE": "größe 模型", "GLOB": "* ?",
	}
	for name, value := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := s.spec(domain.ResourceID("env-"+strings.ToLower(name)), "")
			spec.Renderer.Environment = map[string]string{name: value}
			r, err := l.Launch(t.Context(), spec)
			if refusal, ok := domain.AsRefusal(err); ok && refusal.Kind == domain.KindInvalid {
				return // refusing is allowed, changing is not
			}
			if err != nil {
				t.Fatal(err)
			}
			s.cleanUp(t, l, r)
			got, set := ask[map[string]string](t, s.ready(t, l, r), "/env")[name]
			if !set || got != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
			if fileExists(marker) {
				t.Error("a shell carried out what the value says")
			}
		})
	}
	for _, name := range []string{"", "A B", "A=B", "1A", "A-B", "A\nB", "LÄNGE"} {
		spec := s.spec("env-bad-name", "")
		spec.Renderer.Environment = map[string]string{name: "x"}
		_ = s.refused(t, l, spec, "environment_variables")
	}
	spec := s.spec("env-nul", "")
	spec.Renderer.Environment = map[string]string{"A": "x\x00y"}
	_ = s.refused(t, l, spec, "environment_variables")
}

func (s suite) refused(t *testing.T, l Launcher, spec domain.LaunchSpec, field string) *domain.Refusal {
	t.Helper()
	r, err := l.Launch(t.Context(), spec)
	if err == nil {
		s.cleanUp(t, l, r)
	}
	refusal, ok := domain.AsRefusal(err)
	if !ok || refusal.Kind != domain.KindInvalid || field != "" && refusal.Field != field {
		t.Fatalf("got %v, want a refusal of %s", err, field)
	}
	return refusal
}

func (s suite) testArguments(t *testing.T, l Launcher) {
	marker := t.TempDir() + "/a-shell-was-here"
	spec := s.spec("arguments", `-- "${model}" '$(touch `+marker+`)' plain\ space "a;b" id=${job_id} ${rest_schema}`)
	spec.Model = "circuit 100; touch " + domain.ModelKey(marker) + " ${rest_port} `id`"
	spec.Renderer.Environment = map[string]string{"WHERE": "${rest_hostname}:${rest_port}"}
	o := s.ready(t, l, s.launch(t, l, spec))
	args := ask[[]string](t, o, "/args")
	var got []string
	for i, a := range args {
		if a == "--" {
			got = args[i+1:]
			break
		}
	}
	if len(got) != 6 {
		t.Fatalf("arguments are %q, want 6 after --", args)
	}
	for i, want := range []string{string(spec.Model), "$(touch " + marker + ")", "plain space", "a;b"} {
		if got[i] != want {
			t.Errorf("argument %d is %q, want %q", i, got[i], want)
		}
	}
	if got[4] == "id=" || strings.Contains(got[4], "$") || strings.Contains(got[5], "$") {
		t.Errorf("arguments %q and %q still hold placeholders", got[4], got[5])
	}
	where := ask[map[string]string](t, o, "/env")["WHERE"]
	if !slices.Contains(args, where) { // what -listen was given
		t.Errorf("WHERE is %q, which is not among the arguments %q", where, args)
	}
	if !s.Tunnelled && !strings.HasSuffix(where, o.Address[strings.LastIndexByte(o.Address, ':'):]) {
		t.Errorf("WHERE is %q, want the port of %s", where, o.Address)
	}
	if fileExists(marker) {
		t.Error("a shell carried out an argument")
	}
}

func (s suite) testWorkDir(t *testing.T, l Launcher) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	spec := s.spec("workdir", "")
	spec.Renderer.WorkDir = dir
	o := s.ready(t, l, s.launch(t, l, spec))
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", ask[int](t, o, "/pid"))); err != nil || got != dir {
		t.Errorf("it works in %q, %v; want %q", got, err, dir)
	}
	spec = s.spec("no-workdir", "")
	spec.Renderer.WorkDir = dir + "/not-there"
	r, err := l.Launch(t.Context(), spec)
	if err == nil { // the node says so, and not by running it elsewhere
		s.cleanUp(t, l, r)
		s.gone(t, l, r, s.Patience)
	} else if refusal, ok := domain.AsRefusal(err); !ok || !strings.Contains(refusal.Reason, "not-there") {
		t.Errorf("a directory that does not exist: %v", err)
	}
}

func (s suite) testUnknownPlaceholder(t *testing.T, l Launcher) {
	refusal := s.refused(t, l, s.spec("placeholder", "-x ${rest_prot}"), "")
	if !strings.Contains(refusal.Reason, "${rest_prot}") {
		t.Errorf("the reason %q does not name the placeholder", refusal.Reason)
	}
}

func (s suite) testNeverLaunched(t *testing.T, l Launcher) {
	r := s.launch(t, l, s.spec("known", ""))
	if s.Bring != nil { // one that was heard of a moment ago somewhere is given time to be heard here
		s.gone(t, l, domain.Launched{Resource: "unknown"}, s.Notice)
		return
	}
	got, err := l.Observe(t.Context(), []domain.Launched{{Resource: "unknown"}, r})
	if err != nil || len(got) != 2 {
		t.Fatalf("%d answers, %v; want 2", len(got), err)
	}
	if got[0].Resource != "unknown" || got[0].State != domain.LaunchGone || got[0].Reason == "" {
		t.Errorf("the unknown is %+v, want gone with a reason", got[0])
	}
	if got[1].Resource != "known" || got[1].State == domain.LaunchGone {
		t.Errorf("the known is %+v, want it not to be gone", got[1])
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Observe(ctx, []domain.Launched{r}); err == nil {
		t.Error("observing with a cancelled context gave no error")
	}
}
