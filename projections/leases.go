package projections

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Leases keeps observations: until when a session lasts unless it is renewed,
// and how far a job is. They are current values and no events. The append that
// makes a session ready writes its lease, the one that ends it takes it away.
//
// The database's clock is the only clock. A renewal and a claim change the
// same row, so one of them is first: a renewal that was answered is followed by
// no claim within its time, and a claimed lease is not renewed any more.
type Leases struct {
	db      *sqlx.DB
	reclaim time.Duration // reclaimAfter; tests have more
}

// NewLeases uses the table of observations in db.
func NewLeases(db *sqlx.DB) *Leases { return &Leases{db: db, reclaim: reclaimAfter} }

// reclaimAfter is when a claim counts as forgotten: who made it crashed before
// the session was expired, or the command failed. Far longer than a command takes.
const reclaimAfter = 5 * time.Second

// MaxBatch bounds what one call of RenewMany, ClaimExpired, SetProgress and Progress handles.
const MaxBatch = 10_000

// Renew makes a session last for lease from now on, and for as long at each
// later renewal that gives none. A lease of 0 means: as long as last time, and
// never shorter than it lasts already. ok is false if the session has no lease
// (it waits, loads or has ended) or the lease was claimed as expired. A negative lease is refused.
//
// After an error it is unknown whether the lease was renewed.
func (l *Leases) Renew(ctx context.Context, session domain.SessionID, lease time.Duration) (expires time.Time, ok bool, err error) {
	if lease < 0 {
		return time.Time{}, false, domain.Invalid("lease", "a lease is a positive duration, not %s", lease)
	}
	if !plain(string(session)) {
		return time.Time{}, false, nil
	}
	err = l.db.GetContext(ctx, &expires, `
UPDATE liveness SET
  lease_seconds = CASE WHEN $2::double precision > 0 THEN $2 ELSE lease_seconds END,
  expires_at = CASE WHEN $2 > 0 THEN clock_timestamp() + $2 * interval '1 second'
    ELSE greatest(expires_at, clock_timestamp() + lease_seconds * interval '1 second') END,
  updated_at = clock_timestamp()
WHERE kind = 'session' AND id = $1 AND NOT claimed
RETURNING expires_at`, string(session), lease.Seconds())
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, false, nil
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("renew the lease of session %s: %w", session, err)
	}
	return expires.UTC(), true, nil
}

// RenewMany renews as Renew does with a lease of 0, at most MaxBatch at once,
// and gives the new ends. A session that is not among them was not renewed:
// it has no lease, or its row is being written at this very moment, so that it
// should be asked for again. It waits for nobody and so cannot deadlock with an append.
func (l *Leases) RenewMany(ctx context.Context, sessions []domain.SessionID) (map[domain.SessionID]time.Time, error) {
	if len(sessions) > MaxBatch {
		return nil, fmt.Errorf("renew leases: %d are more than %d at once", len(sessions), MaxBatch)
	}
	ids := make(pq.StringArray, 0, len(sessions))
	for _, id := range sessions {
		if plain(string(id)) {
			ids = append(ids, string(id))
		}
	}
	out := make(map[domain.SessionID]time.Time, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	var rows []struct {
		ID        domain.SessionID
		ExpiresAt time.Time `db:"expires_at"`
	}
	err := l.db.SelectContext(ctx, &rows, `
WITH held AS (
  SELECT id FROM liveness WHERE kind = 'session' AND id = ANY ($1) AND NOT claimed FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE liveness l SET
  expires_at = greatest(l.expires_at, clock_timestamp() + l.lease_seconds * interval '1 second'), updated_at = clock_timestamp()
FROM held WHERE l.kind = 'session' AND l.id = held.id
RETURNING l.id, l.expires_at`, ids)
	if err != nil {
		return nil, fmt.Errorf("renew %d leases: %w", len(ids), err)
	}
	for _, r := range rows {
		out[r.ID] = r.ExpiresAt.UTC()
	}
	return out, nil
}

// ClaimExpired takes up to limit (1 to MaxBatch) leases that have ended, those
// that ended first before others. Nobody can renew them after that, so their
// sessions are to be expired by command; it is the append of that command that
// removes the lease. A claim that led to nothing for some seconds is given out again.
func (l *Leases) ClaimExpired(ctx context.Context, limit int) ([]domain.SessionID, error) {
	// now() is the statement's start, a little early, which is the safe side; a
	// volatile clock could not be looked up in the index. A session that was moved
	// waits for a new resource with its old lease: that is not the client's fault.
	out := []domain.SessionID{}
	err := l.db.SelectContext(ctx, &out, `
WITH over AS (
  SELECT id FROM liveness l
  WHERE kind = 'session' AND expires_at < now() AND (NOT claimed OR updated_at < now() - $2 * interval '1 second')
    AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.id = l.id AND s.state IN ('queued', 'starting', 'loading')
      AND NOT coalesce((s.body->>'leased_throughout')::boolean, false))
  ORDER BY expires_at LIMIT $1 FOR NO KEY UPDATE OF l SKIP LOCKED
)
UPDATE liveness l SET claimed = true, updated_at = clock_timestamp()
FROM over WHERE l.kind = 'session' AND l.id = over.id
RETURNING l.id`, min(max(limit, 1), MaxBatch), l.reclaim.Seconds())
	if err != nil {
		return nil, fmt.Errorf("claim expired leases: %w", err)
	}
	return out, nil
}

// Progress is how far something is: Value from 0 to 1, Detail an object of the observer's own.
type Progress struct {
	Kind      string          `json:"kind"` // job, resource; never session
	ID        string          `json:"id"`
	Value     float64         `json:"value"`
	Detail    json.RawMessage `json:"detail,omitempty"`
	UpdatedAt time.Time       `json:"updated_at" db:"updated_at"` // set by the database
}

// SetProgress notes the progress of at most MaxBatch things; of two for the
// same thing the later counts. Values outside 0 to 1 are brought inside.
func (l *Leases) SetProgress(ctx context.Context, all []Progress) error {
	if len(all) > MaxBatch {
		return fmt.Errorf("note progress: %d are more than %d at once", len(all), MaxBatch)
	}
	type key struct{ kind, id string }
	last := map[key]Progress{}
	for _, p := range all {
		if p.Kind == pool.UserSession || p.Kind == "" || !plain(p.ID) {
			return fmt.Errorf("note progress: there is none of %q %q", p.Kind, p.ID)
		}
		last[key{p.Kind, p.ID}] = p
	}
	if len(last) == 0 {
		return nil
	}
	// One order for all callers, so that two of them do not wait for each other.
	keys := make([]key, 0, len(last))
	for k := range last {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id)) })
	n := len(keys)
	kinds, ids, details, values := make(pq.StringArray, n), make(pq.StringArray, n), make(pq.StringArray, n), make(pq.Float64Array, n)
	for i, k := range keys {
		p := last[k]
		kinds[i], ids[i], values[i], details[i] = k.kind, k.id, share(p.Value), "{}"
		if len(p.Detail) > 0 {
			details[i] = string(p.Detail)
		}
	}
	_, err := l.db.ExecContext(ctx, `
INSERT INTO liveness (kind, id, progress, detail)
SELECT k, i, v, d::jsonb FROM unnest($1::text[], $2::text[], $3::double precision[], $4::text[]) WITH ORDINALITY AS x(k, i, v, d, o) ORDER BY o
ON CONFLICT (kind, id) DO UPDATE SET progress = EXCLUDED.progress, detail = EXCLUDED.detail, updated_at = EXCLUDED.updated_at`,
		kinds, ids, values, details)
	if err != nil {
		return fmt.Errorf("note the progress of %d: %w", n, err)
	}
	return nil
}

func share(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return min(max(v, 0), 1)
}

// Progress gives what was noted of things of one kind, at most MaxBatch; those without are left out.
func (l *Leases) Progress(ctx context.Context, kind string, ids []string) (map[string]Progress, error) {
	if len(ids) > MaxBatch {
		return nil, fmt.Errorf("read progress: %d are more than %d at once", len(ids), MaxBatch)
	}
	var rows []Progress
	known := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !plain(id) })
	err := l.db.SelectContext(ctx, &rows, `SELECT kind, id, progress AS value, detail, updated_at FROM liveness
		WHERE kind = $1 AND id = ANY ($2) AND progress IS NOT NULL`, kind, pq.StringArray(known))
	if err != nil {
		return nil, fmt.Errorf("read the progress of %d: %w", len(ids), err)
	}
	out := make(map[string]Progress, len(rows))
	for _, p := range rows {
		p.UpdatedAt = p.UpdatedAt.UTC()
		out[p.ID] = p
	}
	return out, nil
}

// Forget deletes up to MaxBatch observations of a kind that were not renewed for a
// time, and says how many: a job's progress is of no use when the job is long over. Leases are not forgotten.
func (l *Leases) Forget(ctx context.Context, kind string, olderThan time.Duration) (int, error) {
	if kind == pool.UserSession {
		return 0, errors.New("forget observations: a lease goes with its session only")
	}
	result, err := l.db.ExecContext(ctx, `
DELETE FROM liveness WHERE kind = $1 AND id IN (
  SELECT id FROM liveness WHERE kind = $1 AND updated_at < now() - $2 * interval '1 second' LIMIT $3 FOR UPDATE SKIP LOCKED)`,
		kind, olderThan.Seconds(), MaxBatch)
	if err != nil {
		return 0, fmt.Errorf("forget observations of kind %s: %w", kind, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("forget observations of kind %s: %w", kind, err)
	}
	return int(n), nil
}
