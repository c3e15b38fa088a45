package renderer

import (
	"io"
	"sync/atomic"
	"time"
)

// activity tells of bytes that flow, at most once in activityEvery.
type activity struct {
	tell func()
	last atomic.Int64 // when it told last, in ns since origin
}

var origin = time.Now() // monotonic, so a changed clock neither stops nor floods

func (a *activity) start() {
	if a.tell == nil {
		return
	}
	a.last.Store(int64(time.Since(origin)))
	a.tell()
}

func (a *activity) bytes(n int) {
	if a.tell == nil || n <= 0 {
		return
	}
	now := int64(time.Since(origin))
	last := a.last.Load()
	// Both directions of a WebSocket come here: only one of them tells.
	if now-last >= int64(activityEvery) && a.last.CompareAndSwap(last, now) {
		a.tell()
	}
}

// watch wraps the body of a response; after 101 it is the connection itself,
// which ReverseProxy writes to as well.
func (a *activity) watch(body io.ReadCloser) io.ReadCloser {
	if conn, ok := body.(io.ReadWriteCloser); ok {
		return &countedConn{conn, a}
	}
	return &countedBody{body, a}
}

type countedBody struct {
	io.ReadCloser
	activity *activity
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.activity.bytes(n)
	return n, err
}

type countedConn struct {
	io.ReadWriteCloser
	activity *activity
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.activity.bytes(n)
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(p)
	c.activity.bytes(n)
	return n, err
}

// CloseWrite passes on that the client has finished sending.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
