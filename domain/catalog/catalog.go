// Package catalog knows every type of event that was ever written, its schema
// number, and how an old schema is brought up to the present one. The log is
// never rewritten: old events are upcast when they are read.
//
// testdata holds one file for each type and schema; files are only ever added.
package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// upcast brings data from one schema to the next.
type upcast func(json.RawMessage) (json.RawMessage, error)

type entry struct {
	decode  func(json.RawMessage) (pool.Event, error)
	upcasts []upcast // upcasts[i] leads from schema i+1 to i+2; so the present schema is len+1
}

func (e entry) schema() int { return len(e.upcasts) + 1 }

func of[E pool.Event](upcasts ...upcast) entry {
	return entry{upcasts: upcasts, decode: func(b json.RawMessage) (pool.Event, error) {
		var v E
		err := json.Unmarshal(b, &v)
		return v, err
	}}
}

// entries are all types of event. A type is never taken out and never gets a
// new meaning; one that is no longer written stays, so that it can be read.
var entries = map[string]entry{
	"renderer.configured":  of[pool.RendererConfigured](),
	"renderer.removed":     of[pool.RendererRemoved](),
	"admission.changed":    of[pool.AdmissionChanged](),
	"resource.requested":   of[pool.ResourceRequested](),
	"resource.starting":    of[pool.ResourceStarting](),
	"resource.ready":       of[pool.ResourceReady](),
	"resource.readdressed": of[pool.ResourceReaddressed](),
	"resource.draining":    of[pool.ResourceDraining](),
	"resource.stopping":    of[pool.ResourceStopping](),
	"resource.stopped":     of[pool.ResourceStopped](),
	"resource.failed":      of[pool.ResourceFailed](),
	"resource.lost":        of[pool.ResourceLost](),
	"model.loading":        of[pool.ModelLoading](),
	"model.loaded":         of[pool.ModelLoaded](),
	"model.failed":         of[pool.ModelFailed](),
	"model.evicted":        of[pool.ModelEvicted](),
	"session.opened":       of[pool.SessionOpened](),
	"session.requested":    of[pool.SessionRequested](),
	"session.queued":       of[pool.SessionQueued](),
	"session.starting":     of[pool.SessionStarting](),
	"session.allocated":    of[pool.SessionAllocated](),
	"session.ready":        of[pool.SessionReady](),
	"session.rejected":     of[pool.SessionRejected](),
	"session.warned":       of[pool.SessionWarned](),
	"session.released":     of[pool.SessionReleased](),
	"session.expired":      of[pool.SessionExpired](),
	"session.lost":         of[pool.SessionLost](),
	"session.moved":        of[pool.SessionMoved](),
	"session.failed":       of[pool.SessionFailed](),
	"job.submitted":        of[pool.JobSubmitted](),
	"job.rejected":         of[pool.JobRejected](),
	"job.unblocked":        of[pool.JobUnblocked](),
	"job.spread":           of[pool.JobSpread](),
	"job.queued":           of[pool.JobQueued](),
	"job.late":             of[pool.JobLate](),
	"job.assigned":         of[pool.JobAssigned](),
	"job.started":          of[pool.JobStarted](),
	"job.succeeded":        of[pool.JobSucceeded](),
	"job.retried":          of[pool.JobRetried](),
	"job.yielding":         of[pool.JobYielding](),
	"job.moved":            of[pool.JobMoved](),
	"job.failed":           of[pool.JobFailed](),
	"job.cancelled":        of[pool.JobCancelled](),
	"pool.scaled":          of[pool.PoolScaled](),
	"pool.backed_off":      of[pool.PoolBackedOff](),
	"pool.advised":         of[pool.PoolAdvised](),
	"pool.shadowed":        of[pool.PoolShadowed](),
}

// Types are the names of all types of event, in order.
func Types() []string { return slices.Sorted(maps.Keys(entries)) }

// Schema is the present schema number of a type; 0 if the type is unknown.
func Schema(typ string) int {
	if e, ok := entries[typ]; ok {
		return e.schema()
	}
	return 0
}

// Encode gives an event's type, schema and data as they are written.
func Encode(e pool.Event) (typ string, schema int, data json.RawMessage, err error) {
	typ = e.Type()
	schema = Schema(typ)
	if schema == 0 {
		return typ, 0, nil, fmt.Errorf("encode event: type %q is not in the catalog", typ)
	}
	data, err = json.Marshal(e)
	if err != nil {
		return typ, schema, nil, fmt.Errorf("encode event %s: %w", typ, err)
	}
	return typ, schema, data, nil
}

// Decode reads an event of any schema that was ever written. An unknown type
// or a schema of the future is an error: to skip it would falsify every view.
func Decode(typ string, schema int, data json.RawMessage) (pool.Event, error) {
	e, ok := entries[typ]
	if !ok {
		return nil, fmt.Errorf("decode event: type %q is not known to this version", typ)
	}
	if schema < 1 || schema > e.schema() {
		return nil, fmt.Errorf("decode event %s: schema %d is not known to this version (1 to %d are)", typ, schema, e.schema())
	}
	for ; schema < e.schema(); schema++ {
		var err error
		if data, err = e.upcasts[schema-1](data); err != nil {
			return nil, fmt.Errorf("upcast event %s from schema %d: %w", typ, schema, err)
		}
	}
	ev, err := e.decode(data)
	if err != nil {
		return nil, fmt.Errorf("decode event %s: %w", typ, err)
	}
	return ev, nil
}
