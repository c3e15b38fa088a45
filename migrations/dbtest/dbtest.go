// Package dbtest gives a test its own database on a real PostgreSQL server.
//
// The server is the one that RRM_TEST_POSTGRES names (the DSN of a database from
// which others may be made; the program in dbtest/server starts one for a whole
// `go test ./...`), else one that the test's process starts for itself. Its data is
// not durable. Nothing is left when the process ends, however it ends.
package dbtest

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/migrations"
)

// ServerVariable names the server that tests share.
const ServerVariable = "RRM_TEST_POSTGRES"

const patience = time.Minute // for a server to start, a template to be made; a test waits well under 1 s

var (
	databases atomic.Int64

	// own is never stopped by us: the keeper sees the end of this process. But it
	// must stay known, else the pipe to the keeper is closed as garbage.
	own *SharedServer //nolint:unused // see above

	// shared is the server of this process, started when the first test wants it.
	shared = sync.OnceValues(func() (string, error) {
		if dsn := os.Getenv(ServerVariable); dsn != "" {
			return dsn, nil
		}
		s, err := StartServer()
		if err != nil {
			return "", err
		}
		own = s
		return s.DSN, nil
	})

	// template is made once in each process, and by one process only.
	template = sync.OnceValues(func() (string, error) {
		dsn, err := shared()
		if err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return ensureTemplate(ctx, dsn)
	})
)

// New returns a pool of connections, 20 at most, to a fresh database with the
// whole schema. Both are gone after the test.
func New(t testing.TB) *sqlx.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), DSN(t), postgres.Options{MaxOpen: 20, ApplicationName: "dbtest"})
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// DSN makes a fresh database with the whole schema and returns where it is, for
// tests that want several pools, or none. It is dropped after the test, with
// force: connections that the test left open are cut.
func DSN(t testing.TB) string {
	t.Helper()
	from, err := template()
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	dsn := fresh(t, from)
	// A clone has its template's identity, by which a service knows its renderers
	// on this machine: tests that run at once would end each other's.
	if err := maintain(dsn, `UPDATE installation SET id = replace(gen_random_uuid()::text, '-', '')`); err != nil {
		t.Fatalf("dbtest: give the database its own identity: %v", err)
	}
	return dsn
}

// Empty is DSN without the schema.
func Empty(t testing.TB) string {
	t.Helper()
	return fresh(t, "template0")
}

func fresh(t testing.TB, from string) string {
	t.Helper()
	server, err := shared()
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	name := fmt.Sprintf("rrm_test_%d_%d", os.Getpid(), databases.Add(1))
	// A process ID comes again in time; a former test that was killed left its database.
	err = maintain(server,
		`DROP DATABASE IF EXISTS `+pq.QuoteIdentifier(name)+` WITH (FORCE)`,
		`CREATE DATABASE `+pq.QuoteIdentifier(name)+` TEMPLATE `+pq.QuoteIdentifier(from))
	if err != nil {
		t.Fatalf("dbtest: make a database: %v", err)
	}
	t.Cleanup(func() {
		if err := maintain(server, `DROP DATABASE IF EXISTS `+pq.QuoteIdentifier(name)+` WITH (FORCE)`); err != nil {
			t.Logf("dbtest: drop the database: %v", err)
		}
	})
	return withDatabase(server, name)
}

// maintain runs statements on a connection of its own.
func maintain(dsn string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// ensureTemplate makes the database that tests are cloned from, under an
// advisory lock, because the processes of several packages come at once. Its
// name tells which schema it has. It counts as made when it is marked as a
// template, which is the last step: one that a killed process left is made anew.
func ensureTemplate(ctx context.Context, server string) (string, error) {
	name := "rrm_template_" + migrations.Fingerprint()
	db, err := sql.Open("postgres", server)
	if err != nil {
		return "", fmt.Errorf("make the template: %w", err)
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx) // the lock is the session's, so all goes over one
	if err != nil {
		return "", fmt.Errorf("make the template: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock(hashtextextended($1, 0))`, name); err != nil {
		return "", fmt.Errorf("make the template: lock: %w", err)
	}
	var made bool
	err = conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1 AND datistemplate)`, name).Scan(&made)
	if err != nil || made {
		return name, err
	}
	quoted := pq.QuoteIdentifier(name)
	for _, s := range []string{`DROP DATABASE IF EXISTS ` + quoted + ` WITH (FORCE)`, `CREATE DATABASE ` + quoted + ` TEMPLATE template0`} {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return "", fmt.Errorf("make the template: %w", err)
		}
	}
	if err := migrateTemplate(ctx, withDatabase(server, name)); err != nil {
		return "", err
	}
	if _, err := conn.ExecContext(ctx, `ALTER DATABASE `+quoted+` WITH IS_TEMPLATE true ALLOW_CONNECTIONS false`); err != nil {
		return "", fmt.Errorf("make the template: %w", err)
	}
	return name, nil
}

func migrateTemplate(ctx context.Context, dsn string) error {
	db, err := postgres.Open(ctx, dsn, postgres.Options{MaxOpen: 4})
	if err != nil {
		return fmt.Errorf("make the template: %w", err)
	}
	defer func() { _ = db.Close() }() // a template with connections cannot be cloned
	if _, err := migrations.Up(ctx, db.DB); err != nil {
		return fmt.Errorf("make the template: %w", err)
	}
	return nil
}

// withDatabase names another database of the same server. In a list of
// key=value pairs the last of a key counts.
func withDatabase(dsn, name string) string {
	if u, err := url.Parse(dsn); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		u.Path = "/" + name
		return u.String()
	}
	return dsn + " dbname=" + name
}

// Durable starts a server for one test alone, with fsync on, which the test may
// kill: it comes back by itself. Its database "rrm" is empty. It takes about 3 s.
func Durable(t testing.TB) *postgres.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := postgres.Embedded{
		DataDir: t.TempDir(),
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}.Start(ctx)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("dbtest: stop the server: %v", err)
		}
	})
	return s
}
