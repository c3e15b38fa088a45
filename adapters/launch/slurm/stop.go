package slurm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// How long each step of a stop is given. Two seconds are the renderer protocol's.
const (
	exitRequestTimeout = time.Second
	exitPatience       = 2 * time.Second
	lookOften          = 50 * time.Millisecond
	lookSeldom         = time.Second
)

// Stop ends the resource's Slurm job: by the renderer's own exit request if graceful, then by
// scancel (SIGTERM, the cluster's KillWait, SIGKILL). It returns when Slurm
// says that the job has ended and its processes are gone; stopping what has ended is no error.
// After an error, of the context too, the job may still run: stop it again.
func (l *Launcher) Stop(ctx context.Context, r domain.Launched, graceful bool) error {
	if err := checkID(r.Resource); err != nil {
		return err
	}
	if err := l.stop(ctx, r, graceful); err != nil {
		return fmt.Errorf("stop resource %s: %w", r.Resource, err)
	}
	return nil
}

func (l *Launcher) stop(ctx context.Context, r domain.Launched, graceful bool) error {
	name := l.jobName(r.Resource)
	left, err := l.left(ctx, name, readHandle(r.Handle))
	if err != nil || len(left) == 0 {
		return err
	}
	if graceful && left[0].running() && left[0].site.requestExit(ctx, target(&left[0])) {
		if left, err = l.awaitEnd(ctx, name, r, exitPatience); err != nil || len(left) == 0 {
			return err
		}
	}
	var failed error
	for _, j := range left {
		failed = errors.Join(failed, j.site.cancel(ctx, j))
	}
	if failed != nil {
		return failed
	}
	for {
		if left, err = l.awaitEnd(ctx, name, r, time.Minute); err != nil || len(left) == 0 {
			return err
		}
	}
}

// left are the resource's jobs that have not ended, at all sites; doubles too.
// Not being able to look where it may be is an error.
func (l *Launcher) left(ctx context.Context, name string, h handle) ([]job, error) {
	looks, errs := l.lookAll(ctx, time.Now())
	r := round{l: l, looks: looks, errs: errs}
	if why := r.cannotLook(h); why != "" {
		return nil, errors.New(why)
	}
	var left []job
	for i, seen := range looks {
		if errs[i] != nil {
			continue
		}
		for _, j := range seen.jobs[name] {
			if !j.ended() {
				left = append(left, j)
			}
		}
	}
	return left, nil
}

// awaitEnd looks until no job is left, at most for the given time, ever less often.
func (l *Launcher) awaitEnd(ctx context.Context, name string, r domain.Launched, patience time.Duration) ([]job, error) {
	deadline := time.Now().Add(patience)
	for pause := lookOften; ; pause = min(2*pause, lookSeldom) {
		left, err := l.left(ctx, name, readHandle(r.Handle))
		if err != nil || len(left) == 0 || time.Now().After(deadline) {
			return left, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// dial connects to a renderer: through the site's connection if nodes cannot be reached directly.
func (s *site) dial(ctx context.Context, address string) (net.Conn, error) {
	if s.Tunnel {
		return s.run.dial(ctx, address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// requestExit asks the renderer to exit and tells whether it will.
func (s *site) requestExit(ctx context.Context, address string) bool {
	if address == "" {
		return false
	}
	client := http.Client{
		Timeout: exitRequestTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx, address) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+address+"/v1/exit", http.NoBody)
	if err != nil {
		return false
	}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
	return res.StatusCode/100 == 2
}
