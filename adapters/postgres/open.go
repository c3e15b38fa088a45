// Package postgres connects to PostgreSQL and, where the operator names no
// server, runs one of its own (Embedded). It knows lib/pq, the processes of a
// Postgres server and nothing of what is stored in it.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// Options are the limits of one pool of connections. The zero value of every
// field means its default; a negative timeout or lifetime means none.
type Options struct {
	ApplicationName string // shown in pg_stat_activity; "rrm" unless the DSN or this says otherwise

	MaxOpen     int           // connections at most; 16
	MaxIdle     int           // idle connections kept; as many as MaxOpen
	MaxLifetime time.Duration // of a connection; 30 min, so that a moved server or a grown backend is left behind
	MaxIdleTime time.Duration // 5 min

	ConnectTimeout           time.Duration // of one attempt; 5 s. Whole seconds, rounded up
	StatementTimeout         time.Duration // 30 s
	LockTimeout              time.Duration // waiting for one lock; 10 s
	IdleInTransactionTimeout time.Duration // 30 s; ends the transaction of a client that hangs
}

func (o Options) withDefaults() Options {
	if o.MaxOpen <= 0 {
		o.MaxOpen = 16
	}
	if o.MaxIdle <= 0 || o.MaxIdle > o.MaxOpen {
		o.MaxIdle = o.MaxOpen
	}
	setDefault(&o.MaxLifetime, 30*time.Minute)
	setDefault(&o.MaxIdleTime, 5*time.Minute)
	setDefault(&o.ConnectTimeout, 5*time.Second)
	setDefault(&o.StatementTimeout, 30*time.Second)
	setDefault(&o.LockTimeout, 10*time.Second)
	setDefault(&o.IdleInTransactionTimeout, 30*time.Second)
	return o
}

func setDefault(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

// Open connects to the server that dsn names, a postgres:// URL or a list of
// key=value pairs, and asks it for an answer once. What the DSN says
// (application_name, connect_timeout, statement_timeout, ...) goes before the
// options. The timeouts are sent when a connection is made, so a pgbouncer in
// between needs them in its ignore_startup_parameters.
//
// No error of Open holds the password. An error leaves nothing open; the
// caller may try again.
func Open(ctx context.Context, dsn string, opts Options) (*sqlx.DB, error) {
	opts = opts.withDefaults()
	cfg, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	applyOptions(&cfg, dsn, opts)
	connector, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", describe(cfg), withoutSecret(err, cfg.Password))
	}
	connector.Dialer(&dialer{})
	db := sql.OpenDB(guardConnector{Connector: connector, secret: cfg.Password})
	db.SetMaxOpenConns(opts.MaxOpen)
	db.SetMaxIdleConns(opts.MaxIdle)
	db.SetConnMaxLifetime(max(opts.MaxLifetime, 0))
	db.SetConnMaxIdleTime(max(opts.MaxIdleTime, 0))
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to %s: %w", describe(cfg), err), db.Close())
	}
	return sqlx.NewDb(db, "postgres"), nil
}

func applyOptions(cfg *pq.Config, dsn string, opts Options) {
	switch {
	case opts.ApplicationName != "":
		cfg.FallbackApplicationName = opts.ApplicationName
	case cfg.FallbackApplicationName == "":
		cfg.FallbackApplicationName = "rrm"
	}
	// pq fills in its own name where nobody gave one; then ours is better.
	if cfg.ApplicationName == "" || cfg.ApplicationName == "pqgo" {
		cfg.ApplicationName = cfg.FallbackApplicationName
	}
	if cfg.ConnectTimeout == 0 && !strings.Contains(dsn, "connect_timeout") && opts.ConnectTimeout > 0 {
		cfg.ConnectTimeout = (opts.ConnectTimeout + time.Second - 1).Truncate(time.Second)
	}
	if cfg.Runtime == nil {
		cfg.Runtime = map[string]string{}
	}
	// Our queries are short: where the planner misjudges a fresh table, compiling
	// the query first took 0.1 to 1 s, and never paid.
	if _, given := cfg.Runtime["jit"]; !given {
		cfg.Runtime["jit"] = "off"
	}
	for name, d := range map[string]time.Duration{
		"statement_timeout":                   opts.StatementTimeout,
		"lock_timeout":                        opts.LockTimeout,
		"idle_in_transaction_session_timeout": opts.IdleInTransactionTimeout,
	} {
		if _, given := cfg.Runtime[name]; !given && d > 0 {
			cfg.Runtime[name] = strconv.FormatInt(max(d.Milliseconds(), 1), 10)
		}
	}
}
