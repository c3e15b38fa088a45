package projections

import (
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// A token is good for its own resource until another is made, and is not stored.
func TestHeartbeatTokens(t *testing.T) {
	db := dbtest.New(t)
	h, ctx := NewHeartbeats(db), t.Context()
	first, err := h.Enrol(ctx, "gpu.1-a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.Enrol(ctx, "gpu.1")
	if err != nil {
		t.Fatal(err)
	}
	is := func(secret string, want domain.ResourceID) {
		t.Helper()
		id, ok, err := h.Lookup(ctx, secret)
		if err != nil || ok != (want != "") || ok && id != want {
			t.Errorf("%.20s: %q, %v, %v; want %q", secret, id, ok, err, want)
		}
	}
	is(first, "gpu.1-a")
	is(other, "gpu.1")
	_, secret, _ := strings.Cut(other, "gpu.1.")
	for _, wrong := range []string{
		"", "rrm_h_", HeartbeatTokenPrefix + "gpu.1-a." + secret, HeartbeatTokenPrefix + "none." + secret, other + "x", other[:len(other)-1] + "~",
		HeartbeatTokenPrefix + "gpu\x00." + secret,
	} {
		is(wrong, "")
	}
	second, err := h.Enrol(ctx, "gpu.1-a")
	if err != nil {
		t.Fatal(err)
	}
	is(first, "")
	is(second, "gpu.1-a")
	if n := count(t, db, `SELECT count(*) FROM liveness WHERE detail::text LIKE '%' || $1 || '%'`, secret); n != 0 {
		t.Error("the secret is stored")
	}
	if _, err := h.Enrol(ctx, "a b"); err == nil {
		t.Error("a resource that cannot be was enrolled")
	}
}

// A heartbeat counts by the database's clock; being asked to stop is none, and who has left is not heard of any more.
func TestHeartbeats(t *testing.T) {
	db := dbtest.New(t)
	h, ctx := NewHeartbeats(db), t.Context()
	ages := func(want ...domain.ResourceID) map[domain.ResourceID]time.Duration {
		t.Helper()
		got, err := h.Ages(ctx, []domain.ResourceID{"r1", "r2", "never", "a\x00"})
		if err != nil || len(got) != len(want) {
			t.Fatalf("ages: %v, %v; want those of %v", got, err, want)
		}
		for _, id := range want {
			if _, ok := got[id]; !ok {
				t.Fatalf("ages: %v has no %s", got, id)
			}
		}
		return got
	}
	for _, id := range []domain.ResourceID{"r1", "r2"} {
		if _, err := h.Enrol(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	mustExec(t, db, `UPDATE liveness SET updated_at = clock_timestamp() - interval '7 seconds'`)
	if err := h.AskToStop(ctx, "r1"); err != nil {
		t.Fatal(err)
	}
	if a := ages("r1", "r2")["r1"]; a < 7*time.Second || a > 17*time.Second {
		t.Errorf("last heard of %s ago, want 7 s", a)
	}
	for id, want := range map[domain.ResourceID]bool{"r1": true, "r2": false} {
		if stop, err := h.Beat(ctx, id); err != nil || stop != want {
			t.Errorf("%s is to stop: %v, %v", id, stop, err)
		}
	}
	if a := ages("r1", "r2"); a["r1"] > 5*time.Second || a["r2"] > 5*time.Second {
		t.Errorf("after heartbeats: %v", a)
	}
	for range 2 {
		if err := h.Leave(ctx, "r1"); err != nil {
			t.Fatal(err)
		}
	}
	ages("r2")
	if stop, err := h.Beat(ctx, "r1"); err != nil || !stop {
		t.Errorf("a heartbeat after leaving: %v, %v", stop, err)
	}
	ages("r2")
	if err := h.Leave(ctx, "a\x00"); err != nil {
		t.Error(err)
	}
	if _, err := h.Ages(ctx, make([]domain.ResourceID, MaxBatch+1)); err == nil {
		t.Error("more than MaxBatch were read")
	}
	mustExec(t, db, `UPDATE liveness SET updated_at = clock_timestamp() - interval '1 day' WHERE id = 'r1'`)
	if n, err := NewLeases(db).Forget(ctx, ObservedHeartbeat, time.Hour); err != nil || n != 1 {
		t.Errorf("forgot %d, %v", n, err)
	}
}
