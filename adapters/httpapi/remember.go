package httpapi

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// lru remembers answers of the store: the last size that were used. An answer is
// trusted for a while, and longer while the store cannot be reached.
type lru[K comparable, V any] struct {
	size  int
	trust time.Duration
	now   func() time.Time

	mu     sync.Mutex
	byKey  map[K]*list.Element
	order  list.List // of *remembered, used last first
	failed time.Time // when the store was last found away
}

type remembered[K comparable, V any] struct {
	key    K
	val    V
	at     time.Time
	asking bool // someone looks whether it is still so
}

func newLRU[K comparable, V any](size int, trust time.Duration) *lru[K, V] {
	return &lru[K, V]{size: size, trust: trust, now: time.Now, byKey: map[K]*list.Element{}}
}

// get gives what is remembered, if it is fresh, else asks. While one asks,
// others take the old answer. When the store is away the old answer is good
// enough, and the store is left alone for storePause. Any other error
// forgets what was remembered.
func (l *lru[K, V]) get(ctx context.Context, key K, ask func(context.Context) (V, error)) (V, error) {
	was, fresh := l.look(key)
	if fresh {
		return was.val, nil
	}
	if was != nil {
		defer l.asked(was)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, storeWait)
		defer cancel()
	}
	val, err := soon(ctx, ask)
	switch {
	case err == nil:
		l.put(key, val)
	case was != nil && away(err):
		l.mu.Lock()
		l.failed = l.now()
		l.mu.Unlock()
		return was.val, nil
	default:
		l.forget(key)
	}
	return val, err
}

// soon asks, and gives up when ctx ends though the answer may still come: the
// database's driver waits for a server that is frozen far longer than it is told to.
func soon[V any](ctx context.Context, ask func(context.Context) (V, error)) (V, error) {
	type answer struct {
		val V
		err error
	}
	c := make(chan answer, 1)
	go func() {
		val, err := ask(ctx)
		c <- answer{val, err}
	}()
	select {
	case a := <-c:
		return a.val, a.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// look finds an old answer, or nil. If it is not fresh, the caller is the one who asks, and then calls asked.
func (l *lru[K, V]) look(key K) (was *remembered[K, V], fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, known := l.byKey[key]
	if !known {
		return nil, false
	}
	l.order.MoveToFront(e)
	was = e.Value.(*remembered[K, V])
	now := l.now()
	if now.Sub(was.at) < l.trust || was.asking || now.Sub(l.failed) < storePause {
		return was, true
	}
	was.asking = true
	return was, false
}

func (l *lru[K, V]) asked(was *remembered[K, V]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was.asking = false
}

func (l *lru[K, V]) put(key K, val V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = time.Time{}
	entry := &remembered[K, V]{key: key, val: val, at: l.now()}
	if e, ok := l.byKey[key]; ok {
		e.Value = entry
		l.order.MoveToFront(e)
		return
	}
	l.byKey[key] = l.order.PushFront(entry)
	for len(l.byKey) > l.size {
		last := l.order.Back()
		delete(l.byKey, last.Value.(*remembered[K, V]).key)
		l.order.Remove(last)
	}
}

func (l *lru[K, V]) forget(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[key]; ok {
		delete(l.byKey, key)
		l.order.Remove(e)
	}
}

// away says that the store could not be asked, which tells nothing about the answer.
func away(err error) bool {
	if r, ok := domain.AsRefusal(err); ok {
		return r.Kind == domain.KindUnavailable
	}
	return eventstore.Transient(err)
}
