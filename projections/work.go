package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Work is what the process managers read: all that is to be acted upon.
type Work struct {
	db     *sqlx.DB
	leases *Leases
}

// NewWork reads the live views of a database.
func NewWork(db *sqlx.DB) *Work { return &Work{db: db, leases: NewLeases(db)} }

// LiveResources are all resources that have not ended, oldest first.
func (w *Work) LiveResources(ctx context.Context) ([]pool.Resource, error) {
	return bodies[pool.Resource](ctx, w.db, `SELECT body FROM resources WHERE NOT ended ORDER BY seq`)
}

// HeldJobs are all jobs that hold a slot, oldest first.
func (w *Work) HeldJobs(ctx context.Context) ([]pool.Job, error) {
	return bodies[pool.Job](ctx, w.db, `SELECT body FROM jobs WHERE NOT ended AND state IN ('assigned', 'running') ORDER BY seq`)
}

// GatheringJobs are all jobs whose parts are made and are to be put together, oldest first.
func (w *Work) GatheringJobs(ctx context.Context) ([]pool.Job, error) {
	return bodies[pool.Job](ctx, w.db, `SELECT body FROM jobs WHERE NOT ended AND state = 'waiting' AND body ? 'parts' AND NOT body ? 'pending' ORDER BY seq`)
}

// Settings are those of every renderer, removed ones too.
func (w *Work) Settings(ctx context.Context) (map[domain.RendererID]domain.Renderer, error) {
	pools, err := bodies[pool.Pool](ctx, w.db, `SELECT body FROM pools`)
	if err != nil {
		return nil, err
	}
	out := make(map[domain.RendererID]domain.Renderer, len(pools))
	for i := range pools {
		out[pools[i].Settings.ID] = pools[i].Settings
	}
	return out, nil
}

// SetProgress keeps how far a load or a job is.
func (w *Work) SetProgress(ctx context.Context, kind, id string, value float64) error {
	return w.leases.SetProgress(ctx, []Progress{{Kind: kind, ID: id, Value: value}})
}

// SetNote keeps what a launcher said of a resource that is coming, and when it is expected to start (zero: not known).
func (w *Work) SetNote(ctx context.Context, id domain.ResourceID, note string, expected time.Time) error {
	detail, err := json.Marshal(resourceNote{note, expected.UTC()})
	if err != nil {
		return fmt.Errorf("encode note: %w", err)
	}
	return w.leases.SetProgress(ctx, []Progress{{Kind: "resource", ID: string(id), Detail: detail}})
}

// resourceNote is what is kept in the liveness of a resource.
type resourceNote struct {
	Note    string    `json:"note"`
	Expects time.Time `json:"expects,omitzero"`
}

// joinNotes gives each resource r that is coming its note, as a column or NULL.
const joinNotes = `LEFT JOIN liveness l ON r.state IN ('requested', 'starting') AND l.kind = 'resource' AND l.id = r.id`

// read gives a resource from its body and its note.
func readResource(body, note []byte) (r pool.Resource, err error) {
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("read a row's body: %w", err)
	}
	if len(note) == 0 {
		return r, nil
	}
	var n resourceNote
	if err := json.Unmarshal(note, &n); err != nil {
		return r, fmt.Errorf("read a resource's note: %w", err)
	}
	r.Note, r.Expects = n.Note, n.Expects
	return r, nil
}

// Installation is the name of this installation.
func (w *Work) Installation(ctx context.Context) (string, error) {
	var id string
	if err := w.db.GetContext(ctx, &id, `SELECT id FROM installation`); err != nil {
		return "", fmt.Errorf("read the installation's name: %w", err)
	}
	return id, nil
}
