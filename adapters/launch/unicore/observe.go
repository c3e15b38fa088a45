package unicore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

const (
	looksAtOnce = 8
	roundLimit  = time.Minute
	prunedAtOne = 5 // ended jobs that are removed in one round
)

// round is one refresh of what is known with one account.
type round struct{ done chan struct{} }

// Observe looks at the given resources, in their order, from what the site said lately: it is
// asked in the background, for one list of all jobs every Options.Every and for each job
// as often as its state deserves, because UNICORE's lists give no states. It
// waits at most Options.ObserveWait. What cannot be looked at is LaunchUnknown,
// with the reason; the error is that of the context only.
func (l *Launcher) Observe(ctx context.Context, resources []domain.Launched) ([]domain.Observed, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("observe UNICORE resources: %w", err)
	}
	accounts := make([]*account, len(resources))
	failed := make([]error, len(resources))
	wanted := map[*account]map[jobID]bool{}
	for i, r := range resources {
		if accounts[i], failed[i] = l.accountFor(ctx, r.Resource); failed[i] != nil {
			continue
		}
		a := accounts[i]
		if wanted[a] == nil {
			wanted[a] = map[jobID]bool{}
		}
		if h, err := readHandle(r.Handle); err == nil && h.Job != "" {
			wanted[a][h.Job] = true
		}
	}
	patience := time.NewTimer(l.opts.ObserveWait)
	defer patience.Stop()
	var rounds []<-chan struct{}
	for a, jobs := range wanted {
		rounds = append(rounds, l.beginRound(a, jobs))
	}
	for _, done := range rounds {
		select {
		case <-done:
		case <-patience.C:
			patience.Reset(0) // the others are not waited for either
		case <-ctx.Done():
			return nil, fmt.Errorf("observe UNICORE resources: %w", ctx.Err())
		}
	}
	out := make([]domain.Observed, len(resources))
	for i, r := range resources {
		err := failed[i]
		if err == nil {
			out[i], err = l.assemble(r, accounts[i])
		}
		if err != nil {
			out[i] = domain.Observed{Launched: r, State: domain.LaunchUnknown, Reason: err.Error()}
		}
	}
	return out, nil
}

// beginRound refreshes what is due, unless a refresh is under way, and returns
// what is closed at its end.
func (l *Launcher) beginRound(a *account, wanted map[jobID]bool) <-chan struct{} {
	due := l.due(a, wanted)
	r := &round{make(chan struct{})}
	a.mu.Lock()
	if a.round != nil {
		defer a.mu.Unlock()
		return a.round.done
	}
	if due {
		a.round = r
	}
	a.mu.Unlock()
	if !due {
		close(r.done)
		return r.done
	}
	end := func(err error) {
		a.mu.Lock()
		a.round, a.err = nil, err
		if err != nil {
			a.errAt = time.Now()
		}
		a.mu.Unlock()
		close(r.done)
	}
	if !l.background(roundLimit, func(ctx context.Context) { end(l.refresh(ctx, a, wanted)) }) {
		end(errors.New("the launcher is closed"))
	}
	return r.done
}

func (l *Launcher) due(a *account, wanted map[jobID]bool) bool {
	now := time.Now()
	a.mu.Lock()
	err, errAt, listed, known := a.err, a.errAt, a.listed, a.jobs
	a.mu.Unlock()
	if err != nil && now.Sub(errAt) < l.opts.Every {
		return false
	}
	if err != nil || now.Sub(listed) >= l.opts.Every {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, jobs := range []map[jobID]bool{wanted, known} {
		for id := range jobs {
			if l.jobDue(a, l.views[id], now) {
				return true
			}
		}
	}
	return false
}

func (l *Launcher) jobDue(a *account, v *view, now time.Time) bool {
	switch {
	case v == nil, v.by != a && (v.absent || v.err != nil): // another token shows other jobs
		return true
	case v.ended() && v.status != statusStagingOut && v.err == nil:
		return v.by != a && now.Sub(v.looked) > forgetAfter // the token that saw it may be of use no more
	case v.status == statusRunning && v.place != nil && v.err == nil:
		return now.Sub(v.looked) >= l.opts.RunningEvery
	}
	return now.Sub(v.looked) >= l.opts.Every
}

// refresh asks the site for the list, and for each job that is due.
func (l *Launcher) refresh(ctx context.Context, a *account, wanted map[jobID]bool) error {
	base, err := l.site(ctx, a)
	if err != nil {
		return err
	}
	if _, err := l.known(ctx, a); err != nil {
		return err
	}
	a.mu.Lock()
	jobs, listed := a.jobs, a.listed
	a.mu.Unlock()
	asked := time.Now()
	if asked.Sub(listed) >= l.opts.Every {
		if jobs, err = l.list(ctx, a, base, l.tag()); err != nil {
			return err
		}
		if len(jobs) == 0 { // to strangers, too, a site shows none
			if _, err := l.hello(ctx, a); err != nil {
				return err
			}
		}
		listed = asked
	}
	all := maps.Clone(wanted)
	if all == nil {
		all = map[jobID]bool{}
	}
	maps.Copy(all, jobs)
	complete, err := l.lookAtAll(ctx, a, base, all)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.jobs, a.listed, a.complete = jobs, listed, complete
	a.mu.Unlock()
	l.prune(ctx, a, base, jobs, wanted)
	return nil
}

// lookAtAll looks at those that are due, some at once. An error is one that
// concerns all of them; what concerns one job is in its view.
func (l *Launcher) lookAtAll(ctx context.Context, a *account, base string, all map[jobID]bool) (complete bool, err error) {
	now := time.Now()
	l.mu.Lock()
	var due []jobID
	for id := range all {
		if l.jobDue(a, l.views[id], now) {
			due = append(due, id)
		}
	}
	l.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo := make(chan jobID)
	var workers sync.WaitGroup
	var mu sync.Mutex
	complete = true
	for range min(looksAtOnce, len(due)) {
		workers.Go(func() {
			for id := range todo {
				ok, err := l.lookAt(ctx, a, base, id)
				if err != nil {
					cancel(err)
				}
				mu.Lock()
				complete = complete && ok
				mu.Unlock()
			}
		})
	}
	for _, id := range due {
		select {
		case todo <- id:
		case <-ctx.Done():
		}
	}
	close(todo)
	workers.Wait()
	return complete, context.Cause(ctx)
}

// lookAt remembers what it sees, also that there is no such job.
func (l *Launcher) lookAt(ctx context.Context, a *account, base string, id jobID) (ok bool, err error) {
	_, err = l.look(ctx, a, base, id)
	if err == nil {
		return true, nil
	}
	l.mu.Lock()
	v := view{id: id}
	if old := l.views[id]; old != nil {
		v = *old
	}
	l.mu.Unlock()
	v.by, v.looked, v.err = a, time.Now(), err
	switch status := statusOf(err); {
	case status == http.StatusNotFound:
		if _, err := l.hello(ctx, a); err != nil {
			return false, err // who is a stranger now is told the same of all jobs
		}
		v.absent, v.err = true, nil
	case status == http.StatusForbidden, errors.Is(err, errAnswer):
	default:
		return false, err
	}
	l.remember(&v)
	return v.err == nil, nil
}

// assemble says how a resource is, from what is known.
func (l *Launcher) assemble(r domain.Launched, a *account) (domain.Observed, error) {
	if err := checkID(r.Resource); err != nil {
		return domain.Observed{}, err
	}
	h, err := readHandle(r.Handle)
	if err != nil {
		return domain.Observed{}, err
	}
	a.mu.Lock()
	failed, identity, listed, complete := a.err, a.identity, a.listed, a.complete
	a.mu.Unlock()
	l.mu.Lock()
	base := l.base
	v := l.best(r.Resource, h.Job)
	l.mu.Unlock()
	if h.Site != "" && base != "" && h.Site != base {
		return domain.Observed{}, fmt.Errorf("it was launched at the site %s; this is %s", h.Site, base)
	}
	if v != nil && v.ended() && !v.absent {
		l.unreach(r.Resource)
		_, reason := v.state()
		return domain.Observed{Launched: r, State: domain.LaunchGone, Reason: reason, Started: v.started()}, nil
	}
	slow := fmt.Errorf("the site has not answered within %s", l.opts.ObserveWait)
	elsewhere := v != nil && v.by != a && (v.absent || v.err != nil)
	switch {
	case failed != nil:
		return domain.Observed{}, failed
	case v == nil && !complete, v == nil && time.Since(listed) > l.opts.StaleAfter, v == nil && h.Job != "", elsewhere:
		return domain.Observed{}, slow
	case v != nil && v.err != nil:
		return domain.Observed{}, v.err
	case v == nil || v.absent:
		if h.As != "" && h.As != identity {
			return domain.Observed{}, errors.New("its job was launched by another identity, whose jobs the present token does not show")
		}
		l.unreach(r.Resource)
		return domain.Observed{Launched: r, State: domain.LaunchGone, Reason: "the site has no job of it (any more)"}, nil
	case time.Since(v.looked) > l.opts.StaleAfter+l.opts.RunningEvery:
		return domain.Observed{}, slow
	}
	return l.present(r, target{r.Resource, base, a, identity}, v)
}

// present is a resource whose job waits or runs.
func (l *Launcher) present(r domain.Launched, t target, v *view) (domain.Observed, error) {
	now, err := l.launched(t, v.id)
	if err != nil {
		return domain.Observed{}, err
	}
	if h, err := readHandle(r.Handle); err == nil && h.Job == v.id {
		now.Handle = r.Handle
	}
	o := domain.Observed{Launched: now, Started: v.started()}
	o.State, o.Reason = v.state()
	if v.place != nil {
		o.Node, o.Ends = v.place.node, v.place.ends
	}
	if o.State == domain.LaunchRunning {
		o.Reason = l.trouble(r.Resource)
	}
	return o, nil
}

func (v *view) started() time.Time {
	if v.place == nil {
		return time.Time{}
	}
	return v.place.started
}

// best is the job to speak of: that of the handle, unless the site has another
// that lives (or the handle's is no more). The caller holds l.mu.
func (l *Launcher) best(id domain.ResourceID, of jobID) *view {
	best := l.views[of]
	if best != nil && best.resource != "" && best.resource != id {
		best = nil // a handle that does not belong to this resource
	}
	if best != nil && !best.absent {
		return best
	}
	for _, v := range l.views {
		if v.resource != id || v.absent {
			continue
		}
		if best == nil || best.absent || best.ended() && !v.ended() || best.ended() == v.ended() && best.sent < v.sent {
			best = v
		}
	}
	return best
}

// prune removes the ended jobs that were submitted longest ago, with their
// outputs, and forgets what nobody speaks of any more.
func (l *Launcher) prune(ctx context.Context, a *account, base string, jobs, wanted map[jobID]bool) {
	var ended []*view
	l.mu.Lock()
	for id, v := range l.views {
		switch {
		case v.by != a || wanted[id]:
		case !jobs[id] && v.ended():
			delete(l.views, id)
		case jobs[id] && v.resource != "" && v.ended() && v.status != statusStagingOut && v.err == nil:
			ended = append(ended, v)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(ended, func(a, b *view) int { return strings.Compare(a.sent+string(a.id), b.sent+string(b.id)) })
	for _, v := range ended[:min(prunedAtOne, max(0, len(ended)-l.opts.KeepEnded))] {
		if err := l.remove(ctx, a, base, v.id); err != nil {
			l.log.Warn("an ended UNICORE job was not removed", "resource", v.resource, "job", v.id, "error", err)
			return
		}
	}
}
