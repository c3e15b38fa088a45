package pool

import (
	"cmp"
	"fmt"
	"time"
)

// CodeDeadline is the code of a job that failed because its deadline passed before it began.
const CodeDeadline = "deadline_passed"

// urgent says that the order of the queue minds the job's deadline: it has one
// and was not found to be too late for it.
func (j *Job) urgent() bool { return j.Deadline != nil && !j.Late }

// byUrgency orders the queue of jobs: higher priority first; within a priority
// those that can still make their deadline, the earliest first; then by age.
// On one slot the earliest deadline first meets all deadlines if any order does
// (Jackson 1955), and only if those that cannot make theirs are not in its way.
func byUrgency(a, b *Job) int {
	if c := cmp.Compare(b.Priority, a.Priority); c != 0 {
		return c
	}
	switch au, bu := a.urgent(), b.urgent(); {
	case au && bu:
		return cmp.Or(a.Deadline.Compare(*b.Deadline), cmp.Compare(a.Seq, b.Seq))
	case au:
		return -1
	case bu:
		return 1
	}
	return cmp.Compare(a.Seq, b.Seq)
}

// byDeadline orders jobs that have one.
func byDeadline(a, b *Job) int {
	return cmp.Or(a.Deadline.Compare(*b.Deadline), cmp.Compare(a.Seq, b.Seq))
}

// timed says that the job waits and has a deadline that a tick must watch.
func (j *Job) timed() bool {
	return j != nil && j.Deadline != nil && len(j.Parts) == 0 && (j.State == JobStateQueued || j.State == JobStateWaiting)
}

// jobSeconds is how long the job is expected to run, loading excluded; false: nothing like it ever ran.
func (s *State) jobSeconds(p *poolState, j *Job) (float64, bool) {
	known := s.Model(j.Renderer, j.Model)
	if n := j.framesLeft(); known != nil && known.FrameJobs > 0 && n > 0 {
		return known.FrameSeconds * float64(n), true
	}
	if known != nil && known.Jobs > 0 {
		return known.JobSeconds, true
	}
	return p.pool.expectJob(), p.pool.Jobs > 0
}

// slack is for how long the job can still wait and yet make its deadline if
// its model is loaded where it begins; negative: it can no longer make it.
// What never ran is taken to need no time, so that nobody is given up on a guess.
func (s *State) slack(p *poolState, j *Job, now time.Time) time.Duration {
	takes, learned := s.jobSeconds(p, j)
	if !learned {
		takes = 0
	}
	return j.Deadline.Sub(now) - seconds(takes)
}

// warning says that the job is expected to miss its deadline if it waits for so
// long; empty: it is expected to make it, or has none.
func (d *decider) warning(p *poolState, j *Job, wait float64) string {
	if j.Deadline == nil {
		return ""
	}
	takes, _ := d.s.jobSeconds(p, j)
	work := seconds(takes/float64(d.partsOf(p, j)) + p.pool.expectLoad(d.s.Model(j.Renderer, j.Model)))
	end := d.at.Add(seconds(wait) + work)
	if !end.After(*j.Deadline) {
		return ""
	}
	return fmt.Sprintf("it is expected to end %s after its deadline: it waits for about %s and takes about %s, loading included",
		round(end.Sub(*j.Deadline)), round(seconds(wait)), round(work))
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// watched is how many jobs a tick looks at for being too late, those with the
// earliest deadlines: it bounds the work of one command whatever the queue's length.
const watched = 256

// tickJobs fails queued and waiting jobs whose deadline has passed, and marks
// those that can no longer make theirs, so that they stand in nobody's way.
func (d *decider) tickJobs(p *poolState) {
	var passed, late []*Job
	for _, j := range p.timed {
		if !d.at.Before(*j.Deadline) {
			passed = append(passed, j)
			continue
		}
		if len(late) == watched {
			break
		}
		if !j.Late {
			late = append(late, j)
		}
	}
	id := p.pool.Settings.ID
	for _, j := range passed {
		if d.s.jobs[j.ID].Ended {
			continue // with another that was late and that it waited for
		}
		d.emit(id, JobFailed{Job: j.ID, Class: ClassPermanent, Code: CodeDeadline, Reason: "the deadline passed before the job could begin"})
		d.jobEnded(j.ID, false)
	}
	for _, j := range late {
		if d.s.slack(p, j, d.at) >= 0 || d.s.jobs[j.ID].Ended {
			continue
		}
		takes, _ := d.s.jobSeconds(p, j)
		d.emit(id, JobLate{Job: j.ID, Reason: fmt.Sprintf("it takes about %s and its deadline is in %s: it can no longer make it",
			round(seconds(takes)), round(j.Deadline.Sub(d.at)))})
	}
}

// metDeadline settles at the end of a job whether it was too late.
func (j *Job) metDeadline(at time.Time) {
	if j.Deadline == nil {
		return
	}
	j.Late, j.Warning = at.After(*j.Deadline), ""
	if j.Late {
		j.Warning = fmt.Sprintf("it ended %s after its deadline", round(at.Sub(*j.Deadline)))
	}
}
