package migrations_test

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/migrations"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

func open(t *testing.T, dsn string) *sqlx.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{MaxOpen: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// Replicas that start at once all come up, and one of them migrates.
func TestUpFromManyReplicasAtOnce(t *testing.T) {
	dsn := dbtest.Empty(t)
	first := open(t, dsn)
	_, want, err := migrations.Current(t.Context(), first.DB)
	if err != nil {
		t.Fatal(err)
	}
	if want == 0 {
		t.Fatal("this program wants no schema")
	}
	var applied atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		db := open(t, dsn)
		all.Go(func() {
			n, err := migrations.Up(t.Context(), db.DB)
			if err != nil {
				t.Error(err)
			}
			applied.Add(int64(n))
		})
	}
	all.Wait()
	version, _, err := migrations.Current(t.Context(), first.DB)
	if err != nil || version != want {
		t.Errorf("version %d, want %d (error %v)", version, want, err)
	}
	steps, err := migrations.Status(t.Context(), first.DB)
	if err != nil {
		t.Fatal(err)
	}
	if int(applied.Load()) != len(steps) {
		t.Errorf("%d applied in sum, there are %d", applied.Load(), len(steps))
	}
	for _, s := range steps {
		if !s.Applied || s.At.IsZero() {
			t.Errorf("not applied: %+v", s)
		}
	}
	if n, err := migrations.Up(t.Context(), first.DB); n != 0 || err != nil {
		t.Errorf("once more: %d applied, error %v", n, err)
	}
}

func TestCurrentChangesNothing(t *testing.T) {
	db := open(t, dbtest.Empty(t))
	if _, _, err := migrations.Current(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	var tables int
	if err := db.Get(&tables, `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`); err != nil || tables != 0 {
		t.Errorf("%d tables after a look (error %v)", tables, err)
	}
}

// An old program must not work on a schema that it does not know.
func TestNewerDatabaseIsRefused(t *testing.T) {
	db := dbtest.New(t)
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`); err != nil {
		t.Fatal(err)
	}
	_, err := migrations.Up(t.Context(), db.DB)
	if err == nil || !strings.Contains(err.Error(), "99999") {
		t.Errorf("error %v", err)
	}
}
