package eventstore_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/eventstore"
)

// follow runs followers until the test or the returned function ends it.
func follow(t *testing.T, db *sqlx.DB, bus *eventstore.Bus, followers ...eventstore.Follower) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- eventstore.Follow(ctx, db, bus, nil, followers...) }()
	var stopped atomic.Bool
	stop = func() {
		if stopped.Swap(true) {
			return
		}
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("follow: %v", err)
			}
		case <-time.After(patience):
			t.Error("the followers do not stop")
		}
	}
	t.Cleanup(stop)
	return stop
}

// copier applies events by copying their positions; a position twice breaks the primary key.
func copier(t *testing.T, db *sqlx.DB, fault func() error) eventstore.Follower {
	t.Helper()
	db.MustExec(`CREATE TABLE copied (position bigint PRIMARY KEY)`)
	return eventstore.Follower{Name: "copier", Run: 20, Apply: func(ctx context.Context, tx *sql.Tx, run []eventstore.Event) error {
		for i, e := range run {
			if _, err := tx.ExecContext(ctx, `INSERT INTO copied VALUES ($1)`, e.Position); err != nil {
				return err
			}
			if i == len(run)/2 && fault != nil {
				if err := fault(); err != nil {
					return err
				}
			}
		}
		return nil
	}}
}

func checkpoint(t testing.TB, db *sqlx.DB) (c eventstore.Checkpoint) {
	t.Helper()
	all := must[[]eventstore.Checkpoint](t)(eventstore.Checkpoints(context.Background(), db))
	if len(all) == 1 {
		c = all[0]
	}
	return c
}

// Two replicas of a follower, restarted again and again, with backends killed and
// faults half-way through runs: each event counts exactly once.
func TestFollowersApplyEachEventExactlyOnce(t *testing.T) {
	log, db := open(t)
	var faults atomic.Int64
	f := copier(t, db, func() error {
		if rand.IntN(4) == 0 {
			faults.Add(1)
			return fmt.Errorf("half-way: %w", context.DeadlineExceeded) // a fault that passes
		}
		return nil
	})
	f.OnPause = func(reason string) { t.Errorf("paused: %s", reason) }
	bus := eventstore.NewBus(db, "", nil)
	a, b := follow(t, db, bus, f), follow(t, db, bus, f)
	const events = 1500
	for head := int64(0); head < events; {
		head = appendEvents(t, log, 25)
		bus.Poke(head)
		if head%200 == 0 {
			_, _ = db.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3`)
		}
		if head%500 == 0 {
			a()
			a = follow(t, db, bus, f)
		}
	}
	eventually(t, "all events are applied", func() bool { return checkpoint(t, db).Position == events })
	a()
	b()
	if n := count(t, db, `SELECT count(*) FROM copied`); n != events {
		t.Errorf("%d of %d events were applied", n, events)
	}
	if faults.Load() == 0 {
		t.Error("no fault happened")
	}
}

func TestAFollowerPausesAtWhatItCannotApplyAndResumes(t *testing.T) {
	log, db := open(t)
	appendEvents(t, log, 10)
	for _, broken := range []string{"error", "panic"} {
		t.Run(broken, func(t *testing.T) {
			db.MustExec(`DROP TABLE IF EXISTS copied; DELETE FROM checkpoints`)
			var bad atomic.Bool
			bad.Store(true)
			f := copier(t, db, func() error {
				switch {
				case bad.Load() && broken == "panic":
					panic("poisoned")
				case bad.Load():
					return errors.New("poisoned")
				}
				return nil
			})
			paused := make(chan string, 10)
			f.OnPause = func(reason string) { paused <- reason }
			bus := eventstore.NewBus(db, "", nil)
			defer follow(t, db, bus, f)()
			select {
			case <-paused:
			case <-time.After(patience):
				t.Fatal("no alarm")
			}
			c := checkpoint(t, db)
			if c.Status != "paused" || c.Position != 0 || c.Reason == "" || count(t, db, `SELECT count(*) FROM copied`) != 0 {
				t.Errorf("paused as %+v", c)
			}
			bad.Store(false)
			if err := eventstore.Resume(t.Context(), db, f.Name, 1); err != nil {
				t.Fatal(err)
			}
			bus.Poke(eventsPoked.Add(1)) // or it would poll within a second
			eventually(t, "the follower goes on", func() bool { return checkpoint(t, db).Position == 10 })
			if len(paused) != 0 {
				t.Error("a second alarm")
			}
		})
	}
}

var eventsPoked atomic.Int64

// The library's connection, and with it the lock that keeps replicas apart, is lost
// while a run is being applied: another replica gets the same run and must not count it again.
func TestTwoReplicasWithTheSameRunCountItOnce(t *testing.T) {
	log, db := open(t)
	appendEvents(t, log, 10)
	var calls atomic.Int64
	entered, release := make(chan struct{}, 10), make(chan struct{})
	f := copier(t, db, func() error {
		calls.Add(1)
		entered <- struct{}{}
		<-release
		return nil
	})
	f.OnPause = func(reason string) { t.Errorf("paused: %s", reason) }
	bus := eventstore.NewBus(db, "", nil)
	a := follow(t, db, bus, f)
	<-entered
	// The second starts while the first holds the checkpoint's row, and must not wait for it.
	b := follow(t, db, bus, f)
	db.MustExec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_try_advisory_xact_lock%' AND pid <> pg_backend_pid()`)
	eventually(t, "the other replica has the same run", func() bool {
		return count(t, db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%UPDATE checkpoints%'`) > 0
	})
	close(release)
	// One event more: whoever has the lock now must be done with the first run before this one.
	bus.Poke(appendEvents(t, log, 1))
	eventually(t, "all is applied", func() bool { c := checkpoint(t, db); return c.Position == 11 || c.Status != "running" })
	a()
	b()
	if n := count(t, db, `SELECT count(*) FROM copied`); n != 11 || calls.Load() != 2 {
		t.Errorf("%d events after %d calls", n, calls.Load())
	}
}

func TestAFollowerPausesAtAHole(t *testing.T) {
	for name, missing := range map[string][]int{"within": {4}, "at the end": {7, 8}, "everything": {1, 2, 3, 4, 5, 6, 7, 8}} {
		t.Run(name, func(t *testing.T) {
			log, db := open(t)
			appendEvents(t, log, 8)
			tx := db.MustBegin()
			tx.MustExec(`SET LOCAL session_replication_role = replica`)
			for _, position := range missing {
				tx.MustExec(`DELETE FROM events WHERE position = $1`, position)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			some, index := copier(t, db, nil), eventstore.Follower{Name: "index", Index: func(context.Context, *sql.Tx, int64, int64) error { return nil }}
			all := some
			some.Name, some.Only = "some", []string{"slot.taken", "slot.freed"}
			defer follow(t, db, eventstore.NewBus(db, "", nil), all, some, index)()
			eventually(t, "the followers pause", func() bool {
				return count(t, db, `SELECT count(*) FROM checkpoints WHERE status = 'paused' AND reason LIKE '%has a hole%' AND position = 0`) == 3
			})
		})
	}
}

// Events that a follower does not want do not travel, but count; one that works on the table gets positions only.
func TestFollowersOfSomeEvents(t *testing.T) {
	log, db := open(t)
	for i := range 100 {
		e := event("pool/a", int64(i)+1)
		if i%10 == 3 {
			e.Type = "slot.freed"
		}
		must[int64](t)(log.Append(t.Context(), eventstore.Batch{Expected: int64(i), Events: []eventstore.NewEvent{e}}))
	}
	some := copier(t, db, nil)
	some.Only = []string{"slot.freed"}
	var next atomic.Int64 // that the other has not seen
	next.Store(1)
	index := eventstore.Follower{Name: "index", Run: 7, Index: func(ctx context.Context, tx *sql.Tx, first, last int64) error {
		var waits string // for the disk, beside the commands' commits
		if err := tx.QueryRowContext(ctx, `SHOW synchronous_commit`).Scan(&waits); err != nil || waits != "off" {
			return fmt.Errorf("synchronous_commit is %q, %w", waits, err)
		}
		if !next.CompareAndSwap(first, last+1) || last < first || last-first > 6 {
			return fmt.Errorf("a run from %d to %d", first, last)
		}
		return nil
	}}
	defer follow(t, db, eventstore.NewBus(db, "", nil), some, index)()
	eventually(t, "all is applied", func() bool {
		return count(t, db, `SELECT count(*) FROM checkpoints WHERE position = 100`) == 2
	})
	var got []int64
	if err := db.Select(&got, `SELECT position FROM copied ORDER BY 1`); err != nil || len(got) != 10 || got[0] != 4 || got[9] != 94 {
		t.Errorf("%v were applied, %v", got, err)
	}
}

func TestAFollowerPausesWhenTheLogLostItsEnd(t *testing.T) {
	_, db := open(t)
	db.MustExec(`INSERT INTO checkpoints (follower, generation, position) VALUES ('copier', 1, 5)`)
	defer follow(t, db, eventstore.NewBus(db, "", nil), copier(t, db, nil))()
	eventually(t, "the follower pauses", func() bool { return checkpoint(t, db).Status == "paused" })
}

// The end of the service is no error: nobody is to be woken by its log.
func TestStoppingFollowersIsNotLoggedAsAnError(t *testing.T) {
	log, db := open(t)
	appendEvents(t, log, 1)
	var said bytes.Buffer
	entered := make(chan struct{}, 1)
	f := eventstore.Follower{Name: "busy", Apply: func(ctx context.Context, _ *sql.Tx, _ []eventstore.Event) error {
		entered <- struct{}{}
		<-ctx.Done()
		return errors.New("canceling statement due to user request") // what a server says of it
	}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	logger := slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))
	go func() { done <- eventstore.Follow(ctx, db, eventstore.NewBus(db, "", nil), logger, f) }()
	<-entered
	cancel()
	if err := <-done; err != nil {
		t.Errorf("follow: %v", err)
	}
	if said.Len() > 0 {
		t.Errorf("at the end it logged\n%s", said.String())
	}
}
