package unicore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// How long each step of a stop is given. Two seconds are the predecessor's and
// the renderer protocol's.
const (
	exitRequestTimeout = time.Second
	exitPatience       = 2 * time.Second
	abortPatience      = 20 * time.Second
	lookEvery          = 100 * time.Millisecond
	lookLatest         = time.Second
)

// Stop ends the resource: by the renderer's own exit request if graceful, then
// by aborting its job. It returns when the site says that the job has ended;
// what has ended already, or never was, is no error. After an error the job
// may still run: stop it again. The ended job keeps its output. A job whose token is not known
// any more cannot be ended; that is logged, with the job, and is no error: trying again would not help.
func (l *Launcher) Stop(ctx context.Context, r domain.Launched, graceful bool) error {
	t, err := l.target(ctx, r.Resource)
	if errors.Is(err, ErrNoToken) {
		h, _ := readHandle(r.Handle)
		l.log.Warn("a UNICORE job cannot be ended, because its token is not known any more; it runs until its time is over",
			"resource", r.Resource, "site", h.Site, "job", h.Job)
		l.unreach(r.Resource)
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop resource %s: %w", r.Resource, err)
	}
	running, err := l.running(ctx, t, r)
	if err != nil {
		return fmt.Errorf("stop resource %s: %w", r.Resource, err)
	}
	for _, v := range running {
		if err := l.end(ctx, t, v, graceful); err != nil {
			return fmt.Errorf("stop resource %s: %w", r.Resource, err)
		}
	}
	l.unreach(r.Resource)
	return nil
}

// running are the resource's jobs that have not ended: normally one or none.
func (l *Launcher) running(ctx context.Context, t target, r domain.Launched) ([]*view, error) {
	h, err := readHandle(r.Handle)
	if err != nil {
		return nil, err
	}
	if h.Site != "" && h.Site != t.base {
		return nil, fmt.Errorf("it was launched at the site %s; this is %s", h.Site, t.base)
	}
	all, err := l.jobsOf(ctx, t)
	if err != nil {
		return nil, err
	}
	if len(all) > 0 {
		return live(all), nil
	}
	if h.Job != "" { // a list may be late
		v, err := l.look(ctx, t.account, t.base, h.Job)
		if err == nil && v.resource == t.resource {
			return live([]*view{v}), nil
		}
		if err != nil && statusOf(err) != http.StatusNotFound {
			return nil, err
		}
	}
	// That there is none is believed only to one whom the site knows.
	as, err := l.hello(ctx, t.account)
	if err != nil {
		return nil, err
	}
	if h.As != "" && h.As != as {
		return nil, errors.New("its job was launched by another identity, whose jobs the present token does not show")
	}
	return nil, nil
}

// end goes from the friendly way to the sure one.
func (l *Launcher) end(ctx context.Context, t target, v *view, graceful bool) error {
	if graceful && v.place != nil && l.requestExit(ctx, t.resource, v.id) {
		if gone, err := l.waitEnded(ctx, t, v.id, exitPatience); gone || err != nil {
			return err
		}
	}
	err := l.action(ctx, t, v.id, "abort")
	if err != nil && statusOf(err) == http.StatusNotFound {
		return nil
	}
	gone, lookErr := l.waitEnded(ctx, t, v.id, abortPatience)
	switch {
	case gone:
		return nil
	case err != nil:
		return fmt.Errorf("abort job %s: %w", v.id, err)
	case lookErr != nil:
		return lookErr
	}
	return fmt.Errorf("job %s has not ended %s after it was aborted", v.id, abortPatience)
}

// waitEnded looks until the job has ended, at most for the given time.
func (l *Launcher) waitEnded(ctx context.Context, t target, id jobID, patience time.Duration) (bool, error) {
	deadline := time.Now().Add(patience)
	for pause := lookEvery; ; pause = min(2*pause, lookLatest) {
		v, err := l.look(ctx, t.account, t.base, id)
		switch {
		case statusOf(err) == http.StatusNotFound:
			return true, nil
		case err != nil:
			return false, err
		case v.ended():
			return true, nil
		case time.Now().After(deadline):
			return false, nil
		}
		if err := wait(ctx, pause); err != nil {
			return false, err
		}
	}
}

// exitClient speaks to tunnels on this machine only.
var exitClient = &http.Client{
	Timeout:       exitRequestTimeout,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// requestExit asks the renderer to exit and tells whether it will.
func (l *Launcher) requestExit(ctx context.Context, id domain.ResourceID, job jobID) bool {
	address, err := l.reach(id, job)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+address+"/v1/exit", http.NoBody)
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
