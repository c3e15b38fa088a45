package pool

import (
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Owner is what has been learned about an owner's work in one pool.
type Owner struct {
	origin
	Renderer    domain.RendererID `json:"renderer"`
	Owner       domain.Owner      `json:"owner"`
	Seq         int64             `json:"seq"`
	Jobs        int               `json:"jobs"`
	JobSeconds  float64           `json:"job_seconds"` // learned time of one job, loading excluded
	Holds       int               `json:"holds"`
	HoldSeconds float64           `json:"hold_seconds"` // learned time that a session keeps its slot
}

func ownerID(r domain.RendererID, o domain.Owner) string { return string(r) + "/" + string(o) }

// ownerOf is the inverse of ownerID.
func ownerOf(id string) (domain.RendererID, domain.Owner) {
	r, o, _ := strings.Cut(id, "/")
	return domain.RendererID(r), domain.Owner(o)
}

// ownerWeight is the weight of an owner's last job or session: one's next
// resembles the last (of image requests on real demand the logarithms of
// successive durations correlate by 0.68).
const ownerWeight = 0.4

// Weights against which an owner's own observations count, up to ownerCounts of them.
const (
	ownerCounts = 3  // of an owner's observations against one of its model's mean
	modelCounts = 10 // observations that the mean of all models counts for against the model's own
)

func learnOwn(mean float64, n int, seen float64) float64 {
	if n == 0 {
		return seen
	}
	return mean + ownerWeight*(seen-mean)
}

// expectJobOf is how long a job is expected to work, in seconds: the owner's last
// ones, drawn to the model's mean, which is drawn to that of all models.
func (s *State) expectJobOf(p *Pool, m *Model, o *Owner) float64 {
	mean := p.expectJob()
	if m != nil {
		mean = (m.JobSeconds*float64(m.Jobs) + mean*modelCounts) / float64(m.Jobs+modelCounts)
	}
	if o == nil {
		return mean
	}
	n := float64(min(o.Jobs, ownerCounts))
	return (n*o.JobSeconds + mean) / (n + 1)
}

func (s *State) expectHoldOf(p *Pool, o *Owner) float64 {
	// A session may last for hours: a few short ones are no promise.
	mean := (p.HoldSeconds*float64(p.Holds) + holdSecondsUnseen*modelCounts) / float64(p.Holds+modelCounts)
	if o == nil {
		return mean
	}
	n := float64(min(o.Holds, ownerCounts))
	return (n*o.HoldSeconds + ownerCounts*mean) / (n + ownerCounts)
}

// asks counts a request for a model and says its number and how long it is expected to use a slot.
func (s *State) asks(r Recorded, m domain.ModelKey, o domain.Owner, job bool) (number int64, seconds float64) {
	renderer := rendererOf(r.Stream)
	p := s.find(renderer)
	if p == nil || p.pool == nil {
		return 0, 0
	}
	owner := s.owner(renderer, o)
	if job {
		seconds = s.expectJobOf(p.pool, s.Model(renderer, m), owner)
	} else {
		seconds = s.expectHoldOf(p.pool, owner)
	}
	if s.Model(renderer, m) != nil { // one that was never used counts from its first use on, see State.take: anybody can ask for anything
		s.changeModel(renderer, m, r.Position, func(x *Model) { x.asked(r.At) })
	}
	s.changePool(renderer, func(x *Pool) { x.Arrivals++ })
	return p.pool.Arrivals, seconds
}

// firstFrameWeight is that of one request in the mean time to first frame: about the last hundred count.
const firstFrameWeight = 0.01

// firstFrame folds the time from a request to the moment its work can begin into the pool's mean.
func (s *State) firstFrame(r Recorded, m domain.ModelKey, waited float64, warm bool) {
	renderer := rendererOf(r.Stream)
	known := s.Model(renderer, m)
	s.changePool(renderer, func(p *Pool) {
		if !warm {
			waited += p.expectLoad(known)
		}
		p.FirstFrame += firstFrameWeight * (waited - p.FirstFrame)
	})
}
