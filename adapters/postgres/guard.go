package postgres

import (
	"context"
	"database/sql/driver"
	"fmt"
)

// queryInProgress is the text of the error that lib/pq does not export.
const queryInProgress = "pq: there is already a query being processed on this connection"

// guardConnector makes connections whose calls return when their contexts end
// (see frozen.go), and mends a fault of lib/pq 1.12.0 to 1.12.3
// (https://github.com/lib/pq/issues/1298): when the server sends an error and
// the socket is cut before the server says that it is ready again, the
// connection stays "in progress", is never called bad, and every later query
// that the pool gives to it fails.
type guardConnector struct {
	driver.Connector
	secret string // never to be seen in an error
}

func (g guardConnector) Connect(ctx context.Context) (driver.Conn, error) {
	s := &socket{}
	defer s.bound(ctx)()
	c, err := g.Connector.Connect(context.WithValue(ctx, socketKey{}, s))
	if err != nil {
		return nil, withoutSecret(err, g.secret)
	}
	full, ok := c.(fullConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("guard connection: lib/pq's %T lacks a method that the guard passes on", c)
	}
	return &guardConn{fullConn: full, fresh: true, socket: s}, nil
}

// fullConn is everything that lib/pq's connection can do for database/sql.
// Were one left out, database/sql would quietly take a slower way.
type fullConn interface {
	driver.Conn
	driver.QueryerContext
	driver.ExecerContext
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.NamedValueChecker
}

// guardConn is used by one goroutine at a time, as database/sql promises.
type guardConn struct {
	fullConn
	socket *socket
	fresh  bool // nothing was asked of it since the pool gave it out, so nothing can be in progress
}

// ResetSession is called when the pool gives the connection out again.
func (c *guardConn) ResetSession(ctx context.Context) error {
	c.fresh = true
	return c.fullConn.ResetSession(ctx)
}

func (c *guardConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	defer c.socket.bound(ctx)()
	fresh := c.use()
	rows, err := c.fullConn.QueryContext(ctx, query, args)
	return rows, c.judge(err, fresh)
}

func (c *guardConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	defer c.socket.bound(ctx)()
	fresh := c.use()
	result, err := c.fullConn.ExecContext(ctx, query, args)
	return result, c.judge(err, fresh)
}

func (c *guardConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	defer c.socket.bound(ctx)()
	c.use()
	stmt, err := c.fullConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	full, ok := stmt.(fullStmt)
	if !ok {
		_ = stmt.Close()
		return nil, fmt.Errorf("guard statement: lib/pq's %T lacks a method that the guard passes on", stmt)
	}
	return boundStmt{fullStmt: full, socket: c.socket}, nil
}

func (c *guardConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	defer c.socket.bound(ctx)()
	c.use()
	return c.fullConn.BeginTx(ctx, opts)
}

// Ping bounds lib/pq's.
func (c *guardConn) Ping(ctx context.Context) error {
	defer c.socket.bound(ctx)()
	return c.fullConn.Ping(ctx)
}

func (c *guardConn) use() (fresh bool) {
	fresh, c.fresh = c.fresh, false
	return fresh
}

// judge turns the false "in progress" of a connection fresh from the pool into
// ErrBadConn: nothing was sent, so database/sql may repeat the query on another
// connection, and drops this one. Later in a transaction the same text can be true (rows still open
// while the next query is made: the caller's mistake) and is passed on as it is;
// a dead connection is then found by the ROLLBACK.
func (c *guardConn) judge(err error, fresh bool) error {
	if err == nil || !fresh || err.Error() != queryInProgress {
		return err
	}
	return driver.ErrBadConn
}
