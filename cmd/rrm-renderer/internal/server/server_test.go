package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/job"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

type fixture struct {
	t       *testing.T
	url     string
	server  *Server
	exits   chan struct{}
	stop    context.CancelFunc
	session string
}

func start(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"a.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "bad.obj": "f 1 2 3\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	library, err := model.OpenLibrary(dir)
	if err != nil {
		t.Fatal(err)
	}
	painter := picture.NewPainter(2)
	jobs, err := job.NewManager(painter, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, exits: make(chan struct{}, 10)}
	stopping, stop := context.WithCancel(context.Background())
	f.stop = stop
	f.server = &Server{
		Models: model.NewStore(library, 1<<30), Jobs: jobs, Painter: painter, Version: "test",
		Exit: func() { f.exits <- struct{}{} }, Stopping: stopping.Done(),
	}
	h := httptest.NewServer(f.server.Handler())
	f.url = h.URL
	t.Cleanup(func() {
		stop()
		h.Close()
		f.server.Models.Close()
		if err := jobs.Close(); err != nil {
			t.Error(err)
		}
		if err := library.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// call makes a request and returns status, body and headers.
func (f *fixture) call(method, path, body string) (int, []byte, http.Header) {
	f.t.Helper()
	req, err := http.NewRequest(method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if f.session != "" {
		req.Header.Set("X-RRM-Session", f.session)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return res.StatusCode, data, res.Header
}

// want makes a request, checks its status and returns the JSON answer.
func (f *fixture) want(status int, method, path, body string) map[string]any {
	f.t.Helper()
	got, data, header := f.call(method, path, body)
	var answer map[string]any
	if err := json.Unmarshal(data, &answer); err != nil || header.Get("Content-Type") != "application/json" {
		f.t.Errorf("%s %s: not JSON (%s): %.200q", method, path, header.Get("Content-Type"), data)
	}
	if got != status {
		f.t.Errorf("%s %s: %d, want %d: %v", method, path, got, status, answer)
	}
	return answer
}

// refused checks an error's status, code and field.
func (f *fixture) refused(status int, code, field, method, path, body string) {
	f.t.Helper()
	a := f.want(status, method, path, body)
	reason, _ := a["reason"].(string)
	if got, _ := a["field"].(string); a["code"] != code || got != field || reason == "" {
		f.t.Errorf("%s %s: %v, want the code %s and the field %q", method, path, a, code, field)
	}
}

// until repeats a GET until the state is the one that is waited for.
func (f *fixture) until(path, state string) map[string]any {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		a := f.want(200, "GET", path, "")
		if a["state"] == state {
			return a
		}
		select {
		case <-deadline:
			f.t.Fatalf("GET %s: %v, want %s", path, a, state)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (f *fixture) load(key string) {
	f.t.Helper()
	f.call("PUT", "/v1/models/"+key, "")
	f.until("/v1/models/"+key, "loaded")
}

func TestRegistryAndExit(t *testing.T) {
	f := start(t)
	f.refused(503, "starting", "", "PUT", "/registry", "")
	f.server.SetReady()
	a := f.want(200, "PUT", "/registry", "")
	if a["name"] != "rrm-renderer" || a["version"] != "test" ||
		fmt.Sprint(a["capabilities"]) != "[models jobs image stream camera frame_ranges]" || fmt.Sprint(a["job_kinds"]) != "[image frames]" {
		t.Errorf("%v", a)
	}
	f.want(200, "PUT", "/v1/exit", "")
	f.want(200, "PUT", "/v1/exit", "")
	<-f.exits
	if len(f.exits) != 0 {
		t.Error("the exit began twice")
	}
}

func TestUnknownCalls(t *testing.T) {
	f := start(t)
	f.refused(404, "not_found", "", "GET", "/v1/nothing", "")
	f.refused(405, "method_not_allowed", "", "POST", "/registry", "")
	f.refused(405, "method_not_allowed", "", "PATCH", "/v1/models/sphere", "")
}

func TestModels(t *testing.T) {
	f := start(t)
	f.refused(404, "model_not_loaded", "", "GET", "/v1/models/sphere", "")
	a := f.want(202, "PUT", "/v1/models/circuit%3A50", "")
	if a["model"] != "circuit:50" || a["state"] != "loading" {
		t.Errorf("%v", a)
	}
	f.want(202, "PUT", "/v1/models/circuit%3A50", "")
	f.want(200, "DELETE", "/v1/models/circuit%3A50", "")
	f.want(200, "DELETE", "/v1/models/circuit%3A50", "")
	f.refused(404, "model_not_loaded", "", "GET", "/v1/models/circuit%3A50", "")
	f.load("file%3Aa.obj")
	a = f.want(200, "PUT", "/v1/models/file%3Aa.obj", "")
	if a["state"] != "loaded" || a["progress"] != 1.0 || !(a["memory_mib"].(float64) > 0) {
		t.Errorf("%v", a)
	}
	f.want(202, "PUT", "/v1/models/bad.obj", "")
	if a = f.until("/v1/models/bad.obj", "failed"); a["code"] != "model_invalid" || a["reason"] == nil {
		t.Errorf("%v", a)
	}
	f.refused(404, "model_not_found", "", "PUT", "/v1/models/none.obj", "")
	f.refused(404, "model_not_found", "", "PUT", "/v1/models/file%3A..%2F..%2Fa.obj", "")
	f.refused(422, "model_invalid", "", "PUT", "/v1/models/neuron%3Ax", "")
	f.refused(422, "model_invalid", "", "PUT", "/v1/models/a%0Ab", "")
	f.refused(507, "model_too_large", "", "PUT", "/v1/models/circuit%3A10000", "")
	a = f.want(200, "GET", "/v1/models", "")
	if len(a["models"].([]any)) != 2 || a["memory_limit_mib"] != 1024.0 {
		t.Errorf("%v", a)
	}
}

func TestJobs(t *testing.T) {
	f := start(t)
	const spec = `{"width":64,"height":48,"samples":1,"frames":3}`
	f.refused(404, "job_not_found", "", "GET", "/v1/jobs/a", "")
	f.refused(404, "job_not_found", "", "GET", "/v1/jobs/a/result", "")
	f.refused(409, "model_not_loaded", "", "POST", "/v1/jobs/a", `{"kind":"image","model":"sphere","spec":`+spec+`}`)
	f.load("sphere")
	for body, field := range map[string]string{
		`{"kind":"movie","model":"sphere"}`:                                "kind",
		`{"model":"sphere"}`:                                               "kind",
		`{"kind":"image","model":7}`:                                       "model",
		`{"kind":"image","modle":"sphere"}`:                                "modle",
		`{"kind":"image","spec":{"width":1}}`:                              "spec.width",
		`{"kind":"image","spec":{"camera":{"fov":0}}}`:                     "spec.camera.fov",
		`{"kind":"image","spec":{"width":4096,"height":4096,"samples":4}}`: "spec.samples",
	} {
		f.refused(400, "invalid", field, "POST", "/v1/jobs/a", body)
	}
	f.refused(400, "invalid", "", "POST", "/v1/jobs/a", `{"kind":`)
	f.refused(400, "invalid", "id", "POST", "/v1/jobs/%2Fetc", `{"kind":"image"}`)
	f.refused(413, "too_large", "", "POST", "/v1/jobs/a", `"`+strings.Repeat("x", maxBody)+`"`)
	f.refused(422, "video_unavailable", "", "POST", "/v1/jobs/a", `{"kind":"video","model":"sphere"}`)
	if a := f.want(202, "POST", "/v1/jobs/a", `{"kind":"frames","model":"sphere","spec":`+spec+`}`); a["id"] != "a" {
		t.Errorf("%v", a)
	}
	a := f.until("/v1/jobs/a", "succeeded")
	if a["progress"] != 1.0 || a["content_type"] != "application/zip" {
		t.Errorf("%v", a)
	}
	if again := f.want(202, "POST", "/v1/jobs/a", `{"kind":"image"}`); again["state"] != "succeeded" {
		t.Errorf("the same id again: %v", again)
	}
	status, data, header := f.call("GET", "/v1/jobs/a/result", "")
	if status != 200 || header.Get("Content-Type") != "application/zip" || float64(len(data)) != a["bytes"] ||
		header.Get("Content-Length") != fmt.Sprint(len(data)) || !bytes.HasPrefix(data, []byte("PK")) {
		t.Errorf("result: %d, %v, %d bytes", status, header, len(data))
	}
	f.want(200, "DELETE", "/v1/jobs/a", "")
	f.want(200, "DELETE", "/v1/jobs/a", "")
	f.refused(404, "job_not_found", "", "GET", "/v1/jobs/a", "")
	f.want(202, "POST", "/v1/jobs/long", `{"kind":"frames","model":"sphere","spec":{"width":2000,"height":2000,"frames":10000}}`)
	f.refused(409, "job_running", "", "GET", "/v1/jobs/long/result", "")
	if a := f.want(200, "DELETE", "/v1/jobs/long", ""); a["state"] != "cancelled" {
		t.Errorf("%v", a)
	}
}

func (f *fixture) picture(query string) image.Image {
	f.t.Helper()
	status, data, header := f.call("GET", "/v1/image?"+query, "")
	if status != 200 {
		f.t.Fatalf("image: %d %s", status, data)
	}
	decode := png.Decode
	if header.Get("Content-Type") == "image/jpeg" {
		decode = jpeg.Decode
	}
	img, err := decode(bytes.NewReader(data))
	if err != nil {
		f.t.Fatal(err)
	}
	return img
}

func TestImages(t *testing.T) {
	f := start(t)
	f.refused(409, "model_not_loaded", "", "GET", "/v1/image", "")
	f.load("sphere")
	if b := f.picture("width=100&height=60").Bounds(); b.Dx() != 100 || b.Dy() != 60 {
		t.Errorf("%v", b)
	}
	f.picture("width=100&height=60&format=jpeg&quality=40&samples=1&yaw=5&pitch=-80&distance=1&fov=90&model=sphere&_=7")
	f.refused(400, "invalid", "width", "GET", "/v1/image?width=5", "")
	f.refused(400, "invalid", "yaw", "GET", "/v1/image?yaw=NaN", "")
	f.refused(400, "invalid", "format", "GET", "/v1/image?format=tiff", "")
	f.refused(409, "model_not_loaded", "", "GET", "/v1/image?model=torus", "")
	status, data, _ := f.call("GET", "/v1/image-jpeg?width=100&height=60", "")
	var answer struct{ Data []byte }
	if err := json.Unmarshal(data, &answer); err != nil || status != 200 {
		t.Fatalf("%d %v", status, err)
	}
	if img, err := jpeg.Decode(bytes.NewReader(answer.Data)); err != nil || img.Bounds().Dx() != 100 {
		t.Errorf("image-jpeg: %v", err)
	}
}

func TestTheModelIsThatOfQueryHeaderOrTheLast(t *testing.T) {
	f := start(t)
	f.load("torus")
	f.load("sphere")
	get := func(query, header string) string {
		req, err := http.NewRequest("GET", f.url+"/v1/image?width=64&height=64&samples=1"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-RRM-Model", header)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		data, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%d %v", res.StatusCode, err)
		}
		return string(data)
	}
	sphere, torus := get("&model=sphere", ""), get("&model=torus", "")
	if sphere == torus {
		t.Fatal("the models look the same")
	}
	if get("", "") != sphere || get("", "torus") != torus || get("&model=sphere", "torus") != sphere {
		t.Error("another model was meant")
	}
}

func TestCameraOfEachSession(t *testing.T) {
	f := start(t)
	f.load("sphere")
	f.session = "a"
	if a := f.want(200, "PUT", "/v1/camera", `{"yaw":77}`); a["yaw"] != 77.0 || a["pitch"] != 15.0 {
		t.Errorf("%v", a)
	}
	f.refused(400, "invalid", "roll", "PUT", "/v1/camera", `{"roll":1}`)
	f.refused(400, "invalid", "pitch", "PUT", "/v1/camera", `{"yaw":1,"pitch":100}`)
	f.refused(400, "invalid", "", "PUT", "/v1/camera", `nonsense`)
	if a := f.want(200, "GET", "/v1/camera", ""); a["yaw"] != 77.0 {
		t.Errorf("%v", a)
	}
	f.session = "b"
	if a := f.want(200, "GET", "/v1/camera", ""); a["yaw"] != 30.0 {
		t.Errorf("another session's: %v", a)
	}
}

func TestCamerasAreBounded(t *testing.T) {
	var c cameras
	_, changed := c.get("first")
	for i := range maxCameras {
		c.get(fmt.Sprint(i))
	}
	if len(c.of) != maxCameras {
		t.Errorf("%d cameras", len(c.of))
	}
	select {
	case <-changed:
	default:
		t.Error("who watched the forgotten camera was not woken")
	}
}
