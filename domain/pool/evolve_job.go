package pool

import (
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
)

func (s *State) evolveJob(r Recorded) {
	switch e := r.Event.(type) {
	case JobSubmitted:
		n := &Job{
			ID: e.Job, Seq: r.Position, Renderer: rendererOf(r.Stream), Model: e.Model, Kind: e.Kind, Spec: e.Spec, Owner: e.Owner,
			Priority: e.Priority, Deadline: e.Deadline, After: e.After, Pending: e.Pending, MaxAttempts: e.MaxAttempts, TimeoutSeconds: e.TimeoutSeconds,
			CallbackURL: e.CallbackURL, Warning: e.Warning, State: JobStateWaiting, StateSince: r.At, SubmittedAt: r.At,
		}
		n.Frames, n.PartOf, n.FirstFrame, n.LastFrame = e.Frames, e.PartOf, e.First, e.Last
		if whole := s.jobs[e.PartOf]; whole != nil {
			n.Spec = whole.Spec
		}
		n.Number, n.Seconds = s.asks(r, e.Model, e.Owner, true)
		if known := s.Model(n.Renderer, n.Model); known != nil && known.FrameJobs > 0 && n.framesLeft() > 0 {
			n.Seconds = known.FrameSeconds * float64(n.framesLeft())
		}
		s.put(n)
	case JobSpread:
		s.evolveSpread(r, e)
	case JobRejected: // the log remembers it; there is no job
	case JobUnblocked:
		s.changeJob(e.Job, func(x *Job) {
			x.Pending = slices.DeleteFunc(slices.Clone(x.Pending), func(id domain.JobID) bool { return id == e.By })
		})
	case JobQueued:
		s.changeJob(e.Job, func(x *Job) {
			x.enter(JobStateQueued, r.At)
			x.QueuedAt, x.Home = r.when(), e.Home
			x.Expected = expected(x.Expected, r.At, e.Basis, e.LowSeconds, e.EstimateSeconds, e.HighSeconds, e.RawSeconds)
			if e.Warning != "" {
				x.Warning = e.Warning
			}
		})
		s.arrive(r)
	case JobYielding:
		s.changeJob(e.Job, func(x *Job) { x.Yielding = r.when() })
	case JobMoved:
		s.evolveMoved(r, e)
	case JobLate:
		s.changeJob(e.Job, func(x *Job) { x.Late, x.Warning = true, e.Reason })
	case JobAssigned:
		if before := s.jobs[e.Job]; before != nil {
			s.began(r, true, before.Expected)
		}
		u, asked := User{Kind: UserJob, ID: string(e.Job), Model: e.Model, Since: r.At}, r.At
		if x := s.jobs[e.Job]; x != nil {
			u.Seconds = x.Seconds
			if x.QueuedAt != nil {
				asked = *x.QueuedAt
			}
		}
		s.take(r, e.Resource, u, asked, e.Warm)
		s.firstFrame(r, e.Model, e.Waited, e.Warm)
		s.changeJob(e.Job, func(x *Job) {
			x.enter(JobStateAssigned, r.At)
			x.Resource, x.Warm, x.Attempts, x.AssignedAt, x.Decision = e.Resource, e.Warm, e.Attempt, r.when(), r.Position
			x.NotBefore, x.Code, x.Reason = nil, "", e.Decision.Reason
		})
	case JobStarted:
		s.changeJob(e.Job, func(x *Job) {
			x.enter(JobStateRunning, r.At)
			x.StartedAt = r.when()
		})
	default:
		s.evolveJobEnd(r)
	}
}

func (s *State) evolveJobEnd(r Recorded) {
	var id domain.JobID
	var change func(*Job)
	switch e := r.Event.(type) {
	case JobSucceeded:
		id, change = e.Job, func(x *Job) {
			x.end(JobStateSucceeded, r.At, "", "")
			x.Result = &Result{ContentType: e.ContentType, Bytes: e.Bytes}
			x.metDeadline(r.At)
		}
		if j := s.jobs[id]; j != nil && j.StartedAt != nil && j.AssignedAt != nil { // else nobody knows how long it ran
			s.learnFrames(r, j, e.Seconds)
			s.learnJob(r, j, e.Seconds, r.At.Sub(*j.AssignedAt).Seconds())
		}
	case JobRetried:
		id, change = e.Job, func(x *Job) {
			x.enter(JobStateQueued, r.At)
			x.Code, x.Reason, x.QueuedAt = e.Code, e.Reason, r.when()
			x.Resource, x.AssignedAt, x.StartedAt, x.NotBefore = "", nil, nil, &e.NotBefore
			x.Yielding = nil
			x.Expected = nil // it waits anew, and was told nothing
			if e.Class == ClassInterrupted {
				x.Attempts = max(0, x.Attempts-1)
			}
		}
	case JobFailed:
		id, change = e.Job, func(x *Job) { x.end(JobStateFailed, r.At, e.Code, e.Reason) }
	case JobCancelled:
		id, change = e.Job, func(x *Job) { x.end(JobStateCancelled, r.At, "cancelled", e.Reason) }
	}
	if before := s.jobs[id]; before != nil {
		if before.Holding() {
			s.leave(r, before.Resource, UserJob, string(id))
		}
		s.changeJob(id, change)
	}
}

func (s *State) learnJob(r Recorded, j *Job, took, turn float64) {
	renderer := rendererOf(r.Stream)
	s.changeOwner(renderer, j.Owner, r.Position, func(o *Owner) {
		o.JobSeconds = learnOwn(o.JobSeconds, o.Jobs, took)
		o.Jobs++
	})
	s.changeModel(renderer, j.Model, r.Position, func(x *Model) {
		x.JobSeconds = learnMean(x.JobSeconds, x.Jobs, took)
		x.Jobs++
	})
	s.changePool(renderer, func(p *Pool) {
		p.JobSeconds = learnMean(p.JobSeconds, p.Jobs, took)
		p.Jobs++
		p.TurnSeconds = learnSlowly(p.TurnSeconds, p.Turns, turn)
		p.Turns++
	})
}
