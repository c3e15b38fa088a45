//go:build !linux

package postgres

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// dieWithParent is Linux's; elsewhere a server that outlives its rrm is found
// and stopped at the next start.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

func searchCapability() (uintptr, bool) { return 0, false }

func grantCapability(*syscall.SysProcAttr, uintptr) {}

// postgresProcesses returns the postmaster that postmaster.pid of dir names, if
// the process of that number is a Postgres. Without /proc nothing tells which
// backends of a dead postmaster still run: Postgres itself waits for those.
// An error means that nobody could look.
func postgresProcesses(dir string) ([]int, error) {
	pid, ok := pidFromFile(filepath.Join(dir, "postmaster.pid"))
	if !ok || pid == os.Getpid() || !alive(pid) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	name := filepath.Base(strings.TrimSpace(string(out)))
	if name != "postgres" && name != "postmaster" {
		return nil, nil
	}
	return []int{pid}, nil
}
