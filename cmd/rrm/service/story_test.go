package service_test

import (
	"bytes"
	"image/png"
	"testing"
	"time"
)

// The main story: from zero to a frame, the warm resource for the next, the
// queue at the limit, jobs between, the slot handed over, down to zero.
func TestMainStory(t *testing.T) {
	n := start(t, nil)
	n.renderer("neurons", doc{"scaling": doc{"min": 0, "max": 2, "idle": "1s"}})

	d := n.must(202, "POST", base+"/sessions", doc{"renderer": "neurons", "model": "neuron:1", "wait": "60s"})
	if d["state"] != "queued" || d["queue"] == nil {
		t.Fatalf("the first booking is not queued with a place: %v", d)
	}
	first := d["id"].(string)
	a := n.state("/sessions/"+first, "ready")
	status, h, picture := n.raw("GET", a["url"].(string)+"v1/image?format=png&width=160&height=90", nil)
	if status != 200 || h.Get("Content-Type") != "image/png" {
		t.Fatalf("frame: %d %s", status, h.Get("Content-Type"))
	}
	if img, err := png.Decode(bytes.NewReader(picture)); err != nil || img.Bounds().Dx() != 160 {
		t.Fatalf("the frame is no picture: %v", err)
	}
	n.must(200, "DELETE", base+"/sessions/"+first, nil)

	warm := n.must(201, "POST", base+"/sessions", doc{"renderer": "neurons", "model": "neuron:1"})
	if warm["state"] != "ready" || warm["warm"] != true || warm["resource"] != a["resource"] {
		t.Fatalf("the second client did not get the warm resource %v: %v", a["resource"], warm)
	}
	other := n.book(doc{"renderer": "neurons", "model": "neuron:2"})
	full := n.must(202, "POST", base+"/sessions", doc{"renderer": "neurons", "model": "neuron:1", "wait": "60s"})
	if q := full["queue"].(doc); q["position"] != 1.0 || q["estimated_wait_seconds"].(float64) <= 0 || q["reason"] == "" {
		t.Fatalf("no place, estimate or reason: %v", q)
	}
	status, h, no := n.call("POST", base+"/sessions", doc{"renderer": "neurons", "model": "neuron:3"})
	if status != 503 || no["code"] != "no_capacity" || no["detail"] == "" || h.Get("Retry-After") == "" {
		t.Fatalf("the one that will not wait: %d %v %v", status, no, h)
	}
	n.must(200, "DELETE", base+"/sessions/"+warm["id"].(string), nil)
	got := n.must(200, "GET", base+"/sessions/"+full["id"].(string), nil)
	if got["state"] != "ready" || got["resource"] != warm["resource"] {
		t.Fatalf("the slot was not handed over in the same commit: %v", got)
	}
	n.must(200, "DELETE", base+"/sessions/"+full["id"].(string), nil)
	n.must(200, "DELETE", base+"/sessions/"+other, nil)
	runJobs(n)
	eventually(t, 20*time.Second, "the pool is empty", func() bool {
		live, err := n.Work.LiveResources(t.Context())
		return err == nil && len(live) == 0
	})
	n.verify()
}

// runJobs submits image jobs over two models and expects results, most of them from warm resources.
func runJobs(n *node) {
	n.t.Helper()
	var ids []string
	for i := range 12 {
		d := n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": []string{"neuron:1", "neuron:2"}[i%2], "kind": "image", "spec": doc{"width": 64, "height": 64, "camera": doc{"yaw": i * 30}}})
		ids = append(ids, d["id"].(string))
	}
	warm := 0
	for _, id := range ids {
		j := n.state("/jobs/"+id, "succeeded")
		if j["warm"] == true {
			warm++
		}
		status, h, b := n.raw("GET", base+"/jobs/"+id+"/result", nil)
		if _, err := png.Decode(bytes.NewReader(b)); status != 200 || h.Get("Content-Type") != "image/png" || err != nil {
			n.t.Fatalf("result of %s: %d %s %v", id, status, h.Get("Content-Type"), err)
		}
	}
	if warm < 8 {
		n.t.Errorf("only %d of 12 jobs found their model loaded", warm)
	}
}
