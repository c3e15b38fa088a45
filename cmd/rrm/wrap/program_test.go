package wrap

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test's own binary the program that is wrapped, and a
// wrapper that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "program":
			os.Exit(program(os.Args[2], os.Args[3:]))
		case "wrapper":
			os.Exit(killable(os.Args[2], os.Args[3:]))
		}
	}
	os.Exit(m.Run())
}

// own is a command of the test's binary.
func own(t *testing.T, args ...string) []string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{path, "program"}, args...)
}

// killable is a wrapper as a process of its own.
func killable(workDir string, command []string) int {
	s := usual()
	s.WorkDir, s.Command, s.Log = workDir, command, slog.Default()
	if err := Run(context.Background(), s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// program is what the fake program does.
func program(what string, args []string) int {
	switch what {
	case "write": // FILE TEXT...
		return write(args[0], strings.Join(args[1:], " "))
	case "args": // FILE ARGS...: as JSON
		b, err := json.Marshal(args[1:])
		if err != nil {
			return 1
		}
		return write(args[0], string(b))
	case "env": // FILE
		return write(args[0], strings.Join(os.Environ(), "\n"))
	case "exit": // STATUS WORDS...
		fmt.Fprintln(os.Stderr, strings.Join(args[1:], " "))
		n, _ := strconv.Atoi(args[0])
		return n
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		return hang()
	case "frames": // DIRECTORY NAMES...
		for _, name := range args[1:] {
			if write(filepath.Join(filepath.Dir(args[0]), name), name) != 0 {
				return 1
			}
		}
		return 0
	case "tell": // FILE RELEASE TEXT: says it, and ends when there is a file RELEASE
		fmt.Fprint(os.Stdout, args[2])
		wait(func() bool { _, err := os.Stat(args[1]); return err == nil })
		return write(args[0], "told")
	case "fill": // FILE
		return fill(args[0])
	case "link": // FILE TARGET
		if os.Symlink(args[1], args[0]) != nil {
			return 1
		}
		return 0
	case "together": // FILE DIRECTORY LIMIT: the directory holds those that run
		return together(args)
	case "family": // PIDS: a child, one that has left the group, and no interest in SIGTERM
		return family(args[0])
	case "count": // FILE COUNT: leaves a line in another file too
		if !note(args[1], os.Getpid()) {
			return 1
		}
		return write(args[0], "counted")
	case "leave": // FILE PIDS: ends well, but leaves somebody
		if !child(args[1], true, "hang") {
			return 1
		}
		return write(args[0], "done")
	case "hang":
		return hang()
	}
	return 99
}

func write(path, text string) int {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// wait looks until something is so; a program must not stay for ever.
func wait(is func() bool) {
	for deadline := time.Now().Add(time.Minute); !is() && time.Now().Before(deadline); {
		<-time.After(2 * time.Millisecond)
	}
}

func hang() int {
	signal.Ignore(syscall.SIGTERM)
	<-time.After(2 * time.Minute)
	return 0
}

func fill(path string) int {
	f, err := os.Create(path)
	if err != nil {
		return 1
	}
	for range 64 { // MiB; then it waits for whoever stops it
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			return 1
		}
		<-time.After(time.Millisecond)
	}
	return hang()
}

// child starts the program again and appends its process ID to a file.
func child(pids string, session bool, what ...string) bool {
	cmd := exec.Command(os.Args[0], append([]string{"program"}, what...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if cmd.Start() != nil {
		return false
	}
	return note(pids, cmd.Process.Pid)
}

func note(pids string, pid int) bool {
	f, err := os.OpenFile(pids, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, pid)
	return err == nil
}

func family(pids string) int {
	signal.Ignore(syscall.SIGTERM)
	if !child(pids, false, "hang") || !child(pids, true, "hang") || !note(pids, os.Getpid()) {
		return 1
	}
	return hang()
}

// together fails when more than LIMIT of its kind run at once, for which it
// waits a little, or when never so many do.
func together(args []string) int {
	limit, _ := strconv.Atoi(args[2])
	me, err := os.CreateTemp(args[1], "run")
	if err != nil {
		return 1
	}
	defer func() { _ = os.Remove(me.Name()) }()
	for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if all, err := os.ReadDir(args[1]); err != nil || len(all) > limit {
			fmt.Fprintln(os.Stderr, len(all), "at once")
			return 3
		}
	}
	met := filepath.Join(filepath.Dir(args[1]), "met")
	wait(func() bool {
		if all, err := filepath.Glob(filepath.Join(args[1], "run*")); err == nil && len(all) == limit {
			_ = os.WriteFile(met, nil, 0o600)
		}
		_, err := os.Stat(met)
		return err == nil
	})
	return write(args[0], "met")
}

// alive tells whether a process is there and no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X")
}

// pidsIn reads as many process IDs as a file should have.
func pidsIn(t *testing.T, file string, n int) (pids []int) {
	t.Helper()
	eventually(t, "the program's children run", func() bool {
		raw, _ := os.ReadFile(file)
		lines := strings.Fields(string(raw))
		if len(lines) < n {
			return false
		}
		pids = nil
		for _, line := range lines {
			pid, err := strconv.Atoi(line)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
		return true
	})
	for _, pid := range pids {
		t.Cleanup(func() {
			if alive(pid) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
	}
	return pids
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
