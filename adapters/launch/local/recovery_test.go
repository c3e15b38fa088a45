package local_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/launchtest"
	"github.com/rendering-resource-manager/rrm/adapters/launch/local"
	"github.com/rendering-resource-manager/rrm/domain"
)

// A crash of rrm between starting the process and recording it leaves a
// record that says starting; a lost disk leaves none, or half of one.
func TestAProcessIsFoundWithoutItsRecord(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, local.Options){
		"starting": func(t *testing.T, o local.Options) {
			changeRecord(t, o, "r", func(rec map[string]any) {
				rec["phase"] = "starting"
				delete(rec, "pid")
				delete(rec, "start_time")
			})
		},
		"lost": func(t *testing.T, o local.Options) {
			if err := os.RemoveAll(filepath.Join(o.Dir, "r")); err != nil {
				t.Fatal(err)
			}
		},
		"half": func(t *testing.T, o local.Options) {
			if err := os.WriteFile(recordPath(o, "r"), []byte(`{"resource":`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, first := range []string{"launch", "observe", "list", "stop"} {
			t.Run(name+", then "+first, func(t *testing.T) {
				t.Parallel()
				l, opts := open(t, nil)
				s := spec(t, "r", "-child")
				before := launch(t, l, s)
				var pidBefore int
				get(t, before, "/pid", &pidBefore)
				spoil(t, opts)
				second := reopen(t, opts)
				switch first {
				case "observe":
					if o := observe(t, second, domain.Launched{Resource: "r"}); o.State != domain.LaunchRunning || o.Address != before.Address {
						t.Errorf("observed %s at %q, want running at %s", o.State, o.Address, before.Address)
					}
				case "list":
					all, err := second.List(t.Context())
					if err != nil || len(all) != 1 || string(all[0].Handle) == "" || all[0].Address != before.Address {
						t.Errorf("listed %+v, %v; want the resource at %s", all, err, before.Address)
					}
				case "stop":
					if err := second.Stop(t.Context(), domain.Launched{Resource: "r"}, true); err != nil {
						t.Fatal(err)
					}
					if o := observe(t, second, before); o.State != domain.LaunchGone {
						t.Errorf("after the stop it is %s, want gone", o.State)
					}
					return
				}
				after := launch(t, second, s)
				if after.Address != before.Address || pid(t, after) != pidBefore {
					t.Errorf("launched %s, want it found: %s", after.Handle, before.Handle)
				}
			})
		}
	}
}

func TestAStartThatNeverHappenedIsGone(t *testing.T) {
	t.Parallel()
	l, opts := open(t, nil)
	r := launch(t, l, spec(t, "r", ""))
	if err := l.Stop(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
	changeRecord(t, opts, "r", func(rec map[string]any) { rec["phase"] = "starting" })
	if o := observe(t, l, r); o.State != domain.LaunchGone || !strings.Contains(o.Reason, "never started") {
		t.Errorf("observed %s, %q; want gone, never started", o.State, o.Reason)
	}
}

// Process IDs are given again. A record with the ID of a process that is not
// its own must not lead to that process's end.
func TestAnotherProcessWithTheSameIDIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(map[string]any){
		"other start time": func(rec map[string]any) { rec["start_time"] = 1 },
		"other boot":       func(rec map[string]any) { rec["boot"] = "another run of the machine" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, opts := open(t, nil)
			r := launch(t, l, spec(t, "r", ""))
			if err := l.Stop(t.Context(), r, false); err != nil {
				t.Fatal(err)
			}
			innocent := exec.Command(launchtest.Program(t, programDir), "-lifeless")
			if err := innocent.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- innocent.Wait() }()
			t.Cleanup(func() { _ = innocent.Process.Kill(); <-ended })
			start := startTime(t, innocent.Process.Pid)
			changeRecord(t, opts, "r", func(rec map[string]any) {
				rec["phase"], rec["pid"], rec["start_time"] = "running", innocent.Process.Pid, start
				change(rec)
			})
			second := reopen(t, opts)
			if all, err := second.List(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("listed %v, %v; want none", all, err)
			}
			if err := second.Stop(t.Context(), r, true); err != nil {
				t.Fatal(err)
			}
			if o := observe(t, second, r); o.State != domain.LaunchGone || o.Reason == "" {
				t.Errorf("observed %s, %q; want gone with a reason", o.State, o.Reason)
			}
			select {
			case err := <-ended:
				ended <- err
				t.Errorf("the innocent process was ended: %v", err)
			default:
			}
		})
	}
}

func startTime(t *testing.T, pid int) json.Number {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return json.Number(strings.Fields(string(b))[21]) // the test's program has no space in its name
}

func TestServicesOnOneMachineLeaveEachOtherAlone(t *testing.T) {
	t.Parallel()
	mine, opts := open(t, nil)
	r := launch(t, mine, spec(t, "same-id", ""))
	theirs, _ := open(t, nil)
	sharing := reopen(t, local.Options{Dir: opts.Dir, Service: "another", Logger: opts.Logger})
	for name, l := range map[string]*local.Launcher{"other directory": theirs, "same directory": sharing} {
		if all, err := l.List(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%s: listed %v, %v; want none", name, all, err)
		}
		if err := l.Stop(t.Context(), domain.Launched{Resource: "same-id"}, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var p int
	get(t, r, "/pid", &p)
	if p != pid(t, r) {
		t.Errorf("process %d answers, want %d", p, pid(t, r))
	}
}

func TestWhatRunsElsewhereIsUnknownNotGone(t *testing.T) {
	t.Parallel()
	l, _ := open(t, nil)
	r := domain.Launched{Resource: "far-away", Handle: domain.Handle(`{"pid":1,"start_time":1,"node":"another-machine"}`)}
	if o := observe(t, l, r); o.State != domain.LaunchUnknown || !strings.Contains(o.Reason, "another-machine") {
		t.Errorf("observed %s, %q; want unknown, with where it is", o.State, o.Reason)
	}
	if err := l.Stop(t.Context(), r, true); err == nil || !strings.Contains(err.Error(), "another-machine") {
		t.Errorf("stop: %v, want an error that says where it is", err)
	}
}

// A crash of rrm after the renderer's end may leave its children.
func TestLeftoversOfAnEndedResourceAreKilled(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(*local.Launcher, domain.Launched) error{
		"by a stop": func(l *local.Launcher, r domain.Launched) error { return l.Stop(t.Context(), r, true) },
		"by a stop of the unknown": func(l *local.Launcher, _ domain.Launched) error {
			return l.Stop(t.Context(), domain.Launched{Resource: "unknown"}, true)
		},
		"by a launch": func(l *local.Launcher, r domain.Launched) error { launch(t, l, spec(t, r.Resource, "")); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l, opts := open(t, nil)
			r := launch(t, l, spec(t, "r", ""))
			if err := l.Stop(t.Context(), r, false); err != nil {
				t.Fatal(err)
			}
			id := "r"
			if strings.Contains(name, "unknown") {
				id = "unknown"
			}
			left := exec.Command(launchtest.Program(t, programDir), "-lifeless")
			left.Env = []string{"RRM_RESOURCE=" + id, "RRM_SERVICE=" + opts.Service}
			if err := left.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = left.Wait(); close(ended) }()
			t.Cleanup(func() { _ = left.Process.Kill(); <-ended })
			if err := act(l, r); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Error("it runs on")
			}
		})
	}
}
