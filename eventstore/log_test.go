package eventstore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/eventstore"
)

func TestTheLogIsAppendOnly(t *testing.T) {
	log, db := open(t)
	appendEvents(t, log, 3)
	for _, q := range []string{
		`UPDATE events SET type = 'x'`, `DELETE FROM events WHERE position = 2`, `TRUNCATE events`, `TRUNCATE events_p0`,
		`UPDATE events_p0 SET type = 'x'`, `DELETE FROM events_p0`,
	} {
		if _, err := db.Exec(q); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", q, err)
		}
	}
}

func TestReadingFindsHoles(t *testing.T) {
	log, db := open(t)
	appendEvents(t, log, 6)
	remove := func(position int) {
		t.Helper()
		tx := db.MustBegin()
		tx.MustExec(`SET LOCAL session_replication_role = replica`) // without the triggers
		tx.MustExec(`DELETE FROM events WHERE position = $1`, position)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	var hole *eventstore.HoleError
	remove(6)
	if _, err := log.Read(t.Context(), 0, 10); !errors.As(err, &hole) || hole.After != 5 || hole.Next != 7 {
		t.Errorf("missing at the end: %v", err)
	}
	if events, err := log.Read(t.Context(), 0, 5); err != nil || len(events) != 5 {
		t.Errorf("before the hole: %d events, %v", len(events), err)
	}
	if _, err := log.Read(t.Context(), 5, 10); !errors.As(err, &hole) {
		t.Errorf("nothing but the hole: %v", err)
	}
	remove(3)
	if _, err := log.Read(t.Context(), 0, 5); !errors.As(err, &hole) || hole.After != 2 || hole.Next != 4 {
		t.Errorf("missing within: %v", err)
	}
	if _, err := log.ReadStream(t.Context(), "pool/a", 0, 10); !errors.As(err, &hole) || hole.After != 2 {
		t.Errorf("missing in the stream: %v", err)
	}
}

// Appends go on over the border of a partition, though nobody made the next one.
func TestAppendsMakeTheNextPartition(t *testing.T) {
	log, db := open(t)
	db.MustExec(`UPDATE log_head SET position = 49999998`)
	if head := appendEvents(t, log, 5); head != 50000003 {
		t.Fatalf("head %d", head)
	}
	if n := count(t, db, `SELECT count(*) FROM events_p1`); n != 3 {
		t.Errorf("%d events in the second partition, want 3", n)
	}
	if events := must[[]eventstore.Event](t)(log.Read(t.Context(), 49999998, 10)); len(events) != 5 {
		t.Errorf("%d events over the border", len(events))
	}
	if _, err := db.Exec(`TRUNCATE events_p1`); err == nil {
		t.Error("the second partition can be truncated")
	}
	if _, err := db.Exec(`DELETE FROM events WHERE position = 50000001`); err == nil {
		t.Error("the second partition's events can be deleted")
	}
}

func TestEnsurePartitionWorksAhead(t *testing.T) {
	log, db := open(t)
	partitions := func() int64 {
		return count(t, db, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass`)
	}
	for position, want := range map[int64]int64{0: 1, 24_999_999: 1} {
		db.MustExec(`UPDATE log_head SET position = $1`, position)
		if err := log.EnsurePartition(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := partitions(); got != want {
			t.Errorf("at %d: %d partitions, want %d", position, got, want)
		}
	}
	db.MustExec(`UPDATE log_head SET position = 25000001`)
	for range 2 { // the second finds it there
		if err := log.EnsurePartition(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := partitions(); got != 2 {
		t.Errorf("%d partitions, want 2", got)
	}
}
