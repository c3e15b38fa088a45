package pool

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Part is some frames of a set that is rendered in parts: a job of its own,
// queued, placed, tried again and moved like any other.
type Part struct {
	Job   domain.JobID `json:"job"`
	First int          `json:"first"`
	Last  int          `json:"last"`
}

// Codes of a job that is rendered in parts.
const (
	CodeParts      = "parts"       // it waits for them
	CodePartFailed = "part_failed" // it failed with one of them
)

// The policy that spreads, in decisions.
const (
	spreadPolicy  = "spread"
	spreadVersion = 1
)

// framesUnseen is the least number of frames of a part while nobody knows how long a frame takes.
const framesUnseen = 8

// framesOf is how many frames a spec asks for by its field "frames"; 0: it does not say.
func framesOf(kind string, spec json.RawMessage) int {
	if kind != JobFrames || len(spec) == 0 {
		return 0
	}
	var says struct {
		Frames int `json:"frames"`
	}
	if err := json.Unmarshal(spec, &says); err != nil {
		return 0 // the renderer will say what is wrong with it
	}
	return max(0, says.Frames)
}

// framesLeft is how many frames an attempt of the job has to make; 0: not known.
func (j *Job) framesLeft() int {
	if j.LastFrame > 0 {
		return j.LastFrame - max(1, j.FirstFrame) + 1
	}
	return max(0, j.Frames-max(1, j.FirstFrame)+1)
}

// partsOf says into how many parts a set of frames is cut so that it ends
// sooner: no more than slots that there can be, and each at least as much work as the load
// that it may have to wait for, so that every load is paid off. One is not to cut.
func (d *decider) partsOf(p *poolState, j *Job) int {
	set := p.pool.Settings
	if j.Kind != JobFrames || j.Frames < 2 || set.Job.Spread < 2 || !p.pool.FrameRanges || len(j.Parts) > 0 || len(j.Pieces) > 0 {
		return 1
	}
	slots := 0
	for _, r := range p.resources {
		if r.Live() && r.Key == "" && (r.Model == "" || r.Model == j.Model) {
			slots += r.Slots
		}
	}
	if set.Launcher != domain.LauncherStatic {
		slots += max(0, set.Scaling.Max-len(p.resources)) * set.Slots
	}
	most := min(set.Job.Spread, slots, j.Frames)
	known := d.s.Model(j.Renderer, j.Model)
	if known == nil || known.FrameJobs == 0 {
		return max(1, min(most, j.Frames/framesUnseen))
	}
	work := known.FrameSeconds * float64(j.Frames)
	return max(1, int(min(float64(most), work/max(0.1, p.pool.expectLoad(known)))))
}

// spread cuts a set of frames into parts, which are queued, and says whether it did.
func (d *decider) spread(j *Job) bool {
	p := d.s.of(j.Renderer)
	n := d.partsOf(p, j)
	if n < 2 {
		return false
	}
	e := JobSpread{Job: j.ID, Decision: Decision{Policy: spreadPolicy, Version: spreadVersion, Outcome: "spread",
		Reason: fmt.Sprintf("%d frames end sooner in %d parts", j.Frames, n), Considered: len(p.resources),
		Costs: map[string]float64{"load_seconds": p.pool.expectLoad(d.s.Model(j.Renderer, j.Model))}}}
	if known := d.s.Model(j.Renderer, j.Model); known != nil && known.FrameJobs > 0 {
		e.Decision.Costs["frame_seconds"] = known.FrameSeconds
	}
	for i := range n {
		e.Parts = append(e.Parts, Part{Job: domain.JobID(fmt.Sprintf("%s.p%d", j.ID, i+1)), First: i*j.Frames/n + 1, Last: (i + 1) * j.Frames / n})
	}
	d.emit(j.Renderer, e)
	for _, part := range e.Parts {
		d.emit(j.Renderer, JobSubmitted{
			Job: part.Job, PartOf: j.ID, First: part.First, Last: part.Last, Model: j.Model, Kind: j.Kind, Owner: j.Owner,
			Priority: j.Priority, Deadline: j.Deadline, MaxAttempts: j.MaxAttempts, TimeoutSeconds: j.TimeoutSeconds,
		})
		d.queued(part.Job)
	}
	return true
}

// partFailed ends a job with one of its parts.
func (d *decider) partFailed(j *Job, part domain.JobID) {
	x := d.s.jobs[part]
	n := slices.IndexFunc(j.Parts, func(p Part) bool { return p.Job == part })
	d.emit(j.Renderer, JobFailed{Job: j.ID, Class: ClassPermanent, Code: CodePartFailed,
		Reason: fmt.Sprintf("part %d of %d %s%s", n+1, len(j.Parts), x.State, because(x.Reason))})
	d.jobEnded(j.ID, false)
	d.dropParts(j, "another part of its job did not succeed")
}

// dropParts cancels what is left of the parts of a job that has ended.
func (d *decider) dropParts(j *Job, reason string) {
	for _, part := range j.Parts {
		if x := d.s.jobs[part.Job]; x != nil && !x.Ended {
			d.emit(j.Renderer, JobCancelled{Job: x.ID, Resource: x.Resource, Reason: reason})
			d.jobEnded(x.ID, false)
		}
	}
}

// Gathering says that all parts are made and are to be put together.
func (j *Job) Gathering() bool {
	return j.State == JobStateWaiting && len(j.Parts) > 0 && len(j.Pending) == 0
}

// gathered ends a job whose parts were put together, or could not be.
func (d *decider) gathered(c ReportJobGathered) error {
	j := d.s.jobs[c.Job]
	if j == nil || !j.Gathering() {
		return nil
	}
	if c.Code != "" {
		d.emit(j.Renderer, JobFailed{Job: j.ID, Class: ClassPermanent, Code: c.Code, Reason: c.Reason})
	} else {
		d.emit(j.Renderer, JobSucceeded{Job: j.ID, ContentType: c.Result.ContentType, Bytes: c.Result.Bytes, Seconds: d.at.Sub(j.StateSince).Seconds()})
	}
	d.jobEnded(j.ID, c.Code == "")
	return nil
}

// placeOfParts is what is told of a job that waits for its parts.
func (j *Job) placeOfParts() Place {
	return Place{Code: CodeParts, Reason: fmt.Sprintf("%d of %d parts are made", len(j.Parts)-len(j.Pending), len(j.Parts))}
}

// WaitsFor is what is told of a job that waits for other jobs: those named in after, or its parts.
func (j *Job) WaitsFor() Place {
	if len(j.Parts) > 0 {
		return j.placeOfParts()
	}
	return Place{Code: "dependencies", Reason: fmt.Sprintf("waits for %d other jobs", len(j.Pending))}
}

func (s *State) evolveSpread(r Recorded, e JobSpread) {
	s.changeJob(e.Job, func(x *Job) {
		x.Parts, x.Decision, x.Code, x.Reason, x.QueuedAt = e.Parts, r.Position, CodeParts, e.Decision.Reason, r.when()
		x.enter(JobStateWaiting, r.At)
		x.Pending = nil
		for _, part := range e.Parts {
			x.Pending = append(x.Pending, part.Job)
		}
	})
}

// learnFrames learns how long a frame takes from an attempt that made all that were left.
func (s *State) learnFrames(r Recorded, j *Job, took float64) {
	n := j.framesLeft()
	if j.Kind != JobFrames || n == 0 {
		return
	}
	s.changeModel(rendererOf(r.Stream), j.Model, r.Position, func(x *Model) {
		x.FrameSeconds = learn(x.FrameSeconds, x.FrameJobs, took/float64(n))
		x.FrameJobs++
	})
}
