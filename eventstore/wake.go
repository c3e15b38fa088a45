package eventstore

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"
)

const (
	channel       = "rrm_log"
	notifyEvery   = 15 * time.Millisecond  // one NOTIFY at most; more would make commits wait for each other
	pollListening = time.Second            // between looks at the head while notifications come
	pollDeaf      = 250 * time.Millisecond // and while they do not
)

// Bus wakes whoever waits for new events: at once for those of this process
// (Poke), by NOTIFY for those of others, by polling when that fails. A wake-up
// says only "look again": it may come without a new event, and several may
// become one, but none is lost.
type Bus struct {
	db     *sqlx.DB
	dsn    string
	logger *slog.Logger

	mu       sync.Mutex
	subs     map[chan struct{}]struct{}
	position int64 // the newest known
	ours     int64 // the newest of this process

	poked     chan struct{} // of capacity 1
	listening atomic.Bool
}

// NewBus makes a bus. dsn is for LISTEN, which needs a connection of its own;
// without it other replicas' events are found by polling.
func NewBus(db *sqlx.DB, dsn string, logger *slog.Logger) *Bus {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Bus{db: db, dsn: dsn, logger: logger, subs: map[chan struct{}]struct{}{}, poked: make(chan struct{}, 1)}
}

// Subscribe gives a channel that receives after new events, and a function that ends the subscription.
func (b *Bus) Subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[c] = struct{}{}
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs, c)
	}
}

// Poke says that this process has committed events up to position. It never blocks.
func (b *Bus) Poke(position int64) {
	b.mu.Lock()
	b.ours = max(b.ours, position)
	b.mu.Unlock()
	b.advance(position)
	signal(b.poked)
}

// Position is the newest position that the bus knows of; the log may be further.
func (b *Bus) Position() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.position
}

func (b *Bus) advance(position int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if position > b.position {
		b.position = position
		b.wake()
	}
}

// set takes over what the database says. That is less after a restore, or
// because it was asked before the last Poke: one wake-up too many.
func (b *Bus) set(position int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if position != b.position {
		b.position = position
		b.wake()
	}
}

func (b *Bus) wake() {
	for c := range b.subs {
		signal(c)
	}
}

func (b *Bus) wakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run passes wake-ups between processes until ctx ends. Without it, Poke still wakes this process.
func (b *Bus) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { b.notify(ctx); return nil })
	g.Go(func() error { b.poll(ctx); return nil })
	if b.dsn != "" {
		g.Go(func() error { return b.listen(ctx) })
	}
	return g.Wait()
}

// notify tells other processes of our commits, on a connection of its own and never within a command's transaction.
func (b *Bus) notify(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.poked:
		}
		b.mu.Lock()
		ours := b.ours
		b.mu.Unlock()
		if _, err := b.db.ExecContext(ctx, fmt.Sprintf("NOTIFY %s, '%d'", channel, ours)); err != nil && ctx.Err() == nil {
			b.logger.Debug("notify other processes", "error", err) // they poll
		}
		if !sleep(ctx, notifyEvery) {
			return
		}
	}
}

func (b *Bus) poll(ctx context.Context) {
	for {
		every := pollDeaf
		if b.listening.Load() {
			every = pollListening
		}
		if !sleep(ctx, every) {
			return
		}
		position, err := within(ctx, func() (position int64, err error) {
			err = b.db.QueryRowContext(ctx, `SELECT position FROM log_head`).Scan(&position)
			return position, err
		})
		if err != nil {
			if ctx.Err() == nil {
				b.logger.Debug("look at the head of the log", "error", err)
			}
			continue
		}
		b.set(position)
	}
}

func (b *Bus) listen(ctx context.Context) error {
	l := pq.NewListener(b.dsn, 100*time.Millisecond, 5*time.Second, func(event pq.ListenerEventType, err error) {
		b.listening.Store(event == pq.ListenerEventConnected || event == pq.ListenerEventReconnected)
		if err != nil {
			b.logger.Debug("listen for other processes' events", "error", err)
		}
	})
	stopped := context.AfterFunc(ctx, func() { _ = l.Close() }) // also ends a Listen that waits for the server
	defer stopped()
	if err := l.Listen(channel); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		_ = l.Close()
		return fmt.Errorf("listen on %s: %w", channel, err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case n, ok := <-l.Notify:
			if !ok {
				return nil
			}
			if n == nil { // connected again: whatever was notified meanwhile is lost
				b.wakeAll()
				continue
			}
			if position, err := strconv.ParseInt(n.Extra, 10, 64); err == nil {
				b.advance(position)
			}
		}
	}
}

// sleep waits and reports whether the whole time passed.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
