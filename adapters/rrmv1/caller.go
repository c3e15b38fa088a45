package rrmv1

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/projections"
)

// roleGuest is who sends no token, where that is allowed although there are tokens.
const roleGuest = "guest"

// guestOwners is before the owner that a guest names, so that it cannot speak for one who has a token.
const guestOwners = "v1/"

// tokenTrust is how long what the store said of a token is believed.
const tokenTrust = 2 * time.Second

// caller is who sent a request.
type caller struct {
	role  string // one of projections.Role..., or roleGuest
	owner domain.Owner
	// authorization is the header's value if it is no token of ours, to be passed on. Never log it.
	authorization string
}

func (w caller) actor() domain.Actor { return domain.Actor(w.role + ":" + string(w.owner)) }

func (w caller) call() commands.Call { return commands.Call{Actor: w.actor()} }

// operates says whether the caller may change what is the operator's.
func (w caller) operates() bool { return w.role == projections.RoleOperator }

// reads says that the caller may look, and change nothing.
func (w caller) reads() bool { return w.role == projections.RoleAuditor }

// sees says whether what belongs to owner exists for the caller.
func (w caller) sees(owner domain.Owner) bool {
	switch w.role {
	case projections.RoleOperator, projections.RoleAuditor:
		return true
	case projections.RoleClient:
		return owner == w.owner
	case roleGuest:
		return strings.HasPrefix(string(owner), guestOwners)
	}
	return false
}

// as is the owner of what the caller opens under a name. Who has a client's token is
// that client, whatever name is built into its program.
func (w caller) as(name string) domain.Owner {
	switch w.role {
	case projections.RoleClient:
		return w.owner
	case roleGuest:
		return domain.Owner(guestOwners + name)
	}
	return domain.Owner(name)
}

// shown is an owner as the caller named it.
func (w caller) shown(owner domain.Owner) string {
	if w.role == roleGuest {
		return strings.TrimPrefix(string(owner), guestOwners)
	}
	return string(owner)
}

var (
	errReads    = fail(http.StatusForbidden, "the role %s only looks", projections.RoleAuditor)
	errOperates = fail(http.StatusForbidden, "only an operator may do this")
)

// identify finds out who calls, once for each request.
func (s *Server) identify(c *call) error {
	r := c.r
	header := r.Header.Get("Authorization")
	if s.Open {
		open, err := s.open.get(r.Context(), struct{}{}, func(ctx context.Context) (bool, error) {
			any, err := s.Tokens.Any(ctx)
			return !any, err
		})
		if err != nil {
			return err
		}
		if open {
			c.who = caller{role: projections.RoleOperator, owner: "anonymous", authorization: header}
			return nil
		}
	}
	if secret := bearer(header); secret != "" {
		hash := sha256.Sum256([]byte(secret))
		who, err := s.callers.get(r.Context(), string(hash[:]), func(ctx context.Context) (caller, error) {
			token, ok, err := s.Tokens.Lookup(ctx, secret)
			if err != nil || !ok {
				return caller{}, err
			}
			return caller{role: token.Role, owner: token.Owner}, nil
		})
		if err != nil {
			return err
		}
		if who.role != "" {
			c.who = who
			return nil
		}
	}
	if s.Anonymous {
		c.who = caller{role: roleGuest, owner: "v1", authorization: header}
		return nil
	}
	return fail(http.StatusUnauthorized, `send "Authorization: Bearer TOKEN"`).with("WWW-Authenticate", `Bearer realm="rrm"`)
}

const maxSecret = 512 // bytes; ours are shorter

func bearer(header string) string {
	scheme, secret, _ := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	if !strings.EqualFold(scheme, "Bearer") || len(secret) > maxSecret {
		return ""
	}
	return secret
}
