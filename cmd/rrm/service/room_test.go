package service_test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"
)

// pictures are the frames of a job's archive by name.
func (n *node) pictures(id string) map[string]string {
	n.t.Helper()
	status, h, b := n.raw("GET", base+"/jobs/"+id+"/result", nil)
	if status != 200 || h.Get("Content-Type") != "application/zip" {
		n.t.Fatalf("the result of %s: %d %s", id, status, h.Get("Content-Type"))
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		n.t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			n.t.Fatal(err)
		}
		picture, err := io.ReadAll(r)
		if err != nil {
			n.t.Fatal(err)
		}
		if _, twice := all[f.Name]; twice {
			n.t.Errorf("%s is twice in the archive", f.Name)
		}
		all[f.Name] = string(picture)
	}
	return all
}

// sameFrames compares the archive of a job with that of one that was left alone.
func (n *node) sameFrames(job, alone string, frames int) {
	n.t.Helper()
	got, want := n.pictures(job), n.pictures(alone)
	if len(got) != frames || len(want) != frames {
		n.t.Fatalf("%d and %d frames, not %d", len(got), len(want), frames)
	}
	for i := range frames {
		if name := fmt.Sprintf("frame_%04d.png", i+1); got[name] == "" || got[name] != want[name] {
			n.t.Errorf("%s differs", name)
		}
	}
}

// A session waits, and the only slot has a set of frames: that ends its frame,
// the session is served, and the frames go on where they stopped.
func TestFramesMakeRoomForASession(t *testing.T) {
	n := start(t, nil)
	n.renderer("neurons", doc{"scaling": doc{"min": 1, "max": 1}, "sessions": doc{"moves": 1, "settled": "0s"}})
	const frames = 200
	spec := doc{"width": 192, "height": 108, "samples": 2, "frames": frames}
	submit := func() string {
		return n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": "neuron:1", "kind": "frames", "spec": spec})["id"].(string)
	}
	job := submit()
	eventually(t, 60*time.Second, "some frames are made", func() bool {
		d := n.must(200, "GET", base+"/jobs/"+job, nil)
		return d["state"] == "running" && d["progress"].(float64) > 0.02
	})
	began := time.Now()
	s := n.must(202, "POST", base+"/sessions", doc{"renderer": "neurons", "model": "neuron:1", "wait": "60s"})["id"].(string)
	n.state("/sessions/"+s, "ready")
	waited := time.Since(began)
	d := n.must(200, "GET", base+"/jobs/"+job, nil)
	if d["state"] != "queued" || d["moves"] != 1.0 || d["attempts"] != 0.0 {
		t.Fatalf("the session was served after %s, and the job is %v", waited, d)
	}
	n.must(200, "DELETE", base+"/sessions/"+s, nil)
	if d = n.state("/jobs/"+job, "succeeded"); d["attempts"] != 1.0 || d["moves"] != 1.0 {
		t.Errorf("the job that moved: %v", d)
	}
	alone := submit()
	n.state("/jobs/"+alone, "succeeded")
	n.sameFrames(job, alone, frames)
	n.verify()
}
