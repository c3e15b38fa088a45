package commands

import (
	"encoding/json"
	"fmt"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// recent keeps the last answers in memory, oldest out first, so that a
// repetition soon after the first costs nothing. What it does not hold, the
// unique key of the answers in the log catches.
type recent struct {
	byID map[domain.CommandID]stored
	ring []domain.CommandID
	next int
}

type stored struct {
	hash    string
	outcome outcome // as first given: Repeated is not set
}

func newRecent(size int) *recent {
	return &recent{byID: make(map[domain.CommandID]stored, size), ring: make([]domain.CommandID, size)}
}

func (r *recent) get(id domain.CommandID) (stored, bool) {
	s, ok := r.byID[id]
	return s, ok
}

func (r *recent) put(id domain.CommandID, s stored) {
	if _, ok := r.byID[id]; !ok {
		delete(r.byID, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % len(r.ring)
	}
	r.byID[id] = s
}

func (r *recent) clear() {
	clear(r.byID)
	clear(r.ring)
	r.next = 0
}

// encodeOutcome gives the stored form of an answer or refusal. The body is put
// in as it is, because marshalling it again could change its bytes.
func encodeOutcome(body json.RawMessage, refusal *domain.Refusal) (json.RawMessage, error) {
	if refusal != nil {
		text, err := json.Marshal(map[string]*domain.Refusal{"refusal": refusal})
		if err != nil {
			return nil, fmt.Errorf("write a refusal: %w", err)
		}
		return text, nil
	}
	if len(body) == 0 {
		return json.RawMessage(`{}`), nil
	}
	out := make(json.RawMessage, 0, len(body)+len(`{"answer":}`))
	out = append(out, `{"answer":`...)
	out = append(out, body...)
	return append(out, '}'), nil
}

func decodeOutcome(a eventstore.Answer) (outcome, error) {
	var s struct {
		Answer  json.RawMessage `json:"answer"`
		Refusal *domain.Refusal `json:"refusal"`
	}
	if err := json.Unmarshal(a.Body, &s); err != nil {
		return outcome{}, fmt.Errorf("read the stored answer of command %s: %w", a.Command, err)
	}
	o := outcome{answer: Answer{Body: s.Answer, Position: a.Position}}
	if s.Refusal != nil {
		o.err = s.Refusal
	}
	return o, nil
}
