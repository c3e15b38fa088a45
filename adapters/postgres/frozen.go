package postgres

import (
	"context"
	"database/sql/driver"
	"net"
	"sync"
	"time"

	"github.com/lib/pq"
)

// lib/pq asks the server to cancel what a context has ended, and then waits for
// its answer, as long as it takes. A server that is frozen, or a machine that is
// gone, never answers: the caller hangs, and so does everyone who is given one of
// the pool's other connections. So the socket of such a connection is cut.

// cutAfter is how long a server may take to answer that it has cancelled.
const cutAfter = time.Second

// socket is where the dialer leaves the connection that it made for one Connect.
type socket struct {
	mu   sync.Mutex
	conn net.Conn
}

type socketKey struct{}

// cut lets all reading and writing fail, now and later.
func (s *socket) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		_ = s.conn.SetDeadline(time.Unix(1, 0)) // fails when it is closed already, which is as good
	}
}

// bound cuts the socket when ctx has ended and, a moment later, the call has not
// returned. The caller calls the function that it gives when it has.
func (s *socket) bound(ctx context.Context) (returned func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		grace := time.NewTimer(cutAfter)
		defer grace.Stop()
		select {
		case <-done:
		case <-grace.C:
			s.cut()
		}
	})
	return func() {
		stop()
		close(done)
	}
}

// dialer tells Connect which socket it made. lib/pq also dials to send a
// cancellation, with a context of its own: there is nobody to tell.
type dialer struct{ net.Dialer }

func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.Dialer.DialContext(ctx, network, address)
	if s, ok := ctx.Value(socketKey{}).(*socket); ok && err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.conn = c
	}
	return c, err
}

// DialTimeout is what pq.Dialer asks for; with a DialContext there it is not called.
func (d *dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.Dialer.DialContext(ctx, network, address)
}

var _ pq.DialerContext = (*dialer)(nil)

// boundStmt bounds a prepared statement as guardConn bounds a query.
type boundStmt struct {
	fullStmt
	socket *socket
}

// fullStmt is everything that lib/pq's statement can do for database/sql.
type fullStmt interface {
	driver.Stmt
	driver.StmtQueryContext
	driver.StmtExecContext
}

func (s boundStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	defer s.socket.bound(ctx)()
	return s.fullStmt.QueryContext(ctx, args)
}

func (s boundStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	defer s.socket.bound(ctx)()
	return s.fullStmt.ExecContext(ctx, args)
}
