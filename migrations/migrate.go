package migrations

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// lockID is the advisory lock under which one program at a time migrates a
// database: "rrmmigr" as bytes.
const lockID int64 = 0x72726d6d696772

// Step is one migration and whether it is applied.
type Step struct {
	Version int64
	Name    string
	Applied bool
	At      time.Time // when it was applied; zero if it is not
}

// Up applies what is missing, each file in its own transaction, and returns how
// many were applied. Several programs may call it at once: one works, the others
// wait for it, up to five minutes. It needs a session of its own, so not a
// pgbouncer that pools transactions. A database newer than this program is an error.
//
// The statement and lock timeouts of db hold for the migrations too; one that
// has to rewrite a large table needs a db without them.
func Up(ctx context.Context, db *sql.DB) (applied int, err error) {
	current, want, err := Current(ctx, db)
	if err != nil {
		return 0, err
	}
	if current > want {
		return 0, fmt.Errorf("migrate: the database is at version %d, this program knows %d at most: run a newer one", current, want)
	}
	if current == want {
		return 0, nil // without the lock, so that replicas start at once
	}
	p, err := provider(db)
	if err != nil {
		return 0, err
	}
	results, err := p.Up(ctx)
	if err != nil {
		return len(results), fmt.Errorf("migrate: %w", err)
	}
	return len(results), nil
}

// Current returns the version of the database (0: empty) and the one that this
// program wants.
func Current(ctx context.Context, db *sql.DB) (version, want int64, err error) {
	p, err := provider(db)
	if err != nil {
		return 0, 0, err
	}
	for _, source := range p.ListSources() {
		want = max(want, source.Version)
	}
	// Asked without goose, which would make its table: looking changes nothing.
	var there bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, goose.DefaultTablename).Scan(&there); err != nil {
		return 0, want, fmt.Errorf("read the schema's version: %w", err)
	}
	if !there {
		return 0, want, nil
	}
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+goose.DefaultTablename).Scan(&version)
	if err != nil {
		return 0, want, fmt.Errorf("read the schema's version: %w", err)
	}
	return version, want, nil
}

// Status lists all migrations, oldest first.
func Status(ctx context.Context, db *sql.DB) ([]Step, error) {
	p, err := provider(db)
	if err != nil {
		return nil, err
	}
	all, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	steps := make([]Step, 0, len(all))
	for _, m := range all {
		steps = append(steps, Step{
			Version: m.Source.Version,
			Name:    m.Source.Path,
			Applied: m.State == goose.StateApplied,
			At:      m.AppliedAt,
		})
	}
	return steps, nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	// Every second, 300 times.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(lockID), lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, fmt.Errorf("migrate: make the lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, fmt.Errorf("migrate: read the migrations: %w", err)
	}
	return p, nil
}
