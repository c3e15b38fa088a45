package renderer_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/rendering-resource-manager/rrm/adapters/renderer"
)

// sockets is a renderer that answers each message of a WebSocket with the
// same in capitals, and tells when the connection has ended.
func sockets(t *testing.T) (address string, ended <-chan struct{}) {
	end := make(chan struct{}, 1)
	address = serve(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { end <- struct{}{} }()
		if r.Header.Get("X-RRM-Session") != "s1" {
			t.Errorf("session %q", r.Header.Get("X-RRM-Session"))
		}
		c, err := websocket.Accept(w, r, nil) // which refuses foreign origins
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, msg, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, []byte(strings.ToUpper(string(msg)))); err != nil {
				return
			}
		}
	})
	return address, end
}

func dial(t *testing.T, f *front) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), f.url+"/v1/stream", &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"http://a.page.somewhere"}},
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func echo(t *testing.T, c *websocket.Conn, msg string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageBinary, []byte(msg)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != strings.ToUpper(msg) {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestProxyPassesWebSocketsAndTellsOfActivity(t *testing.T) {
	t.Parallel()
	address, ended := sockets(t)
	f := newFront(t, address, renderer.ProxyOptions{HeaderTimeout: time.Second})
	c := dial(t, f)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); time.Since(start) < 2500*time.Millisecond; <-tick.C {
		echo(t, c, "camera")
	}
	if n := f.active.Load(); n != 3 {
		t.Errorf("told of activity %d times in 2.5 s, want at the beginning and once a second", n)
	}
	before := f.active.Load()
	select { // silence is no activity
	case <-time.After(1200 * time.Millisecond):
	case <-ended:
		t.Fatal("the silent connection was ended")
	}
	if n := f.active.Load(); n != before {
		t.Errorf("told of activity %d times while nothing was sent", n-before)
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
	within(t, "the renderer sees that the client has closed", ended)
}

func TestProxyCutsAWebSocket(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*front, *websocket.Conn){
		"when the session ends":   func(f *front, _ *websocket.Conn) { f.cut() },
		"when the client is gone": func(_ *front, c *websocket.Conn) { _ = c.CloseNow() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, ended := sockets(t)
			f := newFront(t, address, renderer.ProxyOptions{})
			c := dial(t, f)
			echo(t, c, "hello")
			cut(f, c)
			within(t, "the renderer sees the end", ended)
			if _, _, err := c.Read(t.Context()); err == nil {
				t.Error("the client reads on")
			}
		})
	}
}

func TestProxyRefusesAWebSocketToAdministration(t *testing.T) {
	t.Parallel()
	f := newFront(t, nobody(t), renderer.ProxyOptions{})
	_, res, err := websocket.Dial(t.Context(), f.url+"/v1/jobs/j", &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err == nil || res == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("got %v, %v; want 403", res, err)
	}
}
