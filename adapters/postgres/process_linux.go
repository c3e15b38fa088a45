package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent asks the kernel to end the server when the thread that forked
// it ends, which the supervisor's locked thread does only with the program.
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// Capability numbers of linux/capability.h.
const (
	capDacOverride   = 1
	capDacReadSearch = 2
)

// searchCapability finds a capability with which a process that is not root
// may pass through directories that are closed to it. ok is false where the
// program has none to give.
func searchCapability() (number uintptr, ok bool) {
	held := boundingSet()
	for _, c := range []uintptr{capDacReadSearch, capDacOverride} {
		if held&(1<<c) != 0 {
			return c, true
		}
	}
	return 0, false
}

func grantCapability(attr *syscall.SysProcAttr, number uintptr) {
	attr.AmbientCaps = append(attr.AmbientCaps, number)
}

// boundingSet returns what of our permitted capabilities a child may hold.
func boundingSet() uint64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	held := ^uint64(0)
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if name == "CapPrm" || name == "CapBnd" {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return 0
			}
			held &= n
		}
	}
	return held
}

// postgresProcesses returns the processes of any Postgres whose data directory
// is dir: its postmaster and, after that has died, backends that still run.
// An error means that nobody could look.
func postgresProcesses(dir string) ([]int, error) {
	want, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if runsPostgresIn(pid, want) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// runsPostgresIn: a server and all its backends have the data directory as
// their working directory. The name is checked too, because a shell can stand there.
func runsPostgresIn(pid int, dir os.FileInfo) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	cwd, err := os.Stat(filepath.Join(proc, "cwd"))
	if err != nil || !os.SameFile(cwd, dir) {
		return false
	}
	exe, err := os.Readlink(filepath.Join(proc, "exe"))
	if err != nil {
		return false
	}
	name := filepath.Base(strings.TrimSuffix(exe, " (deleted)"))
	return name == "postgres" || name == "postmaster"
}
