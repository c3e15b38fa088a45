package projections

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/catalog"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

const patience = 20 * time.Second

// world decides commands with the real decider and appends them to a real log,
// one at a time, as the service does.
type world struct {
	t      testing.TB
	db     *sqlx.DB
	log    *eventstore.Log
	state  *pool.State
	now    time.Time
	reader *Reader
	n      int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	db := dbtest.New(t)
	log, err := eventstore.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return &world{t: t, db: db, log: log, state: pool.NewState(), now: time.Now().UTC().Truncate(time.Microsecond), reader: NewReader(db, log)}
}

// try decides and appends; a refusal is returned, together with what it recorded.
func (w *world) try(c pool.Command) ([]pool.Recorded, error) {
	w.t.Helper()
	w.n++
	head, epoch, err := w.log.Head(w.t.Context())
	w.ok(err)
	id := domain.CommandID(fmt.Sprintf("command-%d", w.n))
	meta := eventstore.Meta{Command: id, Actor: "client:test", DecidedAt: w.now}
	events, refusal := w.state.Decide(head, pool.Given{ID: id, Actor: meta.Actor, At: w.now, Command: c})
	batch := eventstore.Batch{Expected: head, Epoch: epoch}
	for _, r := range events {
		typ, schema, data, err := catalog.Encode(r.Event)
		w.ok(err)
		batch.Events = append(batch.Events, eventstore.NewEvent{
			Stream: r.Stream, Version: r.Version, Type: typ, Schema: schema, Data: data, Meta: meta, Subjects: w.state.Subjects(r),
		})
	}
	w.state.Changed(func(k pool.Key, entity any) {
		row, err := Live{}.Row(k, entity)
		w.ok(err)
		batch.Rows = append(batch.Rows, row)
	})
	w.state.Commit()
	if len(batch.Events) > 0 {
		_, err = w.log.Append(w.t.Context(), batch)
		w.ok(err)
	}
	return events, refusal
}

func (w *world) do(c pool.Command) []pool.Recorded {
	w.t.Helper()
	events, err := w.try(c)
	w.ok(err)
	return events
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// renderer configures a pool whose resources have one slot for one model.
func (w *world) renderer(id domain.RendererID, most int) {
	w.t.Helper()
	w.do(pool.ConfigureRenderer{Renderer: domain.Renderer{
		ID: id, CommandLine: "render", Launcher: domain.LauncherLocal, Slots: 1, ModelsPerResource: 1,
		ModelLoading: domain.LoadHTTP, Scaling: domain.ScalingSettings{Max: most, Idle: domain.Duration(24 * time.Hour)},
	}})
}

func (w *world) book(r domain.RendererID, s domain.SessionID, m domain.ModelKey, owner domain.Owner) {
	w.t.Helper()
	w.do(pool.BookResource{Session: s, Renderer: r, Model: m, Owner: owner, Wait: time.Hour, Lease: time.Minute})
}

// serve brings every requested resource of a pool to life, and loads what is to be loaded.
func (w *world) serve(r domain.RendererID) {
	w.t.Helper()
	for _, res := range w.state.ResourcesOf(r) {
		if res.Coming() {
			w.pass(2 * time.Second)
			w.do(pool.ReportStarting{Launched: domain.Launched{Resource: res.ID, Node: "node7"}})
			w.do(pool.ReportReady{Resource: res.ID, Address: "http://127.0.0.1:4711", JobKinds: []string{pool.JobImage, pool.JobVideo}})
		}
	}
	w.load(r)
}

func (w *world) load(r domain.RendererID) {
	w.t.Helper()
	for _, res := range w.state.ResourcesOf(r) {
		for _, m := range res.Models {
			if m.State == "loading" {
				w.pass(3 * time.Second)
				w.do(pool.ReportModelLoaded{Resource: res.ID, Model: m.Model, Seconds: 3, MemoryMiB: 10})
			}
		}
	}
}

func wantRefusal(t testing.TB, err error, kind domain.Kind, code, field string) {
	t.Helper()
	r, ok := domain.AsRefusal(err)
	if !ok {
		t.Fatalf("got error %v, want a refusal %s %s", err, kind, code)
	}
	if r.Kind != kind || r.Code != code || r.Field != field {
		t.Fatalf("got refusal %s, %s of field %q (%s), want %s, %s of field %q", r.Kind, r.Code, r.Field, r.Reason, kind, code, field)
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("not within %v: %s", patience, what)
}

func count(t testing.TB, db *sqlx.DB, query string, args ...any) (n int64) {
	t.Helper()
	if err := db.GetContext(context.Background(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

func mustExec(t testing.TB, db *sqlx.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// follow runs the timeline until stop is called or the test ends.
func (w *world) follow() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	bus := eventstore.NewBus(w.db, "", nil)
	done := make(chan error, 2)
	go func() { done <- bus.Run(ctx) }()
	go func() { done <- eventstore.Follow(ctx, w.db, bus, nil, Timeline()) }()
	stop = func() {
		cancel()
		for range cap(done) {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				w.t.Errorf("follow: %v", err)
			}
		}
		done = make(chan error)
	}
	w.t.Cleanup(stop)
	return stop
}

// indexed waits until the timeline has reached the head of the log.
func (w *world) indexed() {
	w.t.Helper()
	eventually(w.t, "the timeline has caught up", func() bool {
		return count(w.t, w.db, `SELECT count(*) FROM log_head h JOIN checkpoints c ON c.follower = 'timeline' AND c.position = h.position`) == 1
	})
}
