package slurm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/slurm"
	"github.com/rendering-resource-manager/rrm/domain"
)

func TestJobAsksForWhatTheRendererSays(t *testing.T) {
	c := needCluster(t)
	t.Parallel()
	site := localSite(t)
	site.ModulesInit = filepath.Join(site.Directory, "modules.sh")
	must(t, os.WriteFile(site.ModulesInit, []byte("module() { [ \"$2\" != brayns/none ] && export \"LOADED_${2%%/*}=$2\"; }\n"), 0o600))
	l := reopen(t, options(site))
	r := running(t, l, launch(t, l, spec(t, "asks", func(r *domain.Renderer) {
		r.Nodes, r.CPUs, r.GPUs, r.Memory, r.AllocationTime = 2, 2, 1, 300, domain.Duration(61*time.Second)
		r.Queue, r.Modules, r.WorkDir = "main", []string{"brayns/1.2", "python"}, "/usr/share"
		r.Environment = map[string]string{"RANK": "${job_id}"}
	})))
	info, err := l.Info(t.Context(), r.Launched)
	must(t, err)
	for _, want := range []string{
		"NumNodes=2", "CPUs/Task=2", "TresPerNode=gres:gpu:1", "MinMemoryNode=300M", "TimeLimit=00:02:00", "Partition=main", "Requeue=0",
		"Comment=rrm-port:" + r.Address[strings.LastIndexByte(r.Address, ':')+1:],
	} {
		if !strings.Contains(info, want) {
			t.Errorf("the job has no %s:\n%s", want, info)
		}
	}
	env := get[map[string]string](t, r.Address, "/env")
	for name, want := range map[string]string{
		"LOADED_brayns": "brayns/1.2", "LOADED_python": "python", "PWD": "/usr/share", "RANK": jobID(t, r.Launched),
		"RRM_RESOURCE": "asks", "RRM_ADDRESS": r.Address, "CUDA_VISIBLE_DEVICES": "0",
	} {
		if env[name] != want && name != "CUDA_VISIBLE_DEVICES" || env[name] == "" {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	for _, name := range []string{"TZ", "SLURM_TIME_FORMAT", "LC_ALL"} {
		if v, is := env[name]; is {
			t.Errorf("%s=%s of our own commands reached the renderer", name, v)
		}
	}
	if r.Ends.Sub(r.Started) != 2*time.Minute {
		t.Errorf("from %s to %s, want two minutes: Slurm rounds up", r.Started, r.Ends)
	}
	if out := run(t, c, "squeue", "-h", "-j", jobID(t, r.Launched), "-o", "%h"); out == "NO" {
		t.Error("it has the nodes for itself and did not ask for that")
	}
}

func TestSecretsOfTheServiceStayBehind(t *testing.T) {
	needCluster(t)
	t.Setenv("RRM_DATABASE_URL", "postgres://secret")
	t.Setenv("SBATCH_PARTITION", "parked") // a variable of Slurm's commands that would change the job
	l := reopen(t, options(localSite(t)))
	r := running(t, l, launch(t, l, spec(t, "secrets", nil)))
	env := get[map[string]string](t, r.Address, "/env")
	if v, is := env["RRM_DATABASE_URL"]; is {
		t.Errorf("the renderer sees %q", v)
	}
}

func TestRefusals(t *testing.T) {
	needCluster(t)
	t.Parallel()
	l := reopen(t, options(localSite(t)))
	for i, c := range []struct {
		field  string
		change func(*domain.Renderer)
	}{
		{"queue", func(r *domain.Renderer) { r.Queue = "main; touch /tmp/x" }},
		{"queue", func(r *domain.Renderer) { r.Queue = "--help" }},
		{"project", func(r *domain.Renderer) { r.Project = "a b" }},
		{"qos", func(r *domain.Renderer) { r.QOS = "$(id)" }},
		{"reservation", func(r *domain.Renderer) { r.Reservation = "a\nb" }},
		{"modules", func(r *domain.Renderer) { r.Modules = []string{"a; id"} }},
		{"modules", func(r *domain.Renderer) { r.Modules = []string{"-f"} }},
		{"command_line", func(r *domain.Renderer) { r.CommandLine = "  " }},
		{"command_line", func(r *domain.Renderer) { r.CommandLine = "A=b prog" }},
		{"command_line", func(r *domain.Renderer) { r.CommandLine = "prog > /tmp/x" }},
		{"scheduler_rest_parameters_format", func(r *domain.Renderer) { r.SchedulerFormat = "${model}" }},
		{"environment_variables", func(r *domain.Renderer) { r.Environment = map[string]string{"RRM_RESOURCE": "x"} }},
		{"working_directory", func(r *domain.Renderer) { r.WorkDir = "/${nowhere}" }},
		// What Slurm refuses at once.
		{"", func(r *domain.Renderer) { r.Queue = "nowhere" }},
		{"", func(r *domain.Renderer) { r.GPUs = 99 }},
		{"", func(r *domain.Renderer) { r.Memory = 1 << 20 }},
		{"", func(r *domain.Renderer) { r.Reservation = "nowhere" }},
	} {
		s := spec(t, domain.ResourceID(fmt.Sprint("refused-", i)), c.change)
		_, err := l.Launch(t.Context(), s)
		refusal, ok := domain.AsRefusal(err)
		if !ok || refusal.Kind != domain.KindInvalid || refusal.Field != c.field || c.field == "" && (refusal.Code != "launch_failed" || !strings.Contains(refusal.Reason, "sbatch: ")) {
			t.Errorf("%+v: got %v, want a refusal of %q", s.Renderer, err, c.field)
		}
	}
	for _, id := range []domain.ResourceID{"", "../x", "a b", "-a", "a;b"} {
		s := spec(t, id, nil)
		if _, err := l.Launch(t.Context(), s); err == nil {
			t.Errorf("the identity %q was taken", id)
		}
	}
}

func TestJobsThatWouldWaitForEver(t *testing.T) {
	c := needCluster(t)
	t.Parallel()
	l := reopen(t, options(localSite(t)))
	for id, change := range map[domain.ResourceID]func(*domain.Renderer){
		"PartitionConfig":    func(r *domain.Renderer) { r.CPUs = 100 },
		"PartitionTimeLimit": func(r *domain.Renderer) { r.Queue, r.AllocationTime = "short", domain.Duration(time.Hour) },
	} {
		r := launch(t, l, spec(t, id, change))
		if o := gone(t, l, r); !strings.Contains(o.Reason, "for ever") || !strings.Contains(o.Reason, "(Partition") { // Slurm says PartitionConfig first
			t.Errorf("the reason is %q, want %s", o.Reason, id)
		}
		if state := run(t, c, "squeue", "-h", "-t", "all", "-j", jobID(t, r), "-o", "%T"); state != "CANCELLED" {
			t.Errorf("the job is %s, want it cancelled", state)
		}
		if o := gone(t, l, r); !strings.Contains(o.Reason, "for ever") {
			t.Errorf("looked at again the reason is %q", o.Reason)
		}
	}
}

func TestJobsThatWaitForSomething(t *testing.T) {
	c := needCluster(t)
	t.Parallel()
	l := reopen(t, options(localSite(t)))
	parked := launch(t, l, spec(t, "parked", func(r *domain.Renderer) { r.Queue = "parked" }))
	await(t, l, parked, "a partition that is down is told", func(o domain.Observed) bool {
		return o.State == domain.LaunchPending && o.Reason == "PartitionDown: the partition is down"
	})
	run(t, c, "scontrol", "hold", jobID(t, parked))
	await(t, l, parked, "a job that is held is told", func(o domain.Observed) bool {
		return o.State == domain.LaunchPending && strings.HasPrefix(o.Reason, "JobHeld")
	})
	must(t, l.Stop(t.Context(), parked, true))
	gone(t, l, parked)
}

func TestWhatGoesWrongOnTheNode(t *testing.T) {
	needCluster(t)
	t.Parallel()
	site := localSite(t)
	site.ModulesInit = filepath.Join(site.Directory, "modules.sh")
	must(t, os.WriteFile(site.ModulesInit, []byte("module() { false; }\n"), 0o600))
	l := reopen(t, options(site))
	for _, c := range []struct {
		id     domain.ResourceID
		change func(*domain.Renderer)
		reason string
		stderr string
	}{
		{"workdir", func(r *domain.Renderer) { r.WorkDir = "/no/such/place" }, "exit status 97: the working directory", "/no/such/place does not exist on n"},
		{"module", func(r *domain.Renderer) { r.Modules = []string{"brayns/9"} }, "exit status 98: a module", "brayns/9 cannot be loaded"},
		{"program", func(r *domain.Renderer) { r.CommandLine = "/no/such/program" }, "exit status 127: the program was not found", "No such file"},
	} {
		r := launch(t, l, spec(t, c.id, c.change))
		if o := gone(t, l, r); !strings.HasPrefix(o.Reason, c.reason) {
			t.Errorf("%s: the reason is %q, want %q", c.id, o.Reason, c.reason)
		}
		if out, err := l.Output(t.Context(), r, slurm.Stderr, 1000); err != nil || !strings.Contains(string(out), c.stderr) {
			t.Errorf("%s: stderr is %q, %v; want %q", c.id, out, err, c.stderr)
		}
	}
	// The output cannot be written: what the directory was is a file when the job starts.
	opts := options(localSite(t))
	l = reopen(t, opts)
	r := launch(t, l, spec(t, "output", func(r *domain.Renderer) { r.Queue = "parked" }))
	dir := filepath.Join(opts.Sites[0].Directory, "rrm."+opts.Service, "output")
	must(t, os.Remove(dir))
	must(t, os.WriteFile(dir, nil, 0o600))
	run(t, cluster, "scontrol", "update", "JobId="+jobID(t, r), "Partition=main")
	if o := gone(t, l, r); !strings.Contains(o.Reason, "JobLaunchFailure") || !strings.Contains(o.Reason, dir) {
		t.Errorf("the reason is %q, want the directory that cannot be written", o.Reason)
	}
}

func TestCancelledBehindOurBack(t *testing.T) {
	c := needCluster(t)
	t.Parallel()
	l := reopen(t, options(localSite(t)))
	r := running(t, l, launch(t, l, spec(t, "cancelled", nil)))
	run(t, c, "scancel", jobID(t, r.Launched))
	if o := gone(t, l, r.Launched); !strings.Contains(o.Reason, "was cancelled") {
		t.Errorf("the reason is %q", o.Reason)
	}
	// Launched again it is found, and not started again: identities are never used twice.
	again, err := l.Launch(t.Context(), spec(t, "cancelled", nil))
	if err != nil || string(again.Handle) != string(r.Handle) {
		t.Errorf("launched again: %s, %v; want %s", again.Handle, err, r.Handle)
	}
}

// Slurm looks at time limits every 30 s only.
func TestTimeLimitReached(t *testing.T) {
	c := needCluster(t)
	t.Parallel()
	l := reopen(t, options(localSite(t)))
	r := running(t, l, launch(t, l, spec(t, "limited", func(r *domain.Renderer) { r.AllocationTime = domain.Duration(time.Minute) })))
	if left := time.Until(r.Ends); left <= 0 || left > time.Minute {
		t.Errorf("it ends in %s, want at most a minute", left)
	}
	run(t, c, "scontrol", "update", "JobId="+jobID(t, r.Launched), "EndTime=now+1")
	eventually(t, 50*time.Second, "its end is seen", func() (bool, string) {
		o := observe(t, l, r.Launched)
		if o.State != domain.LaunchGone {
			return false, string(o.State) + " " + o.Reason
		}
		if !strings.Contains(o.Reason, "time limit") {
			t.Errorf("the reason is %q", o.Reason)
		}
		return true, ""
	})
}

// counting lets Slurm's commands be counted: it is a directory of programs
// that note their names and become the real ones.
func counting(t *testing.T, site *slurm.Site) (count func() map[string]int) {
	t.Helper()
	site.BinDir = filepath.Join(site.Directory, "bin")
	notes := filepath.Join(site.Directory, "notes")
	must(t, os.Mkdir(site.BinDir, 0o700))
	for _, name := range []string{"sbatch", "squeue", "scontrol", "scancel"} {
		script := fmt.Sprintf("#!/bin/sh\necho %s >> %s\nexec %s \"$@\"\n", name, notes, name)
		must(t, os.WriteFile(filepath.Join(site.BinDir, name), []byte(script), 0o700))
	}
	return func() map[string]int {
		b, err := os.ReadFile(notes)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		must(t, os.RemoveAll(notes))
		n := map[string]int{}
		for _, name := range strings.Fields(string(b)) {
			n[name]++
		}
		return n
	}
}

func TestTwoHundredResourcesAreWatchedWithOneQuery(t *testing.T) {
	c := ownCluster(t, 1)
	site := siteOf(t, c)
	count := counting(t, &site)
	opts := options(site)
	opts.Every = time.Nanosecond // each round looks anew
	opts.QueueEvery = time.Hour
	l := reopen(t, opts)
	const resources, running = 200, 5
	all := make([]domain.Launched, resources)
	errs := make([]error, resources)
	start := time.Now()
	done := make(chan int)
	for i := range all {
		s := spec(t, domain.ResourceID(fmt.Sprintf("many-%03d", i)), func(r *domain.Renderer) {
			if i >= running {
				r.Queue = "parked"
			}
		})
		go func() {
			all[i], errs[i] = l.Launch(t.Context(), s)
			done <- i
		}()
	}
	for range all {
		<-done
	}
	must(t, errors.Join(errs...))
	n := count()
	t.Logf("launched in %s with %v", time.Since(start), n)
	if n["sbatch"] != resources || n["squeue"] > resources/2 {
		t.Errorf("launching %d ran %v, want that many sbatch and far fewer squeue", resources, n)
	}
	others := 0 // queries of the others' queue: one, in the background, when the first is seen waiting
	eventually(t, 30*time.Second, "all are seen, five of them running", func() (bool, string) {
		got, err := l.Observe(t.Context(), all)
		must(t, err)
		n := count()
		others += n["squeue"] - 1
		if others > 1 || len(n) != 1 {
			t.Fatalf("a round ran %v", n)
		}
		states := map[domain.LaunchState]int{}
		for i, o := range got {
			if o.Resource != all[i].Resource || o.State == domain.LaunchGone {
				t.Fatalf("resource %d is %+v", i, o)
			}
			states[o.State]++
		}
		return others == 1 && states[domain.LaunchRunning] == running && states[domain.LaunchPending] == resources-running, fmt.Sprint(states)
	})
	_ = count()
	for range 10 {
		_, err := l.Observe(t.Context(), all)
		must(t, err)
	}
	if n := count(); n["squeue"] != 10 || len(n) != 1 {
		t.Errorf("ten rounds over %d resources ran %v, want ten squeue and nothing else", resources, n)
	}
	listed, err := l.List(t.Context())
	if err != nil || len(listed) != resources {
		t.Errorf("listed %d, %v", len(listed), err)
	}
}

func TestRoundsCloseToEachOtherShareOneQuery(t *testing.T) {
	needCluster(t)
	t.Parallel()
	site := localSite(t)
	count := counting(t, &site)
	opts := options(site)
	opts.Every = time.Hour
	l := reopen(t, opts)
	r := launch(t, l, spec(t, "calm", func(r *domain.Renderer) { r.Queue = "parked" }))
	observe(t, l, r)
	_ = count()
	for range 20 {
		observe(t, l, r)
	}
	if n := count(); n["squeue"] > 1 { // that of the others' queue may still be coming
		t.Errorf("twenty rounds within Every ran %v", n)
	}
}

func TestSitesAreTriedInOrder(t *testing.T) {
	needCluster(t)
	t.Parallel()
	down, up := localSite(t), localSite(t)
	down.Name, down.Hosts, down.KnownHosts = "down", []string{"nobody@127.0.0.1:1"}, filepath.Join(testDir, "none")
	up.Name = "up"
	must(t, os.WriteFile(down.KnownHosts, nil, 0o600))
	l := reopen(t, options(down, up))
	r := running(t, l, launch(t, l, spec(t, "second", nil)))
	if !strings.Contains(string(r.Handle), `"site":"up"`) {
		t.Errorf("the handle is %s", r.Handle)
	}
	// Whatever is not known to be elsewhere may be where nobody could look.
	if o := observe(t, l, domain.Launched{Resource: "unknown"}); o.State != domain.LaunchUnknown {
		t.Errorf("it is %s: %s", o.State, o.Reason)
	}
	if all, err := l.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("listed %v, %v", all, err)
	}
	// A site that refuses is passed over too.
	picky, other := localSite(t), localSite(t)
	picky.Name, picky.Directory = "picky", "/proc/none"
	other.Name = "other"
	l = reopen(t, options(picky, other))
	if _, err := l.Launch(t.Context(), spec(t, "nowhere", nil)); err == nil {
		t.Error("a directory that cannot be made was no error")
	}
}

func TestOldDirectoriesAreRemoved(t *testing.T) {
	needCluster(t)
	t.Parallel()
	opts := options(localSite(t))
	opts.KeepEnded = 2
	base := filepath.Join(opts.Sites[0].Directory, "rrm."+opts.Service)
	for i := range 5 {
		dir := filepath.Join(base, fmt.Sprint("old-", i))
		must(t, os.MkdirAll(dir, 0o700))
		must(t, os.Chtimes(dir, time.Time{}, time.Now().Add(time.Duration(i-10)*time.Hour)))
	}
	for i := range 3 { // another rrm is about to submit their jobs
		must(t, os.MkdirAll(filepath.Join(base, fmt.Sprint("new-", i)), 0o700))
	}
	theirs := filepath.Join(opts.Sites[0].Directory, "theirs")
	must(t, os.Mkdir(theirs, 0o700))
	l := reopen(t, opts)
	launch(t, l, spec(t, "young", func(r *domain.Renderer) { r.Queue = "parked" }))
	entries, err := os.ReadDir(base)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "new-0 new-1 new-2 old-3 old-4 young" {
		t.Errorf("left are %s", got)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Errorf("somebody else's directory: %v", err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "slurm.json")
	for text, ok := range map[string]bool{
		`{"sites": [{"name": "a", "directory": "/shared/rrm", "hosts": ["u@h:22"], "tunnel": true, "timeout": "5s"}]}`: true,
		`{"sites": []}`: false,
		`{"sites": [{"name": "a", "directory": "/x", "colour": "red"}]}`:                        false,
		`{"sites": [{"name": "a", "directory": "relative"}]}`:                                   false,
		`{"sites": [{"name": "a", "directory": "/x/../y"}]}`:                                    false,
		`{"sites": [{"name": "a", "directory": "/x%j"}]}`:                                       false,
		`{"sites": [{"name": "a", "directory": "/x", "tunnel": true}]}`:                         false,
		`{"sites": [{"name": "a", "directory": "/x", "node_address": "$(id)"}]}`:                false,
		`{"sites": [{"name": "a", "directory": "/x", "first_port": 22, "last_port": 30}]}`:      false,
		`{"sites": [{"name": "a", "directory": "/x"}, {"name": "a", "directory": "/x"}]}`:       false,
		`{"sites": [{"name": "a", "directory": "/x", "hosts": ["-oProxyCommand=id@host"]}]}`:    false,
		`{"sites": [{"name": "a", "directory": "/x"}]} {}`:                                      false,
		`{"sites": [{"name": "a", "directory": "/x", "modules_init": "/etc/profile.d/$(id)"}]}`: false,
	} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if _, err := slurm.ReadSites(path); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := slurm.New(slurm.Options{Service: "a.b", Sites: []slurm.Site{{Name: "a", Directory: "/x"}}}); err == nil {
		t.Error("a service with a dot was taken")
	}
}

// What another rrm has launched since this one looked last is not gone.
func TestWhatAnotherLaunchedSinceTheLastLookIsNotGone(t *testing.T) {
	needCluster(t)
	t.Parallel()
	opts := options(localSite(t))
	opts.Every = time.Hour
	one, other := reopen(t, opts), reopen(t, opts)
	parked := func(r *domain.Renderer) { r.Queue = "parked" }
	first := launch(t, one, spec(t, "before", parked))
	if o := observe(t, other, first); o.State != domain.LaunchPending {
		t.Fatalf("the first is %s: %s", o.State, o.Reason)
	}
	since := launch(t, one, spec(t, "since", parked))
	if o := observe(t, other, since); o.State != domain.LaunchPending {
		t.Errorf("what was launched since is %s: %s", o.State, o.Reason)
	}
}
