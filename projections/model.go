package projections

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// ModelView is what was learned about a model, and where it is now.
type ModelView struct {
	pool.Model
	Warm    []domain.ResourceID `json:"warm"`    // ready resources that have it loaded, oldest first
	Loading []domain.ResourceID `json:"loading"` // resources that are loading it
}

// modelQuery completes a page of models in one query. A nil slice is null in
// JSON, hence the look at the type.
const modelQuery = `
WITH page AS MATERIALIZED (%s),
held AS (
  SELECT r.renderer, m->>'model' AS model,
    array_agg(r.id ORDER BY r.seq) FILTER (WHERE m->>'state' = 'loaded' AND r.state = 'ready') AS warm,
    array_agg(r.id ORDER BY r.seq) FILTER (WHERE m->>'state' = 'loading') AS loading
  FROM resources r
  CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(r.body->'models') WHEN 'array' THEN r.body->'models' ELSE '[]' END) AS m
  WHERE NOT r.ended AND r.renderer = ANY (ARRAY(SELECT DISTINCT renderer FROM page))
  GROUP BY 1, 2
)
SELECT p.body, h.warm, h.loading FROM page p LEFT JOIN held h ON h.renderer = p.renderer AND h.model = p.model ORDER BY p.seq DESC`

// Models gives a page of the models that were ever used, those first that came
// last, of one renderer or (empty) of all.
func (r *Reader) Models(ctx context.Context, renderer domain.RendererID, p Page) ([]ModelView, string, error) {
	l, err := newList("models", p)
	if err != nil {
		return nil, "", err
	}
	l.equal("renderer", string(renderer))
	var rows []struct {
		Body          []byte
		Warm, Loading pq.StringArray
	}
	if err := r.db.SelectContext(ctx, &rows, fmt.Sprintf(modelQuery, l.query()), l.args...); err != nil {
		return nil, "", fmt.Errorf("list models: %w", err)
	}
	out := make([]ModelView, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Body, &out[i].Model); err != nil {
			return nil, "", fmt.Errorf("list models: read a body: %w", err)
		}
		out[i].Warm, out[i].Loading = resourceIDs(row.Warm), resourceIDs(row.Loading)
	}
	out, next := cut(out, l.limit, func(v *ModelView) int64 { return v.Seq })
	return out, next, nil
}

func resourceIDs(text []string) []domain.ResourceID {
	out := make([]domain.ResourceID, len(text))
	for i, s := range text {
		out[i] = domain.ResourceID(s)
	}
	return out
}
