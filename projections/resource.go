package projections

import (
	"context"
	"fmt"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// ResourceFilter chooses resources; empty fields choose all. Ended ones are
// left out unless State names an ended state or Ended is set.
type ResourceFilter struct {
	Renderer string
	State    string
	Model    string // has it loaded or loading, or keeps it for life
	Ended    bool
}

var (
	liveResourceStates = names(pool.ResourceStateRequested, pool.ResourceStateStarting, pool.ResourceStateReady,
		pool.ResourceStateDraining, pool.ResourceStateStopping)
	endedResourceStates = names(pool.ResourceStateStopped, pool.ResourceStateFailed, pool.ResourceStateLost)
)

// Resources gives a page of resources, newest first, and the cursor of the next page, empty at the end.
func (r *Reader) Resources(ctx context.Context, f ResourceFilter, p Page) ([]pool.Resource, string, error) {
	l, err := newList("resources", p)
	if err != nil {
		return nil, "", err
	}
	if !f.Ended {
		l.parts = []string{partLive}
	}
	if err := l.state(f.State, liveResourceStates, endedResourceStates); err != nil {
		return nil, "", err
	}
	l.equal("renderer", f.Renderer)
	if !plain(f.Model) {
		return []pool.Resource{}, "", nil
	}
	if f.Model != "" {
		l.where(`(body->>'model' = $? OR body->'models' @> jsonb_build_array(jsonb_build_object('model', $?::text)))`, f.Model)
	}
	out, err := r.resources(ctx, l.query(), l.args...)
	if err != nil {
		return nil, "", fmt.Errorf("list resources: %w", err)
	}
	out, next := cut(out, l.limit, func(v *pool.Resource) int64 { return v.Seq })
	return out, next, nil
}

// Resource gives one resource, also one that has ended.
func (r *Reader) Resource(ctx context.Context, id domain.ResourceID) (pool.Resource, error) {
	if !plain(string(id)) {
		return pool.Resource{}, domain.NotFound("resource", string(id))
	}
	all, err := r.resources(ctx, `SELECT * FROM resources WHERE id = $1`, string(id))
	if err != nil {
		return pool.Resource{}, fmt.Errorf("read resource %s: %w", id, err)
	}
	if len(all) == 0 {
		return pool.Resource{}, domain.NotFound("resource", string(id))
	}
	return all[0], nil
}

// resources completes a page of resources with what their launchers say of those that are coming.
func (r *Reader) resources(ctx context.Context, page string, args ...any) ([]pool.Resource, error) {
	var rows []struct{ Body, Detail []byte }
	if err := r.db.SelectContext(ctx, &rows, `SELECT r.body, l.detail FROM (`+page+`) AS r `+joinNotes+` ORDER BY r.seq DESC`, args...); err != nil {
		return nil, err
	}
	out := make([]pool.Resource, len(rows))
	for i, row := range rows {
		var err error
		if out[i], err = readResource(row.Body, row.Detail); err != nil {
			return nil, err
		}
	}
	return out, nil
}
