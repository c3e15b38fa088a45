package commands_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// toy is a model small enough to be seen through: a pool of numbered slots and who has them.
type toy struct {
	slots  int
	cells  map[eventstore.Ref]cell
	undo   map[eventstore.Ref]*cell // as before the changes since the last Mark; nil: absent
	marked map[eventstore.Ref]*cell // those before the last Mark
}

// cell is any row: of a slot (Session), of a session (Slot, Ended), of the pool (Version).
type cell struct {
	Session string `json:"session,omitempty"`
	Slot    int    `json:"slot"`
	Ended   bool   `json:"ended"`
	Version int64  `json:"version"`
}

// The commands of the toy.
type (
	take struct {
		Session string
		Record  bool // a refusal is an event too
		Fresh   bool // the session's name is surely new, as when the service chose it
	}
	free  struct{ Session string }
	look  struct{}              // how many slots are taken; changes nothing
	shock struct{}              // panics half-way
	wrong struct{}              // an error that is no refusal
	store struct{ Text string } // an event with any text
	skew  struct{}              // spoils the model without saying so, as a fault in it would
)

var (
	poolRef                = eventstore.Ref{View: "pools", ID: "toy"}
	_       commands.Model = (*toy)(nil)
)

func newToy(slots int) *toy {
	m := &toy{slots: slots}
	m.Reset()
	return m
}

func slotRef(n int) eventstore.Ref { return eventstore.Ref{View: "resources", ID: fmt.Sprint(n)} }
func sessionRef(id string) eventstore.Ref {
	return eventstore.Ref{View: "sessions", ID: id}
}

func (m *toy) Reset() {
	m.cells, m.undo, m.marked = map[eventstore.Ref]cell{}, map[eventstore.Ref]*cell{}, map[eventstore.Ref]*cell{}
}

func (m *toy) Load(rows []eventstore.Row) error {
	for _, r := range rows {
		var c cell
		if err := json.Unmarshal(r.Body, &c); err != nil {
			return err
		}
		m.cells[eventstore.Ref{View: r.View, ID: r.ID}] = c
	}
	return nil
}

func (m *toy) Missing(cmd any) []eventstore.Ref {
	id := ""
	switch c := cmd.(type) {
	case free:
		id = c.Session
	case take:
		if !c.Fresh {
			id = c.Session
		}
	}
	if _, ok := m.cells[sessionRef(id)]; ok || id == "" {
		return nil
	}
	return []eventstore.Ref{sessionRef(id)}
}

func (m *toy) set(r eventstore.Ref, c cell) {
	if _, changed := m.undo[r]; !changed {
		m.undo[r] = nil
		if old, ok := m.cells[r]; ok {
			m.undo[r] = &old
		}
	}
	m.cells[r] = c
}

func (m *toy) emit(kind string, body string, meta eventstore.Meta) eventstore.NewEvent {
	pool := m.cells[poolRef]
	pool.Version++
	m.set(poolRef, pool)
	return eventstore.NewEvent{Stream: "pool/toy", Version: pool.Version, Type: kind, Data: json.RawMessage(body), Meta: meta}
}

func (m *toy) Decide(_ int64, cmd any, meta eventstore.Meta) (commands.Decided, error) {
	switch c := cmd.(type) {
	case take:
		return m.take(c, meta)
	case free:
		return m.free(c, meta)
	case look:
		taken := 0
		for n := range m.slots {
			if m.cells[slotRef(n)].Session != "" {
				taken++
			}
		}
		return commands.Decided{Answer: json.RawMessage(fmt.Sprint(taken))}, nil
	case store:
		body, _ := json.Marshal(map[string]string{"text": c.Text})
		return commands.Decided{Events: []eventstore.NewEvent{m.emit("text.stored", string(body), meta)}}, nil
	case skew:
		m.cells[poolRef] = cell{}
		return commands.Decided{}, nil
	case shock:
		m.set(slotRef(m.slots-2), cell{Session: "broken"})
		m.cells[slotRef(m.slots-1)] = cell{Session: "broken"} // not even undoable
		panic("shock")
	}
	return commands.Decided{}, errors.New("no such command")
}

func (m *toy) take(c take, meta eventstore.Meta) (commands.Decided, error) {
	if _, ok := m.cells[sessionRef(c.Session)]; ok {
		return commands.Decided{}, domain.Conflict("exists", "session %s exists", c.Session)
	}
	for n := range m.slots {
		if m.cells[slotRef(n)].Session != "" {
			continue
		}
		m.set(slotRef(n), cell{Session: c.Session})
		m.set(sessionRef(c.Session), cell{Slot: n})
		e := m.emit("slot.taken", fmt.Sprintf(`{"session": %q, "slot": %d}`, c.Session, n), meta)
		return commands.Decided{Events: []eventstore.NewEvent{e}, Answer: json.RawMessage(fmt.Sprint(n))}, nil
	}
	refusal := domain.Unavailable("no_capacity", time.Second, "all %d slots are taken", m.slots)
	if c.Record {
		e := m.emit("slot.refused", fmt.Sprintf(`{"session": %q}`, c.Session), meta)
		return commands.Decided{Events: []eventstore.NewEvent{e}}, refusal
	}
	return commands.Decided{}, refusal
}

func (m *toy) free(c free, meta eventstore.Meta) (commands.Decided, error) {
	s, ok := m.cells[sessionRef(c.Session)]
	switch {
	case !ok:
		return commands.Decided{}, domain.NotFound("session", c.Session)
	case s.Ended:
		return commands.Decided{Answer: json.RawMessage(`"already"`)}, nil
	}
	s.Ended = true
	m.set(slotRef(s.Slot), cell{})
	m.set(sessionRef(c.Session), s)
	e := m.emit("slot.freed", fmt.Sprintf(`{"session": %q, "slot": %d}`, c.Session, s.Slot), meta)
	return commands.Decided{Events: []eventstore.NewEvent{e}, Answer: json.RawMessage(`"freed"`)}, nil
}

func (m *toy) Changed() []eventstore.Row {
	var rows []eventstore.Row
	for r := range m.undo {
		body, _ := json.Marshal(m.cells[r])
		rows = append(rows, eventstore.Row{View: r.View, ID: r.ID, Body: body})
	}
	slices.SortFunc(rows, func(a, b eventstore.Row) int { return slices.Compare([]string{a.View, a.ID}, []string{b.View, b.ID}) })
	return rows
}

// Mark moves the changes to those that are being appended.
func (m *toy) Mark() {
	for r, old := range m.undo {
		if _, known := m.marked[r]; !known {
			m.marked[r] = old
		}
	}
	clear(m.undo)
}

func (m *toy) Commit() {
	clear(m.marked)
	m.forget()
}

func (m *toy) Rollback() {
	for _, undo := range []map[eventstore.Ref]*cell{m.undo, m.marked} {
		for r, old := range undo {
			if old == nil {
				delete(m.cells, r)
			} else {
				m.cells[r] = *old
			}
		}
		clear(undo)
	}
	m.forget()
}

// forget drops sessions that have ended, as the real model does.
func (m *toy) forget() {
	for r, c := range m.cells {
		if _, changed := m.undo[r]; c.Ended && !changed {
			delete(m.cells, r)
		}
	}
}
