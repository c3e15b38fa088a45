package unicore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rendering-resource-manager/rrm/domain"
)

const (
	upgradeProtocol = "UNICORE-Socket-Forwarding"
	maxConnections  = 256 // through one tunnel at once
	placeEvery      = time.Second
)

// tunnel is a listener on this machine, each of whose connections is forwarded
// by the site to the renderer on its node.
type tunnel struct {
	address string
	ln      net.Listener
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	slots   chan struct{}

	mu     sync.Mutex
	job    jobID
	asked  time.Time // for the renderer's place
	failed error     // why the last connection could not be made; nil if it could
}

// addressOf is the tunnel's address, the same in each rrm and for ever: it is
// in the log before and after a restart, and in other replicas. 36 bits of a
// hash choose it in 127.0.0.0/8, all of which is this machine, so that no two
// resources meet, and below the ports that Linux gives to outgoing connections.
func (l *Launcher) addressOf(id domain.ResourceID) string {
	sum := sha256.Sum256([]byte("tunnel " + l.name(id)))
	port := 10240 + int(binary.BigEndian.Uint16(sum[3:5]))%(32768-10240)
	ip := net.IPv4(127, 1+sum[0]%253, sum[1], 1+sum[2]%253)
	return net.JoinHostPort(ip.String(), strconv.Itoa(port))
}

// Reach opens the tunnel to a resource, if it is not open, so that its address
// leads to it. Launch and Observe do so by themselves; other rrm processes than the
// one that launches must call it before they connect.
func (l *Launcher) Reach(r domain.Launched) error {
	if err := checkID(r.Resource); err != nil {
		return err
	}
	h, err := readHandle(r.Handle)
	if err != nil {
		return err
	}
	if h.Job == "" {
		return errors.New("its job is not known")
	}
	_, err = l.reach(r.Resource, h.Job)
	return err
}

// reach opens the resource's tunnel, or turns it to another job.
func (l *Launcher) reach(id domain.ResourceID, job jobID) (address string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.tunnels[id]; t != nil {
		t.mu.Lock()
		t.job = job
		t.mu.Unlock()
		return t.address, nil
	}
	address = l.addressOf(id)
	if l.closed {
		return address, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	// SO_REUSEPORT lets several rrm of one user open the same tunnel, and
	// nobody else take its place.
	conf := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, set)
	}}
	ln, err := conf.Listen(ctx, "tcp4", address)
	if err != nil {
		cancel()
		return "", fmt.Errorf("open the tunnel to the renderer: %w", err)
	}
	t := &tunnel{address: address, ln: ln, cancel: cancel, job: job, slots: make(chan struct{}, maxConnections)}
	t.wg.Go(func() { l.serve(ctx, t, id) })
	l.tunnels[id] = t
	return address, nil
}

// unreach closes the resource's tunnel, if there is one.
func (l *Launcher) unreach(id domain.ResourceID) {
	l.mu.Lock()
	t := l.tunnels[id]
	delete(l.tunnels, id)
	l.mu.Unlock()
	if t != nil {
		t.close()
	}
}

// close ends the tunnel and all connections through it.
func (t *tunnel) close() {
	t.cancel()
	_ = t.ln.Close()
	t.wg.Wait()
}

// trouble says why the renderer could not be reached lately; empty if it could.
func (l *Launcher) trouble(id domain.ResourceID) string {
	l.mu.Lock()
	t := l.tunnels[id]
	l.mu.Unlock()
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		return ""
	}
	return t.failed.Error()
}

func (l *Launcher) serve(ctx context.Context, t *tunnel, id domain.ResourceID) {
	for {
		c, err := t.ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			if wait(ctx, settleEvery) != nil { // too many open files, say
				return
			}
			continue
		}
		select {
		case t.slots <- struct{}{}:
		default:
			_ = c.Close()
			continue
		}
		t.wg.Go(func() {
			defer func() { <-t.slots }()
			defer func() { _ = c.Close() }()
			remote, err := l.connect(ctx, t, id)
			t.mu.Lock()
			t.failed = err
			t.mu.Unlock()
			if err == nil {
				join(ctx, c, remote)
			}
		})
	}
}

// join passes on what comes from either side until one ends, or ctx.
func join(ctx context.Context, a net.Conn, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	var once sync.Once
	shut := func() {
		once.Do(func() {
			_ = a.Close()
			_ = b.Close()
		})
	}
	stop := context.AfterFunc(ctx, shut)
	defer stop()
	for _, way := range []struct {
		to   io.Writer
		from io.Reader
	}{{a, b}, {b, a}} {
		wg.Go(func() {
			defer shut()
			_, _ = io.Copy(way.to, way.from)
		})
	}
	wg.Wait()
}

// connect makes one connection to the renderer.
func (l *Launcher) connect(ctx context.Context, t *tunnel, id domain.ResourceID) (io.ReadWriteCloser, error) {
	t.mu.Lock()
	job := t.job
	t.mu.Unlock()
	a, err := l.accountFor(ctx, id)
	if err != nil {
		return nil, err
	}
	base, err := l.site(ctx, a)
	if err != nil {
		return nil, err
	}
	where, err := l.placeOf(ctx, t, a, base, job)
	if err != nil {
		return nil, err
	}
	remote, err := l.forward(ctx, a, base, job, where)
	if err != nil {
		return nil, fmt.Errorf("forward to %s: %w", where.node, err)
	}
	return remote, nil
}

// placeOf is where the renderer is. The site is asked rarely: clients may knock often.
func (l *Launcher) placeOf(ctx context.Context, t *tunnel, a *account, base string, job jobID) (*place, error) {
	l.mu.Lock()
	v := l.views[job]
	l.mu.Unlock()
	if v != nil && v.place != nil {
		return v.place, nil
	}
	t.mu.Lock()
	soon := time.Since(t.asked) < placeEvery
	if !soon {
		t.asked = time.Now()
	}
	t.mu.Unlock()
	if !soon {
		v, err := l.look(ctx, a, base, job)
		if err != nil {
			return nil, err
		}
		if v.place != nil {
			return v.place, nil
		}
	}
	return nil, errors.New("the renderer's node is not known yet")
}

// forward asks the site for a connection. The credentials are sent, not a
// security session, which the site may let expire while the connection lasts.
func (l *Launcher) forward(ctx context.Context, a *account, base string, job jobID, to *place) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel() // the connection outlives it: it is ours once the site has switched protocols
	q := url.Values{"host": {to.host}, "port": {strconv.Itoa(to.port)}}
	req, err := newRequest(ctx, request{method: http.MethodGet, url: jobURL(base, job) + "/forward-port", query: q, accept: "application/json"})
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", string(a.authorization))
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", upgradeProtocol)
	res, err := l.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the site: %w", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = res.Body.Close() }()
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxHeader))
		return nil, &siteError{res.StatusCode, a.scrub(message(body))}
	}
	remote, ok := res.Body.(io.ReadWriteCloser)
	if !ok || !strings.EqualFold(res.Header.Get("Upgrade"), upgradeProtocol) {
		_ = res.Body.Close()
		return nil, fmt.Errorf("%w: it switches to %q", errAnswer, oneLine(res.Header.Get("Upgrade")))
	}
	return remote, nil
}
