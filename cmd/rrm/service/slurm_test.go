package service_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/slurm/slurmtest"
	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
)

// onSlurm is a service with a cluster of its own.
func onSlurm(t *testing.T, nodes int, change func(*service.Config)) (*slurmtest.Cluster, *node) {
	t.Helper()
	if err := slurmtest.Missing(); err != nil {
		t.Skipf("Slurm is not installed: %v", err)
	}
	cluster, err := slurmtest.Start(nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
	})
	dir, err := os.MkdirTemp("/tmp", "rrm-slurm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	sites, err := json.Marshal(doc{"sites": []doc{{"name": "test", "directory": dir, "node_address": "127.0.0.1", "slurm_conf": cluster.Conf}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "sites.json")
	if err := os.WriteFile(file, sites, 0o600); err != nil {
		t.Fatal(err)
	}
	return cluster, start(t, func(c *service.Config) {
		c.SlurmSites = file
		if change != nil {
			change(c)
		}
	})
}

// The main job on a real Slurm: a booking becomes a Slurm job that runs the
// reference renderer, frames come through the proxy, a full cluster is told to
// who waits, and after the release the job is gone.
func TestSlurmEndToEnd(t *testing.T) {
	cluster, n := onSlurm(t, 2, nil)
	n.renderer("cluster", doc{
		"launcher": "slurm", "command_line": program("rrm-renderer"), "process_rest_parameters_format": "",
		"scheduler_rest_parameters_format": "--listen 127.0.0.1:${rest_port} --memory-mib 256", "nb_cpus": 1, "memory": 50, "exclusive": true, "allocation_time": "10m",
		"scaling": doc{"min": 0, "max": 3, "idle": "2s"}, "probe": doc{"start_timeout": "60s", "interval": "1s", "timeout": "1s"},
	})
	first := n.book(doc{"renderer": "cluster", "model": "neuron:1"})
	second := n.book(doc{"renderer": "cluster", "model": "neuron:2"})
	for _, id := range []string{first, second} {
		if status, h, _ := n.raw("GET", base+"/sessions/"+id+"/renderer/v1/image?width=32&height=32", nil); status != 200 || h.Get("Content-Type") != "image/png" {
			t.Fatalf("frame: %d", status)
		}
	}
	if out, err := cluster.Run("squeue", "-h", "-t", "running", "-o", "%j"); err != nil || strings.Count(out, "\n") != 2 {
		t.Errorf("two Slurm jobs should run: %q %v", out, err)
	}
	// Two nodes, used exclusively: the third resource waits in Slurm's queue, and its client is told why.
	third := n.must(202, "POST", base+"/sessions", doc{"renderer": "cluster", "model": "neuron:3", "wait": "5m"})["id"].(string)
	eventually(t, 40*time.Second, "Slurm's reason is told to who waits", func() bool {
		q, ok := n.must(200, "GET", base+"/sessions/"+third, nil)["queue"].(doc)
		return ok && strings.Contains(q["reason"].(string), "is starting: Resources: next in the queue, start expected ")
	})
	// The same is in the list of resources, with the nodes of those that run, and the estimate is Slurm's.
	s := n.must(200, "GET", base+"/sessions/"+third, nil)
	if wait := s["queue"].(doc)["estimated_wait_seconds"].(float64); wait < 300 { // the time limits of the others are ten minutes
		t.Errorf("the estimate is %v s", wait)
	}
	nodes := map[string]bool{}
	for _, item := range n.must(200, "GET", base+"/resources?renderer=cluster", nil)["items"].([]any) {
		r := item.(doc)
		note, _ := r["note"].(string)
		node, _ := r["node"].(string)
		switch r["state"] {
		case "ready":
			nodes[node] = true
		case "starting":
			if !strings.HasPrefix(note, "Resources: next in the queue, start expected ") || r["starts_at"] == nil || node != "" {
				t.Errorf("the one that waits: %v", r)
			}
		}
	}
	if !nodes["n1"] || !nodes["n2"] {
		t.Errorf("the nodes are %v", nodes)
	}
	if s := n.must(200, "GET", base+"/sessions/"+first, nil); !nodes[s["node"].(string)] {
		t.Errorf("the session's node is %v", s["node"])
	}
	for _, id := range []string{third, second, first} {
		n.must(200, "DELETE", base+"/sessions/"+id, nil)
	}
	eventually(t, 60*time.Second, "the Slurm jobs are gone", func() bool {
		out, err := cluster.Run("squeue", "-h", "-o", "%j")
		return err == nil && strings.TrimSpace(out) == ""
	})
	n.verify()
}

// At its time limit a session is warned before, and moved to another Slurm job if it asked for
// that; one that did not is lost. Frames go on from the new one.
func TestSlurmTimeLimit(t *testing.T) {
	// Slurm's shortest limit is a minute: warned after 5 s of it, moved after 12 s.
	cluster, n := onSlurm(t, 2, func(c *service.Config) { c.WarnBefore, c.MoveBefore = 55*time.Second, 48*time.Second })
	n.renderer("cluster", doc{
		"launcher": "slurm", "command_line": program("rrm-renderer"), "process_rest_parameters_format": "", "slots": 2,
		"scheduler_rest_parameters_format": "--listen 127.0.0.1:${rest_port} --memory-mib 256", "nb_cpus": 1, "memory": 50, "allocation_time": "1m",
		"scaling": doc{"min": 0, "max": 2, "idle": "30s"}, "probe": doc{"start_timeout": "60s", "interval": "1s", "timeout": "1s"},
	})
	moves := n.book(doc{"renderer": "cluster", "model": "neuron:1", "on_lost": "move"})
	ends := n.book(doc{"renderer": "cluster", "model": "neuron:1"})
	n.frame(moves)
	first := n.must(200, "GET", base+"/sessions/"+moves, nil)
	for _, id := range []string{moves, ends} {
		var s doc
		eventually(t, 30*time.Second, "the session is warned", func() bool {
			s = n.must(200, "GET", base+"/sessions/"+id, nil)
			return s["warning"] != nil
		})
		goes, err := time.Parse(time.RFC3339, s["goes_at"].(string))
		if left := time.Until(goes); err != nil || left < 45*time.Second || left > 58*time.Second || s["state"] != "ready" || !strings.Contains(s["warning"].(string), "its time at the scheduler ends at ") {
			t.Errorf("warned %s before, %v: %v", left, err, s)
		}
		n.frame(id) // and works on
	}
	if r := n.must(200, "GET", base+"/resources/"+first["resource"].(string), nil); r["state"] != "draining" {
		t.Errorf("its resource is %v", r["state"])
	}
	var moved doc
	eventually(t, 40*time.Second, "the session has moved", func() bool {
		moved = n.must(200, "GET", base+"/sessions/"+moves, nil)
		return moved["state"] == "ready" && moved["resource"] != first["resource"]
	})
	if moved["moves"] != 1.0 || moved["warning"] != nil && moved["goes_at"] == first["goes_at"] {
		t.Errorf("after the move: %v", moved)
	}
	n.frame(moves)
	lost := n.state("/sessions/"+ends, "lost")
	if !strings.Contains(lost["reason"].(string), "its time at the scheduler ends") {
		t.Errorf("the other: %v", lost["reason"])
	}
	// It was rrm that ended the first job, before Slurm had to.
	n.state("/resources/"+first["resource"].(string), "stopped")
	if out, err := cluster.Run("squeue", "-h", "-t", "all", "-o", "%j %T"); err != nil || strings.Contains(out, "TIMEOUT") || strings.Count(out, "RUNNING") != 1 {
		t.Errorf("squeue: %q %v", out, err)
	}
	n.must(200, "DELETE", base+"/sessions/"+moves, nil)
	n.verify()
}
