package projections_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/catalog"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
	"github.com/rendering-resource-manager/rrm/projections"
)

// writer appends what commands lead to, as the lane does, without its batching.
type writer struct {
	t     *testing.T
	log   *eventstore.Log
	state *pool.State
	now   time.Time
	n     int
}

func newWriter(t *testing.T, db *sqlx.DB) *writer {
	t.Helper()
	log, err := eventstore.Open(context.Background(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return &writer{t: t, log: log, state: pool.NewState(), now: time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)}
}

func (w *writer) do(c pool.Command) {
	w.t.Helper()
	ctx := context.Background()
	head, epoch, err := w.log.Head(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.n++
	w.now = w.now.Add(time.Second)
	id := domain.CommandID("c" + string(rune('0'+w.n)))
	events, err := w.state.Decide(head, pool.Given{ID: id, At: w.now, Command: c})
	if _, refused := domain.AsRefusal(err); err != nil && !refused {
		w.t.Fatal(err)
	}
	b := eventstore.Batch{Expected: head, Epoch: epoch}
	for _, r := range events {
		typ, schema, data, err := catalog.Encode(r.Event)
		if err != nil {
			w.t.Fatal(err)
		}
		b.Events = append(b.Events, eventstore.NewEvent{Stream: r.Stream, Version: r.Version, Type: typ, Schema: schema, Data: data,
			Meta: eventstore.Meta{Command: id, DecidedAt: w.now}, Subjects: w.state.Subjects(r)})
	}
	w.state.Changed(func(k pool.Key, e any) {
		row, err := projections.Live{}.Row(k, e)
		if err != nil {
			w.t.Fatal(err)
		}
		b.Rows = append(b.Rows, row)
	})
	if _, err := w.log.Append(ctx, b); err != nil {
		w.t.Fatal(err)
	}
	w.state.Commit()
}

// story leaves sessions, jobs, resources and models in many states.
func (w *writer) story() {
	set := domain.Renderer{ID: "r", CommandLine: "x", ModelLoading: domain.LoadHTTP, WaitUntilReady: true, Scaling: domain.ScalingSettings{Max: 2}}
	w.do(pool.ConfigureRenderer{Renderer: set})
	w.do(pool.BookResource{Session: "s1", Renderer: "r", Model: "a", Owner: "o", Wait: time.Minute})
	w.do(pool.BookResource{Session: "s2", Renderer: "r", Model: "b", Owner: "o"})
	var id domain.ResourceID
	for _, r := range w.state.ResourcesOf("r") {
		id = r.ID
	}
	w.do(pool.ReportStarting{Launched: domain.Launched{Resource: id, Address: "127.0.0.1:1", Handle: domain.Handle(`{"pid": 7}`)}})
	w.do(pool.ReportReady{Resource: id, Address: "127.0.0.1:1"})
	w.do(pool.ReportModelLoaded{Resource: id, Model: "a", Seconds: 0.25, MemoryMiB: 3})
	w.do(pool.SubmitJob{Job: "j1", Renderer: "r", Model: "a", Owner: "o", Kind: "image", Spec: json.RawMessage(`{"width": 64}`)})
	w.do(pool.ReleaseSession{Session: "s1"})
}

func verify(t *testing.T, db *sqlx.DB) (projections.Verified, []projections.Difference) {
	t.Helper()
	var found []projections.Difference
	v, err := projections.Verify(context.Background(), db, nil, func(d projections.Difference) { found = append(found, d) })
	if err != nil {
		t.Fatal(err)
	}
	return v, found
}

func TestVerifyFindsEveryKindOfDifferenceAndRebuildMendsIt(t *testing.T) {
	db := dbtest.New(t)
	newWriter(t, db).story()
	v, found := verify(t, db)
	if len(found) != 0 || v.Rows["sessions"] != 1 || v.Rows["jobs"] != 1 || v.Rows["pools"] != 1 || v.Events == 0 {
		t.Fatalf("after the story: %+v %v", v, found)
	}
	_, epochBefore := head(t, db)
	for _, q := range []string{
		`UPDATE sessions SET body = jsonb_set(body, '{owner}', '"thief"')`,
		`DELETE FROM jobs`,
		`INSERT INTO resources (id, body, position) VALUES ('ghost', '{"state": "ready"}', 1)`,
		`UPDATE models SET position = 1`,
	} {
		if _, err := db.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	_, found = verify(t, db)
	want := map[string]string{"sessions/s1": "owner", "jobs/j1": "", "resources/ghost": "", "models/r/a": "position"}
	for _, d := range found {
		field, ok := want[d.View+"/"+d.ID]
		if !ok || field != d.Field || d.String() == "" {
			t.Errorf("unexpected difference %+v", d)
		}
		delete(want, d.View+"/"+d.ID)
	}
	if len(want) != 0 {
		t.Errorf("not found: %v", want)
	}
	if _, err := projections.Rebuild(context.Background(), db, nil); err != nil {
		t.Fatal(err)
	}
	if _, found = verify(t, db); len(found) != 0 {
		t.Errorf("after the rebuild: %v", found)
	}
	if _, epoch := head(t, db); epoch != epochBefore+1 {
		t.Errorf("the rebuild left the epoch at %d: other processes would go on with what they hold", epoch)
	}
}

// Wherever the runs are cut, in the middle of one append too, the same comes out.
func TestVerifyWithRunsOfAnyLength(t *testing.T) {
	db := dbtest.New(t)
	newWriter(t, db).story()
	for _, n := range []int{1, 2, 3, 5, 7} {
		projections.SetFoldRun(t, n)
		if _, found := verify(t, db); len(found) != 0 {
			t.Errorf("in runs of %d: %v", n, found)
		}
	}
}

func head(t *testing.T, db *sqlx.DB) (position, epoch int64) {
	t.Helper()
	if err := db.QueryRow(`SELECT position, epoch FROM log_head`).Scan(&position, &epoch); err != nil {
		t.Fatal(err)
	}
	return position, epoch
}
