package commands_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

const patience = 20 * time.Second

// newLane makes a lane of its own pool of connections, as a process has.
func newLane(t testing.TB, dsn string, model commands.Model, opts commands.Options) (*commands.Lane, *sqlx.DB) {
	t.Helper()
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{MaxOpen: 4, ApplicationName: "lane"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	log, err := eventstore.Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	}
	return commands.NewLane(log, model, opts), db
}

// runLane runs a lane until the test or the returned function ends it.
func runLane(t testing.TB, l *commands.Lane) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run the lane: %v", err)
			}
		case <-time.After(patience):
			t.Error("the lane does not stop")
		}
	})
	t.Cleanup(stop)
	return stop
}

// started gives a running lane over a fresh database.
func started(t testing.TB, slots int) (*commands.Lane, *sqlx.DB, string) {
	t.Helper()
	dsn := dbtest.DSN(t)
	l, db := newLane(t, dsn, newToy(slots), commands.Options{})
	runLane(t, l)
	return l, db, dsn
}

func do(t testing.TB, l *commands.Lane, id string, cmd any) (commands.Answer, error) {
	t.Helper()
	return l.Do(t.Context(), request(id, cmd))
}

func request(id string, cmd any) commands.Request {
	return commands.Request{Command: cmd, ID: domain.CommandID(id), Hash: fmt.Sprintf("%T %v", cmd, cmd), Meta: eventstore.Meta{DecidedAt: time.Now()}}
}

func code(err error) string {
	if r, ok := domain.AsRefusal(err); ok {
		return r.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func events(t testing.TB, db *sqlx.DB, kind string) (n int) {
	t.Helper()
	if err := db.GetContext(context.Background(), &n, `SELECT count(*) FROM events WHERE type = $1`, kind); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestACommandIsAnsweredOnceAndThenTheSame(t *testing.T) {
	l, db, dsn := started(t, 1)
	other, _ := newLane(t, dsn, newToy(1), commands.Options{})
	runLane(t, other)

	first, err := do(t, l, "c1", take{Session: "a"})
	if err != nil || string(first.Body) != "0" || first.Position != 1 || first.Repeated {
		t.Fatalf("first: %+v %v", first, err)
	}
	_, err = do(t, l, "c2", take{Session: "b", Record: true})
	if code(err) != "no_capacity" {
		t.Fatalf("no slot left: %v", err)
	}
	for name, l := range map[string]*commands.Lane{"the same lane": l, "another process": other} {
		again, err := do(t, l, "c1", take{Session: "a"})
		if err != nil || string(again.Body) != "0" || again.Position != 1 || !again.Repeated {
			t.Errorf("%s, again: %+v %v", name, again, err)
		}
		again, err = do(t, l, "c2", take{Session: "b", Record: true})
		r, _ := domain.AsRefusal(err)
		if r == nil || r.Code != "no_capacity" || r.RetryAfter != time.Second || again.Position != 2 || !again.Repeated {
			t.Errorf("%s, refused again: %+v %v", name, again, err)
		}
		if _, err = do(t, l, "c1", free{Session: "a"}); code(err) != "idempotency_key_reused" {
			t.Errorf("%s, another request under the same key: %v", name, err)
		}
	}
	if events(t, db, "slot.taken") != 1 || events(t, db, "slot.refused") != 1 || events(t, db, "slot.freed") != 0 {
		t.Error("a repetition had an effect")
	}
	if _, err := do(t, l, "", take{Session: "x"}); code(err) != "invalid" {
		t.Errorf("without an id: %v", err)
	}
}

// The same key from 20 clients at the same instant, over two processes: one effect, one answer.
func TestTheSameKeyAtTheSameInstant(t *testing.T) {
	a, db, dsn := started(t, 100)
	b, _ := newLane(t, dsn, newToy(100), commands.Options{})
	runLane(t, b)
	for round := range 10 {
		id := fmt.Sprint("key", round)
		var wg sync.WaitGroup
		answers := make([]string, 20)
		gate := make(chan struct{})
		for i := range answers {
			wg.Go(func() {
				<-gate
				l := []*commands.Lane{a, b}[i%2]
				got, err := l.Do(t.Context(), request(id, take{Session: id}))
				answers[i] = fmt.Sprint(string(got.Body), got.Position, err)
			})
		}
		close(gate)
		wg.Wait()
		for _, got := range answers {
			if got != answers[0] {
				t.Fatalf("different answers: %v", answers)
			}
		}
		if n := events(t, db, "slot.taken"); n != round+1 {
			t.Fatalf("%d effects of %d keys", n, round+1)
		}
	}
}

// What has ended is not in memory, but it is known.
func TestRowsThatAreNotInMemoryAreFetched(t *testing.T) {
	l, db, dsn := started(t, 1)
	for i, want := range []string{`"freed"`, `"already"`, `"already"`} {
		if i == 0 {
			_, _ = do(t, l, "t", take{Session: "a"})
		}
		if got, err := do(t, l, fmt.Sprint("f", i), free{Session: "a"}); string(got.Body) != want || err != nil {
			t.Errorf("free %d: %s %v", i, got.Body, err)
		}
	}
	if _, err := do(t, l, "f9", free{Session: "nobody"}); code(err) != "session_not_found" {
		t.Errorf("free what never was: %v", err)
	}
	// Another process has not seen any of it; and then one ends what only the other knows.
	other, _ := newLane(t, dsn, newToy(1), commands.Options{})
	runLane(t, other)
	if _, err := do(t, other, "t2", take{Session: "a"}); code(err) != "exists" {
		t.Errorf("take an ended session's name: %v", err)
	}
	for i := range 5 {
		s := fmt.Sprint("s", i)
		if _, err := do(t, l, "t"+s, take{Session: s}); err != nil {
			t.Fatal(err)
		}
		if got, err := do(t, other, "f"+s, free{Session: s}); err != nil || string(got.Body) != `"freed"` {
			t.Errorf("free the other's session: %s %v", got.Body, err)
		}
	}
	if n := events(t, db, "slot.freed"); n != 6 {
		t.Errorf("%d slots freed, want 6", n)
	}
}

// A command that leaves no trace is still decided on the newest state, and writes nothing.
func TestTransientCommandsSeeTheNewestState(t *testing.T) {
	a, db, dsn := started(t, 50)
	b, _ := newLane(t, dsn, newToy(50), commands.Options{})
	runLane(t, b)
	transient := func(l *commands.Lane) string {
		got, err := l.Do(t.Context(), commands.Request{Command: look{}, Transient: true})
		if err != nil {
			t.Error(err)
		}
		return string(got.Body)
	}
	for i := range 20 {
		if _, err := do(t, a, fmt.Sprint("t", i), take{Session: fmt.Sprint("s", i)}); err != nil {
			t.Fatal(err)
		}
		if got := transient(b); got != fmt.Sprint(i+1) {
			t.Fatalf("the other process sees %s taken, want %d", got, i+1)
		}
	}
	var answers int
	if err := db.Get(&answers, `SELECT count(*) FROM answers`); err != nil || answers != 20 {
		t.Errorf("%d answers stored, want 20 (%v)", answers, err)
	}
}

// A command that cannot be stored, one that panics and one that fails harm nobody but themselves.
func TestAPoisonedCommandFailsAlone(t *testing.T) {
	l, db, _ := started(t, 1000)
	const clients = 60
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			id := fmt.Sprint("c", i)
			var cmd any = take{Session: id}
			switch i % 20 {
			case 3:
				cmd = store{Text: "\x00"}
			case 7:
				cmd = shock{}
			case 11:
				cmd = wrong{}
			}
			_, errs[i] = do(t, l, id, cmd)
		})
	}
	wg.Wait()
	for i, err := range errs {
		_, refusal := domain.AsRefusal(err)
		if bad := i%20 == 3 || i%20 == 7 || i%20 == 11; bad != (err != nil) || refusal {
			t.Errorf("client %d: %v", i, err)
		}
	}
	if n := events(t, db, "slot.taken"); n != clients-9 {
		t.Errorf("%d effects, want %d", n, clients-9)
	}
	got, err := l.Do(t.Context(), commands.Request{Command: look{}, Transient: true})
	if err != nil || string(got.Body) != fmt.Sprint(clients-9) {
		t.Errorf("the model counts %s taken: %v", got.Body, err)
	}
	if s := l.Stats(); s.Failed != 9 || s.Commands != clients+1 {
		t.Errorf("stats %+v", s)
	}
	if got, err := do(t, l, "last", store{Text: "fine"}); err != nil || got.Position != clients-9+1 {
		t.Errorf("after all: %+v %v", got, err)
	}
}

// A model that contradicts the log is loaded anew, and no command fails for it.
func TestAModelThatContradictsTheLogIsLoadedAnew(t *testing.T) {
	l, _, _ := started(t, 10)
	for i := range 3 {
		if _, err := do(t, l, fmt.Sprint("t", i), take{Session: fmt.Sprint("s", i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Do(t.Context(), commands.Request{Command: skew{}, Transient: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// gated is a toy that waits before deciding, so that commands queue up.
type gated struct {
	*toy
	entered, gate chan struct{}
}

func (g gated) Decide(head int64, cmd any, meta eventstore.Meta) (commands.Decided, error) {
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.gate
	return g.toy.Decide(head, cmd, meta)
}

func TestAFullQueueRefusesAndAStopDrains(t *testing.T) {
	dsn := dbtest.DSN(t)
	g := gated{newToy(100), make(chan struct{}, 1), make(chan struct{})}
	const queue = 5
	l, db := newLane(t, dsn, g, commands.Options{Queue: queue, MaxBatch: 1})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()

	results := make(chan error, 100)
	send := func(ctx context.Context, i int) {
		_, err := l.Do(ctx, request(fmt.Sprint("c", i), take{Session: fmt.Sprint("s", i)}))
		results <- err
	}
	go send(t.Context(), 0)
	<-g.entered // the first is being decided, the others wait
	for i := 1; i < queue; i++ {
		go send(t.Context(), i)
	}
	gone, leave := context.WithCancel(t.Context())
	go send(gone, queue)
	waitFor(t, "the queue is full", func() bool { return l.Stats().Queue == queue })
	send(t.Context(), queue+1)
	if r, ok := domain.AsRefusal(<-results); !ok || r.Code != "busy" || r.RetryAfter <= 0 {
		t.Errorf("with a full queue: %v", r)
	}
	leave() // a client that is gone before its command was begun has no effect
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("gone: %v", err)
	}
	cancel()
	close(g.gate)
	for range queue {
		if err := <-results; err != nil {
			t.Errorf("queued before the stop: %v", err)
		}
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	send(t.Context(), queue+2)
	if r, ok := domain.AsRefusal(<-results); !ok || r.Code != "shutting_down" {
		t.Errorf("after the stop: %v", r)
	}
	if n := events(t, db, "slot.taken"); n != queue {
		t.Errorf("%d effects, want %d", n, queue)
	}
}

// A log that lost its end, by a restore, makes the lane forget what it knows.
func TestAHeadThatWentBackwards(t *testing.T) {
	l, db, _ := started(t, 3)
	for i := range 3 {
		if _, err := do(t, l, fmt.Sprint("t", i), take{Session: fmt.Sprint("s", i)}); err != nil {
			t.Fatal(err)
		}
	}
	tx := db.MustBegin()
	tx.MustExec(`SET LOCAL session_replication_role = replica`)
	for _, q := range []string{
		`DELETE FROM events WHERE position = 3`, `DELETE FROM answers WHERE position = 3`, `DELETE FROM changes WHERE position = 3`, `UPDATE log_head SET position = 2`,
		`DELETE FROM sessions WHERE id = 's2'`, `DELETE FROM resources WHERE id = '2'`, `UPDATE pools SET body = '{"version": 2}', position = 2`,
	} {
		tx.MustExec(q)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, err := do(t, l, "new", take{Session: "new"}); err != nil || string(got.Body) != "2" || got.Position != 3 {
		t.Errorf("the slot that the lost event took: %s at %d, %v", got.Body, got.Position, err)
	}
	if got, err := do(t, l, "t2", take{Session: "s2"}); code(err) != "no_capacity" || got.Repeated {
		t.Errorf("the lost command, again: %+v %v", got, err)
	}
}

// A process that is so far behind that nobody knows any more what changed reads all.
func TestChangesThatAreForgotten(t *testing.T) {
	dsn := dbtest.DSN(t)
	var errs bytes.Buffer // the alarm that the model contradicts the log would mend it too
	behind, db := newLane(t, dsn, newToy(3), commands.Options{Logger: slog.New(slog.NewTextHandler(&errs, &slog.HandlerOptions{Level: slog.LevelError}))})
	stop := runLane(t, behind)
	if _, err := do(t, behind, "t0", take{Session: "s0"}); err != nil {
		t.Fatal(err)
	}
	ahead, _ := newLane(t, dsn, newToy(3), commands.Options{})
	runLane(t, ahead)
	if got, err := do(t, ahead, "t1", take{Session: "s1"}); err != nil || string(got.Body) != "1" {
		t.Fatalf("%+v %v", got, err)
	}
	db.MustExec(`DELETE FROM changes`)
	db.MustExec(`INSERT INTO changes SELECT position, '{}', '{}' FROM log_head`)
	if got, err := do(t, behind, "t2", take{Session: "s2"}); err != nil || string(got.Body) != "2" || got.Position != 3 {
		t.Errorf("%s at %d, %v: the slot of the other process is taken", got.Body, got.Position, err)
	}
	if stop(); errs.Len() > 0 {
		t.Error(errs.String())
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("not within %v: %s", patience, what)
}
