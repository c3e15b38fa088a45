package service_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A renderer that cannot work: the resource fails with its last output in the
// reason, the pool is backed off, who waits is told, the service stays healthy.
func TestRenderersThatDoNotStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change doc
		reason string
	}{
		"no program":    {doc{"command_line": "no-such-renderer"}, "no-such-renderer"},
		"exits at once": {doc{"command_line": "testrenderer -exit 3", "process_rest_parameters_format": ""}, "exit"},
		"never ready": {doc{"command_line": "sleep 60", "process_rest_parameters_format": "",
			"probe": doc{"start_timeout": "1s", "interval": "500ms", "timeout": "500ms"}}, "not ready within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil)
			n.renderer("broken", c.change)
			d := n.must(202, "POST", base+"/sessions", doc{"renderer": "broken", "model": "m", "wait": "60s"})
			var failed doc
			eventually(t, 15*time.Second, "a resource failed", func() bool {
				list := n.must(200, "GET", base+"/resources?renderer=broken&state=failed", nil)["items"].([]any)
				if len(list) > 0 {
					failed = list[0].(doc)
				}
				return failed != nil
			})
			if !strings.Contains(failed["reason"].(string), c.reason) {
				t.Errorf("the reason does not say why: %v", failed["reason"])
			}
			if name == "exits at once" && !strings.Contains(failed["reason"].(string), "exiting at once") {
				t.Errorf("the reason does not have the last output: %v", failed["reason"])
			}
			eventually(t, 5*time.Second, "the waiting client is told", func() bool {
				q, ok := n.must(200, "GET", base+"/sessions/"+d["id"].(string), nil)["queue"].(doc)
				return ok && q["code"] == "renderer_failing"
			})
			status, h, no := n.call("POST", base+"/sessions", doc{"renderer": "broken", "model": "m"})
			if status != 503 || no["code"] != "renderer_failing" || h.Get("Retry-After") == "" {
				t.Errorf("a booking now: %d %v", status, no)
			}
			n.must(200, "GET", "/healthz", nil)
			n.verify()
		})
	}
}

// Failing again and again does not become a storm of starts.
func TestFailingStartsAreBackedOff(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	n.renderer("broken", doc{"command_line": "no-such-renderer"})
	n.must(202, "POST", base+"/sessions", doc{"renderer": "broken", "model": "m", "wait": "60s"})
	began := time.Now()
	eventually(t, 10*time.Second, "three starts failed", func() bool {
		return len(n.must(200, "GET", base+"/resources?renderer=broken&state=failed", nil)["items"].([]any)) >= 3
	})
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("three starts within %s: the second should come after 1 s, the third 2 s later", took)
	}
}

// A renderer that is killed is noticed within two seconds: its session is lost
// or moved as it asked, its job is tried again.
func TestKilledRenderer(t *testing.T) {
	n := start(t, nil)
	n.renderer("neurons", doc{"job": doc{"spread": 1}, "scaling": doc{"min": 0, "max": 3, "idle": "60s"}})
	end := n.book(doc{"renderer": "neurons", "model": "neuron:1"})
	move := n.book(doc{"renderer": "neurons", "model": "neuron:2", "on_lost": "move"})
	job := n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": "neuron:3", "kind": "frames", "spec": doc{"frames": 2000, "width": 64, "height": 64}})["id"].(string)
	running := n.state("/jobs/"+job, "running")
	for _, path := range []string{"/sessions/" + end, "/sessions/" + move} {
		r := n.must(200, "GET", base+path, nil)["resource"].(string)
		if err := syscall.Kill(-n.process(r), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	killed := time.Now()
	lost := n.state("/sessions/"+end, "lost")
	if took := time.Since(killed); took > 2*time.Second {
		t.Errorf("noticed after %s", took)
	}
	if lost["reason"] == "" || lost["reason"] == nil {
		t.Errorf("the client is not told why: %v", lost)
	}
	if err := syscall.Kill(-n.process(running["resource"].(string)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	moved := n.state("/sessions/"+move, "ready")
	if moved["resource"] == lost["resource"] {
		t.Errorf("moved to where it was: %v", moved)
	}
	eventually(t, 20*time.Second, "the job runs again", func() bool {
		j := n.must(200, "GET", base+"/jobs/"+job, nil)
		return j["state"] == "running" && j["attempts"] == 2.0
	})
	n.must(200, "DELETE", base+"/jobs/"+job, nil)
	n.verify()
}

// A renderer that gets ready and then hangs is found by its probe, stopped, and its session told.
func TestHangingRenderer(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	n.renderer("neurons", nil)
	id := n.book(doc{"renderer": "neurons", "model": "neuron:1"})
	r := n.must(200, "GET", base+"/sessions/"+id, nil)["resource"].(string)
	pid := n.process(r)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.state("/sessions/"+id, "lost")
	failed := n.state("/resources/"+r, "failed")
	if !strings.Contains(failed["reason"].(string), "probes in a row") {
		t.Errorf("the reason: %v", failed["reason"])
	}
	eventually(t, 5*time.Second, "the process is gone", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	n.verify()
}

// A model that does not exist or does not fit fails who wanted it, and leaves the resource usable for others.
func TestModelsThatCannotBeLoaded(t *testing.T) {
	t.Parallel()
	n := start(t, nil)
	n.renderer("neurons", doc{"scaling": doc{"min": 0, "max": 1, "idle": "60s"},
		"process_rest_parameters_format": "--listen ${rest_hostname}:${rest_port} --memory-mib 4"})
	var resource any
	for model, code := range map[string]string{"no/such.obj": "model_not_found", "circuit:9000": "model_too_large"} {
		_, _, d := n.call("POST", base+"/sessions", doc{"renderer": "neurons", "model": model, "wait": "30s"})
		s := n.state("/sessions/"+d["id"].(string), "failed")
		if s["code"] != code || s["reason"] == "" {
			t.Errorf("session of %s: %v %v", model, s["code"], s["reason"])
		}
		j := n.must(202, "POST", base+"/jobs", doc{"renderer": "neurons", "model": model, "kind": "image"})
		f := n.state("/jobs/"+j["id"].(string), "failed")
		if f["code"] != code {
			t.Errorf("job of %s: %v %v", model, f["code"], f["reason"])
		}
	}
	id := n.book(doc{"renderer": "neurons", "model": "neuron:1"})
	resource = n.must(200, "GET", base+"/sessions/"+id, nil)["resource"]
	if !strings.HasPrefix(fmt.Sprint(resource), "neurons-1-") {
		t.Errorf("another resource was started (%v) though the first is usable", resource)
	}
	n.verify()
}
