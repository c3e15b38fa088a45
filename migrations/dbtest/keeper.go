package dbtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
)

// A server that tests share must end with the test's process, also when that is
// killed or calls os.Exit, and take its files with it. A process cannot do that
// for itself, so a second one does, the keeper: the same program started again,
// which runs the server until its standard input ends, because that is when the
// process at the other end has ended.
const keeperVariable = "RRM_DBTEST_KEEPER"

// init is where the keeper branches off, before flags are read and tests are run.
//
//nolint:gochecknoinits // nothing else comes before a test binary's main
func init() {
	if os.Getenv(keeperVariable) == "" {
		return
	}
	if err := keep(os.Stdin, os.Stdout); err != nil {
		fmt.Println("error:", strings.ReplaceAll(err.Error(), "\n", " | "))
		os.Exit(1)
	}
	os.Exit(0)
}

// keep runs a server until in ends. It says its DSN on out.
func keep(in io.Reader, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "rrm-dbtest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { // root's server is another user
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := postgres.Embedded{
		DataDir:        dir,
		Log:            slog.New(slog.DiscardHandler),
		MaxConnections: 300,
		Volatile:       true,
		Settings:       map[string]string{"autovacuum_naptime": "10s", "max_wal_size": "4GB"},
	}.Start(ctx)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, s.MaintenanceDSN())
	_, _ = io.Copy(io.Discard, in) // returns when the other process has ended
	now, cancel := context.WithCancel(context.Background())
	cancel() // nobody needs the data: no clean shutdown
	return s.Stop(now)
}

// SharedServer is a server that lives until Stop, or until this process ends.
type SharedServer struct {
	DSN string // of a database from which others can be made

	stop func() error
}

// Stop ends the server and removes its data. Repeating is safe.
func (s *SharedServer) Stop() error { return s.stop() }

// StartServer starts a server for tests, in about 1 s.
func StartServer() (*SharedServer, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start a Postgres for tests: %w", err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), keeperVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the tests; the keeper ends after them
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a Postgres for tests: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a Postgres for tests: %w", err)
	}
	// Its standard error stays closed: `go test` waits for whoever holds its own.
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a Postgres for tests: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	line = strings.TrimSpace(line)
	if said, bad := strings.CutPrefix(line, "error:"); bad || err != nil {
		return nil, errors.Join(fmt.Errorf("start a Postgres for tests:%s", said), err, in.Close(), cmd.Wait())
	}
	stop := sync.OnceValue(func() error { return errors.Join(in.Close(), cmd.Wait()) })
	return &SharedServer{DSN: line, stop: stop}, nil
}
