package slurm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// site is one cluster at work.
type site struct {
	Site
	run    runner
	prefix string // of our jobs' names

	mu       sync.Mutex
	closed   bool
	user     string
	last     *look // the last that ended well
	failed   *look // the last, if it failed
	underWay *look
	queue    queue
	tunnels  map[domain.ResourceID]*tunnel
	pruned   time.Time
}

// look is one squeue: all our jobs at one instant.
type look struct {
	begun time.Time
	done  chan struct{}
	jobs  map[string][]job // by name, the earliest first
	err   error
}

// lookPatience is how long Observe waits for an answer before it says that
// there is none yet. With the controller down a command blocks for 9 to 18 s, and whoever
// observes has other launchers to look after.
const lookPatience = 3 * time.Second

// at gives our jobs as they were at or after an instant. Callers that want the same
// share one squeue: two hundred launches do not need two hundred.
func (s *site) at(ctx context.Context, notBefore time.Time) (*look, error) {
	for {
		l := s.begin(ctx, notBefore)
		select {
		case <-l.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !l.begun.Before(notBefore) {
			return l, l.err
		}
	}
}

// begin returns a look that is recent enough, or the one under way, or a new one.
func (s *site) begin(ctx context.Context, notBefore time.Time) *look {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && !s.last.begun.Before(notBefore) {
		return s.last
	}
	if s.underWay != nil {
		return s.underWay
	}
	l := &look{begun: time.Now(), done: make(chan struct{})}
	s.underWay = l
	go s.carryOut(context.WithoutCancel(ctx), l) // others may wait for it too; the runner bounds it
	return l
}

func (s *site) carryOut(ctx context.Context, l *look) {
	l.jobs, l.err = s.squeue(ctx)
	s.mu.Lock()
	s.underWay = nil
	if s.failed = l; l.err == nil {
		s.last, s.failed = l, nil
	}
	s.mu.Unlock()
	close(l.done)
}

// recent is for Observe: jobs that are at most maxAge old, without waiting for a
// site that did not answer the last time, and not for long in any case.
func (s *site) recent(ctx context.Context, notBefore time.Time) (*look, error) {
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	if failed != nil && !failed.begun.Before(notBefore) {
		return nil, failed.err
	}
	l := s.begin(ctx, notBefore)
	if failed != nil {
		select {
		case <-l.done:
		default:
			return nil, failed.err
		}
	}
	patience := time.NewTimer(time.Until(l.begun.Add(lookPatience)))
	defer patience.Stop()
	select {
	case <-l.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-patience.C:
		return nil, fmt.Errorf("site %s has not answered for %s", s.Name, lookPatience)
	}
	if l.err == nil && l.begun.Before(notBefore) {
		return s.recent(ctx, notBefore) // it was begun before we asked; the next is ours
	}
	return l, l.err
}

// slurm runs one of Slurm's commands.
func (s *site) slurm(ctx context.Context, stdin []byte, env []string, name string, args ...string) (result, error) {
	if s.SlurmConf != "" {
		env = append(slices.Clone(env), "SLURM_CONF="+s.SlurmConf)
	}
	r, err := s.run.run(ctx, command{name: name, args: args, env: env, stdin: stdin})
	if err != nil {
		return r, fmt.Errorf("site %s: %w", s.Name, err)
	}
	return r, nil
}

// squeue asks for all our jobs, ended ones too as long as Slurm remembers them.
func (s *site) squeue(ctx context.Context) (map[string][]job, error) {
	user, err := s.userName(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.slurm(ctx, nil, timeEnv, "squeue", "--all", "--noheader", "--states=all", "--user="+user, "--format="+squeueFormat)
	if err != nil {
		return nil, err
	}
	if r.status != 0 {
		return nil, fmt.Errorf("site %s: squeue: %s", s.Name, complaint(r))
	}
	jobs := parseJobs(s, r.stdout, s.prefix)
	for _, same := range jobs {
		slices.SortFunc(same, func(a, b job) int { return a.id - b.id })
	}
	return jobs, nil
}

var userNames = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?$`)

// userName is who our jobs belong to; it is asked for once.
func (s *site) userName(ctx context.Context) (string, error) {
	s.mu.Lock()
	user := s.user
	s.mu.Unlock()
	if user != "" {
		return user, nil
	}
	r, err := s.run.run(ctx, command{name: "id", args: []string{"-un"}})
	if err != nil {
		return "", fmt.Errorf("site %s: %w", s.Name, err)
	}
	user = strings.TrimSpace(string(r.stdout))
	if r.status != 0 || !userNames.MatchString(user) {
		return "", fmt.Errorf("site %s: id -un says %q: %s", s.Name, user, complaint(r))
	}
	s.mu.Lock()
	s.user = user
	s.mu.Unlock()
	return user, nil
}

// cancel asks Slurm to end jobs. That one has ended already is no error.
func (s *site) cancel(ctx context.Context, jobs ...job) error {
	args := make([]string, 0, len(jobs))
	for i := range jobs {
		args = append(args, strconv.Itoa(jobs[i].id))
	}
	if len(args) == 0 {
		return nil
	}
	r, err := s.slurm(ctx, nil, nil, "scancel", args...)
	if err != nil {
		return err
	}
	if r.status != 0 && !strings.Contains(string(r.stderr), "already completing or completed") && !strings.Contains(string(r.stderr), "Invalid job id") {
		return fmt.Errorf("site %s: scancel: %s", s.Name, complaint(r))
	}
	return nil
}

// exitStatuses gives the wait statuses of jobs that have ended, by job ID; one
// command for all of them. A job that Slurm has forgotten, or whose ID it
// has used again, is not in it.
func (s *site) exitStatuses(ctx context.Context, jobs []job) (map[int]int, error) {
	names := map[int]string{}
	for i := range jobs {
		names[jobs[i].id] = jobs[i].name
	}
	ids := make([]string, 0, len(names))
	for _, id := range slices.Sorted(maps.Keys(names)) {
		ids = append(ids, strconv.Itoa(id))
	}
	r, err := s.slurm(ctx, nil, nil, "squeue", "--all", "--noheader", "--states=all", "--jobs="+strings.Join(ids, ","),
		"--Format=JobID:20,exit_code:20,Name:300")
	if err != nil {
		return nil, err
	}
	statuses := map[int]int{}
	for line := range strings.Lines(string(r.stdout)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		id, idErr := strconv.Atoi(f[0])
		status, statusErr := strconv.Atoi(f[1])
		if errors.Join(idErr, statusErr) == nil && names[id] == f[2] {
			statuses[id] = status
		}
	}
	return statuses, nil
}
