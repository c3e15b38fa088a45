package process

import (
	"context"
	"log/slog"
)

// Store is what has to be kept in order as time goes by.
type Store interface {
	// Keep throws away answers and results older than they are kept, and makes room for what comes.
	Keep(ctx context.Context) error
}

// Keep keeps the store in order.
type Keep struct {
	Store Store
	Log   *slog.Logger
}

// RunOnce does what is due.
func (m *Keep) RunOnce(ctx context.Context) error { return m.Store.Keep(ctx) }
