package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// stream answers with server-sent events, then with nothing more to come.
func stream(events ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-ID") != "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i, e := range events {
			kind, data, _ := strings.Cut(e, " ")
			if kind == "progress" {
				_, _ = fmt.Fprintf(w, "event: progress\ndata: %s\n\n", data)
				continue
			}
			_, _ = fmt.Fprintf(w, "id: %d\nevent: %s\ndata: {\"position\":%d,\"type\":%q,\"data\":%s}\n\n", i+1, kind, i+1, kind, data)
		}
	}
}

var queuedSession = func() client.Session {
	s := aSession(idA, client.SessionStateQueued)
	s.Outcome, s.Queue = client.SessionOutcomeQueued, client.QueuePlace{Position: 1, EstimatedWaitSeconds: 2, Reason: "full"}
	return s
}()

func TestBookingThatWaits(t *testing.T) {
	ready := aSession(idA, client.SessionStateReady)
	server := answers{
		"POST /sessions":       status(202, queuedSession),
		"GET /sessions/" + idA: ok(ready),
		"GET /sessions/" + idA + "/events": stream(
			`session.queued {"place":2,"estimate_seconds":9,"decision":{"reason":"full"}}`,
			`progress {"state":"queued","queue":{"position":1,"estimated_wait_seconds":4,"code":"no_capacity","reason":"full"}}`,
			`progress {"state":"queued","queue":{"position":1,"estimated_wait_seconds":3,"code":"no_capacity","reason":"full"}}`,
			`session.starting {"resource":"demo-1"}`,
			`progress {"state":"starting","queue":{"position":1,"estimated_wait_seconds":1,"code":"no_capacity","reason":"resource demo-1 is starting"}}`,
			`progress {"state":"starting","queue":{"position":1,"estimated_wait_seconds":1,"code":"no_capacity","reason":"resource demo-1 is starting: Resources: 1 job ahead, start expected 14:20"}}`,
			`progress {"state":"starting","queue":{"position":1,"estimated_wait_seconds":0.5,"code":"no_capacity","reason":"resource demo-1 is starting: Resources: 1 job ahead, start expected 14:20"}}`,
			`session.allocated {"resource":"demo-1","model":"neuron:1"}`,
			`progress {"state":"loading","progress":0.4}`,
			`session.ready {"resource":"demo-1","seconds":2.25}`,
		),
	}.serve(t)
	got := rrm(t, "book", "demo", "neuron:1", "--wait", "1m")
	want := `queued: place 2, about 9.0 s: full
queued: place 1, about 4.0 s: full
demo-1 is starting
resource demo-1 is starting: Resources: 1 job ahead, start expected 14:20, about 1.0 s
allocated demo-1, which loads neuron:1
loading the model: 40 %
ready after 2.2 s
`
	if got.code != 0 || got.err != want {
		t.Errorf("%d\n%s\nwant\n%s", got.code, got.err, want)
	}
	contains(t, "stdout", got.out, server.URL+ready.URL)
}

// What the cluster says of a resource that is coming is in the lists, for operators and for who waits.
func TestListsTellWhatTheClusterSays(t *testing.T) {
	const says = "Resources: 3 jobs ahead, start expected 14:20"
	waiting := queuedSession
	waiting.Queue.Reason = "resource demo-1 is starting: " + says
	coming := client.Resource{ID: "demo-1", Renderer: "demo", Launcher: "slurm", State: "starting", StateSince: longAgo, RequestedAt: longAgo, Note: says, Reason: "demand"}
	running := coming
	running.ID, running.State, running.Note, running.Node, running.Reason = "demo-2", "ready", "", "n7", ""
	answers{
		"GET /resources":        ok(client.ResourceList{Items: []client.Resource{coming, running}}),
		"GET /resources/demo-1": ok(coming),
		"GET /sessions":         ok(client.SessionList{Items: []client.Session{waiting}}),
	}.serve(t)
	table := rrm(t, "resources").out
	contains(t, "resources", table, says)
	contains(t, "resources", table, "n7")
	contains(t, "one resource", rrm(t, "resources", "demo-1").out, "Note", says)
	contains(t, "sessions", rrm(t, "sessions").out, "place 1, about 2.0 s: resource demo-1 is starting: "+says)
}

// A session that is warm is ready with its allocation: no further event says so.
func TestBookingOfAWarmResource(t *testing.T) {
	answers{
		"POST /sessions":                   status(202, queuedSession),
		"GET /sessions/" + idA:             ok(aSession(idA, client.SessionStateReady)),
		"GET /sessions/" + idA + "/events": stream(`session.allocated {"resource":"demo-1","model":"neuron:1","warm":true}`),
	}.serve(t)
	if got := rrm(t, "book", "demo", "neuron:1", "--wait", "1m"); got.code != 0 || !strings.Contains(got.err, "ready: allocated demo-1, which has neuron:1 loaded") {
		t.Errorf("%+v", got)
	}
}

func TestBookingThatComesToNothing(t *testing.T) {
	for _, c := range []struct {
		state, code, event string
		exit               int
	}{
		{"expired", "wait_ended", "session.expired", exitRefused},
		{"failed", "model_not_found", "session.failed", exitFailure},
		{"lost", "", "session.lost", exitFailure},
	} {
		s := aSession(idA, client.SessionState(c.state))
		s.Code, s.Reason, s.EndedAt = c.code, "for a reason", longAgo
		answers{
			"POST /sessions": status(202, queuedSession), "GET /sessions/" + idA: ok(s),
			"GET /sessions/" + idA + "/events": stream(c.event + ` {}`),
		}.serve(t)
		got := rrm(t, "book", "demo", "neuron:1", "--wait", "1m")
		if got.code != c.exit || got.out != "" {
			t.Errorf("%s: %+v", c.state, got)
		}
		contains(t, "stderr", got.err, c.state+": for a reason")
	}
}

func TestBookingRequest(t *testing.T) {
	var body map[string]any
	answers{"POST /sessions": func(w http.ResponseWriter, r *http.Request) {
		body = nil
		_ = json.NewDecoder(r.Body).Decode(&body)
		status(201, aSession(idA, client.SessionStateReady))(w, r)
	}}.serve(t)
	rrm(t, "book", "demo", "neuron:1")
	if got := fmt.Sprint(body); got != "map[model:neuron:1 renderer:demo]" {
		t.Errorf("what was not given was sent: %s", got)
	}
	got := rrm(t, "book", "demo", "neuron:1", "--lease", "2m", "--max-duration", "1h", "--on-lost", "move", "--owner", "bob",
		"--params", `{"a":1,"view":"x"}`, "--param", "view=top", "--param", "n=[1,2]")
	want := `map[lease:2m max_duration:1h model:neuron:1 on_lost:move owner:bob params:map[a:1 n:[1 2] view:top] renderer:demo]`
	if fmt.Sprint(body) != want || got.code != 0 {
		t.Errorf("sent %v, want %s: %+v", body, want, got)
	}
}

// A connection that breaks before the answer: the same intent is sent again under the same key.
func TestBookingIsRepeatedUnderItsKey(t *testing.T) {
	var keys []string
	answers{"POST /sessions": func(w http.ResponseWriter, r *http.Request) {
		if keys = append(keys, r.Header.Get("Idempotency-Key")); len(keys) < tries {
			panic(http.ErrAbortHandler)
		}
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), "neuron:1") {
			t.Errorf("the repeated body is %q", body)
		}
		status(201, aSession(idA, client.SessionStateReady))(w, r)
	}}.serve(t)
	got := rrm(t, "book", "demo", "neuron:1")
	if got.code != 0 || len(keys) != tries || keys[0] == "" || len(slices.Compact(slices.Clone(keys))) != 1 {
		t.Errorf("%+v, keys %q", got, keys)
	}
	first := keys[0]
	if rrm(t, "book", "demo", "neuron:1"); keys[len(keys)-1] == first {
		t.Error("another intent has the same key")
	}
	if rrm(t, "book", "demo", "neuron:1", "--idempotency-key", "mine"); keys[len(keys)-1] != "mine" {
		t.Error("the key that was given was not sent")
	}
}

// Whoever gives up waiting gives the booking up.
func TestInterruptedBookingIsReleased(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	released := 0
	answers{
		"POST /sessions": status(202, queuedSession),
		"GET /sessions/" + idA + "/events": func(w http.ResponseWriter, r *http.Request) {
			stream(`session.queued {"place":1}`)(w, r)
			_ = http.NewResponseController(w).Flush()
			interrupt()
			<-r.Context().Done()
		},
		"DELETE /sessions/" + idA: func(w http.ResponseWriter, r *http.Request) {
			released++
			ok(aSession(idA, client.SessionStateReleased))(w, r)
		},
	}.serve(t)
	got := rrmWith(t, ctx, "", "book", "demo", "neuron:1", "--wait", "1m")
	if got.code != exitFailure || released != 1 {
		t.Errorf("%+v, released %d times", got, released)
	}
	contains(t, "stderr", got.err, "Released session "+idA, "interrupted")
}

func TestKeepRenewsUntilInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	s := aSession(idA, client.SessionStateReady)
	s.LeaseSeconds = 0.9
	renewed, released := 0, 0
	answers{
		"POST /sessions": status(201, s), "GET /sessions/" + idA: ok(s),
		"PUT /sessions/" + idA + "/lease": func(w http.ResponseWriter, r *http.Request) {
			if renewed++; renewed == 1 {
				problem(503, client.Problem{Code: "store_unavailable", Detail: "the database cannot be reached"})(w, r)
				return
			}
			ok(s)(w, r)
			interrupt()
		},
		"DELETE /sessions/" + idA: func(w http.ResponseWriter, r *http.Request) {
			released++
			ok(aSession(idA, client.SessionStateReleased))(w, r)
		},
	}.serve(t)
	got := rrmWith(t, ctx, "", "book", "demo", "neuron:1", "--keep")
	if got.code != exitOK || renewed < 2 || released != 1 {
		t.Errorf("%+v, renewed %d, released %d times", got, renewed, released)
	}
	contains(t, "stderr", got.err, "could not be renewed", "Released")
}

func TestKeepEndsWithTheSession(t *testing.T) {
	s := aSession(idA, client.SessionStateReady)
	s.LeaseSeconds = 0.3
	answers{
		"POST /sessions": status(201, s), "GET /sessions/" + idA: ok(s),
		"PUT /sessions/" + idA + "/lease": problem(409, client.Problem{Code: "session_ended", Detail: "it was lost"}),
	}.serve(t)
	if got := rrm(t, "book", "demo", "neuron:1", "--keep"); got.code != exitRefused || !strings.Contains(got.err, "it was lost") {
		t.Errorf("%+v", got)
	}
}

func TestSubmittedSpec(t *testing.T) {
	var body map[string]any
	answers{"POST /jobs": func(w http.ResponseWriter, r *http.Request) {
		body = nil
		_ = json.NewDecoder(r.Body).Decode(&body)
		status(202, aJob(idA, client.JobStateQueued))(w, r)
	}}.serve(t)
	spec := filepath.Join(t.TempDir(), "spec.json")
	if err := os.WriteFile(spec, []byte(`{"width":1,"camera":{"fov":20}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, stdin, want string }{
		{"", "", "map[kind:image model:m renderer:demo]"},
		{"--width 64 --height 32 --format jpeg", "", "map[kind:image model:m renderer:demo spec:map[format:jpeg height:32 width:64]]"},
		{"--frames 48 --orbit 0", "", "map[kind:frames model:m renderer:demo spec:map[frames:48 orbit:0]]"},
		{"--kind video --frames 48 --spec @" + spec + " --width 8 --yaw 90", "", "map[kind:video model:m renderer:demo spec:map[camera:map[fov:20 yaw:90] frames:48 width:8]]"},
		{"--spec @- --priority -5 --max-attempts 2 --timeout 10m", `{"samples":4}`, "map[kind:image max_attempts:2 model:m priority:-5 renderer:demo spec:map[samples:4] timeout:10m]"},
		{"--after " + idA + "," + idB + " --deadline 2030-01-01T00:00:00Z", "", "map[after:[" + idA + " " + idB + "] deadline:2030-01-01T00:00:00Z kind:image model:m renderer:demo]"},
	} {
		got := rrmWith(t, t.Context(), c.stdin, append([]string{"submit", "demo", "m"}, strings.Fields(c.args)...)...)
		if fmt.Sprint(body) != c.want || got.code != 0 {
			t.Errorf("%s: sent %v: %+v", c.args, body, got)
		}
	}
}

func TestFollowedJobAndItsResult(t *testing.T) {
	done := aJob(idA, client.JobStateSucceeded)
	done.EndedAt, done.Result = longAgo, client.JobResult{ContentType: "image/png", Bytes: 7, URL: "/x"}
	calls := answers{
		"POST /jobs": status(202, aJob(idA, client.JobStateQueued)), "GET /jobs/" + idA: ok(done),
		"GET /jobs/" + idA + "/events": stream(
			`progress {"state":"queued","queue":{"position":3,"estimated_wait_seconds":4,"code":"no_capacity","reason":"full"}}`,
			`job.assigned {"resource":"demo-1","model":"m","warm":true}`, `job.started {"resource":"demo-1"}`, `progress {"state":"running"}`,
			`progress {"state":"running","progress":0.5}`, `job.succeeded {"seconds":1.5,"bytes":7}`),
		"GET /jobs/" + idA + "/result": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "image/png")
			_, _ = io.WriteString(w, "picture")
		},
	}
	calls.serve(t)
	name := filepath.Join(t.TempDir(), "picture.png")
	got := rrm(t, "submit", "demo", "m", "--result", name)
	raw, err := os.ReadFile(name)
	if got.code != 0 || err != nil || string(raw) != "picture" {
		t.Errorf("%+v %q %v", got, raw, err)
	}
	want := "queued: place 3, about 4.0 s: full\nassigned to demo-1, which has m loaded\nrunning on demo-1\nrunning: 50 %\nsucceeded after 1.5 s: 7 B\nWrote " + name + " (image/png, 7 B).\n"
	if got.err != want {
		t.Errorf("told\n%s\nwant\n%s", got.err, want)
	}
	if got := rrm(t, "result", idA); got.out != "picture" || got.code != 0 {
		t.Errorf("to standard output: %+v", got)
	}
	// Nothing of a result that is refused or breaks off is left.
	calls["GET /jobs/"+idA+"/result"] = problem(409, client.Problem{Code: "result_not_ready", Detail: "it runs", RetryAfterSeconds: 1})
	calls.serve(t)
	dir := t.TempDir()
	if got := rrm(t, "result", idA, "-f", filepath.Join(dir, "x")); got.code != exitRefused {
		t.Errorf("%+v", got)
	}
	calls["GET /jobs/"+idA+"/result"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "pict")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	calls.serve(t)
	if got := rrm(t, "result", idA, "-f", filepath.Join(dir, "x")); got.code == exitOK {
		t.Errorf("%+v", got)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFailedJobIsAFailure(t *testing.T) {
	bad := aJob(idA, client.JobStateFailed)
	bad.Code, bad.Reason, bad.EndedAt = "invalid", "spec.width: must be 16 to 4096", longAgo
	answers{"GET /jobs/" + idA: ok(bad)}.serve(t)
	if got := rrm(t, "job", idA); got.code != exitOK {
		t.Errorf("shown: %+v", got)
	}
	if got := rrm(t, "job", idA, "--follow"); got.code != exitFailure || !strings.Contains(got.err, "must be 16 to 4096") {
		t.Errorf("followed: %+v", got)
	}
}

// log answers GET /events of a log with so many events.
func logOf(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		after, _ := strconv.ParseInt(q.Get("after"), 10, 64)
		limit, _ := strconv.Atoi(q.Get("limit"))
		l := client.EventList{NextAfter: after, Items: []client.Event{}}
		for p := after + 1; p <= int64(n) && len(l.Items) < limit; p++ {
			e := client.Event{Position: p, Type: "session.ready", Stream: "pool/demo", Version: p, RecordedAt: time.Now(), Data: json.RawMessage(`{"session":"` + idA + `","seconds":2}`)}
			if p%100 == 0 {
				e.Type = "admission.changed"
			}
			l.NextAfter = p
			if kind := q.Get("type"); kind == "" || kind == e.Type {
				l.Items = append(l.Items, e)
			}
		}
		ok(l)(w, r)
	}
}

func TestNewestEvents(t *testing.T) {
	for _, c := range []struct {
		n           int
		args        string
		first, last int64
		lines       int
	}{
		{0, "", 0, 0, 0}, {1, "", 1, 1, 1}, {2, "", 1, 2, 2}, {7, "--limit 3", 5, 7, 3}, {1000, "--limit 60", 941, 1000, 60},
		{1000, "--type admission.changed --limit 3", 800, 1000, 3}, {1000, "--type admission.changed", 100, 1000, 10},
		{1000, "--after 10 --limit 2", 11, 12, 2}, {1200, "--limit 0", 1, 1200, 1200}, {5, "--after 5", 0, 0, 0},
	} {
		answers{"GET /events": logOf(c.n)}.serve(t)
		got := rrm(t, append([]string{"events", "-o", "json"}, strings.Fields(c.args)...)...)
		var all []client.Event
		for d := json.NewDecoder(strings.NewReader(got.out)); d.More(); {
			var e client.Event
			if err := d.Decode(&e); err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		if len(all) != c.lines || c.lines > 0 && (all[0].Position != c.first || all[len(all)-1].Position != c.last) {
			t.Errorf("%d events, %s: %d of them: %.200s %s", c.n, c.args, len(all), got.out, got.err)
		}
	}
	contains(t, "a line", rrm(t, "events", "--limit", "1").out, "session.ready", "aaaaaaaa", "after 2.0 s")
}

// Following goes on after a broken connection, without loss or repeat, until it is interrupted.
func TestFollowedEvents(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var mu sync.Mutex
	var asked []string
	answers{
		"GET /events": logOf(7),
		"GET /events/stream": func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, r.Header.Get("Last-Event-ID")+r.URL.Query().Get("type"))
			n := len(asked)
			mu.Unlock()
			if n == 3 {
				interrupt()
				<-r.Context().Done()
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, "id: %d\nevent: job.started\ndata: {\"position\":%d,\"type\":\"job.started\",\"data\":{}}\n\n", 7+n, 7+n)
		},
	}.serve(t)
	got := rrmWith(t, ctx, "", "events", "--follow", "--type", "job.*")
	if got.code != 0 || strings.Count(got.out, "job.started") != 2 || strings.Join(asked, " ") != "7job.* 8job.* 9job.*" {
		t.Errorf("%+v, asked %q", got, asked)
	}
}

func TestExplain(t *testing.T) {
	s := aSession(idA, client.SessionStateReady)
	s.Decision.Position = 12
	d := client.DecisionRecord{
		Position: 12, At: longAgo, Type: "session.allocated", Stream: "pool/demo", Actor: "process:launch",
		Event: json.RawMessage(`{"resource":"demo-2","warm":false,"waited_seconds":1.5}`),
		Decision: client.Decision{
			Policy: "expected", Version: 1, Outcome: "allocated", Reason: "loading is cheapest here", Considered: 4,
			Filtered: map[string]int{"no_free_slot": 2, "newer_reason": 1}, Costs: map[string]float64{"load_seconds": 7.5, "newer_seconds": 1},
			Candidates: []client.Candidate{{Resource: "demo-2", State: "cold", Seconds: 7.5, Free: 1, Evicts: []string{"neuron:9"}}},
		},
	}
	answers{
		"GET /sessions/" + idA: ok(s), "GET /decisions/12": ok(d),
		"GET /events":        ok(client.EventList{Items: []client.Event{}}),
		"GET /sessions/nope": problem(404, client.Problem{Code: "session_not_found"}), "GET /jobs/nope": problem(404, client.Problem{Code: "job_not_found"}),
	}.serve(t)
	got := rrm(t, "explain", idA)
	contains(t, "the explanation", got.out, "of alice for neuron:1 is ready", "allocated demo-2, cold, after waiting 1.5 s", "loading is cheapest here",
		"expected, version 1", "4 resources", "1 because of newer_reason, 2 without a free slot", "loading takes 7.5 s, newer 1.0 s", "chosen  demo-2     cold   7.5 s", "neuron:9", "process:launch")
	if other := rrm(t, "explain", "12"); other.code != 0 || !strings.HasSuffix(got.out, other.out) {
		t.Errorf("by its position: %+v", other)
	}
	var raw client.DecisionRecord
	if err := json.Unmarshal([]byte(rrm(t, "explain", idA, "-o", "json").out), &raw); err != nil || raw.Position != 12 {
		t.Errorf("in JSON: %+v %v", raw, err)
	}
	if got := rrm(t, "explain", "nope"); got.code != exitFailure || !strings.Contains(got.err, "no session or job nope") {
		t.Errorf("%+v", got)
	}
}

func TestOutcomes(t *testing.T) {
	for outcome, want := range map[string]string{
		"queued": "queued at place 3, about 4.0 s to wait", "rejected": "rejected (full), to be asked again in 9.0 s; 2 waited already",
		"evicted": "evicted m from r to make room for n", "scaled": "scaled from 1 to 2, stopping x", "assigned": "assigned r, warm, avoiding 2.0 s of loading", "shadowed": "would have had 4 resources; nothing was done", "newer": "newer",
	} {
		f := fields{Place: 3, Estimate: 4, Code: "full", RetryAfter: 9, Queue: 2, Model: "m", For: "n", Resource: "r", From: 1, To: 2, Stop: []string{"x"}, Size: 4, Warm: true, Saved: 2}
		if got := outcomeText(outcome, &f); got != want {
			t.Errorf("%s: %s", outcome, got)
		}
	}
}

func TestApply(t *testing.T) {
	put := map[string]string{}
	answers{"PUT /renderers/{id}": func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		put[r.PathValue("id")] = string(raw)
		ok(client.Renderer{ID: r.PathValue("id")})(w, r)
	}}.serve(t)
	got := rrmWith(t, t.Context(), "id: one\nscaling: {max: 2, idle: 1m}\n---\n{\"id\": \"two\", \"slots\": 1}\n", "renderers", "apply", "-f", "-")
	if got.code != 0 || len(put) != 2 || put["one"] != `{"id":"one","scaling":{"idle":"1m","max":2}}` || put["two"] != `{"id":"two","slots":1}` {
		t.Errorf("%+v, put %v", got, put)
	}
	for text, want := range map[string]string{"x: [": "line 1", "slots: 1": "no id", "": "no settings", "- 1": "settings of a renderer", "id: a\n1: {2: 3}\nb: {3: 4}": "keys"} {
		if got := rrmWith(t, t.Context(), text, "renderers", "apply", "-f", "-"); got.code != exitUsage || !strings.Contains(got.err, want) {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// What get prints, apply takes.
func TestSettingsCanBeWrittenBack(t *testing.T) {
	one := 1
	r := client.Renderer{ID: "demo", CommandLine: "x --y", Scaling: client.ScalingSettings{Max: &one, Idle: "10s"}, EnvironmentVariables: map[string]string{"A": "yes", "B": "1"}}
	answers{"GET /renderers/demo": ok(r)}.serve(t)
	docs, err := documents([]byte(rrm(t, "renderers", "get", "demo").out))
	if err != nil || len(docs) != 1 {
		t.Fatal(docs, err)
	}
	var back client.Renderer
	if err := json.Unmarshal(docs[0].body, &back); err != nil || fmt.Sprintf("%+v", back.EnvironmentVariables) != "map[A:yes B:1]" || *back.Scaling.Max != 1 || back.CommandLine != "x --y" {
		t.Errorf("%+v %v", back, err)
	}
}

func TestCompletion(t *testing.T) {
	old := aSession(idB, client.SessionStateReleased)
	old.EndedAt = longAgo
	calls := answers{
		"GET /renderers": ok(client.RendererList{Items: []client.Renderer{{ID: "demo", Name: "Demonstration"}, {ID: "brayns"}}}),
		"GET /sessions":  ok(client.SessionList{Items: []client.Session{aSession(idA, client.SessionStateReady), old}}),
		"GET /jobs":      ok(client.JobList{Items: []client.Job{aJob(idA, client.JobStateQueued)}}),
	}
	calls.serve(t)
	for args, want := range map[string]string{
		"book ":                  "demo\tDemonstration,brayns",
		"book demo ":             "",
		"sessions --renderer ":   "demo\tDemonstration,brayns",
		"release ":               idA + "\tneuron:1, ready",
		"cancel ":                idA + "\tneuron:1, queued",
		"sessions --output ":     "table,json",
		"token create --role ":   "client,operator,auditor",
		"serve --log-format ":    "text,json",
		"admission ":             "open\tAdmit new sessions again,suspend\tAdmit no new sessions; what exists goes on",
		"book demo m --on-lost ": "end,move",
	} {
		got := rrm(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		lines := strings.Split(strings.TrimSpace(got.out), "\n")
		if said := strings.Join(lines[:len(lines)-1], ","); said != want {
			t.Errorf("%q: %q, want %q", args, said, want)
		}
	}
	t.Setenv("RRM_SERVER", "http://127.0.0.1:1")
	if got := rrm(t, "__complete", "book", ""); got.code != 0 || !strings.HasPrefix(got.out, ":") {
		t.Errorf("without a service: %+v", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := rrm(t, "completion", shell); got.code != 0 || !strings.Contains(got.out, "rrm") {
			t.Errorf("%s: %d", shell, got.code)
		}
	}
}

func TestLogs(t *testing.T) {
	answers{"GET /resources/r1/logs": func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s\n", r.URL.Query().Get("stream"), r.URL.Query().Get("tail"))
	}}.serve(t)
	if got := rrm(t, "resources", "r1", "--logs", "--stream", "stderr", "--tail", "7"); got.out != "stderr 7\n" || got.code != 0 {
		t.Errorf("%+v", got)
	}
	for _, wrong := range []string{"--stream=both", "--tail=0"} {
		if got := rrm(t, "resources", "r1", "--logs", wrong); got.code != exitUsage {
			t.Errorf("%s: %+v", wrong, got)
		}
	}
}

func TestFrame(t *testing.T) {
	s := aSession(idA, client.SessionStateReady)
	var asked string
	answers{
		"GET /sessions/" + idA: ok(s),
		"GET /sessions/" + idA + "/renderer/v1/image": func(w http.ResponseWriter, r *http.Request) {
			asked = r.URL.RawQuery + " " + r.Header.Get("Authorization")
			_, _ = io.WriteString(w, "picture")
		},
	}.serve(t)
	t.Setenv("RRM_TOKEN", "secret")
	name := filepath.Join(t.TempDir(), "x.jpg")
	got := rrm(t, "frame", idA, "-f", name, "--width", "320", "--yaw", "-90")
	raw, _ := os.ReadFile(name)
	if got.code != 0 || !bytes.Equal(raw, []byte("picture")) || asked != "format=jpeg&width=320&yaw=-90 Bearer secret" {
		t.Errorf("%+v, asked %q, wrote %q", got, asked, raw)
	}
}
