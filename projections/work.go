package projections

import (
	"context"
	"encoding/json"
	"fmt"

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

// SetNote keeps what a launcher said of a resource that is coming.
func (w *Work) SetNote(ctx context.Context, id domain.ResourceID, note string) error {
	detail, err := json.Marshal(map[string]string{"note": note})
	if err != nil {
		return fmt.Errorf("encode note: %w", err)
	}
	return w.leases.SetProgress(ctx, []Progress{{Kind: "resource", ID: string(id), Detail: detail}})
}

// Installation is the name of this installation.
func (w *Work) Installation(ctx context.Context) (string, error) {
	var id string
	if err := w.db.GetContext(ctx, &id, `SELECT id FROM installation`); err != nil {
		return "", fmt.Errorf("read the installation's name: %w", err)
	}
	return id, nil
}
