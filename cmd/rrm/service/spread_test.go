package service_test

import (
	"testing"
	"time"
)

// A set of frames over two resources is the same pictures as on one, in one
// archive; its progress is that of its parts, and it tells of them.
func TestFramesAreSpreadOverResources(t *testing.T) {
	n := start(t, nil)
	n.renderer("neurons", doc{"scaling": doc{"min": 2, "max": 2}, "job": doc{"spread": 4}})
	eventually(t, 60*time.Second, "two resources are ready", func() bool {
		p := n.must(200, "GET", base+"/pools/neurons", nil)
		return p["slots_free"] == 2.0
	})
	const frames = 41
	submit := func(renderer string) string {
		return n.must(202, "POST", base+"/jobs", doc{"renderer": renderer, "model": "neuron:1", "kind": "frames",
			"spec": doc{"width": 128, "height": 72, "frames": frames, "orbit": 90}})["id"].(string)
	}
	job := submit("neurons")
	d := n.must(200, "GET", base+"/jobs/"+job, nil)
	parts, _ := d["parts"].([]any)
	if len(parts) != 2 {
		t.Fatalf("it is not cut in two: %v", d)
	}
	d = n.state("/jobs/"+job, "succeeded")
	if d["progress"] != 1.0 || d["result"].(doc)["content_type"] != "application/zip" {
		t.Errorf("the set: %v", d)
	}
	on := map[string]bool{}
	for i, p := range parts {
		x := n.must(200, "GET", base+"/jobs/"+p.(doc)["job"].(string), nil)
		on[x["resource"].(string)] = true
		if x["state"] != "succeeded" || x["part_of"] != job || len(n.pictures(x["id"].(string))) != []int{20, 21}[i] {
			t.Errorf("part %d: %v", i+1, x)
		}
	}
	if len(on) != 2 {
		t.Errorf("its parts were rendered on %v", on)
	}
	n.renderer("whole", doc{"scaling": doc{"min": 0, "max": 1}, "job": doc{"spread": 1}})
	alone := submit("whole")
	if d = n.state("/jobs/"+alone, "succeeded"); d["parts"] != nil {
		t.Errorf("it was cut: %v", d)
	}
	n.sameFrames(job, alone, frames)
	n.verify()
}

// Cancelled at any point, a job leaves its renderer, and its slot, to the next.
func TestCancelledOnARealRenderer(t *testing.T) {
	n := start(t, nil)
	n.renderer("neurons", doc{"scaling": doc{"min": 1, "max": 1}, "job": doc{"spread": 1}})
	submit := func(model string, frames int) string {
		return n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": model, "kind": "frames",
			"spec": doc{"width": 320, "height": 180, "samples": 4, "frames": frames}})["id"].(string)
	}
	running := submit("neuron:1", 10_000)
	queued := submit("neuron:1", 10_000)
	waiting := n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": "neuron:1", "kind": "image", "after": []string{queued}})["id"].(string)
	last := submit("neuron:1", 2)
	eventually(t, 60*time.Second, "the first makes progress", func() bool {
		return n.must(200, "GET", base+"/jobs/"+running, nil)["progress"].(float64) > 0
	})
	for _, id := range []string{queued, running} {
		if d := n.must(200, "DELETE", base+"/jobs/"+id, nil); d["state"] != "cancelled" {
			t.Errorf("cancelled: %v", d)
		}
	}
	if d := n.must(200, "GET", base+"/jobs/"+waiting, nil); d["state"] != "failed" || d["code"] != "dependency_failed" {
		t.Errorf("the one after it: %v", d)
	}
	n.state("/jobs/"+last, "succeeded")
	loading := submit("neuron:77", 10_000) // its model is not there yet
	if d := n.must(200, "DELETE", base+"/jobs/"+loading, nil); d["state"] != "cancelled" {
		t.Errorf("cancelled while it loads: %v", d)
	}
	n.state("/jobs/"+submit("neuron:1", 2), "succeeded")
}
