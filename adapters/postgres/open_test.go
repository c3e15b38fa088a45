package postgres_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
)

const secret = "s3cr/t@w#rd"

func TestRedact(t *testing.T) {
	for dsn, want := range map[string]string{
		"postgres://ann:hush@db.example:6543/things?sslmode=disable":      "host=db.example:6543 user=ann dbname=things sslmode=disable",
		"host=/run/pg user=ann password='hu sh' dbname=a sslmode=disable": "host=/run/pg user=ann dbname=a sslmode=disable",
		"postgres://ann:s3cr/t@w#rd@db/x":                                 "(unreadable database address)",
		"password=":                                                       "",
	} {
		got := postgres.Redact(dsn)
		if want != "" && got != want {
			t.Errorf("%q for %q, want %q", got, dsn, want)
		}
		if strings.Contains(got, "hush") || strings.Contains(got, "hu sh") || strings.Contains(got, "s3cr") {
			t.Errorf("the password is in %q", got)
		}
	}
}

func TestErrorsOfOpenDoNotHoldThePassword(t *testing.T) {
	for _, dsn := range []string{
		"postgres://ann:" + secret + "@127.0.0.1:1/x",
		"postgres://ann:s3cr%2Ft@127.0.0.1:1/s3cr%2Ft?sslmode=disable",
		"host=127.0.0.1 port=1 user=ann sslmode=disable password='" + secret + "'",
		"host=127.0.0.1 port=1 user=ann sslmode=" + secret,
		"host=127.0.0.1 port=none user=ann password='" + secret,
		"ann:" + secret,
		"host='" + secret + "' user=ann password='" + secret + "' sslmode=disable",
		"",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := postgres.Open(ctx, dsn, postgres.Options{})
		cancel()
		if err == nil || strings.Contains(err.Error(), "s3cr") {
			t.Errorf("error for %q: %v", dsn, err)
		}
	}
}

// One server for all that follows.
func TestConnections(t *testing.T) {
	s := start(t, quick(t, t.TempDir()))
	t.Run("settings", func(t *testing.T) { testSettings(t, s.DSN()) })
	t.Run("settings of the DSN go first", func(t *testing.T) { testOwnSettings(t, s.DSN()) })
	t.Run("cut connection", func(t *testing.T) { testCutConnection(t, s.DSN(), filepath.Join(socketOf(s.DSN()), ".s.PGSQL.5432")) })
	t.Run("frozen server", func(t *testing.T) { testFrozen(t, s.DSN(), filepath.Join(socketOf(s.DSN()), ".s.PGSQL.5432")) })
	t.Run("true mistake", func(t *testing.T) { testOpenRows(t, s.DSN()) })
}

func socketOf(dsn string) string { return strings.Split(dsn, "'")[1] }

func testSettings(t *testing.T, dsn string) {
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{StatementTimeout: 1500 * time.Millisecond, LockTimeout: -1, MaxOpen: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if n := db.Stats().MaxOpenConnections; n != 3 {
		t.Errorf("%d connections at most", n)
	}
	for name, want := range map[string]string{
		"application_name": "rrm", "statement_timeout": "1500ms", "lock_timeout": "0", "idle_in_transaction_session_timeout": "30s",
	} {
		var got string
		if err := db.Get(&got, `SELECT current_setting($1)`, name); err != nil || got != want {
			t.Errorf("%s is %q, want %q (error %v)", name, got, want, err)
		}
	}
}

func testOwnSettings(t *testing.T, dsn string) {
	db, err := postgres.Open(t.Context(), dsn+" application_name=mine statement_timeout=7s", postgres.Options{ApplicationName: "other"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for name, want := range map[string]string{"application_name": "mine", "statement_timeout": "7s"} {
		var got string
		if err := db.Get(&got, `SELECT current_setting($1)`, name); err != nil || got != want {
			t.Errorf("%s is %q, want %q (error %v)", name, got, want, err)
		}
	}
}

// The server says that a query failed, and the network breaks before it says
// that it is ready for the next. With lib/pq alone every later query of the pool fails.
func testCutConnection(t *testing.T, dsn, socket string) {
	p := newCutter(t, socket)
	db, err := postgres.Open(t.Context(), dsn+" host=127.0.0.1 port="+p.port(), postgres.Options{MaxOpen: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for query, args := range map[string][]any{ // failing at once, when parsed, when bound, when run
		`SELECT 1/0`:                       nil,
		`SELECT no_such_function($1::int)`: {1},
		`SELECT $1::int`:                   {"x"},
		`SELECT 1/(1-$1::int)`:             {1},
	} {
		p.armed.Store(true)
		if _, err := db.Exec(query, args...); err == nil {
			t.Fatalf("no error of %s", query)
		}
		if p.armed.Load() {
			t.Fatal("the proxy did not cut")
		}
		var n int
		if err := db.Get(&n, `SELECT 41+$1::int`, 1); err != nil || n != 42 {
			t.Errorf("the query after %s: %d, error %v", query, n, err)
		}
		p.armed.Store(true)
		var ignored int
		if err := db.Get(&ignored, query, args...); err == nil {
			t.Fatalf("no error of %s", query)
		}
		if _, err := db.Exec(`SELECT 1`); err != nil {
			t.Errorf("the command after %s: %v", query, err)
		}
	}
}

// A query while the rows of another are open is the caller's mistake, and is said as such.
func testOpenRows(t *testing.T, dsn string) {
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{MaxOpen: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	rows, err := tx.Query(`SELECT generate_series(1, 10000)`) //nolint:rowserrcheck // nothing is read from it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`SELECT 1`); err == nil || !strings.Contains(err.Error(), "already a query") {
		t.Errorf("error %v", err)
	}
	if err := rows.Close(); err != nil { //nolint:sqlclosecheck // what comes after it is the test
		t.Error(err)
	}
	if _, err := tx.Exec(`SELECT 1`); err != nil {
		t.Errorf("the connection was thrown away: %v", err)
	}
}

// A server that neither answers nor closes: whoever asks goes on soon after
// their context ended, with a connection of the pool and with a new one, and
// none of them is left for others to hang on.
func testFrozen(t *testing.T, dsn, socket string) {
	p := newCutter(t, socket)
	db, err := postgres.Open(t.Context(), dsn+" host=127.0.0.1 port="+p.port(), postgres.Options{MaxOpen: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var idle []*sql.Conn
	for range 2 {
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	for _, c := range idle {
		_ = c.Close()
	}
	p.frozen.Store(true)
	for name, ask := range map[string]func(context.Context) error{
		"query": func(ctx context.Context) error { var n int; return db.GetContext(ctx, &n, `SELECT 41 + $1::int`, 1) },
		"exec":  func(ctx context.Context) error { _, err := db.ExecContext(ctx, `SELECT 1`); return err },
		"begin": func(ctx context.Context) error { _, err := db.BeginTx(ctx, nil); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		began := time.Now()
		err := ask(ctx)
		cancel()
		if took := time.Since(began); err == nil || took > 5*time.Second {
			t.Errorf("%s of a frozen server took %v, error %v", name, took, err)
		}
	}
	p.frozen.Store(false)
	for range 4 {
		if _, err := db.ExecContext(t.Context(), `SELECT 1`); err != nil {
			t.Errorf("when it answers again: %v", err)
		}
	}
}

// cutter passes everything between a client and the server. When armed it cuts the
// connection after the next ErrorResponse.
type cutter struct {
	listener net.Listener
	armed    atomic.Bool
	frozen   atomic.Bool // new answers are kept for good
	ended    chan struct{}
}

func newCutter(t *testing.T, socket string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, ended: make(chan struct{})}
	t.Cleanup(func() { close(c.ended); _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", socket)
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
			go c.toClient(client, server)
		}
	}()
	return c
}

func (c *cutter) port() string {
	_, port, _ := net.SplitHostPort(c.listener.Addr().String())
	return port
}

// toClient passes on message by message: a letter, four bytes of length, content.
func (c *cutter) toClient(client, server net.Conn) {
	defer func() { _, _ = client.Close(), server.Close() }()
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		if c.frozen.Load() {
			<-c.ended
			return
		}
		if _, err := client.Write(head); err != nil {
			return
		}
		if _, err := io.CopyN(client, server, int64(binary.BigEndian.Uint32(head[1:]))-4); err != nil {
			return
		}
		if head[0] == 'E' && c.armed.CompareAndSwap(true, false) {
			return
		}
	}
}
