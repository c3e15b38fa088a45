package slurm

import (
	"context"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// queue is what is known of everyone's waiting jobs, so that those who wait
// for one of ours can be told how many are ahead. It is asked for seldom, in the
// background, and only while jobs of ours wait for their turn.
type queue struct {
	asked    time.Time
	underWay bool
	known    bool
	waiting  map[string][]int64 // priorities by partition, ascending
}

// ahead counts the waiting jobs of the same partition with a higher priority.
func (s *site) ahead(j *job) (n int, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.queue.known {
		return 0, false
	}
	p := s.queue.waiting[j.partition]
	return len(p) - sort.Search(len(p), func(i int) bool { return p[i] > j.priority }), true
}

// refreshQueue asks again if it is time to.
func (s *site) refreshQueue(ctx context.Context, every time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queue.underWay || time.Since(s.queue.asked) < every {
		return
	}
	s.queue.underWay, s.queue.asked = true, time.Now()
	go s.askQueue(context.WithoutCancel(ctx))
}

func (s *site) askQueue(ctx context.Context) {
	r, err := s.slurm(ctx, nil, nil, "squeue", "--all", "--noheader", "--states=PENDING", "--format=%P|%Q")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.underWay = false
	s.queue.known = err == nil && r.status == 0
	if !s.queue.known {
		return // no estimate is better than a wrong one
	}
	s.queue.waiting = map[string][]int64{}
	for line := range strings.Lines(string(r.stdout)) {
		partitions, text, _ := strings.Cut(strings.TrimSpace(line), "|")
		priority, err := strconv.ParseInt(text, 10, 64)
		if err != nil || priority == 0 { // held
			continue
		}
		for p := range strings.SplitSeq(partitions, ",") {
			s.queue.waiting[p] = append(s.queue.waiting[p], priority)
		}
	}
	for _, p := range s.queue.waiting {
		slices.Sort(p)
	}
}
