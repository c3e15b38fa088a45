package unicore

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
)

const maxLogLines = 50 // of a job's own log at the site

// Info tells what the site says of a resource's job, for people: a line for each property, and the site's log of it.
func (l *Launcher) Info(ctx context.Context, r domain.Launched) (string, error) {
	h, err := readHandle(r.Handle)
	if err != nil {
		return "", err
	}
	if h.Job == "" {
		return "", domain.NotFound("job", string(r.Resource))
	}
	t, err := l.target(ctx, r.Resource)
	if err != nil {
		return "", fmt.Errorf("ask about resource %s: %w", r.Resource, err)
	}
	got, err := l.call(ctx, t.account, request{method: http.MethodGet, url: jobURL(t.base, h.Job)})
	if statusOf(err) == http.StatusNotFound {
		return "", domain.NotFound("job", string(r.Resource))
	}
	if err != nil {
		return "", fmt.Errorf("ask about resource %s: %w", r.Resource, err)
	}
	v, err := l.readJob(t.base, h.Job, got.body)
	if err != nil {
		return "", fmt.Errorf("ask about resource %s: %w", r.Resource, err)
	}
	if v.resource != r.Resource {
		return "", domain.NotFound("job", string(r.Resource))
	}
	var more struct {
		Log []string `json:"log"`
	}
	if err := decode(got.body, &more); err != nil {
		more.Log = nil // the log is an extra
	}
	var b strings.Builder
	for _, line := range [][2]string{
		{"Site", t.base}, {"Job", string(v.id)}, {"Status", oneLine(v.status)}, {"StatusMessage", v.message}, {"ExitCode", v.exit},
		{"Queue", v.queue}, {"BatchSystemID", v.batch}, {"SubmissionTime", oneLine(v.sent)},
	} {
		if line[1] != "" {
			fmt.Fprintf(&b, "%s=%s\n", line[0], line[1])
		}
	}
	for _, line := range more.Log[max(0, len(more.Log)-maxLogLines):] {
		fmt.Fprintf(&b, "%s\n", oneLine(line))
	}
	return t.account.scrub(b.String()), nil
}
