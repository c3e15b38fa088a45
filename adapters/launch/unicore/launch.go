package unicore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

const (
	fileTries    = 8 // a job's directory may not be ready at once
	fileFirst    = 50 * time.Millisecond
	settleEvery  = 50 * time.Millisecond
	settleRounds = 5
	retryAfter   = 30 * time.Second
)

// handle is how a launcher finds its job again. It holds no secret.
type handle struct {
	Site string `json:"site"`
	Job  jobID  `json:"job"`
	As   string `json:"as"` // pseudonym of the identity that launched it
}

func readHandle(raw domain.Handle) (h handle, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return h, nil
	}
	if err := json.Unmarshal(raw, &h); err != nil || h.Job != "" && !plainIDs.MatchString(string(h.Job)) {
		return handle{}, errors.New("its handle is not one of the unicore launcher")
	}
	return h, nil
}

// target is one resource, ready to be acted on.
type target struct {
	resource domain.ResourceID
	base     string
	account  *account
	as       string
}

// target finds the site and makes sure that it knows the token.
func (l *Launcher) target(ctx context.Context, id domain.ResourceID) (target, error) {
	if err := checkID(id); err != nil {
		return target{}, err
	}
	a, err := l.accountFor(ctx, id)
	if err != nil {
		return target{}, err
	}
	base, err := l.site(ctx, a)
	if err != nil {
		return target{}, err
	}
	as, err := l.known(ctx, a)
	return target{id, base, a, as}, err
}

func (l *Launcher) launched(t target, job jobID) (domain.Launched, error) {
	h, err := json.Marshal(handle{t.base, job, t.as})
	if err != nil {
		return domain.Launched{}, fmt.Errorf("write the handle: %w", err)
	}
	address, err := l.reach(t.resource, job)
	return domain.Launched{Resource: t.resource, Handle: h, Address: address}, err
}

// Launch submits the resource's job and starts it, or finds one that waits or
// runs already and says so. It does not wait for the batch system. The address is
// that of a tunnel, which leads nowhere until the renderer runs. What cannot be a
// job is a *domain.Refusal of kind invalid; a site that takes no jobs now, of kind unavailable.
func (l *Launcher) Launch(ctx context.Context, spec domain.LaunchSpec) (domain.Launched, error) {
	if err := checkID(spec.Resource); err != nil {
		return domain.Launched{}, err
	}
	data, err := l.launchData(spec)
	if err != nil {
		return domain.Launched{}, err
	}
	description, err := l.describe(spec)
	if err != nil {
		return domain.Launched{}, err
	}
	release, err := l.claim(ctx, spec.Resource)
	if err != nil {
		return domain.Launched{}, fmt.Errorf("launch resource %s: %w", spec.Resource, err)
	}
	defer release()
	t, err := l.target(ctx, spec.Resource)
	if err != nil {
		return domain.Launched{}, fmt.Errorf("launch resource %s: %w", spec.Resource, err)
	}
	job, err := l.oneJob(ctx, t, description, data)
	if statusOf(err) == http.StatusServiceUnavailable {
		return domain.Launched{}, domain.Unavailable("launch_failed", retryAfter, "the UNICORE site takes no jobs at present: %v", err)
	}
	if err != nil {
		return domain.Launched{}, fmt.Errorf("launch resource %s: %w", spec.Resource, err)
	}
	return l.launched(t, job)
}

// claim waits for another launch of the same resource by this launcher.
func (l *Launcher) claim(ctx context.Context, id domain.ResourceID) (release func(), err error) {
	for {
		l.mu.Lock()
		other, taken := l.busy[id]
		if !taken {
			mine := make(chan struct{})
			l.busy[id] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.busy, id)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-other:
		}
	}
}

// jobsOf looks at all jobs of a resource, the oldest first.
func (l *Launcher) jobsOf(ctx context.Context, t target) ([]*view, error) {
	ids, err := l.list(ctx, t.account, t.base, l.name(t.resource))
	if err != nil {
		return nil, err
	}
	var found []*view
	for id := range ids {
		v, err := l.look(ctx, t.account, t.base, id)
		if statusOf(err) == http.StatusNotFound {
			continue // removed in between
		}
		if err != nil {
			return nil, err
		}
		if v.resource == t.resource { // tags are anyone's; names are ours
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b *view) int { return strings.Compare(a.sent+string(a.id), b.sent+string(b.id)) })
	return found, nil
}

func live(all []*view) []*view {
	return slices.DeleteFunc(all, (*view).ended)
}

// oneJob makes sure that the resource has one started job, and only one.
func (l *Launcher) oneJob(ctx context.Context, t target, description, data []byte) (jobID, error) {
	all, err := l.jobsOf(ctx, t)
	if err != nil {
		return "", err
	}
	mine := jobID("")
	if len(live(all)) == 0 {
		if _, err := l.hello(ctx, t.account); err != nil { // to strangers a site shows no jobs
			return "", err
		}
		id, err := l.submit(ctx, t.account, t.base, description)
		if err != nil && (statusOf(err) != 0 || errors.Is(err, errAnswer)) {
			return "", fmt.Errorf("submit the job: %w", err)
		}
		if err != nil {
			// Nobody knows whether there is a job now: submitting again might make two.
			if all, lookErr := l.jobsOf(ctx, t); lookErr != nil || len(live(all)) == 0 {
				return "", fmt.Errorf("submit the job: %w", err)
			}
		}
		mine = id
	}
	return l.settle(ctx, t, mine, data)
}

// settle agrees with other launchers of the same resource on one of its jobs,
// and starts it. UNICORE does not keep two jobs from having the same name, but
// a new job waits for its start: so the first that was started wins, else the one with the
// smallest identity; who made another deletes it. A job that waits beside another
// may be about to be started by its maker, and is given time for that.
func (l *Launcher) settle(ctx context.Context, t target, mine jobID, data []byte) (jobID, error) {
	deadline := time.Now().Add(l.opts.Settle)
	for begun := 0; begun < settleRounds; {
		all, err := l.jobsOf(ctx, t)
		if err != nil {
			return "", err
		}
		all = live(all)
		if len(all) == 0 {
			return "", errors.New("the job was removed before it could be started")
		}
		winner := choose(all)
		if mine != "" && mine != winner.id {
			l.discard(ctx, t, mine)
			mine = ""
			continue
		}
		if !winner.waiting() {
			return winner.id, nil
		}
		if (mine == "" || len(all) > 1) && time.Now().Before(deadline) {
			if err := wait(ctx, settleEvery); err != nil {
				return "", err
			}
			continue
		}
		begun++
		err = l.begin(ctx, t, winner, data)
		if statusOf(err) == http.StatusNotFound {
			continue // somebody else won, and has removed it
		}
		if err != nil {
			return "", err
		}
		for _, other := range all {
			if other.id != winner.id && other.waiting() { // left by one that was killed
				l.discard(ctx, t, other.id)
			}
		}
		return winner.id, nil
	}
	return "", errors.New("its jobs are removed again and again before they can be started")
}

func choose(all []*view) *view {
	for _, v := range all {
		if !v.waiting() {
			return v
		}
	}
	return slices.MinFunc(all, func(a, b *view) int { return strings.Compare(string(a.id), string(b.id)) })
}

func (l *Launcher) discard(ctx context.Context, t target, id jobID) {
	if err := l.remove(ctx, t.account, t.base, id); err != nil {
		l.log.Warn("a second UNICORE job of a resource was not removed; it has not been started", "resource", t.resource, "job", id, "error", err)
	}
}

// remove deletes a job and its directory. That it is gone is no error.
func (l *Launcher) remove(ctx context.Context, a *account, base string, id jobID) error {
	_, err := l.call(ctx, a, request{method: http.MethodDelete, url: jobURL(base, id)})
	if err != nil && statusOf(err) != http.StatusNotFound {
		return fmt.Errorf("remove job %s: %w", id, err)
	}
	l.mu.Lock()
	delete(l.views, id)
	l.mu.Unlock()
	return nil
}

// begin brings a job its files and starts it. Doing so twice does no harm.
func (l *Launcher) begin(ctx context.Context, t target, v *view, data []byte) error {
	if v.dir == "" {
		return fmt.Errorf("start the job: %w: it names no working directory", errAnswer)
	}
	for name, content := range map[string][]byte{scriptFile: startScript, launchFile: data} {
		if err := l.putFile(ctx, t, v.dir, name, content); err != nil {
			return fmt.Errorf("bring the job its file %s: %w", name, err)
		}
	}
	err := l.action(ctx, t, v.id, "start")
	if err == nil || statusOf(err) == http.StatusNotFound {
		return err
	}
	// It may have been started all the same, by us or by another.
	if now, lookErr := l.look(ctx, t.account, t.base, v.id); lookErr == nil && !now.waiting() {
		return nil
	}
	return fmt.Errorf("start the job: %w", err)
}

func (l *Launcher) putFile(ctx context.Context, t target, dir, name string, content []byte) error {
	pause := fileFirst
	for try := 1; ; try++ {
		_, err := l.call(ctx, t.account, request{
			method: http.MethodPut, url: fileURL(t.base, dir, name), body: content, kind: "application/octet-stream",
		})
		status := statusOf(err)
		notYet := status == http.StatusNotFound || status == http.StatusInternalServerError || status == http.StatusConflict
		if err == nil || !notYet || try == fileTries {
			return err
		}
		if wait(ctx, pause) != nil {
			return err
		}
		pause = min(2*pause, time.Second)
	}
}

// action starts or aborts a job. The site answers 204, or 200.
func (l *Launcher) action(ctx context.Context, t target, id jobID, name string) error {
	_, err := l.call(ctx, t.account, request{
		method: http.MethodPost, url: jobURL(t.base, id) + "/actions/" + name, body: []byte("{}"),
	})
	return err
}
