package commands_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// counted is a toy that counts what it decided.
type counted struct {
	*toy
	decided *atomic.Int64
}

func (c counted) Decide(head int64, cmd any, meta eventstore.Meta) (commands.Decided, error) {
	c.decided.Add(1)
	return c.toy.Decide(head, cmd, meta)
}

// held is a running lane whose first append waits for the head's lock, which the test has.
type held struct {
	t       *testing.T
	lane    *commands.Lane
	db      *sqlx.DB
	log     *eventstore.Log
	decided *atomic.Int64
	wg      sync.WaitGroup
}

func newHeld(t *testing.T) *held {
	t.Helper()
	h := &held{t: t, decided: &atomic.Int64{}}
	dsn := dbtest.DSN(t)
	h.lane, h.db = newLane(t, dsn, counted{newToy(100), h.decided}, commands.Options{})
	log, err := eventstore.Open(t.Context(), h.db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	h.log = log
	runLane(t, h.lane)
	if _, err := do(t, h.lane, "first", take{Session: "first", Fresh: true}); err != nil { // the model is loaded
		t.Fatal(err)
	}
	return h
}

// give gives a command and checks what comes of it in the end.
func (h *held) give(id string, cmd any, check func(commands.Answer, error)) {
	h.wg.Go(func() { check(do(h.t, h.lane, id, cmd)) })
}

func (h *held) slot(want string, position int64) func(commands.Answer, error) {
	return func(a commands.Answer, err error) {
		if err != nil || string(a.Body) != want || a.Position != position {
			h.t.Errorf("slot %s at %d, %v; want slot %s at %d", a.Body, a.Position, err, want, position)
		}
	}
}

// flying waits until an append waits for the lock, with n commands decided until then.
func (h *held) flying(n int64) {
	h.t.Helper()
	waitFor(h.t, "an append waits for the head", func() (is bool) {
		if err := h.db.Get(&is, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%rrm_append%')`); err != nil {
			h.t.Error(err)
		}
		return is && h.decided.Load() == n
	})
}

func (h *held) batches(want int64) {
	h.t.Helper()
	h.wg.Wait()
	if s := h.lane.Stats(); s.Batches != want {
		h.t.Errorf("%d appends, want %d: %+v", s.Batches, want, s)
	}
}

// Commands that arrive while an append is under way are decided on what it will
// leave, and are appended together; a repetition of one that is under way waits for its answer.
func TestCommandsAreDecidedWhileAnAppendIsUnderWay(t *testing.T) {
	h := newHeld(t)
	tx := h.db.MustBegin()
	tx.MustExec(`SELECT FROM log_head FOR UPDATE`)
	h.give("a", take{Session: "a", Fresh: true}, h.slot("1", 2))
	h.flying(2)
	h.give("b", take{Session: "b", Fresh: true}, h.slot("2", 3))
	h.flying(3)
	h.give("c", free{Session: "a"}, h.slot(`"freed"`, 4))
	h.flying(4)
	for id, cmd := range map[string]any{"a": take{Session: "a", Fresh: true}, "b": take{Session: "b", Fresh: true}} {
		h.give(id, cmd, func(a commands.Answer, err error) {
			if err != nil || !a.Repeated {
				t.Errorf("%s, again: %+v %v", id, a, err)
			}
		})
	}
	waitFor(t, "the repetitions are taken", func() bool { return h.lane.Stats().Queue == 0 })
	h.give("nothing", look{}, h.slot("2", 4)) // has no events: its answer goes along
	h.flying(5)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	h.batches(3)
	if s := h.lane.Stats(); s.Conflicts != 0 {
		t.Errorf("%+v", s)
	}
}

// Where another process was first, all that was decided is decided again.
func TestCommandsDecidedInVain(t *testing.T) {
	h := newHeld(t)
	row := func(view, id string, c cell) eventstore.Row {
		body, _ := json.Marshal(c)
		return eventstore.Row{View: view, ID: id, Body: body}
	}
	_, err := h.log.Locked(t.Context(), 1, func(eventstore.Delta, eventstore.Known) (eventstore.Batch, error) {
		h.give("a", take{Session: "a", Fresh: true}, h.slot("2", 3))
		h.flying(2)
		h.give("b", take{Session: "b", Fresh: true}, h.slot("3", 4))
		h.flying(3)
		return eventstore.Batch{
			Events: []eventstore.NewEvent{{Stream: "pool/toy", Version: 2, Type: "slot.taken", Data: json.RawMessage(`{"session": "other", "slot": 1}`)}},
			Rows:   []eventstore.Row{row("resources", "1", cell{Session: "other"}), row("sessions", "other", cell{Slot: 1}), row("pools", "toy", cell{Version: 2})},
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.batches(3)
	if s := h.lane.Stats(); s.Conflicts != 1 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

// A command that breaks the model, or that cannot be stored, while an append is under way fails alone.
func TestPoisonWhileAnAppendIsUnderWay(t *testing.T) {
	for name, bad := range map[string]any{"panics": shock{}, "cannot be stored": store{Text: "\x00"}, "fails": wrong{}} {
		t.Run(name, func(t *testing.T) {
			h := newHeld(t)
			tx := h.db.MustBegin()
			tx.MustExec(`SELECT FROM log_head FOR UPDATE`)
			h.give("a", take{Session: "a", Fresh: true}, h.slot("1", 2))
			h.flying(2)
			h.give("b", take{Session: "b", Fresh: true}, h.slot("2", 3))
			h.flying(3)
			h.give("bad", bad, func(_ commands.Answer, err error) {
				if _, refused := domain.AsRefusal(err); err == nil || refused {
					t.Errorf("the poison: %v", err)
				}
			})
			waitFor(t, "the poison is taken", func() bool { return h.decided.Load() == 4 })
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			h.wg.Wait()
			for i := range 5 {
				if _, err := do(t, h.lane, fmt.Sprint("later", i), take{Session: fmt.Sprint("later", i), Fresh: true}); err != nil {
					t.Error(err)
				}
			}
			if n := events(t, h.db, "slot.taken"); n != 8 {
				t.Errorf("%d effects, want 8", n)
			}
			if s := h.lane.Stats(); s.Failed != 1 {
				t.Errorf("%+v", s)
			}
			var broken int
			if err := h.db.Get(&broken, `SELECT count(*) FROM resources WHERE body->>'session' = 'broken'`); err != nil || broken != 0 {
				t.Errorf("%d rows of the broken model were written, %v", broken, err)
			}
		})
	}
}

// A command that needs rows from the database is decided when the append before it is done.
func TestMissingRowsWaitForTheAppend(t *testing.T) {
	h := newHeld(t)
	tx := h.db.MustBegin()
	tx.MustExec(`SELECT FROM log_head FOR UPDATE`)
	h.give("a", free{Session: "first"}, h.slot(`"freed"`, 2))
	h.flying(2)
	h.give("b", take{Session: "b", Fresh: true}, h.slot("0", 3))
	h.flying(3)
	h.give("c", take{Session: "first"}, func(_ commands.Answer, err error) { // it may exist in the views, and does
		if code(err) != "exists" {
			t.Errorf("a session that has ended, again: %v", err)
		}
	})
	h.give("d", take{Session: "unknown"}, func(a commands.Answer, err error) {
		if err != nil || string(a.Body) != "1" {
			t.Errorf("%s %v", a.Body, err)
		}
	})
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	h.wg.Wait()
}
