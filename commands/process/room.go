package process

import (
	"context"
	"sync"
	"time"
)

// asked tells actions under way that their job is to make room: each has a
// channel that is closed when it is.
type asked struct {
	mu  sync.Mutex
	all map[string]chan struct{}
	did map[string]bool
}

func newAsked() *asked { return &asked{all: map[string]chan struct{}{}, did: map[string]bool{}} }

// of is the channel of one action.
func (a *asked) of(key string) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.channel(key)
}

func (a *asked) channel(key string) chan struct{} {
	c := a.all[key]
	if c == nil {
		c = make(chan struct{})
		a.all[key] = c
	}
	return c
}

// ask closes the channel of an action; repeating is safe.
func (a *asked) ask(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.did[key] {
		a.did[key] = true
		close(a.channel(key))
	}
}

// keep forgets the actions that are not wanted any more.
func (a *asked) keep(wanted map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.all {
		if !wanted[key] {
			delete(a.all, key)
			delete(a.did, key)
		}
	}
}

// wait sleeps for a while, or until ctx ends or it is asked, and says whether it was.
func wait(ctx context.Context, d time.Duration, asked <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-asked:
		return true
	case <-timer.C:
	}
	return false
}
