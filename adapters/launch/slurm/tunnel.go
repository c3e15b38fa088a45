package slurm

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

const tunnelDialTimeout = 10 * time.Second

// tunnel listens on this machine's loopback and forwards each connection to a
// renderer through the site's SSH connection, whichever that is at the time:
// its address outlives the connection.
type tunnel struct {
	site *site
	ln   net.Listener

	mu     sync.Mutex
	target string
	conns  map[net.Conn]bool
	closed bool
	wg     sync.WaitGroup
}

// address is where a running resource is reached from here, empty while that is not known.
func (s *site) address(j *job, before domain.Launched) string {
	to := target(j)
	if !s.Tunnel {
		if to == "" && readHandle(before.Handle).Job == j.id {
			return before.Address // a controller that was killed may have forgotten the comment
		}
		return to
	}
	id := before.Resource
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tunnels[id]
	switch {
	case s.closed:
		return ""
	case t != nil && to != "":
		t.mu.Lock()
		t.target = to
		t.mu.Unlock()
	case t == nil && to != "":
		var err error
		if t, err = openTunnel(s, to, before.Address); err != nil {
			return "" // no port of our own is free: the next round tries again
		}
		s.tunnels[id] = t
	case t == nil:
		return ""
	}
	return t.ln.Addr().String()
}

// openTunnel listens where the resource's tunnel was before a restart of rrm, if it can.
func openTunnel(s *site, to, before string) (*tunnel, error) {
	const any = "127.0.0.1:0"
	wish := any
	if host, port, err := net.SplitHostPort(before); err == nil && host == "127.0.0.1" {
		wish = net.JoinHostPort(host, port)
	}
	ln, err := net.Listen("tcp", wish) //nolint:noctx // listening on the loopback does not wait
	if err != nil && wish != any {
		ln, err = net.Listen("tcp", any) //nolint:noctx // the same
	}
	if err != nil {
		return nil, fmt.Errorf("open a tunnel: %w", err)
	}
	t := &tunnel{site: s, ln: ln, target: to, conns: map[net.Conn]bool{}}
	t.wg.Go(t.accept)
	return t, nil
}

func (t *tunnel) accept() {
	for {
		c, err := t.ln.Accept()
		if err != nil {
			return // closed
		}
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			_ = c.Close()
			return
		}
		t.conns[c] = true
		to := t.target
		t.wg.Go(func() { t.forward(c, to) })
		t.mu.Unlock()
	}
}

// forward joins two connections until both have ended. A renderer that cannot be
// reached closes the connection, as one that is gone would.
func (t *tunnel) forward(here net.Conn, to string) {
	defer t.drop(here)
	ctx, cancel := context.WithTimeout(context.Background(), tunnelDialTimeout)
	defer cancel()
	there, err := t.site.run.dial(ctx, to)
	if err != nil {
		return
	}
	defer func() { _ = there.Close() }()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, err := io.Copy(here, there)
		if err != nil {
			if tcp, ok := here.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // cut, not ended: whoever reads must not take it for whole
			}
			_ = here.Close()
			return
		}
		closeWrite(here)
	}()
	_, _ = io.Copy(there, here)
	closeWrite(there)
	<-back
}

// closeWrite says that no more will come, and leaves the other way open.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}

func (t *tunnel) drop(c net.Conn) {
	t.mu.Lock()
	delete(t.conns, c)
	t.mu.Unlock()
	_ = c.Close()
}

func (t *tunnel) close() {
	_ = t.ln.Close()
	t.mu.Lock()
	t.closed = true
	for c := range t.conns {
		_ = c.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// closeTunnels ends those whose resource is not wanted any more; nil: all.
func (s *site) closeTunnels(wanted func(domain.ResourceID) bool) {
	s.mu.Lock()
	var over []*tunnel
	for id, t := range s.tunnels {
		if wanted == nil || !wanted(id) {
			over = append(over, t)
			delete(s.tunnels, id)
		}
	}
	s.mu.Unlock()
	for _, t := range over {
		t.close()
	}
}
