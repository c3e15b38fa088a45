package eventstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
)

// views are the live views' tables.
var views = []string{"service", "pools", "resources", "models", "owners", "sessions", "jobs"}

// MaxRead bounds how many events one call reads.
const MaxRead = 10_000

// Live gives every live row and the head, of one instant: what a starting
// process loads. Resources, sessions and jobs that have ended are left out.
func (l *Log) Live(ctx context.Context) (Delta, error) {
	d, err := within(ctx, func() (Delta, error) {
		rows, err := l.db.QueryContext(ctx, `SELECT view, id, body, position FROM rrm_live()`)
		return scanDelta(rows, err)
	})
	if err != nil {
		return Delta{}, fmt.Errorf("read the live views: %w", err)
	}
	return d, nil
}

// Since gives the rows that were written after a position, ended ones too, and
// the head, of one instant. A head before the position means that the log lost
// its end (a restore, a failover): nothing read before is true any more.
// Positions from before PruneChanges give a Delta that is Forgotten.
func (l *Log) Since(ctx context.Context, position int64) (Delta, error) {
	d, err := within(ctx, func() (Delta, error) { return delta(ctx, l.sinceCall, position) })
	if err != nil {
		return Delta{}, fmt.Errorf("read the live views after %d: %w", position, err)
	}
	return d, nil
}

func delta(ctx context.Context, stmt *sql.Stmt, since int64) (Delta, error) {
	return scanDelta(stmt.QueryContext(ctx, since))
}

func scanDelta(rows *sql.Rows, err error) (Delta, error) {
	if err != nil {
		return Delta{}, err
	}
	var d Delta
	head := false
	all, err := scanRows(rows)
	if err != nil {
		return Delta{}, err
	}
	d.Rows = all[:0]
	for _, r := range all {
		if r.View != "head" {
			d.Rows = append(d.Rows, r)
			continue
		}
		head, d.Position = true, r.Position
		if r.ID == "" {
			d.Forgotten = true
		} else if d.Epoch, err = strconv.ParseInt(r.ID, 10, 64); err != nil {
			return Delta{}, fmt.Errorf("read the epoch: %w", err)
		}
	}
	if !head {
		return Delta{}, fmt.Errorf("log_head has no row: %w", sql.ErrNoRows)
	}
	return d, nil
}

func scanRows(rows *sql.Rows) ([]Row, error) {
	defer func() { _ = rows.Close() }()
	var out []Row
	for rows.Next() {
		var r Row
		var body []byte
		if err := rows.Scan(&r.View, &r.ID, &body, &r.Position); err != nil {
			return nil, err
		}
		r.Body = body
		out = append(out, r)
	}
	return out, rows.Err()
}

// Rows reads single rows of live views; those that do not exist are left out.
func (l *Log) Rows(ctx context.Context, refs []Ref) ([]Row, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	ids := map[string][]string{}
	for _, r := range refs {
		ids[r.View] = append(ids[r.View], r.ID)
	}
	query := ""
	var args []any
	for _, view := range views {
		if len(ids[view]) == 0 {
			continue
		}
		if query != "" {
			query += " UNION ALL "
		}
		args = append(args, pq.StringArray(ids[view]))
		query += fmt.Sprintf("SELECT '%s', id, body, position FROM %s WHERE id = ANY ($%d)", view, view, len(args))
		delete(ids, view)
	}
	for view := range ids {
		return nil, fmt.Errorf("there is no live view %q", view)
	}
	out, err := within(ctx, func() ([]Row, error) {
		rows, err := l.db.QueryContext(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		return scanRows(rows)
	})
	if err != nil {
		return nil, fmt.Errorf("read %d rows of the live views: %w", len(refs), err)
	}
	return out, nil
}

// Answers looks up which of the commands have been answered.
func (l *Log) Answers(ctx context.Context, ids []domain.CommandID) (map[domain.CommandID]Answer, error) {
	return l.answers(ctx, l.answersCall, ids)
}

func (l *Log) answers(ctx context.Context, stmt *sql.Stmt, ids []domain.CommandID) (map[domain.CommandID]Answer, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	text := make(pq.StringArray, len(ids))
	for i, id := range ids {
		text[i] = string(id)
	}
	out, err := within(ctx, func() (map[domain.CommandID]Answer, error) {
		rows, err := stmt.QueryContext(ctx, text)
		if err != nil {
			return nil, err
		}
		defer func() { _ = rows.Close() }()
		known := map[domain.CommandID]Answer{}
		for rows.Next() {
			var a Answer
			var body []byte
			if err := rows.Scan(&a.Command, &a.Hash, &body, &a.Position); err != nil {
				return nil, err
			}
			a.Body = body
			known[a.Command] = a
		}
		return known, rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("look up %d answers: %w", len(ids), err)
	}
	return out, nil
}

// PruneAnswers deletes at most limit answers that are older than given and
// says how many: a repetition of such a command is a new command.
func (l *Log) PruneAnswers(ctx context.Context, olderThan time.Duration, limit int) (int, error) {
	n, err := within(ctx, func() (int64, error) {
		r, err := l.db.ExecContext(ctx, `DELETE FROM answers WHERE command_id IN (
			SELECT command_id FROM answers WHERE recorded_at < clock_timestamp() - $1 * interval '1 second' ORDER BY recorded_at LIMIT $2)`,
			olderThan.Seconds(), limit)
		if err != nil {
			return 0, err
		}
		return r.RowsAffected()
	})
	if err != nil {
		return 0, fmt.Errorf("prune answers: %w", err)
	}
	return int(n), nil
}

// changesKept is how many positions back Since can look: seconds at full speed, and further than a process that appends ever is.
const changesKept = 100_000

// PruneChanges forgets which rows changed long ago.
func (l *Log) PruneChanges(ctx context.Context) error {
	return l.pruneChanges(ctx, changesKept)
}

func (l *Log) pruneChanges(ctx context.Context, kept int64) error {
	_, err := within(ctx, func() (sql.Result, error) {
		// The first that is left says from where on the list is complete.
		return l.db.ExecContext(ctx, `DELETE FROM changes WHERE position < (
			SELECT max(position) FROM changes WHERE position <= (SELECT position FROM log_head) - $1)`, kept)
	})
	if err != nil {
		return fmt.Errorf("forget old changes: %w", err)
	}
	return nil
}

// partitionAhead is how far ahead of the head the log's partitions are made: days, at thousands of events a second.
const partitionAhead = 25_000_000

// EnsurePartition makes the partitions of the next 25 million positions, if
// they are not there. Appends would make them too, but then a command waits for it.
func (l *Log) EnsurePartition(ctx context.Context) error {
	_, err := within(ctx, func() (int, error) {
		var made int
		err := l.db.QueryRowContext(ctx, `SELECT rrm_ensure_partition(position + $1) FROM log_head`, partitionAhead).Scan(&made)
		return made, err
	})
	if err != nil {
		return fmt.Errorf("make the next partition of the log: %w", err)
	}
	return nil
}

const eventColumns = `e.position, e.stream, e.version, e.type, e.schema, e.data, e.meta, e.subjects, e.recorded_at`

// Read gives the events after a position, in order, at most limit (1 to
// MaxRead). A *HoleError means that the log misses one that must be there.
func (l *Log) Read(ctx context.Context, after int64, limit int) ([]Event, error) {
	limit = min(max(limit, 1), MaxRead)
	var head int64
	events, err := within(ctx, func() ([]Event, error) {
		// The head comes with the events, so that a hole at the end shows too.
		rows, err := l.db.QueryContext(ctx, `SELECT h.position, `+eventColumns+` FROM log_head h
			LEFT JOIN LATERAL (SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT $2) e ON true ORDER BY e.position`, after, limit)
		return scanEvents(rows, err, &head)
	})
	if err != nil {
		return nil, fmt.Errorf("read the log after %d: %w", after, err)
	}
	last := after
	for _, e := range events {
		if e.Position != last+1 {
			return nil, &HoleError{After: last, Next: e.Position}
		}
		last = e.Position
	}
	if len(events) < limit && last < head {
		return nil, &HoleError{After: last, Next: head + 1}
	}
	return events, nil
}

// ReadStream gives a stream's events after a version, in order, at most limit (1 to MaxRead).
func (l *Log) ReadStream(ctx context.Context, stream domain.Stream, afterVersion int64, limit int) ([]Event, error) {
	events, err := within(ctx, func() ([]Event, error) {
		rows, err := l.db.QueryContext(ctx, `SELECT 0::bigint, `+eventColumns+` FROM events e
			WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3`, string(stream), afterVersion, min(max(limit, 1), MaxRead))
		return scanEvents(rows, err, new(int64))
	})
	if err != nil {
		return nil, fmt.Errorf("read stream %s after %d: %w", stream, afterVersion, err)
	}
	for i, e := range events {
		if e.Version != afterVersion+int64(i)+1 {
			return nil, &HoleError{Stream: stream, After: afterVersion + int64(i), Next: e.Version}
		}
	}
	return events, nil
}

// ReadOne gives the event at a position; an error that is sql.ErrNoRows if there is none.
func (l *Log) ReadOne(ctx context.Context, position int64) (Event, error) {
	events, err := within(ctx, func() ([]Event, error) {
		rows, err := l.db.QueryContext(ctx, `SELECT 0::bigint, `+eventColumns+` FROM events e WHERE position = $1`, position)
		return scanEvents(rows, err, new(int64))
	})
	if err == nil && len(events) == 0 {
		err = sql.ErrNoRows
	}
	if err != nil {
		return Event{}, fmt.Errorf("read the event at %d: %w", position, err)
	}
	return events[0], nil
}

// scanEvents reads rows of a head and eventColumns; a row without an event carries only the head.
func scanEvents(rows *sql.Rows, err error, head *int64) ([]Event, error) {
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []Event
	for rows.Next() {
		var position, version, schema sql.NullInt64
		var stream, kind sql.NullString
		var data, meta []byte
		var subjects pq.StringArray
		var at sql.NullTime
		if err := rows.Scan(head, &position, &stream, &version, &kind, &schema, &data, &meta, &subjects, &at); err != nil {
			return nil, err
		}
		if !position.Valid {
			continue
		}
		e := Event{Position: position.Int64, RecordedAt: at.Time.UTC()}
		e.Stream, e.Version, e.Type, e.Schema = domain.Stream(stream.String), version.Int64, kind.String, int(schema.Int64)
		e.Data, e.Subjects = data, subjects
		if err := json.Unmarshal(meta, &e.Meta); err != nil {
			return nil, fmt.Errorf("read the meta data of event %d: %w", e.Position, err)
		}
		out = append(out, e)
	}
	return out, rows.Err()
}
