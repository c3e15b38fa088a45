package eventstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

const patience = 20 * time.Second

// open gives a log in a database of the test's own.
func open(t testing.TB) (*eventstore.Log, *sqlx.DB) {
	t.Helper()
	db := dbtest.New(t)
	log, err := eventstore.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log, db
}

// event makes an event with some data.
func event(stream domain.Stream, version int64) eventstore.NewEvent {
	return eventstore.NewEvent{
		Stream: stream, Version: version, Type: "slot.taken", Schema: 1,
		Data:     json.RawMessage(fmt.Sprintf(`{"version": %d}`, version)),
		Meta:     eventstore.Meta{Command: "c", Actor: "client:a", DecidedAt: time.Unix(1, 0).UTC()},
		Subjects: []string{"session:1", `odd "one", {x}`},
	}
}

// appendEvents appends n events to one stream, whose last version is the head's position.
func appendEvents(t testing.TB, log *eventstore.Log, n int) int64 {
	t.Helper()
	head, epoch := must2(t)(log.Head(t.Context()))
	b := eventstore.Batch{Expected: head, Epoch: epoch}
	for i := range n {
		b.Events = append(b.Events, event("pool/a", head+int64(i)+1))
	}
	return must[int64](t)(log.Append(t.Context(), b))
}

// row is a row of a live view.
func row(view, id, body string) eventstore.Row {
	return eventstore.Row{View: view, ID: id, Body: json.RawMessage(body)}
}

// write appends one event with rows.
func write(t testing.TB, log *eventstore.Log, rows ...eventstore.Row) int64 {
	t.Helper()
	head, epoch := must2(t)(log.Head(t.Context()))
	return must[int64](t)(log.Append(t.Context(), eventstore.Batch{
		Expected: head, Epoch: epoch, Events: []eventstore.NewEvent{event("pool/a", head+1)}, Rows: rows,
	}))
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func must2(t testing.TB) func(int64, int64, error) (int64, int64) {
	return func(a, b int64, err error) (int64, int64) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
}

func count(t testing.TB, db *sqlx.DB, query string, args ...any) (n int64) {
	t.Helper()
	if err := db.GetContext(context.Background(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually waits for a condition that other goroutines or servers bring about.
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
