package process

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Load makes renderers hold the models that the views say they hold: it
// unloads what was evicted, loads what is wished for, and reports how it went.
type Load struct {
	Reporter Reporter
	Views    Views
	Outside  Outside
	Progress Progress
	Log      *slog.Logger

	*group
	mu     sync.Mutex
	making map[domain.ResourceID]*sync.Mutex // room is made on one resource by one load at a time
}

const (
	pollLoad        = 50 * time.Millisecond // of a load under way; a load takes from tenths of a second to minutes
	pollLoadSlowest = time.Second
	reachable       = 10 * time.Second // for how long a renderer may be out of reach before the step is given up
)

// NewLoad makes the manager.
func NewLoad(r Reporter, v Views, o Outside, p Progress, log *slog.Logger) *Load {
	return &Load{Reporter: r, Views: v, Outside: o, Progress: p, Log: log, group: newGroup(), making: map[domain.ResourceID]*sync.Mutex{}}
}

// RunOnce begins every load that is wished for and not under way, and stops those that are not wished for any more.
func (m *Load) RunOnce(ctx context.Context) error {
	settings, err := m.Views.Settings(ctx)
	if err != nil {
		return err
	}
	resources, err := m.Views.LiveResources(ctx)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for i := range resources {
		r := &resources[i]
		if r.State != pool.ResourceStateReady && r.State != pool.ResourceStateDraining {
			continue
		}
		for _, h := range r.Models {
			if h.State != placement.Loading {
				continue
			}
			key := string(r.ID) + "/" + string(h.Model)
			wanted[key] = true
			limit := settings[r.Renderer].Probe.LoadTimeout.Std()
			m.do(ctx, key, limit+reachable, func(ctx context.Context) { m.load(ctx, r, h.Model, limit) })
		}
	}
	m.keep(func(key string) bool { return wanted[key] })
	m.forget(resources)
	return nil
}

func (m *Load) forget(resources []pool.Resource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.making {
		if !slices.ContainsFunc(resources, func(r pool.Resource) bool { return r.ID == id }) {
			delete(m.making, id)
		}
	}
}

// load takes one model through its load on one resource.
func (m *Load) load(ctx context.Context, r *pool.Resource, model domain.ModelKey, limit time.Duration) {
	began := time.Now()
	c := m.Outside.Renderer(r.Address)
	st, err := m.begin(ctx, c, r.ID, model)
	lastHeard, pause := began, pollLoad
	for {
		if err != nil {
			code, reason, status, answered := m.Outside.Failure(err)
			switch {
			case ctx.Err() != nil && time.Since(began) < limit:
				return // not wished for any more, or we are being stopped
			case answered && status < 500 || answered && status == 507:
				m.failed(ctx, r, model, code, reason)
				return
			case time.Since(lastHeard) > reachable:
				m.failed(ctx, r, model, "unreachable", "the renderer does not answer: "+reason)
				return
			}
		} else {
			lastHeard = time.Now()
			if m.settled(ctx, r, model, st, began) {
				return
			}
		}
		if time.Since(began) > limit {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), reachable)
			defer cancel()
			if err := c.UnloadModel(stop, model); err != nil {
				m.Log.Warn("a load that takes too long could not be stopped", "resource", r.ID, "model", model, "error", err)
			}
			m.failed(stop, r, model, "load_timeout", fmt.Sprintf("loading took longer than %s", limit))
			return
		}
		if !sleep(ctx, pause) {
			return // not wished for any more, or we are being stopped
		}
		pause = min(pollLoadSlowest, pause+pause/4)
		st, err = c.ModelStatus(ctx, model)
	}
}

// settled reports a load that has ended, and says whether it has.
func (m *Load) settled(ctx context.Context, r *pool.Resource, model domain.ModelKey, st domain.ModelStatus, began time.Time) bool {
	switch st.State {
	case "loaded":
		took := st.LoadSeconds
		if took <= 0 {
			took = time.Since(began).Seconds()
		}
		report(ctx, m.Reporter, m.Log, "load", pool.ReportModelLoaded{Resource: r.ID, Model: model, Seconds: took, MemoryMiB: int(math.Ceil(st.MemoryMiB))})
		return true
	case "failed":
		m.failed(ctx, r, model, st.Code, st.Reason)
		return true
	}
	if err := m.Progress.SetProgress(ctx, "model", string(r.ID)+"/"+string(model), st.Progress); err != nil && ctx.Err() == nil {
		m.Log.Debug("progress was not kept", "resource", r.ID, "error", err)
	}
	return false
}

func (m *Load) failed(ctx context.Context, r *pool.Resource, model domain.ModelKey, code, reason string) {
	m.Log.Warn("a model could not be loaded", "resource", r.ID, "model", model, "code", code, "reason", reason)
	report(ctx, m.Reporter, m.Log, "load", pool.ReportModelFailed{Resource: r.ID, Model: model, Code: code, Reason: reason})
}

// begin makes room and asks for the load. Two loads on one resource take
// turns, and each reads afresh what is wished for, so that neither unloads what the other has begun.
func (m *Load) begin(ctx context.Context, c Renderer, id domain.ResourceID, model domain.ModelKey) (domain.ModelStatus, error) {
	m.mu.Lock()
	turn := m.making[id]
	if turn == nil {
		turn = &sync.Mutex{}
		m.making[id] = turn
	}
	m.mu.Unlock()
	turn.Lock()
	defer turn.Unlock()
	if err := m.unloadOthers(ctx, c, id); err != nil {
		return domain.ModelStatus{}, err
	}
	return c.LoadModel(ctx, model)
}

// unloadOthers unloads whatever the renderer holds and the views do not want there.
func (m *Load) unloadOthers(ctx context.Context, c Renderer, id domain.ResourceID) error {
	resources, err := m.Views.LiveResources(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(resources, func(r pool.Resource) bool { return r.ID == id })
	if i < 0 {
		return context.Canceled // it has ended meanwhile
	}
	held, err := c.Models(ctx)
	if err != nil {
		return err
	}
	for _, h := range held {
		if resources[i].Holds(h.Model) != nil {
			continue
		}
		if err := c.UnloadModel(ctx, h.Model); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
