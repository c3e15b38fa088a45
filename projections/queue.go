package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// queue collects who waits on a page, so that the estimates of all of them need one query.
type queue struct{ waiting []waiter }

type waiter struct {
	renderer domain.RendererID
	model    domain.ModelKey
	key      string       // of the overrides that its resource must have been started with
	sessions int          // that wait, if it is a job
	ahead    int          // how many go first
	job      *pool.Job    // nil: a session
	running  int          // jobs of its owner in that pool, if it is a job
	place    **pool.Place // where the answer goes
}

func (q *queue) add(w waiter) { q.waiting = append(q.waiting, w) }

// places estimates every wait from the pools and their resources.
func (q *queue) places(ctx context.Context, db querier, now time.Time) error {
	if len(q.waiting) == 0 {
		return nil
	}
	pools := map[domain.RendererID]*pool.Pool{}
	var ids, of, models pq.StringArray
	for _, w := range q.waiting {
		of, models = append(of, string(w.renderer)), append(models, string(w.model))
		if _, seen := pools[w.renderer]; !seen {
			pools[w.renderer] = nil
			ids = append(ids, string(w.renderer))
		}
	}
	resources, err := supply(ctx, db, ids, pools)
	if err != nil {
		return fmt.Errorf("read the pools of who waits: %w", err)
	}
	known, err := learned(ctx, db, of, models)
	if err != nil {
		return fmt.Errorf("read the models that are waited for: %w", err)
	}
	for _, w := range q.waiting {
		if p := pools[w.renderer]; p != nil {
			asker := pool.Asker{Job: w.job != nil, Ahead: w.ahead, Sessions: w.sessions, Model: w.model, Key: w.key, Known: known[wanted{w.renderer, w.model}]}
			place := pool.PlaceOf(p, resources[w.renderer], asker, now)
			if w.job != nil {
				place = place.HeldBack(p, w.job, w.running, now)
			}
			*w.place = &place
		}
	}
	return nil
}

// supply fills pools and gives their resources that have not ended, oldest first.
func supply(ctx context.Context, db querier, ids pq.StringArray, pools map[domain.RendererID]*pool.Pool) (map[domain.RendererID][]*pool.Resource, error) {
	var rows []struct {
		Renderer domain.RendererID
		Pool     bool
		Body     []byte
		Seq      int64
		Note     []byte
	}
	err := db.SelectContext(ctx, &rows, `
SELECT id AS renderer, true AS pool, body, coalesce(seq, 0) AS seq, NULL::jsonb AS note FROM pools WHERE id = ANY ($1)
UNION ALL
SELECT r.renderer, false, r.body, r.seq, l.detail FROM resources r
`+joinNotes+`
WHERE r.renderer = ANY ($1) AND NOT r.ended
ORDER BY seq`, ids)
	if err != nil {
		return nil, err
	}
	resources := map[domain.RendererID][]*pool.Resource{}
	for _, row := range rows {
		if !row.Pool {
			r, err := readResource(row.Body, row.Note)
			if err != nil {
				return nil, err
			}
			resources[row.Renderer] = append(resources[row.Renderer], &r)
			continue
		}
		p := &pool.Pool{}
		if err := json.Unmarshal(row.Body, p); err != nil {
			return nil, fmt.Errorf("read a row's body: %w", err)
		}
		pools[row.Renderer] = p
	}
	return resources, nil
}

// wanted is a model in a pool.
type wanted struct {
	renderer domain.RendererID
	model    domain.ModelKey
}

// learned gives what has been learned of models, each of the pool at the same place in the list.
func learned(ctx context.Context, db querier, of, models pq.StringArray) (map[wanted]*pool.Model, error) {
	var bodies [][]byte
	err := db.SelectContext(ctx, &bodies, `
SELECT DISTINCT m.body FROM models m JOIN unnest($1::text[], $2::text[]) AS w(renderer, model) USING (renderer, model)`, of, models)
	if err != nil {
		return nil, err
	}
	known := make(map[wanted]*pool.Model, len(bodies))
	for _, body := range bodies {
		m := &pool.Model{}
		if err := json.Unmarshal(body, m); err != nil {
			return nil, fmt.Errorf("read a row's body: %w", err)
		}
		known[wanted{m.Renderer, m.Model}] = m
	}
	return known, nil
}
