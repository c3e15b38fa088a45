package slurm_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/slurm/slurmtest"
	"github.com/rendering-resource-manager/rrm/domain"
)

// The tests of this file break their clusters.

func jobID(t *testing.T, r domain.Launched) string {
	t.Helper()
	var h struct{ Job int }
	if err := json.Unmarshal(r.Handle, &h); err != nil || h.Job == 0 {
		t.Fatalf("handle %s: %v", r.Handle, err)
	}
	return strconv.Itoa(h.Job)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, c *slurmtest.Cluster, name string, args ...string) string {
	t.Helper()
	out, err := c.Run(name, args...)
	must(t, err)
	return strings.TrimSpace(out)
}

func idle(t *testing.T, c *slurmtest.Cluster) {
	t.Helper()
	eventually(t, 30*time.Second, "all nodes are idle", func() (bool, string) {
		out, _ := c.Run("sinfo", "-h", "-N", "-p", "main", "-o", "%t")
		return strings.Count(out, "idle\n") == len(c.Nodes), out
	})
}

func TestControllerKilledAndStartedAgain(t *testing.T) {
	c := ownCluster(t, 1)
	l := reopen(t, options(siteOf(t, c)))
	r := running(t, l, launch(t, l, spec(t, "survivor", nil)))
	process := pid(t, r.Address)
	must(t, c.AwaitSaved())
	c.KillController()
	start := time.Now()
	o := await(t, l, r.Launched, "it is seen as unknown", func(o domain.Observed) bool {
		if o.State == domain.LaunchGone {
			t.Fatalf("not being able to look was taken for gone: %s", o.Reason)
		}
		return o.State == domain.LaunchUnknown
	})
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to say that it cannot look", took)
	}
	if o.Reason == "" {
		t.Error("unknown without a reason")
	}
	start = time.Now()
	for range 10 { // whoever observes has other launchers to look after
		observe(t, l, r.Launched)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("ten looks at a controller that is down took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := l.List(ctx); err == nil {
		t.Error("an empty list, while nobody could look")
	}
	if err := l.Stop(ctx, r.Launched, true); err == nil {
		t.Error("it counts as stopped, while nobody could look")
	}
	_, err := l.Launch(ctx, spec(t, "unlucky", nil))
	if _, refused := domain.AsRefusal(err); err == nil || refused {
		t.Errorf("launching gives %v, want an error that may pass", err)
	}
	must(t, c.StartController())
	again := running(t, l, r.Launched)
	if again.Address != r.Address || pid(t, again.Address) != process {
		t.Errorf("process %d at %s before, %d at %s now", process, r.Address, pid(t, again.Address), again.Address)
	}
}

func TestJobLostWithTheControllersStateAndItsIDUsedAgain(t *testing.T) {
	c := ownCluster(t, 1)
	l := reopen(t, options(siteOf(t, c)))
	idle(t, c)
	must(t, c.KeepState())
	lost := launch(t, l, spec(t, "lost", func(r *domain.Renderer) { r.Queue = "parked" }))
	id := jobID(t, lost)
	if o := observe(t, l, lost); o.State != domain.LaunchPending {
		t.Fatalf("it is %s: %s", o.State, o.Reason)
	}
	c.KillController()
	must(t, c.RestoreState())
	must(t, c.StartController())
	var other string
	for i := 0; i < 50 && other != id; i++ {
		other = run(t, c, "sbatch", "--parsable", "--partition=parked", "--job-name=somebody", "--output=/dev/null", "--wrap=sleep 60")
	}
	if other != id {
		t.Fatalf("the ID %s did not come again, but %s", id, other)
	}
	o := gone(t, l, lost)
	if !strings.Contains(o.Reason, "knows no job named") {
		t.Errorf("the reason is %q", o.Reason)
	}
	if info, err := l.Info(t.Context(), lost); err == nil {
		t.Errorf("somebody else's job is told as ours: %s", info)
	}
	must(t, l.Stop(t.Context(), lost, true))
	if state := run(t, c, "squeue", "-h", "-j", id, "-o", "%T"); state != "PENDING" {
		t.Errorf("somebody else's job is %s after our stop", state)
	}
}

func TestJobStartedASecondTimeByAControllerThatForgot(t *testing.T) {
	c := ownCluster(t, 1)
	l := reopen(t, options(siteOf(t, c)))
	for _, n := range c.Nodes {
		must(t, c.Drain(n))
	}
	r := launch(t, l, spec(t, "again", nil))
	must(t, c.AwaitSaved())
	must(t, c.KeepState())
	resume := func() {
		for _, n := range c.Nodes {
			_ = c.Resume(n) // one that the controller did not keep as drained
		}
	}
	resume()
	process := pid(t, running(t, l, r).Address)
	c.KillController()
	must(t, c.RestoreState())
	must(t, c.StartController())
	resume()
	// Either the second start ends by itself, or Slurm, whose controller does not
	// expect the first run on its node, ends that one and takes its status for the job's.
	if o := gone(t, l, r); !strings.Contains(o.Reason, "a second time") && o.Reason != "exit status 1" {
		t.Errorf("the reason is %q", o.Reason)
	}
	eventually(t, 20*time.Second, "the first process ends", func() (bool, string) {
		return syscall.Kill(process, 0) != nil, "it runs on"
	})
	idle(t, c)
}

func TestNodesDaemonKilled(t *testing.T) {
	c := ownCluster(t, 1)
	l := reopen(t, options(siteOf(t, c)))
	r := running(t, l, launch(t, l, spec(t, "stranded", nil)))
	process := pid(t, r.Address)
	c.KillNode(r.Node)
	o := gone(t, l, r.Launched)
	if !strings.Contains(o.Reason, "node "+r.Node+" failed") {
		t.Errorf("the reason is %q, want the node's failure", o.Reason)
	}
	if err := syscall.Kill(process, 0); err != nil {
		t.Logf("process %d is gone already: %v", process, err)
	}
	must(t, c.StartNode(r.Node))
	eventually(t, 30*time.Second, "what lived on is ended when the node is back", func() (bool, string) {
		return syscall.Kill(process, 0) != nil, "it runs on"
	})
	idle(t, c)
	if out := run(t, c, "squeue", "-h", "-o", "%j"); out != "" {
		t.Errorf("it was started again: %s", out)
	}
}

func TestNodesDrained(t *testing.T) {
	c := ownCluster(t, 2)
	l := reopen(t, options(siteOf(t, c)))
	for _, n := range c.Nodes {
		must(t, c.Drain(n))
		defer func() { must(t, c.Resume(n)) }()
	}
	r := launch(t, l, spec(t, "drained", nil))
	await(t, l, r, "the drained nodes are told", func(o domain.Observed) bool {
		if o.State != domain.LaunchPending {
			t.Fatalf("it is %s: %s", o.State, o.Reason)
		}
		return strings.Contains(o.Reason, "drained")
	})
	must(t, c.Resume(c.Nodes[0]))
	if o := running(t, l, r); o.Node != c.Nodes[0] {
		t.Errorf("it runs on %s", o.Node)
	}
	must(t, c.Drain(c.Nodes[0])) // what runs there runs on
	running(t, l, r)
}

func TestPreempted(t *testing.T) {
	c := ownCluster(t, 2)
	l := reopen(t, options(siteOf(t, c)))
	idle(t, c)
	r := running(t, l, launch(t, l, spec(t, "low", func(r *domain.Renderer) { r.Queue, r.Nodes, r.Exclusive = "low", 2, true })))
	id := run(t, c, "sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 60")
	if o := gone(t, l, r.Launched); !strings.Contains(o.Reason, "preempted") {
		t.Errorf("the reason is %q, want preemption", o.Reason)
	}
	run(t, c, "scancel", id)
}

func TestFullCluster(t *testing.T) {
	c := ownCluster(t, 2)
	opts := options(siteOf(t, c))
	l := reopen(t, opts)
	gpus := func(r *domain.Renderer) { r.GPUs, r.AllocationTime = 2, domain.Duration(90*time.Second) }
	var first domain.Launched
	for i := range c.Nodes {
		r := running(t, l, launch(t, l, spec(t, domain.ResourceID("holder-"+strconv.Itoa(i)), gpus)))
		if i == 0 {
			first = r.Launched
		}
	}
	next := launch(t, l, spec(t, "next", gpus))
	await(t, l, next, "it waits as the next", func(o domain.Observed) bool {
		return o.State == domain.LaunchPending && strings.HasPrefix(o.Reason, "Resources: next in the queue, start expected ")
	})
	then := launch(t, l, spec(t, "then", gpus))
	o := await(t, l, then, "one job is ahead", func(o domain.Observed) bool {
		return o.State == domain.LaunchPending && strings.HasPrefix(o.Reason, "Priority: 1 job ahead, start expected ")
	})
	t.Logf("told: %q", o.Reason)
	must(t, l.Stop(t.Context(), first, true))
	running(t, l, next)
}

// launched at one site, while a second submission of the same resource is made
// in the way that a second rrm would.
func TestSecondSubmissionNeverRunsAndIsCancelled(t *testing.T) {
	c := ownCluster(t, 1)
	site := siteOf(t, c)
	opts := options(site)
	l := reopen(t, opts)
	r := running(t, l, launch(t, l, spec(t, "one", nil)))
	name := "rrm." + opts.Service + ".one"
	second := run(t, c, "sbatch", "--parsable", "--job-name="+name, "--dependency=singleton", "--output=/dev/null", "--wrap=sleep 60")
	eventually(t, 20*time.Second, "the second job is cancelled", func() (bool, string) {
		if o := observe(t, l, r.Launched); o.State != domain.LaunchRunning || o.Address != r.Address {
			t.Fatalf("the first is %s: %s", o.State, o.Reason)
		}
		state := run(t, c, "squeue", "-h", "-t", "all", "-j", second, "-o", "%T")
		if state == "RUNNING" {
			t.Fatal("the second job runs")
		}
		return state == "CANCELLED", state
	})
}
