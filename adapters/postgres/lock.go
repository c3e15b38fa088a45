package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"
)

// How often a lock that another replica holds is asked for again, and how
// often one that we hold is checked to be still ours.
const (
	lockRetry = time.Second
	lockCheck = time.Second
)

// Hold runs f whenever this process holds the advisory lock of that name, so
// that only one of several replicas does the work. It returns when ctx ends.
// f gets a context that ends when the lock may have been lost. Correctness
// must not rest on it: a process may go on for a moment after its connection broke.
func Hold(ctx context.Context, db *sqlx.DB, name string, log *slog.Logger, f func(context.Context)) {
	for ctx.Err() == nil {
		if err := holdOnce(ctx, db, name, f); err != nil && ctx.Err() == nil {
			log.Debug("a lock could not be held", "lock", name, "error", err)
		}
		wait(ctx, lockRetry)
	}
}

func holdOnce(ctx context.Context, db *sqlx.DB, name string, f func(context.Context)) error {
	conn, err := db.Connx(ctx)
	if err != nil {
		return fmt.Errorf("connect for lock %s: %w", name, err)
	}
	defer func() { _ = conn.Close() }()
	var ours bool
	if err := conn.GetContext(ctx, &ours, `SELECT pg_try_advisory_lock(hashtextextended('rrm:' || $1, 0))`, name); err != nil || !ours {
		return err
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); f(work) }()
	for wait(work, lockCheck) {
		check, stop := context.WithTimeout(work, 2*lockCheck)
		_, err = conn.ExecContext(check, `SELECT 1`)
		stop()
		if err != nil {
			break
		}
	}
	cancel()
	<-done
	// A fresh context: ctx has ended when the service stops, and the next holder should not have to wait.
	release, stop := context.WithTimeout(context.WithoutCancel(ctx), lockCheck)
	defer stop()
	_, _ = conn.ExecContext(release, `SELECT pg_advisory_unlock_all()`)
	return err
}

// wait sleeps; false: ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
