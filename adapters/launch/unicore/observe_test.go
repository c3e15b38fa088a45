package unicore_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/domain"
)

// A round is one list; a job that runs is asked for rarely, one that has ended never again.
func TestOneListARound(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	const many = 6
	all := make([]domain.Launched, many)
	for i := range all {
		all[i] = launch(t, l, spec(t, domain.ResourceID(fmt.Sprint("r", i))))
	}
	for _, r := range all {
		ready(t, l, r)
	}
	if err := l.Stop(t.Context(), all[0], false); err != nil {
		t.Fatal(err)
	}
	opts.Every, opts.RunningEvery = time.Hour, time.Hour
	second := open(t, opts)
	for round := range 3 {
		before := [2]int{s.Count("GET /jobs?"), s.Count("GET /jobs/")}
		got, err := second.Observe(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		for i, o := range got {
			if want := map[bool]domain.LaunchState{true: domain.LaunchGone, false: domain.LaunchRunning}[i == 0]; o.State != want {
				t.Errorf("%s is %s, %s; want %s", o.Resource, o.State, o.Reason, want)
			}
		}
		lists, jobs := s.Count("GET /jobs?")-before[0], s.Count("GET /jobs/")-before[1]
		if round == 0 && (lists != 1 || jobs != many) || round > 0 && lists+jobs != 0 {
			t.Errorf("round %d: %d lists and %d jobs were asked for", round, lists, jobs)
		}
	}
	// When the time for a list has come, one is asked for, and no job that is known.
	opts.Every = time.Nanosecond
	third := open(t, opts)
	for range 2 {
		if _, err := third.Observe(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	before := [2]int{s.Count("GET /jobs?"), s.Count("GET /jobs/")}
	if _, err := third.Observe(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	if lists, jobs := s.Count("GET /jobs?")-before[0], s.Count("GET /jobs/")-before[1]; lists != 1 || jobs != 0 {
		t.Errorf("%d lists and %d jobs were asked for, want one list", lists, jobs)
	}
}

// UNICORE notices 30 to 60 s late that a job runs. Its renderer is used at once.
func TestLateStatus(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	s.Change(func(s *unicoretest.Site) { s.Lag = time.Hour })
	l := open(t, options(t, s))
	r := launch(t, l, spec(t, "r"))
	ready(t, l, r)
	if status := s.Named("r")[0].Properties("")["status"]; status != "QUEUED" {
		t.Errorf("the site says %s, want it to be late", status)
	}
	if err := l.Stop(t.Context(), r, true); err != nil {
		t.Error(err)
	}
}

func TestPendingTellsWhy(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	r := launch(t, open(t, opts), spec(t, "r"))
	s.Change(func(s *unicoretest.Site) {
		waits := map[string]any{
			"name": s.Jobs[jobOf(t, r)].Name, "status": "QUEUED", "queue": "prod", "batchSystemID": 17, "statusMessage": "Resources",
		}
		s.Fault = unicoretest.Only("GET /jobs/", func(w http.ResponseWriter, _ *http.Request) { unicoretest.Answer(w, http.StatusOK, waits) })
	})
	becomes(t, open(t, opts), r, domain.LaunchPending, "queued in prod, batch job 17: Resources")
}

func jobOf(t *testing.T, r domain.Launched) string {
	_, id := read(t, r)
	return id
}

func TestJobRemovedBehindOurBack(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	ready(t, l, r)
	j := s.Job(jobOf(t, r))
	s.Change(func(s *unicoretest.Site) { delete(s.Jobs, j.ID) })
	defer j.Abort()
	becomes(t, l, r, domain.LaunchGone, "no job")
	becomes(t, open(t, opts), r, domain.LaunchGone, "no job")
	if _, err := l.Output(t.Context(), r, "stdout", 10); err == nil {
		t.Error("there is output of a job that is no more")
	}
	if err := l.Stop(t.Context(), r, true); err != nil {
		t.Errorf("stop of what is no more: %v", err)
	}
	// Launched again it is another job.
	again := launch(t, l, spec(t, "r"))
	ready(t, l, again)
	if jobOf(t, again) == j.ID {
		t.Error("the removed job was launched again")
	}
	// Whoever has the old handle finds the new job.
	if o := becomes(t, l, r, domain.LaunchRunning, ""); jobOf(t, o.Launched) != jobOf(t, again) {
		t.Errorf("the old handle leads to job %s, want %s", jobOf(t, o.Launched), jobOf(t, again))
	}
}

func TestJobsOfOthers(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	mine := launch(t, l, spec(t, "mine"))
	ready(t, l, mine)
	// Another's job bears our tags, but not our name; another of our services has its own tags.
	s.Change(func(s *unicoretest.Site) {
		for _, name := range []string{"a-job", "rrm." + opts.Service + ".", "rrm." + opts.Service + "x.mine", "rrm." + opts.Service + ".a b"} {
			j := unicoretest.NewJob(s, "CN=Renderer,O=Test", unicoretest.Description{Name: name, Tags: []string{"rrm." + opts.Service, "rrm." + opts.Service + ".mine"}})
			s.Jobs[j.ID] = j
		}
	})
	all, err := l.List(t.Context())
	if err != nil || len(all) != 1 || all[0].Resource != "mine" {
		t.Errorf("listed %v, %v; want mine only", all, err)
	}
	if again := launch(t, l, spec(t, "mine")); string(again.Handle) != string(mine.Handle) {
		t.Errorf("launched %s, want %s", again.Handle, mine.Handle)
	}
	if err := l.Stop(t.Context(), mine, false); err != nil {
		t.Fatal(err)
	}
	s.Change(func(s *unicoretest.Site) {
		for _, j := range s.Jobs {
			if j.ID != jobOf(t, mine) && j.Properties("")["status"] != "READY" {
				t.Errorf("%s was touched", j.Name)
			}
		}
		if len(s.Jobs) != 5 {
			t.Errorf("there are %d jobs, want all 5", len(s.Jobs))
		}
	})
}

func TestManyJobs(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	const many = 130
	s.Change(func(s *unicoretest.Site) {
		s.PageSize = 60 // less than is asked for
		for i := range many {
			name := fmt.Sprintf("rrm.%s.r%03d", opts.Service, i)
			j := unicoretest.NewJob(s, "CN=Renderer,O=Test", unicoretest.Description{Name: name, Tags: []string{"rrm." + opts.Service, name}})
			s.Jobs[j.ID] = j
		}
	})
	all, err := open(t, opts).List(t.Context())
	if err != nil || len(all) != many {
		t.Fatalf("listed %d, %v; want %d", len(all), err, many)
	}
	for i, r := range all {
		if want := domain.ResourceID(fmt.Sprintf("r%03d", i)); r.Resource != want {
			t.Errorf("number %d is %s, want %s", i, r.Resource, want)
		}
	}
}

func TestEndedJobsAreRemoved(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	opts.KeepEnded = 3
	s.Change(func(s *unicoretest.Site) {
		for i := range 12 {
			name := fmt.Sprintf("rrm.%s.old%02d", opts.Service, i)
			j := unicoretest.NewJob(s, "CN=Renderer,O=Test", unicoretest.Description{Name: name, Tags: []string{"rrm." + opts.Service, name}})
			j.Made = time.Now().Add(time.Duration(i-100) * time.Minute)
			s.Jobs[j.ID] = j
			j.Abort()
		}
	})
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	eventually(t, func() (bool, string) {
		observe(t, l, r)
		return len(s.Named("old00")) == 0 && s.Count("DELETE /jobs/") == 9, fmt.Sprint(s.Count("DELETE /jobs/"), " were removed")
	})
	for _, name := range []string{"old09", "old10", "old11", "r"} {
		if len(s.Named(name)) != 1 {
			t.Errorf("%s was removed", name)
		}
	}
}

func TestHandlesOfOthers(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	l := open(t, options(t, s))
	for handle, reason := range map[string]string{
		`{"pid": 17}`: "", `"x"`: "not one of the unicore launcher", `{"site": "https://other.invalid/S/rest/core", "job": "x"}`: "launched at the site https://other.invalid",
		`{"job": "../../x"}`: "not one of the unicore launcher",
	} {
		r := domain.Launched{Resource: "r", Handle: domain.Handle(handle)}
		if reason == "" {
			becomes(t, l, r, domain.LaunchGone, "no job")
			continue
		}
		becomes(t, l, r, domain.LaunchUnknown, reason)
		if err := l.Stop(t.Context(), r, false); err == nil {
			t.Errorf("%s: stopped", handle)
		}
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	sp := spec(t, "r")
	sp.Renderer.SchedulerFormat += " -lines 10000"
	r := launch(t, l, sp)
	ready(t, l, r)
	const last = "stdout line 9999\nstdout line 10000\n"
	for _, whole := range []bool{false, true} {
		s.Change(func(s *unicoretest.Site) { s.NoRanges = whole })
		for name, l := range map[string]*unicore.Launcher{"the same": l, "a new": open(t, opts)} {
			got, err := l.Output(t.Context(), r, "stdout", int64(len(last)))
			if err != nil || string(got) != last {
				t.Errorf("no ranges %v: %s launcher reads %q, %v; want %q", whole, name, got, err, last)
			}
		}
	}
	s.Change(func(s *unicoretest.Site) { // some servers have no range of a file that is empty
		s.Fault = unicoretest.Only("GET /storages", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) })
	})
	if got, err := l.Output(t.Context(), r, "stderr", 10); err != nil || len(got) != 0 {
		t.Errorf("an empty file is read as %q, %v", got, err)
	}
	s.Change(func(s *unicoretest.Site) { s.Fault = nil })
	if err := l.Stop(t.Context(), r, true); err != nil {
		t.Fatal(err)
	}
	s.Change(func(s *unicoretest.Site) {
		s.NoRanges = false
		if want := fmt.Sprintf("bytes=-%d", len(last)); s.Ranges[len(s.Ranges)-1] != want {
			t.Errorf("the file was asked for by the range %q, want %q", s.Ranges[len(s.Ranges)-1], want)
		}
	})
	if got, err := l.Output(t.Context(), domain.Launched{Resource: "never"}, "stdout", 10); err == nil {
		t.Errorf("what never was has written %q", got)
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	l := open(t, options(t, s))
	r := launch(t, l, spec(t, "r"))
	ready(t, l, r)
	got, err := l.Info(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Site=" + s.Base(), "Job=" + jobOf(t, r), "Status=RUNNING", "BatchSystemID=4711", "created"} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("it says %q, want the line %q", got, line)
		}
	}
	other := r
	other.Resource = "other" // with a handle that is not its own
	for _, r := range []domain.Launched{other, {Resource: "never"}} {
		if got, err := l.Info(t.Context(), r); err == nil {
			t.Errorf("of %s it says %q", r.Resource, got)
		}
	}
}
