package slurm

import (
	"strconv"
	"strings"
	"time"
)

// job is one Slurm job of ours, as squeue shows it.
type job struct {
	site      *site
	id        int
	name      string
	state     string
	reason    string
	node      string // of the batch script; empty while there is none
	partition string
	priority  int64
	start     time.Time // of a pending one: when Slurm expects it
	end       time.Time // by its time limit
	port      int       // 0 while it has not told it
}

// The states in which a job has ended, and those in which it holds its node.
var (
	endedStates = map[string]bool{
		"COMPLETED": true, "FAILED": true, "CANCELLED": true, "TIMEOUT": true, "NODE_FAIL": true, "PREEMPTED": true,
		"OUT_OF_MEMORY": true, "BOOT_FAIL": true, "DEADLINE": true, "REVOKED": true,
	}
	runningStates = map[string]bool{
		"RUNNING": true, "SUSPENDED": true, "STOPPED": true, "SIGNALING": true, "RESIZING": true, "STAGE_OUT": true, stateCompleting: true,
	}
)

const (
	stateCompleting  = "COMPLETING"
	stateConfiguring = "CONFIGURING"
)

func (j *job) ended() bool   { return endedStates[j.state] }
func (j *job) running() bool { return runningStates[j.state] }

const (
	// squeueFormat has the name and the comment last: they may hold anything.
	squeueFormat = "%i|%T|%r|%B|%S|%e|%P|%Q|%j|%k"
	squeueFields = 10
	// squeueTime is what SLURM_TIME_FORMAT=standard makes, in the zone of TZ.
	squeueTime = "2006-01-02T15:04:05"
)

// timeEnv makes every Slurm print times alike.
var timeEnv = []string{"TZ=UTC", "SLURM_TIME_FORMAT=standard"}

// parseJobs reads squeue's lines and keeps the jobs whose names begin with
// the prefix: those of others, even with bars and new lines in their comments, do not.
func parseJobs(s *site, out []byte, prefix string) map[string][]job {
	jobs := map[string][]job{}
	for line := range strings.Lines(string(out)) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), "|", squeueFields)
		if len(f) != squeueFields || !strings.HasPrefix(f[8], prefix) {
			continue
		}
		id, err := strconv.Atoi(f[0])
		if err != nil {
			continue // a job array is not ours
		}
		j := job{site: s, id: id, state: f[1], reason: f[2], start: parseTime(f[4]), end: parseTime(f[5]), partition: f[6], name: f[8]}
		if f[3] != "n/a" && f[3] != "(null)" {
			j.node = f[3]
		}
		j.priority, _ = strconv.ParseInt(f[7], 10, 64)
		j.port = parsePort(f[9])
		jobs[j.name] = append(jobs[j.name], j)
	}
	return jobs
}

func parseTime(s string) time.Time {
	t, err := time.Parse(squeueTime, s) // "N/A", "NONE" and "Unknown" are zero
	if err != nil {
		return time.Time{}
	}
	return t
}

func parsePort(comment string) int {
	text, ok := strings.CutPrefix(comment, portMark)
	if !ok {
		return 0
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return 0
	}
	return port
}
