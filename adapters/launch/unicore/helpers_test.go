package unicore_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/domain"
)

// spec is a resource of the test's renderer.
func spec(t *testing.T, id domain.ResourceID) domain.LaunchSpec {
	t.Helper()
	return domain.LaunchSpec{Resource: id, Renderer: domain.Renderer{
		ID: "test", CommandLine: launchtest.Program(t, programDir), SchedulerFormat: "-listen ${rest_hostname}:${rest_port}",
		GracefulExit: true, WaitUntilReady: true, Launcher: domain.LauncherUnicore, Slots: 1, Nodes: 1, CPUs: 1,
	}}
}

func launch(t *testing.T, l *unicore.Launcher, s domain.LaunchSpec) domain.Launched {
	t.Helper()
	r, err := l.Launch(t.Context(), s)
	if err != nil {
		t.Fatalf("launch %s: %v", s.Resource, err)
	}
	return r
}

func observe(t *testing.T, l *unicore.Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	got, err := l.Observe(t.Context(), []domain.Launched{r})
	if err != nil || len(got) != 1 {
		t.Fatalf("observe: %d answers, %v; want one", len(got), err)
	}
	return got[0]
}

// eventually polls a condition, which also says how far it is.
func eventually(t *testing.T, condition func() (bool, string)) {
	t.Helper()
	const within = 10 * time.Second
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(within)
	for {
		done, state := condition()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, state)
		}
		<-tick.C
	}
}

// becomes waits until the launcher sees a state whose reason holds the text.
func becomes(t *testing.T, l *unicore.Launcher, r domain.Launched, state domain.LaunchState, text string) domain.Observed {
	t.Helper()
	var last domain.Observed
	eventually(t, func() (bool, string) {
		last = observe(t, l, r)
		return last.State == state && strings.Contains(last.Reason, text), string(last.State) + " " + last.Reason
	})
	return last
}

// ready waits until the renderer answers.
func ready(t *testing.T, l *unicore.Launcher, r domain.Launched) domain.Observed {
	t.Helper()
	var last domain.Observed
	eventually(t, func() (bool, string) {
		last = observe(t, l, r)
		if last.State != domain.LaunchRunning || last.Node == "" {
			return false, string(last.State) + " " + last.Reason
		}
		_, err := pid(last.Address)
		return err == nil, "the renderer does not answer"
	})
	return last
}

// pid asks the renderer for its process ID, through the tunnel and on a connection of its own.
func pid(address string) (n int, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := client.Get("http://" + address + "/pid")
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	err = json.Unmarshal(b, &n)
	return n, err
}

// begun is how many jobs of a resource were ever started, and exist.
func begun(s *unicoretest.Site, name string) (n int) {
	for _, j := range s.Named(name) {
		if j.Submitted() {
			n++
		}
	}
	return n
}
