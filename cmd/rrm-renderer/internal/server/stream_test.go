package server

import (
	"bytes"
	"context"
	"encoding/json"
	"image/jpeg"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func (f *fixture) mjpeg(ctx context.Context, session string) *multipart.Reader {
	f.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", f.url+"/v1/stream?width=64&height=48&fps=100", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("X-RRM-Session", session)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { res.Body.Close() })
	kind, parameters, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/x-mixed-replace" || parameters["boundary"] != "frame" {
		f.t.Fatalf("%s %v %v", kind, parameters, err)
	}
	return multipart.NewReader(res.Body, "frame")
}

func nextPart(t *testing.T, r *multipart.Reader) []byte {
	t.Helper()
	part, err := r.NextPart()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(part)
	if err != nil {
		t.Fatal(err)
	}
	isFrame(t, data)
	return data
}

func isFrame(t *testing.T, data []byte) {
	t.Helper()
	if img, err := jpeg.Decode(bytes.NewReader(data)); err != nil || img.Bounds().Dx() != 64 {
		t.Fatalf("not a frame: %v", err)
	}
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestMJPEG(t *testing.T) {
	f := start(t)
	f.refused(409, "model_not_loaded", "", "GET", "/v1/stream", "")
	f.load("torus")
	f.refused(400, "invalid", "fps", "GET", "/v1/stream?fps=1000", "")
	r := f.mjpeg(testContext(t), "s")
	first := nextPart(t, r)
	begun := time.Now()
	// Nothing changes: the same frame comes again after a second.
	if still := nextPart(t, r); !bytes.Equal(still, first) {
		t.Error("the picture changed by itself")
	}
	if took := time.Since(begun); took < 700*time.Millisecond || took > 5*time.Second {
		t.Errorf("the second frame came after %v", took)
	}
	f.session = "s"
	f.want(200, "PUT", "/v1/camera", `{"yaw":80}`)
	if moved := nextPart(t, r); bytes.Equal(moved, first) {
		t.Error("the camera moved, the picture did not")
	}
	f.want(200, "DELETE", "/v1/models/torus", "")
	if _, err := r.NextPart(); err == nil {
		t.Error("frames of a model that is gone")
	}
}

func (f *fixture) websocket(ctx context.Context) *websocket.Conn {
	f.t.Helper()
	c, _, err := websocket.Dial(ctx, strings.Replace(f.url, "http", "ws", 1)+"/v1/stream?width=64&height=48&fps=100", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func nextMessage(t *testing.T, ctx context.Context, c *websocket.Conn, want websocket.MessageType) []byte {
	t.Helper()
	for {
		kind, data, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if kind == want {
			return data
		}
	}
}

func TestWebSocket(t *testing.T) {
	f := start(t)
	f.load("torus")
	ctx := testContext(t)
	c := f.websocket(ctx)
	first := nextMessage(t, ctx, c, websocket.MessageBinary)
	isFrame(t, first)
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"camera":{"yaw":120,"distance":2}}`)); err != nil {
		t.Fatal(err)
	}
	if moved := nextMessage(t, ctx, c, websocket.MessageBinary); bytes.Equal(moved, first) {
		t.Error("the camera moved, the picture did not")
	}
	if a := f.want(200, "GET", "/v1/camera", ""); a["yaw"] != 120.0 {
		t.Errorf("the session's camera: %v", a)
	}
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"camera":{"yaw":"x"}}`)); err != nil {
		t.Fatal(err)
	}
	var refusal map[string]string
	if err := json.Unmarshal(nextMessage(t, ctx, c, websocket.MessageText), &refusal); err != nil || refusal["field"] != "camera.yaw" {
		t.Errorf("%v, %v", refusal, err)
	}
	isFrame(t, nextMessage(t, ctx, c, websocket.MessageBinary)) // the stream goes on
	f.stop()
	for {
		if _, _, err := c.Read(ctx); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("closed with %v", err)
			}
			return
		}
	}
}

func TestWebSocketMessagesAreBounded(t *testing.T) {
	f := start(t)
	f.load("torus")
	ctx := testContext(t)
	c := f.websocket(ctx)
	if err := c.Write(ctx, websocket.MessageText, bytes.Repeat([]byte(" "), maxMessage+1)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, _, err := c.Read(ctx); err != nil {
			return // closed
		}
	}
}

func TestStreamsAreBounded(t *testing.T) {
	f := start(t)
	f.load("a.obj") // cheap to draw 64 times a second
	ctx, cancel := context.WithCancel(testContext(t))
	for range maxStreams {
		nextPart(t, f.mjpeg(ctx, "s"))
	}
	f.refused(503, "busy", "", "GET", "/v1/stream", "")
	cancel()
	deadline := time.After(10 * time.Second)
	for f.server.streams.Load() > 0 { // whoever leaves makes room
		select {
		case <-deadline:
			t.Fatalf("%d streams stay", f.server.streams.Load())
		case <-time.After(time.Millisecond):
		}
	}
}
