package local

// All knowledge of Linux's /proc is in this file; see proc(5).

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/rendering-resource-manager/rrm/domain"
)

// process is one process for ever: the kernel gives process IDs again, but
// not with the same start time.
type process struct {
	pid   int
	start uint64 // clock ticks since boot
}

// stat is what /proc/<pid>/stat says that matters here.
type stat struct {
	state   byte // 'Z': ended, but not waited for
	session int
	start   uint64
}

// readStat reads one process's state; os.ErrNotExist if there is none.
func readStat(pid int) (stat, error) {
	if pid <= 0 {
		return stat{}, os.ErrNotExist
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, syscall.ESRCH) { // it ended between open and read
		return stat{}, os.ErrNotExist
	}
	if err != nil {
		return stat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	// The second field is the program's name in parentheses and may hold anything, parentheses too.
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 20 {
		return stat{}, fmt.Errorf("look at process %d: its stat is not understood", pid)
	}
	session, err1 := strconv.Atoi(fields[3])             // field 6
	start, err2 := strconv.ParseUint(fields[19], 10, 64) // field 22
	if err := errors.Join(err1, err2); err != nil {
		return stat{}, fmt.Errorf("look at process %d: %w", pid, err)
	}
	return stat{fields[0][0], session, start}, nil
}

// alive tells whether the process runs. An error means that nobody could look.
func (p process) alive() (bool, error) {
	st, err := readStat(p.pid)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return st.start == p.start && st.state != 'Z' && st.state != 'X', nil
}

// signalGroup signals the process and its group, if it is still that process.
func (p process) signalGroup(sig syscall.Signal) error {
	alive, err := p.alive()
	if err != nil || !alive {
		return err
	}
	if err := syscall.Kill(-p.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send signal %d to process group %d: %w", int(sig), p.pid, err)
	}
	return nil
}

// kill ends just this process. The handle that os.FindProcess takes (a pidfd)
// stays with it, so looking after taking it leaves no gap for another process.
func (p process) kill() error {
	proc, err := os.FindProcess(p.pid)
	if err != nil {
		return nil //nolint:nilerr // there is no such process: what was wanted
	}
	defer func() { _ = proc.Release() }()
	alive, err := p.alive()
	if err != nil || !alive {
		return err
	}
	if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	return nil
}

// marked is a process that bears this service's marks in its environment.
type marked struct {
	process
	leads    bool // it is the one that was launched, not one of its children
	resource domain.ResourceID
	port     int
}

// scan finds every process of this service. Processes of other users cannot
// be read and are not ours. A process that ends while it is looked at is left out.
func scan(service string) ([]marked, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var found []marked
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // not a process
		}
		env, err := os.ReadFile("/proc/" + name + "/environ")
		if err != nil || !bytes.Contains(env, []byte(markResource+"=")) {
			continue
		}
		m, ours := readMarks(env, service)
		if !ours {
			continue
		}
		st, err := readStat(pid)
		if err != nil || st.state == 'Z' || st.state == 'X' {
			continue
		}
		m.process = process{pid, st.start}
		m.leads = st.session == pid
		found = append(found, m)
	}
	return found, nil
}

func readMarks(env []byte, service string) (m marked, ours bool) {
	for kv := range strings.SplitSeq(string(env), "\x00") {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case markResource:
			m.resource = domain.ResourceID(value)
		case markService:
			ours = value == service
		case markAddress:
			if _, port, err := net.SplitHostPort(value); err == nil {
				m.port, _ = strconv.Atoi(port)
			}
		}
	}
	return m, ours && checkID(m.resource) == nil
}

// leader is the launched process of a resource among the marked ones: the
// oldest, should one of its children have begun a session too.
func leader(all []marked, id domain.ResourceID) (marked, bool) {
	var best marked
	for _, m := range all {
		if m.leads && m.resource == id && (best.pid == 0 || m.start < best.start) {
			best = m
		}
	}
	return best, best.pid != 0
}

// bootID tells one run of the machine from the next, because process IDs and
// start times begin anew with it.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
