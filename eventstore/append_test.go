package eventstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

func TestAnEventIsReadAsItWasAppended(t *testing.T) {
	log, _ := open(t)
	e := event("pool/a", 1)
	e.Meta.Correlation, e.Meta.Causation, e.Meta.Trace = "request 1", "command 0", "00-a-b-01"
	head := must[int64](t)(log.Append(t.Context(), eventstore.Batch{Events: []eventstore.NewEvent{e}}))
	if head != 1 {
		t.Fatalf("head %d, want 1", head)
	}
	got := must[eventstore.Event](t)(log.ReadOne(t.Context(), 1))
	if !reflect.DeepEqual(got.NewEvent, e) || got.Position != 1 || time.Since(got.RecordedAt).Abs() > time.Minute {
		t.Errorf("read %+v\nappended %+v", got, e)
	}
	if _, err := log.ReadOne(t.Context(), 2); err == nil {
		t.Error("there is an event 2")
	}
}

// Many writers at once: positions and versions are dense, every success counts once.
func TestConcurrentAppendsAreDense(t *testing.T) {
	log, _ := open(t)
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := 0; n < each; {
				d, err := log.Since(t.Context(), 1<<60)
				if err != nil {
					t.Error(err)
					return
				}
				mine := domain.Stream(fmt.Sprint("pool/", w))
				_, err = log.Append(t.Context(), eventstore.Batch{Expected: d.Position, Epoch: d.Epoch,
					Events: []eventstore.NewEvent{event(mine, int64(2*n+1)), event(mine, int64(2*n+2))}})
				switch {
				case err == nil:
					n++
				case !errors.Is(err, eventstore.ErrMoved):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	events := must[[]eventstore.Event](t)(log.Read(t.Context(), 0, eventstore.MaxRead))
	if len(events) != writers*each*2 {
		t.Fatalf("%d events, want %d", len(events), writers*each*2)
	}
	for w := range writers {
		stream := must[[]eventstore.Event](t)(log.ReadStream(t.Context(), domain.Stream(fmt.Sprint("pool/", w)), 0, eventstore.MaxRead))
		if len(stream) != each*2 {
			t.Errorf("writer %d has %d events, want %d", w, len(stream), each*2)
		}
	}
}

func TestAppendOnAMovedHeadWritesNothing(t *testing.T) {
	log, db := open(t)
	appendEvents(t, log, 1)
	b := eventstore.Batch{
		Events: []eventstore.NewEvent{event("pool/b", 1)}, Rows: []eventstore.Row{row("pools", "b", `{}`)},
		Answers: []eventstore.Answer{{Command: "c1", Body: json.RawMessage(`{}`)}},
	}
	if _, err := log.Append(t.Context(), b); !errors.Is(err, eventstore.ErrMoved) {
		t.Errorf("expected an old head: %v", err)
	}
	b.Expected, b.Epoch = 1, 1
	if _, err := log.Append(t.Context(), b); !errors.Is(err, eventstore.ErrMoved) {
		t.Errorf("expected another epoch: %v", err)
	}
	if n := count(t, db, `SELECT (SELECT count(*) FROM events) - 1 + (SELECT count(*) FROM pools) + (SELECT count(*) FROM answers)`); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

// A call that is still in the server when the epoch is raised never appends.
func TestFenceStopsACallInFlight(t *testing.T) {
	log, db := open(t)
	blocker := db.MustBegin()
	defer func() { _ = blocker.Rollback() }()
	blocker.MustExec(`UPDATE log_head SET epoch = epoch + 1`) // what Fence does, not yet committed
	done := make(chan error, 1)
	go func() {
		_, err := log.Append(context.Background(), eventstore.Batch{Events: []eventstore.NewEvent{event("pool/a", 1)}})
		done <- err
	}()
	eventually(t, "the call waits in the server", func() bool {
		return count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	})
	if err := blocker.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, eventstore.ErrMoved) {
		t.Errorf("the fenced call gave %v", err)
	}
	if epoch := must[int64](t)(log.Fence(t.Context())); epoch != 2 {
		t.Errorf("epoch %d, want 2", epoch)
	}
	if n := count(t, db, `SELECT count(*) FROM events`); n != 0 {
		t.Errorf("%d events", n)
	}
}

func TestAnswersAreKeptByteForByteAndOnce(t *testing.T) {
	log, _ := open(t)
	a := eventstore.Answer{Command: "c1", Hash: "h", Body: json.RawMessage(`{"b": 1,  "a": "<é>", "a":2}`), Position: 0}
	if _, err := log.Append(t.Context(), eventstore.Batch{Answers: []eventstore.Answer{a}}); err != nil {
		t.Fatal(err)
	}
	got := must[map[domain.CommandID]eventstore.Answer](t)(log.Answers(t.Context(), []domain.CommandID{"c1", "c2"}))
	if len(got) != 1 || !reflect.DeepEqual(got["c1"], a) {
		t.Errorf("answers %+v", got)
	}
	_, err := log.Append(t.Context(), eventstore.Batch{Answers: []eventstore.Answer{a}})
	if !eventstore.AnsweredAlready(err) || eventstore.Unknown(err) {
		t.Errorf("answered again: %v", err)
	}
	if n := must[int](t)(log.PruneAnswers(t.Context(), time.Hour, 10)); n != 0 {
		t.Errorf("pruned %d answers that are new", n)
	}
	if n := must[int](t)(log.PruneAnswers(t.Context(), 0, 10)); n != 1 {
		t.Errorf("pruned %d answers, want 1", n)
	}
}

func TestDataThatCannotBeStoredIsTheCallersFault(t *testing.T) {
	log, db := open(t)
	nul, wrong := event("pool/a", 1), event("pool/a", 1)
	nul.Data = json.RawMessage(`{"x": "\u0000"}`)
	wrong.Data = json.RawMessage(`{`)
	same := []eventstore.NewEvent{event("pool/a", 1), event("pool/a", 1)}
	one := []eventstore.NewEvent{event("pool/a", 1)}
	for name, b := range map[string]eventstore.Batch{
		"a NUL":               {Events: []eventstore.NewEvent{nul}},
		"no JSON":             {Events: []eventstore.NewEvent{wrong}},
		"a version twice":     {Events: same},
		"a row twice":         {Events: one, Rows: []eventstore.Row{row("jobs", "j", `{}`), row("jobs", "j", `{}`)}},
		"rows without events": {Rows: []eventstore.Row{row("jobs", "j", `{}`)}},
		"an unknown view":     {Events: one, Rows: []eventstore.Row{row("events", "j", `{}`)}},
		"a lease without end": {Events: one, Rows: []eventstore.Row{row("sessions", "s", `{"state": "ready"}`)}},
	} {
		_, err := log.Append(t.Context(), b)
		if !eventstore.DataError(err) || eventstore.Unknown(err) || eventstore.Transient(err) {
			t.Errorf("%s: %v", name, err)
		}
		if eventstore.Contradicts(err) != (name == "a version twice") {
			t.Errorf("%s: contradicts: %v", name, eventstore.Contradicts(err))
		}
	}
	if n := count(t, db, `SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM jobs) + (SELECT count(*) FROM sessions)`); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

func TestLockedSeesTheNewestStateAndNobodyMovesIt(t *testing.T) {
	log, db := open(t)
	write(t, log, row("pools", "a", `{"n": 1}`))
	head, err := log.Locked(t.Context(), 0, func(d eventstore.Delta, known eventstore.Known) (eventstore.Batch, error) {
		if d.Position != 1 || len(d.Rows) != 1 || d.Rows[0].ID != "a" {
			t.Errorf("under the lock: %+v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := log.Append(ctx, eventstore.Batch{Expected: 1, Events: []eventstore.NewEvent{event("pool/a", 2)}}); err == nil {
			t.Error("another append came between")
		}
		if _, err := known([]domain.CommandID{"c1"}); err != nil {
			t.Error(err)
		}
		return eventstore.Batch{Events: []eventstore.NewEvent{event("pool/a", 2)}}, nil
	})
	if err != nil || head != 2 {
		t.Fatalf("head %d, %v", head, err)
	}
	refusal := errors.New("no")
	if _, err := log.Locked(t.Context(), 2, func(eventstore.Delta, eventstore.Known) (eventstore.Batch, error) {
		return eventstore.Batch{}, refusal
	}); !errors.Is(err, refusal) {
		t.Errorf("the decision's error came back as %v", err)
	}
	if head := appendEvents(t, log, 1); head != 3 { // the lock is free again
		t.Errorf("head %d", head)
	}
	if n := count(t, db, `SELECT count(*) FROM events`); n != 3 {
		t.Errorf("%d events", n)
	}
}

// A server that does not answer at all must not hold a caller beyond its context.
func TestACallEndsWithItsContext(t *testing.T) {
	log, db := open(t)
	blocker := db.MustBegin()
	defer func() { _ = blocker.Rollback() }()
	blocker.MustExec(`LOCK TABLE log_head`)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := log.Append(ctx, eventstore.Batch{Events: []eventstore.NewEvent{event("pool/a", 1)}})
	if err == nil || time.Since(start) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// Documents travel in one text: what could be taken for two, or for none, is refused, and nothing is written.
func TestWhatIsNoJSONIsRefused(t *testing.T) {
	log, db := open(t)
	fine := eventstore.Batch{
		Events:  []eventstore.NewEvent{event("pool/a", 1)},
		Answers: []eventstore.Answer{{Command: "c", Body: json.RawMessage("{\"a\":\n\t1}")}},
		Rows:    []eventstore.Row{row("pools", "a", `{}`), row("pools", `b "\,{}`, `{"quote": "\"\u001f,{}"}`)},
	}
	for _, bad := range []string{"", "1\x1f2", "\x1f", `{"a": "` + "\x1f" + `"}`, `{"a"`} {
		for what, spoil := range map[string]func(*eventstore.Batch){
			"data":   func(b *eventstore.Batch) { b.Events[0].Data = json.RawMessage(bad) },
			"answer": func(b *eventstore.Batch) { b.Answers[0].Body = json.RawMessage(bad) },
			"row":    func(b *eventstore.Batch) { b.Rows[0].Body = json.RawMessage(bad) },
		} {
			b := eventstore.Batch{Events: slices.Clone(fine.Events), Answers: slices.Clone(fine.Answers), Rows: slices.Clone(fine.Rows)}
			spoil(&b)
			if _, err := log.Append(t.Context(), b); !eventstore.DataError(err) {
				t.Errorf("%s %q: %v", what, bad, err)
			}
		}
	}
	if n := count(t, db, `SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM answers) + (SELECT count(*) FROM pools)`); n != 0 {
		t.Errorf("%d rows were written", n)
	}
	must[int64](t)(log.Append(t.Context(), fine))
	if n := count(t, db, `SELECT count(*) FROM pools WHERE id = $1 AND body->>'quote' = $2`, `b "\,{}`, "\"\x1f,{}"); n != 1 {
		t.Error("the row is not as it was given")
	}
}
