package slurm_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/adapters/launch/slurm"
	"github.com/rendering-resource-manager/rrm/adapters/launch/slurm/slurmtest"
	"github.com/rendering-resource-manager/rrm/domain"
)

// One cluster serves the tests that leave it well; those that break one have their own.
var (
	cluster    *slurmtest.Cluster
	notStarted error
	testDir    string // seen by the nodes
)

// atOnce is how many tests run together: they mostly wait for Slurm, whose steps take up to a second each.
const atOnce = "6"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := errors.Join(flag.Set("test.parallel", atOnce), setUp()); err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		os.Exit(1)
	}
	code := m.Run()
	if cluster != nil {
		if err := cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the cluster:", err)
			code = 1
		}
	}
	_ = os.RemoveAll(testDir)
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func setUp() (err error) {
	if testDir, err = os.MkdirTemp("/tmp", "rrm-launch-slurm-"); err != nil {
		return err
	}
	if notStarted = slurmtest.Missing(); notStarted != nil {
		return nil
	}
	cluster, err = slurmtest.Start(3)
	return err
}

func needCluster(t *testing.T) *slurmtest.Cluster {
	t.Helper()
	if notStarted != nil {
		t.Skip(notStarted)
	}
	return cluster
}

// ownCluster is for a test that breaks it.
func ownCluster(t *testing.T, nodes int) *slurmtest.Cluster {
	t.Helper()
	needCluster(t)
	t.Parallel()
	c, err := slurmtest.Start(nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// localSite runs Slurm's commands on this machine.
func localSite(t *testing.T) slurm.Site {
	t.Helper()
	return siteOf(t, needCluster(t))
}

func siteOf(t *testing.T, c *slurmtest.Cluster) slurm.Site {
	t.Helper()
	dir, err := os.MkdirTemp(testDir, "s")
	if err != nil {
		t.Fatal(err)
	}
	return slurm.Site{Name: "here", Directory: dir, NodeAddress: "127.0.0.1", SlurmConf: c.Conf, FirstPort: c.FirstPort, LastPort: c.LastPort, Timeout: domain.Duration(10 * time.Second)}
}

func options(sites ...slurm.Site) slurm.Options {
	return slurm.Options{
		Service: rand.Text(), Sites: sites, Every: 100 * time.Millisecond, QueueEvery: 500 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// reopen is rrm started again.
func reopen(t *testing.T, opts slurm.Options) *slurm.Launcher {
	t.Helper()
	l, err := slurm.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

type withOptions struct {
	*slurm.Launcher
	opts slurm.Options
}

// scheduled turns the suite's renderers into scheduled ones.
func scheduled(r domain.Renderer) domain.Renderer {
	r.Launcher, r.SchedulerFormat, r.ProcessFormat, r.Memory = domain.LauncherSlurm, r.ProcessFormat, "", 50
	return r
}

func TestSuite(t *testing.T) {
	needCluster(t)
	t.Parallel()
	launchtest.Run(t, func(t *testing.T) launchtest.Launcher {
		opts := options(localSite(t))
		return withOptions{reopen(t, opts), opts}
	}, launchtest.Options{
		ProgramDir: testDir, Renderer: scheduled, LateFailures: true,
		Patience: 30 * time.Second, Notice: 10 * time.Second, // Slurm's own steps take up to a second each, and KillWait
		Again: func(t *testing.T, first launchtest.Launcher) launchtest.Launcher {
			opts := first.(withOptions).opts
			return withOptions{reopen(t, opts), opts}
		},
		Kill: kill,
	})
}

func kill(t *testing.T, r domain.Launched) {
	t.Helper()
	if err := syscall.Kill(pid(t, r.Address), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// get asks the renderer.
func get[T any](t *testing.T, address, path string) (v T) {
	t.Helper()
	res, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

func pid(t *testing.T, address string) int {
	t.Helper()
	return get[int](t, address, "/pid")
}

// spec is a resource of the test's renderer.
func spec(t *testing.T, id domain.ResourceID, change func(*domain.Renderer)) domain.LaunchSpec {
	t.Helper()
	r := domain.Renderer{
		ID: "test", CommandLine: launchtest.Program(t, testDir), SchedulerFormat: "-listen ${rest_hostname}:${rest_port}",
		Launcher: domain.LauncherSlurm, CPUs: 1, Memory: 50, GracefulExit: true,
	}
	if change != nil {
		change(&r)
	}
	return domain.LaunchSpec{Resource: id, Renderer: r}
}

func launch(t *testing.T, l *slurm.Launcher, s domain.LaunchSpec) domain.Launched {
	t.Helper()
	r, err := l.Launch(t.Context(), s)
	if err != nil {
		t.Fatalf("launch %s: %v", s.Resource, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := l.Stop(ctx, r, false); err != nil {
			t.Errorf("stop %s after the test: %v", r.Resource, err)
		}
	})
	return r
}

func observe(t *testing.T, l *slurm.Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	got, err := l.Observe(t.Context(), []domain.Launched{r})
	if err != nil || len(got) != 1 {
		t.Fatalf("observe: %v, %v", got, err)
	}
	return got[0]
}

// await observes until the condition holds.
func await(t *testing.T, l *slurm.Launcher, r domain.Launched, what string, condition func(domain.Observed) bool) domain.Observed {
	t.Helper()
	var last domain.Observed
	eventually(t, 30*time.Second, what, func() (bool, string) {
		last = observe(t, l, r)
		return condition(last), fmt.Sprintf("%s at %q: %s", last.State, last.Address, last.Reason)
	})
	return last
}

func eventually(t *testing.T, within time.Duration, what string, condition func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(within); ; <-tick.C {
		done, how := condition()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s; now %s", within, what, how)
		}
	}
}

// running waits until the renderer answers.
func running(t *testing.T, l *slurm.Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	return await(t, l, r, "it runs and answers", func(o domain.Observed) bool {
		if o.State == domain.LaunchGone {
			said, err := l.Output(t.Context(), r, slurm.Stderr, 2000)
			t.Fatalf("%s is gone: %s; its last words: %q, %v", r.Resource, o.Reason, said, err)
		}
		if o.State != domain.LaunchRunning || o.Address == "" {
			return false
		}
		res, err := http.Get("http://" + o.Address + "/pid")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return true
	})
}

func gone(t *testing.T, l *slurm.Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	return await(t, l, r, "it is gone", func(o domain.Observed) bool { return o.State == domain.LaunchGone })
}
