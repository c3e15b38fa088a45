package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func TestPoolTellsOfItsPolicies(t *testing.T) {
	p := client.Pool{Renderer: "demo", Max: 4, Policy: "chain",
		Advice: []client.ScalingAdvice{{Host: "hooks.example.org", At: longAgo, Size: 3, Reason: "a class", Problem: "503 Service Unavailable"}, {Host: "other"}},
		Shadow: client.ScalingShadow{Policy: "buffer", Size: 2, Since: longAgo, Reason: "the buffer is 1", From: longAgo.Add(-time.Hour), Until: longAgo,
			WouldResourceSeconds: 1800, DidResourceSeconds: 3600, WouldShortSeconds: 36, DidShortSeconds: 72},
	}
	answers{"GET /pools/demo": ok(p)}.serve(t)
	got := rrm(t, "pool", "demo")
	contains(t, "the pool", got.out, "Policy     chain", "hooks.example.org wants 3, 3h01m ago: a class; no newer answer: 503", "other has not answered",
		"buffer would have 2 resources, 3h01m ago: the buffer is 1; in 60m 50 % of the resource-seconds, too few slots for 1 % of the time (somebody waited for 2 %)")
}

// What is tried is what was said, and nothing else.
func TestPoolTriesOtherSettings(t *testing.T) {
	var body string
	plan := client.ScalingPlan{Policy: "queue-time", Live: 3, Size: 1, Stop: []string{"demo-1-ab12", "demo-2-cd34"}, Reason: "1 is enough"}
	answers{"POST /pools/demo/scaling/plan": func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		body = string(raw)
		ok(plan)(w, r)
	}}.serve(t)
	file := filepath.Join(t.TempDir(), "new.yaml")
	if err := os.WriteFile(file, []byte("id: demo\nscaling:\n  max: 5\n  policy: schedule\n  schedule: [{from: \"08:00\", to: \"18:00\", min: 2}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--max 2":                                `{"max":2}`,
		"--min 0 --buffer 0 --idle 1m":           `{"buffer":0,"idle":"1m","min":0}`,
		"--policy queue-time:goal=10s,share=0.9": `{"parameters":{"goal":"10s","share":"0.9"},"policy":"queue-time"}`,
		"--try " + file:                          `{"max":5,"policy":"schedule","schedule":[{"from":"08:00","min":2,"to":"18:00"}]}`,
		"--max 7 --try " + file:                  `{"max":7,"policy":"schedule","schedule":[{"from":"08:00","min":2,"to":"18:00"}]}`,
	} {
		got := rrm(t, append([]string{"pool", "demo"}, strings.Fields(args)...)...)
		if got.code != 0 || body != want {
			t.Errorf("%s sends %s: %+v", args, body, got)
		}
		contains(t, args, got.out, "Now       3 resources", "Would do  stop demo-1-ab12, demo-2-cd34", "Then      1 resource", "Because   1 is enough", "Policy    queue-time")
	}
	plan = client.ScalingPlan{Start: 2, Size: 5}
	contains(t, "a start", rrm(t, "pool", "demo", "--max", "9").out, "start 2 resources")
	plan = client.ScalingPlan{}
	contains(t, "nothing", rrm(t, "pool", "demo", "--max", "9").out, "Would do  nothing")
	var back client.ScalingPlan
	if err := json.Unmarshal([]byte(rrm(t, "pool", "demo", "--max", "9", "-o", "json").out), &back); err != nil {
		t.Error(err)
	}
	for _, args := range []string{"--policy buffer:size", "--try /nowhere/file", "--max many"} {
		if got := rrm(t, append([]string{"pool", "demo"}, strings.Fields(args)...)...); got.code != exitUsage && got.code != exitFailure {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
