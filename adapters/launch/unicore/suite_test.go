package unicore_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/domain"
)

// programDir holds the test's renderer for all tests of this package.
var programDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rrm-launch-unicore-")
	if err != nil {
		panic(err)
	}
	programDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// buffer takes the log of several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// ports are given out in blocks, so that the double's one node serves many tests at once.
var ports atomic.Int32

// options are those of a launcher at the double, in a hurry.
func options(t *testing.T, s *unicoretest.Site) unicore.Options {
	t.Helper()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(unicoretest.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const block = 150
	first := 10_000 + int(ports.Add(1)-1)%150*block
	return unicore.Options{
		FirstPort: first, LastPort: first + block - 1,
		Site: s.Base(), Service: rand.Text(), TokenFile: token, CAFile: s.CA(), ListenHost: "127.0.0.1",
		Timeout: 5 * time.Second, Every: 20 * time.Millisecond, RunningEvery: 20 * time.Millisecond, ObserveWait: 5 * time.Second,
		Settle: 500 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
}

func open(t *testing.T, opts unicore.Options) *unicore.Launcher {
	t.Helper()
	l, err := unicore.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

type atSite struct {
	*unicore.Launcher
	opts unicore.Options
}

func TestSuite(t *testing.T) {
	var sites sync.Map // address -> *unicoretest.Site
	launchtest.Run(t, func(t *testing.T) launchtest.Launcher {
		s := unicoretest.Start(t)
		sites.Store(s.Base(), s)
		opts := options(t, s)
		return atSite{open(t, opts), opts}
	}, launchtest.Options{
		ProgramDir: programDir, LateFailures: true, Tunnelled: true,
		Renderer: func(r domain.Renderer) domain.Renderer {
			r.Launcher, r.SchedulerFormat, r.ProcessFormat = domain.LauncherUnicore, r.ProcessFormat, ""
			return r
		},
		Again: func(t *testing.T, first launchtest.Launcher) launchtest.Launcher {
			opts := first.(atSite).opts
			return atSite{open(t, opts), opts}
		},
		Kill: func(t *testing.T, r domain.Launched) {
			base, id := read(t, r)
			s, _ := sites.Load(base)
			if err := syscall.Kill(s.(*unicoretest.Site).Job(id).Process(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
	})
}

// read takes a handle apart.
func read(t *testing.T, r domain.Launched) (base, job string) {
	t.Helper()
	var h struct {
		Site string `json:"site"`
		Job  string `json:"job"`
	}
	if err := json.Unmarshal(r.Handle, &h); err != nil || h.Job == "" {
		t.Fatalf("handle %s: %v", r.Handle, err)
	}
	return h.Site, h.Job
}
