package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/renderer"
)

// How long each step of an end is given; two seconds are the renderer protocol's.
const (
	exitPatience = 2 * time.Second
	killPatience = 5 * time.Second
	outputWait   = time.Second // for the output of what outlives the renderer's main process
	probeEvery   = 100 * time.Millisecond
)

// process is one run of the renderer.
type process struct {
	address string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when it, and its group, are gone
}

// start runs the renderer. It ends with the agent, whatever becomes of that.
func start(program string, args []string, address string, output io.Writer) (*process, error) {
	p := &process{address: address, ended: make(chan struct{}), cmd: &exec.Cmd{
		Path: program, Args: args, Env: environment(), Stdout: output, Stderr: output, SysProcAttr: attributes(), WaitDelay: outputWait,
	}}
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		// Where a program is killed with its parent, the parent is this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()                                      // the state says how it ended
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what it left behind in its group
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the renderer: %w", err)
	}
	return p, nil
}

// how says how it ended.
func (p *process) how() string {
	state := p.cmd.ProcessState
	if state == nil {
		return "it ended"
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Sprintf("killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exit status %d", state.ExitCode())
}

var errNotReady = errors.New("the renderer did not get ready")

// ready waits until the renderer answers its probe.
func (p *process) ready(ctx context.Context, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	look := time.NewTicker(probeEvery)
	defer look.Stop()
	c := renderer.New(p.address, renderer.Options{})
	for {
		probe, cancel := context.WithTimeout(ctx, exitPatience)
		_, err := c.Probe(probe)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ended:
			return fmt.Errorf("%w: %s", errNotReady, p.how())
		case <-late.C:
			return fmt.Errorf("%w within %s: %w", errNotReady, limit, err)
		case <-look.C:
		}
	}
}

// end ends the renderer and its group: its own exit request, SIGTERM, SIGKILL,
// each with its time. It returns when it is gone, and may be called again.
func (p *process) end(graceful bool) {
	if graceful && !p.gone(0) {
		ctx, cancel := context.WithTimeout(context.Background(), exitPatience)
		err := renderer.New(p.address, renderer.Options{}).Exit(ctx)
		cancel()
		if err == nil && p.gone(exitPatience) {
			return
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if p.gone(0) {
			return
		}
		if err := syscall.Kill(-p.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			_ = p.cmd.Process.Signal(sig)
		}
		wait := exitPatience
		if sig == syscall.SIGKILL {
			wait = killPatience
		}
		p.gone(wait)
	}
}

// gone waits, at most so long, for the end.
func (p *process) gone(wait time.Duration) bool {
	select {
	case <-p.ended:
		return true
	default:
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// hostName is this machine's, for people.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

func join(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
