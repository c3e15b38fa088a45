package service

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/renderer"
	"github.com/rendering-resource-manager/rrm/commands/process"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

// speaker lets the process managers, which know no adapter, speak to a renderer.
type speaker struct{ c *renderer.Client }

func speak(address string) process.Renderer {
	return speaker{renderer.New(address, renderer.Options{})}
}

func (s speaker) Probe(ctx context.Context) (domain.Registry, error) {
	r, err := s.c.Probe(ctx)
	return domain.Registry(r), err
}

func (s speaker) LoadModel(ctx context.Context, m domain.ModelKey) (domain.ModelStatus, error) {
	st, err := s.c.LoadModel(ctx, m)
	return domain.ModelStatus(st), err
}

func (s speaker) ModelStatus(ctx context.Context, m domain.ModelKey) (domain.ModelStatus, error) {
	st, err := s.c.ModelStatus(ctx, m)
	return domain.ModelStatus(st), err
}

func (s speaker) Models(ctx context.Context) ([]domain.ModelStatus, error) {
	all, err := s.c.Models(ctx)
	var out []domain.ModelStatus
	for _, m := range all.Models {
		out = append(out, domain.ModelStatus(m))
	}
	return out, err
}

func (s speaker) UnloadModel(ctx context.Context, m domain.ModelKey) error {
	return s.c.UnloadModel(ctx, m)
}

func (s speaker) SubmitJob(ctx context.Context, id domain.JobID, kind string, m domain.ModelKey, spec json.RawMessage) (domain.JobStatus, error) {
	st, err := s.c.SubmitJob(ctx, id, renderer.JobRequest{Kind: kind, Model: m, Spec: spec})
	return domain.JobStatus(st), err
}

func (s speaker) JobStatus(ctx context.Context, id domain.JobID) (domain.JobStatus, error) {
	st, err := s.c.JobStatus(ctx, id)
	return domain.JobStatus(st), err
}

func (s speaker) StopJob(ctx context.Context, id domain.JobID) (domain.JobStatus, error) {
	st, err := s.c.StopJob(ctx, id)
	return domain.JobStatus(st), err
}

func (s speaker) JobResult(ctx context.Context, id domain.JobID) (io.ReadCloser, string, error) {
	r, err := s.c.JobResult(ctx, id)
	return r.Body, r.ContentType, err
}

func (s speaker) CancelJob(ctx context.Context, id domain.JobID) error { return s.c.CancelJob(ctx, id) }

// failure tells what a renderer itself answered from what kept it from answering.
func failure(err error) (code, reason string, status int, answered bool) {
	var said *renderer.Error
	if errors.As(err, &said) {
		return said.Code, said.Reason, said.Status, true
	}
	return "unreachable", err.Error(), 0, false
}

func domainConfigure(set domain.Renderer) pool.ConfigureRenderer {
	return pool.ConfigureRenderer{Renderer: set, Create: true}
}

// results let the process managers open what they stored.
type results struct{ *projections.Results }

func (r results) Open(ctx context.Context, job domain.JobID) (string, io.ReadCloser, error) {
	info, body, err := r.Results.Open(ctx, job)
	return info.ContentType, body, err
}

// notices gives the process manager the callbacks that wait.
type notices struct{ c *projections.Callbacks }

func (n notices) Due(ctx context.Context, limit int) ([]process.Notice, error) {
	due, err := n.c.Due(ctx, limit)
	out := make([]process.Notice, len(due))
	for i, d := range due {
		out[i] = process.Notice(d)
	}
	return out, err
}

func (n notices) Settle(ctx context.Context, job domain.JobID, problem string, wait time.Duration) error {
	return n.c.Settle(ctx, job, problem, wait)
}

// numbers tell another service, which is asked for a pool's size, how the pool stands.
type numbers struct{ r *projections.Reader }

func (n numbers) Numbers(ctx context.Context, id domain.RendererID) (process.Numbers, error) {
	v, err := n.r.Pool(ctx, id)
	if err != nil {
		return process.Numbers{}, err
	}
	sizes := map[string]int{}
	for state, count := range v.Sizes {
		sizes[string(state)] = count
	}
	return process.Numbers{
		Renderer: id, At: time.Now().UTC(), Min: v.Settings.Scaling.Min, Max: v.Settings.Scaling.Max, Resources: sizes,
		SlotsTotal: v.SlotsTotal, SlotsFree: v.SlotsFree, QueuedSessions: v.QueuedSessions, QueuedJobs: v.QueuedJobs,
		OldestWait: v.OldestWaitSeconds, StartSeconds: v.StartSeconds,
	}, nil
}
