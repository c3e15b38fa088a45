package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dataMajor reads which major version of Postgres made the data; 0 when there
// is none yet. A directory that holds something else is an error: it is not ours to clear.
func dataMajor(data string) (int, error) {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err == nil {
		major, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return 0, fmt.Errorf("%s is not data of Postgres 10 or newer: PG_VERSION is %q", data, bytes.TrimSpace(b))
		}
		return major, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("look at the server's data: %w", err)
	}
	entries, err := os.ReadDir(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("look at the server's data: %w", err)
	}
	if len(entries) > 0 {
		return 0, fmt.Errorf("%s is not empty and is no data of Postgres (it has no PG_VERSION): move it away", data)
	}
	return 0, nil
}

// initialise makes new data. initdb works in a directory beside, which gets its
// name when it is done: killed in the middle, it is begun again.
func (s *Server) initialise(ctx context.Context, volatile bool) error {
	if err := os.RemoveAll(s.unborn); err != nil {
		return fmt.Errorf("clear an unfinished data directory: %w", err)
	}
	if err := s.account.makeDir(s.unborn); err != nil {
		return fmt.Errorf("make the server's data: %w", err)
	}
	args := []string{"-D", s.unborn, "-U", superuser, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"}
	if volatile {
		args = append(args, "--no-sync")
	}
	if out, err := runBounded(ctx, s.account.command(s.programs.initdb(), args...)); err != nil {
		return errors.Join(fmt.Errorf("initdb (as uid %d): %w\n%s", s.account.uid, err, lastLines(out, 10)), os.RemoveAll(s.unborn))
	}
	// An empty directory may have been made for us; one that is a mount point stays in the way.
	if err := os.Remove(s.data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make the server's data: %w (a mount belongs at %s, not below it)", err, s.root)
	}
	if err := os.Rename(s.unborn, s.data); err != nil {
		return fmt.Errorf("make the server's data: %w", err)
	}
	if volatile {
		return nil
	}
	return syncDir(s.root)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// forgetStrangers removes the files with the process ID of a former server when
// that number now belongs to something else: some other program, as happens after
// a restart of a machine or container, or a dead process that nobody has
// collected, as where process 1 is no init. Postgres would take it for a server
// on the same data or socket and refuse. stopFormer has seen that no Postgres
// works here, and we hold the lock.
func forgetStrangers(p places, log logger) error {
	pids, err := postgresProcesses(p.data)
	if err != nil || len(pids) > 0 {
		return nil //nolint:nilerr // we could not look: then Postgres decides
	}
	for _, path := range []string{filepath.Join(p.data, "postmaster.pid"), p.socket + socketSuffix + ".lock"} {
		pid, ok := pidFromFile(path)
		if !ok || !alive(pid) {
			continue // Postgres handles those itself
		}
		log.Info("removing what a former Postgres left; its process ID is no server's now", "file", path, "pid", pid)
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove a stale lock of Postgres: %w", err)
		}
	}
	return nil
}

// pidFromFile reads the first line of postmaster.pid.
func pidFromFile(path string) (int, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	return pid, err == nil && pid > 0
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// lastLines returns the end of what a program said.
func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}
