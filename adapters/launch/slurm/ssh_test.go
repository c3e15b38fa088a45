package slurm_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/adapters/launch/slurm"
	"github.com/rendering-resource-manager/rrm/domain"
)

// sshServer is a login node: it runs commands by a shell, as sshd does, and
// forwards connections.
type sshServer struct {
	ln   net.Listener
	conf *ssh.ServerConfig
	key  ssh.Signer
	env  []string

	connections, commands atomic.Int64
	deaf                  atomic.Bool   // takes commands and does not carry them out
	heard                 chan struct{} // told of each that it does not carry out, if somebody listens

	mu   sync.Mutex
	open map[net.Conn]bool
	wg   sync.WaitGroup
}

func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	must(t, err)
	return signer, pem.EncodeToMemory(block)
}

func startSSH(t *testing.T, client ssh.PublicKey) *sshServer {
	t.Helper()
	s := &sshServer{env: needCluster(t).Env(), open: map[net.Conn]bool{}, heard: make(chan struct{}, 1)}
	s.key, _ = newKey(t)
	s.conf = &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), client.Marshal()) {
			return nil, errors.New("not this key")
		}
		return &ssh.Permissions{}, nil
	}}
	s.conf.AddHostKey(s.key)
	var err error
	s.ln, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.wg.Go(s.accept)
	t.Cleanup(func() {
		_ = s.ln.Close()
		s.cut()
		s.wg.Wait()
	})
	return s
}

func (s *sshServer) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.connections.Add(1)
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		s.wg.Go(func() { s.serve(c) })
	}
}

// cut ends all connections without a word.
func (s *sshServer) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Close()
	}
	clear(s.open)
}

func (s *sshServer) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	conn, channels, requests, err := ssh.NewServerConn(c, s.conf)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	s.wg.Go(func() { ssh.DiscardRequests(requests) })
	for n := range channels {
		switch n.ChannelType() {
		case "session":
			s.wg.Go(func() { s.session(n) })
		case "direct-tcpip":
			s.wg.Go(func() { s.forward(n) })
		default:
			_ = n.Reject(ssh.UnknownChannelType, "no")
		}
	}
}

func (s *sshServer) session(n ssh.NewChannel) {
	ch, requests, err := n.Accept()
	if err != nil {
		return
	}
	defer func() { _ = ch.Close() }()
	for req := range requests {
		if req.Type != "exec" {
			_ = req.Reply(false, nil)
			continue
		}
		s.commands.Add(1)
		_ = req.Reply(true, nil)
		if s.deaf.Load() {
			select {
			case s.heard <- struct{}{}:
			default:
			}
			continue
		}
		var payload struct{ Command string }
		_ = ssh.Unmarshal(req.Payload, &payload)
		cmd := exec.Command("/bin/sh", "-c", payload.Command)
		cmd.Env, cmd.Stdout, cmd.Stderr = s.env, ch, ch.Stderr()
		stdin, err := cmd.StdinPipe() // not the channel itself: the command may end before its input does
		if err != nil {
			return
		}
		s.wg.Go(func() {
			_, _ = io.Copy(stdin, ch)
			_ = stdin.Close()
		})
		status := 0
		if err := cmd.Run(); err != nil {
			status = max(1, cmd.ProcessState.ExitCode())
		}
		_, _ = ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, uint32(status)))
		return
	}
}

func (s *sshServer) forward(n ssh.NewChannel) {
	var to struct {
		Host     string
		Port     uint32
		From     string
		FromPort uint32
	}
	_ = ssh.Unmarshal(n.ExtraData(), &to)
	c, err := net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
	if err != nil {
		_ = n.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ch, requests, err := n.Accept()
	if err != nil {
		_ = c.Close()
		return
	}
	s.wg.Go(func() { ssh.DiscardRequests(requests) })
	s.wg.Go(func() {
		_, _ = io.Copy(c, ch)
		_ = c.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(ch, c)
	_ = ch.Close()
	_ = c.Close()
}

// sshSite is the cluster, reached through a login node, its renderers through tunnels.
func sshSite(t *testing.T) (*sshServer, slurm.Site) {
	t.Helper()
	signer, private := newKey(t)
	server := startSSH(t, signer.PublicKey())
	site := localSite(t)
	site.KeyFiles = []string{filepath.Join(site.Directory, "key")}
	must(t, os.WriteFile(site.KeyFiles[0], private, 0o600))
	site.KnownHosts = filepath.Join(site.Directory, "known_hosts")
	know(t, site.KnownHosts, server.ln.Addr().String(), server.key.PublicKey())
	site.Hosts, site.Tunnel = []string{"tester@" + server.ln.Addr().String()}, true
	return server, site
}

func know(t *testing.T, file, address string, key ssh.PublicKey) {
	t.Helper()
	must(t, os.WriteFile(file, []byte(knownhosts.Line([]string{knownhosts.Normalize(address)}, key)+"\n"), 0o600))
}

func TestSuiteOverSSH(t *testing.T) {
	needCluster(t)
	t.Parallel()
	launchtest.Run(t, func(t *testing.T) launchtest.Launcher {
		_, site := sshSite(t)
		opts := options(site)
		return withOptions{reopen(t, opts), opts}
	}, launchtest.Options{
		ProgramDir: testDir, Renderer: scheduled, LateFailures: true, Patience: 30 * time.Second, Notice: 10 * time.Second, Tunnelled: true,
		Again: func(t *testing.T, first launchtest.Launcher) launchtest.Launcher {
			opts := first.(withOptions).opts
			return withOptions{reopen(t, opts), opts}
		},
		Kill: kill,
	})
}

func TestConnectionIsReusedAndMadeAnewWhenCut(t *testing.T) {
	t.Parallel()
	server, site := sshSite(t)
	opts := options(site)
	l := reopen(t, opts)
	first, err := l.Launch(t.Context(), spec(t, "far", nil))
	must(t, err)
	r := running(t, l, first)
	process := pid(t, r.Address)
	if n := server.connections.Load(); n != 1 {
		t.Errorf("%d connections after %d commands, want one", n, server.commands.Load())
	}
	if host, _, _ := net.SplitHostPort(r.Address); host != "127.0.0.1" {
		t.Errorf("the address is %s, want the tunnel's", r.Address)
	}
	server.cut()
	again := running(t, l, r.Launched)
	if again.Address != r.Address || pid(t, again.Address) != process {
		t.Errorf("after the cut process %d at %s, before %d at %s", pid(t, again.Address), again.Address, process, r.Address)
	}
	if n := server.connections.Load(); n != 2 {
		t.Errorf("%d connections, want a second one", n)
	}
	// rrm started again: the same address, told to whoever holds it, if it is free.
	must(t, l.Close())
	if o := observe(t, l, r.Launched); o.State != domain.LaunchUnknown {
		t.Errorf("a closed launcher sees it as %s", o.State)
	}
	next := reopen(t, opts)
	t.Cleanup(func() { _ = next.Stop(context.Background(), again.Launched, false) })
	if o := running(t, next, again.Launched); o.Address != r.Address {
		t.Errorf("after a restart it is at %s, before at %s", o.Address, r.Address)
	}
	must(t, next.Stop(t.Context(), again.Launched, true))
	if o := gone(t, next, again.Launched); o.Reason == "" {
		t.Error("gone without a reason")
	}
	eventually(t, 10*time.Second, "the tunnel of what is gone is closed by the next look, if not by the same", func() (bool, string) {
		c, err := net.Dial("tcp", r.Address)
		if err != nil {
			return true, ""
		}
		_ = c.Close()
		observe(t, next, again.Launched)
		return false, "it is still there"
	})
}

// A connection that is cut in the middle must not look like a whole answer, nor like gone.
func TestCutInTheMiddle(t *testing.T) {
	t.Parallel()
	server, site := sshSite(t)
	l := reopen(t, options(site))
	r := running(t, l, launch(t, l, spec(t, "cut", nil)))
	server.deaf.Store(true)
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		<-server.heard // the command has arrived
		server.cut()
	}()
	if _, err := l.Output(t.Context(), r.Launched, "stdout", 100); err == nil {
		t.Error("a command that was cut was no error")
	}
	<-cut
	await(t, l, r.Launched, "it is unknown while nothing answers", func(o domain.Observed) bool {
		if o.State == domain.LaunchGone {
			t.Fatalf("gone: %s", o.Reason)
		}
		return o.State == domain.LaunchUnknown
	})
	server.deaf.Store(false)
	server.cut()
	running(t, l, r.Launched)
}

func TestCommandThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	server, site := sshSite(t)
	site.Timeout = domain.Duration(500 * time.Millisecond)
	l := reopen(t, options(site))
	server.deaf.Store(true)
	start := time.Now()
	_, err := l.List(t.Context())
	if err == nil || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
	server.deaf.Store(false)
	if _, err := l.List(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n := server.connections.Load(); n != 1 {
		t.Errorf("%d connections: a slow command is no broken connection", n)
	}
}

func TestHostKeys(t *testing.T) {
	t.Parallel()
	server, site := sshSite(t)
	other, _ := newKey(t)
	for _, c := range []struct {
		name, want string
		prepare    func()
	}{
		{"another key", "somebody may be in between", func() { know(t, site.KnownHosts, server.ln.Addr().String(), other.PublicKey()) }},
		{"no key", "is not in", func() { must(t, os.WriteFile(site.KnownHosts, nil, 0o600)) }},
		{"no file", "known hosts", func() { must(t, os.Remove(site.KnownHosts)) }},
	} {
		c.prepare()
		l := reopen(t, options(site))
		_, err := l.List(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if n := server.commands.Load(); n != 0 {
			t.Fatalf("%s: %d commands went to a host that was not checked", c.name, n)
		}
		before := server.connections.Load()
		if _, err := l.List(t.Context()); err == nil || server.connections.Load() != before {
			t.Errorf("%s: it knocked again at once: %v", c.name, err)
		}
	}
}

func TestSecondHostAndAgent(t *testing.T) {
	server, site := sshSite(t)
	b, err := os.ReadFile(site.KeyFiles[0])
	must(t, err)
	private, err := ssh.ParseRawPrivateKey(b)
	must(t, err)
	keys := agent.NewKeyring()
	must(t, keys.Add(agent.AddedKey{PrivateKey: private}))
	socket := filepath.Join(site.Directory, "agent")
	ln, err := net.Listen("unix", socket)
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = agent.ServeAgent(keys, c)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	t.Setenv("SSH_AUTH_SOCK", socket)
	site.KeyFiles = nil
	site.Hosts = append([]string{"127.0.0.1:1"}, site.Hosts...)
	l := reopen(t, options(site))
	if _, err := l.List(t.Context()); err != nil {
		t.Error(err)
	}
	if server.commands.Load() == 0 {
		t.Error("the second host was not used")
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	if _, err := reopen(t, options(site)).List(t.Context()); err == nil {
		t.Error("neither key nor agent was no error")
	}
}

func TestTunnelPassesStreams(t *testing.T) {
	t.Parallel()
	_, site := sshSite(t)
	l := reopen(t, options(site))
	r := running(t, l, launch(t, l, spec(t, "stream", nil)))
	var wg sync.WaitGroup
	for range 32 { // beyond any bound on sessions
		wg.Go(func() {
			res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + r.Address + "/env")
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = res.Body.Close() }()
			if b, err := io.ReadAll(res.Body); err != nil || !bytes.Contains(b, []byte("RRM_RESOURCE")) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	wg.Wait()
}
