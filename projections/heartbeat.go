package projections

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Heartbeats keeps when resources that registered themselves were last heard
// of, by the database's clock, and what each may say for itself with: a token
// of its own, of which only the SHA-256 is stored. They are current values and no events.
type Heartbeats struct{ db *sqlx.DB }

// NewHeartbeats uses the table of observations in db.
func NewHeartbeats(db *sqlx.DB) *Heartbeats { return &Heartbeats{db: db} }

// ObservedHeartbeat is the kind of these observations, for Leases.Forget.
const ObservedHeartbeat = "heartbeat"

// HeartbeatTokenPrefix begins the token of a resource: rrm_h_<resource>.<43 characters of base64url>.
// It names its resource, so that it is looked up by it.
const HeartbeatTokenPrefix = "rrm_h_"

var heartbeatToken = regexp.MustCompile(`^` + HeartbeatTokenPrefix + `([A-Za-z0-9._:-]{1,128})\.[A-Za-z0-9_-]{43}$`)

// Enrol counts as the first heartbeat of a resource and makes its token, which
// cannot be had again. Enrolling again makes another, and the one before is worth nothing any more.
func (h *Heartbeats) Enrol(ctx context.Context, id domain.ResourceID) (secret string, err error) {
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	secret = HeartbeatTokenPrefix + string(id) + "." + base64.RawURLEncoding.EncodeToString(b)
	if !heartbeatToken.MatchString(secret) {
		return "", fmt.Errorf("make the token of a resource: %q is no resource's identity", id)
	}
	_, err = h.db.ExecContext(ctx, `
INSERT INTO liveness AS l (kind, id, detail) VALUES ('heartbeat', $1, jsonb_build_object('hash', $2::text))
ON CONFLICT (kind, id) DO UPDATE SET detail = l.detail || EXCLUDED.detail, updated_at = clock_timestamp()`,
		string(id), hex.EncodeToString(hashSecret(secret)))
	if err != nil {
		return "", fmt.Errorf("enrol resource %s: %w", id, err)
	}
	return secret, nil
}

// Lookup finds the resource of a token; false if it is no token of a resource,
// or not the last that was made for it. What Tokens.Lookup says of time holds here too.
func (h *Heartbeats) Lookup(ctx context.Context, secret string) (domain.ResourceID, bool, error) {
	m := heartbeatToken.FindStringSubmatch(secret)
	if m == nil {
		return "", false, nil
	}
	var is bool
	err := h.db.GetContext(ctx, &is, `SELECT EXISTS (SELECT 1 FROM liveness WHERE kind = 'heartbeat' AND id = $1 AND detail->>'hash' = $2)`,
		m[1], hex.EncodeToString(hashSecret(secret)))
	if err != nil {
		return "", false, fmt.Errorf("look up the token of resource %s: %w", m[1], err)
	}
	return domain.ResourceID(m[1]), is, nil
}

// Beat notes a heartbeat, and says whether the resource was asked to stop.
func (h *Heartbeats) Beat(ctx context.Context, id domain.ResourceID) (stop bool, err error) {
	err = h.db.GetContext(ctx, &stop, `
INSERT INTO liveness AS l (kind, id) VALUES ('heartbeat', $1)
ON CONFLICT (kind, id) DO UPDATE SET updated_at = clock_timestamp()
RETURNING coalesce((detail->>'stop')::boolean, false)`, string(id))
	if err != nil {
		return false, fmt.Errorf("note the heartbeat of resource %s: %w", id, err)
	}
	return stop, nil
}

// AskToStop makes every later Beat say that the resource is to stop. Repeating is safe; it is no heartbeat.
func (h *Heartbeats) AskToStop(ctx context.Context, id domain.ResourceID) error {
	return h.mark(ctx, id, "stop")
}

// Leave notes that whoever ran the resource has ended it: Ages does not know it any more. Repeating is safe.
func (h *Heartbeats) Leave(ctx context.Context, id domain.ResourceID) error {
	return h.mark(ctx, id, "left")
}

func (h *Heartbeats) mark(ctx context.Context, id domain.ResourceID, what string) error {
	if !plain(string(id)) {
		return nil // there is none of that name
	}
	_, err := h.db.ExecContext(ctx, `UPDATE liveness SET detail = detail || jsonb_build_object($2::text, true) WHERE kind = 'heartbeat' AND id = $1`, string(id), what)
	if err != nil {
		return fmt.Errorf("note for resource %s: %s: %w", id, what, err)
	}
	return nil
}

// Ages says of at most MaxBatch resources, in one query, how long ago each was last heard
// of. One that was never heard of, or that has left, is not among them.
func (h *Heartbeats) Ages(ctx context.Context, ids []domain.ResourceID) (map[domain.ResourceID]time.Duration, error) {
	if len(ids) > MaxBatch {
		return nil, fmt.Errorf("read heartbeats: %d are more than %d at once", len(ids), MaxBatch)
	}
	names := make(pq.StringArray, 0, len(ids))
	for _, id := range ids {
		if plain(string(id)) {
			names = append(names, string(id))
		}
	}
	var rows []struct {
		ID  domain.ResourceID
		Age float64
	}
	err := h.db.SelectContext(ctx, &rows, `
SELECT id, extract(epoch FROM clock_timestamp() - updated_at)::double precision AS age FROM liveness
WHERE kind = 'heartbeat' AND id = ANY ($1) AND NOT coalesce((detail->>'left')::boolean, false)`, names)
	if err != nil {
		return nil, fmt.Errorf("read the heartbeats of %d: %w", len(ids), err)
	}
	out := make(map[domain.ResourceID]time.Duration, len(rows))
	for _, r := range rows {
		out[r.ID] = max(0, time.Duration(r.Age*float64(time.Second)))
	}
	return out, nil
}
