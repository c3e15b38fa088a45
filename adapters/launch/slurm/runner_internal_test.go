package slurm

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// scripted is a site that says what it is told to, by the name of the command.
type scripted map[string]string

func (s scripted) run(_ context.Context, c command) (result, error) {
	return result{stdout: []byte(s[c.name])}, nil
}
func (scripted) dial(context.Context, string) (net.Conn, error) {
	return brokenConn{asked: make(chan struct{}, 1)}, nil
}
func (scripted) host() string { return "scripted" }
func (scripted) close() error { return nil }

// Between two commands the controller may crash, and the job's ID be another's.
func TestAnIDThatIsAnothersByNowIsNotBelieved(t *testing.T) {
	t.Parallel()
	l, _ := testLauncher(t, nil)
	s := l.sites[0]
	jobs := []job{{site: s, id: 5, name: "rrm.svc.a"}, {site: s, id: 6, name: "rrm.svc.b"}}
	s.run = scripted{"squeue": "5   768   rrm.svc.a\n6   0   somebody\n7 0 rrm.svc.b\n"}
	statuses, err := s.exitStatuses(t.Context(), jobs)
	if err != nil || len(statuses) != 1 || statuses[5] != 768 {
		t.Errorf("%v, %v; want the status of 5 only", statuses, err)
	}
	s.run = scripted{
		"id": "me\n", "squeue": "5|RUNNING|None|n1|N/A|N/A|main|1|rrm.svc.a|(null)\n",
		"scontrol": "JobId=5 JobName=somebody\n   UserId=me\n",
	}
	if info, err := l.Info(t.Context(), domain.Launched{Resource: "a"}); err == nil {
		t.Errorf("somebody else's job is told as ours: %s", info)
	}
}

func TestLocalRunner(t *testing.T) {
	t.Parallel()
	r := newLocalRunner("", 300*time.Millisecond)
	res, err := r.run(t.Context(), command{name: "sh", args: []string{"-c", "cat; echo err >&2; echo $A; exit 3"}, env: []string{"A=b c"}, stdin: []byte("in ")})
	if err != nil || string(res.stdout) != "in b c\n" || string(res.stderr) != "err\n" || res.status != 3 {
		t.Errorf("%q %q %d, %v", res.stdout, res.stderr, res.status, err)
	}
	start := time.Now()
	_, err = r.run(t.Context(), command{name: "sleep", args: []string{"60"}})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errNotBegun) || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %s; want its own timeout, and that it was begun", err, time.Since(start))
	}
	if _, err = r.run(t.Context(), command{name: "no-such-program"}); !errors.Is(err, errNotBegun) {
		t.Errorf("%v, want that it was not begun", err)
	}
	if _, err = r.run(t.Context(), command{name: "sh", args: []string{"-c", "kill -9 $$"}}); err == nil {
		t.Error("a command that was killed was no error")
	}
	r.timeout = 30 * time.Second
	if _, err = r.run(t.Context(), command{name: "head", args: []string{"-c", "40000000", "/dev/zero"}}); err == nil {
		t.Error("40 MB of output were no error")
	}
	if strings.Contains(strings.Join(r.environ, "\n"), "RRM_") || len(r.environ) == 0 {
		t.Errorf("the environment is %q with %d of ours", r.environ, len(os.Environ()))
	}
}

// brokenConn says a little once it is asked, and breaks.
type brokenConn struct {
	net.Conn
	asked chan struct{}
}

var errBroken = errors.New("broken")

func (b brokenConn) WriteTo(w io.Writer) (int64, error) {
	<-b.asked
	n, _ := w.Write([]byte("half"))
	return int64(n), errBroken
}
func (brokenConn) Read([]byte) (int, error) { return 0, errBroken }
func (b brokenConn) Write(p []byte) (int, error) {
	b.asked <- struct{}{}
	return len(p), nil
}
func (brokenConn) Close() error { return nil }

// What was cut in the middle must not look whole to who reads until the end.
func TestTunnelDoesNotMakeAnEndOfACut(t *testing.T) {
	t.Parallel()
	tunnel, err := openTunnel(&site{run: scripted{}}, "n1:1", "")
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.close()
	c, err := net.Dial("tcp", tunnel.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err == nil {
		t.Errorf("%q looks whole", got)
	}
}

func TestQueueCountsWhoIsAhead(t *testing.T) {
	t.Parallel()
	s := &site{run: scripted{"squeue": "main|10\nmain|30\nmain,low|20\nmain|0\nlow|5\nnonsense\n"}}
	if _, known := s.ahead(&job{partition: "main", priority: 10}); known {
		t.Error("it counted before it asked")
	}
	s.askQueue(t.Context())
	for _, c := range []struct {
		partition string
		priority  int64
		want      int
	}{{"main", 10, 2}, {"main", 30, 0}, {"main", 20, 1}, {"main", -1, 3}, {"low", 5, 1}, {"none", 1, 0}} {
		if n, known := s.ahead(&job{partition: c.partition, priority: c.priority}); !known || n != c.want {
			t.Errorf("%d ahead of %d in %s, want %d", n, c.priority, c.partition, c.want)
		}
	}
}
