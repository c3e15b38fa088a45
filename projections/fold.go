package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain/catalog"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// liveViews are the tables that the log can be folded into.
var liveViews = []string{pool.ViewService, pool.ViewPools, pool.ViewResources, pool.ViewSessions, pool.ViewJobs, pool.ViewModels, pool.ViewOwners}

// foldRun is how many events are read and written at a time.
var foldRun = 2000 // a variable, so that a test can cut anywhere

// fold folds events of the log into fresh tables fold_<view> of its connection.
type fold struct {
	tx       *sqlx.Tx
	state    *pool.State
	position int64 // of the last event folded
	progress func(done, total int64)
}

// newFold makes the fresh tables; they go with the connection.
func newFold(ctx context.Context, tx *sqlx.Tx, progress func(done, total int64)) (*fold, error) {
	for _, v := range liveViews {
		if _, err := tx.ExecContext(ctx, `CREATE TEMP TABLE fold_`+v+` (id text COLLATE "C" PRIMARY KEY, body jsonb NOT NULL, position bigint NOT NULL) ON COMMIT DROP`); err != nil {
			return nil, fmt.Errorf("make fresh tables: %w", err)
		}
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	return &fold{tx: tx, state: pool.NewState(), progress: progress}, nil
}

// to folds all events up to and including head.
func (f *fold) to(ctx context.Context, head int64) error {
	for f.position < head {
		run, err := f.read(ctx, head)
		if err != nil {
			return err
		}
		if err := f.write(ctx, run); err != nil {
			return err
		}
		f.progress(f.position, head)
	}
	return nil
}

func (f *fold) read(ctx context.Context, head int64) ([]pool.Recorded, error) {
	rows, err := f.tx.QueryContext(ctx, `SELECT position, stream, version, type, schema, data, meta->>'decided_at' FROM events
		WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3`, f.position, head, foldRun)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var run []pool.Recorded
	for rows.Next() {
		var r pool.Recorded
		var typ, decided string
		var schema int
		var data json.RawMessage
		if err := rows.Scan(&r.Position, &r.Stream, &r.Version, &typ, &schema, &data, &decided); err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		if want := f.position + int64(len(run)) + 1; r.Position != want {
			return nil, fmt.Errorf("the log has a hole: position %d is missing", want)
		}
		if r.At, err = time.Parse(time.RFC3339Nano, decided); err != nil {
			return nil, fmt.Errorf("event %d: when it was decided: %w", r.Position, err)
		}
		if r.Event, err = catalog.Decode(typ, schema, data); err != nil {
			return nil, fmt.Errorf("event %d: %w", r.Position, err)
		}
		run = append(run, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	if len(run) == 0 {
		return nil, fmt.Errorf("the log ends at position %d, before its head %d", f.position, head)
	}
	return run, nil
}

// write evolves a run and writes the rows that it changed, each with the position of its last event.
func (f *fold) write(ctx context.Context, run []pool.Recorded) error {
	last := map[pool.Key]int64{}
	for _, r := range run {
		f.state.Evolve(r)
		f.state.ChangedBy(func(k pool.Key) { last[k] = r.Position })
	}
	ids, bodies, positions := map[string][]string{}, map[string][]string{}, map[string][]int64{}
	var err error
	f.state.Changed(func(k pool.Key, e any) {
		row, encErr := (Live{}).Row(k, e)
		if encErr != nil {
			err = encErr
		}
		ids[k.View], bodies[k.View] = append(ids[k.View], k.ID), append(bodies[k.View], string(row.Body))
		positions[k.View] = append(positions[k.View], last[k])
	})
	if err != nil {
		return err
	}
	// A booking that is rejected leaves no row; its request may have been in the run before.
	for k := range last {
		if f.state.Has(k) {
			continue
		}
		if _, err := f.tx.ExecContext(ctx, `DELETE FROM fold_`+k.View+` WHERE id = $1`, k.ID); err != nil {
			return fmt.Errorf("drop folded %s: %w", k.View, err)
		}
	}
	for _, v := range liveViews {
		if len(ids[v]) == 0 {
			continue
		}
		if _, err := f.tx.ExecContext(ctx, `INSERT INTO fold_`+v+` (id, body, position)
			SELECT i, b::jsonb, p FROM unnest($1::text[], $2::text[], $3::bigint[]) AS x(i, b, p)
			ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position`,
			pq.Array(ids[v]), pq.Array(bodies[v]), pq.Array(positions[v])); err != nil {
			return fmt.Errorf("write folded %s: %w", v, err)
		}
	}
	f.state.Commit()
	f.position = run[len(run)-1].Position
	return nil
}

// head reads the head of the log in the fold's transaction.
func (f *fold) head(ctx context.Context, lock bool) (position int64, err error) {
	q := `SELECT position FROM log_head WHERE one`
	if lock {
		q += ` FOR UPDATE`
	}
	if err := f.tx.GetContext(ctx, &position, q); err != nil {
		return 0, fmt.Errorf("read the head of the log: %w", err)
	}
	return position, nil
}

// Difference is a live row that is not what the log says.
type Difference struct {
	View     string          `json:"view"`
	ID       string          `json:"id"`
	Field    string          `json:"field,omitempty"` // the first that differs
	Live     json.RawMessage `json:"live,omitempty"`  // what the view has; absent if the row is missing
	Log      json.RawMessage `json:"log,omitempty"`   // what the log says; absent if the row should not be
	Position int64           `json:"position,omitempty"`
}

// String says it in a line.
func (d Difference) String() string {
	switch {
	case d.Live == nil:
		return fmt.Sprintf("%s/%s is missing", d.View, d.ID)
	case d.Log == nil:
		return fmt.Sprintf("%s/%s is there, and the log knows nothing of it", d.View, d.ID)
	case d.Field != "":
		return fmt.Sprintf("%s/%s: %s is %s, and by the log %s", d.View, d.ID, d.Field, d.Live, d.Log)
	}
	return fmt.Sprintf("%s/%s differs: %s, and by the log %s", d.View, d.ID, d.Live, d.Log)
}

// Verified is what Verify found.
type Verified struct {
	Position    int64          `json:"position"` // up to which the log was folded
	Events      int64          `json:"events"`
	Rows        map[string]int `json:"rows"` // compared, by view
	Differences int            `json:"differences"`
}

// Verify folds the whole log, in one snapshot beside all that goes on, and
// compares every live row with what came out: body, and that the position of
// the row is not before its last event. Each difference is reported, the first
// 1,000 of each view. Only an error means that it could not be found out.
func Verify(ctx context.Context, db *sqlx.DB, progress func(done, total int64), report func(Difference)) (Verified, error) {
	v := Verified{Rows: map[string]int{}}
	err := inSnapshot(ctx, db, func(tx *sqlx.Tx) error {
		f, err := newFold(ctx, tx, progress)
		if err != nil {
			return err
		}
		if v.Position, err = f.head(ctx, false); err != nil {
			return err
		}
		if err := f.to(ctx, v.Position); err != nil {
			return err
		}
		v.Events = f.position
		for _, view := range liveViews {
			n, rows, err := compare(ctx, tx, view, report)
			if err != nil {
				return err
			}
			v.Rows[view], v.Differences = rows, v.Differences+n
		}
		return nil
	})
	return v, err
}

// inSnapshot runs f in a transaction that sees one instant, without the time limit of ordinary statements.
func inSnapshot(ctx context.Context, db *sqlx.DB, f func(*sqlx.Tx) error) error {
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // the fresh tables go with it
	for _, q := range []string{`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`, `SET LOCAL statement_timeout = 0`, `SET LOCAL idle_in_transaction_session_timeout = 0`} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
	}
	return f(tx)
}

const maxDifferences = 1000

func compare(ctx context.Context, tx *sqlx.Tx, view string, report func(Difference)) (found, rows int, err error) {
	if err := tx.GetContext(ctx, &rows, `SELECT count(*) FROM `+view); err != nil {
		return 0, 0, fmt.Errorf("count %s: %w", view, err)
	}
	list, err := tx.QueryContext(ctx, `SELECT coalesce(l.id, f.id), l.body, f.body, coalesce(l.position, f.position)
		FROM `+view+` l FULL JOIN fold_`+view+` f ON f.id = l.id
		WHERE l.body IS DISTINCT FROM f.body OR l.position < f.position ORDER BY 1 LIMIT $1`, maxDifferences)
	if err != nil {
		return 0, rows, fmt.Errorf("compare %s: %w", view, err)
	}
	defer func() { _ = list.Close() }()
	for list.Next() {
		d := Difference{View: view}
		if err := list.Scan(&d.ID, (*[]byte)(&d.Live), (*[]byte)(&d.Log), &d.Position); err != nil {
			return found, rows, fmt.Errorf("compare %s: %w", view, err)
		}
		found++
		report(d.narrowed())
	}
	return found, rows, list.Err()
}

// narrowed names the first field that differs, instead of two whole bodies.
func (d Difference) narrowed() Difference {
	var live, log map[string]json.RawMessage
	if d.Live == nil || d.Log == nil || json.Unmarshal(d.Live, &live) != nil || json.Unmarshal(d.Log, &log) != nil {
		return d
	}
	first := ""
	for _, side := range []map[string]json.RawMessage{live, log} {
		for k := range side {
			if string(live[k]) != string(log[k]) && (first == "" || strings.Compare(k, first) < 0) {
				first = k
			}
		}
	}
	if first == "" {
		d.Field, d.Live, d.Log = "position", json.RawMessage(fmt.Sprint(d.Position)), json.RawMessage(`"later"`)
		return d
	}
	d.Field, d.Live, d.Log = first, orNull(live[first]), orNull(log[first])
	return d
}

func orNull(b json.RawMessage) json.RawMessage {
	if b == nil {
		return json.RawMessage("null")
	}
	return b
}

// Rebuilt is what Rebuild did.
type Rebuilt struct {
	Position int64          `json:"position"`
	Changed  map[string]int `json:"changed"` // rows that were not what the log says, by view
}

// Rebuild folds the log into fresh tables beside all that goes on, then takes
// the lock of the head, folds the rest, and puts in place what differs. Writers
// wait for that last step only. The epoch is raised, so that every process reads its live state anew.
func Rebuild(ctx context.Context, db *sqlx.DB, progress func(done, total int64)) (Rebuilt, error) {
	out := Rebuilt{Changed: map[string]int{}}
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return out, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	for _, q := range []string{`SET LOCAL statement_timeout = 0`, `SET LOCAL idle_in_transaction_session_timeout = 0`} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return out, fmt.Errorf("begin: %w", err)
		}
	}
	f, err := newFold(ctx, tx, progress)
	if err != nil {
		return out, err
	}
	head, err := f.head(ctx, false)
	if err == nil {
		err = f.to(ctx, head)
	}
	if err != nil {
		return out, err
	}
	if out.Position, err = f.head(ctx, true); err != nil {
		return out, err
	}
	if err := f.to(ctx, out.Position); err != nil {
		return out, err
	}
	for _, view := range liveViews {
		if out.Changed[view], err = replace(ctx, tx, view, out.Position); err != nil {
			return out, err
		}
	}
	if err := settleLeases(ctx, tx); err != nil {
		return out, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE log_head SET epoch = epoch + 1 WHERE one`); err != nil {
		return out, fmt.Errorf("raise the epoch: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return out, fmt.Errorf("put the fresh tables in place: %w", err)
	}
	return out, nil
}

// replace makes a live view what the fold says, touching only what differs.
func replace(ctx context.Context, tx *sqlx.Tx, view string, head int64) (changed int, err error) {
	for _, q := range []string{
		`DELETE FROM ` + view + ` l WHERE NOT EXISTS (SELECT 1 FROM fold_` + view + ` f WHERE f.id = l.id) AND $1::bigint IS NOT NULL`,
		`INSERT INTO ` + view + ` AS l (id, body, position) SELECT id, body, $1 FROM fold_` + view + ` f
			WHERE NOT EXISTS (SELECT 1 FROM ` + view + ` o WHERE o.id = f.id AND o.body = f.body AND o.position >= f.position)
			ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body, position = EXCLUDED.position`,
	} {
		res, err := tx.ExecContext(ctx, q, head)
		if err != nil {
			return changed, fmt.Errorf("put %s in place: %w", view, err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return changed, fmt.Errorf("put %s in place: %w", view, err)
		}
		changed += int(n)
	}
	return changed, nil
}

// settleLeases gives ready sessions that have no lease one, and takes those of ended ones: no lease without an end.
func settleLeases(ctx context.Context, tx *sqlx.Tx) error {
	for _, q := range []string{
		`DELETE FROM liveness l USING sessions s WHERE l.kind = 'session' AND l.id = s.id AND s.ended`,
		`INSERT INTO liveness (kind, id, expires_at, lease_seconds, detail, updated_at)
			SELECT 'session', id, clock_timestamp() + (body->>'lease_seconds')::float8 * interval '1 second',
				(body->>'lease_seconds')::float8, jsonb_build_object('resource', resource), clock_timestamp()
			FROM sessions WHERE state = 'ready' AND NOT ended ON CONFLICT (kind, id) DO NOTHING`,
	} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("settle leases: %w", err)
		}
	}
	return nil
}
