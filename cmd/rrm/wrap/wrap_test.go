package wrap

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestAnImage(t *testing.T) {
	w := start(t, nil, "args", "{output}", "{width}x{height}", "{spec.text}", "$HOME `id` ; *", "{dir}")
	var reg struct {
		Name         string   `json:"name"`
		Capabilities []string `json:"capabilities"`
		Kinds        []string `json:"job_kinds"`
	}
	code, _, raw := w.call("PUT", "/registry", nil)
	if err := json.Unmarshal(raw, &reg); err != nil || code != 200 || !slices.Equal(reg.Capabilities, []string{"jobs"}) || !slices.Equal(reg.Kinds, []string{"image"}) || reg.Name == "" {
		t.Errorf("registry: %d %s", code, raw)
	}
	kind, result := w.made("a", "image", doc{"width": 12, "text": "red"})
	var args []string
	if err := json.Unmarshal(result, &args); err != nil {
		t.Fatal(err)
	}
	if kind != "image/png" || len(args) != 4 || args[0] != "12x360" || args[1] != "red" || args[2] != "$HOME `id` ; *" {
		t.Errorf("%s: %q", kind, args)
	}
	if _, err := os.Stat(args[3]); err == nil {
		t.Error("the work directory stayed after the end")
	}
	if st := w.must(202, "POST", "/v1/jobs/a", doc{"kind": "video"}); st.State != stateSucceeded {
		t.Errorf("the same id again: %+v", st)
	}
	w.must(200, "DELETE", "/v1/jobs/a", nil)
	if st := w.must(200, "DELETE", "/v1/jobs/a", nil); st.State != stateCancelled {
		t.Errorf("deleted again: %+v", st)
	}
	for _, call := range []string{"GET /v1/jobs/a", "GET /v1/jobs/a/result"} {
		method, path, _ := strings.Cut(call, " ")
		if st := w.must(404, method, path, nil); st.Code != codeJobNotFound {
			t.Errorf("%s: %+v", call, st)
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.workDir, "*", "*")); err != nil || len(left) != 1 { // the lock
		t.Errorf("a forgotten job left %v (%v)", left, err)
	}
	w.must(404, "GET", "/v1/models", nil) // not asked for
	for path, want := range map[string]int{"/nothing": 404, "/v1/jobs/b": 400} {
		if st := w.must(want, "POST", path, "{"); st.Code == "" || st.Reason == "" {
			t.Errorf("%s: %+v", path, st)
		}
	}
	if code, _, _ := w.call("POST", "/v1/jobs/b", strings.Repeat(" ", maxBody+1)); code != 413 {
		t.Errorf("a body without an end: %d", code)
	}
}

func TestOutputs(t *testing.T) {
	video := func(s *Settings) { s.Kinds, s.VideoOutput = []string{kindVideo}, "film.webm" }
	if kind, _ := start(t, video, "write", "{output}", "x").made("a", kindVideo, nil); kind != "video/webm" {
		t.Errorf("by the extension: %s", kind)
	}
	typed := func(s *Settings) { s.ContentType = "image/x-other" }
	if kind, _ := start(t, typed, "write", "{output}", "x").made("a", kindImage, nil); kind != "image/x-other" {
		t.Errorf("as said: %s", kind)
	}
	if _, result := start(t, nil, "frames", "{output}", "result1.png").made("a", kindImage, nil); string(result) != "result1.png" {
		t.Errorf("the only file: %s", result)
	}
	for name, command := range map[string][]string{
		"nothing":     {"frames", "{output}"},
		"an empty":    {"write", "{output}"},
		"which one":   {"frames", "{output}", "a.png", "b.png"},
		"a link":      {"link", "{output}", "/etc/passwd"},
		"a directory": {"frames", "{output}/x"},
	} {
		if st := start(t, nil, command...).failed("a", kindImage, nil); st.Code != codeUnsupported && st.Code != codeProgramFailed || st.Reason == "" {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

func names(t *testing.T, archive []byte) (names []string, texts string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		names, texts = append(names, f.Name), texts+string(b)+" "
	}
	return names, strings.TrimSpace(texts)
}

func TestFrames(t *testing.T) {
	frames := func(s *Settings) { s.Kinds = []string{kindFrames} }
	w := start(t, frames, "frames", "{output}", "f_10.png", "f_9.png", "f_11.png", "log.txt", "{spec.more}.png", "{frames}.dat")
	kind, archive := w.made("a", kindFrames, doc{"frames": 3, "more": "none"})
	got, texts := names(t, archive)
	if kind != "application/zip" || !slices.Equal(got, []string{"frame_0001.png", "frame_0002.png", "frame_0003.png"}) || texts != "f_9.png f_10.png f_11.png" {
		t.Errorf("one run: %s %v %s", kind, got, texts)
	}
	if st := w.failed("b", kindFrames, doc{"frames": 4, "more": "none"}); st.Code != codeUnsupported || !strings.Contains(st.Reason, "3 of 4") {
		t.Errorf("too few: %+v", st)
	}
	if st := w.failed("c", kindFrames, doc{"frames": 4, "more": "g09"}); st.Code != codeUnsupported || !strings.Contains(st.Reason, "twice") {
		t.Errorf("one twice: %+v", st)
	}
	each := func(s *Settings) {
		s.Kinds, s.PerFrame, s.FramesOutput = []string{kindFrames, kindImage}, true, "pic.jpg"
	}
	w = start(t, each, "write", "{output}", "{frame}/{frames}")
	_, archive = w.made("a", kindFrames, doc{"frames": 3})
	if got, texts = names(t, archive); !slices.Equal(got, []string{"frame_0001.jpg", "frame_0002.jpg", "frame_0003.jpg"}) || texts != "1/3 2/3 3/3" {
		t.Errorf("a run each: %v %s", got, texts)
	}
	if _, result := w.made("b", kindImage, doc{"frame": 7, "frames": 9}); string(result) != "7/9" {
		t.Errorf("one of them as an image: %s", result)
	}
	_, again := w.made("c", kindFrames, doc{"frames": 3})
	if !bytes.Equal(archive, again) {
		t.Error("the same frames give other bytes")
	}
}

// What the ends of a program mean for the next attempt: the process manager
// of jobs takes invalid and unsupported as permanent, others as transient.
func TestClassesOfFailure(t *testing.T) {
	exits := func(s *Settings) { s.Exit = []string{"2=permanent", "75=transient", "127=transient"} }
	w := start(t, exits, "exit", "{spec.status}", "last", "words", "{output}")
	for status, code := range map[int]string{1: codeProgramFailed, 2: codeInvalid, 75: codeProgramFailed, 126: codeUnsupported, 127: codeProgramFailed} {
		st := w.failed(fmt.Sprint("s", status), kindImage, doc{"status": status})
		if st.Code != code || !strings.Contains(st.Reason, fmt.Sprintf("exit status %d", status)) || !strings.Contains(st.Reason, "last words {dir}/out") {
			t.Errorf("status %d: %+v", status, st)
		}
	}
	if st := start(t, nil, "die", "{output}").failed("a", kindImage, nil); st.Code != codeProgramFailed || !strings.Contains(st.Reason, "signal 9") {
		t.Errorf("killed: %+v", st)
	}
	path := filepath.Join(t.TempDir(), "gone")
	fatal := func(s *Settings) { s.Exit = []string{"signal=permanent"} }
	if st := start(t, fatal, "die", "{output}").failed("a", kindImage, nil); st.Code != codeInvalid {
		t.Errorf("killed, for good: %+v", st)
	}
	gone := start(t, func(s *Settings) {
		raw, err := os.ReadFile(s.Command[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o700); err != nil {
			t.Fatal(err)
		}
		s.Command[0] = path
	}, "write", "{output}", "x")
	gone.made("a", kindImage, nil)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if st := gone.failed("b", kindImage, nil); st.Code != codeUnsupported {
		t.Errorf("a program that is not there any more: %+v", st)
	}
}

func TestProgressOfRunningPrograms(t *testing.T) {
	release := filepath.Join(t.TempDir(), "go")
	change := func(s *Settings) { s.Progress = `(\d+)%` }
	w := start(t, change, "tell", "{output}", release, "\x1b[1mstart\n10%\r40%\r30%\r")
	w.submit("a", kindImage, nil)
	eventually(t, "progress is 0.4", func() bool {
		st := w.must(200, "GET", "/v1/jobs/a", nil)
		if st.State != stateRunning {
			t.Fatalf("%+v", st)
		}
		return st.Progress == 0.4 // and not back to 0.3
	})
	if st := w.must(409, "GET", "/v1/jobs/a/result", nil); st.Code != "job_running" {
		t.Errorf("the result before its time: %+v", st)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if st := w.finished("a"); st.State != stateSucceeded || st.Progress != 1 {
		t.Errorf("%+v", st)
	}
}

func TestCancelKillsTheWholeFamily(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	w := start(t, nil, "family", pids, "{output}")
	w.submit("a", kindImage, nil)
	all := pidsIn(t, pids, 3)
	st := w.must(200, "DELETE", "/v1/jobs/a", nil)
	for _, pid := range all {
		if alive(pid) {
			t.Errorf("%d of %v outlived the cancellation", pid, all)
		}
	}
	if st.State != stateCancelled {
		t.Errorf("%+v", st)
	}
}

func TestExitKillsAndCleansWithinItsTime(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	w := start(t, nil, "family", pids, "{output}")
	w.submit("a", kindImage, nil)
	w.submit("b", kindImage, nil) // waits for the slot
	all := pidsIn(t, pids, 3)
	began := time.Now()
	if code, _, _ := w.call("PUT", "/v1/exit", nil); code != 200 {
		t.Fatalf("exit: %d", code)
	}
	err := <-w.ended
	if took := time.Since(began); err != nil || took > 2*time.Second {
		t.Errorf("it took %s (%v)", took, err)
	}
	for _, pid := range all {
		if alive(pid) {
			t.Errorf("%d outlived the exit", pid)
		}
	}
	w.nothingLeft()
	w.ended <- nil
}

func TestWhatAProgramLeavesBehindIsEnded(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	w := start(t, nil, "leave", "{output}", pids)
	w.made("a", kindImage, nil)
	if pid := pidsIn(t, pids, 1)[0]; alive(pid) {
		t.Errorf("%d is still there", pid)
	}
}

func TestTimeLimit(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	w := start(t, func(s *Settings) { s.Timeout = 300 * time.Millisecond }, "family", pids, "{output}")
	if st := w.failed("a", kindImage, nil); st.Code != codeTimeout {
		t.Errorf("%+v", st)
	}
	for _, pid := range pidsIn(t, pids, 3) {
		if alive(pid) {
			t.Errorf("%d outlived the time limit", pid)
		}
	}
}

func TestSizeLimit(t *testing.T) {
	if st := start(t, func(s *Settings) { s.MaxOutput = 10 }, "write", "{output}", "more than ten").failed("a", kindImage, nil); st.Code != codeTooLarge {
		t.Errorf("faster than anybody looks: %+v", st)
	}
	small := func(s *Settings) { s.MaxOutput = 3 << 20 }
	w := start(t, small, "fill", "{output}")
	if st := w.failed("a", kindImage, nil); st.Code != codeTooLarge || !strings.Contains(st.Reason, "3 MiB") {
		t.Errorf("without an end: %+v", st)
	}
	// Not only what is the result counts.
	if st := start(t, small, "fill", "{dir}/tmp/other", "{output}").failed("a", kindImage, nil); st.Code != codeTooLarge {
		t.Errorf("beside the output: %+v", st)
	}
}

func TestSlots(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "runs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w := start(t, func(s *Settings) { s.Slots, s.Timeout = 2, 10*time.Second }, "together", "{output}", dir, "2")
	const jobs = 5
	for i := range jobs {
		w.submit(fmt.Sprint("j", i), kindImage, nil)
	}
	for i := range jobs {
		if st := w.finished(fmt.Sprint("j", i)); st.State != stateSucceeded {
			t.Errorf("job %d: %+v", i, st)
		}
	}
}

func TestTheSameJobFromManyClients(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	c := ready(t, func(s *Settings) { s.Slots, s.WorkDir, s.Command = 4, t.TempDir(), own(t, "count", "{output}", count) })
	c.Log = slog.New(slog.DiscardHandler)
	m, err := newManager(c)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			w, err := c.understand("a", "m", []byte(`{"kind":"image"}`))
			if err == nil {
				_, err = m.submit(w)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	eventually(t, "it ends", func() bool { st, ok := m.status("a"); return ok && st.State == stateSucceeded })
	if err := m.close(); err != nil {
		t.Error(err)
	}
	if raw, err := os.ReadFile(count); err != nil || strings.Count(string(raw), "\n") != 1 {
		t.Errorf("it ran %d times (%v)", strings.Count(string(raw), "\n"), err)
	}
}

func TestJobsAreBounded(t *testing.T) {
	w := start(t, nil, "hang", "{output}")
	for i := range 1 + maxWaiting {
		w.submit(fmt.Sprint("j", i), kindImage, nil)
	}
	code, h, raw := w.call("POST", "/v1/jobs/more", doc{"kind": "image"})
	if code != 503 || h.Get("Retry-After") == "" || !strings.Contains(string(raw), codeBusy) {
		t.Errorf("one more: %d %s", code, raw)
	}
	w.must(200, "DELETE", "/v1/jobs/j7", nil)
	w.submit("more", kindImage, nil)
}

func TestTheOldestFinishedIsForgotten(t *testing.T) {
	w := start(t, nil, "write", "{output}", "x")
	for i := range maxKept + 3 {
		id := fmt.Sprint("j", i)
		w.submit(id, kindImage, nil)
		w.finished(id)
	}
	w.must(404, "GET", "/v1/jobs/j0", nil)
	w.must(404, "GET", "/v1/jobs/j1", nil)
	w.must(200, "GET", fmt.Sprint("/v1/jobs/j", maxKept+2), nil)
	if left, err := filepath.Glob(filepath.Join(w.workDir, "*", "*", "result")); err != nil || len(left) != maxKept+1 {
		t.Errorf("%d results are kept (%v)", len(left), err)
	}
	large := start(t, func(s *Settings) { s.MaxOutput = 4096 }, "write", "{output}", strings.Repeat("x", 4000))
	for i := range keptRoom + 2 {
		large.made(fmt.Sprint("j", i), kindImage, nil)
	}
	large.must(404, "GET", "/v1/jobs/j0", nil)
	large.must(200, "GET", fmt.Sprint("/v1/jobs/j", keptRoom+1), nil)
}

func TestInputs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.pov"), []byte("scene"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := start(t, func(s *Settings) {
		s.InputDir, s.FromSpec, s.InputName, s.Models = dir, true, "scene.pov", true
	}, "args", "{output}", "{input}", "{dir}")
	read := func(id, model string, spec doc) (args []string) {
		w.must(202, "POST", "/v1/jobs/"+id, doc{"kind": "image", "model": model, "spec": spec})
		if st := w.finished(id); st.State != stateSucceeded {
			t.Fatalf("%+v", st)
		}
		_, _, raw := w.call("GET", "/v1/jobs/"+id+"/result", nil)
		if err := json.Unmarshal(raw, &args); err != nil {
			t.Fatal(err)
		}
		return args
	}
	if args := read("a", "a.pov", nil); args[0] != filepath.Join(dir, "a.pov") {
		t.Errorf("a file: %v", args)
	}
	if args := read("b", "any", doc{"input": "sphere { <0> }"}); args[0] != filepath.Join(args[1], "scene.pov") {
		t.Errorf("a text: %v", args)
	}
	if st := w.must(422, "POST", "/v1/jobs/c", doc{"kind": "image", "model": "../a"}); st.Code != codeModelNotFound {
		t.Errorf("none: %+v", st)
	}
	w.must(404, "GET", "/v1/models/a.pov", nil)
	w.must(404, "PUT", "/v1/models/b.pov", nil)
	for range 2 {
		if st := w.must(200, "PUT", "/v1/models/a.pov", nil); st.State != "loaded" {
			t.Errorf("%+v", st)
		}
	}
	w.must(200, "GET", "/v1/models/a.pov", nil)
	if _, _, raw := w.call("GET", "/v1/models", nil); strings.Count(string(raw), "a.pov") != 1 {
		t.Errorf("list: %s", raw)
	}
	for range 2 {
		w.must(200, "DELETE", "/v1/models/a.pov", nil)
	}
	w.must(404, "GET", "/v1/models/a.pov", nil)
}

func TestEnvironmentOfPrograms(t *testing.T) {
	t.Setenv("RRM_TOKEN", "secret")
	t.Setenv("RRM_RESOURCE", "res-1")
	t.Setenv("KEPT", "yes")
	w := start(t, func(s *Settings) { s.Environment = []string{"HOME={dir}", "SIZE={width}"} }, "env", "{output}")
	_, raw := w.made("a", kindImage, doc{"width": 7})
	env := strings.Split(string(raw), "\n")
	value := func(name string) (all []string) {
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, name+"="); ok {
				all = append(all, v)
			}
		}
		return all
	}
	if strings.Contains(string(raw), "secret") {
		t.Error("the program sees the wrapper's token")
	}
	home, tmp := value("HOME"), value("TMPDIR")
	if len(home) != 1 || len(tmp) != 1 || tmp[0] != filepath.Join(home[0], "tmp") || !strings.HasPrefix(home[0], w.workDir) {
		t.Errorf("HOME %v, TMPDIR %v", home, tmp)
	}
	for name, want := range map[string]string{"SIZE": "7", "RRM_RESOURCE": "res-1", "KEPT": "yes"} {
		if got := value(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %v", name, got)
		}
	}
}

// A wrapper that is killed leaves its directory and what has left its
// program's group; the next one ends and removes both.
func TestTheNextSweepsAfterAKill(t *testing.T) {
	dir, pids := t.TempDir(), filepath.Join(t.TempDir(), "pids")
	command := own(t, "family", pids, "{output}")
	cmd := exec.Command(command[0], append([]string{"wrapper", dir}, command...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	defer func() {
		if !killed {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	victim := &wrapper{t: t, url: addressIn(t, line)}
	victim.submit("a", kindImage, nil)
	all := pidsIn(t, pids, 3)
	alivePlace, err := newPlace(dir) // of a neighbour, which must stay
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	killed = true
	eventually(t, "the program ends with its wrapper", func() bool { return !alive(all[2]) })
	next, err := newPlace(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range all {
		eventually(t, "what the killed one left is ended", func() bool { return !alive(pid) })
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left: %v (%v)", left, err)
	}
	for _, p := range []*place{alivePlace, next} {
		if _, err := os.Stat(p.path); err != nil {
			t.Errorf("a living one's directory: %v", err)
		}
		if err := p.remove(); err != nil {
			t.Error(err)
		}
	}
}
