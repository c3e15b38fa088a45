package projections

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// lease writes leases as the append does, ending in the given time from now.
func lease(t testing.TB, db *sqlx.DB, in, seconds time.Duration, sessions ...domain.SessionID) {
	t.Helper()
	for _, s := range sessions {
		mustExec(t, db, `INSERT INTO liveness (kind, id, expires_at, lease_seconds)
			VALUES ('session', $1, clock_timestamp() + $2 * interval '1 second', $3)`, string(s), in.Seconds(), seconds.Seconds())
	}
}

func wantExpiry(t *testing.T, what string, at time.Time, ok bool, err error, in time.Duration) {
	t.Helper()
	if err != nil || !ok {
		t.Fatalf("%s: ok %v, %v", what, ok, err)
	}
	if d := time.Until(at); d > in || d < in-10*time.Second {
		t.Errorf("%s: the lease ends in %v, want %v", what, d, in)
	}
}

func TestRenew(t *testing.T) {
	db := dbtest.New(t)
	l, ctx := NewLeases(db), t.Context()
	lease(t, db, time.Second, time.Minute, "s1", "s2")
	at, ok, err := l.Renew(ctx, "s1", 0)
	wantExpiry(t, "as before", at, ok, err, time.Minute)
	at, ok, err = l.Renew(ctx, "s1", time.Hour)
	wantExpiry(t, "extended", at, ok, err, time.Hour)
	mustExec(t, db, `UPDATE liveness SET expires_at = clock_timestamp() WHERE id = 's1'`)
	at, ok, err = l.Renew(ctx, "s1", 0)
	wantExpiry(t, "as extended", at, ok, err, time.Hour)
	at, ok, err = l.Renew(ctx, "s1", 500*time.Millisecond)
	wantExpiry(t, "shortened by wish", at, ok, err, 500*time.Millisecond)
	mustExec(t, db, `UPDATE liveness SET expires_at = clock_timestamp() + interval '1 hour' WHERE id = 's1'`)
	at, ok, err = l.Renew(ctx, "s1", 0)
	wantExpiry(t, "never shortened without a wish", at, ok, err, time.Hour)
	if count(t, db, `SELECT count(*) FROM liveness WHERE id = 's2' AND expires_at < clock_timestamp() + interval '1 second'`) != 1 {
		t.Error("the renewal of one changed another")
	}
	for _, s := range []domain.SessionID{"none", "a\x00"} {
		if at, ok, err := l.Renew(ctx, s, 0); ok || err != nil || !at.IsZero() {
			t.Errorf("%q is renewed: %v, %v, %v", s, at, ok, err)
		}
	}
	_, _, err = l.Renew(ctx, "s1", -time.Second)
	wantRefusal(t, err, domain.KindInvalid, "invalid", "lease")
}

func TestRenewMany(t *testing.T) {
	db := dbtest.New(t)
	l, ctx := NewLeases(db), t.Context()
	lease(t, db, time.Second, time.Minute, "s1", "s2", "s3", "s4")
	lease(t, db, time.Hour, time.Minute, "long")
	mustExec(t, db, `UPDATE liveness SET claimed = true WHERE id = 's3'`)
	tx, err := db.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec(`SELECT 1 FROM liveness WHERE id = 's4' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	got, err := l.RenewMany(ctx, []domain.SessionID{"s1", "s2", "s2", "s3", "s4", "none", "a\x00", "long"})
	if err != nil || len(got) != 3 {
		t.Fatalf("renewed %v, %v", got, err)
	}
	for s, in := range map[domain.SessionID]time.Duration{"s1": time.Minute, "s2": time.Minute, "long": time.Hour} {
		at, ok := got[s]
		wantExpiry(t, string(s), at, ok, nil, in)
	}
	if got, err := l.RenewMany(ctx, nil); err != nil || len(got) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
	if _, err := l.RenewMany(ctx, make([]domain.SessionID, MaxBatch+1)); err == nil {
		t.Error("more than the bound are renewed")
	}
}

func TestClaimExpired(t *testing.T) {
	db := dbtest.New(t)
	l, ctx := NewLeases(db), t.Context()
	lease(t, db, -time.Minute, time.Minute, "older")
	lease(t, db, -time.Second, time.Minute, "old")
	lease(t, db, time.Hour, time.Minute, "good")
	mustExec(t, db, `INSERT INTO liveness (kind, id, expires_at) VALUES ('resource', 'r', clock_timestamp() - interval '1 hour')`)
	claim := func(limit int, want ...domain.SessionID) {
		t.Helper()
		got, err := l.ClaimExpired(ctx, limit)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("claimed %v, %v, want %v", got, err, want)
		}
	}
	claim(1, "older")
	claim(10, "old")
	claim(10)
	if at, ok, err := l.Renew(ctx, "old", time.Hour); ok || err != nil {
		t.Errorf("a claimed lease is renewed: %v, %v", at, err)
	}
	if got, err := l.RenewMany(ctx, []domain.SessionID{"old"}); len(got) != 0 || err != nil {
		t.Errorf("a claimed lease is renewed: %v, %v", got, err)
	}
	mustExec(t, db, `UPDATE liveness SET updated_at = clock_timestamp() - $1 * interval '1 second' WHERE id = 'old'`, (reclaimAfter + time.Second).Seconds())
	claim(10, "old")
	claim(10)
}

// A session whose resource was lost keeps its lease while it waits for another; that must not end it.
func TestClaimLeavesWhoWaits(t *testing.T) {
	w := newWorld(t)
	l := NewLeases(w.db)
	w.renderer("a", 1)
	w.do(pool.BookResource{Session: "s1", Renderer: "a", Model: "m", Owner: "alice", Wait: time.Hour, Lease: time.Minute, OnLost: pool.OnLostMove})
	w.serve("a")
	expire := func() { mustExec(t, w.db, `UPDATE liveness SET expires_at = clock_timestamp() - interval '1 second'`) }
	lost := w.state.Session("s1").Resource
	w.do(pool.ReportLost{Resource: lost, Reason: "killed"})
	if s := w.state.Session("s1"); !s.Waiting() {
		t.Fatalf("the moved session is %s", s.State)
	}
	expire()
	if got, err := l.ClaimExpired(t.Context(), 10); err != nil || len(got) != 0 {
		t.Fatalf("claimed %v, %v, of a session that waits", got, err)
	}
	if v, err := w.reader.Session(t.Context(), "s1"); err != nil || v.LeaseExpiresAt != nil {
		t.Errorf("the session that waits shows a lease: %s, %v", asJSON(t, v), err)
	}
	w.pass(time.Hour)
	w.do(pool.Tick{})
	w.serve("a")
	v, err := w.reader.Session(t.Context(), "s1")
	w.ok(err)
	if v.State != pool.SessionStateReady || v.Resource == lost || v.LeaseExpiresAt == nil || time.Until(*v.LeaseExpiresAt) < 50*time.Second {
		t.Fatalf("the moved session is %s", asJSON(t, v))
	}
	expire()
	if got, err := l.ClaimExpired(t.Context(), 10); err != nil || len(got) != 1 {
		t.Fatalf("claimed %v, %v, of a session that is ready", got, err)
	}
	w.do(pool.ExpireSession{Session: "s1"})
	if n := count(t, w.db, `SELECT count(*) FROM liveness`); n != 0 {
		t.Errorf("%d leases are left of a session that ended", n)
	}
}

// Many renew short leases, of ever fewer sessions, while others claim. No renewal
// that was acknowledged is followed by a claim within its time, and none is
// acknowledged after the claim.
func TestClaimAgainstRenew(t *testing.T) {
	// Short leases show most. On a machine that is so busy that they all end before anyone renews, longer ones.
	for long := 10 * time.Millisecond; !claimAgainstRenew(t, long); long *= 4 {
		if long > time.Second {
			t.Fatalf("hardly a lease of %s was renewed: this shows little", long)
		}
	}
}

// claimAgainstRenew says whether enough was renewed to show something.
func claimAgainstRenew(t *testing.T, long time.Duration) bool {
	t.Helper()
	db := dbtest.New(t)
	l, ctx := NewLeases(db), t.Context()
	l.reclaim = time.Hour // this machine may be slow
	const sessions, renewers, claimers = 60, 6, 2
	// All leases are of one length: a shorter one would rightly end what was acknowledged before.
	const during = time.Second
	ids := make([]domain.SessionID, sessions)
	for i := range ids {
		ids[i] = domain.SessionID(fmt.Sprintf("s%02d", i))
	}
	lease(t, db, long, long, ids...)
	var mu sync.Mutex
	acked, claimed, acks := map[domain.SessionID]time.Time{}, map[domain.SessionID]int{}, 0
	note := func(s domain.SessionID, at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		acks++
		if at.After(acked[s]) {
			acked[s] = at
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range renewers {
		wg.Go(func() {
			chance := rand.New(rand.NewPCG(uint64(i), 7))
			for {
				n := sessions - int(sessions*time.Since(start)/during)
				if n <= 0 {
					return
				}
				if err := renewSome(t, l, chance, ids[:n], long, note); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range claimers {
		wg.Go(func() {
			for all := false; !all && time.Since(start) < patience; {
				got, err := l.ClaimExpired(ctx, 5)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, s := range got {
					claimed[s]++
				}
				all = len(claimed) == sessions
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	checkClaims(t, db, acked, claimed)
	return acks >= sessions
}

// renewSome renews one session, with or without a lease, or several at once.
func renewSome(t *testing.T, l *Leases, chance *rand.Rand, ids []domain.SessionID, long time.Duration, note func(domain.SessionID, time.Time)) error {
	first := chance.IntN(len(ids))
	if chance.IntN(4) == 0 {
		got, err := l.RenewMany(t.Context(), ids[first:])
		for s, at := range got {
			note(s, at)
		}
		return err
	}
	at, ok, err := l.Renew(t.Context(), ids[first], time.Duration(chance.IntN(2))*long)
	if ok {
		note(ids[first], at)
	}
	return err
}

func checkClaims(t *testing.T, db *sqlx.DB, acked map[domain.SessionID]time.Time, claimed map[domain.SessionID]int) {
	t.Helper()
	var rows []struct {
		ID        domain.SessionID
		ExpiresAt time.Time `db:"expires_at"`
		Claimed   bool
		UpdatedAt time.Time `db:"updated_at"`
	}
	if err := db.Select(&rows, `SELECT id, expires_at, claimed, updated_at FROM liveness`); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if !r.Claimed || claimed[r.ID] != 1 {
			t.Errorf("%s was claimed %d times, its row says %v", r.ID, claimed[r.ID], r.Claimed)
		}
		if acked[r.ID].After(r.UpdatedAt) {
			t.Errorf("%s was claimed at %v although a renewal until %v was acknowledged", r.ID, r.UpdatedAt, acked[r.ID])
		}
		if acked[r.ID].After(r.ExpiresAt) {
			t.Errorf("%s: a renewal until %v was acknowledged, the row that was claimed says %v", r.ID, acked[r.ID], r.ExpiresAt)
		}
	}
}

func TestProgress(t *testing.T) {
	db := dbtest.New(t)
	l, ctx := NewLeases(db), t.Context()
	set := func(all ...Progress) {
		t.Helper()
		if err := l.SetProgress(ctx, all); err != nil {
			t.Fatal(err)
		}
	}
	set()
	set(Progress{Kind: "job", ID: "j1", Value: 0.1}, Progress{Kind: "job", ID: "j2", Value: 7},
		Progress{Kind: "job", ID: "j1", Value: 0.2, Detail: json.RawMessage(`{"frame": 3}`)}, Progress{Kind: "resource", ID: "j1", Value: math.NaN()})
	got, err := l.Progress(ctx, "job", []string{"j1", "j2", "none", "a\x00"})
	if err != nil || len(got) != 2 || got["j1"].Value != 0.2 || string(got["j1"].Detail) != `{"frame": 3}` || got["j2"].Value != 1 || got["j1"].UpdatedAt.IsZero() {
		t.Errorf("the progress is %+v, %v", got, err)
	}
	set(Progress{Kind: "job", ID: "j1", Value: -1})
	if got, err = l.Progress(ctx, "job", []string{"j1"}); err != nil || got["j1"].Value != 0 || string(got["j1"].Detail) != "{}" {
		t.Errorf("the progress is %+v, %v", got, err)
	}
	if got, err = l.Progress(ctx, "resource", []string{"j1"}); err != nil || got["j1"].Value != 0 || len(got) != 1 {
		t.Errorf("the other kind's progress is %+v, %v", got, err)
	}
	for _, bad := range []Progress{{Kind: "session", ID: "s"}, {ID: "j"}, {Kind: "job", ID: "a\x00"}} {
		if err := l.SetProgress(ctx, []Progress{bad}); err == nil {
			t.Errorf("%+v is noted", bad)
		}
	}
	if err := l.SetProgress(ctx, make([]Progress, MaxBatch+1)); err == nil {
		t.Error("more than the bound are noted")
	}
}

func TestForget(t *testing.T) {
	db := dbtest.New(t)
	l, ctx := NewLeases(db), t.Context()
	lease(t, db, time.Hour, time.Minute, "s1")
	if err := l.SetProgress(ctx, []Progress{{Kind: "job", ID: "old"}, {Kind: "job", ID: "new"}, {Kind: "resource", ID: "old"}}); err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, `UPDATE liveness SET updated_at = clock_timestamp() - interval '2 hours' WHERE id <> 'new'`)
	if n, err := l.Forget(ctx, "job", time.Hour); err != nil || n != 1 {
		t.Errorf("forgot %d, %v", n, err)
	}
	if n := count(t, db, `SELECT count(*) FROM liveness WHERE (kind, id) IN (('job', 'new'), ('resource', 'old'), ('session', 's1'))`); n != 3 {
		t.Errorf("%d of the others are left", n)
	}
	if _, err := l.Forget(ctx, "session", time.Hour); err == nil {
		t.Error("leases can be forgotten")
	}
}

// Two that note progress of the same things in opposite order do not wait for each other for ever.
func TestProgressWithoutDeadlock(t *testing.T) {
	db := dbtest.New(t)
	l, ctx := NewLeases(db), t.Context()
	var up []Progress
	for i := range 50 {
		up = append(up, Progress{Kind: "job", ID: fmt.Sprintf("j%02d", i), Value: 0.5})
	}
	down := slices.Clone(up)
	slices.Reverse(down)
	var wg sync.WaitGroup
	for _, all := range [][]Progress{up, down, up, down} {
		wg.Go(func() {
			for range 25 {
				if err := l.SetProgress(ctx, all); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
