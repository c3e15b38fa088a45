package process

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Notice is a callback that is to be made.
type Notice struct {
	Job      domain.JobID
	URL      string
	Body     json.RawMessage
	Attempts int // made so far
}

// Notices keep what is to be delivered.
type Notices interface {
	Due(ctx context.Context, limit int) ([]Notice, error)
	// Settle notes an attempt: problem empty is done; else it is due again after wait, or given up if wait is 0.
	Settle(ctx context.Context, job domain.JobID, problem string, wait time.Duration) error
}

// Poster delivers a body to a URL, once.
type Poster interface {
	Post(ctx context.Context, url string, body json.RawMessage) error
}

// Callbacks tells whoever asked for it that a job has ended: at least once,
// eight times at most, within about an hour.
type Callbacks struct {
	Notices Notices
	Poster  Poster
	Log     *slog.Logger
	*group
}

const (
	callbackTries = 8
	callbackLimit = 15 * time.Second
	callbackFirst = 15 * time.Second // doubled after each attempt
)

// NewCallbacks makes the manager.
func NewCallbacks(n Notices, p Poster, log *slog.Logger) *Callbacks {
	return &Callbacks{Notices: n, Poster: p, Log: log, group: newGroup()}
}

// RunOnce begins what is due.
func (m *Callbacks) RunOnce(ctx context.Context) error {
	due, err := m.Notices.Due(ctx, atOnce)
	for _, n := range due {
		m.do(ctx, string(n.Job), callbackLimit, func(ctx context.Context) { m.deliver(ctx, n) })
	}
	return err
}

func (m *Callbacks) deliver(ctx context.Context, n Notice) {
	problem, wait := "", time.Duration(0)
	if err := m.Poster.Post(ctx, n.URL, n.Body); err != nil {
		problem = err.Error()
		if n.Attempts+1 < callbackTries {
			wait = callbackFirst << n.Attempts
		}
		m.Log.Warn("a callback was not taken", "job", n.Job, "attempt", n.Attempts+1, "again_in", wait, "error", err)
	}
	note, cancel := context.WithTimeout(context.WithoutCancel(ctx), callbackLimit)
	defer cancel()
	if err := m.Notices.Settle(note, n.Job, problem, wait); err != nil {
		m.Log.Warn("an attempt of a callback was not noted; it will be made again", "job", n.Job, "error", err)
	}
}
