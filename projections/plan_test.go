package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jmoiron/sqlx"
)

// explained runs every query of the reader a second time under EXPLAIN ANALYZE
// and adds up the pages of tables and indexes that it looked at, those in
// functions too.
type explained struct {
	*sqlx.DB
	t     testing.TB
	pages int
	plan  string
}

type planNode struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Loops    float64 `json:"Actual Loops"`
	Hit      int     `json:"Shared Hit Blocks"`
	Read     int     `json:"Shared Read Blocks"`
	Plans    []planNode
}

func (n planNode) String() string {
	s := fmt.Sprintf("\n%s %s %s: %.0f rows %.0f times, %d pages", n.Type, n.Relation, n.Index, n.Rows, n.Loops, n.Hit+n.Read)
	for _, p := range n.Plans {
		s += p.String()
	}
	return s
}

func (e *explained) explain(query string, args ...any) {
	e.t.Helper()
	var text []byte
	if err := e.DB.QueryRow(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+query, args...).Scan(&text); err != nil {
		e.t.Fatal(err)
	}
	var plans []struct {
		Plan planNode
		JIT  json.RawMessage
	}
	if err := json.Unmarshal(text, &plans); err != nil {
		e.t.Fatal(err)
	}
	if plans[0].JIT != nil {
		e.t.Errorf("a query is so dear in the planner's eyes that it is compiled first, which takes half a second: %s", query)
	}
	e.pages += plans[0].Plan.Hit + plans[0].Plan.Read
	e.plan += plans[0].Plan.String()
}

func (e *explained) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	e.explain(query, args...)
	return e.DB.SelectContext(ctx, dest, query, args...)
}

func (e *explained) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	e.explain(query, args...)
	return e.DB.QueryxContext(ctx, query, args...)
}

const (
	manyRows = 20_000
	liveRows = 50 // of them that have not ended
)

// fillViews writes sessions, jobs and resources as they are after a long time: nearly all have ended.
func fillViews(t testing.TB, w *world) {
	t.Helper()
	w.renderer("a", 0)
	body := func(thing string, live, ended string) string {
		return fmt.Sprintf(`INSERT INTO %[1]ss (id, body, position)
SELECT 'x' || i, jsonb_build_object('id', 'x' || i, 'seq', i, 'renderer', CASE WHEN i %% 100 = 0 THEN 'b' ELSE 'a' END, 'model', CASE WHEN i %% 5000 = 1 THEN 'rare' ELSE 'm' || i %% 50 END,
  'owner', 'o' || i %% 200, 'kind', 'image', 'resource', 'x' || i / 40, 'priority', i %% 3, 'submitted_at', '2026-01-01T00:00:00Z', 'requested_at', '2026-01-01T00:00:00Z',
  'state', CASE WHEN i > %[2]d - %[3]d THEN '%[4]s' WHEN i %% 1000 = 7 THEN 'failed' ELSE '%[5]s' END, 'ended', i <= %[2]d - %[3]d), i
FROM generate_series(1, %[2]d) AS i`, thing, manyRows, liveRows, live, ended)
	}
	mustExec(t, w.db, body("session", "queued", "released"))
	mustExec(t, w.db, body("job", "queued", "succeeded"))
	mustExec(t, w.db, body("resource", "ready", "stopped"))
	mustExec(t, w.db, `ANALYZE sessions, jobs, resources`)
}

// With many rows every question is answered through indexes: no plan looks at
// more than a small part of a table, whatever the filter.
func TestPlans(t *testing.T) {
	w := newWorld(t)
	fillViews(t, w)
	e := &explained{DB: w.db, t: t}
	w.reader.db = e
	ctx, page := t.Context(), Page{Limit: 20}
	check := func(what string, most int, f func() (int, error)) {
		t.Helper()
		e.pages, e.plan = 0, ""
		n, err := f()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n == 0 {
			t.Errorf("%s: nothing was found", what)
		}
		if e.pages > most {
			t.Errorf("%s: %d pages were looked at, want at most %d: %s", what, e.pages, most, e.plan)
		}
	}
	middle := encodeCursor(manyRows / 2)
	for _, f := range []SessionFilter{
		{}, {Renderer: "b"}, {Owner: "o7"}, {Model: "m7"}, {Model: "rare"}, {Resource: "x7"}, {State: "failed"}, {State: "released"}, {State: "queued"},
		{State: "failed", Renderer: "a"}, {Owner: "o7", State: "released"}, {Owner: "o160", State: "queued"},
	} {
		for _, cursor := range []string{"", middle} {
			if cursor != "" && f.State == "queued" || f.Resource != "" && cursor != "" {
				continue
			}
			check(fmt.Sprintf("sessions %+v after %q", f, cursor), 160, func() (int, error) {
				got, _, err := w.reader.Sessions(ctx, f, Page{Limit: 20, Cursor: cursor})
				return len(got), err
			})
		}
	}
	for _, f := range []JobFilter{{}, {Renderer: "b"}, {Owner: "o7"}, {Model: "m7"}, {Model: "rare"}, {State: "failed"}, {State: "queued"}, {Kind: "image"}} {
		check(fmt.Sprintf("jobs %+v", f), 160, func() (int, error) {
			got, _, err := w.reader.Jobs(ctx, f, page)
			return len(got), err
		})
	}
	for _, f := range []ResourceFilter{{}, {State: "failed"}, {State: "ready"}, {Ended: true}, {Renderer: "b", Ended: true}} {
		check(fmt.Sprintf("resources %+v", f), 160, func() (int, error) {
			got, _, err := w.reader.Resources(ctx, f, page)
			return len(got), err
		})
	}
	check("one session", 40, func() (int, error) { _, err := w.reader.Session(ctx, "x20000"); return 1, err })
	check("one job", 40, func() (int, error) { _, err := w.reader.Job(ctx, "x20000"); return 1, err })
	check("one resource", 5, func() (int, error) { _, err := w.reader.Resource(ctx, "x7"); return 1, err })
	check("one pool", 40, func() (int, error) { _, err := w.reader.Pool(ctx, "a"); return 1, err })
}

func TestPlansOfEvents(t *testing.T) {
	w := newWorld(t)
	fillLog(t, w, manyRows, func(i int) bool { return i%5_000 == 2500 })
	tx, err := w.db.Beginx()
	w.ok(err)
	const done = manyRows - 500
	w.ok(indexSubjectsUpTo(t.Context(), tx, done))
	w.ok(tx.Commit())
	e := &explained{DB: w.db, t: t}
	w.reader.db = e
	for _, f := range []EventFilter{
		{Subject: "session:needle"}, {Subject: "session:700"}, {Subject: "owner:o3"}, {Subject: "owner:o3", After: 10_000}, {Subject: "renderer:a", After: 100},
		{Type: "session.rejected"}, {Type: "session.*", After: 10_000}, {Type: "session.ready"}, {Subject: "session:needle", Type: "session.rejected"},
		{Subject: "owner:o3", Type: "session.*"},
	} {
		e.pages, e.plan = 0, ""
		got, err := w.reader.Events(t.Context(), f)
		w.ok(err)
		if len(got) == 0 {
			t.Errorf("%+v: nothing was found", f)
		}
		if e.pages > 800 { // a page of 100 events takes some 300, with a type twice that
			t.Errorf("%+v: %d pages were looked at: %s", f, e.pages, e.plan)
		}
	}
}

// Places in a long queue are counted once for a page, not once for each row.
func TestPlansOfALongQueue(t *testing.T) {
	w := newWorld(t)
	w.renderer("a", 0)
	const waiting = 20_000
	for thing, at := range map[string]string{"session": "requested_at", "job": "submitted_at"} {
		mustExec(t, w.db, fmt.Sprintf(`INSERT INTO %ss (id, body, position)
SELECT 'x' || i, jsonb_build_object('id', 'x' || i, 'seq', i, 'renderer', 'a', 'state', 'queued', 'priority', 0, '%s', '2026-01-01T00:00:00Z', 'ended', false), i
FROM generate_series(1, %d) AS i`, thing, at, waiting))
		mustExec(t, w.db, `ANALYZE `+thing+`s`)
	}
	e := &explained{DB: w.db, t: t}
	w.reader.db = e
	sessions, _, err := w.reader.Sessions(t.Context(), SessionFilter{}, Page{Limit: MaxLimit})
	w.ok(err)
	for i, v := range sessions {
		if v.Queue == nil || v.Queue.Position != waiting-i {
			t.Fatalf("session %d has place %+v", i, v.Queue)
		}
	}
	jobs, _, err := w.reader.Jobs(t.Context(), JobFilter{}, Page{Limit: MaxLimit})
	w.ok(err)
	for i, v := range jobs {
		if v.Queue == nil || v.Queue.Position != waiting-i {
			t.Fatalf("job %d has place %+v", i, v.Queue)
		}
	}
	if e.pages > waiting/4 {
		t.Errorf("%d pages were looked at for two lists of %d in queues of %d", e.pages, MaxLimit, waiting)
	}
}

func indexSubjectsUpTo(ctx context.Context, tx *sqlx.Tx, position int64) error {
	_, err := tx.ExecContext(ctx, `
INSERT INTO event_subjects SELECT s, min(position), array_agg(position ORDER BY position)
FROM events, unnest(subjects || ('type:' || type)) AS s WHERE position <= $1 GROUP BY s, position / 500`, position)
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT INTO checkpoints (follower, position) VALUES ('timeline', $1)`, position)
	}
	return err
}
