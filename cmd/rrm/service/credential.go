package service

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Bounds of what is kept of clients' credentials.
const (
	maxCredentials  = 10_000
	keepCredentials = 24 * time.Hour // after neither a client sent it nor a resource needed it
	maxResourcesOf  = 10_000
)

// credentials are the Authorizations that clients of version 1 sent, for the resources that
// were started for them. They are in memory only: on record is a name made by chance, the identity,
// which sessions and resources of the same credential share. After a restart of rrm
// a credential is known again when its client sends it again.
type credentials struct {
	resource func(context.Context, domain.ResourceID) (pool.Resource, error)
	now      func() time.Time

	mu    sync.Mutex
	by    map[string]*credential       // by identity
	names map[[sha256.Size]byte]string // of credentials: identity
	of    map[domain.ResourceID]string // identity of a resource, which never changes; empty: the service's own
}

// credential is one client's at the site. It must not be printed.
type credential struct {
	authorization string
	used          time.Time
}

func newCredentials(resource func(context.Context, domain.ResourceID) (pool.Resource, error)) *credentials {
	return &credentials{
		resource: resource, now: time.Now,
		by: map[string]*credential{}, names: map[[sha256.Size]byte]string{}, of: map[domain.ResourceID]string{},
	}
}

// keepCredential is for version 1's Config: nil where nobody needs credentials.
func (s *Service) keepCredential() func(authorization, identity string) (string, error) {
	if s.credentials == nil {
		return nil
	}
	return s.credentials.keep
}

// keep keeps an Authorization and gives its identity: that which is given, else the one
// that it has, else a new one. Errors do not quote it.
func (c *credentials) keep(authorization, identity string) (string, error) {
	if err := unicore.CheckToken(authorization); err != nil {
		return "", domain.Invalid("Authorization", "the header cannot be passed on to the UNICORE site: %v", err)
	}
	hash := sha256.Sum256([]byte(authorization))
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if identity == "" {
		identity = c.names[hash]
		if k := c.by[identity]; k == nil || k.authorization != authorization {
			identity = rand.Text() // also where another took the name over: what begins now is this one's
		}
	}
	if c.by[identity] == nil {
		if c.forget(now); len(c.by) >= maxCredentials {
			return "", domain.Unavailable("busy", time.Minute, "more than %d credentials are in use", maxCredentials)
		}
	}
	c.by[identity] = &credential{authorization, now}
	c.names[hash] = identity
	return identity, nil
}

// forget drops what nobody used for long. The caller holds c.mu.
func (c *credentials) forget(now time.Time) {
	for identity, k := range c.by {
		if now.Sub(k.used) > keepCredentials {
			delete(c.by, identity)
		}
	}
	for hash, identity := range c.names {
		if c.by[identity] == nil {
			delete(c.names, hash)
		}
	}
}

// token is what a resource is started, watched and stopped with: the credential of those
// for whom it was started; empty, the service's own, for all others.
func (c *credentials) token(ctx context.Context, id domain.ResourceID) (string, error) {
	if id == "" {
		return "", nil
	}
	identity, err := c.identity(ctx, id)
	if err != nil || identity == "" {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.by[identity]
	if k == nil {
		return "", fmt.Errorf("%w: it was started with a client's, rrm was started anew since, and the client has not sent it again", unicore.ErrNoToken)
	}
	k.used = c.now()
	return k.authorization, nil
}

func (c *credentials) identity(ctx context.Context, id domain.ResourceID) (string, error) {
	c.mu.Lock()
	identity, known := c.of[id]
	c.mu.Unlock()
	if known {
		return identity, nil
	}
	r, err := c.resource(ctx, id)
	if refusal, ok := domain.AsRefusal(err); ok && refusal.Kind == domain.KindNotFound {
		return "", nil // an orphan, of another log perhaps
	}
	if err != nil {
		return "", err
	}
	if r.Overrides != nil {
		identity = r.Overrides.Identity
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.of) >= maxResourcesOf {
		clear(c.of)
	}
	c.of[id] = identity
	return identity, nil
}
