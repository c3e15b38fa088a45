package unicore_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/domain"
)

func TestTunnel(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	if host, _, err := net.SplitHostPort(r.Address); err != nil || !net.ParseIP(host).IsLoopback() {
		t.Errorf("the address %s is not on this machine's loopback", r.Address)
	}
	o := ready(t, l, r)
	want, err := pid(o.Address)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Named("r")[0].Process(); p != want {
		t.Errorf("the tunnel leads to process %d, want %d", want, p)
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if got, err := pid(o.Address); err != nil || got != want {
				t.Errorf("process %d, %v; want %d", got, err, want)
			}
		})
	}
	wg.Wait()
	// A connection outlives the site's answer by far, and is cut with the tunnel.
	kept := dial(t, o.Address)
	ask := func() error {
		if _, err := io.WriteString(kept, "GET /pid HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		res, err := http.ReadResponse(bufio.NewReader(kept), nil)
		if err != nil {
			return err
		}
		_, err = io.ReadAll(res.Body)
		return errors.Join(err, res.Body.Close())
	}
	for range 2 {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	// Another rrm on this machine, after a restart say, has the same address, and both lead there.
	second := open(t, opts)
	if err := second.Reach(o.Launched); err != nil {
		t.Fatal(err)
	}
	if now := becomes(t, second, r, domain.LaunchRunning, ""); now.Address != o.Address {
		t.Errorf("a second launcher has the address %s, want %s", now.Address, o.Address)
	}
	for range 20 {
		if got, err := pid(o.Address); err != nil || got != want {
			t.Errorf("process %d, %v; want %d", got, err, want)
		}
	}
	l.Close()
	if err := ask(); err == nil {
		t.Error("a connection outlived its tunnel")
	}
	if got, err := pid(o.Address); err != nil || got != want {
		t.Errorf("with the first rrm gone: process %d, %v; want %d", got, err, want)
	}
	if err := second.Stop(t.Context(), o.Launched, true); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", o.Address); err == nil {
		_ = c.Close()
		t.Error("the tunnel of a stopped resource still listens")
	}
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// A model or a picture is bigger than any buffer on the way.
func TestTunnelCarriesMuch(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	l := open(t, options(t, s))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // an echo
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	sp := spec(t, "r")
	sp.Renderer.CommandLine, sp.Renderer.SchedulerFormat = "sleep 60", ""
	r := launch(t, l, sp)
	port := ln.Addr().(*net.TCPAddr).Port
	eventually(t, func() (bool, string) { // once the job has written its own
		_, err := os.Stat(filepath.Join(s.Named("r")[0].Dir, "rrm-address"))
		return err == nil, "the job has no address"
	})
	place := fmt.Sprintf("127.0.0.1 %d echo-node 1700000000 0\n", port)
	if err := os.WriteFile(filepath.Join(s.Named("r")[0].Dir, "rrm-address"), []byte(place), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := becomes(t, l, r, domain.LaunchRunning, ""); o.Node != "echo-node" || o.Started.Unix() != 1700000000 {
		t.Errorf("it is %+v, want what the job wrote", o)
	}
	c := dial(t, r.Address)
	const size = 8 << 20
	go func() { _, _ = io.CopyN(c, &counting{}, size) }()
	got, want := bufio.NewReader(c), &counting{}
	for i := range size {
		a, err := got.ReadByte()
		if err != nil {
			t.Fatalf("after %d bytes: %v", i, err)
		}
		if b := want.next(); a != b {
			t.Fatalf("byte %d is %d, want %d", i, a, b)
		}
	}
}

// counting is a stream in which no byte can be lost or moved unseen.
type counting struct{ n uint32 }

func (c *counting) next() byte {
	c.n = c.n*1664525 + 1013904223
	return byte(c.n >> 24)
}

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next()
	}
	return len(p), nil
}

func TestTunnelTrouble(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	o := ready(t, l, r)
	for name, c := range map[string]struct {
		fault  func(http.ResponseWriter, *http.Request)
		reason string
	}{
		"expired": {func(w http.ResponseWriter, _ *http.Request) { unicoretest.Refuse(w, 432, "") }, "expired"},
		"nothing there": {func(w http.ResponseWriter, _ *http.Request) {
			unicoretest.Refuse(w, 500, "Could not connect to backend service")
		}, "Could not connect"},
		"an old server": {func(w http.ResponseWriter, _ *http.Request) { unicoretest.Answer(w, 200, map[string]string{}) }, "200"},
		"another switch": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "h2c")
			w.WriteHeader(http.StatusSwitchingProtocols)
		}, `switches to "h2c"`},
	} {
		s.Change(func(s *unicoretest.Site) {
			s.Fault = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/forward-port") {
					return false
				}
				c.fault(w, r)
				return true
			}
		})
		if _, err := pid(o.Address); err == nil {
			t.Errorf("%s: the renderer answers", name)
		}
		if o := observe(t, l, r); o.State != domain.LaunchRunning || !strings.Contains(o.Reason, c.reason) {
			t.Errorf("%s: it is %s, %q", name, o.State, o.Reason)
		}
	}
	s.Change(func(s *unicoretest.Site) { s.Fault = nil })
	if _, err := pid(o.Address); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if o := observe(t, l, r); o.Reason != "" {
		t.Errorf("afterwards there is still %q", o.Reason)
	}
}

// An address that another program holds is not taken for the renderer's.
func TestTunnelAddressTaken(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	ready(t, l, r)
	l.Close()
	var ln net.Listener
	eventually(t, func() (bool, string) { // processes that other tests start hold it for a moment
		var err error
		ln, err = net.Listen("tcp4", r.Address)
		return err == nil, fmt.Sprint(err)
	})
	defer ln.Close()
	second := open(t, opts)
	becomes(t, second, r, domain.LaunchUnknown, "open the tunnel")
	if err := second.Reach(r); err == nil {
		t.Error("reached through another program's port")
	}
	_ = ln.Close()
	becomes(t, second, r, domain.LaunchRunning, "")
}
