package commands_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

const chaosSlots = 8

// slotsState is what the toy promises its clients, told in the order of positions.
type slotsState struct {
	session  [chaosSlots]string
	position int64
}

// observed is an answer as a client saw it. The position is part of what must
// be linearizable; it also keeps the search for an order short.
type observed struct {
	out      string
	position int64
}

// slotsModel: a slot has one session at a time, "no capacity" is said only when
// all are taken, a look counts rightly, and positions follow one another.
var slotsModel = porcupine.Model{
	Init: func() any { return slotsState{} },
	Step: func(state, in, out any) (bool, any) {
		s := state.(slotsState)
		ok := s.step(in, out.(observed))
		return ok, s
	},
}

func (s *slotsState) step(in any, got observed) bool {
	taken := 0
	for _, session := range s.session {
		if session != "" {
			taken++
		}
	}
	if _, ok := in.(look); ok {
		return got.position == s.position && got.out == fmt.Sprint(taken)
	}
	s.position++
	if got.position != s.position {
		return false
	}
	switch c := in.(type) {
	case take:
		if got.out == "no_capacity" {
			return taken == chaosSlots
		}
		n, err := strconv.Atoi(got.out)
		if err != nil || s.session[n] != "" {
			return false
		}
		s.session[n] = c.Session
		return true
	case free:
		for n, session := range s.session {
			if session == c.Session {
				s.session[n] = ""
				return got.out == `"freed"`
			}
		}
	}
	return false
}

// history is what the clients saw, for porcupine.
type history struct {
	mu    sync.Mutex
	start time.Time
	ops   []porcupine.Operation
}

// call gives a command until it has an answer, whatever is broken meanwhile,
// and puts it on record as one operation.
func (h *history) call(t *testing.T, l *commands.Lane, client int, id string, cmd any) string {
	r := request(id, cmd)
	if _, transient := cmd.(look); transient {
		r.Transient = true
	}
	begin := time.Since(h.start)
	for {
		got, err := l.Do(t.Context(), r)
		refusal, refused := domain.AsRefusal(err)
		switch {
		case refused && (refusal.Code == "store_unavailable" || refusal.Code == "busy"):
			continue
		case err != nil && !refused:
			t.Errorf("client %d: %v", client, err)
			return ""
		}
		out := string(got.Body)
		if refused {
			out = refusal.Code
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: cmd, Call: int64(begin), Output: observed{out, got.Position}, Return: int64(time.Since(h.start))})
		return out
	}
}

// client books, frees and looks.
func (h *history) client(t *testing.T, l *commands.Lane, client, rounds int) {
	for i := range rounds {
		session := fmt.Sprintf("%d.%d", client, i)
		if out := h.call(t, l, client, "take"+session, take{Session: session, Record: true, Fresh: client%2 == 0}); out == "no_capacity" || out == "" {
			continue
		}
		if i%4 == 0 {
			h.call(t, l, client, "", look{})
		}
		h.call(t, l, client, "free"+session, free{Session: session})
	}
}

// 64 clients over two processes on one database while connections are killed:
// what the clients see is linearizable, nothing is lost, nothing counts twice.
func TestTwoLanesAreLinearizableWhileConnectionsAreKilled(t *testing.T) {
	dsn := dbtest.DSN(t)
	var lanes [2]*commands.Lane
	for i := range lanes {
		lanes[i], _ = newLane(t, dsn, newToy(chaosSlots), commands.Options{})
		runLane(t, lanes[i])
	}
	admin := dbOf(t, dsn)
	killing, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	var killer, clients sync.WaitGroup
	var kills int
	killer.Go(func() { kills = kill(killing, admin) })

	h := &history{start: time.Now()}
	for c := range 64 {
		clients.Go(func() { h.client(t, lanes[c%2], c, 50) })
	}
	clients.Wait()
	stop()
	killer.Wait()

	if kills == 0 {
		t.Error("nothing was killed")
	}
	result := porcupine.CheckOperationsTimeout(slotsModel, h.ops, 30*time.Second)
	if result != porcupine.Ok {
		t.Errorf("the history of %d operations is not linearizable: %v", len(h.ops), result)
	}
	audit(t, admin, h.ops)
	for i, l := range lanes {
		t.Logf("lane %d: %+v", i, l.Stats())
	}
	t.Logf("%d operations, %d connections killed", len(h.ops), kills)
}

// kill ends connections of the lanes at random until ctx ends.
func kill(ctx context.Context, db *sqlx.DB) (kills int) {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return kills
		case <-tick.C:
		}
		var n int
		err := db.GetContext(ctx, &n, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'lane' AND random() < CASE state WHEN 'active' THEN 0.7 ELSE 0.2 END`)
		if err == nil {
			kills += n
		}
	}
}

// audit compares the log with what the clients were told, and the live rows with the log.
func audit(t *testing.T, db *sqlx.DB, ops []porcupine.Operation) {
	t.Helper()
	log, err := eventstore.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	all, err := log.Read(t.Context(), 0, eventstore.MaxRead) // dense, or an error
	if err != nil {
		t.Fatal(err)
	}
	logged, holder := map[string]int{}, map[int]string{}
	for i, e := range all {
		if e.Version != int64(i)+1 {
			t.Fatalf("event %d has version %d", e.Position, e.Version)
		}
		var d struct {
			Session string
			Slot    int
		}
		if err := json.Unmarshal(e.Data, &d); err != nil {
			t.Fatal(err)
		}
		logged[e.Type+" "+d.Session]++
		switch {
		case e.Type == "slot.taken" && holder[d.Slot] != "":
			t.Errorf("event %d: slot %d is taken twice", e.Position, d.Slot)
		case e.Type == "slot.taken":
			holder[d.Slot] = d.Session
		case e.Type == "slot.freed":
			delete(holder, d.Slot)
		}
	}
	told := 0
	for _, op := range ops {
		var want string
		switch c := op.Input.(type) {
		case take:
			want = "slot.taken " + c.Session
			if op.Output.(observed).out == "no_capacity" {
				want = "slot.refused " + c.Session
			}
		case free:
			want = "slot.freed " + c.Session
		default:
			continue
		}
		told++
		if logged[want] != 1 {
			t.Errorf("%q is %d times in the log", want, logged[want])
		}
	}
	if told != len(all) {
		t.Errorf("%d events for %d answers", len(all), told)
	}
	var taken int
	if err := db.Get(&taken, `SELECT count(*) FROM resources WHERE body->>'session' <> ''`); err != nil || taken != len(holder) {
		t.Errorf("%d rows are taken, %d by the log (%v)", taken, len(holder), err)
	}
}

// The server goes away for a while: commands are refused in time, and all goes on by itself after.
func TestTheStoreGoesAndComesBack(t *testing.T) {
	dsn := dbtest.DSN(t)
	l, _ := newLane(t, dsn, newToy(10), commands.Options{Timeout: 300 * time.Millisecond})
	runLane(t, l)
	admin := dbOf(t, dsn)
	if _, err := do(t, l, "t1", take{Session: "a"}); err != nil {
		t.Fatal(err)
	}
	// Frozen: the server takes the call and does not answer.
	tx := admin.MustBegin()
	tx.MustExec(`LOCK TABLE log_head`)
	for i := range 3 {
		start := time.Now()
		_, err := do(t, l, "t2", take{Session: "b"})
		if r, ok := domain.AsRefusal(err); !ok || r.Code != "store_unavailable" || r.RetryAfter <= 0 {
			t.Errorf("try %d while the store is gone: %v", i, err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("try %d was answered after %v", i, took)
		}
	}
	if l.Stats().Available {
		t.Error("the lane takes the store for available")
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the lane works again", func() bool {
		got, err := do(t, l, "t2", take{Session: "b"})
		return err == nil && string(got.Body) == "1"
	})
	if s := l.Stats(); s.Fences == 0 || !s.Available {
		t.Errorf("stats %+v", s)
	}
	if n := events(t, admin, "slot.taken"); n != 2 {
		t.Errorf("%d effects, want 2", n)
	}
}

func dbOf(t testing.TB, dsn string) *sqlx.DB {
	t.Helper()
	db, err := sqlx.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
