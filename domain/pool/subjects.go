package pool

import "github.com/rendering-resource-manager/rrm/domain"

// Subjects are whom an event concerns, in the form in which the log is
// searched: "session:ID", "job:ID", "resource:ID", "model:RENDERER/KEY",
// "owner:NAME", "renderer:ID". The owner is taken from the state, so call it
// while the session or job is still there.
func (s *State) Subjects(r Recorded) []string {
	renderer := rendererOf(r.Stream)
	c := subjects{s: s, renderer: renderer}
	switch e := r.Event.(type) {
	case AdmissionChanged:
		return []string{"admission"}
	case ResourceRequested:
		c.resource(e.Resource)
	case ResourceStarting:
		c.resource(e.Resource)
	case ResourceReady:
		c.resource(e.Resource)
	case ResourceReaddressed:
		c.resource(e.Resource)
	case ResourceDraining:
		c.resource(e.Resource)
	case ResourceStopping:
		c.resource(e.Resource)
	case ResourceStopped:
		c.resource(e.Resource)
	case ResourceFailed:
		c.resource(e.Resource)
	case ResourceLost:
		c.resource(e.Resource)
	case ModelLoading:
		c.resource(e.Resource).model(e.Model)
	case ModelLoaded:
		c.resource(e.Resource).model(e.Model)
	case ModelFailed:
		c.resource(e.Resource).model(e.Model)
	case ModelEvicted:
		c.resource(e.Resource).model(e.Model)
	case PoolScaled:
		for _, id := range e.Stop {
			c.resource(id)
		}
	default:
		c.user(r.Event)
	}
	return append(c.out, "renderer:"+string(renderer))
}

type subjects struct {
	s        *State
	renderer domain.RendererID
	out      []string
}

func (c *subjects) add(kind, id string) *subjects {
	if id != "" {
		c.out = append(c.out, kind+":"+id)
	}
	return c
}

func (c *subjects) resource(id domain.ResourceID) *subjects { return c.add("resource", string(id)) }
func (c *subjects) owner(o domain.Owner) *subjects          { return c.add("owner", string(o)) }

func (c *subjects) model(m domain.ModelKey) *subjects {
	if m == "" {
		return c
	}
	return c.add("model", modelID(c.renderer, m))
}

func (c *subjects) session(id domain.SessionID) *subjects {
	c.add("session", string(id))
	if e := c.s.sessions[id]; e != nil {
		c.owner(e.Owner)
	}
	return c
}

func (c *subjects) job(id domain.JobID) *subjects {
	c.add("job", string(id))
	if j := c.s.jobs[id]; j != nil {
		c.owner(j.Owner)
	}
	return c
}

// user adds the subjects of the events of sessions and jobs.
func (c *subjects) user(e Event) {
	switch e := e.(type) {
	case SessionOpened:
		c.session(e.Session)
	case SessionRequested:
		c.session(e.Session).model(e.Model)
		if c.s.sessions[e.Session] == nil { // rejected in the same breath
			c.owner(e.Owner)
		}
	case SessionQueued:
		c.session(e.Session)
	case SessionStarting:
		c.session(e.Session).resource(e.Resource)
	case SessionAllocated:
		c.session(e.Session).resource(e.Resource).model(e.Model)
	case SessionReady:
		c.session(e.Session).resource(e.Resource)
	case SessionRejected:
		c.session(e.Session).owner(e.Owner).model(e.Model)
	case SessionWarned:
		c.session(e.Session).resource(e.Resource)
	case SessionReleased:
		c.session(e.Session).resource(e.Resource)
	case SessionExpired:
		c.session(e.Session).resource(e.Resource)
	case SessionLost:
		c.session(e.Session).resource(e.Resource)
	case SessionMoved:
		c.session(e.Session).resource(e.Resource)
	case SessionFailed:
		c.session(e.Session).resource(e.Resource)
	case JobSubmitted:
		c.job(e.Job).add("job", string(e.PartOf)).model(e.Model)
	case JobRejected:
		c.add("job", string(e.Job)).owner(e.Owner).model(e.Model)
	case JobUnblocked:
		c.job(e.Job).add("job", string(e.By))
	case JobSpread:
		c.job(e.Job)
		for _, part := range e.Parts {
			c.add("job", string(part.Job))
		}
	case JobQueued:
		c.job(e.Job)
	case JobLate:
		c.job(e.Job)
	case JobAssigned:
		c.job(e.Job).resource(e.Resource).model(e.Model)
	case JobStarted:
		c.job(e.Job).resource(e.Resource)
	case JobSucceeded:
		c.job(e.Job).resource(e.Resource)
	case JobRetried:
		c.job(e.Job).resource(e.Resource)
	case JobYielding:
		c.job(e.Job).resource(e.Resource).session(e.For)
	case JobMoved:
		c.job(e.Job).resource(e.Resource)
	case JobFailed:
		c.job(e.Job).resource(e.Resource)
	case JobCancelled:
		c.job(e.Job).resource(e.Resource)
	}
}
