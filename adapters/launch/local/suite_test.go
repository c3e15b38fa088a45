package local_test

import (
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"os"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/adapters/launch/local"
	"github.com/rendering-resource-manager/rrm/domain"
)

// programDir holds the test's renderer for all tests of this package.
var programDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "rrm-launch-local-")
	if err != nil {
		panic(err)
	}
	programDir = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// open makes a launcher of a service of its own.
func open(t *testing.T, change func(*local.Options)) (*local.Launcher, local.Options) {
	t.Helper()
	opts := local.Options{Dir: t.TempDir(), Service: rand.Text(), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&opts)
	}
	return reopen(t, opts), opts
}

// reopen is rrm started again over the same directory.
func reopen(t *testing.T, opts local.Options) *local.Launcher {
	t.Helper()
	l, err := local.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type withOptions struct {
	*local.Launcher
	opts local.Options
}

func TestSuite(t *testing.T) {
	launchtest.Run(t, func(t *testing.T) launchtest.Launcher {
		l, opts := open(t, nil)
		return withOptions{l, opts}
	}, launchtest.Options{
		ProgramDir: programDir,
		Again: func(t *testing.T, first launchtest.Launcher) launchtest.Launcher {
			opts := first.(withOptions).opts
			return withOptions{reopen(t, opts), opts}
		},
		Kill: func(t *testing.T, r domain.Launched) {
			if err := syscall.Kill(pid(t, r), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func pid(t *testing.T, r domain.Launched) int {
	t.Helper()
	var h struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(r.Handle, &h); err != nil || h.PID == 0 {
		t.Fatalf("handle %s: %v", r.Handle, err)
	}
	return h.PID
}
