package slurm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

const (
	// completingPatience is how long a job that is COMPLETING is waited for, so
	// that its end is known exactly. On a dead node it would complete for ever.
	completingPatience = 3 * time.Second
	// remembered bounds what is kept about jobs that have ended.
	remembered = 4096
	// settleEvery bounds how often doubles of one resource are cancelled.
	settleEvery = 10 * time.Second
)

// round is one Observe at work.
type round struct {
	l     *Launcher
	now   time.Time
	looks []*look
	errs  []error
	out   []domain.Observed
	ended []endedJob
}

// endedJob is one of the round's resources whose exit status is wanted.
type endedJob struct {
	index int // in the round's resources
	job   job
}

// Observe looks at the given resources, in their order, with one squeue for
// each site, whatever their number, and none if the last is younger than Options.Every. What
// could not be looked at is LaunchUnknown; the error is that of the context only. A job
// that would wait for ever is cancelled and told as gone. The address of a
// resource may change, if it is that of a tunnel and rrm was started again.
func (l *Launcher) Observe(ctx context.Context, resources []domain.Launched) ([]domain.Observed, error) {
	r := round{l: l, now: time.Now(), out: make([]domain.Observed, len(resources))}
	r.recent(ctx, r.now.Add(-l.opts.Every))
	if r.misses(resources) { // it may have been submitted since: only a new look can tell that it is gone
		r.recent(ctx, r.now)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("observe Slurm resources: %w", err)
	}
	for i := range resources {
		r.out[i] = r.observe(ctx, i, resources[i])
	}
	r.finish(ctx)
	for i, s := range l.sites {
		if seen := r.looks[i]; seen != nil {
			s.closeTunnels(func(id domain.ResourceID) bool { return slices.ContainsFunc(seen.jobs[l.jobName(id)], live) })
		}
	}
	l.forget()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("observe Slurm resources: %w", err)
	}
	return r.out, nil
}

func live(j job) bool { return !j.ended() }

func (r *round) recent(ctx context.Context, notBefore time.Time) {
	r.looks, r.errs = make([]*look, len(r.l.sites)), make([]error, len(r.l.sites))
	var wg sync.WaitGroup
	for i, s := range r.l.sites {
		wg.Go(func() {
			if r.looks[i], r.errs[i] = s.recent(ctx, notBefore); r.errs[i] != nil {
				r.looks[i] = nil
			}
		})
	}
	wg.Wait()
}

// misses says whether a resource is in no look, and was not so before.
func (r *round) misses(resources []domain.Launched) bool {
	for i := range resources {
		name := r.l.jobName(resources[i].Resource)
		if _, found := earliest(r.looks, name); !found && !r.l.known(name) {
			return true
		}
	}
	return false
}

// known says whether the end of a job is known, or that there is none.
func (l *Launcher) known(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ended := l.ended[name]
	return ended || l.gone[name]
}

// choose finds the resource's job: the one that its handle names, if that
// still is its name, else the first of its name. The others are doubles.
func (r *round) choose(name string, h handle) (chosen job, found bool, doubles []job) {
	for _, seen := range r.looks {
		if seen == nil {
			continue
		}
		for _, j := range seen.jobs[name] {
			named := j.site.Name == h.Site && j.id == h.Job
			switch {
			case !found:
				chosen, found = j, true
			case named:
				doubles = append(doubles, chosen)
				chosen = j
			default:
				doubles = append(doubles, j)
			}
		}
	}
	return chosen, found, slices.DeleteFunc(doubles, func(j job) bool { return j.ended() })
}

func (r *round) observe(ctx context.Context, i int, res domain.Launched) domain.Observed {
	l := r.l
	name, h := l.jobName(res.Resource), readHandle(res.Handle)
	unknown := domain.Observed{Launched: res, State: domain.LaunchUnknown}
	if err := checkID(res.Resource); err != nil {
		unknown.Reason = err.Error()
		return unknown
	}
	l.mu.Lock()
	before, ended := l.ended[name]
	l.mu.Unlock()
	if ended {
		return before
	}
	if unknown.Reason = r.cannotLook(h); unknown.Reason != "" {
		return unknown
	}
	j, found, doubles := r.choose(name, h)
	if !found {
		l.mu.Lock()
		l.gone[name] = true
		l.mu.Unlock()
		return domain.Observed{Launched: res, State: domain.LaunchGone, Reason: "Slurm knows no job named " + name}
	}
	l.settle(ctx, name, doubles)
	return r.judge(ctx, i, res, j)
}

// cannotLook says why a resource with this handle could not be looked at, if so.
func (r *round) cannotLook(h handle) string {
	known := false
	for i, s := range r.l.sites {
		if s.Name == h.Site {
			known = true
		}
		if r.errs[i] != nil && (h.Site == "" || s.Name == h.Site) {
			return r.errs[i].Error()
		}
	}
	if h.Site != "" && !known {
		return fmt.Sprintf("the site %q is not in the settings any more", h.Site)
	}
	return ""
}

// judge says how a resource is from its job.
func (r *round) judge(ctx context.Context, i int, res domain.Launched, j job) domain.Observed {
	l := r.l
	o := domain.Observed{Launched: l.launched(&j)}
	switch {
	case j.ended() || j.state == stateCompleting && l.completedLongEnough(&j, r.now):
		r.ended = append(r.ended, endedJob{i, j})
		o.State = domain.LaunchGone
	case j.running():
		o.State, o.Started, o.Ends = domain.LaunchRunning, j.start, j.end
		o.Address = j.site.address(&j, res)
		switch {
		case j.state != "RUNNING":
			o.Reason = strings.ToLower(j.state)
		case o.Address == "":
			o.Reason = "the Slurm job runs and has not told its port yet"
		}
	default:
		o.State = domain.LaunchPending
		if why, is := isHopeless(j.reason); is {
			return l.giveUp(ctx, o, &j, why)
		}
		o.Reason = r.waiting(ctx, &j)
		if j.start.After(r.now) {
			o.Expects = j.start
		}
	}
	return o
}

func (r *round) waiting(ctx context.Context, j *job) string {
	if j.state == stateConfiguring {
		return "the node " + nodeName(j) + " is being made ready"
	}
	if j.state != "PENDING" {
		return strings.ToLower(j.state)
	}
	j.site.refreshQueue(ctx, r.l.opts.QueueEvery)
	ahead, counted := j.site.ahead(j)
	return pendingReason(j, ahead, counted, r.now)
}

// giveUp cancels a job that would wait for ever.
func (l *Launcher) giveUp(ctx context.Context, o domain.Observed, j *job, why string) domain.Observed {
	o.State, o.Reason = domain.LaunchGone, fmt.Sprintf("it would wait for ever: %s (%s)", why, j.reason)
	if err := j.site.cancel(ctx, *j); err != nil {
		l.log.Warn("a Slurm job that would wait for ever could not be cancelled; it will be tried again", "slurm_job", j.id, "error", err)
		return o // not remembered, so the next round cancels again
	}
	l.mu.Lock()
	l.ended[j.name] = o
	l.mu.Unlock()
	return o
}

// settle cancels jobs that someone submitted beside the one that counts.
func (l *Launcher) settle(ctx context.Context, name string, doubles []job) {
	if len(doubles) == 0 {
		return
	}
	l.mu.Lock()
	due := time.Since(l.settled[name]) > settleEvery
	if due {
		l.settled[name] = time.Now()
	}
	l.mu.Unlock()
	if !due {
		return
	}
	for _, j := range doubles {
		l.log.Warn("a resource has a second Slurm job; it is cancelled", "resource", l.resource(name), "site", j.site.Name, "slurm_job", j.id)
		if err := j.site.cancel(ctx, j); err != nil {
			l.log.Warn("a second Slurm job could not be cancelled; it will be tried again", "slurm_job", j.id, "error", err)
		}
	}
}

func (l *Launcher) completedLongEnough(j *job, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	since, seen := l.ending[j.name]
	if !seen {
		l.ending[j.name] = now
		return false
	}
	return now.Sub(since) > completingPatience
}

// finish asks for the exit statuses of what has ended, with one command for each site.
func (r *round) finish(ctx context.Context) {
	for _, s := range r.l.sites {
		var jobs []job
		for _, e := range r.ended {
			if e.job.site == s {
				jobs = append(jobs, e.job)
			}
		}
		if len(jobs) == 0 {
			continue
		}
		statuses, err := s.exitStatuses(ctx, jobs)
		for _, e := range r.ended {
			if e.job.site == s {
				r.end(e, statuses, err)
			}
		}
	}
}

func (r *round) end(e endedJob, statuses map[int]int, err error) {
	o := &r.out[e.index]
	if err != nil { // how it ended is worth another round
		o.State, o.Reason = domain.LaunchUnknown, err.Error()
		return
	}
	status, known := statuses[e.job.id]
	if !known {
		status = -1
	}
	o.Reason = endReason(&e.job, status, r.l.dir(&e.job.site.Site, o.Resource))
	if !e.job.start.IsZero() && e.job.node != "" {
		o.Started = e.job.start
	}
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	delete(r.l.ending, e.job.name)
	r.l.ended[e.job.name] = *o
}

// forget bounds what is remembered; what is forgotten is looked up again.
func (l *Launcher) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	bound(l.ended)
	bound(l.ending)
	bound(l.gone)
	bound(l.settled)
}

func bound[V any](m map[string]V) {
	for k := range m {
		if len(m) <= remembered {
			return
		}
		delete(m, k)
	}
}

// List names every resource of this service that has a Slurm job which has not
// ended, at all sites that can be looked at, in the order of their identities.
// With a site that cannot be looked at it fails, unless another can: a list
// is for finding orphans, which the others may have.
func (l *Launcher) List(ctx context.Context) ([]domain.Launched, error) {
	looks, errs := l.lookAll(ctx, time.Now())
	out := []domain.Launched{}
	failures := 0
	for i, seen := range looks {
		if errs[i] != nil {
			failures++
			l.log.Debug("a site could not be listed", "site", l.sites[i].Name, "error", errs[i])
			if failures == len(looks) {
				return nil, fmt.Errorf("list Slurm resources: %w", errs[i])
			}
			continue
		}
		for name, jobs := range seen.jobs {
			first := slices.IndexFunc(jobs, live)
			if first < 0 || checkID(l.resource(name)) != nil {
				continue
			}
			launched := l.launched(&jobs[first])
			if !jobs[first].site.Tunnel {
				launched.Address = target(&jobs[first])
			}
			out = append(out, launched)
		}
	}
	slices.SortFunc(out, func(a, b domain.Launched) int { return strings.Compare(string(a.Resource), string(b.Resource)) })
	return slices.CompactFunc(out, func(a, b domain.Launched) bool { return a.Resource == b.Resource }), nil
}
