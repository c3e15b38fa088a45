package eventstore_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/rendering-resource-manager/rrm/eventstore"
)

func ids(rows []eventstore.Row) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.View+"/"+r.ID)
	}
	slices.Sort(out)
	return out
}

func TestLiveLeavesOutWhatHasEnded(t *testing.T) {
	log, _ := open(t)
	write(t, log, row("service", "admission", `{}`), row("pools", "a", `{}`), row("models", "a/m", `{}`), row("resources", "r1", `{"ended": true}`),
		row("resources", "r2", `{}`), row("sessions", "s1", `{"ended": true}`), row("sessions", "s2", `{"ended": false}`), row("jobs", "j1", `{}`))
	write(t, log, row("jobs", "j1", `{"ended": true}`), row("jobs", "j2", `{}`))

	live := must[eventstore.Delta](t)(log.Live(t.Context()))
	if want := []string{"jobs/j2", "models/a/m", "pools/a", "resources/r2", "service/admission", "sessions/s2"}; !slices.Equal(ids(live.Rows), want) {
		t.Errorf("live rows %v, want %v", ids(live.Rows), want)
	}
	since := must[eventstore.Delta](t)(log.Since(t.Context(), 1))
	if want := []string{"jobs/j1", "jobs/j2"}; !slices.Equal(ids(since.Rows), want) || since.Position != 2 {
		t.Errorf("rows since 1: %v at %d, want %v", ids(since.Rows), since.Position, want)
	}
	rows := must[[]eventstore.Row](t)(log.Rows(t.Context(), []eventstore.Ref{{View: "sessions", ID: "s1"}, {View: "jobs", ID: "j1"}, {View: "jobs", ID: "none"}}))
	if want := []string{"jobs/j1", "sessions/s1"}; !slices.Equal(ids(rows), want) {
		t.Errorf("rows %v, want %v", ids(rows), want)
	}
	if _, err := log.Rows(t.Context(), []eventstore.Ref{{View: "tokens", ID: "x"}}); err == nil {
		t.Error("tokens were read as a live view")
	}
}

// What changed is known for a while; whoever asks for longer is told to read all.
func TestChangesAreForgotten(t *testing.T) {
	log, db := open(t)
	for i := range 10 {
		write(t, log, row("jobs", fmt.Sprint("j", i), `{}`), row("pools", "a", `{}`))
	}
	if err := log.PruneChangesTo(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db, `SELECT count(*) FROM changes`); n != 5 {
		t.Errorf("%d changes are left", n)
	}
	for since, want := range map[int64]int{6: 5, 9: 2, 10: 0} {
		if d := must[eventstore.Delta](t)(log.Since(t.Context(), since)); d.Forgotten || len(d.Rows) != want || d.Position != 10 {
			t.Errorf("since %d: %+v", since, d)
		}
	}
	if d := must[eventstore.Delta](t)(log.Since(t.Context(), 5)); !d.Forgotten || len(d.Rows) != 0 || d.Position != 10 {
		t.Errorf("since a position that is forgotten: %+v", d)
	}
	if err := log.PruneChangesTo(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if d := must[eventstore.Delta](t)(log.Since(t.Context(), 10)); d.Forgotten {
		t.Error("the head itself is forgotten")
	}
	if err := log.PruneChanges(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An update that changes no indexed column writes no index: of views that change with nearly every command.
func TestUpdatesOfHotRowsWriteNoIndex(t *testing.T) {
	log, db := open(t)
	for range 50 {
		write(t, log, row("pools", "a", `{"seq": 1}`), row("models", "a/m", `{"seq": 2, "renderer": "a"}`), row("resources", "r", `{"seq": 3, "renderer": "a", "state": "ready"}`))
	}
	eventually(t, "updates are counted", func() bool {
		return count(t, db, `SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE relname IN ('pools', 'models', 'resources')`) == 147
	})
	if n := count(t, db, `SELECT sum(n_tup_upd - n_tup_hot_upd) FROM pg_stat_user_tables WHERE relname IN ('pools', 'models', 'resources')`); n > 7 {
		t.Errorf("%d of 147 updates wrote the indexes anew", n)
	}
}

// A session has a lease from the commit that makes it ready until the one that ends it.
func TestALeaseBeginsAndEndsWithTheSession(t *testing.T) {
	log, db := open(t)
	lease := func() (s string) {
		t.Helper()
		err := db.Get(&s, `SELECT coalesce(string_agg(id || ' ' || (detail->>'resource') || ' ' || lease_seconds || ' ' || round(extract(epoch FROM expires_at - updated_at)) || ' ' || claimed, ','), '') FROM liveness WHERE kind = 'session'`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	write(t, log, row("sessions", "s1", `{"state": "loading", "resource": "r1", "lease_seconds": 30}`))
	if got := lease(); got != "" {
		t.Errorf("while loading: %s", got)
	}
	write(t, log, row("sessions", "s1", `{"state": "ready", "resource": "r1", "lease_seconds": 30}`))
	if got := lease(); got != "s1 r1 30 30 false" {
		t.Errorf("when ready: %s", got)
	}
	// Renewed by someone, and claimed: what else happens to the session leaves that alone.
	db.MustExec(`UPDATE liveness SET expires_at = updated_at + interval '50 s', claimed = true`)
	write(t, log, row("sessions", "s1", `{"state": "ready", "resource": "r1", "lease_seconds": 30, "url": "x"}`))
	if got := lease(); got != "s1 r1 30 50 true" {
		t.Errorf("after another change: %s", got)
	}
	write(t, log, row("sessions", "s1", `{"state": "ready", "resource": "r2", "lease_seconds": 40}`))
	if got := lease(); got != "s1 r2 40 40 false" {
		t.Errorf("moved to another resource: %s", got)
	}
	write(t, log, row("sessions", "s1", `{"state": "released", "ended": true, "resource": "r2", "lease_seconds": 40}`))
	if got := lease(); got != "" {
		t.Errorf("after the end: %s", got)
	}
}

// Appends and deltas read big views by index only, whatever the planner's statistics say.
func TestAppendsDoNotScanTheViews(t *testing.T) {
	log, db := open(t)
	db.SetMaxOpenConns(1) // so that the counters of the one connection are all there are
	db.MustExec(`INSERT INTO sessions (id, body, position) SELECT 's' || i, jsonb_build_object('state', 'ready', 'renderer', 'a', 'seq', i), i FROM generate_series(1, 20000) i ORDER BY random()`)
	db.MustExec(`INSERT INTO jobs (id, body, position) SELECT 'j' || i, jsonb_build_object('state', 'queued', 'renderer', 'a', 'seq', i), i FROM generate_series(1, 20000) i ORDER BY random()`)
	db.MustExec(`INSERT INTO liveness (kind, id, expires_at, lease_seconds) SELECT 'session', 's' || i, now(), 1 FROM generate_series(1, 20000) i`)
	db.MustExec(`INSERT INTO answers (command_id, hash, answer, position) SELECT 'c' || i, '', '{}', 0 FROM generate_series(1, 20000) i`)
	db.MustExec(`INSERT INTO changes SELECT 1, array_agg(v), array_agg(i) FROM (SELECT 'sessions', id FROM sessions UNION ALL SELECT 'jobs', id FROM jobs) AS x(v, i)`)
	db.MustExec(`UPDATE log_head SET position = 20000`)
	db.MustExec(`ANALYZE`)
	scans := func() int64 {
		t.Helper()
		db.MustExec(`SELECT pg_stat_force_next_flush()`)
		return count(t, db, `SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables WHERE relname IN ('sessions', 'jobs', 'liveness', 'answers')`)
	}
	// Full reads first: after five of them a plan made for full reads would be kept for small ones.
	for range 6 {
		if d := must[eventstore.Delta](t)(log.Since(t.Context(), 0)); len(d.Rows) != 40000 {
			t.Fatalf("%d rows", len(d.Rows))
		}
	}
	before := scans()
	for i := range 6 {
		rows := []eventstore.Row{row("jobs", "j9", `{}`), row("jobs", fmt.Sprint("new", i), `{}`)}
		for s := range 100 { // enough for a hash join with all leases to look cheap
			rows = append(rows, row("sessions", fmt.Sprint("s", 100*i+s+1), `{"ended": true}`))
		}
		rows = append(rows, row("sessions", "s20000", fmt.Sprintf(`{"state": "ready", "resource": "r%d", "lease_seconds": 1}`, i)))
		at := write(t, log, rows...)
		if d := must[eventstore.Delta](t)(log.Since(t.Context(), at-1)); len(d.Rows) != len(rows) {
			t.Fatalf("%d rows since %d, want %d", len(d.Rows), at-1, len(rows))
		}
	}
	if n := scans() - before; n != 0 {
		t.Errorf("%d sequential scans of big tables", n)
	}
}

// A connection keeps the plan that it made when it was new, perhaps on empty tables. What an append looks at must not
// grow with what there is, although nothing has been analysed.
func TestAppendsStayCheapOnAPlanOfEmptyViews(t *testing.T) {
	log, db := open(t)
	db.SetMaxOpenConns(1)
	const sessions = 50
	pages := func() int64 {
		t.Helper()
		db.MustExec(`SELECT pg_stat_force_next_flush()`)
		return count(t, db, `SELECT sum(heap_blks_hit + idx_blks_hit) FROM pg_statio_user_tables WHERE relname IN ('sessions', 'liveness')`)
	}
	batch := func(n int, state string, ended bool) {
		var rows []eventstore.Row
		for s := range sessions {
			rows = append(rows, row("sessions", fmt.Sprintf("s%d-%d", n, s), fmt.Sprintf(`{"state": %q, "ended": %t, "resource": "r", "lease_seconds": 60}`, state, ended)))
		}
		write(t, log, rows...)
	}
	batch(0, "loading", false)
	for n := range 60 {
		batch(n, "ready", false)
	}
	before := pages()
	batch(30, "released", true)
	if n := pages() - before; n > 40*sessions {
		t.Errorf("%d pages were looked at to end %d sessions", n, sessions)
	}
	if n := count(t, db, `SELECT count(*) FROM liveness`); n != 59*sessions {
		t.Errorf("%d leases are left", n)
	}
}
