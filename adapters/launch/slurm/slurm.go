// Package slurm is the launcher that starts rendering resources as jobs of a
// Slurm cluster. One resource is one sbatch: the renderer is the Slurm job, and
// ends with it. It uses Slurm's commands (sbatch, squeue, scancel, scontrol), on
// this machine or over SSH, and works with every Slurm of the last years.
//
// A Slurm job is known by its name, which holds the service and the resource
// and is checked in every answer: the IDs of jobs are used again after a
// controller's crash. Not being able to look is never taken for gone.
//
// It may know the domain, SSH and the operating system. It decides nothing:
// what should run is wished for elsewhere.
package slurm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Launcher submits, finds, watches and cancels Slurm jobs. It is safe for use
// from many goroutines, and by several rrm processes over the same clusters.
type Launcher struct {
	opts  Options
	log   *slog.Logger
	sites []*site

	mu      sync.Mutex
	ended   map[string]domain.Observed // by name of the job: how it ended, which Slurm forgets
	ending  map[string]time.Time       // since when jobs are COMPLETING
	gone    map[string]bool            // names that no site knew
	settled map[string]time.Time       // when doubles were cancelled last
}

// New checks the options. It contacts no site yet. Close ends its connections.
func New(opts Options) (*Launcher, error) {
	if !serviceNames.MatchString(opts.Service) {
		return nil, fmt.Errorf("the service's identity is letters, digits, '-' and '_', not %q", opts.Service)
	}
	opts.Sites = append([]Site{}, opts.Sites...)
	if err := checkSites(opts.Sites); err != nil {
		return nil, err
	}
	if opts.Every <= 0 {
		opts.Every = defaultEvery
	}
	if opts.QueueEvery <= 0 {
		opts.QueueEvery = defaultQueueEvery
	}
	if opts.KeepEnded <= 0 {
		opts.KeepEnded = defaultKeepEnded
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	l := &Launcher{
		opts: opts, log: opts.Logger, ended: map[string]domain.Observed{}, ending: map[string]time.Time{},
		gone: map[string]bool{}, settled: map[string]time.Time{},
	}
	for _, conf := range opts.Sites {
		s := &site{Site: conf, prefix: l.jobName(""), tunnels: map[domain.ResourceID]*tunnel{}}
		if len(conf.Hosts) == 0 {
			s.run = newLocalRunner(conf.BinDir, conf.Timeout.Std())
		} else {
			r, err := newSSHRunner(conf, opts.Logger)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("slurm site %s: %w", conf.Name, err), l.Close())
			}
			s.run = r
		}
		l.sites = append(l.sites, s)
	}
	return l, nil
}

// Close ends connections and tunnels. The resources run on.
func (l *Launcher) Close() error {
	var failed error
	for _, s := range l.sites {
		s.mu.Lock()
		s.closed, s.last = true, nil
		s.mu.Unlock()
		s.closeTunnels(nil)
		failed = errors.Join(failed, s.run.close())
	}
	return failed
}

// jobName is the name of a resource's Slurm job. The service has no '.', so
// that no two services can make the same name.
func (l *Launcher) jobName(id domain.ResourceID) string {
	return "rrm." + l.opts.Service + "." + string(id)
}

func (l *Launcher) resource(jobName string) domain.ResourceID {
	return domain.ResourceID(strings.TrimPrefix(jobName, l.jobName("")))
}

var resourceIDs = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// checkID refuses resource IDs that are not safe as names of jobs and directories.
func checkID(id domain.ResourceID) error {
	if !resourceIDs.MatchString(string(id)) {
		return domain.Invalid("resource", "%q cannot be the identity of a Slurm resource", id)
	}
	return nil
}

// handle is how this launcher finds its job again.
type handle struct {
	Site string `json:"site"`
	Job  int    `json:"job"`
	Name string `json:"name"` // of the Slurm job
}

func readHandle(raw domain.Handle) (h handle) {
	_ = json.Unmarshal(raw, &h) // another launcher's handle, or none, is an empty one
	return h
}

// launched is a job as others see it.
func (l *Launcher) launched(j *job) domain.Launched {
	h, err := json.Marshal(handle{j.site.Name, j.id, j.name})
	if err != nil {
		panic(err) // numbers and text only
	}
	return domain.Launched{Resource: l.resource(j.name), Handle: h, Node: j.node}
}

// target is the renderer's address on its node; empty while it is not known.
func target(j *job) string {
	if j.port == 0 || j.node == "" {
		return ""
	}
	return net.JoinHostPort(j.site.nodeHost(j.node), strconv.Itoa(j.port))
}

// Launch submits the resource's Slurm job to the first site that takes it, or
// finds the job that was submitted before, ended or not, as long as Slurm
// remembers it: a resource's identity is never used again. It returns when the
// job is in the queue; the address is known later and told by Observe. What no site will
// ever take (an unknown partition, too much memory, a bad placeholder) is a
// *domain.Refusal; other errors may pass by themselves. After any error the job may
// still come to be: List will show it.
func (l *Launcher) Launch(ctx context.Context, spec domain.LaunchSpec) (domain.Launched, error) {
	if err := checkID(spec.Resource); err != nil {
		return domain.Launched{}, err
	}
	for _, s := range l.sites { // refusals come before anything is asked
		if _, err := l.submission(spec, &s.Site); err != nil {
			return domain.Launched{}, err
		}
	}
	name := l.jobName(spec.Resource)
	seen, errs := l.lookAll(ctx, time.Now())
	if j, ok := earliest(seen, name); ok {
		return l.launched(&j), nil
	}
	var refused []string
	for i, s := range l.sites {
		if errs[i] != nil {
			continue // it cannot be reached: the next may be
		}
		launched, err := l.submit(ctx, s, spec)
		if err == nil {
			return launched, nil
		}
		refusal, ok := domain.AsRefusal(err)
		if !ok {
			return domain.Launched{}, err // it may have been taken after all: no other site may have it too
		}
		refused = append(refused, s.Name+": "+refusal.Reason)
	}
	if len(refused) == 0 {
		return domain.Launched{}, fmt.Errorf("launch %s: no site can be reached: %w", spec.Resource, errors.Join(errs...))
	}
	err := launchFailed("%s", strings.Join(refused, "; "))
	if failed := errors.Join(errs...); failed != nil {
		return domain.Launched{}, fmt.Errorf("%w; %w", failed, err)
	}
	return domain.Launched{}, err
}

func launchFailed(format string, args ...any) *domain.Refusal {
	return &domain.Refusal{Kind: domain.KindInvalid, Code: "launch_failed", Reason: fmt.Sprintf(format, args...)}
}

// lookAll looks at all sites at once.
func (l *Launcher) lookAll(ctx context.Context, notBefore time.Time) ([]*look, []error) {
	looks, errs := make([]*look, len(l.sites)), make([]error, len(l.sites))
	var wg sync.WaitGroup
	for i, s := range l.sites {
		wg.Go(func() { looks[i], errs[i] = s.at(ctx, notBefore) })
	}
	wg.Wait()
	return looks, errs
}

// earliest is the job of a name that was submitted first, at the first site that has one.
func earliest(looks []*look, name string) (job, bool) {
	for _, seen := range looks {
		if seen != nil && len(seen.jobs[name]) > 0 {
			return seen.jobs[name][0], true
		}
	}
	return job{}, false
}

// busy are sbatch's complaints that may pass; any other refuses the job.
var busy = regexp.MustCompile(`(?i)unable to contact|timed out|connection|communication|zero bytes|transport|temporarily|try again|submit limit|MaxSubmit|too many|authentication|protocol|control machine|socket`)

// submit gives the job to one site. A refusal means that the site does not have it.
func (l *Launcher) submit(ctx context.Context, s *site, spec domain.LaunchSpec) (domain.Launched, error) {
	sub, err := l.submission(spec, &s.Site)
	if err != nil {
		return domain.Launched{}, err
	}
	if err := l.makeDir(ctx, s, spec.Resource); err != nil {
		return domain.Launched{}, err
	}
	r, err := s.slurm(ctx, []byte(sub.script), nil, "sbatch", sub.args...)
	if err != nil {
		// Nobody knows whether Slurm has it now; whoever launches again looks first.
		return domain.Launched{}, fmt.Errorf("submit %s: %w", spec.Resource, err)
	}
	if r.status != 0 {
		why := complaint(r)
		if busy.MatchString(string(r.stderr)) {
			return domain.Launched{}, fmt.Errorf("submit %s to site %s: %s", spec.Resource, s.Name, why)
		}
		return domain.Launched{}, launchFailed("sbatch: %s", why)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(r.stdout)), ";") // "12;cluster"
	id, err := strconv.Atoi(text)
	if err != nil {
		return domain.Launched{}, fmt.Errorf("submit %s: sbatch says %q instead of a job ID", spec.Resource, text)
	}
	l.prune(ctx, s)
	return l.settleLaunch(ctx, job{site: s, id: id, name: sub.name}), nil
}

// settleLaunch finds out whether someone else submitted the same resource at
// the same instant. The first job counts, for everyone; the others are
// cancelled, and never ran, because each is a singleton.
func (l *Launcher) settleLaunch(ctx context.Context, own job) domain.Launched {
	seen, err := own.site.at(ctx, time.Now())
	if err != nil {
		return l.launched(&own) // Observe settles it later
	}
	first, ok := earliest([]*look{seen}, own.name)
	if !ok || first.id == own.id {
		return l.launched(&own)
	}
	l.log.Info("a resource was submitted twice at the same instant; the second Slurm job is cancelled",
		"resource", l.resource(own.name), "site", own.site.Name, "kept", first.id, "cancelled", own.id)
	if err := own.site.cancel(ctx, own); err != nil {
		l.log.Warn("a second Slurm job could not be cancelled; it will be tried again", "slurm_job", own.id, "error", err)
	}
	return l.launched(&first)
}
