package process

import (
	"context"
	"log/slog"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Leases that have ended.
type Leases interface {
	// ClaimExpired claims leases whose time is over: a claimed lease cannot
	// be renewed, so no renewal that was acknowledged is followed by an expiry
	// within its time. A claim that led to nothing is given again later.
	ClaimExpired(ctx context.Context, limit int) ([]domain.SessionID, error)
}

// Expire ends sessions whose lease was not renewed.
type Expire struct {
	Reporter Reporter
	Leases   Leases
	Log      *slog.Logger
}

// expireAtOnce bounds one round; what is left is found in the next.
const expireAtOnce = 256

// RunOnce claims leases that are over and ends their sessions.
func (m *Expire) RunOnce(ctx context.Context) error {
	ids, err := m.Leases.ClaimExpired(ctx, expireAtOnce)
	for _, id := range ids {
		report(ctx, m.Reporter, m.Log, "leases", pool.ExpireSession{Session: id})
	}
	return err
}

// Clock lets time pass in the pools.
type Clock struct{ Reporter Reporter }

// RunOnce gives the tick.
func (m *Clock) RunOnce(ctx context.Context) error {
	return m.Reporter.Report(ctx, actorPrefix+"clock", pool.Tick{})
}
