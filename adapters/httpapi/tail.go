package httpapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

const (
	tailKeep  = 4096 // events at most that are kept for streams that lag a little
	tailBatch = 500
	tailPoll  = time.Second
	tailWait  = 5 * time.Second // for one look at the log
)

// tail reads the end of the log once for all streams: while at least one is
// open, and not otherwise. A stream that has fallen behind what is kept reads
// the log itself.
type tail struct {
	log  Log
	wake Wake
	out  *slog.Logger
	done sync.WaitGroup

	mu     sync.Mutex
	users  int
	closed bool
	stop   context.CancelFunc // of the run that is under way, or was the last
	kept   []eventstore.Event // all after low up to head; never changed in place
	low    int64
	head   int64
	more   chan struct{} // closed when head moves
}

func newTail(log Log, wake Wake, out *slog.Logger) *tail {
	return &tail{log: log, wake: wake, out: out}
}

// open joins; the function that it gives leaves again. The head is where the log ended at that moment, or a little later.
func (t *tail) open(ctx context.Context) (head int64, leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, tailWait)
	defer cancel()
	position, _, err := t.log.Head(ctx)
	if err != nil {
		return 0, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return 0, nil, domain.Unavailable("shutting_down", retryUnavailable, "this process is stopping")
	}
	if t.users++; t.users == 1 {
		t.kept, t.low, t.head, t.more = nil, position, position, make(chan struct{})
		run, stop := context.WithCancel(context.Background())
		t.stop = stop
		t.done.Go(func() { t.run(run) })
	}
	return position, sync.OnceFunc(t.leave), nil
}

func (t *tail) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users == 0 {
		t.stop()
	}
}

// close ends what reads, and waits for it; nobody can join any more.
func (t *tail) close() {
	t.mu.Lock()
	t.closed = true
	if t.stop != nil {
		t.stop()
	}
	t.mu.Unlock()
	t.done.Wait()
}

// after gives the kept events after a position, the head, and a channel that is
// closed when there are more. ok is false if some of them are not kept any more.
func (t *tail) after(position int64) (events []eventstore.Event, head int64, more <-chan struct{}, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if position < t.low {
		return nil, t.head, t.more, false
	}
	// Positions have no gaps, so the place is a subtraction.
	from := min(position-t.low, int64(len(t.kept)))
	return t.kept[from:], t.head, t.more, true
}

func (t *tail) run(ctx context.Context) {
	var woken <-chan struct{}
	if t.wake != nil {
		c, end := t.wake.Subscribe()
		defer end()
		woken = c
	}
	tick := time.NewTicker(tailPoll)
	defer tick.Stop()
	for {
		full, err := t.runOnce(ctx)
		if err != nil && ctx.Err() == nil {
			t.out.Debug("the end of the log cannot be read", "error", err)
		}
		if full && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-woken:
		case <-tick.C:
		}
	}
}

// runOnce takes up what is new; full says that there is probably more.
func (t *tail) runOnce(ctx context.Context) (full bool, err error) {
	t.mu.Lock()
	head := t.head
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tailWait)
	defer cancel()
	events, err := t.log.Read(ctx, head, tailBatch)
	if err != nil || len(events) == 0 {
		return false, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil || t.head != head {
		return false, ctx.Err() // another run has taken over
	}
	t.head = events[len(events)-1].Position
	t.kept = append(t.kept, events...)
	if over := len(t.kept) - tailKeep; over > 0 {
		t.low += int64(over)
		t.kept = append([]eventstore.Event(nil), t.kept[over:]...)
	}
	close(t.more)
	t.more = make(chan struct{})
	return len(events) == tailBatch, nil
}
