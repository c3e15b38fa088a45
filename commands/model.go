package commands

import (
	"encoding/json"
	"fmt"

	"github.com/rendering-resource-manager/rrm/domain/catalog"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// Views is the codec between the entities of the live state and their rows.
type Views interface {
	Row(pool.Key, any) (eventstore.Row, error)
	Entity(eventstore.Row) (any, error)
}

// state is the Model of the lane: the live state of all pools, with its codec.
type state struct {
	views Views
	pools *pool.State
}

// NewState is the model that the service's lane decides on.
func NewState(v Views) Model { return &state{views: v, pools: pool.NewState()} }

func (s *state) Reset() { s.pools = pool.NewState() }

func (s *state) Load(rows []eventstore.Row) error {
	for _, r := range rows {
		e, err := s.views.Entity(r)
		if err != nil {
			return err
		}
		s.pools.Put(e)
	}
	return nil
}

func (s *state) Missing(cmd any) []eventstore.Ref {
	c, ok := cmd.(command)
	if !ok {
		return nil
	}
	var refs []eventstore.Ref
	for _, k := range s.pools.Needs(c.Command) {
		refs = append(refs, eventstore.Ref{View: k.View, ID: k.ID})
	}
	return refs
}

// command is what the lane carries: the pool's command and how its answer is made from the state.
type command struct {
	pool.Command
	answer func(*pool.State, eventstore.Meta) any // nil: nothing to say
}

func (s *state) Decide(head int64, cmd any, meta eventstore.Meta) (Decided, error) {
	c, ok := cmd.(command)
	if !ok {
		return Decided{}, fmt.Errorf("decide: %T is no command", cmd)
	}
	events, err := s.pools.Decide(head, pool.Given{ID: meta.Command, Actor: meta.Actor, At: meta.DecidedAt, Command: c.Command})
	var out Decided
	for _, r := range events {
		typ, schema, data, encErr := catalog.Encode(r.Event)
		if encErr != nil {
			return Decided{}, encErr
		}
		out.Events = append(out.Events, eventstore.NewEvent{
			Stream: r.Stream, Version: r.Version, Type: typ, Schema: schema, Data: data, Meta: meta, Subjects: s.pools.Subjects(r),
		})
	}
	if err == nil && c.answer != nil {
		value, encErr := json.Marshal(c.answer(s.pools, meta))
		if encErr != nil {
			return Decided{}, fmt.Errorf("encode answer: %w", encErr)
		}
		out.Answer = value
	}
	return out, err
}

func (s *state) Changed() []eventstore.Row {
	var rows []eventstore.Row
	s.pools.Changed(func(k pool.Key, e any) {
		r, err := s.views.Row(k, e)
		if err != nil { // entities are plain data; only a programming error gets here
			panic(err)
		}
		rows = append(rows, r)
	})
	return rows
}

func (s *state) Mark()     { s.pools.Mark() }
func (s *state) Commit()   { s.pools.CommitMarked() }
func (s *state) Rollback() { s.pools.Rollback() }
