package slurm

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// hopeless are the reasons of jobs that wait for ever unless someone changes the job or the cluster's settings.
var hopeless = map[string]string{
	"PartitionConfig":          "the partition does not give that many CPUs, that much memory or that much time",
	"PartitionNodeLimit":       "the partition does not give that many nodes",
	"PartitionTimeLimit":       "the partition does not give that much time",
	"BadConstraints":           "no node has what it asks for",
	"DependencyNeverSatisfied": "what it waits for will not come",
	"InvalidAccount":           "the project is not known to Slurm, or not for this user",
	"AccountNotAllowed":        "the project may not use this partition",
	"InvalidQOS":               "the quality of service is not known to Slurm, or not for this user",
	"QOSNotAllowed":            "the quality of service is not allowed here",
	"ReservationDeleted":       "the reservation does not exist any more",
	"DeadLine":                 "its deadline cannot be met",
}

// isHopeless tells reasons that more waiting does not mend. Limits for one job
// (QOSMaxGRESPerJob, AssocMaxWallDurationPerJobLimit) stay; those for a user or a group pass.
func isHopeless(reason string) (string, bool) {
	if why, ok := hopeless[reason]; ok {
		return why, true
	}
	perJob := strings.Contains(reason, "PerJob") || strings.Contains(reason, "PerNode") || strings.HasSuffix(reason, "MaxWallDurationPerJobLimit") ||
		strings.HasPrefix(reason, "QOSMin")
	if perJob && (strings.HasPrefix(reason, "QOS") || strings.HasPrefix(reason, "Assoc") || strings.HasPrefix(reason, "MaxMem")) {
		return "a limit for one job", true
	}
	return "", false
}

// waits explain reasons that pass.
var waits = map[string]string{
	"None":              "just submitted",
	"Dependency":        "another submission of the same resource came first",
	"JobHeldUser":       "held; `scontrol release` lets it go",
	"JobHeldAdmin":      "held by an administrator",
	"PartitionDown":     "the partition is down",
	"PartitionInactive": "the partition is inactive",
	"ReqNodeNotAvail":   "nodes that it needs are drained, down or reserved",
	"Reservation":       "its reservation has not begun",
	"BeginTime":         "its time to begin has not come",
	"Licenses":          "no licence is free",
	"NodeDown":          "a node that it needs is down",
	"Cleaning":          "its last run is being cleaned up",
}

// pendingReason is what someone who waits is told: "Resources: 3 jobs ahead, start expected 14:20".
func pendingReason(j *job, ahead int, counted bool, now time.Time) string {
	word, _, _ := strings.Cut(j.reason, ",") // ReqNodeNotAvail, UnavailableNodes:n[1-3]
	var more []string
	if why := waits[word]; why != "" {
		more = append(more, why)
	}
	if counted && (word == "Resources" || word == "Priority") {
		switch ahead {
		case 0:
			more = append(more, "next in the queue")
		case 1:
			more = append(more, "1 job ahead")
		default:
			more = append(more, fmt.Sprintf("%d jobs ahead", ahead))
		}
	}
	if !j.start.IsZero() && j.start.After(now) {
		more = append(more, "start expected "+clock(j.start, now))
	}
	if len(more) == 0 {
		return j.reason
	}
	return j.reason + ": " + strings.Join(more, ", ")
}

// clock is a time of day, with the day if it is another than today.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04")
	}
	return t.Format("2 Jan 15:04")
}

// lowestLaunchFailure and above are Slurm's own error numbers in the place of a wait status.
const lowestLaunchFailure = 1000

// endReason says how a job ended. The status is that of wait(2), -1 if not known.
func endReason(j *job, status int, dir string) string {
	job := fmt.Sprintf("the Slurm job %d", j.id)
	switch j.state {
	case "CANCELLED":
		return job + " was cancelled"
	case "TIMEOUT":
		return job + " reached its time limit"
	case "DEADLINE":
		return job + " could not meet its deadline"
	case "NODE_FAIL":
		return fmt.Sprintf("the node %s failed under %s", nodeName(j), job)
	case "BOOT_FAIL":
		return fmt.Sprintf("the node %s could not be started for %s", nodeName(j), job)
	case "PREEMPTED":
		return job + " was preempted: it had to make way for another"
	case "OUT_OF_MEMORY":
		return job + " used more memory than it had asked for"
	}
	ws := syscall.WaitStatus(status)
	switch {
	case status < 0:
		return fmt.Sprintf("%s ended as %s; its exit status is not known", job, j.state)
	case j.reason == "JobLaunchFailure" && status >= lowestLaunchFailure && ws.Signaled():
		return fmt.Sprintf("%s could not be launched on %s (JobLaunchFailure): the node may not be able to write to %s", job, nodeName(j), dir)
	case j.node == "" && j.state == "FAILED":
		return fmt.Sprintf("%s was refused: %s", job, j.reason)
	case ws.Signaled():
		return fmt.Sprintf("killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
	case scriptExits[ws.ExitStatus()] != "":
		return fmt.Sprintf("exit status %d: %s", ws.ExitStatus(), scriptExits[ws.ExitStatus()])
	default:
		return fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
}

func nodeName(j *job) string {
	if j.node == "" {
		return "that it was given"
	}
	return j.node
}
