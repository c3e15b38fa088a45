package eventstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

func runBus(t *testing.T, b *eventstore.Bus) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the bus: %v", err)
		}
	})
}

func woken(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("not woken: %s", what)
	}
}

func TestWakeUpsReachThisProcessAtOnceAndOthersByNotify(t *testing.T) {
	dsn := dbtest.DSN(t)
	db := must[*sqlx.DB](t)(postgres.Open(t.Context(), dsn, postgres.Options{}))
	t.Cleanup(func() { _ = db.Close() })
	here, there := eventstore.NewBus(db, dsn, nil), eventstore.NewBus(db, dsn, nil)
	runBus(t, here)
	runBus(t, there)
	mine, endMine := here.Subscribe()
	theirs, endTheirs := there.Subscribe()
	defer endTheirs()

	log := must[*eventstore.Log](t)(eventstore.Open(t.Context(), db))
	here.Poke(appendEvents(t, log, 3))
	woken(t, mine, "the same process")
	woken(t, theirs, "another process")
	if here.Position() != 3 || there.Position() != 3 {
		t.Errorf("positions %d and %d", here.Position(), there.Position())
	}
	// Polling alone would do the same, only later; so what it could not know:
	heard := make(chan string, 100)
	l := pq.NewListener(dsn, time.Second, time.Second, nil)
	defer func() { _ = l.Close() }()
	if err := l.Listen("rrm_log"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for n := range l.Notify {
			if n != nil {
				heard <- n.Extra
			}
		}
	}()
	db.MustExec(`NOTIFY rrm_log, '77'`)
	eventually(t, "another process is notified", func() bool { return there.Position() == 77 })
	here.Poke(88)
	eventually(t, "this process notifies", func() bool {
		for len(heard) > 0 {
			if <-heard == "88" {
				return true
			}
		}
		return false
	})
	endMine()
	for len(mine) > 0 {
		<-mine // what came before
	}
	for len(theirs) > 0 {
		<-theirs
	}
	here.Poke(99)
	woken(t, theirs, "another process again")
	select {
	case <-mine:
		t.Error("woken after the subscription ended")
	default:
	}
}

func TestWakeUpsOfThisProcessNeedNoDatabase(t *testing.T) {
	b := eventstore.NewBus(nil, "", nil) // and nobody runs it
	c, end := b.Subscribe()
	defer end()
	b.Poke(1)
	woken(t, c, "this process")
	b.Poke(1)
	if len(c) != 0 {
		t.Error("woken for nothing new")
	}
}

func TestWakeUpsComeByPollingWithoutNotify(t *testing.T) {
	log, db := open(t)
	b := eventstore.NewBus(db, "", nil)
	runBus(t, b)
	c, end := b.Subscribe()
	defer end()
	appendEvents(t, log, 1) // by someone who tells nobody
	woken(t, c, "polling")
	if b.Position() != 1 {
		t.Errorf("position %d", b.Position())
	}
}

func TestStoppedFollowersAndBusLeaveNothing(t *testing.T) {
	log, db := open(t)
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(context.Background())
	b := eventstore.NewBus(db, "", nil)
	f := copier(t, db, nil)
	done := make(chan error, 2)
	go func() { done <- b.Run(ctx) }()
	go func() { done <- eventstore.Follow(ctx, db, b, nil, f) }()
	appendEvents(t, log, 3)
	eventually(t, "the events are applied", func() bool { return checkpoint(t, db).Position == 3 })
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	_ = db.Close()
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}
