package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// Server is a running embedded Postgres. When its process dies it is started
// again, for ever, after 100 ms and then ever longer waits up to 5 s; clients
// get connection errors meanwhile. Its methods may be called from any goroutine.
type Server struct {
	places
	account     account
	programs    programs
	args        []string
	deathSignal syscall.Signal
	log         *slog.Logger
	lock        *os.File
	logStart    int64 // length of the log before this start

	up       atomic.Bool // it has answered once
	restarts atomic.Int64
	stop     chan struct{} // closed by Stop
	done     chan struct{} // closed when the supervisor has ended

	mu       sync.Mutex
	process  *os.Process // nil while there is none
	stopping bool
}

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	steadyAfter  = 10 * time.Second // a server that ran that long begins with the first backoff again
	pingEvery    = 20 * time.Millisecond
)

// deathSignal is what the server gets when the program dies: its clean and fast
// shutdown, or at once where nobody needs the data any more.
func deathSignal(volatile bool) syscall.Signal {
	if volatile {
		return syscall.SIGQUIT
	}
	return syscall.SIGINT
}

// DSN is where the server listens.
func (s *Server) DSN() string { return s.dsn(database) }

// MaintenanceDSN names the database "postgres" of the server, from which others are made.
func (s *Server) MaintenanceDSN() string { return s.dsn("postgres") }

// Programs is the folder with the server's programs, pgbench and psql among them where they are installed.
func (s *Server) Programs() string { return s.programs.dir }

// Restarts counts how often the server died and was started again.
func (s *Server) Restarts() int64 { return s.restarts.Load() }

// PID is the process ID of the server's first process; 0 while there is none.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid
}

// launch starts the supervisor and waits until the server answers.
func (s *Server) launch(ctx context.Context) error {
	if info, err := os.Stat(s.logFile); err == nil {
		s.logStart = info.Size()
	}
	failed := make(chan error, 1)
	go s.supervise(failed)
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	err := s.waitReady(ctx, failed)
	if err == nil {
		s.up.Store(true)
		err = s.ensureDatabase(ctx)
	}
	if err != nil {
		said := s.lastWords()
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), politeness)
		defer cancel()
		return errors.Join(fmt.Errorf("start Postgres %s: %w%s", s.programs.full, err, said), s.halt(stopCtx))
	}
	s.log.Info("embedded Postgres runs", "version", s.programs.full, "programs", s.programs.dir, "data", s.data, "uid", s.account.uid)
	return nil
}

func (s *Server) waitReady(ctx context.Context, failed <-chan error) error {
	connector, err := pq.NewConnector(s.MaintenanceDSN())
	if err != nil {
		return err
	}
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		conn, err := connector.Connect(ctx)
		if err == nil {
			return conn.Close()
		}
		if refused := pq.As(err); refused != nil && refused.Code != pqerror.CannotConnectNow {
			return err
		}
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func (s *Server) ensureDatabase(ctx context.Context) error {
	db, err := sql.Open("postgres", s.MaintenanceDSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var there bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, database).Scan(&there); err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if there {
		return nil
	}
	if _, err := db.ExecContext(ctx, `CREATE DATABASE `+pq.QuoteIdentifier(database)); err != nil {
		return fmt.Errorf("make the database: %w", err)
	}
	return nil
}

// supervise runs the server again and again until Stop. It keeps its thread to
// itself: the kernel's "die with your parent" follows the thread that forked,
// and any other thread of a Go program may end at any time.
func (s *Server) supervise(failed chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, after the server
	defer close(s.done)
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		began := time.Now()
		err := s.run()
		if s.isStopping() {
			return
		}
		if !s.up.Load() {
			failed <- err
			return
		}
		if time.Since(began) > steadyAfter {
			backoff = firstBackoff
		}
		s.log.Error("the embedded Postgres ended; starting it again", "error", err, "wait", backoff.String(), "log", s.logFile)
		select {
		case <-s.stop:
			return
		case <-time.After(backoff):
		}
		s.clearOrphans()
		s.restarts.Add(1)
	}
}

// clearOrphans ends backends that outlived their server. One that does not end
// is left: the new server will refuse to start, and the next round tries again.
func (s *Server) clearOrphans() {
	ctx, cancel := context.WithTimeout(context.Background(), politeness)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-stop:
		}
	}()
	err := stopFormer(ctx, s.data, s.log)
	if err == nil {
		err = forgetStrangers(s.places, s.log)
	}
	if err != nil && !s.isStopping() {
		s.log.Warn("clear what the ended Postgres left", "error", err)
	}
}

// run starts the server once and waits for its end, of which it returns the cause.
func (s *Server) run() error {
	out, err := os.OpenFile(s.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer func() { _ = out.Close() }()
	// A file, not a pipe: Wait ends with the process, even while orphans hold it open.
	cmd := s.account.command(s.programs.postgres(), s.args...)
	cmd.Stdout, cmd.Stderr = out, out
	dieWithParent(cmd.SysProcAttr, s.deathSignal)
	if err := s.begin(cmd); err != nil {
		return err
	}
	err = cmd.Wait()
	s.mu.Lock()
	s.process = nil
	s.mu.Unlock()
	if err == nil {
		return errors.New("it shut down, though not on our word")
	}
	return err
}

func (s *Server) begin(cmd *exec.Cmd) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errors.New("stopping")
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	s.process = cmd.Process
	return nil
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// Stop shuts the server down: clients are disconnected, everything is written,
// the data directory is free when Stop returns. When ctx ends first the server
// is ended without ceremony; what it had acknowledged is recovered at the next
// start. Repeating is safe.
func (s *Server) Stop(ctx context.Context) error {
	err := s.halt(ctx)
	return errors.Join(err, s.release())
}

// halt ends the server and its supervisor.
func (s *Server) halt(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		close(s.stop)
	}
	s.mu.Unlock()
	for _, step := range []struct {
		signal syscall.Signal
		wait   context.Context //nolint:containedctx // a table of three rows
	}{{syscall.SIGINT, ctx}, {syscall.SIGQUIT, nil}, {syscall.SIGKILL, nil}} {
		s.signal(step.signal)
		wait, cancel := step.wait, context.CancelFunc(func() {})
		if wait == nil {
			wait, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastWarning)
		}
		select {
		case <-s.done:
			cancel()
			return nil
		case <-wait.Done():
			cancel()
			s.log.Warn("the embedded Postgres does not stop", "signal", step.signal.String())
		}
	}
	<-s.done // nothing survives SIGKILL
	return nil
}

func (s *Server) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.Signal(sig) // gone is as good
	}
}

// release gives the data directory back.
func (s *Server) release() error {
	if filepath.Dir(s.socket) != s.root {
		_ = os.Remove(s.socket) // one of ours below /tmp; harmless if it stays
	}
	if err := s.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("release the data directory: %w", err)
	}
	return nil
}

// lastWords is what the server has written since this start, for an error.
func (s *Server) lastWords() string {
	b, err := os.ReadFile(s.logFile)
	if err != nil || int64(len(b)) <= s.logStart {
		return ""
	}
	return "\nits log says:\n" + strings.TrimRight(lastLines(b[s.logStart:], 12), "\n")
}
