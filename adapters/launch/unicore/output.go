package unicore

import (
	"context"
	"fmt"
	"net/http"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The streams of a resource's output, which are files of these names in its job's directory.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

const (
	maxOutput = 16 << 20  // bytes that are given at once
	maxWhole  = 256 << 20 // bytes that are read of a server that knows no ranges
)

// Output returns the last bytes (last: at least 0; at most 16 MiB are given) that
// the resource wrote to Stdout or Stderr. Only they are asked for. After the
// resource has ended its output stays until Options.KeepEnded others have ended.
func (l *Launcher) Output(ctx context.Context, r domain.Launched, stream string, last int64) ([]byte, error) {
	if stream != Stdout && stream != Stderr {
		return nil, domain.Invalid("stream", "a resource writes to %s and %s, not to %q", Stdout, Stderr, stream)
	}
	if last < 0 {
		return nil, domain.Invalid("tail", "the number of bytes must not be negative")
	}
	if last == 0 {
		return nil, nil
	}
	t, err := l.target(ctx, r.Resource)
	if err != nil {
		return nil, fmt.Errorf("read %s of resource %s: %w", stream, r.Resource, err)
	}
	dir, err := l.directory(ctx, t, r)
	if err != nil {
		return nil, fmt.Errorf("read %s of resource %s: %w", stream, r.Resource, err)
	}
	if dir == "" {
		return nil, domain.NotFound("output", string(r.Resource))
	}
	n := min(last, maxOutput)
	got, err := l.call(ctx, t.account, request{
		method: http.MethodGet, url: fileURL(t.base, dir, stream), accept: "application/octet-stream", tail: n, limit: maxWhole,
	})
	switch statusOf(err) {
	case http.StatusNotFound:
		return nil, domain.NotFound("output", string(r.Resource))
	case http.StatusRequestedRangeNotSatisfiable: // it is empty
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of resource %s: %w", stream, r.Resource, err)
	}
	return got.body[max(0, int64(len(got.body))-n):], nil
}

// directory finds the storage of the resource's job; empty if there is no job.
func (l *Launcher) directory(ctx context.Context, t target, r domain.Launched) (string, error) {
	h, err := readHandle(r.Handle)
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	v := l.best(r.Resource, h.Job)
	l.mu.Unlock()
	if v != nil && v.dir != "" && !v.absent {
		return v.dir, nil
	}
	if h.Job != "" {
		v, err := l.look(ctx, t.account, t.base, h.Job)
		if err == nil && v.resource == t.resource {
			return v.dir, nil
		}
		if err != nil && statusOf(err) != http.StatusNotFound {
			return "", err
		}
	}
	all, err := l.jobsOf(ctx, t)
	if err != nil || len(all) == 0 {
		return "", err
	}
	return all[len(all)-1].dir, nil
}
