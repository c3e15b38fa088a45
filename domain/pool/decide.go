package pool

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Codes of refusals and of ends that clients may rely on.
const (
	CodeNoCapacity  = "no_capacity"
	CodeFailing     = "renderer_failing"
	CodeAdmission   = "admission_suspended"
	CodeTooLarge    = "model_too_large"
	CodeLeaseEnded  = "lease_ended"
	CodeWaitEnded   = "wait_ended"
	CodeMaxDuration = "max_duration"
)

// decider is one decision under way: the state with the events so far folded
// in, and the pools to settle at the end.
type decider struct {
	s       *State
	id      domain.CommandID
	at      time.Time
	head    int64
	out     []Recorded
	touched []domain.RendererID
}

// Decide turns a command into events, which it folds into the state, and
// settles the pools that it touched. The events take the positions after head.
// A refusal changes nothing, but may come with the event that records it.
// "Already so" is no events and no error.
func (s *State) Decide(head int64, g Given) ([]Recorded, error) {
	// UTC drops the monotonic part, which the log does not hold: what is learned from times must come out the same from there.
	d := &decider{s: s, id: g.ID, at: g.At.UTC(), head: head, out: s.decided[:0], touched: s.touched[:0]}
	err := d.command(cleaned(g.Command))
	if err != nil && len(d.out) == 0 {
		return nil, err
	}
	// Settling may touch further pools: a job that ends may free one that waits elsewhere.
	for i := 0; i < len(d.touched); i++ {
		d.settle(d.touched[i])
	}
	s.decided, s.touched = d.out, d.touched // their room serves the next command
	return slices.Clone(d.out), err
}

func (d *decider) command(c Command) error {
	switch c := c.(type) {
	case ConfigureRenderer:
		return d.configure(c)
	case RemoveRenderer:
		return d.removeRenderer(c)
	case SetAdmission:
		return d.setAdmission(c)
	case BookResource:
		return d.book(c)
	case OpenSession:
		return d.open(c)
	case ScheduleSession:
		return d.schedule(c)
	case ReleaseSession:
		return d.release(c)
	case ExpireSession:
		return d.expire(c)
	case SubmitJob:
		return d.submit(c)
	case CancelJob:
		return d.cancel(c)
	case ReportJobStarted:
		return d.jobStarted(c)
	case ReportJobSucceeded:
		return d.jobSucceeded(c)
	case ReportJobFailed:
		return d.jobFailed(c)
	case ReportJobMoved:
		return d.moved(c)
	case ReportJobGathered:
		return d.gathered(c)
	case Tick:
		return d.tick()
	case ReportAdvice:
		return d.advised(c)
	case PlanScaling:
		return d.plan(c)
	}
	return d.resourceCommand(c)
}

// emit records an event in a pool's stream and folds it in.
func (d *decider) emit(r domain.RendererID, e Event) int64 {
	rec := Recorded{
		Position: d.head + int64(len(d.out)) + 1, Stream: d.s.stream(r),
		Version: d.s.version(r) + 1, At: d.at, Event: e,
	}
	d.out = append(d.out, rec)
	d.s.Evolve(rec)
	d.touch(r)
	return rec.Position
}

func (d *decider) touch(r domain.RendererID) {
	if !slices.Contains(d.touched, r) {
		d.touched = append(d.touched, r)
	}
}

// stream names a pool's stream.
func (s *State) stream(r domain.RendererID) domain.Stream {
	if p := s.find(r); p != nil {
		return p.stream
	}
	return domain.PoolStream(r)
}

// version is the length of a pool's stream, a removed one's too.
func (s *State) version(r domain.RendererID) int64 {
	if p := s.find(r); p != nil && p.pool != nil {
		return p.pool.Version
	}
	return 0
}

// pool finds the renderer that a command names.
func (d *decider) pool(r domain.RendererID) (*Pool, error) {
	if p := d.s.Pool(r); p != nil {
		return p, nil
	}
	refusal := domain.NotFound("renderer", string(r))
	refusal.Field = "renderer"
	return nil, refusal
}

// nextResource derives the ID of a new resource: its number in the pool for
// people, and a hash of the command so that it is unique across
// installations, whose processes and Slurm jobs are found by this name.
func (d *decider) nextResource(p *Pool) domain.ResourceID {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s/%d", d.id, p.Settings.ID, p.Resources+1)
	return domain.ResourceID(fmt.Sprintf("%s-%d-%04x", p.Settings.ID, p.Resources+1, h.Sum32()&0xffff))
}

func (d *decider) configure(c ConfigureRenderer) error {
	settings, err := c.Renderer.Checked()
	if err != nil {
		return err
	}
	old := d.s.Pool(settings.ID)
	if old != nil && c.Create {
		return domain.Conflict("renderer_exists", "there is a renderer %q already", settings.ID)
	}
	if old != nil && sameSettings(old.Settings, settings) {
		return nil
	}
	d.emit(settings.ID, RendererConfigured{Renderer: settings})
	return nil
}

func (d *decider) removeRenderer(c RemoveRenderer) error {
	if _, err := d.pool(c.Renderer); err != nil {
		return err
	}
	ps := d.s.of(c.Renderer)
	waitingJobs := d.s.jobsLeft(c.Renderer)
	if n := len(ps.waiting) + len(ps.holding) + waitingJobs; n > 0 {
		return domain.Conflict("renderer_in_use", "%d sessions and jobs of renderer %q have not ended", n, c.Renderer)
	}
	for _, r := range slices.Clone(ps.resources) {
		if r.State != ResourceStateStopping {
			d.emit(c.Renderer, ResourceStopping{Resource: r.ID, Reason: "the renderer was removed"})
		}
	}
	d.emit(c.Renderer, RendererRemoved{})
	return nil
}

// jobsLeft counts a pool's jobs that have not ended.
func (s *State) jobsLeft(r domain.RendererID) int {
	n := 0
	for _, j := range s.jobs {
		if j.Renderer == r && !j.Ended {
			n++
		}
	}
	return n
}

func (d *decider) setAdmission(c SetAdmission) error {
	if err := domain.CheckText("reason", c.Reason, 512); err != nil {
		return err
	}
	old := d.s.service
	if old.Open == c.Open && old.Reason == c.Reason {
		return nil
	}
	rec := Recorded{
		Position: d.head + int64(len(d.out)) + 1, Stream: domain.SystemStream,
		Version: old.Version + 1, At: d.at, Event: AdmissionChanged(c),
	}
	d.out = append(d.out, rec)
	d.s.Evolve(rec)
	return nil
}

// Needs are the entities that deciding a command needs to know of and that
// may have left memory because they ended. The caller puts them in first.
func (s *State) Needs(c Command) []Key {
	var keys []Key
	need := func(view, id string) {
		if k := (Key{view, id}); id != "" && !s.Has(k) {
			keys = append(keys, k)
		}
	}
	switch c := c.(type) {
	case OpenSession:
		need(ViewSessions, string(c.Session))
	case ScheduleSession:
		need(ViewSessions, string(c.Session))
	case ReleaseSession:
		need(ViewSessions, string(c.Session))
	case ExpireSession:
		need(ViewSessions, string(c.Session))
	case CancelJob:
		need(ViewJobs, string(c.Job))
	case SubmitJob:
		for _, id := range c.After {
			need(ViewJobs, string(id))
		}
	case DrainResource:
		need(ViewResources, string(c.Resource))
	case StopResource:
		need(ViewResources, string(c.Resource))
	}
	return keys
}
