package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// listener reads a stream of events as a browser would.
type listener struct {
	t      *testing.T
	res    *http.Response
	lines  *bufio.Scanner
	ctx    context.Context
	cancel context.CancelFunc
	lastID string
}

type message struct{ id, event, data string }

func (s *site) listen(who, path string, headers ...string) *listener {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	s.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+BasePath+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+who)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = res.Body.Close() })
	conform(s.t, "GET "+path, &reply{Response: res})
	return &listener{t: s.t, res: res, lines: bufio.NewScanner(res.Body), ctx: ctx, cancel: cancel}
}

// next gives the next event or progress; ok is false when the stream was closed.
func (l *listener) next() (m message, ok bool) {
	for l.lines.Scan() {
		name, value, _ := strings.Cut(l.lines.Text(), ": ")
		switch name {
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data = value
		case "":
			if m.id != "" {
				l.lastID = m.id
			}
			if m.data != "" {
				return m, true
			}
			m = message{}
		}
	}
	return m, false
}

// want reads until all of these positions came as events, in order, and nothing else.
func (l *listener) want(positions ...int64) {
	l.t.Helper()
	for _, p := range positions {
		m, ok := l.next()
		for ok && m.event == "progress" {
			m, ok = l.next()
		}
		var e Event
		if !ok || json.Unmarshal([]byte(m.data), &e) != nil || m.id != strconv.FormatInt(p, 10) || e.Position != p || m.event != e.Type {
			l.t.Fatalf("got %+v (%v), want the event at %d", m, ok, p)
		}
	}
}

func (l *listener) wantEnd() {
	l.t.Helper()
	for {
		m, ok := l.next()
		if !ok && l.ctx.Err() == nil {
			return
		}
		if !ok || m.event != "progress" {
			l.t.Fatalf("got %+v, want the end", m)
		}
	}
}

// A session's stream is its whole story, and ends with it; nothing of others is in it.
func TestSessionStream(t *testing.T) {
	s := newSite(t)
	s.say("session.ready", "session:before", "owner:bob")
	v := read[Session](t, s.ask("alice", "POST /sessions", `{"renderer":"demo","model":"m","wait":"1m"}`), 202) // 2, 3
	l := s.listen("alice", "/sessions/"+v.ID+"/events")
	if l.res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("it is %q", l.res.Header.Get("Content-Type"))
	}
	l.want(2, 3)
	s.say("session.ready", "session:"+v.ID+"0", "owner:alice")
	s.say("session.ready", "session:"+v.ID, "owner:alice") // 5
	l.want(5)
	s.ask("alice", "DELETE /sessions/"+v.ID, "") // 6
	l.want(6)
	l.wantEnd()
	s.say("session.ready", "session:after", "owner:alice")
	if r := s.ask("alice", "GET /sessions/"+v.ID+"/events", "", "Last-Event-ID", "6"); r.StatusCode != 204 {
		t.Errorf("come back after the end: %d", r.StatusCode)
	}
	l = s.listen("alice", "/sessions/"+v.ID+"/events?after=3")
	l.want(5, 6)
	l.wantEnd()
	// What comes after the end, and is about it all the same, does not keep the stream open.
	s.say("job.unblocked", "session:"+v.ID, "owner:alice") // 8
	l = s.listen("alice", "/sessions/"+v.ID+"/events", "Last-Event-ID", "6")
	l.want(8)
	l.wantEnd()
	if r := s.ask("bob", "GET /sessions/"+v.ID+"/events", ""); r.StatusCode != 404 {
		t.Errorf("another's stream: %d", r.StatusCode)
	}
	if r := s.ask("", "GET /sessions/"+v.ID+"/events", ""); r.StatusCode != 401 {
		t.Errorf("nobody's stream: %d", r.StatusCode)
	}
}

func TestJobStreamAndProgress(t *testing.T) {
	defer quicker(&progressEvery, 10*time.Millisecond)()
	s := newSite(t)
	j := read[Job](t, s.ask("alice", "POST /jobs", `{"renderer":"demo","model":"m","kind":"image"}`), 202)
	l := s.listen("alice", "/jobs/"+j.ID+"/events")
	l.want(1)
	share := func(v float64) {
		s.change(func() { s.jobs["j-1"].State, s.jobs["j-1"].Progress = pool.JobStateRunning, v })
	}
	for _, v := range []float64{0.25, 0.5} {
		share(v)
		for p := (Progress{}); p.Progress != v; {
			m, ok := l.next()
			if p = (Progress{}); !ok || m.id != "" || m.event != "progress" || json.Unmarshal([]byte(m.data), &p) != nil {
				t.Fatalf("got %+v", m)
			}
		}
	}
	s.change(func() { s.jobs["j-1"].State, s.jobs["j-1"].Ended = pool.JobStateSucceeded, true })
	s.say("job.succeeded", "job:"+j.ID, "owner:alice")
	l.want(2)
	l.wantEnd()
	if r := s.ask("alice", "GET /jobs/"+j.ID+"/events?after=2", ""); r.StatusCode != 204 {
		t.Errorf("come back after the end: %d", r.StatusCode)
	}
	if r := s.ask("", "GET /jobs/"+j.ID+"/events", ""); r.StatusCode != 401 {
		t.Errorf("nobody's stream: %d", r.StatusCode)
	}
}

// The log's stream begins now, and whoever comes back misses nothing and gets
// nothing twice, however often and wherever the connection breaks.
func TestStreamResumes(t *testing.T) {
	s := newSite(t)
	s.say("session.ready", "session:s", "owner:bob")
	l := s.listen("root", "/events/stream")
	const total = 3 * tailKeep / 2 // more than the tail keeps
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range total {
			s.say("session.ready", fmt.Sprintf("session:%d", i), "owner:alice")
		}
	}()
	at := int64(1)
	for i := 0; at < total+1; i++ {
		for range 97 + i {
			if at++; at > total+1 {
				break
			}
			l.want(at)
		}
		l.cancel()
		if i%2 == 0 {
			<-done // let it fall far behind
		}
		if at <= total {
			l = s.listen("root", "/events/stream", "Last-Event-ID", l.lastID)
		}
	}
	if r := s.ask("wrong", "GET /events/stream", ""); r.StatusCode != 401 {
		t.Errorf("nobody's stream: %d", r.StatusCode)
	}
	// A quiet stream says where it is, so that coming back before its first event loses nothing.
	l = s.listen("alice", "/events/stream?type=job.*")
	for l.lastID == "" && l.lines.Scan() {
		l.lastID, _ = strings.CutPrefix(l.lines.Text(), "id: ")
		if !strings.HasPrefix(l.lines.Text(), "id: ") {
			l.lastID = ""
		}
	}
	if l.lastID != strconv.Itoa(total+1) {
		t.Errorf("a new stream is at %q", l.lastID)
	}
}

// The tail keeps the last events, all of them, and says when it cannot reach back.
func TestTail(t *testing.T) {
	s := newSite(t)
	s.say("x.y")
	s.say("x.y")
	head, leave, err := s.server.tail.open(t.Context())
	if err != nil || head != 2 {
		t.Fatal(head, err)
	}
	defer leave()
	const total = 2*tailKeep + 7
	for range total {
		s.say("x.y")
	}
	within(t, 10*time.Second, func() bool { _, head, _, _ := s.server.tail.after(2); return head == total+2 })
	if _, _, _, ok := s.server.tail.after(2); ok {
		t.Error("it claims to have kept everything")
	}
	low := s.server.tail.low
	if events, _, _, ok := s.server.tail.after(low - 1); ok {
		t.Errorf("it gives %d events after what it dropped", len(events))
	}
	for _, at := range []int64{low, low + 1, total + 1, total + 2, total + 5} {
		events, _, _, ok := s.server.tail.after(at)
		if !ok || int64(len(events)) != max(0, total+2-at) || len(events) > tailKeep {
			t.Fatalf("after %d: %d events", at, len(events))
		}
		for i, e := range events {
			if e.Position != at+1+int64(i) {
				t.Fatalf("after %d, number %d is at %d", at, i, e.Position)
			}
		}
	}
}

func TestStreamsOfOwners(t *testing.T) {
	s := newSite(t)
	alice, bob, all := s.listen("alice", "/events/stream"), s.listen("bob", "/events/stream?after=0"), s.listen("audit", "/events/stream?type=session.*")
	s.say("session.ready", "session:a", "owner:alice")
	s.say("resource.ready", "resource:r")
	s.say("session.ready", "session:b", "owner:bob")
	s.say("session.ready", "session:a", "owner:alice")
	alice.want(1, 4)
	bob.want(3)
	all.want(1, 3, 4)
}

func TestStreamHeartbeatBoundsAndStop(t *testing.T) {
	defer quicker(&heartbeatEvery, 10*time.Millisecond)()
	s := newSite(t, func(c *Config) { c.MaxStreams = 2 })
	every(s)
	l := s.listen("root", "/events/stream")
	for range 5 {
		if !l.lines.Scan() {
			t.Fatal("no heartbeat")
		}
	}
	second := s.listen("root", "/sessions/s-own/events")
	for _, path := range []string{"/events/stream", "/sessions/s-own/events", "/jobs/j-own/events"} {
		r := s.ask("root", "GET "+path, "")
		if p := r.problem(t); r.StatusCode != 503 || p.Code != "too_many_streams" || r.Header.Get("Retry-After") != "5" {
			t.Errorf("a third stream: %d %+v", r.StatusCode, p)
		}
	}
	second.cancel()
	within(t, 5*time.Second, func() bool { return s.server.streams.Load() == 1 })
	if r := s.ask("root", "HEAD /events/stream", ""); r.StatusCode != 200 {
		t.Errorf("HEAD: %d", r.StatusCode)
	}
	s.server.Close()
	l.wantEnd()
	if r := s.ask("root", "GET /events/stream", ""); r.StatusCode != 503 {
		t.Errorf("after the end: %d", r.StatusCode)
	}
	s.change(func() {
		if len(s.subs) != 0 {
			t.Error("something still waits to be woken")
		}
	})
}

// quicker changes an interval for one test.
func quicker(v *time.Duration, to time.Duration) func() {
	was := *v
	*v = to
	return func() { *v = was }
}
