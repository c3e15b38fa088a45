package slurm

import (
	"strings"
	"testing"
	"time"
)

func TestParseJobs(t *testing.T) {
	t.Parallel()
	const out = `1|RUNNING|None|n1|2026-01-02T03:04:05|2026-01-02T03:34:05|main|4294901759|rrm.svc.a|rrm-port:20007
2|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1-3]|n/a|N/A|N/A|main,low|12|rrm.svc.b|(null)
3|PENDING|Resources|n/a|2026-01-02T03:04:05|N/A|main|12|rrm.other.c|(null)
4|RUNNING|None|n1|N/A|N/A|main|12|a|b|rrm.svc.d
5_3|RUNNING|None|n1|N/A|N/A|main|12|rrm.svc.e|(null)
6|RUNNING|None|n1|N/A|N/A|main|12|mine|two
lines rrm.svc.f|
7|RUNNING|None|n1|Unknown|NONE|main|x|rrm.svc.g|rrm-port:99999|
`
	jobs := parseJobs(nil, []byte(out), "rrm.svc.")
	if len(jobs) != 3 {
		t.Errorf("%d jobs, want those of a, b and g: %v", len(jobs), jobs)
	}
	a := jobs["rrm.svc.a"][0]
	if a.id != 1 || a.node != "n1" || a.port != 20007 || a.priority != 4294901759 || a.end.Sub(a.start) != 30*time.Minute || !a.running() || a.ended() {
		t.Errorf("a is %+v", a)
	}
	b := jobs["rrm.svc.b"][0]
	if b.node != "" || b.port != 0 || !b.start.IsZero() || b.running() || b.ended() {
		t.Errorf("b is %+v", b)
	}
	if g := jobs["rrm.svc.g"][0]; g.port != 0 || !g.end.IsZero() {
		t.Errorf("g is %+v", g)
	}
}

func TestPendingReasons(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 13, 0, 0, 0, time.Local)
	today, later := now.Add(80*time.Minute), now.Add(24*time.Hour)
	for _, c := range []struct {
		reason  string
		start   time.Time
		ahead   int
		counted bool
		want    string
	}{
		{"Resources", today, 3, true, "Resources: 3 jobs ahead, start expected 14:20"},
		{"Priority", later, 1, true, "Priority: 1 job ahead, start expected 3 Jan 13:00"},
		{"Resources", time.Time{}, 0, true, "Resources: next in the queue"},
		{"Resources", time.Time{}, 0, false, "Resources"},
		{"Priority", now.Add(-time.Minute), 2, true, "Priority: 2 jobs ahead"}, // an estimate that has passed is none
		{"JobHeldUser", time.Time{}, 5, true, "JobHeldUser: held; `scontrol release` lets it go"},
		{"ReqNodeNotAvail, UnavailableNodes:n[1-3]", time.Time{}, 0, true, "ReqNodeNotAvail, UnavailableNodes:n[1-3]: nodes that it needs are drained, down or reserved"},
		{"SomethingNew", time.Time{}, 0, true, "SomethingNew"},
	} {
		if got := pendingReason(&job{reason: c.reason, start: c.start}, c.ahead, c.counted, now); got != c.want {
			t.Errorf("%s: %q, want %q", c.reason, got, c.want)
		}
	}
}

func TestHopelessReasons(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]bool{
		"PartitionConfig": true, "PartitionTimeLimit": true, "InvalidQOS": true, "AccountNotAllowed": true, "ReservationDeleted": true,
		"QOSMaxGRESPerJob": true, "AssocMaxWallDurationPerJobLimit": true, "QOSMaxCpuPerNode": true, "QOSMinGRES": true,
		"Resources": false, "Priority": false, "None": false, "JobHeldUser": false, "PartitionDown": false, "ReqNodeNotAvail": false,
		"QOSMaxJobsPerUserLimit": false, "AssocGrpGRES": false, "AssocMaxJobsLimit": false, "Reservation": false, "Licenses": false,
	} {
		if _, got := isHopeless(reason); got != want {
			t.Errorf("%s: hopeless is %t, want %t", reason, got, want)
		}
	}
}

func TestEndReasons(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		state, reason, node string
		status              int
		want                string
	}{
		{"FAILED", "NonZeroExitCode", "n1", 3 << 8, "exit status 3"},
		{"COMPLETED", "None", "n1", 0, "exit status 0"},
		{"FAILED", "RaisedSignal:9(Killed)", "n1", 9, "killed by signal 9 (killed)"},
		{"FAILED", "JobLaunchFailure", "n1", 9, "killed by signal 9 (killed)"},
		{"FAILED", "JobLaunchFailure", "n1", 4021, "the Slurm job 5 could not be launched on n1 (JobLaunchFailure): the node may not be able to write to /d"},
		{"FAILED", "NonZeroExitCode", "n1", 97 << 8, "exit status 97: the working directory"},
		{"FAILED", "NonZeroExitCode", "n1", 127 << 8, "exit status 127: the program was not found"},
		{"FAILED", "BadConstraints", "", 1 << 8, "the Slurm job 5 was refused: BadConstraints"},
		{"FAILED", "NonZeroExitCode", "n1", -1, "the Slurm job 5 ended as FAILED; its exit status is not known"},
		{"CANCELLED", "None", "n1", 15, "the Slurm job 5 was cancelled"},
		{"TIMEOUT", "TimeLimit", "n1", 15, "the Slurm job 5 reached its time limit"},
		{"NODE_FAIL", "NodeDown", "n1", 1, "the node n1 failed under the Slurm job 5"},
		{"PREEMPTED", "None", "n1", 15, "the Slurm job 5 was preempted"},
		{"OUT_OF_MEMORY", "OutOfMemory", "n1", 9, "the Slurm job 5 used more memory"},
	} {
		j := &job{id: 5, state: c.state, reason: c.reason, node: c.node}
		if got := endReason(j, c.status, "/d"); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s %d: %q, want %q", c.state, c.reason, c.status, got, c.want)
		}
	}
}

func TestComplaintIsTheLineThatSaysMost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ stderr, want string }{
		{"sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid partition name specified\n", "Batch job submission failed: Invalid partition name specified"},
		{"slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"},
		{"sbatch: error: Batch script contains DOS line breaks (\\r\\n)\nsbatch: error: instead of expected UNIX line breaks (\\n).\n", "Batch script contains DOS line breaks (\\r\\n)"},
		{"", "exit status 1 without a word"},
	} {
		if got := complaint(result{stderr: []byte(c.stderr), status: 1}); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
