package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
	"github.com/rendering-resource-manager/rrm/projections"
)

var errInside = errors.New("secret of the inside")

type panics struct{ *world }

func (panics) Service(context.Context) (pool.Service, error) { panic("boom") }

func sessionOf(id domain.SessionID, owner domain.Owner, state pool.SessionState) *projections.SessionView {
	return &projections.SessionView{Session: pool.Session{
		ID: id, Seq: 1, Renderer: "demo", Model: "m", Owner: owner, State: state, StateSince: t0, RequestedAt: t0, LeaseSeconds: 60, OnLost: "end",
	}, Address: "127.0.0.1:1", Node: "node7"}
}

func jobOf(id domain.JobID, owner domain.Owner, state pool.JobState) *projections.JobView {
	return &projections.JobView{Job: pool.Job{
		ID: id, Seq: 1, Renderer: "demo", Model: "m", Kind: "image", Owner: owner, MaxAttempts: 3, TimeoutSeconds: 60, State: state, StateSince: t0, SubmittedAt: t0,
	}}
}

// Each operation answers as documented when all is well.
func TestEveryOperation(t *testing.T) {
	s := newSite(t)
	for what, body := range every(s) {
		if strings.HasSuffix(what, "own/events") || strings.HasSuffix(what, "/stream") || strings.HasSuffix(what, "/result") {
			continue // streams do not end; results are tested by themselves
		}
		if strings.HasPrefix(what, "DELETE") {
			defer func() {
				if r := s.ask("root", what, body); r.StatusCode >= 300 {
					t.Errorf("%s: %d %s", what, r.StatusCode, r.body)
				}
			}()
			continue
		}
		if r := s.ask("root", what, body); r.StatusCode >= 300 {
			t.Errorf("%s: %d %s", what, r.StatusCode, r.body)
		}
	}
	for _, what := range []string{"GET //healthz", "GET //readyz", "GET //metrics", "GET //docs", "GET //openapi.yaml"} {
		if r := s.ask("", what, ""); r.StatusCode != 200 || len(r.body) == 0 {
			t.Errorf("%s: %d", what, r.StatusCode)
		}
	}
}

func TestBooking(t *testing.T) {
	s := newSite(t)
	r := s.ask("alice", "POST /sessions", `{"renderer":"Demo","model":"m","lease":"90s","max_duration":"1h30m","on_lost":"move","params":{"n":1.50,"big":12345678901234567890,"half":"\ud800"}}`,
		"Idempotency-Key", "k 1", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	v := read[Session](t, r, 201)
	want := pool.BookResource{
		Renderer: "demo", Model: "m", Owner: "alice", Lease: 90 * time.Second, MaxTime: 90 * time.Minute, OnLost: "move",
		Params: json.RawMessage("{\"big\":12345678901234567890,\"half\":\"\uFFFD\",\"n\":1.50}"),
	}
	if !reflect.DeepEqual(s.booked[0], want) {
		t.Errorf("the command is %+v (%s)\nnot %+v", s.booked[0], s.booked[0].Params, want)
	}
	if c := s.calls[0]; c.Actor != "client:alice" || c.Key != "k 1" || !strings.HasPrefix(c.Trace, "00-0af") {
		t.Errorf("the call is %+v", c)
	}
	if v.Outcome != "allocated" || v.URL != BasePath+"/sessions/"+v.ID+"/renderer/" || r.Header.Get("Location") != BasePath+"/sessions/"+v.ID ||
		v.Node != "node7" || v.LeaseExpiresAt.IsZero() || v.Decision.URL == "" || v.Owner != "alice" {
		t.Errorf("the answer is %+v", v)
	}
	v = read[Session](t, s.ask("root", "POST /sessions", `{"renderer":"demo","model":"m","wait":"2m","owner":"carol"}`), 202)
	if v.Outcome != "queued" || v.Queue.Position != 2 || v.Queue.EstimatedWaitSeconds != 12 || v.Owner != "carol" || v.WaitUntil.IsZero() {
		t.Errorf("the answer is %+v", v)
	}
}

func TestLeaseAndRelease(t *testing.T) {
	s := newSite(t)
	v := read[Session](t, s.ask("alice", "POST /sessions", goodSession), 201)
	v = read[Session](t, s.ask("alice", "PUT /sessions/"+v.ID+"/lease", `{"lease":"10m"}`), 200)
	if !v.LeaseExpiresAt.Equal(t0.Add(time.Hour)) || v.LeaseSeconds != 600 {
		t.Errorf("renewed: %+v", v)
	}
	if v = read[Session](t, s.ask("alice", "PUT /sessions/"+v.ID+"/lease", ""), 200); v.LeaseSeconds != 60 {
		t.Errorf("renewed without a body: %+v", v)
	}
	if p := s.ask("alice", "PUT /sessions/"+v.ID+"/lease", `{"lease":"0"}`).problem(t); p.Status != 422 || p.Field != "lease" {
		t.Errorf("a lease of 0: %+v", p)
	}
	for range 2 {
		if v = read[Session](t, s.ask("alice", "DELETE /sessions/"+v.ID, ""), 200); v.State != "released" || v.EndedAt.IsZero() {
			t.Errorf("released: %+v", v)
		}
	}
	if p := s.ask("alice", "PUT /sessions/"+v.ID+"/lease", "").problem(t); p.Status != 409 || p.Code != "session_ended" {
		t.Errorf("renewed after the end: %+v", p)
	}
	queued := read[Session](t, s.ask("alice", "POST /sessions", `{"renderer":"demo","model":"m","wait":"2m"}`), 202)
	if v = read[Session](t, s.ask("alice", "PUT /sessions/"+queued.ID+"/lease", ""), 200); !v.LeaseExpiresAt.IsZero() {
		t.Errorf("a queued session has a lease: %+v", v)
	}
}

func TestPoolTellsHowRightItsExpectationsWere(t *testing.T) {
	s := newSite(t)
	s.change(func() {
		s.pools["demo"].Expectations.JobTurn = pool.Calibrated{Waits: 8, Within: 6, Recent: 0.5, Low: 0.2, Mid: 1, High: 3}
	})
	p := read[Pool](t, s.ask("alice", "GET /pools/demo", ""), 200)
	if e := p.Expectations; e.Confidence != 0.8 || e.JobTurn != (Calibrated{Waits: 8, Within: 6, Share: 0.75, Recent: 0.5}) || e.SessionTurn.Waits != 0 {
		t.Errorf("%+v", e)
	}
}

func TestJob(t *testing.T) {
	s := newSite(t)
	first := read[Job](t, s.ask("alice", "POST /jobs", `{"renderer":"demo","model":"m","kind":"frames","spec":{"frames":3}}`), 202)
	j := read[Job](t, s.ask("alice", "POST /jobs", `{"renderer":"demo","model":"m","kind":"video","after":["`+first.ID+`"],"deadline":"2027-01-01T12:00:00+01:00","priority":-3,"timeout":"2m"}`), 202)
	if j.Queue.Position != 1 || j.State != "queued" || len(j.After) != 1 || j.Owner != "alice" {
		t.Errorf("submitted: %+v", j)
	}
	c := s.submitted[1]
	if c.Priority != -3 || c.Timeout != 2*time.Minute || !c.Deadline.Equal(time.Date(2027, 1, 1, 11, 0, 0, 0, time.UTC)) || string(s.submitted[0].Spec) != `{"frames":3}` {
		t.Errorf("the command is %+v", c)
	}
	r := s.ask("alice", "GET /jobs/"+j.ID+"/result", "")
	if p := r.problem(t); r.StatusCode != 409 || p.Code != "result_not_ready" || r.Header.Get("Retry-After") != "1" {
		t.Errorf("no result yet: %d %+v", r.StatusCode, p)
	}
	s.change(func() {
		v := s.jobs[domain.JobID(j.ID)]
		v.State, v.Ended, v.Progress, v.Result = pool.JobStateSucceeded, true, 1, &pool.Result{ContentType: "image/png", Bytes: 6}
		s.results[v.ID] = "\x89PNG\r\n"
	})
	j = read[Job](t, s.ask("alice", "GET /jobs/"+j.ID, ""), 200)
	if j.Result.URL != BasePath+"/jobs/"+j.ID+"/result" || j.Progress != 1 {
		t.Errorf("succeeded: %+v", j)
	}
	r = s.ask("alice", "GET /jobs/"+j.ID+"/result", "")
	if string(r.body) != "\x89PNG\r\n" || r.Header.Get("Content-Type") != "image/png" {
		t.Errorf("the result is %q %q", r.Header, r.body)
	}
	if r = s.ask("alice", "HEAD /jobs/"+j.ID+"/result", ""); r.StatusCode != 200 || r.ContentLength != 6 || len(r.body) != 0 {
		t.Errorf("HEAD of the result: %d %d", r.StatusCode, r.ContentLength)
	}
	if p := s.ask("alice", "DELETE /jobs/"+j.ID, "").problem(t); p.Status != 409 || p.Code != "job_ended" {
		t.Errorf("cancelled after success: %+v", p)
	}
	if j = read[Job](t, s.ask("alice", "DELETE /jobs/"+first.ID, ""), 200); j.State != "cancelled" {
		t.Errorf("cancelled: %+v", j)
	}
	if p := s.ask("alice", "POST /jobs", `{"renderer":"demo","model":"m","kind":"image","after":["nothing"]}`).problem(t); p.Code != "job_not_found" || p.Field != "after" {
		t.Errorf("after nothing: %+v", p)
	}
}

// What was read of a renderer can be written back, and means the same.
func TestRendererRoundTrip(t *testing.T) {
	s := newSite(t)
	r := s.ask("root", "PUT /renderers/Brayns", `{"command_line":"brayns --x","environment_variables":"A=1, B=x=2\nC=","modules":"m1 m2,m3","graceful_exit":false,
		"scaling":{"max":0,"idle":"0","policy":"buffer","parameters":{"size":2,"up_per_minute":"3"},"shadow":{"policy":"demand"}},"probe":{"interval":"1.5s"},"placement":{"parameters":{"payoff":30.5}},
		"sessions":{"reserve":1,"moves":0,"settled":"30s"},"quotas":{"sessions":0,"jobs_running":8,"owners":{"alice":{"sessions":2,"weight":3},"bob":{"jobs_queued":5}}}}`)
	if r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	bufferOf2 := domain.ScalingSettings{Shadow: &domain.ScalingPolicy{Policy: "demand"},
		ScalingPolicy: domain.ScalingPolicy{Policy: "buffer", Parameters: domain.Parameters{"size": "2", "up_per_minute": "3"}}}
	byDefault := domain.DefaultScaling()
	byDefault.Policy = domain.DefaultScalingPolicy
	got := s.pools["brayns"].Settings
	if !reflect.DeepEqual(got.Environment, map[string]string{"A": "1", "B": "x=2", "C": ""}) || len(got.Modules) != 3 || got.GracefulExit || !got.WaitUntilReady ||
		!reflect.DeepEqual(got.Scaling, bufferOf2) || got.Probe.Interval.Std() != 1500*time.Millisecond || got.Slots != 1 || got.CPUs != 1 {
		t.Errorf("written: %+v", got)
	}
	if got.Sessions != (domain.SessionSettings{Reserve: 1, Settled: domain.Duration(30 * time.Second)}) {
		t.Errorf("what is written of sessions is %+v", got.Sessions)
	}
	if q := got.Quotas; *q.Sessions != 0 || *q.JobsRunning != 8 || q.JobsQueued != nil || *q.Of("alice").Sessions != 2 || *q.Of("bob").JobsQueued != 5 {
		t.Errorf("the quotas written are %+v", q)
	}
	if seen := string(s.ask("alice", "GET /renderers/brayns", "").body); !strings.Contains(seen, `"quotas":{"sessions":0,"jobs_running":8,"owners":{"alice":{"sessions":2,"weight":3}}}`) {
		t.Errorf("alice is shown %s", seen)
	}
	again := s.ask("root", "PUT /renderers/brayns", string(s.ask("root", "GET /renderers/brayns", "").body))
	if string(again.body) != string(r.body) || !reflect.DeepEqual(s.pools["brayns"].Settings, got) {
		t.Errorf("written back:\n%s\n%s", r.body, again.body)
	}
	if r = s.ask("root", "PUT /renderers/plain", `{"command_line":"x"}`); r.StatusCode != 200 || !reflect.DeepEqual(s.pools["plain"].Settings.Scaling, byDefault) ||
		s.pools["plain"].Settings.Sessions != domain.DefaultSessions() {
		t.Errorf("defaults: %+v", s.pools["plain"].Settings)
	}
	for what, status := range map[string]int{"DELETE /renderers/brayns": 204, "DELETE /renderers/demo": 409, "DELETE /renderers/none": 404} {
		if r := s.ask("root", what, ""); r.StatusCode != status {
			t.Errorf("%s: %d", what, r.StatusCode)
		}
	}
}

func TestResourceLogs(t *testing.T) {
	s := newSite(t)
	if r := s.ask("audit", "GET /resources/r-1/logs?stream=stderr&tail=7", ""); string(r.body) != "stderr of r-1, 7 lines\n" {
		t.Errorf("%s", r.body)
	}
	if r := s.ask("audit", "GET /resources/r-1/logs", ""); string(r.body) != "stdout of r-1, 100 lines\n" {
		t.Errorf("%s", r.body)
	}
}

// What other limits or another policy would do is told, and what stays as it is set need not be said.
func TestPlanScaling(t *testing.T) {
	s := newSite(t)
	ask := func(body string, status int) *reply {
		t.Helper()
		r := s.ask("root", "POST /pools/demo/scaling/plan", body)
		if r.StatusCode != status {
			t.Fatalf("%s: %d %s", body, r.StatusCode, r.body)
		}
		return r
	}
	for body, want := range map[string]ScalingPlan{
		`{}`:                            {Policy: "forecast"},
		`{"min":2,"max":3,"idle":"1m"}`: {Policy: "forecast", Start: 2, Size: 2},
		`{"policy":"buffer","parameters":{"size":3}}`:                                 {Policy: "buffer", Start: 3, Size: 3},
		`{"buffer":2,"policy":"demand"}`:                                              {Policy: "demand", Start: 2, Size: 2},
		`{"policy":"schedule","schedule":[{"from":"00:00","to":"24:00","target":1}]}`: {Policy: "schedule", Start: 1, Size: 1},
		`{"policy":"chain","chain":[{"policy":"schedule","schedule":[{"from":"00:00","to":"24:00","min":1}]},{"policy":"queue-time","parameters":{"goal":"5s"}}]}`: {
			Policy: "schedule+queue-time", Start: 1, Size: 1},
	} {
		got := read[ScalingPlan](t, ask(body, 200), 200)
		if got.Policy != want.Policy || got.Start != want.Start || got.Size != want.Size || got.Stop == nil || got.Reason == "" || len(got.Inputs) == 0 {
			t.Errorf("%s: %+v", body, got)
		}
	}
	if p := ask(`{"parameters":{"goal":"5s"}}`, 422).problem(t); p.Field != "scaling.parameters.goal" {
		t.Errorf("a parameter of another policy: %+v", p)
	}
	if p := ask(`{"min":9}`, 422).problem(t); p.Field != "scaling.min" {
		t.Errorf("min above max: %+v", p)
	}
	if p := ask(`{"policy":"schedule","schedule":[{"from":"09:00"}]}`, 400).problem(t); p.Field != "schedule.0.to" {
		t.Errorf("half an entry: %+v", p)
	}
	s.change(func() {
		static := *s.pools["demo"]
		static.Settings.Launcher = "static"
		s.pools["demo"] = &static
	})
	if p := ask(`{}`, 409).problem(t); p.Code != "not_scaled" {
		t.Errorf("machines that come by themselves: %+v", p)
	}
	if r := s.ask("alice", "POST /pools/demo/scaling/plan", `{}`); r.StatusCode != 403 {
		t.Errorf("a client: %d", r.StatusCode)
	}
}

// A pool tells what its shadow would do and what other services answered; a client sees no addresses.
func TestPoolTellsOfItsPolicies(t *testing.T) {
	s := newSite(t)
	put := s.ask("root", "PUT /renderers/demo", `{"command_line":"x","scaling":{"policy":"webhook","parameters":{"url":"https://hooks.example.org/s3cret"},"shadow":{"policy":"buffer"}}}`)
	if put.StatusCode != 200 || !strings.Contains(string(put.body), "s3cret") {
		t.Fatalf("%d %s", put.StatusCode, put.body)
	}
	s.change(func() {
		p := s.pools["demo"]
		p.Advice = []scaling.Advice{{URL: "https://hooks.example.org/s3cret", At: t0, Size: 3, Reason: "a class", Problem: "503"}}
		p.Shadow = &pool.Shadow{Policy: "buffer", Position: 17, Since: t0, Size: 2, Reason: "the buffer is 1", Changes: 4, From: t0, At: t0.Add(time.Hour), Would: 7200, Did: 3600, Short: 1, DidShort: 2}
	})
	p := read[Pool](t, s.ask("alice", "GET /pools/demo", ""), 200)
	if len(p.Advice) != 1 || p.Advice[0] != (ScalingAdvice{Host: "hooks.example.org", At: t0, Size: 3, Reason: "a class", Problem: "503"}) || p.Policy != "webhook" {
		t.Errorf("%+v", p.Advice)
	}
	if h := p.Shadow; h.Policy != "buffer" || h.Size != 2 || h.Changes != 4 || h.WouldResourceSeconds != 7200 || h.DidResourceSeconds != 3600 || h.WouldShortSeconds != 1 || h.DidShortSeconds != 2 || h.Decision.Position != 17 {
		t.Errorf("%+v", h)
	}
	for what, who := range map[string]string{"GET /renderers/demo": "alice", "GET /renderers": "alice", "GET /pools/demo": "root"} {
		if r := s.ask(who, what, ""); strings.Contains(string(r.body), "s3cret") {
			t.Errorf("%s shows %s: %s", what, who, r.body)
		}
	}
}
