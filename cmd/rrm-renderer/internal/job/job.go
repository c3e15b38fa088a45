// Package job makes images, sets of frames and videos in the background and
// keeps the results in files.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

// Kinds of jobs.
const (
	Image  = "image"
	Frames = "frames"
	Video  = "video"
)

// States of a job.
const (
	Running   = "running"
	Succeeded = "succeeded"
	Failed    = "failed"
	Cancelled = "cancelled"
	Stopped   = "stopped" // between two frames, as it was asked to; its result are the frames before
)

// Codes of failures.
const (
	CodeTooLarge = "result_too_large"
	CodeFailed   = "job_failed"
)

const (
	maxKept     = 256     // jobs in any state; the oldest finished is forgotten
	maxActive   = 128     // under way and waiting
	atOnce      = 2       // under way
	maxResult   = 1 << 30 // bytes of one result
	maxAllBytes = 4 << 30 // bytes of all results
)

// ErrBusy says that too many jobs are under way.
var ErrBusy = errors.New("too many jobs are under way")

// errTooLarge says that the result would exceed maxResult.
var errTooLarge = fmt.Errorf("the result is larger than %d MiB", maxResult>>20)

// Request is what to make.
type Request struct {
	Kind string
	Use  model.Use
	Spec picture.Spec
}

// Status is what is known of a job.
type Status struct {
	ID          string  `json:"id"`
	State       string  `json:"state"`
	Progress    float64 `json:"progress"`
	Code        string  `json:"code,omitempty"`
	Reason      string  `json:"reason,omitempty"`
	ContentType string  `json:"content_type,omitempty"`
	Bytes       int64   `json:"bytes,omitempty"`
	Frames      int     `json:"frames,omitempty"` // made, of a set of frames or a video
}

type job struct {
	status   Status
	kind     string
	progress atomic.Uint64 // bits of a float64 in 0..1
	frames   atomic.Int64  // made
	halt     chan struct{} // closed: it is to stop before the next frame
	order    uint64
	path     string
	cancel   context.CancelFunc
	done     chan struct{}
}

// Manager runs the jobs of one renderer. It is safe for concurrent use.
type Manager struct {
	painter *picture.Painter
	video   *Encoder
	dir     *resultsDir
	slots   chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	jobs    map[string]*job
	order   uint64
	stopped bool
}

// NewManager keeps results in a new directory below the system's temporary
// one, which Close removes. video may be nil.
func NewManager(painter *picture.Painter, video *Encoder) (*Manager, error) {
	dir, err := newResultsDir(os.TempDir())
	if err != nil {
		return nil, err
	}
	return &Manager{
		painter: painter, video: video, dir: dir, slots: make(chan struct{}, atOnce),
		jobs: make(map[string]*job),
	}, nil
}

// Stop cancels all jobs, without waiting for them, and takes no more.
func (m *Manager) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	for _, j := range m.jobs {
		j.cancel()
	}
}

// Close cancels all jobs, waits for their end and removes all results.
func (m *Manager) Close() error {
	m.Stop()
	m.running.Wait()
	return m.dir.remove()
}

// Submit starts a job, unless there is one of this id: then its state is
// returned. It fails with ErrBusy.
func (m *Manager) Submit(id string, r Request) (Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j, ok := m.jobs[id]; ok {
		return j.snapshot(), nil
	}
	if m.active() >= maxActive || m.stopped {
		return Status{}, ErrBusy
	}
	for len(m.jobs) >= maxKept {
		m.forgetOldest()
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.order++
	j := &job{
		kind: r.Kind, halt: make(chan struct{}),
		status: Status{ID: id, State: Running}, order: m.order, cancel: cancel, done: make(chan struct{}),
		path: filepath.Join(m.dir.path, strconv.FormatUint(m.order, 10)),
	}
	m.jobs[id] = j
	m.running.Go(func() {
		defer cancel()
		m.run(ctx, j, r)
	})
	return j.snapshot(), nil
}

func (m *Manager) active() (n int) {
	for _, j := range m.jobs {
		if j.status.State == Running {
			n++
		}
	}
	return n
}

// forgetOldest drops the oldest finished job; false if there is none.
func (m *Manager) forgetOldest() bool {
	var oldest *job
	for _, j := range m.jobs {
		if j.status.State != Running && (oldest == nil || j.order < oldest.order) {
			oldest = j
		}
	}
	if oldest == nil {
		return false
	}
	delete(m.jobs, oldest.status.ID)
	removeFile(oldest.path)
	return true
}

func removeFile(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		slog.Warn("a result was not removed", "path", path, "err", err)
	}
}

func (m *Manager) run(ctx context.Context, j *job, r Request) {
	defer close(j.done)
	var contentType string
	var err error
	select {
	case m.slots <- struct{}{}:
		contentType, err = m.make(ctx, j, r)
		<-m.slots
	case <-ctx.Done(): // cancelled while it waited
	case <-j.halt: // stopped while it waited
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		j.status.State = Cancelled
		removeFile(j.path)
	case err != nil:
		j.status.State, j.status.Code, j.status.Reason = Failed, CodeFailed, err.Error()
		if errors.Is(err, errTooLarge) {
			j.status.Code = CodeTooLarge
		}
		j.status.Progress = j.fraction()
		removeFile(j.path)
		slog.Warn("job failed", "job", j.status.ID, "code", j.status.Code, "reason", j.status.Reason)
	default:
		j.status.State, j.status.Progress, j.status.ContentType = Succeeded, 1, contentType
		from, to := r.Spec.Range()
		if made := int(j.frames.Load()); r.Kind == Frames && made < to-from {
			j.status.State, j.status.Progress = Stopped, j.fraction()
		}
		if info, err := os.Stat(j.path); err == nil {
			j.status.Bytes = info.Size()
		}
		m.boundDisk(j)
	}
}

// boundDisk forgets the oldest results while all together are too large.
func (m *Manager) boundDisk(latest *job) {
	for {
		var all int64
		for _, j := range m.jobs {
			all += j.status.Bytes
		}
		if all <= maxAllBytes || all == latest.status.Bytes || !m.forgetOldest() {
			return
		}
	}
}

func (j *job) report(f float64) { j.progress.Store(math.Float64bits(f)) }

func (j *job) fraction() float64 { return math.Float64frombits(j.progress.Load()) }

func (j *job) snapshot() Status {
	st := j.status
	st.Frames = int(j.frames.Load())
	if st.State == Running {
		st.Progress = j.fraction()
	}
	return st
}

// Status returns a job's state; not ok if there is none of this id.
func (m *Manager) Status(id string) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[id]
	if !ok {
		return Status{}, false
	}
	return j.snapshot(), true
}

// ErrNotFrames says that a job cannot be stopped between frames.
var ErrNotFrames = errors.New("only a set of frames can be stopped and goes on elsewhere")

// StopAfterFrame lets a set of frames end before its next frame; what it made until
// then is its result. One that has ended stays as it is. Not ok if there is none of this id.
func (m *Manager) StopAfterFrame(id string) (Status, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[id]
	switch {
	case !ok:
		return Status{}, false, nil
	case j.kind != Frames:
		return Status{}, true, ErrNotFrames
	case j.status.State == Running && !j.stopping():
		close(j.halt)
	}
	return j.snapshot(), true, nil
}

func (j *job) stopping() bool {
	select {
	case <-j.halt:
		return true
	default:
		return false
	}
}

// Open opens the result of a job that succeeded, or was stopped after a frame.
func (m *Manager) Open(id string) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, ok := m.jobs[id]
	if !ok {
		return nil, os.ErrNotExist
	}
	f, err := os.Open(j.path)
	if err != nil {
		return nil, fmt.Errorf("open the result: %w", err)
	}
	return f, nil
}

// Delete stops a job, if it runs, and forgets it and its result. It returns
// its last state; not ok if there was none of this id. When it returns, the
// job uses no processor any more.
func (m *Manager) Delete(id string) (Status, bool) {
	m.mu.Lock()
	j, ok := m.jobs[id]
	delete(m.jobs, id)
	m.mu.Unlock()
	if !ok {
		return Status{}, false
	}
	j.cancel()
	<-j.done
	removeFile(j.path)
	return j.status, true
}
