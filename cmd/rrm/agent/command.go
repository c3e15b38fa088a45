package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// SettingError is a setting that cannot be meant.
type SettingError struct{ Reason string }

func (e *SettingError) Error() string { return e.Reason }

func wrong(format string, args ...any) error { return &SettingError{fmt.Sprintf(format, args...)} }

var placeholders = regexp.MustCompile(`\$\{[^}]*\}`)

const (
	hostPlaceholder = "${rest_hostname}"
	portPlaceholder = "${rest_port}"
)

// check refuses settings before anything is begun, and finds the program.
func (s *Settings) check() error {
	if len(s.Command) == 0 {
		return wrong("there is no COMMAND after --")
	}
	program, err := exec.LookPath(s.Command[0])
	if err != nil {
		return wrong("the program cannot be started: %v", err)
	}
	s.program = program
	named := s.Port > 0
	for _, word := range s.Command[1:] {
		for _, p := range placeholders.FindAllString(word, -1) {
			if p != hostPlaceholder && p != portPlaceholder {
				return wrong("the command has the unknown placeholder %s; known are %s %s", p, hostPlaceholder, portPlaceholder)
			}
			named = named || p == portPlaceholder
		}
	}
	switch {
	case !named:
		return wrong("the command does not say %s, so that the renderer cannot know its port; or give the port in --address", portPlaceholder)
	case s.Port > 0 && s.Low > 0:
		return wrong("--address has a port already; leave --port-range away")
	case s.Port < 0 || s.Port > maxPort || s.Low < 0 || s.High > maxPort || s.Low > s.High:
		return wrong("ports are 1 to %d, a range is LOW-HIGH", maxPort)
	}
	return nil
}

const maxPort = 65535

// command fills in the placeholders of the arguments; no shell reads them.
func (s *Settings) command(host string, port int) []string {
	fill := strings.NewReplacer(hostPlaceholder, host, portPlaceholder, strconv.Itoa(port))
	args := []string{s.Command[0]}
	for _, word := range s.Command[1:] {
		args = append(args, fill.Replace(word))
	}
	return args
}

// environment is the agent's own without what is rrm's: above all its token.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "RRM_") })
}

// pickPort chooses the renderer's port: the one that was given, else one on which
// nobody listens now. Another program may take it before the renderer does; then the next start has another.
func (s *Settings) pickPort(ctx context.Context) (int, error) {
	switch {
	case s.Port > 0:
		return s.Port, nil
	case s.Low == 0:
		return s.freePort(ctx, 0)
	}
	n := s.High - s.Low + 1
	first := rand.IntN(n) // two agents on one machine seldom try the same
	for i := range n {
		port := s.Low + (first+i)%n
		if _, err := s.freePort(ctx, port); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: all from %d to %d are in use", s.Low, s.High)
}

// freePort sees whether the port is free, 0 for any, at the renderer's address
// or, where that is not one of this machine, everywhere.
func (s *Settings) freePort(ctx context.Context, port int) (int, error) {
	var l net.Listener
	var err error
	for _, host := range []string{s.Host, ""} {
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// OwnAddress is the address of this machine as the way to a server shows it.
func OwnAddress(ctx context.Context, server string) (string, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "udp", server) // which sends nothing
	if err != nil {
		return "", fmt.Errorf("find the address of this machine: %w", err)
	}
	defer func() { _ = c.Close() }()
	return c.LocalAddr().(*net.UDPAddr).IP.String(), nil
}
