package wrap

import (
	"bytes"
	"context"
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

// mark is the variable by which all processes of a job are known: its value
// is the job's directory.
const mark = "RRM_WRAP"

const (
	stopGrace  = 700 * time.Millisecond // between SIGTERM and SIGKILL; an exit has two seconds in all
	drainGrace = time.Second            // for the rest of the output after the end
	killRounds = 100
	killPause  = 10 * time.Millisecond
)

// run is one run of the program.
type run struct {
	program   string
	args, env []string
	dir       string // working directory
	mark      string
	line      func([]byte) // gets each line of the output, without its end
}

// ending is how a run ended, and the last that it said.
type ending struct {
	status syscall.WaitStatus
	tail   string
}

// do runs the program until it ends, or until ctx does: then it and all that
// it started are stopped. When do returns, none of them is left.
func (r *run) do(ctx context.Context) (ending, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return ending{}, fmt.Errorf("make a pipe: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := &exec.Cmd{
		Path: r.program, Args: append([]string{r.program}, r.args...), Dir: r.dir,
		Env:    append(r.env, mark+"="+r.mark),
		Stdout: in, Stderr: in, SysProcAttr: attributes(),
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		// Where a program is killed with its parent, the parent is this thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the state says how it ended
		}
	}()
	err = <-started
	_ = in.Close()
	if err != nil {
		<-ended
		return ending{}, startError(err)
	}
	read := make(chan string, 1)
	go func() { read <- readOutput(out, r.line) }()
	r.await(ctx, cmd.Process.Pid, ended)
	// What it started and left behind goes with it.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	killMarked(r.mark)
	_ = out.SetReadDeadline(time.Now().Add(drainGrace))
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ending{status: status, tail: <-read}, nil
}

// await returns when the process has ended, which it is made to do when ctx has.
func (r *run) await(ctx context.Context, pid int, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-ended:
		return
	case <-grace.C:
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	<-ended
}

// startError tells a program that can never be started from a machine that could not just now.
func startError(err error) error {
	code := codeProgramFailed
	for _, never := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENOEXEC, syscall.E2BIG, syscall.EINVAL} {
		if errors.Is(err, never) {
			code = codeUnsupported
		}
	}
	return &failure{Code: code, Reason: "the program could not be started: " + err.Error()}
}

const (
	maxLine  = 4 << 10 // bytes of one line that are looked at
	maxTail  = 1 << 10 // bytes of the output that are remembered
	tailSize = 8       // lines
)

// readOutput gives each line to see, those that end with a carriage return
// too, and returns the last ones. It reads to the end, however much comes.
func readOutput(out *os.File, see func([]byte)) string {
	var tail []string
	line := make([]byte, 0, maxLine)
	end := func() {
		if see(line); len(bytes.TrimSpace(line)) > 0 {
			tail = append(tail, strings.TrimSpace(clean(string(line))))
			tail = tail[max(0, len(tail)-tailSize):]
		}
		line = line[:0]
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := out.Read(buffer)
		for _, b := range buffer[:n] {
			switch {
			case b == '\n' || b == '\r':
				end()
			case len(line) < maxLine:
				line = append(line, b)
			}
		}
		if err != nil {
			end()
			text := strings.Join(tail, "\n")
			return strings.ToValidUTF8(text[max(0, len(text)-maxTail):], "")
		}
	}
}

// clean leaves no control characters in a text that goes to people.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, ""))
}

// killMarked ends all processes of the work below a directory, those too that
// have left their group. It looks until none is left; where there is no /proc
// it finds none.
func killMarked(dir string) {
	for range killRounds {
		left := false
		for _, pid := range marked(dir) {
			left = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if !left {
			return
		}
		time.Sleep(killPause) // a process does not vanish at once
	}
}

// marked lists the processes whose mark is dir or below it.
func marked(dir string) []int {
	var pids []int
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil
	}
	for _, path := range all {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(path)
		if err != nil {
			continue // gone, or another user's
		}
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			of, ok := strings.CutPrefix(string(kv), mark+"=")
			if ok && (of == dir || strings.HasPrefix(of, dir+"/")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// programEnvironment is the wrapper's own without what belongs to rrm, above
// all its token. The launcher's marks stay: by them it finds what a wrapper
// that was killed has left.
func programEnvironment(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "RRM_RESOURCE", name == "RRM_SERVICE", name == "RRM_ADDRESS":
		case strings.HasPrefix(name, "RRM_"), name == "TMPDIR":
			continue
		}
		env = append(env, kv)
	}
	return env
}
