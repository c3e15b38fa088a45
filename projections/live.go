// Package projections makes queryable results of the log: the live views,
// which every append writes in its own transaction, and what followers build
// behind it. It knows the domain and the event store, and no command.
package projections

import (
	"encoding/json"
	"fmt"

	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// Live is the codec of the live views: service, pools, resources, sessions,
// jobs, models and owners, one row for each entity of pool.State, with the entity as JSON.
type Live struct{}

// Row makes the row of an entity.
func (Live) Row(k pool.Key, entity any) (eventstore.Row, error) {
	body, err := json.Marshal(entity)
	if err != nil {
		return eventstore.Row{}, fmt.Errorf("encode row %s/%s: %w", k.View, k.ID, err)
	}
	return eventstore.Row{View: k.View, ID: k.ID, Body: body}, nil
}

// Entity reads a row back into what pool.State.Put takes.
func (Live) Entity(r eventstore.Row) (any, error) {
	var e any
	switch r.View {
	case pool.ViewService:
		e = &pool.Service{}
	case pool.ViewPools:
		e = &pool.Pool{}
	case pool.ViewResources:
		e = &pool.Resource{}
	case pool.ViewSessions:
		e = &pool.Session{}
	case pool.ViewJobs:
		e = &pool.Job{}
	case pool.ViewModels:
		e = &pool.Model{}
	case pool.ViewOwners:
		e = &pool.Owner{}
	default:
		return nil, fmt.Errorf("read row %s/%s: there is no view of that name", r.View, r.ID)
	}
	if err := json.Unmarshal(r.Body, e); err != nil {
		return nil, fmt.Errorf("read row %s/%s: %w", r.View, r.ID, err)
	}
	return e, nil
}
