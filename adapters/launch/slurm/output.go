package slurm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The streams that Output reads.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

const (
	maxTail    = 16 << 20 // bytes that Output gives at most
	pruneEvery = time.Hour
	pruneAge   = time.Hour // since a directory was last changed: longer than any launch takes
)

// base is where one service's resources write on a site. It is a directory of
// our own below the site's, because old ones are removed from it.
func (l *Launcher) base(s *Site) string { return s.Directory + "/rrm." + l.opts.Service }

func (l *Launcher) dir(s *Site, id domain.ResourceID) string { return l.base(s) + "/" + string(id) }

// makeDir makes the resource's directory; Slurm would not, and the job would fail.
func (l *Launcher) makeDir(ctx context.Context, s *site, id domain.ResourceID) error {
	r, err := s.run.run(ctx, command{name: "mkdir", args: []string{"-p", "-m", "700", "--", l.dir(&s.Site, id)}})
	if err != nil {
		return fmt.Errorf("site %s: make directory: %w", s.Name, err)
	}
	if r.status != 0 {
		return fmt.Errorf("site %s: make directory: %s", s.Name, complaint(r))
	}
	return nil
}

// Output reads at most the last limit bytes, and never more than 16 MiB, of
// what a resource wrote to stdout or stderr, also when it has ended. Nothing
// written yet is no error. It reads where Slurm's commands are.
func (l *Launcher) Output(ctx context.Context, r domain.Launched, stream string, limit int64) ([]byte, error) {
	if err := checkID(r.Resource); err != nil {
		return nil, err
	}
	if stream != Stdout && stream != Stderr {
		return nil, domain.Invalid("stream", "a resource has the streams %s and %s, not %q", Stdout, Stderr, stream)
	}
	if limit < 0 {
		return nil, domain.Invalid("limit", "the limit is a number of bytes, not %d", limit)
	}
	if limit == 0 {
		return nil, nil
	}
	s, err := l.siteOf(readHandle(r.Handle))
	if err != nil {
		return nil, fmt.Errorf("read %s of resource %s: %w", stream, r.Resource, err)
	}
	path := l.dir(&s.Site, r.Resource) + "/" + stream
	res, err := s.run.run(ctx, command{name: "tail", args: []string{"-c", strconv.FormatInt(min(limit, maxTail), 10), "--", path}, env: []string{"LC_ALL=C"}})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s of resource %s: %w", stream, r.Resource, err)
	case res.status != 0 && strings.Contains(string(res.stderr), "No such file"):
		return nil, nil
	case res.status != 0:
		return nil, fmt.Errorf("read %s of resource %s: %s", stream, r.Resource, complaint(res))
	}
	return res.stdout, nil
}

// siteOf is where a handle's job is; without a handle the first site.
func (l *Launcher) siteOf(h handle) (*site, error) {
	if h.Site == "" {
		return l.sites[0], nil
	}
	i := slices.IndexFunc(l.sites, func(s *site) bool { return s.Name == h.Site })
	if i < 0 {
		return nil, fmt.Errorf("the site %q is not in the settings any more", h.Site)
	}
	return l.sites[i], nil
}

// Info is what `scontrol show job` says of the resource's job, for people. A
// job that Slurm does not know any more is a refusal of the kind not_found.
func (l *Launcher) Info(ctx context.Context, r domain.Launched) (string, error) {
	if err := checkID(r.Resource); err != nil {
		return "", err
	}
	looks, errs := l.lookAll(ctx, time.Now())
	known := round{l: l, looks: looks, errs: errs}
	h := readHandle(r.Handle)
	if why := known.cannotLook(h); why != "" {
		return "", fmt.Errorf("ask about resource %s: %s", r.Resource, why)
	}
	name := l.jobName(r.Resource)
	j, found, _ := known.choose(name, h)
	if !found {
		return "", domain.NotFound("slurm_job", name)
	}
	res, err := j.site.slurm(ctx, nil, nil, "scontrol", "show", "job", strconv.Itoa(j.id))
	switch {
	case err != nil:
		return "", fmt.Errorf("ask about resource %s: %w", r.Resource, err)
	case res.status != 0:
		return "", fmt.Errorf("ask about resource %s: %s", r.Resource, complaint(res))
	case !strings.Contains(string(res.stdout), "JobName="+name+"\n"):
		return "", domain.NotFound("slurm_job", name) // the ID is another job's by now
	}
	return string(res.stdout), nil
}

// prune removes the oldest directories of resources without a job, now and
// then, and beyond the number that is kept.
func (l *Launcher) prune(ctx context.Context, s *site) {
	s.mu.Lock()
	due := time.Since(s.pruned) > pruneEvery
	if due {
		s.pruned = time.Now()
	}
	s.mu.Unlock()
	if !due {
		return
	}
	if err := l.pruneNow(ctx, s); err != nil {
		l.log.Warn("old directories of resources not removed", "site", s.Name, "error", err)
	}
}

// pruneNow looks for directories first and for jobs then, and leaves alone what
// is young: a directory is made before its job is there, perhaps by another rrm.
func (l *Launcher) pruneNow(ctx context.Context, s *site) error {
	r, err := s.run.run(ctx, command{name: "find", args: []string{l.base(&s.Site), "-mindepth", "1", "-maxdepth", "1", "-type", "d",
		"-mmin", "+" + strconv.Itoa(int(pruneAge.Minutes())), "-printf", "%T@ %f\n"}})
	if err != nil {
		return fmt.Errorf("list directories: %w", err)
	}
	if r.status != 0 {
		return errors.New("list directories: " + complaint(r))
	}
	seen, err := s.at(ctx, time.Now())
	if err != nil {
		return err
	}
	const most = 1000 // paths on one command line
	args := []string{"-rf", "--"}
	kept := 0
	for _, id := range youngestFirst(string(r.stdout)) {
		if checkID(id) != nil || slices.ContainsFunc(seen.jobs[l.jobName(id)], live) {
			continue
		}
		if kept++; kept > l.opts.KeepEnded && len(args) < most {
			args = append(args, l.dir(&s.Site, id))
		}
	}
	if len(args) == 2 {
		return nil
	}
	if r, err = s.run.run(ctx, command{name: "rm", args: args}); err != nil {
		return fmt.Errorf("remove directories: %w", err)
	}
	if r.status != 0 {
		return errors.New("remove directories: " + complaint(r))
	}
	return nil
}

// youngestFirst reads lines of a time in seconds and a name.
func youngestFirst(lines string) []domain.ResourceID {
	type dir struct {
		changed float64
		id      domain.ResourceID
	}
	var dirs []dir
	for line := range strings.Lines(lines) {
		at, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if changed, err := strconv.ParseFloat(at, 64); err == nil {
			dirs = append(dirs, dir{changed, domain.ResourceID(name)})
		}
	}
	slices.SortFunc(dirs, func(a, b dir) int { return cmp.Compare(b.changed, a.changed) })
	ids := make([]domain.ResourceID, len(dirs))
	for i := range dirs {
		ids[i] = dirs[i].id
	}
	return ids
}
