package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Asker puts a question to an address that the operator allows, once.
type Asker interface {
	Ask(ctx context.Context, url string, body json.RawMessage) (json.RawMessage, error)
}

// Pools are what a question about a pool's size says of it.
type Pools interface {
	// Numbers of a pool; a refusal of kind not_found if it was removed.
	Numbers(ctx context.Context, id domain.RendererID) (Numbers, error)
}

// Numbers are a pool as another service is told of it.
type Numbers struct {
	Renderer       domain.RendererID `json:"renderer"`
	At             time.Time         `json:"at"`
	Min            int               `json:"min"`
	Max            int               `json:"max"`
	Resources      map[string]int    `json:"resources"` // that have not ended, by state
	SlotsTotal     int               `json:"slots_total"`
	SlotsFree      int               `json:"slots_free"`
	QueuedSessions int               `json:"queued_sessions"`
	QueuedJobs     int               `json:"queued_jobs"`
	OldestWait     float64           `json:"oldest_wait_seconds"`
	StartSeconds   float64           `json:"start_seconds"`
}

// Advice asks other services for the sizes of the pools whose settings say so
// (the policy webhook), each at its interval and with its deadline, and reports
// what they say. A service that does not answer holds up nobody: its last answer
// counts until its time is over, and then another policy decides.
type Advice struct {
	Reporter Reporter
	Views    Views
	Pools    Pools
	Asker    Asker
	Log      *slog.Logger

	*group
	mu    sync.Mutex
	asked map[string]time.Time // when last, by renderer and address
	now   func() time.Time
}

// NewAdvice makes the manager.
func NewAdvice(r Reporter, v Views, p Pools, a Asker, log *slog.Logger) *Advice {
	return &Advice{Reporter: r, Views: v, Pools: p, Asker: a, Log: log, group: newGroup(), asked: map[string]time.Time{}, now: time.Now}
}

// RunOnce begins every question that is due.
func (m *Advice) RunOnce(ctx context.Context) error {
	settings, err := m.Views.Settings(ctx)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for id, set := range settings {
		if set.Launcher == domain.LauncherStatic {
			continue // their machines come and go by themselves
		}
		for _, w := range set.Scaling.Webhooks() {
			key := string(id) + " " + w.URL
			wanted[key] = true
			if m.due(key, w.Interval) {
				m.do(ctx, key, w.Deadline+reachable, func(ctx context.Context) { m.ask(ctx, id, w) })
			}
		}
	}
	m.keep(func(key string) bool { return wanted[key] })
	m.forget(wanted)
	return nil
}

// due says whether it is time to ask again, and notes it.
func (m *Advice) due(key string, interval time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, known := m.asked[key]; known && m.now().Sub(last) < interval {
		return false
	}
	m.asked[key] = m.now()
	return true
}

func (m *Advice) forget(wanted map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.asked {
		if !wanted[key] {
			delete(m.asked, key)
		}
	}
}

func (m *Advice) ask(ctx context.Context, id domain.RendererID, w domain.Webhook) {
	numbers, err := m.Pools.Numbers(ctx, id)
	if r, refused := domain.AsRefusal(err); refused && r.Kind == domain.KindNotFound {
		return // it was removed
	}
	said := pool.ReportAdvice{Renderer: id, URL: w.URL}
	if err == nil {
		said.Size, said.Reason, err = m.answer(ctx, numbers, w)
	}
	if ctx.Err() != nil {
		return // the settings have changed, or we are being stopped
	}
	if err != nil {
		m.Log.Warn("a service that was asked for a pool's size gave no answer", "renderer", id, "error", err)
		said.Problem = err.Error()
	}
	report(ctx, m.Reporter, m.Log, "advice", said)
}

func (m *Advice) answer(ctx context.Context, numbers Numbers, w domain.Webhook) (size int, reason string, err error) {
	body, err := json.Marshal(numbers)
	if err != nil {
		return 0, "", fmt.Errorf("encode question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.Deadline)
	defer cancel()
	raw, err := m.Asker.Ask(ctx, w.URL, body)
	if ctx.Err() != nil {
		return 0, "", fmt.Errorf("no answer within %s", w.Deadline)
	}
	if err != nil {
		return 0, "", err
	}
	var said struct {
		Size   *float64 `json:"size"`
		Reason string   `json:"reason"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&said); err != nil {
		return 0, "", fmt.Errorf("read answer: %w", err)
	}
	if said.Size == nil || *said.Size < 0 || *said.Size > mostAdvised || *said.Size != math.Trunc(*said.Size) {
		return 0, "", fmt.Errorf("read answer: size is a whole number from 0 to %d", mostAdvised)
	}
	return int(*said.Size), said.Reason, nil
}

const mostAdvised = 10_000
