package slurm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// command is one program to run where Slurm's commands are. It never goes through a
// shell that would read its words: over SSH each is quoted.
type command struct {
	name  string
	args  []string
	env   []string // NAME=value, over the little that the runner gives
	stdin []byte
}

// result is what a program that was carried out to its end said.
type result struct {
	stdout, stderr []byte
	status         int
}

// runner carries out commands on the machine that has Slurm's. It is safe for
// use from many goroutines; each command has the time that ctx and the runner's
// own limit leave it.
type runner interface {
	// run returns an error if the command was not carried out to its end; it
	// is errNotBegun if it certainly was not even begun.
	run(ctx context.Context, c command) (result, error)
	// dial opens a connection from that machine.
	dial(ctx context.Context, address string) (net.Conn, error)
	// host names the machine, for people.
	host() string
	close() error
}

// errNotBegun marks commands that had no effect at all.
var errNotBegun = errors.New("not begun")

const (
	maxOutput = 32 << 20 // bytes of one command's output: 10,000 jobs have 2 MiB
	atOnce    = 8        // commands at one time; sshd's own bound is 10 a connection
)

// bounded keeps the beginning of what a command writes and fails beyond that.
// The buffer is not embedded: its ReadFrom would pass by Write.
type bounded struct {
	buf   bytes.Buffer
	limit int
	over  bool
}

func (b *bounded) Bytes() []byte { return b.buf.Bytes() }

var errTooMuch = errors.New("it wrote too much")

func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > b.limit {
		b.over = true
		return 0, errTooMuch
	}
	return b.buf.Write(p)
}

// localRunner runs commands on this machine.
type localRunner struct {
	binDir  string
	timeout time.Duration
	turn    chan struct{}
	environ []string
}

// passedOn is all that Slurm's commands, and through them the renderers, get
// of rrm's own environment: no secret of rrm's is in it.
var passedOn = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG"}

func newLocalRunner(binDir string, timeout time.Duration) *localRunner {
	r := &localRunner{binDir: binDir, timeout: timeout, turn: make(chan struct{}, atOnce)}
	for _, name := range passedOn {
		if v, ok := os.LookupEnv(name); ok {
			r.environ = append(r.environ, name+"="+v)
		}
	}
	return r
}

func (r *localRunner) host() string { return "this machine" }
func (r *localRunner) close() error { return nil }

func (r *localRunner) dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func (r *localRunner) run(ctx context.Context, c command) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return result{}, fmt.Errorf("%s: %w: %w", c.name, errNotBegun, ctx.Err())
	}
	name := c.name
	if r.binDir != "" && isSlurm(name) {
		name = filepath.Join(r.binDir, name)
	}
	cmd := exec.CommandContext(ctx, name, c.args...)
	cmd.Env = append(append([]string{}, r.environ...), c.env...)
	cmd.Stdin = bytes.NewReader(c.stdin)
	stdout, stderr := &bounded{limit: maxOutput}, &bounded{limit: maxOutput}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no terminal's Ctrl-C reaches it
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return result{}, fmt.Errorf("run %s: %w: %w", c.name, errNotBegun, err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return result{}, fmt.Errorf("%s did not answer within %s: %w", c.name, r.timeout, ctx.Err())
	case stdout.over || stderr.over:
		return result{}, fmt.Errorf("run %s: %w", c.name, errTooMuch)
	case err == nil, errors.As(err, &exit) && exit.Exited():
		return result{stdout.Bytes(), stderr.Bytes(), cmd.ProcessState.ExitCode()}, nil
	default:
		return result{}, fmt.Errorf("run %s: %w", c.name, err)
	}
}

// isSlurm tells Slurm's commands from the system's.
func isSlurm(name string) bool {
	switch name {
	case "sbatch", "squeue", "scontrol", "scancel":
		return true
	}
	return false
}

// complaint is the one line of a command's stderr that says most.
func complaint(r result) string {
	var last string
	for line := range strings.Lines(string(r.stderr)) {
		line = strings.TrimSpace(line)
		for _, prefix := range []string{"sbatch: ", "squeue: ", "scancel: ", "scontrol: ", "error: ", "fatal: "} {
			line = strings.TrimPrefix(line, prefix)
		}
		if line != "" && (last == "" || strings.Contains(line, "failed") || strings.HasPrefix(line, "slurm_")) {
			last = line
		}
	}
	if last == "" {
		return fmt.Sprintf("exit status %d without a word", r.status)
	}
	return last[:min(len(last), 500)]
}
