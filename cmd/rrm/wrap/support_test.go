package wrap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// usual are settings as the command line makes them without flags.
func usual() Settings {
	return Settings{
		Listen: "127.0.0.1:0", Kinds: []string{kindImage}, ImageOutput: "result.png", FramesOutput: "frame_.png", VideoOutput: "result.mp4",
		Slots: 1, Timeout: time.Minute, MaxOutput: 64 << 20, InputName: "input.txt", MaxInput: 64 << 10, Version: "test",
	}
}

// wrapper is one that runs, as its client sees it.
type wrapper struct {
	t       *testing.T
	url     string
	workDir string
	ended   chan error
}

// start runs a wrapper of the fake program until the test ends, and looks that nothing is left of it.
func start(t *testing.T, change func(*Settings), command ...string) *wrapper {
	t.Helper()
	s := usual()
	s.Command, s.WorkDir = own(t, command...), t.TempDir()
	if change != nil {
		change(&s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, stdout := io.Pipe()
	w := &wrapper{t: t, workDir: s.WorkDir, ended: make(chan error, 1)}
	go func() {
		err := Run(ctx, s, stdout)
		_ = stdout.CloseWithError(io.EOF)
		w.ended <- err
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("it did not start: %v", <-w.ended)
	}
	w.url = addressIn(t, line)
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-w.ended:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("it does not end")
		}
		w.nothingLeft()
	})
	return w
}

func addressIn(t *testing.T, line string) string {
	t.Helper()
	_, rest, ok := strings.Cut(line, "listens on ")
	url, _, _ := strings.Cut(rest, " ")
	if !ok || url == "" {
		t.Fatalf("no address in %q", line)
	}
	return url
}

func (w *wrapper) nothingLeft() {
	w.t.Helper()
	if left, err := os.ReadDir(w.workDir); err != nil || len(left) > 0 {
		w.t.Errorf("left in the work directory: %v (%v)", left, err)
	}
}

// call sends a request and gives the status and the bytes that came back.
func (w *wrapper) call(method, path string, body any) (int, http.Header, []byte) {
	w.t.Helper()
	raw, err := json.Marshal(body)
	if text, ok := body.(string); ok {
		raw = []byte(text)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.url+path, bytes.NewReader(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, res.Header, answer
}

// must is call that expects a status and JSON of a job, or of an error.
func (w *wrapper) must(want int, method, path string, body any) status {
	w.t.Helper()
	code, _, raw := w.call(method, path, body)
	var st status
	if err := json.Unmarshal(raw, &st); err != nil || code != want {
		w.t.Fatalf("%s %s: %d, not %d: %s (%v)", method, path, code, want, raw, err)
	}
	return st
}

type doc = map[string]any

func (w *wrapper) submit(id, kind string, spec doc) {
	w.t.Helper()
	w.must(202, "POST", "/v1/jobs/"+id, doc{"kind": kind, "model": "m", "spec": spec})
}

// finished waits for the end of a job.
func (w *wrapper) finished(id string) (st status) {
	w.t.Helper()
	eventually(w.t, "job "+id+" ends", func() bool {
		st = w.must(200, "GET", "/v1/jobs/"+id, nil)
		return st.State != stateRunning
	})
	return st
}

// made submits a job that succeeds and gives its result.
func (w *wrapper) made(id, kind string, spec doc) (contentType string, result []byte) {
	w.t.Helper()
	w.submit(id, kind, spec)
	st := w.finished(id)
	if st.State != stateSucceeded || st.Progress != 1 {
		w.t.Fatalf("job %s: %+v", id, st)
	}
	code, h, body := w.call("GET", "/v1/jobs/"+id+"/result", nil)
	if code != 200 || int64(len(body)) != st.Bytes || h.Get("Content-Type") != st.ContentType {
		w.t.Fatalf("result of %s: %d, %d bytes of %s; the job says %+v", id, code, len(body), h.Get("Content-Type"), st)
	}
	return st.ContentType, body
}

// failed submits a job that fails.
func (w *wrapper) failed(id, kind string, spec doc) status {
	w.t.Helper()
	w.submit(id, kind, spec)
	st := w.finished(id)
	if st.State != stateFailed {
		w.t.Fatalf("job %s: %+v", id, st)
	}
	return st
}
