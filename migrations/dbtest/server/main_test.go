package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets this binary be the program itself, and the commands that it runs.
func TestMain(m *testing.M) {
	switch os.Getenv("SERVER_TEST_PLAY") {
	case "server":
		_ = os.Setenv("SERVER_TEST_PLAY", os.Args[1])
		os.Args = append([]string{os.Args[0]}, os.Args[2:]...)
		main()
	case "exit 7":
		_, _ = os.Stdout.WriteString(os.Getenv("RRM_TEST_POSTGRES") + "\n")
		_, _ = bufio.NewReader(os.Stdin).WriteTo(os.Stdout)
		os.Exit(7)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "wait":
		_, _ = os.Stdout.WriteString(os.Getenv("RRM_TEST_POSTGRES") + "\n")
		<-time.After(time.Minute) // a signal comes before
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func program(t *testing.T, play string, args ...string) *exec.Cmd {
	t.Helper()
	if len(args) == 0 {
		args = []string{"--", os.Args[0]}
	}
	cmd := exec.Command(os.Args[0], append([]string{play}, args...)...)
	cmd.Env = append(os.Environ(), "SERVER_TEST_PLAY=server")
	return cmd
}

func exitStatus(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("ended with %v", err)
	}
	return exit.ExitCode()
}

// dataOf is the data directory of the server that a DSN names.
func dataOf(t *testing.T, dsn string) string {
	t.Helper()
	parts := strings.Split(dsn, "'")
	if len(parts) < 2 || !strings.HasSuffix(parts[1], "/run") {
		t.Fatalf("no server in %q", dsn)
	}
	return strings.TrimSuffix(parts[1], "/run")
}

func isGone(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

func TestCommandHasTheServerAndItsStatusIsOurs(t *testing.T) {
	cmd := program(t, "exit 7")
	cmd.Stdin = strings.NewReader("passed on")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if status := exitStatus(t, cmd.Run()); status != 7 {
		t.Errorf("status %d, want 7", status)
	}
	dsn, input, _ := strings.Cut(out.String(), "\n")
	if input != "passed on" {
		t.Errorf("standard input arrived as %q", input)
	}
	if dir := dataOf(t, dsn); !isGone(dir) {
		t.Errorf("%s is still there", dir)
	}
}

func TestStatusOfACommandThatASignalEnded(t *testing.T) {
	if status := exitStatus(t, program(t, "kill").Run()); status != 128+9 {
		t.Errorf("status %d, want 137", status)
	}
}

func TestSignalIsPassedOnAndTheServerStops(t *testing.T) {
	cmd := program(t, "wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dsn, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := exitStatus(t, cmd.Wait()); status != 128+15 {
		t.Errorf("status %d, want 143", status)
	}
	if dir := dataOf(t, dsn); !isGone(dir) {
		t.Errorf("%s is still there", dir)
	}
}

func TestWrongUse(t *testing.T) {
	if status := exitStatus(t, program(t, "", "--").Run()); status != 2 {
		t.Errorf("without a command: status %d, want 2", status)
	}
	if status := exitStatus(t, program(t, "", "--", "/no/such/program").Run()); status != 127 {
		t.Errorf("of no program: status %d, want 127", status)
	}
}
