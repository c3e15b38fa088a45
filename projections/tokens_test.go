package projections

import (
	"bytes"
	"encoding/base64"
	"strings"
	"sync"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

func TestTokens(t *testing.T) {
	db := dbtest.New(t)
	tokens, ctx := NewTokens(db), t.Context()
	if any, err := tokens.Any(ctx); err != nil || any {
		t.Fatalf("before the first: %v, %v", any, err)
	}
	secrets := map[string]string{} // by role
	ids := map[string]string{}
	for _, role := range []string{RoleClient, RoleOperator, RoleAuditor} {
		id, secret, err := tokens.Create(ctx, role, "alice")
		if err != nil {
			t.Fatal(err)
		}
		letter, chance, ok := strings.Cut(strings.TrimPrefix(secret, "rrm_"), "_")
		raw, err := base64.RawURLEncoding.DecodeString(chance)
		if !ok || letter != role[:1] || err != nil || len(raw) != 32 || len(chance) != 43 {
			t.Errorf("the secret of a %s is %q", role, secret)
		}
		secrets[role], ids[role] = secret, id
	}
	for role, secret := range secrets {
		got, ok, err := tokens.Lookup(ctx, secret)
		if err != nil || !ok || got.ID != ids[role] || got.Owner != "alice" || got.Role != role {
			t.Errorf("the secret of a %s gives %+v, %v, %v", role, got, ok, err)
		}
	}
	all, err := tokens.List(ctx)
	if err != nil || len(all) != 3 || all[0].ID != ids[RoleClient] || all[0].LastUsedAt == nil || all[0].CreatedAt.IsZero() {
		t.Errorf("the list is %+v, %v", all, err)
	}
	revoke := func(id string) {
		t.Helper()
		if err := tokens.Revoke(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	revoke(ids[RoleClient])
	all, _ = tokens.List(ctx)
	first := all[0].RevokedAt
	revoke(ids[RoleClient])
	all, _ = tokens.List(ctx)
	if first == nil || !all[0].RevokedAt.Equal(*first) {
		t.Errorf("revoked at %v, again at %v", first, all[0].RevokedAt)
	}
	if _, ok, err := tokens.Lookup(ctx, secrets[RoleClient]); ok || err != nil {
		t.Errorf("a revoked token is found, %v", err)
	}
	revoke(ids[RoleOperator])
	revoke(ids[RoleAuditor])
	if any, err := tokens.Any(ctx); err != nil || !any {
		t.Errorf("with all revoked it looks as if none was ever made: %v, %v", any, err)
	}
}

func TestTokenSecretIsNotStored(t *testing.T) {
	db := dbtest.New(t)
	_, secret, err := NewTokens(db).Create(t.Context(), RoleClient, "alice")
	if err != nil {
		t.Fatal(err)
	}
	var row string
	var hash []byte
	if err := db.QueryRow(`SELECT tokens::text, hash FROM tokens`).Scan(&row, &hash); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(row, secret[6:]) || bytes.Contains(hash, []byte(secret)) || len(hash) != 32 {
		t.Errorf("the row is %s", row)
	}
}

func TestTokensRefuse(t *testing.T) {
	tokens, ctx := NewTokens(dbtest.New(t)), t.Context()
	for _, c := range []struct{ role, owner, field string }{
		{"root", "alice", "role"}, {"", "alice", "role"}, {RoleClient, "", "owner"}, {RoleClient, "a\x00", "owner"},
		{RoleClient, strings.Repeat("a", domain.MaxOwner+1), "owner"},
	} {
		_, _, err := tokens.Create(ctx, c.role, c.owner)
		wantRefusal(t, err, domain.KindInvalid, "invalid", c.field)
	}
	for _, id := range []string{"none", "a\x00"} {
		wantRefusal(t, tokens.Revoke(ctx, id), domain.KindNotFound, "token_not_found", "")
	}
	_, secret, err := tokens.Create(ctx, RoleClient, "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"", "rrm_c_", secret + "A", secret[:len(secret)-1], " " + secret, strings.Replace(secret, "_c_", "_o_", 1), "rrm_c_" + strings.Repeat("\x00", 43)} {
		if got, ok, err := tokens.Lookup(ctx, s); ok || err != nil {
			t.Errorf("%q gives %+v, %v", s, got, err)
		}
	}
}

// The use of a token is noted at most once a minute, and nobody waits for who notes it.
func TestTokenUse(t *testing.T) {
	db := dbtest.New(t)
	tokens, ctx := NewTokens(db), t.Context()
	id, secret, err := tokens.Create(ctx, RoleClient, "alice")
	if err != nil {
		t.Fatal(err)
	}
	lookup := func() {
		t.Helper()
		if _, ok, err := tokens.Lookup(ctx, secret); !ok || err != nil {
			t.Fatalf("look up: %v, %v", ok, err)
		}
	}
	version := func() (xmin int64) { return count(t, db, `SELECT xmin::text::bigint FROM tokens`) }
	lookup()
	noted := version()
	lookup()
	if version() != noted {
		t.Error("a second use within the minute was written")
	}
	mustExec(t, db, `UPDATE tokens SET last_used_at = clock_timestamp() - interval '61 seconds'`)
	old := version()
	tx, err := db.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`SELECT 1 FROM tokens WHERE id = $1 FOR UPDATE`, id); err != nil {
		t.Fatal(err)
	}
	lookup() // must not wait for the lock
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if version() != old {
		t.Error("the row was written while it was locked")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, ok, err := tokens.Lookup(ctx, secret); !ok || err != nil {
				t.Errorf("look up: %v, %v", ok, err)
			}
		})
	}
	wg.Wait()
	if version() == old {
		t.Error("a use after more than a minute was not written")
	}
}
