package pool

import (
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/scaling"
)

// Model is what has been learned about a model in one pool.
type Model struct {
	Renderer    domain.RendererID `json:"renderer"`
	Model       domain.ModelKey   `json:"model"`
	Seq         int64             `json:"seq"`
	Loads       int               `json:"loads"`        // loads that succeeded
	LoadSeconds float64           `json:"load_seconds"` // learned, see learn
	JobSeconds  float64           `json:"job_seconds"`  // learned time of one job, loading excluded
	Jobs        int               `json:"jobs"`
	MemoryMiB   int               `json:"memory_mib"` // as the renderer said after the last load; 0: not known
	Uses        int               `json:"uses"`       // sessions and jobs that were given a slot
	WarmUses    int               `json:"warm_uses"`  // those of them that found it loaded
	LastUsed    time.Time         `json:"last_used"`
	InUse       int               `json:"in_use,omitempty"`       // slots that are held for it
	Pattern     scaling.Pattern   `json:"idle_pattern,omitempty"` // how long it was unused before it was wanted again
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
