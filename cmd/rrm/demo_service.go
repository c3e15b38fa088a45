package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ownService is a service in a process of its own, with data for the moment.
type ownService struct {
	cmd    *exec.Cmd
	dir    string
	log    string
	ended  chan struct{}
	result error // of the process, once ended is closed
}

const (
	serviceStart = 60 * time.Second // the first time, Postgres may have to be fetched
	serviceStop  = 30 * time.Second
)

// startService runs `rrm serve --demo` on a free port and returns when it is ready.
func startService(ctx context.Context) (_ *ownService, url string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "rrm-demo-")
	if err != nil {
		return nil, "", fmt.Errorf("make a data directory: %w", err)
	}
	s := &ownService{dir: dir, log: filepath.Join(dir, "rrm.log"), ended: make(chan struct{})}
	if err := os.Chmod(dir, 0o711); err != nil { // Postgres of a root's service passes through as another user
		return nil, "", errors.Join(fmt.Errorf("make a data directory: %w", err), s.forget())
	}
	s.cmd = exec.Command(self, "serve", "--demo", "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"))
	s.cmd.Env = ownEnvironment()
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the story, which then ends the service in order
	stdout, err := s.run()
	if err != nil {
		return nil, "", errors.Join(err, s.forget())
	}
	if url, err = s.ready(ctx, stdout); err != nil {
		return nil, "", errors.Join(err, s.stop(true))
	}
	return s, url, nil
}

// ownEnvironment is ours without settings meant for another service.
func ownEnvironment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "RRM_") || strings.HasPrefix(kv, "RRM_POSTGRES_BIN=") {
			env = append(env, kv)
		}
	}
	return env
}

func (s *ownService) run() (io.Reader, error) {
	log, err := os.Create(s.log)
	if err != nil {
		return nil, fmt.Errorf("keep the service's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	s.cmd.Stderr = log
	stdout, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("listen to the service: %w", err)
	}
	s.cmd.Stdout = w
	err = s.cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the service: %w", err), stdout.Close())
	}
	go func() {
		s.result = s.cmd.Wait()
		close(s.ended)
	}()
	return stdout, nil
}

// ready waits for the line that names the service's address.
func (s *ownService) ready(ctx context.Context, stdout io.Reader) (string, error) {
	first := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			if _, rest, ok := strings.Cut(lines.Text(), " is ready at "); ok {
				url, _, _ := strings.Cut(rest, " ")
				first <- url
			}
		}
	}()
	limit := time.NewTimer(serviceStart)
	defer limit.Stop()
	select {
	case url := <-first:
		return url, nil
	case <-s.ended:
		return "", fmt.Errorf("the service did not start:\n%s", s.lastWords())
	case <-limit.C:
		return "", fmt.Errorf("the service was not ready within %s:\n%s", serviceStart, s.lastWords())
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// lastWords are the end of the service's log.
func (s *ownService) lastWords() string {
	raw, err := os.ReadFile(s.log)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// stop ends the service and deletes its data. Of a story that failed the log is kept.
func (s *ownService) stop(failed bool) error {
	var errs []error
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		errs = append(errs, fmt.Errorf("stop the service: %w", err))
	}
	limit := time.NewTimer(serviceStop)
	defer limit.Stop()
	select {
	case <-s.ended:
		if s.result != nil && !failed {
			errs = append(errs, fmt.Errorf("the service ended badly (%w):\n%s", s.result, s.lastWords()))
		}
	case <-limit.C:
		errs = append(errs, fmt.Errorf("the service did not end within %s", serviceStop), s.cmd.Process.Kill())
		<-s.ended
	}
	if failed {
		if words := s.lastWords(); words != "" {
			errs = append(errs, fmt.Errorf("the end of the service's log:\n%s", words))
		}
	}
	return errors.Join(append(errs, s.forget())...)
}

func (s *ownService) forget() error {
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("delete the data: %w", err)
	}
	return nil
}
