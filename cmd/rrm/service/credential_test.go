package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestCredentials(t *testing.T) {
	const alice, newer, mallory = "Bearer alice-0001", "Bearer alice-0002", "Bearer mallory"
	started := map[domain.ResourceID]string{}
	now := time.Now()
	open := func() *credentials {
		c := newCredentials(func(_ context.Context, id domain.ResourceID) (pool.Resource, error) {
			identity, known := started[id]
			if !known {
				return pool.Resource{}, domain.NotFound("resource", string(id))
			}
			r := pool.Resource{ID: id}
			if identity != "" {
				r.Overrides = &domain.Overrides{Identity: identity}
			}
			return r, nil
		})
		c.now = func() time.Time { return now }
		return c
	}
	c := open()
	keep := func(authorization, identity string) string {
		t.Helper()
		got, err := c.keep(authorization, identity)
		if err != nil || got == "" || strings.Contains(got, "alice") {
			t.Fatalf("keep: %q, %v", got, err)
		}
		return got
	}
	token := func(id domain.ResourceID, want string) {
		t.Helper()
		if got, err := c.token(t.Context(), id); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", id, got, err, want)
		}
	}
	name := keep(alice, "")
	if again := keep(alice, ""); again != name {
		t.Error("the same credential has two names")
	}
	if other := keep(mallory, ""); other == name {
		t.Error("two credentials have one name")
	}
	started["a"], started["own"] = name, ""
	token("a", alice)
	token("own", "")
	token("an-orphan", "")
	token("", "")
	if renewed := keep(newer, name); renewed != name {
		t.Error("a newer credential of a session has another name")
	}
	token("a", newer)

	// Who takes a name over gets nothing that is begun with the first credential afterwards.
	keep(mallory, name)
	if fresh := keep(alice, ""); fresh == name {
		t.Error("what alice begins would be begun as mallory")
	}
	for _, bad := range []string{"", "Digest x", "Bearer a b", "Bearer \x00secret", strings.Repeat("x", 1<<20)} {
		_, err := c.keep(bad, "")
		if r, ok := domain.AsRefusal(err); !ok || r.Kind != domain.KindInvalid || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.20q: %v", bad, err)
		}
	}

	c = open() // rrm is started anew
	if _, err := c.token(t.Context(), "a"); !errors.Is(err, unicore.ErrNoToken) {
		t.Errorf("after a restart: %v", err)
	}
	keep(newer, name)
	token("a", newer)

	// What neither client nor resource needs for a day makes room for others.
	now = now.Add(keepCredentials / 2)
	token("a", newer)
	keep(mallory, "")
	now = now.Add(keepCredentials/2 + time.Minute)
	keep(alice, "")
	token("a", newer)
	now = now.Add(keepCredentials + time.Minute)
	keep("Bearer another", "")
	if _, err := c.token(t.Context(), "a"); !errors.Is(err, unicore.ErrNoToken) || len(c.by) != 1 || len(c.names) != 1 {
		t.Errorf("after days: %v, %d kept", err, len(c.by))
	}
}
