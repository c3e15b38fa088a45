package static

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// machines are the resources that send heartbeats, by a clock that the test moves.
type machines struct {
	mu    sync.Mutex
	now   time.Time
	wall  bool // the clock goes by itself
	last  map[domain.ResourceID]time.Time
	asked map[domain.ResourceID]int
	away  error
	looks int
}

func newMachines() *machines {
	return &machines{now: time.Now(), last: map[domain.ResourceID]time.Time{}, asked: map[domain.ResourceID]int{}}
}

func (m *machines) Ages(_ context.Context, ids []domain.ResourceID) (map[domain.ResourceID]time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.looks++
	out := map[domain.ResourceID]time.Duration{}
	for _, id := range ids {
		if at, ok := m.last[id]; ok {
			out[id] = m.at().Sub(at)
		}
	}
	return out, m.away
}

func (m *machines) AskToStop(_ context.Context, id domain.ResourceID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[id]++
	return m.away
}

func (m *machines) at() time.Time {
	if m.wall {
		return time.Now()
	}
	return m.now
}

func (m *machines) clock() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// beat notes heartbeats now.
func (m *machines) beat(ids ...domain.ResourceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.last[id] = m.at()
	}
}

func (m *machines) leave(id domain.ResourceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.last, id)
}

func (m *machines) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

// open makes a launcher that expects a heartbeat each second.
func open(m *machines) *Launcher {
	l := New(m, time.Second)
	l.now = m.clock
	return l
}

// watch looks four times a second, as the process manager does, for so long.
func watch(t *testing.T, m *machines, l *Launcher, d time.Duration, ids ...domain.ResourceID) map[domain.ResourceID]domain.Observed {
	t.Helper()
	var out map[domain.ResourceID]domain.Observed
	for until := m.clock().Add(d); ; {
		out = look(t, l, ids...)
		if !m.clock().Before(until) {
			return out
		}
		m.pass(250 * time.Millisecond)
	}
}

func look(t *testing.T, l *Launcher, ids ...domain.ResourceID) map[domain.ResourceID]domain.Observed {
	t.Helper()
	var in []domain.Launched
	for _, id := range ids {
		in = append(in, domain.Launched{Resource: id, Address: "10.7.0.7:5000", Node: "gpu7"})
	}
	got, err := l.Observe(t.Context(), in)
	if err != nil || len(got) != len(ids) {
		t.Fatalf("%d answers, %v; want %d", len(got), err, len(ids))
	}
	out := map[domain.ResourceID]domain.Observed{}
	for i, o := range got {
		if o.Resource != ids[i] || o.Address != "10.7.0.7:5000" || o.Node != "gpu7" {
			t.Errorf("answer %d is %+v, want the resource as it was given", i, o)
		}
		out[o.Resource] = o
	}
	return out
}

func want(t *testing.T, what string, o domain.Observed, state domain.LaunchState, reason string) {
	t.Helper()
	if o.State != state || !strings.Contains(o.Reason, reason) {
		t.Errorf("%s: %s %q, want %s %q", what, o.State, o.Reason, state, reason)
	}
}

func TestItLaunchesNothing(t *testing.T) {
	l := open(newMachines())
	_, err := l.Launch(t.Context(), domain.LaunchSpec{Resource: "r", Renderer: domain.Renderer{ID: "gpu"}})
	if r, ok := domain.AsRefusal(err); !ok || r.Kind != domain.KindInvalid || r.Code != "launch_failed" || !strings.Contains(r.Reason, "rrm agent") {
		t.Errorf("launch: %v", err)
	}
	if all, err := l.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("list: %v, %v", all, err)
	}
	_, err = l.Output(t.Context(), domain.Launched{Resource: "r", Node: "gpu7"}, "stdout", 10)
	if r, ok := domain.AsRefusal(err); !ok || r.Kind != domain.KindNotFound || !strings.Contains(r.Reason, "gpu7") {
		t.Errorf("output: %v", err)
	}
}

// Three heartbeats missed is lost, and no fewer; one that comes in between begins the count anew.
func TestThreeMissed(t *testing.T) {
	m := newMachines()
	l := open(m)
	m.beat("a", "b")
	want(t, "registered", look(t, l, "a", "b")["a"], domain.LaunchRunning, "")
	want(t, "a little late", watch(t, m, l, 1250*time.Millisecond, "a", "b")["a"], domain.LaunchRunning, "")
	m.beat("a", "b")
	want(t, "two missed", watch(t, m, l, 2900*time.Millisecond, "a", "b")["a"], domain.LaunchUnknown, "overdue, the last came 3.0 s ago")
	m.beat("b")
	got := watch(t, m, l, 500*time.Millisecond, "a", "b")
	want(t, "three missed", got["a"], domain.LaunchGone, "three heartbeats missed, the last came 3.5 s ago")
	want(t, "heard of", got["b"], domain.LaunchRunning, "")
	want(t, "after a restart of rrm", look(t, open(m), "a")["a"], domain.LaunchRunning, "")
	m.beat("a")
	want(t, "back", look(t, l, "a")["a"], domain.LaunchRunning, "")
}

// A resource whose registration is only half done is not gone at once; one that never says anything is.
func TestNeverHeardOf(t *testing.T) {
	m := newMachines()
	l := open(m)
	want(t, "just registered", look(t, l, "a")["a"], domain.LaunchPending, "no heartbeat has come yet")
	want(t, "never heard of", watch(t, m, l, 3500*time.Millisecond, "a")["a"], domain.LaunchGone, "no heartbeat ever came")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Observe(ctx, nil); err == nil {
		t.Error("observing with a cancelled context gave no error")
	}
}

// While nobody could be heard, nobody missed anything.
func TestDeafness(t *testing.T) {
	m := newMachines()
	l := open(m)
	m.beat("a")
	look(t, l, "a")
	m.away = errors.New("connection refused")
	want(t, "the store is away", watch(t, m, l, 20*time.Second, "a")["a"], domain.LaunchUnknown, "connection refused")
	m.away = nil
	want(t, "the store is back", look(t, l, "a")["a"], domain.LaunchRunning, "")
	want(t, "some seconds later", watch(t, m, l, 1500*time.Millisecond, "a")["a"], domain.LaunchUnknown, "overdue")
	want(t, "three missed after all", watch(t, m, l, 2*time.Second, "a")["a"], domain.LaunchGone, "missed")

	m.beat("b")
	look(t, l, "b")
	m.pass(time.Hour) // this machine slept
	want(t, "awake", look(t, l, "b")["b"], domain.LaunchRunning, "")
	want(t, "awake for a while", watch(t, m, l, 1500*time.Millisecond, "b")["b"], domain.LaunchUnknown, "overdue")
	want(t, "three missed since", watch(t, m, l, 2*time.Second, "b")["b"], domain.LaunchGone, "missed")
}

// Stop asks, and returns when the resource was deregistered, is not heard of any more, or never was.
func TestStop(t *testing.T) {
	m := newMachines()
	l := open(m)
	l.every = 100 * time.Millisecond
	l.now = time.Now
	r := domain.Launched{Resource: "a"}
	for range 2 {
		if err := l.Stop(t.Context(), r, true); err != nil || m.asked["a"] == 0 {
			t.Errorf("stop of one that never was heard of: %v, asked %d", err, m.asked["a"])
		}
	}

	m.beat("a")
	done := make(chan error, 1)
	go func() { done <- l.Stop(t.Context(), r, false) }()
	for m.count() < 5 { // it looks again and again
		select {
		case err := <-done:
			t.Fatalf("stop returned %v while the resource was there", err)
		default:
		}
	}
	m.leave("a")
	if err := <-done; err != nil {
		t.Errorf("stop of one that was deregistered: %v", err)
	}

	m.beat("a")
	m.pass(time.Minute)
	begin := time.Now()
	if err := l.Stop(t.Context(), r, false); err != nil || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("stop of one that is silent: %v after %s; it had no chance to be heard", err, time.Since(begin))
	}

	// What was silent already before the stop is not waited for anew.
	m.beat("b")
	look(t, l, "b")
	l.mu.Lock()
	l.silences["b"] = time.Minute
	l.mu.Unlock()
	m.pass(time.Minute)
	begin = time.Now()
	if err := l.Stop(t.Context(), domain.Launched{Resource: "b"}, false); err != nil || time.Since(begin) > 250*time.Millisecond {
		t.Errorf("stop of one that was silent before: %v after %s", err, time.Since(begin))
	}

	m.beat("a")
	l.stopWait = 300 * time.Millisecond
	if err := l.Stop(t.Context(), r, false); err == nil || !strings.Contains(err.Error(), "did not end it") {
		t.Errorf("stop of one that goes on: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Stop(ctx, r, false); !errors.Is(err, context.Canceled) {
		t.Errorf("stop with a cancelled context: %v", err)
	}
	m.away = errors.New("connection refused")
	if err := l.Stop(t.Context(), r, false); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("stop without the store: %v", err)
	}
}

func (m *machines) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.looks
}
