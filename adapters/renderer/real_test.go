package renderer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image/jpeg"
	"image/png"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/rendering-resource-manager/rrm/adapters/renderer"
)

// startReal builds and runs the reference renderer, and returns its address and its end.
func startReal(t *testing.T) (address string, ended <-chan struct{}) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "rrm-renderer")
	out, err := exec.Command("go", "build", "-o", program, "github.com/rendering-resource-manager/rrm/cmd/rrm-renderer").CombinedOutput()
	if err != nil {
		t.Fatalf("build the reference renderer: %v\n%s", err, out)
	}
	address = nobody(t)
	cmd := exec.Command(program, "--listen", address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	go func() {
		defer close(end)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-end
	})
	return address, end
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestTheReferenceRenderer(t *testing.T) {
	t.Parallel()
	address, ended := startReal(t)
	c := renderer.New(address, renderer.Options{})
	ctx := t.Context()
	var registry renderer.Registry
	eventually(t, "it is ready", func() (ready bool) {
		var err error
		registry, err = c.Probe(ctx)
		return err == nil
	})
	if !registry.Can(renderer.CapabilityModels) || !registry.Can(renderer.CapabilityJobs) || registry.Name == "" {
		t.Errorf("it says of itself %+v", registry)
	}
	var e *renderer.Error
	if _, err := c.ModelStatus(ctx, "neuron:1"); !errors.As(err, &e) || e.Code != "model_not_loaded" {
		t.Errorf("a model that was never asked for: %v", err)
	}
	if _, err := c.LoadModel(ctx, "no/such model"); !errors.As(err, &e) || e.Status != http.StatusNotFound || e.Code != "model_not_found" {
		t.Errorf("a model that does not exist: %v", err)
	}
	if _, err := c.LoadModel(ctx, "neuron:1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the model is loaded", func() bool {
		m, err := c.ModelStatus(ctx, "neuron:1")
		return err == nil && m.State == renderer.ModelLoaded && m.Model == "neuron:1"
	})
	if m, err := c.Models(ctx); err != nil || len(m.Models) != 1 || m.MemoryMiB <= 0 {
		t.Errorf("models: %+v, %v", m, err)
	}
	realJob(t, c)
	picture, err := c.ImageJPEG(ctx, "s", "neuron:1", url.Values{"width": {"64"}, "height": {"48"}})
	if err != nil {
		t.Fatal(err)
	}
	if img, err := jpeg.Decode(bytes.NewReader(picture)); err != nil || img.Bounds().Dx() != 64 {
		t.Errorf("the picture is none: %v", err)
	}
	realStreams(t, address)
	for range 2 {
		if err := c.UnloadModel(ctx, "neuron:1"); err != nil {
			t.Error(err)
		}
	}
	if err := c.Exit(ctx); err != nil {
		t.Error(err)
	}
	within(t, "it has exited", ended)
	if _, err := c.Probe(ctx); !errors.Is(err, renderer.ErrUnreachable) {
		t.Errorf("after its exit: %v", err)
	}
}

// realJob renders a picture as a job.
func realJob(t *testing.T, c *renderer.Client) {
	t.Helper()
	ctx := t.Context()
	var e *renderer.Error
	if _, err := c.JobResult(ctx, "j1"); !errors.As(err, &e) || e.Status != http.StatusNotFound {
		t.Errorf("the result of a job that is unknown: %v", err)
	}
	bad := renderer.JobRequest{Kind: "image", Model: "neuron:1", Spec: json.RawMessage(`{"width": -1}`)}
	if _, err := c.SubmitJob(ctx, "j0", bad); !errors.As(err, &e) || e.Status != http.StatusBadRequest || e.Field != "spec.width" {
		t.Errorf("a job with a negative width: %v", err)
	}
	job := renderer.JobRequest{Kind: "image", Model: "neuron:1", Spec: json.RawMessage(`{"width": 80, "height": 60}`)}
	for range 2 {
		if _, err := c.SubmitJob(ctx, "j1", job); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the job is done", func() bool {
		j, err := c.JobStatus(ctx, "j1")
		return err == nil && j.State == renderer.JobSucceeded
	})
	res, err := c.JobResult(ctx, "j1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.ContentType != "image/png" || res.Size != int64(len(b)) {
		t.Errorf("%d bytes of %d, %q, %v", len(b), res.Size, res.ContentType, err)
	}
	if img, err := png.Decode(bytes.NewReader(b)); err != nil || img.Bounds().Dx() != 80 {
		t.Errorf("the result is no picture: %v", err)
	}
	for range 2 {
		if err := c.CancelJob(ctx, "j1"); err != nil {
			t.Error(err)
		}
	}
}

// realStreams takes frames through the proxy, both ways that the renderer has.
func realStreams(t *testing.T, address string) {
	t.Helper()
	f := newFront(t, address, renderer.ProxyOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	res := plainly(t, http.MethodGet, f.url+"/v1/stream?width=64&height=48", nil, "")
	_, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		t.Fatalf("%s: %v", res.Status, err)
	}
	part, err := multipart.NewReader(res.Body, params["boundary"]).NextPart()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jpeg.Decode(part); err != nil {
		t.Errorf("the first frame is no JPEG: %v", err)
	}
	c, _, err := websocket.Dial(ctx, f.url+"/v1/stream?width=64&height=48", &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"http://a.page.somewhere"}},
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(1 << 20)
	for range 2 {
		if _, frame, err := c.Read(ctx); err != nil {
			t.Fatal(err)
		} else if _, err := jpeg.Decode(bytes.NewReader(frame)); err != nil {
			t.Errorf("a frame of the WebSocket is no JPEG: %v", err)
		}
		if err := c.Write(ctx, websocket.MessageText, []byte(`{"camera":{"yaw":60}}`)); err != nil {
			t.Fatal(err)
		}
	}
	// Ended here, so that the renderer's exit does not wait for them.
	_ = c.Close(websocket.StatusNormalClosure, "")
	_ = res.Body.Close()
}
