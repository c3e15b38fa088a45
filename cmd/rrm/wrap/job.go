package wrap

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

// States of a job.
const (
	stateRunning   = "running"
	stateSucceeded = "succeeded"
	stateFailed    = "failed"
	stateCancelled = "cancelled"
)

const (
	maxKept    = 32 // jobs in any state; the oldest finished is forgotten
	maxWaiting = 64 // for one of the slots
	keptRoom   = 4  // all results together have room for so many of the largest
)

// errBusy says that too many jobs are under way.
var errBusy = &failure{status: statusUnavailable, Code: codeBusy, Reason: "too many jobs are under way"}

// status is what is known of a job, as the protocol says it.
type status struct {
	ID          string  `json:"id"`
	State       string  `json:"state"`
	Progress    float64 `json:"progress"`
	Code        string  `json:"code,omitempty"`
	Reason      string  `json:"reason,omitempty"`
	ContentType string  `json:"content_type,omitempty"`
	Bytes       int64   `json:"bytes,omitempty"`
}

type job struct {
	status   status
	progress atomic.Uint64 // bits of a float64 in 0..1
	order    uint64
	dir      string // holds all that the job makes; its result in the end
	cancel   context.CancelFunc
	done     chan struct{}
}

// result is the file that the outcome is in.
func (j *job) result() string { return filepath.Join(j.dir, "result") }

// report keeps the progress, which never goes back.
func (j *job) report(x float64) {
	if x > j.fraction() { // only the goroutine that reads the output reports
		j.progress.Store(math.Float64bits(min(1, x)))
	}
}

func (j *job) fraction() float64 { return math.Float64frombits(j.progress.Load()) }

func (j *job) snapshot() status {
	st := j.status
	if st.State == stateRunning {
		st.Progress = j.fraction()
	}
	return st
}

// manager runs the jobs of one wrapper. It is safe for concurrent use.
type manager struct {
	cfg     *config
	frames  *framesSource
	place   *place
	environ []string
	log     *slog.Logger
	slots   chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	jobs     map[string]*job
	order    uint64
	stopping bool
}

func newManager(cfg *config) (*manager, error) {
	parent := cfg.WorkDir
	if parent == "" {
		parent = os.TempDir()
	}
	frames, err := newFramesSource(cfg)
	if err != nil {
		return nil, err
	}
	place, err := newPlace(parent)
	if err != nil {
		return nil, err
	}
	return &manager{
		cfg: cfg, frames: frames, place: place, environ: programEnvironment(os.Environ()), log: cfg.Log,
		slots: make(chan struct{}, cfg.Slots), jobs: map[string]*job{},
	}, nil
}

// stop cancels all jobs, without waiting for them; none begins after it.
func (m *manager) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	for _, j := range m.jobs {
		j.cancel()
	}
}

// close cancels all jobs, waits for their end and removes everything.
func (m *manager) close() error {
	m.stop()
	m.running.Wait()
	return m.place.remove()
}

// submit starts a job, unless there is one of this id: then its state is returned. It fails with errBusy.
func (m *manager) submit(w *work) (status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j, ok := m.jobs[w.id]; ok {
		return j.snapshot(), nil
	}
	if m.stopping || m.active() >= m.cfg.Slots+maxWaiting {
		return status{}, errBusy
	}
	for len(m.jobs) >= maxKept+m.cfg.Slots && m.forgetOldest() {
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.order++
	j := &job{
		status: status{ID: w.id, State: stateRunning}, order: m.order, cancel: cancel, done: make(chan struct{}),
		dir: filepath.Join(m.place.path, strconv.FormatUint(m.order, 10)),
	}
	m.jobs[w.id] = j
	m.running.Go(func() {
		defer cancel()
		m.run(ctx, j, w)
	})
	return j.snapshot(), nil
}

func (m *manager) active() (n int) {
	for _, j := range m.jobs {
		if j.status.State == stateRunning {
			n++
		}
	}
	return n
}

// forgetOldest drops the oldest finished job; false if there is none.
func (m *manager) forgetOldest() bool {
	var oldest *job
	for _, j := range m.jobs {
		if j.status.State != stateRunning && (oldest == nil || j.order < oldest.order) {
			oldest = j
		}
	}
	if oldest == nil {
		return false
	}
	delete(m.jobs, oldest.status.ID)
	m.removeDir(oldest.dir)
	return true
}

func (m *manager) removeDir(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		m.log.Warn("a job's directory was not removed", "dir", dir, "err", err)
	}
}

// run takes a job to its end.
func (m *manager) run(ctx context.Context, j *job, w *work) {
	defer close(j.done)
	var contentType string
	err := ctx.Err()
	select {
	case m.slots <- struct{}{}:
		contentType, err = m.make(ctx, j, w)
		<-m.slots
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st := &j.status
	var known *failure
	switch {
	case ctx.Err() != nil:
		st.State = stateCancelled
	case err != nil:
		st.State, st.Progress, st.Code, st.Reason = stateFailed, j.fraction(), codeInternal, err.Error()
		if errors.As(err, &known) {
			st.Code, st.Reason = known.Code, known.Reason
		}
		m.log.Warn("job failed", "job", st.ID, "code", st.Code, "reason", st.Reason)
	default:
		st.State, st.Progress, st.ContentType = stateSucceeded, 1, contentType
		if info, err := os.Stat(j.result()); err == nil {
			st.Bytes = info.Size()
		}
		m.boundDisk(j)
		return
	}
	m.removeDir(j.dir)
}

// boundDisk forgets the oldest results while all together are too large.
func (m *manager) boundDisk(latest *job) {
	for {
		var all int64
		for _, j := range m.jobs {
			all += j.status.Bytes
		}
		if all <= keptRoom*m.cfg.MaxOutput || all == latest.status.Bytes || !m.forgetOldest() {
			return
		}
	}
}

// status returns a job's state; not ok if there is none of this id.
func (m *manager) status(id string) (status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[id]
	if !ok {
		return status{}, false
	}
	return j.snapshot(), true
}

// open opens the result of a job that succeeded.
func (m *manager) open(id string) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[id]
	if !ok {
		return nil, os.ErrNotExist
	}
	return os.Open(j.result())
}

// delete stops a job, if it runs, and forgets it and its result. It returns
// its last state; not ok if there was none of this id. When it returns, no
// process of the job is left.
func (m *manager) delete(id string) (status, bool) {
	m.mu.Lock()
	j, ok := m.jobs[id]
	delete(m.jobs, id)
	m.mu.Unlock()
	if !ok {
		return status{}, false
	}
	j.cancel()
	<-j.done
	m.removeDir(j.dir)
	return j.status, true
}
