package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

var errConflict = domain.Conflict("conflict", "no")

func forwarding(t *testing.T) (*site, *forwarder) {
	f := &forwarder{}
	s := newSite(t, func(c *Config) { c.Forward = f })
	s.change(func() {
		s.sessions["s-own"] = sessionOf("s-own", "alice", pool.SessionStateReady)
		s.sessions["s-bob"] = sessionOf("s-bob", "bob", pool.SessionStateReady)
		s.sessions["s-bob"].Address = "127.0.0.1:2"
		s.sessions["s-load"] = sessionOf("s-load", "alice", pool.SessionStateLoading)
		s.sessions["s-wait"] = sessionOf("s-wait", "alice", pool.SessionStateQueued)
		s.sessions["s-wait"].Queue = &pool.Place{Position: 3, EstimatedWaitSeconds: 4.2, Reason: "full"}
		s.sessions["s-end"] = sessionOf("s-end", "alice", pool.SessionStateExpired)
		s.sessions["s-end"].Ended, s.sessions["s-end"].Reason = true, "its lease ended"
	})
	return s, f
}

// A request reaches the session's own resource, whatever its path, query or headers say.
func TestForward(t *testing.T) {
	s, f := forwarding(t)
	for what, want := range map[string]string{
		"GET /sessions/s-own/renderer":                           "GET  at 127.0.0.1:1",
		"GET /sessions/s-own/renderer/":                          "GET / at 127.0.0.1:1",
		"PUT /sessions/s-own/renderer/v1/camera":                 "PUT /v1/camera at 127.0.0.1:1",
		"PATCH /sessions/s-own/renderer/a//b":                    "PATCH /a//b at 127.0.0.1:1",
		"GET /sessions/s-own/renderer/v1/models/a%2Fb?x=y":       "GET /v1/models/a%2Fb at 127.0.0.1:1",
		"GET /sessions/s%2Down/renderer/x":                       "GET /x at 127.0.0.1:1",
		"GET /sessions/s-own/renderer/../../s-bob/renderer/x":    "GET /../../s-bob/renderer/x at 127.0.0.1:1",
		"GET /sessions/s-own/renderer/%2e%2e/s-bob/renderer/x":   "GET /%2e%2e/s-bob/renderer/x at 127.0.0.1:1",
		"GET /sessions/s-own/renderer/http://127.0.0.1:2/x":      "GET /http://127.0.0.1:2/x at 127.0.0.1:1",
		"GET /sessions/s-own/renderer//127.0.0.1:2/x?session=b":  "GET //127.0.0.1:2/x at 127.0.0.1:1",
		"POST /sessions/s-own/renderer/x?resource=127.0.0.1%3A2": "POST /x at 127.0.0.1:1",
	} {
		r := s.ask("alice", what, "", "X-Rrm-Session", "s-bob", "X-Forwarded-Host", "127.0.0.1:2", "Host", "127.0.0.1:2")
		if r.StatusCode != 200 || string(r.body) != want {
			t.Errorf("%s: %d %s, want %s", what, r.StatusCode, r.body, want)
		}
		if f.last.Session != "s-own" || f.last.Model != "m" || f.header.Get("Authorization") != "" {
			t.Errorf("%s: %+v %v", what, f.last, f.header)
		}
	}
	for what, status := range map[string]int{
		"GET /sessions/s-bob/renderer/x": 404, "GET /sessions/none/renderer/x": 404, "GET /sessions/s-own%2F..%2Fs-bob/renderer/x": 404,
		"GET /sessions//renderer/x": 404, "GET /sessions/" + strings.Repeat("x", 200) + "/renderer/": 404,
		"GET /sessions/s-load/renderer/x": 409, "GET /sessions/s-end/renderer/x": 410,
	} {
		if r := s.ask("alice", what, ""); r.StatusCode != status || r.Header.Get("Content-Type") != problemType {
			t.Errorf("%s: %d %s", what, r.StatusCode, r.body)
		}
	}
	for who, status := range map[string]int{"": 401, "wrong": 401, "audit": 403, "bob": 404, "root": 200} {
		if r := s.ask(who, "GET /sessions/s-own/renderer/x", ""); r.StatusCode != status {
			t.Errorf("%q: %d", who, r.StatusCode)
		}
	}
	r := s.ask("alice", "GET /sessions/s-wait/renderer/x", "")
	if p := r.problem(t); p.Code != "session_not_ready" || r.Header.Get("Retry-After") != "5" || !strings.Contains(p.Detail, "place 3") {
		t.Errorf("queued: %+v %q", p, r.Header.Get("Retry-After"))
	}
	if p := s.ask("alice", "GET /sessions/s-end/renderer/x", "").problem(t); p.Code != "session_ended" || !strings.Contains(p.Detail, "its lease ended") {
		t.Errorf("ended: %+v", p)
	}
	f.serve = func(_ http.ResponseWriter, _ *http.Request, _ Target, _ func(), fail func(int, string, string)) {
		fail(502, "renderer_unreachable", "the renderer refused the connection")
	}
	if p := s.ask("alice", "GET /sessions/s-own/renderer/x", "").problem(t); p.Status != 502 || p.Code != "renderer_unreachable" {
		t.Errorf("unreachable: %+v", p)
	}
}

// Frames renew the lease, but not once each, and do not cost a look into the store each.
func TestForwardRenews(t *testing.T) {
	t.Parallel()
	s, _ := forwarding(t)
	begin := time.Now()
	const frames = 200
	for range frames {
		if r := s.ask("alice", "GET /sessions/s-own/renderer/v1/image", ""); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
	}
	within(t, 5*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.renewed["s-own"] > 0 })
	most := 2 + int(time.Since(begin)/renewEvery)
	s.change(func() {
		if s.renewed["s-own"] > most || s.asked > most {
			t.Errorf("%d frames renewed %d times and asked %d times in %s", frames, s.renewed["s-own"], s.asked, time.Since(begin))
		}
	})
	within(t, 10*time.Second, func() bool { // what watches over the session ends by itself
		s.server.sessions.mu.Lock()
		defer s.server.sessions.mu.Unlock()
		return len(s.server.sessions.used) == 0
	})
}

// While the store is away, sessions that were ready before go on rendering.
func TestForwardWithoutStore(t *testing.T) {
	t.Parallel()
	s, _ := forwarding(t)
	if r := s.ask("alice", "GET /sessions/s-own/renderer/x", ""); r.StatusCode != 200 {
		t.Fatalf("%d", r.StatusCode)
	}
	s.change(func() { s.down = errDown })
	end := time.Now().Add(tokenTrust + sessionTrust + storePause) // past all trust
	within(t, 30*time.Second, func() bool {
		if r := s.ask("alice", "GET /sessions/s-own/renderer/x", ""); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
		return time.Now().After(end)
	})
	if r := s.ask("alice", "GET /sessions/s-bob/renderer/x", ""); r.StatusCode != 503 {
		t.Errorf("a session that was not seen before: %d", r.StatusCode)
	}
	if r := s.ask("bob", "GET /sessions/s-own/renderer/x", ""); r.StatusCode != 503 {
		t.Errorf("a caller that was not seen before: %d", r.StatusCode)
	}
	s.change(func() {
		s.down = nil
		s.sessions["s-own"].Ended, s.sessions["s-own"].State = true, pool.SessionStateLost
	})
	within(t, 10*time.Second, func() bool {
		return s.ask("alice", "GET /sessions/s-own/renderer/x", "").StatusCode == 410
	})
}

// A stream that is open when its session ends, or moves, is cut.
func TestForwardEndsWithTheSession(t *testing.T) {
	for name, end := range map[string]func(*site){
		"released here": func(s *site) { s.ask("alice", "DELETE /sessions/s-own", "") },
		"expired elsewhere": func(s *site) {
			s.change(func() { v := s.sessions["s-own"]; v.Ended, v.State = true, pool.SessionStateExpired })
		},
		"moved": func(s *site) {
			s.change(func() { v := s.sessions["s-own"]; v.State, v.Address = pool.SessionStateQueued, "" })
		},
	} {
		for _, lively := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, lively %v", name, lively), func(t *testing.T) {
				t.Parallel()
				cutWith(t, end, lively)
			})
		}
	}
}

func cutWith(t *testing.T, end func(*site), lively bool) {
	s, f := forwarding(t)
	open, cut, answered := make(chan struct{}), make(chan struct{}), make(chan struct{})
	f.serve = func(_ http.ResponseWriter, r *http.Request, _ Target, active func(), _ func(int, string, string)) {
		close(open)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				close(cut)
				return
			case <-tick.C:
				if lively {
					active()
				}
			}
		}
	}
	go func() {
		defer close(answered)
		s.ask("alice", "GET /sessions/s-own/renderer/v1/stream", "")
	}()
	<-open
	end(s)
	limit := 10 * time.Second
	if strings.Contains(t.Name(), "released_here") {
		limit = time.Second / 2 // nobody need find out
	}
	select {
	case <-cut:
	case <-time.After(limit):
		t.Error("the stream goes on")
		s.server.Close()
	}
	<-answered
}

// A connection on which nothing flows does not keep its session.
func TestForwardIdleDoesNotRenew(t *testing.T) {
	t.Parallel()
	s, f := forwarding(t)
	f.serve = func(_ http.ResponseWriter, r *http.Request, _ Target, _ func(), _ func(int, string, string)) {
		<-r.Context().Done()
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.ask("alice", "GET /sessions/s-own/renderer/v1/stream", "")
	}()
	within(t, 20*time.Second, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.asked >= 3 }) // once to find it, twice to see whether it is still there
	s.change(func() {
		if s.renewed["s-own"] != 1 {
			t.Errorf("renewed %d times, not once at its beginning", s.renewed["s-own"])
		}
	})
	s.server.Close()
	<-answered
}

func TestRemember(t *testing.T) {
	now := t0
	l := newLRU[int, string](2, time.Second)
	l.now = func() time.Time { return now }
	asked := 0
	get := func(key int, val string, err error) (string, error) {
		return l.get(t.Context(), key, func(context.Context) (string, error) { asked++; return val, err })
	}
	want := func(key int, val string, err error, wanted string, asks int) {
		t.Helper()
		before := asked
		if got, _ := get(key, val, err); got != wanted || asked-before != asks {
			t.Errorf("%d: %q after asking %d times, want %q after %d", key, got, asked-before, wanted, asks)
		}
	}
	want(1, "a", nil, "a", 1)
	want(1, "b", nil, "a", 0)
	now = now.Add(time.Second)
	want(1, "b", nil, "b", 1)
	now = now.Add(time.Second)
	want(1, "", errDown, "b", 1) // away: the old answer
	want(1, "c", nil, "b", 0)    // and the store is left alone
	want(2, "x", nil, "x", 1)    // unless nothing is remembered
	now = now.Add(storePause)
	want(1, "", domain.Unavailable("store_unavailable", 1, "away"), "b", 1)
	now = now.Add(storePause)
	want(1, "", domain.NotFound("session", "1"), "", 1)
	want(1, "d", nil, "d", 1) // forgotten
	want(3, "y", nil, "y", 1) // 2 was used longest ago
	want(1, "", nil, "d", 0)
	want(2, "z", nil, "z", 1)
	want(1, "", nil, "d", 0) // 1 was used after 3
	if len(l.byKey) != 2 || l.order.Len() != 2 {
		t.Errorf("%d remembered", len(l.byKey))
	}
}
