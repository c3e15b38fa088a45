package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func pngOf(t *testing.T, paint func(*image.RGBA)) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 64, 64))
	for y := range 64 {
		for x := range 64 {
			img.Set(x, y, color.RGBA{uint8(y), uint8(y + 4), uint8(y + 12), 255})
		}
	}
	paint(img)
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A picture of nothing but background is none.
func TestPicturesShowSomething(t *testing.T) {
	if _, _, err := picture(pngOf(t, func(*image.RGBA) {})); err == nil {
		t.Error("an empty picture was taken")
	}
	if _, _, err := picture([]byte("no picture")); err == nil {
		t.Error("text was taken for a picture")
	}
	_, format, err := picture(pngOf(t, func(img *image.RGBA) {
		for i := range 20 * 20 {
			img.Set(i%20, i/20, color.RGBA{200, 90, 40, 255})
		}
	}))
	if err != nil || format != "png" {
		t.Error(format, err)
	}
}

// The table at the end of the story is folded from events alone.
func TestWhatTheLogTells(t *testing.T) {
	log := &told{jobs: map[string]*given{}}
	for _, e := range []struct{ kind, data string }{
		{"pool.scaled", `{"from":0,"to":1}`},
		{"session.allocated", `{"owner":"ada","model":"m","resource":"r1","waited_seconds":0.6,"decision":{"reason":"no free slot has the model; loading is cheapest here"}}`},
		{"model.loaded", `{"seconds":1.5}`},
		{"session.rejected", `{"owner":"gina","code":"no_capacity"}`},
		{"job.assigned", `{"owner":"henri","model":"m","resource":"r1","warm":true,"waited_seconds":1,"saved_seconds":1.5,"decision":{"reason":"loaded there"}}`},
		{"job.assigned", `{"owner":"henri","model":"m","resource":"r2","warm":true,"waited_seconds":3,"saved_seconds":1.5,"decision":{"reason":"loaded there"}}`},
		{"job.assigned", `{"owner":"henri","model":"m","resource":"r2","waited_seconds":2,"decision":{"reason":"cheapest"}}`},
		{"model.evicted", `{}`},
		{"job.succeeded", `{}`},
		{"pool.scaled", `{"from":1,"to":0}`},
	} {
		log.fold(&client.Event{Type: e.kind, Data: json.RawMessage(e.data)})
	}
	var rows [][]string
	for _, g := range log.rows {
		rows = append(rows, g.row())
	}
	want := [][]string{
		{"ada", "session", "m", "r1", "0.6 s", "cold", "", "loading is cheapest here"},
		{"henri", "3 jobs", "m", "r2 ×2, r1", "2.0 s to 3.0 s", "2 of 3", "3.0 s", "loaded there ×2, cheapest"},
	}
	if !reflect.DeepEqual(rows, want) {
		t.Errorf("rows %q", rows)
	}
	if log.allocated != 4 || log.warm != 2 || log.loads != 1 || log.evictions != 1 || log.loadSeconds != 1.5 || log.saved != 3 ||
		strings.Join(log.sizes, " ") != "0 1 0" || strings.Join(log.refused, ",") != "gina (no_capacity)" {
		t.Errorf("%+v", log)
	}
}

// The story is told only on the renderer that it is about.
func TestDemoNeedsItsRenderer(t *testing.T) {
	five, one := 5, 1
	for want, renderer := range map[string]client.Renderer{
		"was changed": {ID: "demo", Slots: 1, ModelsPerResource: 2, Scaling: client.ScalingSettings{Min: &one, Max: &five, Idle: "10s"}},
		"suspended":   demoRenderer(),
	} {
		answers{"GET /renderers/demo": ok(renderer), "GET /admission": ok(client.Admission{Reason: "x"})}.serve(t)
		if got := rrm(t, "demo", "--out", t.TempDir()); got.code != exitFailure || !strings.Contains(got.err, want) {
			t.Errorf("%s: %+v", want, got)
		}
	}
	answers{"GET /admission": ok(client.Admission{Open: true}), "GET /renderers/demo": problem(404, client.Problem{Code: "renderer_not_found"})}.serve(t)
	if got := rrm(t, "demo", "--out", t.TempDir()); got.code != exitFailure || !strings.Contains(got.err, "rrm serve --demo") {
		t.Errorf("%+v", got)
	}
}

func demoRenderer() client.Renderer {
	zero, four := 0, 4
	return client.Renderer{ID: "demo", Slots: 1, ModelsPerResource: 2, Scaling: client.ScalingSettings{Min: &zero, Max: &four, Idle: "10s"}}
}

// A step that does not hold ends the story: what began is ended too.
func TestAStepThatDoesNotHoldFailsTheDemo(t *testing.T) {
	released := false
	warm := aSession(idA, client.SessionStateReady)
	warm.Warm, warm.Outcome = true, client.SessionOutcomeAllocated
	answers{
		"GET /renderers/demo": ok(demoRenderer()), "GET /admission": ok(client.Admission{Open: true}),
		"GET /pools/demo": ok(client.Pool{Renderer: "demo", Sizes: map[string]int{}}), "GET /events": logOf(3),
		"POST /sessions": status(201, warm), // from a pool of nothing: cannot be
		"DELETE /sessions/" + idA: func(w http.ResponseWriter, r *http.Request) {
			released = true
			ok(warm)(w, r)
		},
	}.serve(t)
	got := rrm(t, "demo", "--out", t.TempDir())
	if got.code != exitFailure || !released {
		t.Errorf("%+v, released: %t", got, released)
	}
	contains(t, "stderr", got.err, "does not hold: expected Ada queued at place 1", "found ready")
}
