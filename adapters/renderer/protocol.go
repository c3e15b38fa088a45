package renderer

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Capabilities that a renderer may have.
const (
	CapabilityModels = "models"
	CapabilityJobs   = "jobs"
	CapabilityImage  = "image"
	CapabilityStream = "stream"
	CapabilityCamera = "camera"
	CapabilityVideo  = "video"
	CapabilityRanges = domain.CapabilityRanges
)

// Registry is what a renderer says of itself when it is ready.
type Registry struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Capabilities []string `json:"capabilities"`
	JobKinds     []string `json:"job_kinds"`
}

// Can tells whether the renderer has a capability.
func (r Registry) Can(capability string) bool { return slices.Contains(r.Capabilities, capability) }

// Probe asks whether the renderer is ready: any 200 says so. What it says
// beyond that is taken if it can be understood; a renderer of the predecessor's
// time says nothing, and counts as one without capabilities.
func (c *Client) Probe(ctx context.Context) (Registry, error) {
	status, body, err := c.do(ctx, call{method: http.MethodPut, path: "/registry"})
	if status != http.StatusOK {
		if err == nil {
			err = refused(status, body)
		}
		return Registry{}, fmt.Errorf("probe renderer: %w", err)
	}
	var r Registry
	if json.Unmarshal(body, &r) != nil {
		return Registry{}, nil
	}
	r.Name, r.Version = clip(r.Name), clip(r.Version)
	return r, nil
}

// Exit asks the renderer to exit. It answers before it does.
func (c *Client) Exit(ctx context.Context) error {
	status, body, err := c.do(ctx, call{method: http.MethodPut, path: "/v1/exit"})
	if err == nil {
		err = decode(status, body, nil)
	}
	if err != nil {
		return fmt.Errorf("ask renderer to exit: %w", err)
	}
	return nil
}

// The states of a model on a renderer.
const (
	ModelLoading = "loading"
	ModelLoaded  = "loaded"
	ModelFailed  = "failed"
)

// ModelStatus is how far a renderer is with a model.
type ModelStatus struct {
	Model       domain.ModelKey `json:"model"`
	State       string          `json:"state"`
	Progress    float64         `json:"progress"` // 0 to 1
	MemoryMiB   float64         `json:"memory_mib"`
	LoadSeconds float64         `json:"load_seconds"`
	Code        string          `json:"code"`   // why it failed
	Reason      string          `json:"reason"` // the same for people
}

// check refuses a state that the protocol does not know and tames the rest.
func (m *ModelStatus) check() error {
	if m.State != ModelLoading && m.State != ModelLoaded && m.State != ModelFailed {
		return &Error{Status: http.StatusOK, Code: CodeBadAnswer, Reason: fmt.Sprintf("the model's state %q is unknown", clip(m.State))}
	}
	m.Progress = min(1, max(0, m.Progress))
	m.Code, m.Reason = clip(m.Code), clip(m.Reason)
	return nil
}

func modelPath(model domain.ModelKey) string { return "/v1/models/" + segment(string(model)) }

// LoadModel asks the renderer to load a model and returns at once, with how far it is.
// Repeating is safe; after a failure it tries again.
func (c *Client) LoadModel(ctx context.Context, model domain.ModelKey) (ModelStatus, error) {
	return c.model(ctx, http.MethodPut, "load", model)
}

// ModelStatus asks how far a model is. One that was never asked for is an
// Error with status 404 and code model_not_loaded.
func (c *Client) ModelStatus(ctx context.Context, model domain.ModelKey) (ModelStatus, error) {
	return c.model(ctx, http.MethodGet, "look at", model)
}

func (c *Client) model(ctx context.Context, method, action string, model domain.ModelKey) (ModelStatus, error) {
	var m ModelStatus
	status, body, err := c.do(ctx, call{method: method, path: modelPath(model)})
	if err == nil {
		err = decode(status, body, &m)
	}
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return ModelStatus{}, fmt.Errorf("%s model %q: %w", action, model, err)
	}
	return m, nil
}

// UnloadModel removes a model, or ends its loading. Repeating is safe.
func (c *Client) UnloadModel(ctx context.Context, model domain.ModelKey) error {
	status, body, err := c.do(ctx, call{method: http.MethodDelete, path: modelPath(model)})
	if err == nil {
		err = decode(status, body, nil)
	}
	if err != nil {
		return fmt.Errorf("unload model %q: %w", model, err)
	}
	return nil
}

// Models is all that a renderer holds.
type Models struct {
	Models         []ModelStatus `json:"models"`
	MemoryMiB      float64       `json:"memory_mib"`
	MemoryLimitMiB float64       `json:"memory_limit_mib"` // 0: none
}

// Models asks for all models of the renderer, in its order.
func (c *Client) Models(ctx context.Context) (Models, error) {
	var m Models
	status, body, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/models"})
	if err == nil {
		err = decode(status, body, &m)
	}
	for i := range m.Models {
		if err == nil {
			err = m.Models[i].check()
		}
	}
	if err != nil {
		return Models{}, fmt.Errorf("list models: %w", err)
	}
	return m, nil
}

// The states of a job on a renderer.
const (
	JobRunning   = "running"
	JobSucceeded = "succeeded"
	JobFailed    = "failed"
	JobCancelled = "cancelled"
	JobStopped   = "stopped"
)

// JobRequest is the work that a renderer is given.
type JobRequest struct {
	Kind  string          `json:"kind"` // image, frames, video
	Model domain.ModelKey `json:"model"`
	Spec  json.RawMessage `json:"spec,omitempty"` // passed on as it is
}

// JobStatus is how far a renderer is with a job.
type JobStatus struct {
	ID          domain.JobID `json:"id"`
	State       string       `json:"state"`
	Progress    float64      `json:"progress"` // 0 to 1
	Code        string       `json:"code"`     // why it failed
	Reason      string       `json:"reason"`   // the same for people
	ContentType string       `json:"content_type"`
	Bytes       int64        `json:"bytes"`  // of the result
	Frames      int          `json:"frames"` // made so far
}

func (j *JobStatus) check(id domain.JobID) error {
	if !slices.Contains([]string{JobRunning, JobSucceeded, JobFailed, JobCancelled, JobStopped}, j.State) || j.ID != "" && j.ID != id {
		return &Error{Status: http.StatusOK, Code: CodeBadAnswer, Reason: fmt.Sprintf("the state %q of job %q is not an answer about job %q", clip(j.State), clip(string(j.ID)), id)}
	}
	j.ID = id
	j.Progress, j.Frames = min(1, max(0, j.Progress)), max(0, j.Frames)
	j.Code, j.Reason, j.ContentType = clip(j.Code), clip(j.Reason), clip(j.ContentType)
	return nil
}

func jobPath(id domain.JobID) string { return "/v1/jobs/" + segment(string(id)) }

// SubmitJob gives the renderer a job. The same id again gives the state of the first.
func (c *Client) SubmitJob(ctx context.Context, id domain.JobID, job JobRequest) (JobStatus, error) {
	return c.job(ctx, "submit", id, call{method: http.MethodPost, path: jobPath(id), body: job})
}

// JobStatus asks how far a job is. One that the renderer does not know is an
// Error with status 404 and code job_not_found.
func (c *Client) JobStatus(ctx context.Context, id domain.JobID) (JobStatus, error) {
	return c.job(ctx, "look at", id, call{method: http.MethodGet, path: jobPath(id)})
}

func (c *Client) job(ctx context.Context, action string, id domain.JobID, what call) (JobStatus, error) {
	var j JobStatus
	status, body, err := c.do(ctx, what)
	if err == nil {
		err = decode(status, body, &j)
	}
	if err == nil {
		err = j.check(id)
	}
	if err != nil {
		return JobStatus{}, fmt.Errorf("%s job %s: %w", action, id, err)
	}
	return j, nil
}

// StopJob lets a set of frames end before its next frame. What it made until
// then is its result, and its state is JobStopped; one that has ended stays as it is. Repeating is safe.
func (c *Client) StopJob(ctx context.Context, id domain.JobID) (JobStatus, error) {
	return c.job(ctx, "stop", id, call{method: http.MethodPost, path: jobPath(id) + "/stop"})
}

// CancelJob stops a job if it runs, and makes the renderer forget it and its
// result. Repeating is safe.
func (c *Client) CancelJob(ctx context.Context, id domain.JobID) error {
	status, body, err := c.do(ctx, call{method: http.MethodDelete, path: jobPath(id)})
	if err == nil {
		err = decode(status, body, nil)
	}
	if err != nil {
		return fmt.Errorf("cancel job %s: %w", id, err)
	}
	return nil
}

// Result is what a job made. Body must be closed. A connection that breaks, or
// brings nothing for Options.Stall, is an error of Body's Read, never a short result.
type Result struct {
	Body        io.ReadCloser
	ContentType string
	Size        int64 // in bytes; -1 if the renderer did not say
}

// JobResult begins to fetch a job's result. It lasts until ctx ends; how much is
// too much is the reader's to decide. While the job runs it is an Error with status 409.
func (c *Client) JobResult(ctx context.Context, id domain.JobID) (Result, error) {
	caller := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	// The header has Timeout; after it each read has Stall.
	timer := time.AfterFunc(c.opts.Timeout, func() { cancel(errStalled) })
	res, err := c.send(ctx, call{method: http.MethodGet, path: jobPath(id) + "/result"})
	if err != nil {
		timer.Stop()
		defer cancel(nil)
		return Result{}, fmt.Errorf("fetch result of job %s: %w", id, c.unanswered(caller, ctx, err))
	}
	if !timer.Stop() {
		_ = res.Body.Close()
		return Result{}, fmt.Errorf("fetch result of job %s: %w", id, c.unanswered(caller, ctx, errStalled))
	}
	body := &stalling{body: res.Body, ctx: ctx, cancel: cancel, stall: c.opts.Stall}
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(body, c.opts.MaxBody))
		_ = body.Close()
		return Result{}, fmt.Errorf("fetch result of job %s: %w", id, refused(res.StatusCode, text))
	}
	return Result{body, res.Header.Get("Content-Type"), res.ContentLength}, nil
}

// errStalled is the cause of cancelling a fetch of our own accord.
var errStalled = fmt.Errorf("%w: nothing came for too long", ErrNoAnswer)

// stalling is a body whose every read has a time limit.
type stalling struct {
	body   io.ReadCloser
	ctx    context.Context //nolint:containedctx // it is the request's, whose body this is
	cancel context.CancelCauseFunc
	stall  time.Duration
}

func (s *stalling) Read(p []byte) (int, error) {
	timer := time.AfterFunc(s.stall, func() { s.cancel(errStalled) })
	n, err := s.body.Read(p)
	timer.Stop()
	if err != nil && err != io.EOF && context.Cause(s.ctx) != nil { //nolint:errorlint // Read's contract
		err = context.Cause(s.ctx)
	}
	return n, err
}

func (s *stalling) Close() error {
	defer s.cancel(nil)
	return s.body.Close()
}

// ImageJPEG gets the session's picture of now, as JPEG. query may change it
// (width, height, quality, ...).
func (c *Client) ImageJPEG(ctx context.Context, session domain.SessionID, model domain.ModelKey, query url.Values) ([]byte, error) {
	header := http.Header{}
	header.Set(HeaderSession, string(session))
	header.Set(HeaderModel, headerText(string(model)))
	path := "/v1/image-jpeg"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	var picture struct {
		Data string `json:"data"`
	}
	status, body, err := c.do(ctx, call{method: http.MethodGet, path: path, header: header, max: c.opts.MaxJPEG})
	if err == nil {
		err = decode(status, body, &picture)
	}
	if err != nil {
		return nil, fmt.Errorf("get picture: %w", err)
	}
	jpeg, err := base64.StdEncoding.DecodeString(picture.Data)
	if err != nil || len(jpeg) == 0 {
		return nil, fmt.Errorf("get picture: %w", &Error{Status: status, Code: CodeBadAnswer, Reason: "the picture is not base64"})
	}
	return jpeg, nil
}
