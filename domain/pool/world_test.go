package pool_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/catalog"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// tb is what a world needs of a test: testing.T and rapid.T have it.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

// world is a state with its log and its clock. Each command given to it is
// decided, taken back, decided again and committed; what is written is read
// back from JSON and folded into a second state; and the rules are checked
// after each event and each command. So every test of the decider tests these too.
type world struct {
	tb
	state  *pool.State
	fold   *pool.State // what the log gives, read back
	head   int64
	now    time.Time
	given  int // commands so far
	events []pool.Recorded
	made   map[domain.RendererID][]domain.ResourceID // resources in order of request
	also   *batched                                  // follows, where there is one
}

var began = time.Date(2026, 3, 2, 14, 0, 0, 123456789, time.UTC)

func newWorld(t tb) *world {
	return &world{tb: t, state: pool.NewState(), fold: pool.NewState(), now: began, made: map[domain.RendererID][]domain.ResourceID{}}
}

// given is a world with these renderers.
func given(t *testing.T, renderers ...domain.Renderer) *world {
	t.Helper()
	w := newWorld(t)
	for _, r := range renderers {
		w.do(pool.ConfigureRenderer{Renderer: r})
	}
	return w
}

// decide gives a command and returns its events and refusal.
func (w *world) decide(c pool.Command) ([]pool.Recorded, error) {
	w.Helper()
	w.given++
	g := pool.Given{ID: domain.CommandID(fmt.Sprintf("command-%d", w.given)), Actor: "test", At: w.now, Command: c}
	head := w.head
	entities, orders, ended := pool.Entities(w.state), pool.Orders(w.state), pool.Ended(w.state)
	first, firstErr := w.state.Decide(w.head, g)
	w.state.Rollback()
	// Entities that were committed are never changed in place, so that the same pointers are the same entities.
	if !maps.Equal(entities, pool.Entities(w.state)) {
		w.Fatalf("Rollback after %#v did not restore the entities", c)
	}
	if now := pool.Orders(w.state); !slices.Equal(orders, now) || ended != pool.Ended(w.state) {
		w.Fatalf("Rollback after %#v did not restore the orders:\nbefore %q %s\nafter  %q %s", c, orders, ended, now, pool.Ended(w.state))
	}
	events, err := w.state.Decide(w.head, g)
	if a, b := written(w, first), written(w, events); a != b || fmt.Sprint(firstErr) != fmt.Sprint(err) {
		w.Fatalf("%#v decided twice on the same state gives two outcomes:\n%s %v\n%s %v", c, a, firstErr, b, err)
	}
	for _, r := range events {
		w.record(r)
		w.checkSubjects(r)
	}
	w.compareChanged(c)
	w.state.Commit()
	w.fold.Commit()
	if a, b := pool.Orders(w.state), pool.Orders(w.fold); !slices.Equal(a, b) {
		w.Fatalf("after %#v the orders differ from those of the folded log:\nlive   %q\nfolded %q", c, a, b)
	}
	w.checkState(c)
	if w.also != nil {
		w.also.follow(w, head, g, events)
	}
	return events, err
}

// record writes an event, reads it back, checks it against the state before it, and folds it.
func (w *world) record(r pool.Recorded) {
	w.Helper()
	typ, schema, data, err := catalog.Encode(r.Event)
	if err != nil {
		w.Fatalf("%v", err)
	}
	back, err := catalog.Decode(typ, schema, data)
	if err != nil {
		w.Fatalf("%v", err)
	}
	if e, ok := back.(pool.ResourceRequested); ok {
		id := domain.RendererID(strings.TrimPrefix(string(r.Stream), "pool/"))
		w.made[id] = append(w.made[id], e.Resource)
	}
	w.checkEvent(r)
	w.events = append(w.events, r)
	w.head = r.Position
	r.Event = back
	w.fold.Evolve(r)
}

// compareChanged compares what the command changed with the folded log.
func (w *world) compareChanged(c pool.Command) {
	w.Helper()
	folded := pool.Entities(w.fold)
	w.state.Changed(func(k pool.Key, live any) {
		a, errA := json.Marshal(live)
		b, errB := json.Marshal(folded[k])
		if errA != nil || errB != nil || string(a) != string(b) {
			w.Fatalf("after %#v %v differs from the folded log:\nlive   %s %v\nfolded %s %v", c, k, a, errA, b, errB)
		}
	})
}

// written is all that is written of events, as text.
func written(t tb, events []pool.Recorded) string {
	t.Helper()
	var b strings.Builder
	for _, r := range events {
		typ, schema, data, err := catalog.Encode(r.Event)
		if err != nil {
			t.Fatalf("%v", err)
		}
		fmt.Fprintf(&b, "%d %s %d %s %s %d %s\n", r.Position, r.Stream, r.Version, r.At, typ, schema, data)
	}
	return b.String()
}

// do gives commands that must not be refused, and returns their events as lines.
func (w *world) do(commands ...pool.Command) []string {
	w.Helper()
	var all []string
	for _, c := range commands {
		events, err := w.decide(c)
		if err != nil {
			w.Fatalf("%#v was refused: %v", c, err)
		}
		all = append(all, w.lines(events)...)
	}
	return all
}

// when gives a command and expects exactly these events; given again it must add nothing.
func (w *world) when(c pool.Command, then ...string) {
	w.Helper()
	got := w.do(c)
	if !slices.Equal(got, then) {
		w.Fatalf("when %#v\nthen\n  %s\nnot\n  %s", c, strings.Join(then, "\n  "), strings.Join(got, "\n  "))
	}
	if again, _ := w.decide(c); len(again) > 0 {
		w.Fatalf("%#v given twice adds\n  %s", c, strings.Join(w.lines(again), "\n  "))
	}
}

// silent gives a command that is "already so" or comes too late.
func (w *world) silent(c pool.Command) {
	w.Helper()
	w.when(c)
}

// refused gives a command and expects this refusal, with the events that record it.
func (w *world) refused(c pool.Command, kind domain.Kind, code string, then ...string) *domain.Refusal {
	w.Helper()
	events, err := w.decide(c)
	r, ok := domain.AsRefusal(err)
	if !ok || r.Kind != kind || r.Code != code {
		w.Fatalf("when %#v\nthen a refusal %s %s, not %v", c, kind, code, err)
	}
	if got := w.lines(events); !slices.Equal(got, then) {
		w.Fatalf("when %#v\nthen, with the refusal,\n  %s\nnot\n  %s", c, strings.Join(then, "\n  "), strings.Join(got, "\n  "))
	}
	return r
}

// tick lets time pass and expects exactly these events.
func (w *world) tick(d time.Duration, then ...string) {
	w.Helper()
	w.now = w.now.Add(d)
	w.when(pool.Tick{}, then...)
}

// pass lets time pass without telling anyone.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// r is the n-th resource that was requested in the pool demo.
func (w *world) r(n int) domain.ResourceID { return w.in("demo", n) }

func (w *world) in(r domain.RendererID, n int) domain.ResourceID {
	w.Helper()
	if n > len(w.made[r]) {
		w.Fatalf("pool %s has made %d resources only", r, len(w.made[r]))
	}
	return w.made[r][n-1]
}

// up brings every resource that is coming to ready, after the time that a start takes.
func (w *world) up(starting ...time.Duration) *world {
	w.Helper()
	for _, d := range starting {
		w.pass(d)
	}
	for _, r := range pool.AllResources(w.state) {
		if r.State == pool.ResourceStateRequested {
			w.do(pool.ReportStarting{Launched: domain.Launched{Resource: r.ID, Address: "127.0.0.1:9000"}})
		}
		if r.Coming() {
			w.do(pool.ReportReady{Resource: r.ID, Address: "127.0.0.1:9000"})
		}
	}
	return w
}

// warm makes the n-th resource hold a model that took so many seconds to load, without users.
func (w *world) warm(n int, m domain.ModelKey, seconds float64, mib ...int) *world {
	w.Helper()
	id := domain.SessionID(fmt.Sprintf("warm-%d", w.given))
	var others []domain.SessionID
	w.do(book(id, m, waits(time.Hour)))
	for w.state.Session(id).Resource != w.r(n) { // fill the others until it comes here
		others = append(others, id)
		id += "x"
		w.do(book(id, m, waits(time.Hour)))
		if len(others) > 20 {
			w.Fatalf("model %s cannot be brought to resource %d", m, n)
		}
	}
	memory := 0
	for _, n := range mib {
		memory = n
	}
	w.do(pool.ReportModelLoaded{Resource: w.r(n), Model: m, Seconds: seconds, MemoryMiB: memory})
	for _, o := range append(others, id) {
		w.do(pool.ReleaseSession{Session: o})
	}
	return w
}
