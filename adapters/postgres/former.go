package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

type logger interface {
	Info(msg string, args ...any)
}

const (
	lookEvery   = 50 * time.Millisecond
	politeness  = 30 * time.Second // a former server may write its checkpoint
	lastWarning = 10 * time.Second // after SIGQUIT
)

// stopFormer ends what still runs on the data: the server of a program that was
// killed (SIGINT, its fast and clean shutdown), or backends whose server was
// killed and that are in the middle of something (SIGTERM). While one of them
// has the shared memory, a new server refuses to start. Only processes that are
// Postgres and stand in this data directory are touched.
func stopFormer(ctx context.Context, data string, log logger) error {
	deadline := time.Now().Add(politeness)
	var asked []int
	harsh := false
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		pids, err := postgresProcesses(data)
		if err != nil || len(pids) == 0 {
			return nil //nolint:nilerr // we could not look: then Postgres waits or refuses, and says why
		}
		if time.Now().After(deadline) {
			if harsh {
				return fmt.Errorf("a former Postgres (process %d) on %s does not end; stop it by hand", pids[0], data)
			}
			harsh, asked, deadline = true, nil, time.Now().Add(lastWarning)
		}
		for _, pid := range toAsk(data, pids) {
			if slices.Contains(asked, pid) {
				continue
			}
			asked = append(asked, pid)
			sig := formerSignal(data, pid, harsh)
			log.Info("stopping a former Postgres on the same data", "pid", pid, "signal", sig.String())
			_ = syscall.Kill(pid, sig) // gone is as good
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for a former Postgres to end: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// toAsk: while the postmaster lives it is the one to ask, it ends its backends itself.
func toAsk(data string, pids []int) []int {
	if pid, ok := pidFromFile(filepath.Join(data, "postmaster.pid")); ok && slices.Contains(pids, pid) {
		return []int{pid}
	}
	return pids
}

func formerSignal(data string, pid int, harsh bool) syscall.Signal {
	if harsh {
		return syscall.SIGQUIT
	}
	if p, ok := pidFromFile(filepath.Join(data, "postmaster.pid")); ok && p == pid {
		return syscall.SIGINT
	}
	return syscall.SIGTERM
}

// runBounded runs a command to its end and returns what it said. It is killed,
// with its children, when the context ends.
func runBounded(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer stop()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return out.Bytes(), ctx.Err()
		}
		return out.Bytes(), err
	}
	return out.Bytes(), nil
}
