package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// How long each step of a stop is given. Two seconds are the predecessor's and
// the renderer protocol's.
const (
	exitRequestTimeout = time.Second
	exitPatience       = 2 * time.Second
	termPatience       = 2 * time.Second
	killPatience       = 5 * time.Second
	lookEvery          = 10 * time.Millisecond
)

// Stop ends the resource and all that it started: the renderer's own exit
// request if graceful, then SIGTERM, then SIGKILL, two seconds apart. It returns
// when the process is gone; stopping what is gone already is no error. After
// an error, of the context too, the process may still run: stop it again.
func (l *Launcher) Stop(ctx context.Context, r domain.Launched, graceful bool) error {
	if err := checkID(r.Resource); err != nil {
		return err
	}
	rec, running, err := l.stopTarget(ctx, r)
	if err != nil {
		return fmt.Errorf("stop resource %s: %w", r.Resource, err)
	}
	if running {
		if err := l.end(ctx, rec, graceful); err != nil {
			return fmt.Errorf("stop resource %s: %w", r.Resource, err)
		}
	}
	l.mu.Lock()
	c, own := l.children[r.Resource]
	l.mu.Unlock()
	if own && await(ctx, c.done) == nil {
		return nil // watch has recorded its end and swept
	}
	if rec.Phase != phaseRunning {
		return nil
	}
	if err := l.finish(ctx, rec, "stopped; its exit status is not known", false); err != nil {
		return fmt.Errorf("stop resource %s: %w", r.Resource, err)
	}
	return nil
}

// stopTarget finds what is to be stopped, waiting for a launch under way, and
// ends what else there may be of a resource that does not run: leftovers, a
// start that was only begun.
func (l *Launcher) stopTarget(ctx context.Context, r domain.Launched) (rec record, running bool, err error) {
	unlock, err := l.lock(ctx, r.Resource)
	if err != nil {
		return record{}, false, err
	}
	defer unlock()
	f, err := l.find(r.Resource)
	if err != nil || f.alive {
		return f.record, f.alive, err
	}
	if !f.known {
		return l.stopUnrecorded(r)
	}
	if err := l.sweep(r.Resource); err != nil {
		return record{}, false, err
	}
	if f.record.Phase == phaseStarting {
		f.record.Phase, f.record.Ended, f.record.Reason = phaseEnded, time.Now().UTC(), "stopped before it started"
		return f.record, false, l.write(f.record)
	}
	return f.record, false, nil
}

// stopUnrecorded is for resources whose directory was lost: only the handle
// may still know the process.
func (l *Launcher) stopUnrecorded(r domain.Launched) (rec record, running bool, err error) {
	h, ok := readHandle(r.Handle)
	if ok && l.handleAlive(r.Handle) {
		rec = record{
			Resource: r.Resource, Service: l.opts.Service, Phase: phaseRunning,
			PID: h.PID, StartTime: h.StartTime, Boot: h.Boot, Port: h.Port,
		}
		return rec, true, l.write(rec)
	}
	defer func() { _ = os.RemoveAll(l.dir(r.Resource)) }() // made by the lock just now
	if ok && h.Node != "" && h.Node != l.node {
		return record{}, false, fmt.Errorf("it was launched on %s; this is %s", h.Node, l.node)
	}
	return record{}, false, l.sweep(r.Resource)
}

// end goes from the friendliest way to the surest.
func (l *Launcher) end(ctx context.Context, rec record, graceful bool) error {
	p := process{rec.PID, rec.StartTime}
	if graceful && l.requestExit(ctx, rec.Port) {
		if gone, err := waitGone(ctx, p, exitPatience); gone || err != nil {
			return err
		}
	}
	if err := p.signalGroup(syscall.SIGTERM); err != nil {
		return err
	}
	if gone, err := waitGone(ctx, p, termPatience); gone || err != nil {
		return err
	}
	if err := p.signalGroup(syscall.SIGKILL); err != nil {
		return err
	}
	gone, err := waitGone(ctx, p, killPatience)
	if err == nil && !gone {
		err = fmt.Errorf("process %d is still there %s after SIGKILL", rec.PID, killPatience)
	}
	return err
}

// exitClient speaks to renderers on this machine only.
var exitClient = &http.Client{
	Timeout:       exitRequestTimeout,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// requestExit asks the renderer to exit and tells whether it will.
func (l *Launcher) requestExit(ctx context.Context, port int) bool {
	url := "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + "/v1/exit"
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, http.NoBody)
	if err != nil {
		return false
	}
	res, err := exitClient.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
	return res.StatusCode/100 == 2
}

// waitGone looks until the process is gone, at most for the given time.
func waitGone(ctx context.Context, p process, patience time.Duration) (bool, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for {
		alive, err := p.alive()
		if err != nil || !alive {
			return err == nil, err
		}
		if time.Now().After(deadline) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-tick.C:
		}
	}
}

// sweep kills every process that bears the resource's marks, children in
// groups of their own too. The caller holds the lock and knows that the
// launched process itself is gone.
func (l *Launcher) sweep(id domain.ResourceID) error {
	const rounds = 20 // one that forks while it is killed needs another look
	var failed error
	for range rounds {
		all, err := scan(l.opts.Service)
		if err != nil {
			return err
		}
		left := 0
		failed = nil
		for _, m := range all {
			if m.resource != id {
				continue
			}
			left++
			failed = errors.Join(failed, m.kill())
			if gone, err := waitGone(context.Background(), m.process, time.Second); !gone || err != nil {
				failed = errors.Join(failed, fmt.Errorf("process %d, left by resource %s, does not end", m.pid, id))
			}
		}
		if left == 0 {
			return nil
		}
		l.log.Info("killed what a resource left behind", "resource", id, "processes", left)
		if failed != nil {
			return failed
		}
	}
	return fmt.Errorf("resource %s goes on making processes faster than they can be killed", id)
}
