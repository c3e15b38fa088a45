package process

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Results keep what jobs make.
type Results interface {
	// Store keeps a result of at most limit bytes and says how many it has.
	// Repeating is safe; more than limit is a refusal.
	Store(ctx context.Context, job domain.JobID, contentType string, r io.Reader, limit int64) (int64, error)
	// Open gives a result that is complete, else not_found. It is to be closed.
	Open(ctx context.Context, job domain.JobID) (contentType string, r io.ReadCloser, err error)
}

// Jobs runs assigned jobs on their renderers: submits, follows the progress,
// fetches the result, times out, and reports. A job under way when rrm was
// stopped is found again by its id on the renderer.
type Jobs struct {
	Reporter Reporter
	Views    Views
	Outside  Outside
	Progress Progress
	Results  Results
	Log      *slog.Logger
	MaxBytes int64 // of one result

	*group
	asked *asked // who makes room
}

const (
	pollJob        = 30 * time.Millisecond
	pollJobSlowest = time.Second
)

// NewJobs makes the manager.
func NewJobs(r Reporter, v Views, o Outside, p Progress, res Results, maxBytes int64, log *slog.Logger) *Jobs {
	return &Jobs{Reporter: r, Views: v, Outside: o, Progress: p, Results: res, Log: log, MaxBytes: maxBytes, group: newGroup(), asked: newAsked()}
}

// RunOnce begins every job that has its slot and its model, and stops those that have been taken away.
func (m *Jobs) RunOnce(ctx context.Context) error {
	jobs, err := m.Views.HeldJobs(ctx)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	if err := m.gatherAll(ctx, wanted); err != nil {
		return err
	}
	if len(jobs) == 0 {
		m.keep(func(key string) bool { return wanted[key] })
		return nil
	}
	resources, err := m.Views.LiveResources(ctx)
	if err != nil {
		return err
	}
	by := map[domain.ResourceID]*pool.Resource{}
	for i := range resources {
		by[resources[i].ID] = &resources[i]
	}
	for i := range jobs {
		j := &jobs[i]
		key := string(attemptID(j))
		wanted[key] = true
		if j.Yielding != nil {
			m.asked.ask(key)
		}
		r := by[j.Resource]
		if r == nil || r.Address == "" {
			continue
		}
		if h := r.Holds(j.Model); h == nil || h.State != placement.Loaded {
			continue
		}
		limit := time.Duration(j.TimeoutSeconds * float64(time.Second))
		m.do(ctx, key, limit+time.Minute, func(ctx context.Context) { m.run(ctx, j, r, limit) })
	}
	m.keep(func(key string) bool { return wanted[key] })
	m.asked.keep(wanted)
	return nil
}

// attemptID names one attempt on the renderer, so that a second attempt does not find the first one's failure,
// and one after a move not the frames before it.
func attemptID(j *pool.Job) domain.JobID {
	if j.Moves > 0 {
		return domain.JobID(fmt.Sprintf("%s.%d.%d", j.ID, j.Attempts, j.Moves))
	}
	return domain.JobID(fmt.Sprintf("%s.%d", j.ID, j.Attempts))
}

// run takes one attempt to its end.
func (m *Jobs) run(ctx context.Context, j *pool.Job, r *pool.Resource, limit time.Duration) {
	c, id := m.Outside.Renderer(r.Address), attemptID(j)
	began := time.Now()
	if j.StartedAt != nil {
		began = *j.StartedAt
	}
	spec, err := specOf(j)
	if err != nil {
		m.failed(ctx, j, r, pool.ClassPermanent, "invalid", err.Error())
		return
	}
	st, err := c.SubmitJob(ctx, id, j.Kind, j.Model, spec)
	if err == nil && j.State == pool.JobStateAssigned {
		report(ctx, m.Reporter, m.Log, "jobs", pool.ReportJobStarted{Job: j.ID, Resource: r.ID})
	}
	lastHeard, pause := time.Now(), pollJob
	room := m.asked.of(string(id))
	for {
		done := false
		if err != nil {
			done = m.wentWrong(ctx, j, r, err, lastHeard)
		} else {
			lastHeard = time.Now()
			done = m.settled(ctx, c, j, r, st)
		}
		switch {
		case done:
			m.discard(ctx, c, id)
			return
		case ctx.Err() != nil:
			m.abandoned(ctx, c, j)
			return
		case time.Since(began) > limit:
			m.discard(ctx, c, id)
			m.failed(ctx, j, r, pool.ClassTimeout, "timeout", fmt.Sprintf("the attempt took longer than %s", limit))
			return
		}
		if wait(ctx, pause, room) {
			room, pause = nil, pollJob
			st, err = m.stop(ctx, c, id)
			continue
		}
		pause = min(pollJobSlowest, pause+pause/4)
		st, err = c.JobStatus(ctx, id)
	}
}

// settled reports an attempt that has ended, and says whether it has.
func (m *Jobs) settled(ctx context.Context, c Renderer, j *pool.Job, r *pool.Resource, st domain.JobStatus) bool {
	switch st.State {
	case "succeeded":
		return m.fetch(ctx, c, j, r)
	case "stopped":
		return m.moved(ctx, c, j, r, st)
	case "failed":
		m.failed(ctx, j, r, classOf(st.Code), st.Code, st.Reason)
		return true
	case "cancelled":
		if ctx.Err() == nil {
			m.failed(ctx, j, r, pool.ClassTransient, "cancelled", "the renderer cancelled the job")
		}
		return true
	}
	if err := m.Progress.SetProgress(ctx, "job", string(j.ID), madeOf(j, st)); err != nil && ctx.Err() == nil {
		m.Log.Debug("progress was not kept", "job", j.ID, "error", err)
	}
	return false
}

// fetch brings the result home before success is reported: an acknowledged job has its result.
func (m *Jobs) fetch(ctx context.Context, c Renderer, j *pool.Job, r *pool.Resource) bool {
	body, contentType, err := c.JobResult(ctx, attemptID(j))
	if err == nil {
		var n int64
		n, err = m.store(ctx, j, contentType, body)
		_ = body.Close()
		if err == nil {
			report(ctx, m.Reporter, m.Log, "jobs", pool.ReportJobSucceeded{Job: j.ID, Resource: r.ID, Result: pool.Result{ContentType: contentType, Bytes: n}})
			return true
		}
	}
	if refusal, ok := domain.AsRefusal(err); ok && refusal.Kind == domain.KindInvalid {
		m.failed(ctx, j, r, pool.ClassPermanent, refusal.Code, refusal.Reason)
		return true
	}
	if ctx.Err() == nil {
		m.Log.Warn("a result could not be fetched; it will be tried again", "job", j.ID, "error", err)
	}
	return false
}

// stop asks for the end of a job after its frame. Where the renderer cannot, the job goes on to its end.
func (m *Jobs) stop(ctx context.Context, c Renderer, id domain.JobID) (domain.JobStatus, error) {
	st, err := c.StopJob(ctx, id)
	if err == nil {
		return st, nil
	}
	if code, _, _, answered := m.Outside.Failure(err); answered && code == "not_stoppable" {
		return c.JobStatus(ctx, id)
	}
	return st, err
}

// store keeps what the last attempt of a job brought, together with what was made before it was moved.
func (m *Jobs) store(ctx context.Context, j *pool.Job, contentType string, body io.Reader) (int64, error) {
	if len(j.Pieces) == 0 {
		return m.Results.Store(ctx, j.ID, contentType, body, m.MaxBytes)
	}
	if !isZip(contentType) {
		return 0, errNotArchives
	}
	pieces := make([]domain.JobID, len(j.Pieces))
	for i, p := range j.Pieces {
		pieces[i] = p.Result
	}
	all := m.together(ctx, pieces, body)
	defer func() { _ = all.Close() }()
	return m.Results.Store(ctx, j.ID, contentType, all, m.MaxBytes)
}

// wentWrong judges an error of a call, and says whether the attempt is over.
func (m *Jobs) wentWrong(ctx context.Context, j *pool.Job, r *pool.Resource, err error, lastHeard time.Time) bool {
	code, reason, status, answered := m.Outside.Failure(err)
	switch {
	case ctx.Err() != nil:
		return false
	case answered && (status == http.StatusNotFound || status == http.StatusConflict || status == http.StatusTooManyRequests):
		// It does not know the job or the model any more (it was started anew), or is full: another attempt may do.
		m.failed(ctx, j, r, pool.ClassTransient, code, reason)
		return true
	case answered && status < 500:
		m.failed(ctx, j, r, pool.ClassPermanent, code, reason)
		return true
	case time.Since(lastHeard) > reachable:
		m.failed(ctx, j, r, pool.ClassTransient, "unreachable", "the renderer does not answer: "+reason)
		return true
	}
	return false
}

// permanentCodes are failures that another attempt would only repeat.
var permanentCodes = []string{"invalid", "video_unavailable", "model_not_found", "model_invalid", "model_too_large", "result_too_large", "unsupported"}

func classOf(code string) pool.Class {
	if slices.Contains(permanentCodes, code) {
		return pool.ClassPermanent
	}
	return pool.ClassTransient
}

func (m *Jobs) failed(ctx context.Context, j *pool.Job, r *pool.Resource, class pool.Class, code, reason string) {
	m.Log.Warn("an attempt of a job failed", "job", j.ID, "attempt", j.Attempts, "class", class, "code", code, "reason", reason)
	report(context.WithoutCancel(ctx), m.Reporter, m.Log, "jobs", pool.ReportJobFailed{Job: j.ID, Resource: r.ID, Class: class, Code: code, Reason: reason})
}

// abandoned stops a job on the renderer that the views do not want there any
// more; one that is only not followed, because rrm stops, goes on.
func (m *Jobs) abandoned(ctx context.Context, c Renderer, j *pool.Job) {
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), reachable)
	defer cancel()
	jobs, err := m.Views.HeldJobs(look)
	if err != nil || slices.ContainsFunc(jobs, func(h pool.Job) bool { return attemptID(&h) == attemptID(j) }) {
		return
	}
	m.discard(look, c, attemptID(j))
}

// discard makes the renderer forget an attempt; that it cannot is no harm, its results are bounded.
func (m *Jobs) discard(ctx context.Context, c Renderer, id domain.JobID) {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), reachable)
	defer cancel()
	if err := c.CancelJob(stop, id); err != nil {
		m.Log.Debug("a renderer did not forget a job", "job", id, "error", err)
	}
}
