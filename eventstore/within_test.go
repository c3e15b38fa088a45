package eventstore

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A frozen server, which lib/pq would wait for: the caller goes on when its context ends.
func TestWithinGivesUpWithTheContext(t *testing.T) {
	frozen := make(chan struct{})
	defer close(frozen)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := within(ctx, func() (int, error) { <-frozen; return 1, nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gave %v", err)
	}
	if v, err := within(t.Context(), func() (int, error) { return 2, nil }); v != 2 || err != nil {
		t.Errorf("gave %d, %v", v, err)
	}
}
