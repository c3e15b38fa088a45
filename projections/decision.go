package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// DecisionView is a decision in its place in the log.
type DecisionView struct {
	Position int64            `json:"position"`
	At       time.Time        `json:"at"` // when it was decided
	Type     string           `json:"type"`
	Stream   domain.Stream    `json:"stream"`
	Actor    domain.Actor     `json:"actor,omitempty"`
	Command  domain.CommandID `json:"command,omitempty"`
	Subjects []string         `json:"subjects"`
	Decision pool.Decision    `json:"decision"`
	Event    json.RawMessage  `json:"event"` // all of the event's data, the decision included
}

// Decision gives what was decided at a position; not_found if there is no
// event, or one that records no decision.
func (r *Reader) Decision(ctx context.Context, position int64) (DecisionView, error) {
	e, err := r.log.ReadOne(ctx, position)
	if errors.Is(err, sql.ErrNoRows) {
		return DecisionView{}, domain.NotFound("decision", strconv.FormatInt(position, 10))
	}
	if err != nil {
		return DecisionView{}, fmt.Errorf("read decision %d: %w", position, err)
	}
	var data struct {
		Decision *pool.Decision `json:"decision"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return DecisionView{}, fmt.Errorf("read decision %d: %w", position, err)
	}
	if data.Decision == nil {
		refusal := domain.NotFound("decision", strconv.FormatInt(position, 10))
		refusal.Reason = fmt.Sprintf("the event at position %d, %s, records no decision", position, e.Type)
		return DecisionView{}, refusal
	}
	at := e.Meta.DecidedAt
	if at.IsZero() {
		at = e.RecordedAt
	}
	subjects := e.Subjects
	if subjects == nil {
		subjects = []string{}
	}
	return DecisionView{
		Position: e.Position, At: at.UTC(), Type: e.Type, Stream: e.Stream, Actor: e.Meta.Actor, Command: e.Meta.Command,
		Subjects: subjects, Decision: *data.Decision, Event: e.Data,
	}, nil
}
