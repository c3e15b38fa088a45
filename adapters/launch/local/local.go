// Package local is the launcher that starts rendering resources as processes
// on this machine. The processes do not belong to rrm's life: they run in
// sessions of their own, write to files, outlive a restart of rrm and are found
// again by their process ID and start time. It never uses a shell.
//
// It may know the domain and the operating system. It decides nothing: what
// should run is wished for elsewhere.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Bounds and defaults.
const (
	defaultMaxLog    = 16 << 20        // bytes of one output file before it is cut
	defaultKeepEnded = 100             // directories of ended resources that are kept for their output
	portMemory       = 2 * time.Minute // how long a port is not given out again: longer than a renderer takes to listen
	exitedBuffer     = 256             // ends that nobody has read yet; more are dropped, looking finds them
	host             = "127.0.0.1"     // renderers are reached through rrm only
)

// Options say where a launcher works and what its processes may see.
type Options struct {
	// Dir is the run directory: one subdirectory for each resource, with its
	// record and its output. It must be on this machine and be kept between runs of rrm.
	Dir string
	// Service identifies this installation, so that two services on one
	// machine leave each other's processes alone. Not empty.
	Service string
	// BinDirs are searched for a bare program name before PATH is.
	BinDirs []string
	// WorkDir is the working directory of processes whose settings name none; empty: that of rrm.
	WorkDir string
	// Logger is told of what nobody asked for: leftovers killed, outputs cut. Nil: slog.Default().
	Logger *slog.Logger
	// Environ is the environment ("NAME=value") that the processes' own is taken from; nil: os.Environ().
	Environ []string
	// AllowEnv names variables of Environ to pass on besides the usual ones
	// (PATH, HOME, LANG, ...). Names that begin with RRM_ are never passed on.
	AllowEnv []string
	// MaxLog bounds, in bytes, an output file; 0: 16 MiB. Up to twice as much is kept for
	// each of stdout and stderr, plus what is written between two calls of Observe.
	MaxLog int64
	// KeepEnded is how many ended resources keep their output; 0: 100.
	KeepEnded int
}

// Launcher starts, finds, watches and stops processes. It is safe for use
// from many goroutines, and by several rrm processes over the same Dir.
type Launcher struct {
	opts    Options
	log     *slog.Logger
	node    string
	boot    string
	environ []string
	exited  chan domain.ResourceID

	mu       sync.Mutex
	children map[domain.ResourceID]child
	ports    map[int]time.Time // given out lately
}

// child is a process that this launcher value started and will reap.
type child struct {
	process
	done chan struct{} // closed when its end is on record
}

// New opens the run directory, making it if need be.
func New(opts Options) (*Launcher, error) {
	if opts.Dir == "" || opts.Service == "" {
		return nil, errors.New("a local launcher needs a directory and the service's identity")
	}
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("find run directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	opts.Dir = dir
	if opts.MaxLog <= 0 {
		opts.MaxLog = defaultMaxLog
	}
	if opts.KeepEnded <= 0 {
		opts.KeepEnded = defaultKeepEnded
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Environ == nil {
		opts.Environ = os.Environ()
	}
	node, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read host name: %w", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	return &Launcher{
		opts: opts, log: opts.Logger, node: node, boot: boot,
		environ:  baseEnvironment(opts.Environ, opts.AllowEnv),
		exited:   make(chan domain.ResourceID, exitedBuffer),
		children: map[domain.ResourceID]child{},
		ports:    map[int]time.Time{},
	}, nil
}

// Exited names each resource whose process ended, at once, for those that this
// launcher value started itself. It is a hint to look: names are dropped when
// nobody reads, and adopted resources are found gone by Observe only.
func (l *Launcher) Exited() <-chan domain.ResourceID { return l.exited }

var resourceIDs = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// checkID refuses resource IDs that are not safe as the name of a directory.
func checkID(id domain.ResourceID) error {
	if !resourceIDs.MatchString(string(id)) {
		return domain.Invalid("resource", "%q cannot be the identity of a local resource", id)
	}
	return nil
}

// Launch starts the resource, or finds it already running and says so. What
// cannot be started (no such program, a bad placeholder, modules) is a
// *domain.Refusal; other errors may pass by themselves. A resource whose
// process has ended is started again, under the same identity.
func (l *Launcher) Launch(ctx context.Context, spec domain.LaunchSpec) (domain.Launched, error) {
	if err := checkID(spec.Resource); err != nil {
		return domain.Launched{}, err
	}
	unlock, err := l.lock(ctx, spec.Resource)
	if err != nil {
		return domain.Launched{}, err
	}
	defer unlock()
	found, err := l.find(spec.Resource)
	if err != nil {
		return domain.Launched{}, err
	}
	if found.alive {
		return l.launched(found.record), nil
	}
	if err := l.sweep(spec.Resource); err != nil {
		return domain.Launched{}, err
	}
	rec, err := l.start(ctx, spec)
	if err != nil {
		if !found.known {
			_ = os.RemoveAll(l.dir(spec.Resource)) // nothing ever ran: leave nothing behind
		}
		return domain.Launched{}, err
	}
	l.prune(ctx)
	return l.launched(rec), nil
}

// start runs the program and puts it on record, before (so that a crash
// between leaves a trace) and after.
func (l *Launcher) start(ctx context.Context, spec domain.LaunchSpec) (record, error) {
	port, err := l.freePort(ctx)
	if err != nil {
		return record{}, err
	}
	cmd, err := l.command(spec, port)
	if err != nil {
		return record{}, err
	}
	rec := record{
		Resource: spec.Resource, Service: l.opts.Service, Phase: phaseStarting,
		Boot: l.boot, Port: port, Started: time.Now().UTC(),
	}
	if err := l.write(rec); err != nil {
		return record{}, err
	}
	closeOutput, err := l.redirect(cmd, spec.Resource)
	if err != nil {
		return record{}, err
	}
	defer closeOutput()
	if err := cmd.Start(); err != nil {
		return record{}, l.startFailed(rec, cmd.Path, err)
	}
	rec.PID = cmd.Process.Pid
	if st, err := readStat(rec.PID); err == nil { // it cannot be gone: nobody has waited for it yet
		rec.StartTime = st.start
	}
	rec.Phase = phaseRunning
	if err := l.write(rec); err != nil {
		// Unrecorded it would be found by its environment, but a full disk is a reason not to run.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return record{}, err
	}
	c := child{process: process{rec.PID, rec.StartTime}, done: make(chan struct{})}
	l.mu.Lock()
	l.children[rec.Resource] = c
	l.mu.Unlock()
	go l.watch(cmd, rec, c.done) //nolint:gosec // G118: the process outlives the call
	return rec, nil
}

// startFailed tells a program that can never be started from a machine that could not just now.
func (l *Launcher) startFailed(rec record, program string, err error) error {
	rec.Phase, rec.Reason, rec.Ended = phaseEnded, "never started: "+err.Error(), time.Now().UTC()
	if werr := l.write(rec); werr != nil {
		l.log.Warn("record of a failed start not written", "resource", rec.Resource, "error", werr)
	}
	for _, never := range []error{
		os.ErrNotExist, os.ErrPermission, syscall.ENOEXEC, syscall.ENOTDIR, syscall.EISDIR, syscall.E2BIG, syscall.ELOOP,
		syscall.ENAMETOOLONG, syscall.EINVAL,
	} {
		if errors.Is(err, never) {
			return launchFailed("%s cannot be started: %v", program, err)
		}
	}
	return fmt.Errorf("start %s: %w", program, err)
}

func launchFailed(format string, args ...any) *domain.Refusal {
	return &domain.Refusal{Kind: domain.KindInvalid, Code: "launch_failed", Field: "command_line", Reason: fmt.Sprintf(format, args...)}
}

// watch waits for the end of a child, so that no zombie stays and its exit
// status is known, and puts it on record.
func (l *Launcher) watch(cmd *exec.Cmd, rec record, done chan struct{}) {
	err := cmd.Wait()
	reason := exitReason(cmd.ProcessState, err)
	if err := l.finish(context.Background(), rec, reason, true); err != nil {
		l.log.Warn("end of a resource not recorded", "resource", rec.Resource, "reason", reason, "error", err)
	}
	l.mu.Lock()
	if c := l.children[rec.Resource]; c.done == done {
		delete(l.children, rec.Resource)
	}
	l.mu.Unlock()
	close(done)
	select {
	case l.exited <- rec.Resource:
	default:
	}
}

func exitReason(state *os.ProcessState, err error) string {
	if state == nil {
		return fmt.Sprintf("it ended; its exit status could not be read: %v", err)
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return fmt.Sprintf("killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exit status %d", state.ExitCode())
}

// finish records the end of the process of rec and kills what it left
// behind, unless the resource was launched again meanwhile. A sure reason, from
// who waited for the process, replaces what another could only guess.
func (l *Launcher) finish(ctx context.Context, rec record, reason string, sure bool) error {
	if _, err := os.Stat(l.dir(rec.Resource)); errors.Is(err, os.ErrNotExist) {
		return nil // removed meanwhile; locking would make it again
	}
	unlock, err := l.lock(ctx, rec.Resource)
	if err != nil {
		return err
	}
	defer unlock()
	now, known, err := l.read(rec.Resource)
	if err != nil {
		return err
	}
	if !known || now.PID != rec.PID || now.StartTime != rec.StartTime || now.Phase == phaseEnded && !sure {
		return nil
	}
	if err := l.sweep(rec.Resource); err != nil {
		return err
	}
	now.Phase, now.Reason, now.Ended = phaseEnded, reason, time.Now().UTC()
	return l.write(now)
}

// freePort asks the kernel for a port and lets go of it, for the renderer to
// listen on. Another program may take it between; the renderer then fails to
// listen and the caller launches again.
func (l *Launcher) freePort(ctx context.Context) (int, error) {
	const tries = 50
	for range tries {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		if err := ln.Close(); err != nil {
			return 0, fmt.Errorf("let go of port %d: %w", port, err)
		}
		if l.claimPort(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: all %d that were offered are promised to others", tries)
}

func (l *Launcher) claimPort(port int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for p, given := range l.ports {
		if now.Sub(given) > portMemory {
			delete(l.ports, p)
		}
	}
	if _, taken := l.ports[port]; taken {
		return false
	}
	l.ports[port] = now
	return true
}

// handle is how this launcher finds its process again.
type handle struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks since boot
	Port      int    `json:"port"`
	Dir       string `json:"dir"` // for people; the launcher trusts its own
	Boot      string `json:"boot"`
	Node      string `json:"node"`
}

func (l *Launcher) launched(rec record) domain.Launched {
	h, err := json.Marshal(handle{rec.PID, rec.StartTime, rec.Port, l.dir(rec.Resource), rec.Boot, l.node})
	if err != nil {
		panic(err) // numbers and text only
	}
	return domain.Launched{
		Resource: rec.Resource, Handle: h, Node: l.node,
		Address: net.JoinHostPort(host, strconv.Itoa(rec.Port)),
	}
}

// redirect sends the program's output to files. They are opened for
// appending, so that they can be cut while it writes.
func (l *Launcher) redirect(cmd *exec.Cmd, id domain.ResourceID) (closeAll func(), err error) {
	var files []io.Closer
	closeAll = func() {
		for _, f := range files {
			_ = f.Close() // the child has its own
		}
	}
	for _, stream := range []string{Stdout, Stderr} {
		f, err := os.OpenFile(l.outputPath(id, stream), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("open %s of resource %s: %w", stream, id, err)
		}
		files = append(files, f)
		if stream == Stdout {
			cmd.Stdout = f
		} else {
			cmd.Stderr = f
		}
	}
	return closeAll, nil
}
