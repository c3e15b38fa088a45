package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/scene"
)

// States of a model.
const (
	Loading = "loading"
	Loaded  = "loaded"
	Failed  = "failed"
)

const (
	maxKnown   = 1024 // models in any state
	maxLoading = 32   // under way and waiting
	atOnce     = 2    // under way
)

// Status is what is known of one model.
type Status struct {
	Model       string  `json:"model"`
	State       string  `json:"state"`
	Progress    float64 `json:"progress"`
	MemoryMiB   float64 `json:"memory_mib"`
	LoadSeconds float64 `json:"load_seconds"`
	Code        string  `json:"code,omitempty"`
	Reason      string  `json:"reason,omitempty"`
}

type entry struct {
	status   Status
	progress atomic.Uint64 // bits of a float64 in 0..1, while loading
	bytes    int64         // when loaded
	scene    *scene.Scene
	cancel   context.CancelFunc
	done     chan struct{} // closed when the load has ended
	gone     chan struct{} // closed when the model is unloaded
	order    uint64        // of the end of the load
}

// Store holds the models of one renderer. It is safe for concurrent use.
type Store struct {
	library *Library
	limit   int64
	slots   chan struct{}
	loads   sync.WaitGroup

	mu      sync.Mutex
	entries map[string]*entry
	used    int64 // loaded models and what loads under way have reserved
	orders  uint64
	stopped bool
}

// NewStore holds models of at most limit bytes together.
func NewStore(library *Library, limit int64) *Store {
	return &Store{
		library: library, limit: limit, slots: make(chan struct{}, atOnce),
		entries: make(map[string]*entry),
	}
}

// Stop cancels all loads, without waiting for them; those that are asked for
// later end at once.
func (s *Store) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, e := range s.entries {
		e.cancel()
	}
}

// Close cancels all loads and waits for their end.
func (s *Store) Close() {
	s.Stop()
	s.loads.Wait()
}

// Load begins to load a model, unless it is loaded or loading, and returns its
// state at once. What is known at once is refused with an *Error.
func (s *Store) Load(key string) (Status, error) {
	if st, ok := s.current(key); ok && st.State != Failed {
		return st, nil
	}
	src, err := s.library.resolve(key)
	if err != nil {
		return Status{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[key]; ok && e.status.State != Failed {
		return e.snapshot(), nil
	}
	if s.used+src.bytes > s.limit {
		return Status{}, s.tooLarge(src.bytes)
	}
	if err := s.makeRoom(); err != nil {
		return Status{}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if s.stopped {
		cancel()
	}
	e := &entry{
		status: Status{Model: key, State: Loading}, cancel: cancel,
		done: make(chan struct{}), gone: make(chan struct{}),
	}
	s.entries[key] = e
	s.loads.Go(func() {
		defer cancel()
		s.run(ctx, e, src)
	})
	return e.snapshot(), nil
}

func (s *Store) tooLarge(more int64) *Error {
	return refuse(CodeTooLarge, "the model needs at least %.1f MiB; %.1f of %.0f MiB are in use", mib(more), mib(s.used), mib(s.limit))
}

// makeRoom keeps the number of entries bounded: the oldest failure is forgotten.
func (s *Store) makeRoom() error {
	loading := 0
	var oldest *entry
	for _, e := range s.entries {
		if e.status.State == Loading {
			loading++
		}
		if e.status.State == Failed && (oldest == nil || e.order < oldest.order) {
			oldest = e
		}
	}
	if loading >= maxLoading {
		return refuse(CodeBusy, "%d models are loading already", loading)
	}
	if len(s.entries) < maxKnown {
		return nil
	}
	if oldest == nil {
		return refuse(CodeBusy, "%d models are loaded already", len(s.entries))
	}
	delete(s.entries, oldest.status.Model)
	return nil
}

// run loads one model and records the outcome. Memory is reserved as it is
// needed; at the end what the scene really takes stays reserved.
func (s *Store) run(ctx context.Context, e *entry, src source) {
	defer close(e.done)
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return
	}
	var reserved int64
	meter := func(n int64) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if n > 0 && s.used+n > s.limit {
			return s.tooLarge(reserved + n)
		}
		s.used += n
		reserved += n
		return nil
	}
	begun := time.Now()
	sc, err := safely(func() (*scene.Scene, error) { return src.load(ctx, meter, e.report) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= reserved
	if s.entries[e.status.Model] != e || ctx.Err() != nil {
		return // unloaded meanwhile, or the program ends
	}
	s.orders++
	e.order = s.orders
	e.status.LoadSeconds = time.Since(begun).Seconds()
	if err == nil && s.used+sc.Bytes() > s.limit {
		err = s.tooLarge(sc.Bytes())
	}
	if err != nil {
		e.fail(err)
		slog.Warn("model failed to load", "model", e.status.Model, "code", e.status.Code, "reason", e.status.Reason)
		return
	}
	e.scene, e.bytes = sc, sc.Bytes()
	e.status.State, e.status.Progress, e.status.MemoryMiB = Loaded, 1, mib(e.bytes)
	s.used += e.bytes
	slog.Info("model loaded", "model", e.status.Model, "seconds", e.status.LoadSeconds, "mib", e.status.MemoryMiB)
}

// safely turns a panic in a parser, which may be another project's, into an
// error: one bad file must not end the sessions that use other models.
func safely(load func() (*scene.Scene, error)) (sc *scene.Scene, err error) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("a model's loader panicked", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = refuse(CodeInvalid, "the model is broken: %v", v)
		}
	}()
	return load()
}

func (e *entry) report(f float64) { e.progress.Store(math.Float64bits(min(1, max(0, f)))) }

func (e *entry) fail(err error) {
	e.status.State, e.status.Code, e.status.Reason = Failed, CodeInvalid, err.Error()
	var known *Error
	if errors.As(err, &known) {
		e.status.Code = known.Code
	}
}

func (e *entry) snapshot() Status {
	st := e.status
	if st.State == Loading {
		st.Progress = math.Float64frombits(e.progress.Load())
	}
	return st
}

func (s *Store) current(key string) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	if !ok {
		return Status{}, false
	}
	return e.snapshot(), true
}

// Status returns a model's state, or an *Error if it was never asked for.
func (s *Store) Status(key string) (Status, error) {
	st, ok := s.current(key)
	if !ok {
		return st, refuse(CodeNotLoaded, "the model %.200q is not loaded", key)
	}
	return st, nil
}

// Wait returns a model's state once its load has ended, or with the context.
func (s *Store) Wait(ctx context.Context, key string) (Status, error) {
	s.mu.Lock()
	e, ok := s.entries[key]
	s.mu.Unlock()
	if ok {
		select {
		case <-e.done:
		case <-ctx.Done():
			return Status{}, ctx.Err()
		}
	}
	return s.Status(key)
}

// Unload forgets a model; a load under way is cancelled. Repeating is safe.
func (s *Store) Unload(key string) {
	s.mu.Lock()
	e, ok := s.entries[key]
	var bytes int64
	if ok {
		delete(s.entries, key)
		e.cancel()
		close(e.gone)
		bytes = e.bytes
		s.used -= bytes
	}
	s.mu.Unlock()
	if bytes > 16<<20 {
		// The operator looks at the process's size: give it back now, not
		// some minutes later.
		e.scene = nil
		debug.FreeOSMemory()
	}
}

// List returns all models, by key, and the memory used and allowed in MiB.
func (s *Store) List() (all []Status, used, limit float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all = make([]Status, 0, len(s.entries))
	for _, e := range s.entries {
		all = append(all, e.snapshot())
	}
	slices.SortFunc(all, func(a, b Status) int {
		if a.Model < b.Model {
			return -1
		}
		return 1
	})
	return all, mib(s.used), mib(s.limit)
}

// Use is a loaded model in use. Gone is closed when it is unloaded; the scene
// stays usable.
type Use struct {
	Key   string
	Scene *scene.Scene
	Gone  <-chan struct{}
}

// Get returns a loaded model: that of the key, or with an empty key the one
// loaded last. The *Error says model_not_loaded.
func (s *Store) Get(key string) (Use, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if key == "" {
		for _, o := range s.entries {
			if o.status.State == Loaded && (e == nil || o.order > e.order) {
				e = o
			}
		}
	}
	switch {
	case e == nil && key == "":
		return Use{}, refuse(CodeNotLoaded, "no model is loaded")
	case e == nil:
		return Use{}, refuse(CodeNotLoaded, "the model %.200q is not loaded", key)
	case e.status.State != Loaded:
		return Use{}, refuse(CodeNotLoaded, "the model %.200q is not loaded: %s", key, e.status.State)
	}
	return Use{e.status.Model, e.scene, e.gone}, nil
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
