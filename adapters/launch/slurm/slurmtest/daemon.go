package slurmtest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	dirPrefix   = "rrmslurm-"
	ownerFile   = "owner"
	stopTimeout = 5 * time.Second
)

// starter starts processes from one operating system thread that lives as
// long as the cluster, so that they can be told to die with it: a test program
// that is killed leaves no daemon behind.
type starter struct {
	work chan func()
}

func newStarter() *starter {
	s := &starter{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.work {
			f()
		}
	}()
	return s
}

func (s *starter) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err := make(chan error)
	s.work <- func() { err <- cmd.Start() }
	return <-err
}

func (s *starter) close() {
	if s.work != nil {
		close(s.work)
		s.work = nil
	}
}

// daemon is one of the cluster's processes.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (c *Cluster) daemon(name string, args ...string) (*daemon, error) {
	path, err := program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...) // it outlives the call; Stop ends it
	cmd.Env = c.Env()
	if err := c.starter.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	d := &daemon{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(d.done)
	}()
	return d, nil
}

func (d *daemon) running() bool {
	if d == nil {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

func (d *daemon) kill() {
	if d.running() {
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

func (d *daemon) stop() {
	if !d.running() {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	select {
	case <-d.done:
	case <-patience.C:
		d.kill()
	}
}

func (c *Cluster) startMunge() (err error) {
	// --force turns "unsafe permissions" of directories below /tmp into warnings.
	c.munged, err = c.daemon("munged", "--foreground", "--force", "--key-file="+c.path("munge/key"), "--socket="+c.path("munge/sock"),
		"--pid-file="+c.path("munge/pid"), "--log-file="+c.path("munge/log"), "--seed-file="+c.path("munge/seed"), "--num-threads=2")
	if err != nil {
		return err
	}
	return c.await("munged listens", func() bool {
		_, err := os.Stat(c.path("munge/sock"))
		return err == nil
	})
}

func (c *Cluster) startController(fresh bool) (err error) {
	args := []string{"-D"}
	if fresh {
		args = append(args, "-c")
	}
	if c.ctld, err = c.daemon("slurmctld", args...); err != nil {
		return err
	}
	return c.await("the controller answers", func() bool {
		out, err := c.Run("scontrol", "ping")
		return err == nil && strings.Contains(out, "UP")
	})
}

// KillController ends slurmctld with SIGKILL: it saves nothing.
func (c *Cluster) KillController() { c.ctld.kill() }

// StartController starts it again, from the state that it saved last.
func (c *Cluster) StartController() error { return c.startController(false) }

// KillNode ends a node's slurmd with SIGKILL; its jobs' processes live on.
func (c *Cluster) KillNode(node string) { c.slurmds[node].kill() }

// StartNode starts a node's slurmd. It does not wait for the node to be idle.
func (c *Cluster) StartNode(node string) (err error) {
	if err := os.MkdirAll(c.path("spool-"+node), 0o755); err != nil { // slurmd wants it so
		return fmt.Errorf("make spool directory: %w", err)
	}
	c.slurmds[node], err = c.daemon("slurmd", "-D", "-N", node)
	return err
}

// Drain lets a node take no more jobs.
func (c *Cluster) Drain(node string) error {
	_, err := c.Run("scontrol", "update", "NodeName="+node, "State=DRAIN", "Reason=test")
	return err
}

// Resume makes a node that is drained or down take jobs again.
func (c *Cluster) Resume(node string) error {
	_, err := c.Run("scontrol", "update", "NodeName="+node, "State=RESUME")
	return err
}

// sweep ends what clusters of test programs that are no more have left: steps
// of jobs outlive the daemons.
func sweep() error {
	dirs, err := filepath.Glob("/tmp/" + dirPrefix + "*")
	if err != nil {
		return fmt.Errorf("look for old clusters: %w", err)
	}
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, ownerFile))
		owner, convErr := strconv.Atoi(string(b))
		if err != nil || convErr != nil || syscall.Kill(owner, 0) == nil {
			continue
		}
		if err := errors.Join(killMarked(filepath.Join(dir, "slurm.conf")), os.RemoveAll(dir)); err != nil {
			return err
		}
	}
	return nil
}

// killMarked kills every process whose environment names the settings of one
// cluster: steps of jobs, and what jobs left.
func killMarked(conf string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	mark := []byte("\x00SLURM_CONF=" + conf + "\x00")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return nil
}

// AwaitSaved waits until the controller has saved what it knows now, which it does within 5 s.
func (c *Cluster) AwaitSaved() error {
	const longest = 6 * time.Second
	start := time.Now()
	return c.await("the state is saved", func() bool {
		info, err := os.Stat(c.path("state/job_state"))
		return err == nil && info.ModTime().After(start) || time.Since(start) > longest
	})
}

// KeepState copies what the controller has saved, for RestoreState. The
// controller writes new files beside the old ones and renames them whenever it
// likes: a copy counts if it saw nothing change, and nothing half written.
func (c *Cluster) KeepState() error {
	return c.await("the state is copied whole", func() bool {
		before := c.stateFiles()
		if strings.Contains(before, ".new ") || os.RemoveAll(c.path("kept")) != nil {
			return false
		}
		return os.CopyFS(c.path("kept"), os.DirFS(c.path("state"))) == nil && c.stateFiles() == before
	})
}

// stateFiles lists the controller's files with the times of their last change.
func (c *Cluster) stateFiles() string {
	var b strings.Builder
	_ = fs.WalkDir(os.DirFS(c.path("state")), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				fmt.Fprintf(&b, "%s %d\n", path, info.ModTime().UnixNano())
			}
		}
		return nil
	})
	return b.String()
}

// RestoreState puts back what KeepState has copied, while no controller runs:
// whatever the controller was told since is lost, as after a crash.
func (c *Cluster) RestoreState() error {
	return errors.Join(os.RemoveAll(c.path("state")), os.CopyFS(c.path("state"), os.DirFS(c.path("kept"))))
}
