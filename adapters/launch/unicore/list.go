package unicore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// List names every resource of this service whose job waits or runs at the
// site, in the order of their identities: those that the service's own token
// shows, and those whose tokens this launcher has used. It may be as old as
// Options.Every.
func (l *Launcher) List(ctx context.Context) ([]domain.Launched, error) {
	accounts, err := l.listed(ctx)
	if err != nil {
		return nil, fmt.Errorf("list UNICORE resources: %w", err)
	}
	patience := time.NewTimer(2 * l.opts.ObserveWait)
	defer patience.Stop()
	found := map[domain.ResourceID]domain.Launched{}
	for _, a := range accounts {
		began := time.Now()
		for fresh := false; !fresh; {
			select {
			case <-l.beginRound(a, nil):
			case <-patience.C:
				return nil, fmt.Errorf("list UNICORE resources: the site has not answered within %s", 2*l.opts.ObserveWait)
			case <-ctx.Done():
				return nil, fmt.Errorf("list UNICORE resources: %w", ctx.Err())
			}
			a.mu.Lock()
			err, fresh = a.err, !a.listed.Before(began.Add(-l.opts.Every))
			a.mu.Unlock()
			if err != nil {
				return nil, fmt.Errorf("list UNICORE resources: %w", err)
			}
		}
		if err := l.collect(a, found); err != nil {
			return nil, fmt.Errorf("list UNICORE resources: %w", err)
		}
	}
	ids := slices.Sorted(maps.Keys(found))
	out := make([]domain.Launched, len(ids))
	for i, id := range ids {
		out[i] = found[id]
	}
	return out, nil
}

// listed are the accounts to ask for lists.
func (l *Launcher) listed(ctx context.Context) ([]*account, error) {
	var all []*account
	a, err := l.accountFor(ctx, "")
	if err == nil {
		all = append(all, a)
	} else if l.opts.TokenFile != "" || l.opts.TokenEnv != "" {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.accounts {
		other.mu.Lock()
		if other != a && time.Since(other.used) < l.opts.StaleAfter {
			all = append(all, other)
		}
		other.mu.Unlock()
	}
	return all, nil
}

// collect adds an account's live jobs.
func (l *Launcher) collect(a *account, into map[domain.ResourceID]domain.Launched) error {
	a.mu.Lock()
	identity, jobs := a.identity, a.jobs
	a.mu.Unlock()
	l.mu.Lock()
	base := l.base
	var seen []*view
	for id := range jobs {
		if v := l.views[id]; v != nil && v.resource != "" && !v.ended() && v.err == nil {
			seen = append(seen, v)
		}
	}
	l.mu.Unlock()
	for _, v := range seen {
		r, err := l.launched(target{v.resource, base, a, identity}, v.id)
		if err != nil {
			return err
		}
		if v.place != nil {
			r.Node = v.place.node
		}
		into[v.resource] = r
	}
	return nil
}
