package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

func jobURL(id domain.JobID) string { return BasePath + "/jobs/" + string(id) }

func jobAnswer(v *projections.JobView) Job {
	j := &v.Job
	out := Job{
		ID: ID(j.ID), Renderer: RendererName(j.Renderer), Model: ModelKey(j.Model), Kind: JobKind(j.Kind), Spec: j.Spec, Owner: Owner(j.Owner),
		Priority: j.Priority, Deadline: timeOf(j.Deadline), CallbackURL: j.CallbackURL,
		Moves: j.Moves, Warning: j.Warning, Late: j.Late,
		State: JobState(j.State), StateSince: j.StateSince.UTC(), Code: j.Code, Reason: j.Reason, Resource: ID(j.Resource), Warm: j.Warm,
		Progress: min(seconds(v.Progress), 1), Attempts: j.Attempts, MaxAttempts: j.MaxAttempts, TimeoutSeconds: seconds(j.TimeoutSeconds),
		SubmittedAt: j.SubmittedAt.UTC(), QueuedAt: timeOf(j.QueuedAt), NotBefore: timeOf(j.NotBefore), AssignedAt: timeOf(j.AssignedAt),
		StartedAt: timeOf(j.StartedAt), EndedAt: timeOf(j.EndedAt),
		EventsURL: jobURL(j.ID) + "/events", Queue: placeOf(v.Queue), Decision: decisionRef(j.Decision),
	}
	if len(j.After) > 0 {
		out.After = each(j.After, text[domain.JobID])
	}
	out.PartOf, out.FirstFrame, out.LastFrame = ID(j.PartOf), j.FirstFrame, j.LastFrame
	for _, p := range j.Parts {
		out.Parts = append(out.Parts, JobPart{Job: ID(p.Job), FirstFrame: p.First, LastFrame: p.Last})
	}
	if j.Result != nil {
		out.Result = JobResult{ContentType: j.Result.ContentType, Bytes: j.Result.Bytes, URL: jobURL(j.ID) + "/result"}
	}
	return out
}

// SubmitJob answers POST /jobs.
func (s *Server) SubmitJob(c echo.Context, _ SubmitJobParams) error {
	cmd, err := submission(c)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	for _, id := range cmd.After {
		if _, err := s.ownJob(ctx, callerOf(c), ID(id)); err != nil {
			return blame(err, "after")
		}
	}
	a, err := s.Commands.SubmitJob(ctx, s.call(c), cmd)
	if err != nil {
		return err
	}
	c.Response().Header().Set("Location", jobURL(a.Job.ID))
	return c.JSON(http.StatusAccepted, jobAnswer(&projections.JobView{Job: a.Job, Queue: a.Queue}))
}

// blame names the field of a refusal that does not know it.
func blame(err error, field string) error {
	if r, ok := domain.AsRefusal(err); ok && r.Field == "" {
		named := *r
		named.Field = field
		return &named
	}
	return err
}

func submission(c echo.Context) (cmd pool.SubmitJob, err error) {
	in, err := bodyOf[JobRequest](c)
	if err != nil {
		return cmd, err
	}
	if cmd.Owner, err = callerOf(c).as(in.Owner); err != nil {
		return cmd, err
	}
	if cmd.Renderer, err = rendererID(in.Renderer); err != nil {
		return cmd, err
	}
	if cmd.Spec, err = plainJSON(in.Spec); err != nil {
		return cmd, err
	}
	cmd.Model, cmd.Kind, cmd.Priority = domain.ModelKey(in.Model), string(in.Kind), in.Priority
	cmd.MaxAttempts, cmd.CallbackURL = in.MaxAttempts, in.CallbackURL
	if !in.Deadline.IsZero() {
		at := in.Deadline.UTC()
		cmd.Deadline = &at
	}
	for _, id := range in.After {
		cmd.After = append(cmd.After, domain.JobID(id))
	}
	if err := lastings(duration{"timeout", in.Timeout, &cmd.Timeout}); err != nil {
		return cmd, err
	}
	if in.Timeout != "" && cmd.Timeout < time.Second { // 0 would mean: the renderer's setting
		return cmd, domain.Invalid("timeout", "an attempt may take from 1s to %s", pool.MaxJobTimeout)
	}
	return cmd, nil
}

// ListJobs answers GET /jobs.
func (s *Server) ListJobs(c echo.Context, p ListJobsParams) error {
	owner, err := callerOf(c).only(p.Owner)
	if err != nil {
		return err
	}
	renderer, err := rendererID(p.Renderer)
	if err != nil {
		return err
	}
	ctx, cancel := s.bounded(c)
	defer cancel()
	items, next, err := s.Views.Jobs(ctx, projections.JobFilter{
		Renderer: string(renderer), Model: p.Model, Owner: owner, State: string(p.State), Kind: string(p.Kind),
	}, pageOf(p.Limit, p.Cursor))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, JobList{Items: each(items, jobAnswer), NextCursor: next})
}

// ownJob reads a job that the caller sees; one that it does not see does not exist.
func (s *Server) ownJob(ctx context.Context, who caller, id ID) (projections.JobView, error) {
	v, err := s.Views.Job(ctx, domain.JobID(id))
	if err == nil && !who.sees(v.Owner) {
		err = domain.NotFound("job", id)
	}
	return v, err
}

// GetJob answers GET /jobs/{id}.
func (s *Server) GetJob(c echo.Context, id JobID) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.ownJob(ctx, callerOf(c), id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, jobAnswer(&v))
}

// CancelJob answers DELETE /jobs/{id}.
func (s *Server) CancelJob(c echo.Context, id JobID) error {
	ctx, cancel := s.bounded(c)
	defer cancel()
	v, err := s.ownJob(ctx, callerOf(c), id)
	if err != nil {
		return err
	}
	if v.Job, err = s.Commands.CancelJob(ctx, s.call(c), pool.CancelJob{Job: v.ID}); err != nil {
		return err
	}
	v.Queue = nil
	return c.JSON(http.StatusOK, jobAnswer(&v))
}

// stallTimeout is how long a client may take to receive the next part of an answer.
const stallTimeout = 30 * time.Second

// GetJobResult answers GET /jobs/{id}/result.
func (s *Server) GetJobResult(c echo.Context, id JobID) error {
	ctx, cancel := s.bounded(c)
	v, err := s.ownJob(ctx, callerOf(c), id)
	cancel()
	if err != nil {
		return err
	}
	if v.Result == nil {
		p := fail(http.StatusConflict, codeNoResult, "", "the job is %s", v.State)
		if !v.Ended {
			p.retry(time.Second)
		}
		return p
	}
	// The bytes may take long to send: not the time in all is bounded, but each part's.
	info, from, err := s.Views.Result(c.Request().Context(), v.ID)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	h := c.Response().Header()
	h.Set("Content-Length", strconv.FormatInt(info.Bytes, 10))
	h.Set("Content-Type", info.ContentType)
	h.Set("Content-Security-Policy", "sandbox") // a renderer's bytes are no page of ours
	if isHead(c) {
		return c.NoContent(http.StatusOK)
	}
	return send(c, from)
}
