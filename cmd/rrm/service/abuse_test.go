package service_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
)

// Bad input gets a 4xx problem that names the field; nothing changes and there is no event.
func TestBadInputChangesNothing(t *testing.T) {
	n := start(t, func(c *service.Config) { c.NoManagers = true })
	n.renderer("race", doc{"model_loading": "none", "scaling": doc{"min": 0, "max": 1}})
	head, _, err := n.Log.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	good := doc{"renderer": "race", "model": "m"}
	with := func(k string, v any) doc {
		d := doc{}
		for key, value := range good {
			d[key] = value
		}
		d[k] = v
		return d
	}
	for name, c := range map[string]struct {
		method, path string
		body         any
		header       []string
		status       int
		field        string
	}{
		"unknown field":         {"POST", "/sessions", with("modle", "x"), nil, 400, "modle"},
		"wrong type":            {"POST", "/sessions", with("model", 7), nil, 400, "model"},
		"no model":              {"POST", "/sessions", doc{"renderer": "race"}, nil, 400, "model"},
		"control character":     {"POST", "/sessions", with("model", "a\x00b"), nil, 400, "model"},
		"long model":            {"POST", "/sessions", with("model", strings.Repeat("x", 1025)), nil, 400, "model"},
		"bad lease":             {"POST", "/sessions", with("lease", "soon"), nil, 400, "lease"},
		"negative wait":         {"POST", "/sessions", with("wait", "-1s"), nil, 400, "wait"},
		"unknown renderer":      {"POST", "/sessions", with("renderer", "nobody"), nil, 404, "renderer"},
		"unknown kind":          {"POST", "/jobs", doc{"renderer": "race", "model": "m", "kind": "poem"}, nil, 400, "kind"},
		"unknown after":         {"POST", "/jobs", doc{"renderer": "race", "model": "m", "kind": "image", "after": []string{"none"}}, nil, 400, "after"},
		"callback not allowed":  {"POST", "/jobs", doc{"renderer": "race", "model": "m", "kind": "image", "callback_url": "http://169.254.169.254/"}, nil, 400, "callback_url"},
		"negative size":         {"PUT", "/renderers/other", doc{"command_line": "x", "slots": -1}, nil, 400, "slots"},
		"min above max":         {"PUT", "/renderers/other", doc{"command_line": "x", "scaling": doc{"min": 3, "max": 2}}, nil, 400, "scaling.min"},
		"unknown launcher":      {"PUT", "/renderers/other", doc{"command_line": "x", "launcher": "magic"}, nil, 400, "launcher"},
		"unknown state":         {"GET", "/sessions?state=asleep", nil, nil, 400, "state"},
		"body over 1 MiB":       {"POST", "/sessions", with("model", strings.Repeat("x", 1<<20+1)), nil, 413, ""},
		"empty key":             {"POST", "/sessions", good, []string{"Idempotency-Key", " "}, 400, ""},
		"long key":              {"POST", "/sessions", good, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, ""},
		"release of nothing":    {"DELETE", "/sessions/none", nil, nil, 404, ""},
		"cancel of nothing":     {"DELETE", "/jobs/none", nil, nil, 404, ""},
		"drain of nothing":      {"POST", "/resources/none/drain", nil, nil, 404, ""},
		"decision of no event":  {"GET", "/decisions/999999", nil, nil, 404, ""},
		"lease longer than may": {"POST", "/sessions", with("lease", "25h"), nil, 400, "lease"},
	} {
		t.Run(name, func(t *testing.T) {
			status, h, d := n.call(c.method, base+c.path, c.body, c.header...)
			if status/100 != 4 || c.status == 413 && status != 413 || c.status == 404 && status != 404 {
				t.Errorf("%d, not %d: %v", status, c.status, d)
			}
			if !strings.HasPrefix(h.Get("Content-Type"), "application/problem+json") || d["code"] == nil || d["detail"] == nil {
				t.Errorf("no problem with a code: %s %v", h.Get("Content-Type"), d)
			}
			if c.field != "" && d["field"] != c.field {
				t.Errorf("the field to blame is %q, not %v", c.field, d["field"])
			}
		})
	}
	if now, _, err := n.Log.Head(t.Context()); err != nil || now != head {
		t.Errorf("the log went from %d to %d: %v", head, now, err)
	}
}

// What is repeated has one effect and the documented answer, also from 20 clients at the same instant.
func TestRepetitions(t *testing.T) {
	n := start(t, nil)
	n.renderer("neurons", nil)
	id := n.book(doc{"renderer": "neurons", "model": "neuron:1"})
	head, _, _ := n.Log.Head(t.Context())
	statuses := make([]int, 20)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range statuses {
		wg.Go(func() {
			<-begin
			statuses[i], _, _ = n.call("DELETE", base+"/sessions/"+id, nil)
		})
	}
	close(begin)
	wg.Wait()
	for _, s := range statuses {
		if s != 200 {
			t.Errorf("one of the releases: %d", s)
		}
	}
	events, err := n.Log.Read(t.Context(), head, 100)
	if err != nil {
		t.Fatal(err)
	}
	releases := 0
	for _, e := range events {
		if e.Type == "session.released" {
			releases++
		}
	}
	if releases != 1 {
		t.Errorf("20 releases made %d events", releases)
	}
	if status, _, d := n.call("PUT", base+"/sessions/"+id+"/lease", doc{}); status != 409 || d["code"] != "session_ended" {
		t.Errorf("a renewal after the end: %d %v", status, d)
	}
	job := n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": "neuron:1", "kind": "image", "spec": doc{"width": 32, "height": 32}})["id"].(string)
	n.state("/jobs/"+job, "succeeded")
	if status, _, d := n.call("DELETE", base+"/jobs/"+job, nil); status != 409 || d["code"] != "job_ended" {
		t.Errorf("a cancel after success: %d %v", status, d)
	}
}

// A lease that is not renewed ends the session; one that is renewed, by hand or by frames, does not.
func TestLeases(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	n.renderer("neurons", doc{"slots": 4})
	left := n.book(doc{"renderer": "neurons", "model": "neuron:1", "lease": "1s"})
	renewed := n.book(doc{"renderer": "neurons", "model": "neuron:1", "lease": "2s"})
	looked := n.book(doc{"renderer": "neurons", "model": "neuron:1", "lease": "2s"})
	began := time.Now()
	eventually(t, 10*time.Second, "the session that nobody renews expires", func() bool {
		n.must(200, "PUT", base+"/sessions/"+renewed+"/lease", doc{})
		if status, _, said := n.raw("GET", base+"/sessions/"+looked+"/renderer/v1/image?width=16&height=16", nil); status != 200 {
			t.Fatalf("frame: %d %.300s", status, said)
		}
		d := n.must(200, "GET", base+"/sessions/"+left, nil)
		return d["state"] == "expired" && d["code"] == "lease_ended" && time.Since(began) > 4*time.Second
	})
	for _, id := range []string{renewed, looked} {
		if d := n.must(200, "GET", base+"/sessions/"+id, nil); d["state"] != "ready" {
			t.Errorf("%s was kept alive and is %v", id, d["state"])
		}
	}
	if status, _, d := n.call("GET", base+"/sessions/"+left+"/renderer/v1/image", nil); status != 410 {
		t.Errorf("a frame after the end: %d %v", status, d)
	}
	long := n.must(200, "PUT", base+"/sessions/"+renewed+"/lease", doc{"lease": "1h"})
	at, err := time.Parse(time.RFC3339, fmt.Sprint(long["lease_expires_at"]))
	if err != nil || time.Until(at) < 50*time.Minute {
		t.Errorf("extended by an hour: %v %v", long["lease_expires_at"], err)
	}
}

// refusedBooking books and gives an error unless it is refused with 503 and when to come back.
func (n *node) refusedBooking() error {
	body := strings.NewReader(`{"renderer": "neurons", "model": "neuron:1"}`)
	res, err := http.Post(n.URL+base+"/sessions", "application/json", body)
	if err != nil {
		return fmt.Errorf("book while Postgres is gone: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		return fmt.Errorf("a booking while Postgres is gone: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
	}
	return nil
}

// Postgres gone for a while: requests get 503 with Retry-After, running
// sessions keep rendering through the proxy, and all goes on by itself after.
func TestPostgresGone(t *testing.T) {
	t.Parallel()
	server := durable(t)
	n := start(t, func(c *service.Config) { c.DatabaseURL = server.DSN() })
	n.renderer("neurons", nil)
	id := n.book(doc{"renderer": "neurons", "model": "neuron:1", "lease": "1h"})
	frame := func() int {
		status, _, _ := n.raw("GET", base+"/sessions/"+id+"/renderer/v1/image?width=32&height=32", nil)
		return status
	}
	if frame() != 200 {
		t.Fatal("no frame before")
	}
	freeze(t, server)
	// Frames go on beside a booking, which is refused only after seconds.
	refused := make(chan error, 1)
	go func() { refused <- n.refusedBooking() }()
	began, frames := time.Now(), 0
	for answered := false; !answered || time.Since(began) < 6*time.Second; frames++ {
		if s := frame(); s != 200 {
			t.Fatalf("frame %d while Postgres is gone: %d", frames, s)
		}
		select {
		case err := <-refused:
			if answered = true; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
	t.Logf("%d frames in %s without Postgres", frames, time.Since(began))
	thaw(t, server)
	eventually(t, 20*time.Second, "bookings work again", func() bool {
		status, _, _ := n.call("POST", base+"/sessions", doc{"renderer": "neurons", "model": "neuron:1", "wait": "10s"})
		return status == 201 || status == 202
	})
	if d := n.must(200, "GET", base+"/sessions/"+id, nil); d["state"] != "ready" {
		t.Errorf("the session that rendered all the time is %v", d["state"])
	}
	n.verify()
}
