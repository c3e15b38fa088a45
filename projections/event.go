package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// EventFilter chooses events after a position. Subject is such as
// "session:ID", "job:ID", "resource:ID", "model:RENDERER/KEY" or "owner:NAME";
// Type is such as "session.ready", or "session.*" for all of a noun. Limit is
// 1 to MaxEvents, 0 means DefaultLimit.
type EventFilter struct {
	After   int64
	Subject string
	Type    string
	Limit   int
}

// MaxEvents bounds how many events one call gives.
const MaxEvents = 1000

// maxTail bounds how many events that the timeline has not indexed yet one call looks through (some 0.1 s).
const maxTail = 100_000

// maxSubject leaves room for the longest model key with its renderer; an index entry of Postgres has at most 2,704 bytes.
const maxSubject = 2 * domain.MaxModelKey

var typePattern = regexp.MustCompile(`^[a-z_]{1,64}\.([a-z_]{1,64}|\*)$`)

// Events gives the events that match, oldest first. It misses none: the
// timeline's index serves up to where that follower is, the rest is read from
// the log itself. The end of the log is where a call gives no event; a shorter
// page than asked for need not be the last. unavailable (timeline_behind) if
// more than maxTail events are not indexed yet and none of the first matched.
func (r *Reader) Events(ctx context.Context, f EventFilter) ([]eventstore.Event, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if f.Limit == 0 {
		f.Limit = DefaultLimit
	}
	if f.Subject == "" && f.Type == "" {
		return r.log.Read(ctx, f.After, f.Limit)
	}
	query, args := f.query(r.tail)
	var rows []eventRow
	if err := r.db.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("read the events of %q, %q: %w", f.Subject, f.Type, err)
	}
	out := []eventstore.Event{}
	for i := range rows {
		if !rows[i].Position.Valid {
			continue
		}
		e, err := rows[i].event()
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	if len(out) == 0 && len(rows) > 0 && rows[0].Head-max(rows[0].Done, f.After) > r.tail {
		return nil, domain.Unavailable("timeline_behind", 5*time.Second,
			"the index of events is %d events behind the log; ask again when it has caught up", rows[0].Head-rows[0].Done)
	}
	return out, nil
}

func (f EventFilter) check() error {
	switch {
	case f.After < 0:
		return domain.Invalid("after", "after is a position of the log, not %d", f.After)
	case f.Limit < 0 || f.Limit > MaxEvents:
		return domain.Invalid("limit", "limit is between 1 and %d, not %d", MaxEvents, f.Limit)
	case f.Type != "" && !typePattern.MatchString(f.Type):
		return domain.Invalid("type", "type is such as session.ready or session.*, not %q", f.Type)
	}
	return domain.CheckText("subject", f.Subject, maxSubject)
}

// eventQuery finds the positions in the index up to the follower's checkpoint
// and in the log after it, all in one snapshot, so that no event falls between
// the two, and then reads those events. It gives at least one row, with the
// head. Its verbs are the subjects to look up, the condition on the tail, and the
// limit, which is no parameter so that the planner knows how little is wanted.
const eventQuery = `
WITH RECURSIVE span AS MATERIALIZED (
  SELECT position AS head, coalesce((SELECT position FROM checkpoints WHERE follower = '` + timelineFollower + `' AND generation = 1), 0) AS done FROM log_head LIMIT 1
), keys (k) AS (
  %[1]s
), indexed AS (
  SELECT position FROM span, keys CROSS JOIN LATERAL rrm_subject_positions(k, $1, span.done, $2, $3, $4) AS position
), tail AS (
  SELECT e.position FROM events e
  WHERE e.position > greatest($1, (SELECT done FROM span)) AND e.position <= greatest($1, (SELECT done FROM span)) + $5
    AND %[2]s AND ($6 = '' OR e.type = $6 OR $7 AND starts_with(e.type, $6))
  ORDER BY e.position LIMIT %[3]d
), found AS (
  SELECT position FROM indexed UNION ALL SELECT position FROM tail ORDER BY position LIMIT %[3]d
)
SELECT span.head, span.done, e.position, e.stream, e.version, e.type, e.schema, e.data, e.meta, e.subjects, e.recorded_at
FROM span LEFT JOIN (found JOIN events e USING (position)) ON true ORDER BY e.position`

// The ways to choose subjects.
const (
	oneKey = `SELECT $8::text`
	// All that begin with $8 and come before $9, by jumping along the index: one probe for each.
	keysBetween = `(SELECT subject FROM event_subjects WHERE subject >= $8 AND subject < $9 ORDER BY subject LIMIT 1)
  UNION ALL
  SELECT (SELECT subject FROM event_subjects WHERE subject > k AND subject < $9 ORDER BY subject LIMIT 1) FROM keys WHERE k IS NOT NULL`
	// = ANY and not @>, so that the tail is a walk along the positions, whatever other indexes there are.
	ofSubject = `$8 = ANY (e.subjects)`
)

func (f EventFilter) query(tail int64) (string, []any) {
	kind, all := f.Type, false
	if noun, ok := strings.CutSuffix(f.Type, "*"); ok {
		kind, all = noun, true
	}
	args := func(indexed string, more ...any) []any {
		return append([]any{f.After, f.Limit, indexed, all, tail, kind, all}, more...)
	}
	switch {
	case f.Subject != "":
		return fmt.Sprintf(eventQuery, oneKey, ofSubject, f.Limit), args(kind, f.Subject)
	case all:
		// '/' follows '.' in the order of "C". The types are the subjects here, so the index needs no further condition.
		until := strings.TrimSuffix(kind, ".") + "/"
		return fmt.Sprintf(eventQuery, keysBetween, "true", f.Limit), args("", typeSubject(kind), typeSubject(until))
	}
	return fmt.Sprintf(eventQuery, oneKey, "true", f.Limit), args("", typeSubject(kind))
}

// eventRow is a row of Events; without an event it carries only where log and index are.
type eventRow struct {
	Head, Done int64
	Position   sql.NullInt64
	Stream     sql.NullString
	Version    sql.NullInt64
	Type       sql.NullString
	Schema     sql.NullInt64
	Data, Meta []byte
	Subjects   pq.StringArray
	RecordedAt sql.NullTime `db:"recorded_at"`
}

func (r *eventRow) event() (eventstore.Event, error) {
	e := eventstore.Event{Position: r.Position.Int64, RecordedAt: r.RecordedAt.Time.UTC()}
	e.Stream, e.Version, e.Type, e.Schema = domain.Stream(r.Stream.String), r.Version.Int64, r.Type.String, int(r.Schema.Int64)
	e.Data, e.Subjects = r.Data, r.Subjects
	if err := json.Unmarshal(r.Meta, &e.Meta); err != nil {
		return e, fmt.Errorf("read the meta data of event %d: %w", e.Position, err)
	}
	return e, nil
}
