package pool_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// lines are events as the tests write them: the type and the fields that matter.
func (w *world) lines(events []pool.Recorded) []string {
	var all []string
	for _, r := range events {
		text := r.Event.Type()
		if !strings.HasPrefix(string(r.Stream), "pool/demo") && r.Stream != domain.SystemStream {
			text = strings.TrimPrefix(string(r.Stream), "pool/") + " " + text
		}
		all = append(all, strings.TrimSpace(text+" "+w.fields(r)))
	}
	return all
}

// name is a resource as the tests write it: r1 is the first of its pool.
func (w *world) name(id domain.ResourceID) string {
	for _, made := range w.made {
		if i := slices.Index(made, id); i >= 0 {
			return fmt.Sprintf("r%d", i+1)
		}
	}
	return string(id)
}

func warmth(warm bool) string {
	if warm {
		return "warm"
	}
	return "cold"
}

func (w *world) fields(r pool.Recorded) string {
	switch e := r.Event.(type) {
	case pool.AdmissionChanged:
		return map[bool]string{true: "open", false: "suspended"}[e.Open]
	case pool.PoolScaled:
		text := fmt.Sprintf("%d to %d", e.From, e.To)
		for _, id := range e.Stop {
			text += " without " + w.name(id)
		}
		return text
	case pool.PoolAdvised:
		return strings.TrimSpace(fmt.Sprintf("%d %s", e.Size, e.Problem))
	case pool.PoolShadowed:
		return fmt.Sprintf("%d beside %d", e.Size, e.Live)
	case pool.PoolBackedOff:
		return fmt.Sprintf("%d for %s", e.Failures, e.Until.Sub(r.At))
	case pool.ModelLoading:
		return fmt.Sprintf("%s %s", w.name(e.Resource), e.Model)
	case pool.ModelLoaded:
		return fmt.Sprintf("%s %s", w.name(e.Resource), e.Model)
	case pool.ModelFailed:
		return fmt.Sprintf("%s %s %s", w.name(e.Resource), e.Model, e.Code)
	case pool.ModelEvicted:
		return fmt.Sprintf("%s %s for %s", w.name(e.Resource), e.Model, e.For)
	}
	if text := w.resourceFields(r.Event); text != "" {
		return text
	}
	if text := w.sessionFields(r.Event); text != "" {
		return text
	}
	return w.jobFields(r)
}

func (w *world) resourceFields(e pool.Event) string {
	switch e := e.(type) {
	case pool.ResourceRequested:
		return strings.TrimSpace(w.name(e.Resource) + " " + string(e.Model))
	case pool.ResourceStarting:
		return w.name(e.Resource)
	case pool.ResourceReaddressed:
		return w.name(e.Resource)
	case pool.ResourceReady:
		return w.name(e.Resource)
	case pool.ResourceDraining:
		return w.name(e.Resource)
	case pool.ResourceStopping:
		return w.name(e.Resource)
	case pool.ResourceStopped:
		return w.name(e.Resource)
	case pool.ResourceFailed:
		return w.name(e.Resource) + " " + e.Code
	case pool.ResourceLost:
		return w.name(e.Resource)
	}
	return ""
}

func (w *world) sessionFields(e pool.Event) string {
	switch e := e.(type) {
	case pool.SessionOpened:
		return string(e.Session)
	case pool.SessionRequested:
		return string(e.Session)
	case pool.SessionQueued:
		return fmt.Sprintf("%s at %d", e.Session, e.Place)
	case pool.SessionWarned:
		return fmt.Sprintf("%s %s", e.Session, w.name(e.Resource))
	case pool.SessionStarting:
		return fmt.Sprintf("%s %s", e.Session, w.name(e.Resource))
	case pool.SessionAllocated:
		return fmt.Sprintf("%s %s %s", e.Session, w.name(e.Resource), warmth(e.Warm))
	case pool.SessionReady:
		return fmt.Sprintf("%s %s", e.Session, w.name(e.Resource))
	case pool.SessionRejected:
		return fmt.Sprintf("%s %s", e.Session, e.Code)
	case pool.SessionReleased:
		return string(e.Session)
	case pool.SessionExpired:
		return fmt.Sprintf("%s %s", e.Session, e.Code)
	case pool.SessionLost:
		return string(e.Session)
	case pool.SessionMoved:
		return string(e.Session)
	case pool.SessionFailed:
		return fmt.Sprintf("%s %s", e.Session, e.Code)
	}
	return ""
}

func (w *world) jobFields(r pool.Recorded) string {
	switch e := r.Event.(type) {
	case pool.JobSubmitted:
		return string(e.Job)
	case pool.JobRejected:
		return fmt.Sprintf("%s %s", e.Job, e.Code)
	case pool.JobUnblocked:
		return fmt.Sprintf("%s by %s", e.Job, e.By)
	case pool.JobSpread:
		return fmt.Sprintf("%s in %d", e.Job, len(e.Parts))
	case pool.JobQueued:
		return string(e.Job)
	case pool.JobLate:
		return string(e.Job)
	case pool.JobAssigned:
		return fmt.Sprintf("%s %s %s attempt %d", e.Job, w.name(e.Resource), warmth(e.Warm), e.Attempt)
	case pool.JobStarted:
		return string(e.Job)
	case pool.JobSucceeded:
		return string(e.Job)
	case pool.JobRetried:
		return fmt.Sprintf("%s %s in %s", e.Job, e.Class, (e.NotBefore.Sub(r.At) + time.Second - 1).Truncate(time.Second))
	case pool.JobYielding:
		return fmt.Sprintf("%s for %s", e.Job, e.For)
	case pool.JobMoved:
		return fmt.Sprintf("%s after %d frames", e.Job, e.Frames)
	case pool.JobFailed:
		return fmt.Sprintf("%s %s", e.Job, e.Code)
	case pool.JobCancelled:
		return string(e.Job)
	}
	return ""
}

// demo is a renderer with one slot and one model on a resource, from 0 to 2 resources, scaled by what is asked for.
func demo(change ...func(*domain.Renderer)) domain.Renderer {
	r := domain.Renderer{ID: "demo", CommandLine: "renderer", ModelLoading: domain.LoadHTTP, Slots: 1, ModelsPerResource: 1,
		Scaling: domain.ScalingSettings{Max: 2, Idle: domain.Duration(5 * time.Minute), ScalingPolicy: domain.ScalingPolicy{Policy: domain.ScalingDemand}}}
	for _, c := range change {
		c(&r)
	}
	return r
}

func named(id domain.RendererID) func(*domain.Renderer) {
	return func(r *domain.Renderer) { r.ID = id }
}

func slots(n int) func(*domain.Renderer) { return func(r *domain.Renderer) { r.Slots = n } }

func models(n, mib int) func(*domain.Renderer) {
	return func(r *domain.Renderer) { r.ModelsPerResource, r.MemoryMiB = n, mib }
}

func size(low, high int) func(*domain.Renderer) {
	return func(r *domain.Renderer) { r.Scaling.Min, r.Scaling.Max = low, high }
}

func buffer(n int) func(*domain.Renderer) { return func(r *domain.Renderer) { r.Scaling.Buffer = n } }

func loading(how string) func(*domain.Renderer) {
	return func(r *domain.Renderer) { r.ModelLoading = how }
}

func book(id domain.SessionID, m domain.ModelKey, change ...func(*pool.BookResource)) pool.BookResource {
	c := pool.BookResource{Session: id, Renderer: "demo", Model: m, Owner: "ann"}
	for _, f := range change {
		f(&c)
	}
	return c
}

func waits(d time.Duration) func(*pool.BookResource) {
	return func(c *pool.BookResource) { c.Wait = d }
}

func moves(c *pool.BookResource) { c.OnLost = pool.OnLostMove }

func job(id domain.JobID, m domain.ModelKey, change ...func(*pool.SubmitJob)) pool.SubmitJob {
	c := pool.SubmitJob{Job: id, Renderer: "demo", Model: m, Kind: pool.JobImage, Owner: "ann"}
	for _, f := range change {
		f(&c)
	}
	return c
}

func priority(n int) func(*pool.SubmitJob) { return func(c *pool.SubmitJob) { c.Priority = n } }

func after(ids ...domain.JobID) func(*pool.SubmitJob) {
	return func(c *pool.SubmitJob) { c.After = ids }
}

func release(id domain.SessionID) pool.Command { return pool.ReleaseSession{Session: id} }
