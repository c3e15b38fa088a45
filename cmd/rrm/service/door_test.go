package service_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// On an address that others can reach the service does not start before there is a token.
func TestNoOpenServiceForOthers(t *testing.T) {
	dsn := dbtest.DSN(t)
	cfg := service.Config{Listen: "0.0.0.0:0", DataDir: t.TempDir(), DatabaseURL: dsn, Keep: time.Hour, NoManagers: true}
	if s, err := service.Start(t.Context(), cfg); err == nil {
		_ = s.Close()
		t.Fatal("it is open to everyone")
	} else if !strings.Contains(err.Error(), "rrm token create") {
		t.Errorf("the error does not say what to do: %v", err)
	}
	n := start(t, func(c *service.Config) { c.DatabaseURL, c.NoManagers = dsn, true })
	if !n.Open {
		t.Error("on a loopback address without a token it is not open")
	}
	if _, _, err := n.Tokens.Create(t.Context(), "operator", "root"); err != nil {
		t.Fatal(err)
	}
	s, err := service.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A client sees and touches what is its owner's, an auditor reads all, an operator may do all, nobody else anything.
func TestRoles(t *testing.T) {
	n := start(t, func(c *service.Config) { c.NoManagers = true })
	readyPool(t, n)
	bearer := map[string]string{}
	for owner, role := range map[string]string{"alice": "client", "bob": "client", "eve": "auditor", "root": "operator"} {
		_, secret, err := n.Tokens.Create(t.Context(), role, owner)
		if err != nil {
			t.Fatal(err)
		}
		bearer[owner] = "Bearer " + secret
	}
	eventually(t, 10*time.Second, "the service is closed for good", func() bool {
		status, _, _ := n.call("GET", base+"/sessions", nil)
		return status == 401
	})
	as := func(who, method, path string, body any) (int, doc) {
		status, _, d := n.call(method, base+path, body, "Authorization", bearer[who])
		return status, d
	}
	status, d := as("alice", "POST", "/sessions", doc{"renderer": "race", "model": "m"})
	if status != 201 || d["owner"] != "alice" {
		t.Fatalf("alice books: %d %v", status, d)
	}
	session := "/sessions/" + d["id"].(string)
	for _, c := range []struct {
		who, method, path string
		body              any
		want              int
	}{
		{"bob", "GET", session, nil, 404}, {"bob", "DELETE", session, nil, 404}, {"bob", "GET", session + "/renderer/v1/image", nil, 404},
		{"alice", "GET", session, nil, 200}, {"eve", "GET", session, nil, 200}, {"root", "GET", session, nil, 200},
		{"eve", "DELETE", session, nil, 403}, {"alice", "GET", "/resources", nil, 403}, {"eve", "GET", "/resources", nil, 200},
		{"alice", "PUT", "/admission", doc{"open": false}, 403}, {"alice", "POST", "/sessions", doc{"renderer": "race", "model": "m", "owner": "bob"}, 403},
		{"root", "DELETE", session, nil, 200},
	} {
		if got, d := as(c.who, c.method, c.path, c.body); got != c.want {
			t.Errorf("%s: %s %s: %d, not %d: %v", c.who, c.method, c.path, got, c.want, d)
		}
	}
	events, err := n.Log.Read(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	actors := map[string]bool{}
	for _, e := range events {
		if e.Meta.Actor == "" {
			t.Errorf("event %d %s has no actor", e.Position, e.Type)
		}
		actors[string(e.Meta.Actor)] = true
	}
	if !actors["client:alice"] || !actors["operator:root"] {
		t.Errorf("the actors are %v", actors)
	}
}

// MJPEG and WebSocket streams come through the service, and a stream of events resumes without loss or repeat.
func TestStreams(t *testing.T) {
	n := start(t, nil)
	n.renderer("neurons", nil)
	id := n.book(doc{"renderer": "neurons", "model": "neuron:1"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	url := n.URL + base + "/sessions/" + id + "/renderer/v1/stream?width=64&height=48&fps=10"
	res := get(t, ctx, url)
	_, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(res.Body, params["boundary"])
	for range 2 {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if img, err := jpeg.Decode(p); err != nil || img.Bounds().Dx() != 64 {
			t.Fatalf("MJPEG: %v", err)
		}
	}
	_ = res.Body.Close()
	ws, hello, err := websocket.Dial(ctx, strings.Replace(url, "http", "ws", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if hello.Body != nil {
		_ = hello.Body.Close()
	}
	if err := ws.Write(ctx, websocket.MessageText, []byte(`{"camera": {"yaw": 120}}`)); err != nil {
		t.Fatal(err)
	}
	kind, frame, err := ws.Read(ctx)
	if err != nil || kind != websocket.MessageBinary {
		t.Fatalf("WebSocket: %v %v", kind, err)
	}
	if _, err := jpeg.Decode(bytes.NewReader(frame)); err != nil {
		t.Fatal(err)
	}
	_ = ws.CloseNow()
	n.must(200, "DELETE", base+"/sessions/"+id, nil)

	all := eventIDs(t, ctx, n.URL+base+"/sessions/"+id+"/events", "")
	if len(all) < 4 {
		t.Fatalf("the session has the events %v", all)
	}
	rest := eventIDs(t, ctx, n.URL+base+"/sessions/"+id+"/events", all[1])
	if fmt.Sprint(rest) != fmt.Sprint(all[2:]) {
		t.Errorf("resumed after %s: %v, and all are %v", all[1], rest, all)
	}
}

func get(t *testing.T, ctx context.Context, url string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, res.Status)
	}
	return res
}

// eventIDs reads a stream of events to its end.
func eventIDs(t *testing.T, ctx context.Context, url, after string) []string {
	t.Helper()
	var header []string
	if after != "" {
		header = []string{"Last-Event-ID", after}
	}
	res := get(t, ctx, url, header...)
	defer func() { _ = res.Body.Close() }()
	var ids []string
	id := ""
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		switch name, value, _ := strings.Cut(lines.Text(), ": "); name {
		case "id":
			id = value
		case "data":
			if id != "" {
				ids = append(ids, id)
			}
			id = ""
		}
	}
	return ids
}

// Whoever asked for it is told that a job has ended, and nobody else can be reached.
func TestCallbacks(t *testing.T) {
	told := make(chan doc, 8)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var d doc
		raw, _ := io.ReadAll(r.Body)
		if json.Unmarshal(raw, &d) == nil {
			told <- d
		}
	}))
	defer receiver.Close()
	host := strings.TrimPrefix(receiver.URL, "http://")
	n := start(t, func(c *service.Config) { c.CallbackHosts = []string{host} })
	n.renderer("neurons", nil)
	job := n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": "neuron:1", "kind": "image", "spec": doc{"width": 32, "height": 32}, "callback_url": receiver.URL + "/done"})
	select {
	case d := <-told:
		if d["job"] != job["id"] || d["state"] != "succeeded" {
			t.Errorf("told %v", d)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told")
	}
	if status, _, d := n.call("POST", base+"/jobs", doc{"renderer": "neurons", "model": "neuron:1", "kind": "image", "callback_url": "http://127.0.0.1:1/"}); status/100 != 4 || d["code"] != "callback_not_allowed" {
		t.Errorf("another address: %d %v", status, d)
	}
}
