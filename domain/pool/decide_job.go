package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Bounds of what a job may ask for.
const (
	MaxPriority   = 1000
	MaxAttempts   = 20
	MaxJobTimeout = 7 * 24 * time.Hour
	MaxAfter      = 100
	MaxSpecBytes  = 64 << 10
)

func (c *SubmitJob) check(p *Pool) error {
	if c.Model == "" {
		return domain.Invalid("model", "a job names the model")
	}
	if err := domain.CheckText("model", string(c.Model), domain.MaxModelKey); err != nil {
		return err
	}
	if err := domain.CheckText("owner", string(c.Owner), domain.MaxOwner); err != nil {
		return err
	}
	if c.MaxAttempts == 0 {
		c.MaxAttempts = p.Settings.Job.MaxAttempts
	}
	if c.Timeout == 0 {
		c.Timeout = p.Settings.Job.Timeout.Std()
	}
	switch {
	case c.Kind != JobImage && c.Kind != JobFrames && c.Kind != JobVideo:
		return domain.Invalid("kind", "a job is of kind %q, %q or %q", JobImage, JobFrames, JobVideo)
	case c.Priority < -MaxPriority || c.Priority > MaxPriority:
		return domain.Invalid("priority", "a priority is from -%d to %d", MaxPriority, MaxPriority)
	case c.MaxAttempts < 1 || c.MaxAttempts > MaxAttempts:
		return domain.Invalid("max_attempts", "a job is tried 1 to %d times", MaxAttempts)
	case c.Timeout < time.Second || c.Timeout > MaxJobTimeout:
		return domain.Invalid("timeout", "an attempt may take from 1s to %s", MaxJobTimeout)
	case len(c.After) > MaxAfter:
		return domain.Invalid("after", "a job waits for at most %d others", MaxAfter)
	case len(c.Spec) > MaxSpecBytes:
		return domain.Invalid("spec", "a spec has at most %d bytes", MaxSpecBytes)
	}
	return nil
}

func (d *decider) submit(c SubmitJob) error {
	p, err := d.pool(c.Renderer)
	if err != nil {
		return err
	}
	if err := c.check(p); err != nil {
		return err
	}
	if d.s.jobs[c.Job] != nil {
		return nil
	}
	if c.Deadline != nil && !c.Deadline.After(d.at) {
		return domain.Invalid("deadline", "the deadline %s has passed", c.Deadline.Format(time.RFC3339))
	}
	if r := d.tooLarge(d.s.of(c.Renderer), c.Model); r != nil {
		return r
	}
	pending, failed, err := d.dependencies(c)
	if err != nil {
		return err
	}
	if err := d.refuseJob(c, d.s.of(c.Renderer)); err != nil {
		return err
	}
	d.emit(c.Renderer, JobSubmitted{
		Job: c.Job, Model: c.Model, Kind: c.Kind, Spec: c.Spec, Owner: c.Owner, Priority: c.Priority, Deadline: c.Deadline,
		After: c.After, MaxAttempts: c.MaxAttempts, TimeoutSeconds: c.Timeout.Seconds(), CallbackURL: c.CallbackURL, Pending: pending,
		Frames:  framesOf(c.Kind, c.Spec),
		Warning: d.warning(d.s.of(c.Renderer), &Job{Kind: c.Kind, Frames: framesOf(c.Kind, c.Spec), Renderer: c.Renderer, Model: c.Model, Deadline: c.Deadline}, 0),
	})
	switch {
	case failed != "":
		d.failDependent(c.Job, failed)
	case len(pending) == 0:
		d.queued(c.Job)
	}
	return nil
}

// dependencies sorts the jobs named in after into those to wait for and one that failed already.
func (d *decider) dependencies(c SubmitJob) (pending []domain.JobID, failed domain.JobID, err error) {
	for _, id := range c.After {
		j := d.s.jobs[id]
		// Another owner's job is as good as none: its existence is not ours to tell.
		if j == nil || j.Owner != c.Owner {
			return nil, "", domain.Invalid("after", "there is no job %q of this owner to wait for", id)
		}
		switch {
		case j.State == JobStateSucceeded || slices.Contains(pending, id):
		case j.Ended:
			failed = id
		default:
			pending = append(pending, id)
		}
	}
	return pending, failed, nil
}

func (d *decider) failDependent(id, failed domain.JobID) {
	j := d.s.jobs[id]
	d.emit(j.Renderer, JobFailed{Job: id, Class: ClassPermanent, Code: "dependency_failed",
		Reason: d.whyFailed(failed)})
	d.jobEnded(id, false)
}

// maxPassedOn bounds what of a reason is passed on, in bytes: chains of failures would let it grow.
const maxPassedOn = 256

// whyFailed says of a job that another waits for why it did not succeed.
func (d *decider) whyFailed(id domain.JobID) string {
	x, how := d.s.jobs[id], "failed"
	if x.State == JobStateCancelled {
		how = "was cancelled"
	}
	return fmt.Sprintf("job %q, which it waits for, %s%s", id, how, because(clean(x.Reason, maxPassedOn)))
}

// jobEnded tells the jobs that wait for one that it has ended. A chain of
// failures ends, because a job can only wait for jobs that were there before it.
func (d *decider) jobEnded(id domain.JobID, succeeded bool) {
	for _, waiting := range slices.Clone(d.s.dependents[id]) {
		j := d.s.jobs[waiting.ID]
		if j.State != JobStateWaiting {
			continue // it waited for another that failed with this one
		}
		dep := j.ID
		if !succeeded {
			if len(j.Parts) > 0 {
				d.partFailed(j, id)
			} else {
				d.failDependent(dep, id)
			}
			continue
		}
		d.emit(j.Renderer, JobUnblocked{Job: dep, By: id})
		if len(d.s.jobs[dep].Pending) == 0 && len(j.Parts) == 0 { // else its parts are to be put together
			d.queued(dep)
		}
	}
}

func (d *decider) job(id domain.JobID) (*Job, error) {
	if j := d.s.jobs[id]; j != nil {
		return j, nil
	}
	return nil, domain.NotFound("job", string(id))
}

func (d *decider) cancel(c CancelJob) error {
	j, err := d.job(c.Job)
	switch {
	case err != nil:
		return err
	case j.State == JobStateCancelled:
		return nil
	case j.Ended:
		return domain.Conflict("job_ended", "job %q has %s already", j.ID, j.State)
	}
	d.emit(j.Renderer, JobCancelled{Job: j.ID, Resource: j.Resource, Reason: c.Reason})
	d.jobEnded(j.ID, false)
	d.dropParts(j, "its job was cancelled")
	return nil
}

// held finds a job that the resource in a report still has; a late report about an earlier attempt finds nothing.
func (d *decider) held(id domain.JobID, r domain.ResourceID) *Job {
	if j := d.s.jobs[id]; j != nil && j.Holding() && j.Resource == r {
		return j
	}
	return nil
}

func (d *decider) jobStarted(c ReportJobStarted) error {
	if j := d.held(c.Job, c.Resource); j != nil && j.State == JobStateAssigned {
		d.emit(j.Renderer, JobStarted{Job: j.ID, Resource: c.Resource})
	}
	return nil
}

func (d *decider) jobSucceeded(c ReportJobSucceeded) error {
	j := d.held(c.Job, c.Resource)
	if j == nil {
		return nil
	}
	took := 0.0
	if j.StartedAt != nil {
		took = d.at.Sub(*j.StartedAt).Seconds()
	}
	d.emit(j.Renderer, JobSucceeded{Job: j.ID, Resource: c.Resource, ContentType: c.Result.ContentType, Bytes: c.Result.Bytes, Seconds: took})
	d.jobEnded(j.ID, true)
	return nil
}

func (d *decider) jobFailed(c ReportJobFailed) error {
	if j := d.held(c.Job, c.Resource); j != nil {
		d.failAttempt(j, c.Class, c.Code, c.Reason)
	}
	return nil
}

// failAttempt ends an attempt: the job goes back to the queue if trying again may help and attempts are left, else it fails.
func (d *decider) failAttempt(j *Job, class Class, code, reason string) {
	again := class == ClassInterrupted || class != ClassPermanent && j.Attempts < j.MaxAttempts
	if !again {
		if class != ClassPermanent {
			reason = fmt.Sprintf("%s (attempt %d of %d)", reason, j.Attempts, j.MaxAttempts)
		}
		d.emit(j.Renderer, JobFailed{Job: j.ID, Resource: j.Resource, Class: class, Code: code, Reason: reason})
		d.jobEnded(j.ID, false)
		return
	}
	next := d.at.Add(RetryDelay(j.ID, j.Attempts, class))
	d.emit(j.Renderer, JobRetried{Job: j.ID, Resource: j.Resource, Class: class, Code: code, Reason: reason, NotBefore: next})
}
