package rrmv1

import (
	"context"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

const cacheMax = 10_000

// cache remembers answers of the store for a moment: clients ask many times a
// second. While the store is away, what was known goes on being good, so that
// what renders keeps rendering.
type cache[K comparable, V any] struct {
	trust time.Duration

	mu  sync.Mutex
	all map[K]kept[V]
}

type kept[V any] struct {
	val V
	at  time.Time
}

func newCache[K comparable, V any](trust time.Duration) *cache[K, V] {
	return &cache[K, V]{trust: trust, all: map[K]kept[V]{}}
}

// get gives what is remembered, if it is fresh, else asks. Refusals are not remembered, and forget what was.
func (c *cache[K, V]) get(ctx context.Context, key K, ask func(context.Context) (V, error)) (V, error) {
	c.mu.Lock()
	was, known := c.all[key]
	c.mu.Unlock()
	if known && time.Since(was.at) < c.trust {
		return was.val, nil
	}
	val, err := ask(ctx)
	if err == nil {
		c.put(key, val)
		return val, nil
	}
	if _, refused := domain.AsRefusal(err); !refused && known && ctx.Err() == nil {
		return was.val, nil
	}
	c.forget(key)
	return val, err
}

// first says whether a key was not put within the trusted time, and puts it.
func (c *cache[K, V]) first(key K, within time.Duration) bool {
	c.mu.Lock()
	was, known := c.all[key]
	c.mu.Unlock()
	if known && time.Since(was.at) < within {
		return false
	}
	var zero V
	c.put(key, zero)
	return true
}

func (c *cache[K, V]) put(key K, val V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.all[key]; !known && len(c.all) >= cacheMax {
		clear(c.all) // it costs a look each; order would cost more
	}
	c.all[key] = kept[V]{val, time.Now()}
}

func (c *cache[K, V]) forget(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, key)
}
