package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func TestTables(t *testing.T) {
	queuedOne := aSession(idB, client.SessionStateQueued)
	queuedOne.Resource, queuedOne.Queue = "", client.QueuePlace{Position: 2, EstimatedWaitSeconds: 7, Reason: "full"}
	bad := aSession(idA, client.SessionStateFailed)
	bad.Reason = "bad\x1b[31m\nmodel"
	low, high := 0, 4
	answers{
		"GET /sessions":  ok(client.SessionList{Items: []client.Session{queuedOne, bad}}),
		"GET /jobs":      ok(client.JobList{Items: []client.Job{aJob(idA, client.JobStateRunning)}}),
		"GET /resources": ok(client.ResourceList{}),
		"GET /models": ok(client.ModelList{Items: []client.Model{{
			Renderer: "demo", Model: "circuit:100", Warm: []string{"demo-1"}, Loading: []string{"demo-2"}, Loads: 3, LoadSeconds: 7.25, LastUsed: longAgo, Uses: 9, WarmUses: 6,
		}}}),
		"GET /renderers": ok(client.RendererList{Items: []client.Renderer{{ID: "demo", Launcher: "local", Slots: 1, ModelsPerResource: 2, Scaling: client.ScalingSettings{Min: &low, Max: &high}}}}),
	}.serve(t)
	for _, c := range []struct{ args, want string }{
		{"sessions", `
SESSION   RENDERER  MODEL     OWNER  STATE   SINCE      RESOURCE     NOTE
bbbbbbbb  demo      neuron:1  alice  queued  3h01m ago  -            place 2, about 7.0 s: full
aaaaaaaa  demo      neuron:1  alice  failed  3h01m ago  demo-1-ab12  bad[31m model
`},
		{"jobs --wide", `
JOB                                   KIND   RENDERER  MODEL     OWNER  STATE    SINCE      RESOURCE  NOTE
` + idA + `  image  demo      neuron:1  alice  running  3h01m ago  -         0 %
`},
		{"resources", "\nNo resources run.\n"},
		{"models", `
RENDERER  MODEL        WARM ON                   USED       LOAD   MEMORY  JOB  USES  WARM
demo      circuit:100  demo-1, demo-2 (loading)  3h01m ago  7.2 s  -       -    9     6
`},
		{"renderers", `
RENDERER  LAUNCHER  SLOTS  MODELS  RESOURCES  LOADING  NAME
demo      local     1      2       0 to 4     -        -
`},
	} {
		got := rrm(t, strings.Fields(c.args)...)
		if got.code != 0 || "\n"+got.out != c.want {
			t.Errorf("rrm %s: %d %s\n%s\nwant%s", c.args, got.code, got.err, got.out, c.want)
		}
	}
}

func TestSessionDetails(t *testing.T) {
	s := aSession(idA, client.SessionStateReady)
	s.Warm, s.Node, s.LeaseExpiresAt, s.ReadyAt = true, "node7", time.Now().Add(2*time.Hour+30*time.Second), longAgo.Add(1500*time.Millisecond)
	s.Params, s.Decision = json.RawMessage(`{"view":"top"}`), client.DecisionRef{Position: 12}
	server := answers{"GET /sessions/" + idA: ok(s)}.serve(t)
	got := rrm(t, "sessions", idA)
	want := `Session        ` + idA + `
State          ready (3h01m ago)
Renderer       demo
Model          neuron:1 (was loaded already)
Owner          alice
Resource       demo-1-ab12 on node7
URL            ` + server.URL + s.URL + `
Lease          60 s, ends in 2h00m unless renewed
Parameters     {"view":"top"}
Time to ready  1.5 s
Decision       12 (why: rrm explain 12)
`
	if got.out != want {
		t.Errorf("got\n%s\nwant\n%s", got.out, want)
	}
}

// -o json gives what the API said, fields that this program does not know too.
func TestJSONIsWhatTheAPISaid(t *testing.T) {
	answers{"GET /sessions": ok(`{"items":[{"id":"x","newer_field":[1,2]}]}`), "GET /admission": ok(`{"open":true}`)}.serve(t)
	for args, want := range map[string]string{
		"sessions -o json":  `{"items":[{"id":"x","newer_field":[1,2]}]}`,
		"admission -o json": `{"open":true}`,
	} {
		got := rrm(t, strings.Fields(args)...)
		var b bytes.Buffer
		if err := json.Compact(&b, []byte(got.out)); err != nil || b.String() != want {
			t.Errorf("%s: %s %v", args, got.out, err)
		}
	}
}

// Pages are read until there are as many as asked for, or all.
func TestPages(t *testing.T) {
	var asked []string
	answers{"GET /jobs": func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		asked = append(asked, q.Get("limit")+"/"+q.Get("cursor"))
		if q.Has("owner") || q.Has("state") {
			t.Errorf("filters that were not given were sent: %s", r.URL.RawQuery)
		}
		at, _ := strconv.Atoi(q.Get("cursor"))
		limit, _ := strconv.Atoi(q.Get("limit"))
		var l client.JobList
		for i := at; i < min(at+min(limit, 3), 7); i++ { // the service may give fewer than asked for
			l.Items = append(l.Items, aJob(strconv.Itoa(i), client.JobStateQueued))
		}
		if next := at + len(l.Items); next < 7 {
			l.NextCursor = strconv.Itoa(next)
		}
		ok(l)(w, r)
	}}.serve(t)
	for _, c := range []struct {
		limit, asked string
		items        int
		more         bool
	}{
		{"0", "500/ 500/3 500/6", 7, false},
		{"4", "4/ 1/3", 4, true},
		{"2", "2/", 2, true},
		{"50", "50/ 47/3 44/6", 7, false},
	} {
		asked = nil
		got := rrm(t, "jobs", "--limit", c.limit)
		if n := strings.Count(got.out, "\n") - 1; n != c.items || strings.Join(asked, " ") != c.asked || strings.Contains(got.err, "There are more") != c.more {
			t.Errorf("--limit %s: %d items, asked %v, said %q", c.limit, n, asked, got.err)
		}
		var p page
		if err := json.Unmarshal([]byte(rrm(t, "jobs", "--limit", c.limit, "-o", "json").out), &p); err != nil || len(p.Items) != c.items {
			t.Errorf("--limit %s in JSON: %d items, %v", c.limit, len(p.Items), err)
		}
	}
}

func TestShortIdentifiers(t *testing.T) {
	answers{
		"GET /sessions":           ok(client.SessionList{Items: []client.Session{aSession(idA, "ready"), aSession(idB, "ready"), aSession("1"+idB[1:], "ready")}}),
		"GET /sessions/" + idA:    ok(aSession(idA, client.SessionStateReady)),
		"GET /sessions/cccccccc":  problem(404, client.Problem{Code: "session_not_found", Detail: "there is none"}),
		"DELETE /sessions/" + idA: ok(aSession(idA, client.SessionStateReleased)),
	}.serve(t)
	for _, c := range []struct {
		id   string
		code int
		text string
	}{
		{"aaaaaaaa", exitOK, idA}, {idA, exitOK, idA}, {"2faaaaaaaa", exitOK, idA},
		{"bbbbbbbb", exitUsage, "the end of 2 sessions"}, {"cccccccc", exitRefused, "there is none"},
	} {
		got := rrm(t, "sessions", c.id)
		if got.code != c.code || !strings.Contains(got.out+got.err, c.text) {
			t.Errorf("%s: %+v", c.id, got)
		}
	}
	if got := rrm(t, "release", "aaaaaaaa"); got.code != 0 || !strings.Contains(got.out, "is released") {
		t.Errorf("release: %+v", got)
	}
}

func TestTimesForPeople(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	p := &program{now: func() time.Time { return now }}
	for d, want := range map[time.Duration]string{
		0: "0s ago", 12 * time.Second: "12s ago", 119 * time.Second: "119s ago", 3 * time.Minute: "3m00s ago",
		47 * time.Minute: "47m ago", 3*time.Hour + 4*time.Minute: "3h04m ago", 72 * time.Hour: "3d ago", -42 * time.Second: "in 42s",
	} {
		if got := p.ago(now.Add(-d)); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	if got := p.ago(time.Time{}); got != "" {
		t.Errorf("never: %q", got)
	}
	for s, want := range map[float64]string{0: "0 s", 0.004: "4 ms", 0.0996: "0.1 s", 1.26: "1.3 s", 9.96: "10 s", 42.4: "42 s", 150: "2m30s"} {
		if got := seconds(s); got != want {
			t.Errorf("%v: %s, want %s", s, got, want)
		}
	}
}

// On a terminal progress is one line that is rewritten, elsewhere one line for each change.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	say := func(g *progress) string {
		b.Reset()
		g.say("queued 1", "queued, about %d s", 2)
		g.say("queued 1", "queued, about %d s", 1)
		g.say("ready", "ready\x1b[2J")
		g.done()
		return b.String()
	}
	if got := say(&progress{w: &b}); got != "queued, about 2 s\nready[2J\n" {
		t.Errorf("lines: %q", got)
	}
	if got := say(&progress{w: &b, live: true}); got != "\r\x1b[Kqueued, about 2 s\r\x1b[Kqueued, about 1 s\r\x1b[Kready[2J\n" {
		t.Errorf("terminal: %q", got)
	}
}

func TestBinaryIsNotWrittenToATerminal(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminal here:", err)
	}
	defer func() { _ = tty.Close() }()
	c := &call{program: &program{stdout: tty}}
	if err := c.writable("-"); err == nil {
		t.Error("standard output that is a terminal was taken")
	}
	if err := c.writable("file.png"); err != nil {
		t.Error(err)
	}
	c.stdout = &bytes.Buffer{}
	if err := c.writable("-"); err != nil {
		t.Error(err)
	}
}
