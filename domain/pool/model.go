package pool

import (
	"math"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// Model is what has been learned about a model in one pool.
type Model struct {
	origin
	Renderer     domain.RendererID `json:"renderer"`
	Model        domain.ModelKey   `json:"model"`
	Seq          int64             `json:"seq"`
	Loads        int               `json:"loads"`        // loads that succeeded
	LoadSeconds  float64           `json:"load_seconds"` // learned, see learnLoad
	JobSeconds   float64           `json:"job_seconds"`  // learned time of one job, loading excluded
	Jobs         int               `json:"jobs"`
	FrameJobs    int               `json:"frame_jobs,omitempty"`    // sets of frames, or parts of them, that were made
	FrameSeconds float64           `json:"frame_seconds,omitempty"` // learned time of one frame
	MemoryMiB    int               `json:"memory_mib"`              // as the renderer said after the last load; 0: not known
	Uses         int               `json:"uses"`                    // sessions and jobs that were given a slot
	WarmUses     int               `json:"warm_uses"`               // those of them that found it loaded
	LastUsed     time.Time         `json:"last_used"`
	InUse        int               `json:"in_use,omitempty"`       // slots that are held for it
	Pattern      scaling.Pattern   `json:"idle_pattern,omitempty"` // how long it was unused before it was wanted again

	Recent   [3]float64 `json:"recent,omitzero"` // requests of late, each forgotten at its own pace, see demandScales
	RecentAt time.Time  `json:"recent_at,omitzero"`
}

// modelID is the key of a model's row. A renderer's name holds no slash, so the two cannot be confused.
func modelID(r domain.RendererID, m domain.ModelKey) string { return string(r) + "/" + string(m) }

// learnWeight is the weight of a new observation: an experiment on real demand (docs/decisions)
// found 0.3 to follow drift without chasing single outliers.
const learnWeight = 0.3

// slowWeight is the weight of a new observation where the mean of many is wanted
// rather than the latest: work is of all sizes, and a queue has many of them.
const slowWeight = 0.05

// learnSlowly is the mean of the first observations, and then an exponentially weighted one.
func learnSlowly(mean float64, n int, seen float64) float64 {
	return mean + max(slowWeight, 1/float64(n+1))*(seen-mean)
}

// learn folds one observation into an exponentially weighted mean; the first one is taken as it is.
func learn(mean float64, n int, seen float64) float64 {
	if n == 0 {
		return seen
	}
	return mean + learnWeight*(seen-mean)
}

// How load times are learned. Loads of one model resemble each other, and now
// and then one does not, because a disk was busy or a cache cold.
const (
	// loadFew is of how many loads the plain mean is taken: before that nobody can say what is an outlier.
	loadFew = 3
	// loadMost is how many times what was expected one load counts at most. With
	// the weight of a new one, one outlier moves what is expected by six tenths,
	// and a model that has become ten times slower is followed within five loads.
	loadMost = 3.0
	// loadPrior is how many loads the mean of the pool counts for beside those of
	// the model: the variance between loads of one model over that between models.
	// Where loads of one model differ by a fifth and models as in the experiment
	// on real demand (p50 22.7 s, p95 45 s: by 0.42 in logarithms), that is a quarter.
	loadPrior = 0.25
	// loadLeast keeps a model whose loads took no time from being believed to do so for ever.
	loadLeast = 1.0
)

// countedLoad is what one more load of a model counts as, in seconds.
func (m *Model) countedLoad(seen float64) float64 {
	if m.Loads < loadFew {
		return seen
	}
	return min(seen, loadMost*max(loadLeast, m.LoadSeconds))
}

// learnLoad folds one load, as it counts, into what is expected of the next: the mean of the few first, later an exponentially weighted one.
func (m *Model) learnLoad(counted float64) {
	m.LoadSeconds += max(learnWeight, 1/float64(m.Loads+1)) * (counted - m.LoadSeconds)
	m.Loads++
}

// demandScales are the times, in seconds, over which requests for a model are
// forgotten: what is asked for now, in this hour, on this day. Each alone either
// forgets the morning by noon or takes a burst for a habit.
var demandScales = [3]float64{300, 3000, 30000}

// recent is how much of each count is left at a time.
func (m *Model) recent(at time.Time) [3]float64 {
	left := m.Recent
	if passed := at.Sub(m.RecentAt).Seconds(); passed > 0 {
		for i, scale := range demandScales {
			left[i] *= math.Exp(-passed / scale)
		}
	}
	return left
}

// asked counts a request.
func (m *Model) asked(at time.Time) {
	m.Recent = m.recent(at)
	for i := range m.Recent {
		m.Recent[i]++
	}
	m.RecentAt = at
}

// demand is requests a second, summed over the scales: what was asked for a
// moment ago counts most, what is asked for every day counts for long.
func (m *Model) demand(at time.Time) float64 {
	sum := 0.0
	for i, n := range m.recent(at) {
		sum += n / demandScales[i]
	}
	return sum
}

// learnMean folds one observation into the mean of the first twenty, later into
// one that forgets what is older: a mean, since work adds up, and slower than learn, since it varies more.
func learnMean(mean float64, n int, seen float64) float64 {
	return mean + (seen-mean)/float64(min(n, 19)+1)
}

// modelOf is the inverse of modelID.
func modelOf(id string) (domain.RendererID, domain.ModelKey) {
	r, m, _ := strings.Cut(id, "/")
	return domain.RendererID(r), domain.ModelKey(m)
}
