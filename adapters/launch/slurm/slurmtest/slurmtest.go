// Package slurmtest runs a private Slurm cluster on this machine for tests:
// its own munged, one slurmctld, several slurmd with fake GPUs, all in one
// short directory and on free ports. It touches nothing of the system's own
// Slurm, needs no systemd and no cgroups, and runs as root or not. It also
// breaks the cluster on request, as real ones break.
package slurmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Packages are what Debian calls the programs that a cluster needs.
const Packages = "slurm-wlm slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge"

// What a cluster has. Each node has CPUs, memory and two fake GPUs.
const (
	CPUsPerNode   = 8
	MemoryPerNode = 16_000 // MiB
	GPUsPerNode   = 2
	// KillWait is the time that Slurm leaves between SIGTERM and SIGKILL.
	KillWait = 2 * time.Second
	// SlurmdTimeout is how long a node may be silent until it counts as down.
	SlurmdTimeout = 5 * time.Second
)

// Patience bounds every wait of this package.
const patience = 30 * time.Second

const (
	lowestPort      = 20_000
	portsPerCluster = 250
	portRanges      = 40
)

// started counts the clusters of this process.
var started atomic.Int64

// Cluster is a running cluster. Its methods are not for concurrent use.
type Cluster struct {
	// Dir holds all of it; removed by Stop.
	Dir string
	// Conf is the path of slurm.conf, for SLURM_CONF.
	Conf string
	// Nodes are the names of its nodes.
	Nodes []string
	// FirstPort and LastPort bound the ports that its jobs may take. Clusters on one machine count
	// their jobs alike: without ranges of their own two jobs would look for a port at the same place at once.
	FirstPort, LastPort int

	starter *starter
	munged  *daemon
	ctld    *daemon
	slurmds map[string]*daemon
}

// Missing tells which of the programs are not installed; nil if all are.
func Missing() error {
	var missing []string
	for _, p := range []string{"sbatch", "squeue", "scontrol", "scancel", "sinfo", "slurmctld", "slurmd", "munged"} {
		if _, err := program(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("slurm is not installed (no %s); on Debian: apt-get install --no-install-recommends %s", strings.Join(missing, ", "), Packages)
	}
	return nil
}

// program finds one also where an ordinary user's PATH does not lead.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	return path, nil
}

// Start brings a cluster of so many nodes up; all are idle when it returns.
// Whatever an earlier test program that was killed left behind is ended first.
func Start(nodes int) (_ *Cluster, err error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	// Paths of Unix sockets have at most 107 bytes, so not in the test's own directory.
	dir, err := os.MkdirTemp("/tmp", dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make directory of the cluster: %w", err)
	}
	c := &Cluster{Dir: dir, Conf: filepath.Join(dir, "slurm.conf"), starter: newStarter(), slurmds: map[string]*daemon{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	c.FirstPort = lowestPort + portsPerCluster*int((int64(os.Getpid())*7+started.Add(1))%portRanges)
	c.LastPort = c.FirstPort + portsPerCluster - 1
	for i := range nodes {
		c.Nodes = append(c.Nodes, fmt.Sprintf("n%d", i+1))
	}
	if err := c.configure(); err != nil {
		return nil, err
	}
	if err := c.startMunge(); err != nil {
		return nil, err
	}
	if err := c.startController(true); err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if err := c.StartNode(n); err != nil {
			return nil, err
		}
	}
	err = c.await("all nodes are idle", func() bool {
		out, err := c.Run("sinfo", "-h", "-N", "-p", "main", "-o", "%t")
		return err == nil && strings.Count(out, "idle\n") == nodes
	})
	return c, err
}

// Env is the environment in which Slurm's commands reach this cluster.
func (c *Cluster) Env() []string {
	return append(os.Environ(), "SLURM_CONF="+c.Conf)
}

// Run carries out one of Slurm's commands and returns its standard output.
func (c *Cluster) Run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path, err := program(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = c.Env()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Stop cancels all jobs, waits for an empty queue (else slurmstepd would
// linger), ends every process and removes the directory. Repeating is safe.
func (c *Cluster) Stop() error {
	var failed error
	if c.ctld.running() {
		failed = c.CancelAll()
	}
	var wg sync.WaitGroup
	for _, d := range c.slurmds {
		wg.Go(func() { d.stop() })
	}
	wg.Wait()
	c.ctld.stop()
	c.munged.stop()
	c.starter.close()
	failed = errors.Join(failed, killMarked(c.Conf))
	return errors.Join(failed, os.RemoveAll(c.Dir))
}

// CancelAll cancels all jobs and waits until none is left in the queue.
func (c *Cluster) CancelAll() error {
	for _, n := range c.Nodes { // a node without its daemon never reports that its jobs have ended
		if !c.slurmds[n].running() {
			_, _ = c.Run("scontrol", "update", "NodeName="+n, "State=DOWN", "Reason=test")
		}
	}
	var last string
	err := c.await("the queue is empty", func() bool {
		out, err := c.Run("squeue", "-h", "-a", "-o", "%A")
		if ids := strings.Fields(out); err == nil && len(ids) > 0 {
			_, _ = c.Run("scancel", ids...)
		}
		last = out
		return err == nil && strings.TrimSpace(out) == ""
	})
	if err != nil {
		return fmt.Errorf("%w; left: %q", err, last)
	}
	return nil
}

// await polls a condition.
func (c *Cluster) await(what string, condition func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			return fmt.Errorf("wait until %s: not within %s\n%s", what, patience, c.lastWords())
		}
	}
	return nil
}

// lastWords are the ends of the logs.
func (c *Cluster) lastWords() string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(c.Dir, "*.log"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(f), text[max(0, len(text)-1500):])
	}
	return b.String()
}
