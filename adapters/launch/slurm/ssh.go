package slurm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Rhythm of an SSH connection.
const (
	dialTimeout    = 10 * time.Second // of one host, handshake included
	keepaliveEvery = 15 * time.Second
	keepaliveLimit = 10 * time.Second
	firstBackoff   = time.Second // after a failure to connect, doubled up to the last: sites shut out who knocks too often
	lastBackoff    = 30 * time.Second
)

// sshRunner runs commands on the first of several hosts that answers, over one
// connection that is used again and made anew when it breaks.
type sshRunner struct {
	hosts      []sshHost
	keyFiles   []string
	knownHosts string
	binDir     string
	timeout    time.Duration
	log        *slog.Logger
	turn       chan struct{}
	connecting chan struct{} // held by who connects

	mu      sync.Mutex
	client  *ssh.Client
	name    string // of the host that answered
	closed  bool
	backoff time.Duration
	retryAt time.Time
	failure error
	wg      sync.WaitGroup
}

type sshHost struct{ user, address string }

// parseHost reads "user@host:port"; the user is that of this process and the port 22 if not said.
func parseHost(text string) (sshHost, error) {
	name, rest, found := strings.Cut(text, "@")
	if !found {
		name, rest = "", text
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), "22"
	}
	if host == "" || strings.ContainsAny(host, " /@") || found && !userNames.MatchString(name) {
		return sshHost{}, fmt.Errorf("%q is not a host: user@host:port", text)
	}
	return sshHost{name, net.JoinHostPort(host, port)}, nil
}

func newSSHRunner(conf Site, log *slog.Logger) (*sshRunner, error) {
	r := &sshRunner{
		keyFiles: conf.KeyFiles, knownHosts: conf.KnownHosts, binDir: conf.BinDir, timeout: conf.Timeout.Std(), log: log,
		turn: make(chan struct{}, atOnce), connecting: make(chan struct{}, 1),
	}
	for _, text := range conf.Hosts {
		h, err := parseHost(text)
		if err != nil {
			return nil, err
		}
		if h.user == "" {
			me, err := user.Current()
			if err != nil {
				return nil, fmt.Errorf("find own user: %w", err)
			}
			h.user = me.Username
		}
		r.hosts = append(r.hosts, h)
	}
	if r.knownHosts == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("find known_hosts: %w", err)
		}
		r.knownHosts = filepath.Join(home, ".ssh", "known_hosts")
	}
	return r, nil
}

func (r *sshRunner) host() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name
}

// connection gives the one that is open, or opens one. All errors are errNotBegun.
func (r *sshRunner) connection(ctx context.Context) (*ssh.Client, error) {
	select {
	case r.connecting <- struct{}{}:
		defer func() { <-r.connecting }()
	case <-ctx.Done():
		return nil, fmt.Errorf("connect: %w: %w", errNotBegun, ctx.Err())
	}
	r.mu.Lock()
	client, closed, retryAt, failure := r.client, r.closed, r.retryAt, r.failure
	r.mu.Unlock()
	switch {
	case closed:
		return nil, fmt.Errorf("%w: the launcher is closed", errNotBegun)
	case client != nil:
		return client, nil
	case time.Now().Before(retryAt):
		return nil, fmt.Errorf("%w: %w", errNotBegun, failure)
	}
	var failed error
	for _, h := range r.hosts {
		client, err := r.dialHost(ctx, h)
		if err == nil {
			return r.opened(client, h)
		}
		failed = errors.Join(failed, fmt.Errorf("connect to %s: %w", h.address, err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() == nil {
		r.backoff = min(max(2*r.backoff, firstBackoff), lastBackoff)
		r.retryAt, r.failure = time.Now().Add(r.backoff), failed
	}
	return nil, fmt.Errorf("%w: %w", errNotBegun, failed)
}

// opened makes a connection the one that is used and watches over it.
func (r *sshRunner) opened(client *ssh.Client, h sshHost) (*ssh.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = client.Close()
		return nil, fmt.Errorf("%w: the launcher is closed", errNotBegun)
	}
	r.client, r.name, r.backoff, r.failure = client, h.address, 0, nil
	over := make(chan struct{})
	r.wg.Go(func() {
		err := client.Wait()
		close(over)
		r.dropped(client, err)
	})
	r.wg.Go(func() { keepAlive(client, over) })
	r.log.Info("connected to a Slurm site over SSH", "host", h.address, "user", h.user)
	return client, nil
}

func (r *sshRunner) dropped(client *ssh.Client, err error) {
	_ = client.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == client {
		r.client = nil
		if !r.closed {
			r.log.Warn("an SSH connection to a Slurm site was lost; it is made anew when it is needed", "host", r.name, "error", err)
		}
	}
}

// keepAlive notices connections that are dead without having been closed.
func keepAlive(client *ssh.Client, over <-chan struct{}) {
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			if !answers(client, keepaliveLimit) {
				_ = client.Close()
				return
			}
		}
	}
}

// answers asks the other side for any answer at all. It leaves no goroutine once the client is closed.
func answers(client *ssh.Client, limit time.Duration) bool {
	answer := make(chan error, 1)
	go func() {
		_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
		answer <- err
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-answer:
		return err == nil
	case <-timer.C:
		return false
	}
}

func (r *sshRunner) close() error {
	r.mu.Lock()
	r.closed = true
	client := r.client
	r.mu.Unlock()
	if client != nil {
		_ = client.Close()
	}
	r.wg.Wait()
	return nil
}

func (r *sshRunner) dial(ctx context.Context, address string) (net.Conn, error) {
	client, err := r.connection(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := client.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s through %s: %w", address, r.host(), err)
	}
	return conn, nil
}

func (r *sshRunner) run(ctx context.Context, c command) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return result{}, fmt.Errorf("%s: %w: %w", c.name, errNotBegun, ctx.Err())
	}
	client, session, err := r.session(ctx)
	if err != nil {
		return result{}, fmt.Errorf("%s: %w", c.name, err)
	}
	stdout, stderr := &bounded{limit: maxOutput}, &bounded{limit: maxOutput}
	session.Stdin, session.Stdout, session.Stderr = bytes.NewReader(c.stdin), stdout, stderr
	ended := make(chan error, 1)
	go func() { ended <- session.Run(r.line(c)) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = session.Signal(ssh.SIGKILL) // where the server takes signals
		_ = session.Close()
		if !answers(client, time.Second) {
			_ = client.Close() // it was the connection, not the command
		}
		return result{}, fmt.Errorf("%s did not answer within %s: %w", c.name, r.timeout, ctx.Err())
	}
	_ = session.Close()
	var exit *ssh.ExitError
	switch {
	case stdout.over || stderr.over:
		return result{}, fmt.Errorf("run %s on %s: %w", c.name, r.host(), errTooMuch)
	case err == nil:
		return result{stdout.Bytes(), stderr.Bytes(), 0}, nil
	case errors.As(err, &exit) && exit.Signal() == "":
		return result{stdout.Bytes(), stderr.Bytes(), exit.ExitStatus()}, nil
	default:
		return result{}, fmt.Errorf("run %s on %s: %w", c.name, r.host(), err)
	}
}

// session opens one, over a new connection if the one at hand turns out to be broken.
func (r *sshRunner) session(ctx context.Context) (*ssh.Client, *ssh.Session, error) {
	const tries = 2
	var failed error
	for range tries {
		client, err := r.connection(ctx)
		if err != nil {
			return nil, nil, err
		}
		type opened struct {
			*ssh.Session
			error
		}
		answer := make(chan opened, 1)
		go func() {
			s, err := client.NewSession()
			answer <- opened{s, err}
		}()
		select {
		case o := <-answer:
			if o.error == nil {
				return client, o.Session, nil
			}
			failed = o.error
		case <-ctx.Done():
			failed = ctx.Err()
			_ = client.Close() // it hangs; the answer comes now
			<-answer
		}
		var refused *ssh.OpenChannelError
		if errors.As(failed, &refused) {
			break // the connection is well, the server has had enough
		}
		r.dropped(client, failed)
	}
	return nil, nil, fmt.Errorf("%w: open a session: %w", errNotBegun, failed)
}

// line is the command for the login shell on the other side, every word quoted.
func (r *sshRunner) line(c command) string {
	words := append([]string{"env"}, c.env...)
	name := c.name
	if r.binDir != "" && isSlurm(name) {
		name = r.binDir + "/" + name
	}
	words = append(append(words, name), c.args...)
	for i, w := range words {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}
