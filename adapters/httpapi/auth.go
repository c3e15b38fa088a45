package httpapi

import (
	"context"
	"crypto/sha256"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/projections"
)

// caller is who sent a request.
type caller struct {
	role  string // of projections.Role...; empty: nobody yet
	owner domain.Owner
}

// anonymous is everyone while the service is open.
var anonymous = caller{role: projections.RoleOperator, owner: "anonymous"}

func callerOf(c echo.Context) caller {
	who, _ := c.Get(keyCaller).(caller)
	return who
}

func (w caller) actor() domain.Actor {
	if w.role == "" {
		return ""
	}
	return domain.Actor(w.role + ":" + string(w.owner))
}

// sees says whether what belongs to owner exists for the caller.
func (w caller) sees(owner domain.Owner) bool {
	return w.role == projections.RoleOperator || w.role == projections.RoleAuditor || w.role == projections.RoleClient && w.owner == owner
}

// as is the owner of what the caller makes: its own, or for an operator the one that it names.
func (w caller) as(named Owner) (domain.Owner, error) {
	if named == "" || domain.Owner(named) == w.owner {
		return w.owner, nil
	}
	if w.role != projections.RoleOperator {
		return "", w.notYours()
	}
	return domain.Owner(named), nil
}

func (w caller) notYours() *problem {
	return fail(http.StatusForbidden, codeOwner, "owner", "this token belongs to %q", w.owner)
}

// only narrows a list to what the caller sees.
func (w caller) only(named Owner) (string, error) {
	if w.role != projections.RoleClient {
		return named, nil
	}
	if named != "" && domain.Owner(named) != w.owner {
		return "", w.notYours()
	}
	return string(w.owner), nil
}

// seesSubjects says whether an event or decision about these subjects exists
// for the caller: for a client, if it is about its owner and nobody else's.
func (w caller) seesSubjects(subjects []string) bool {
	if w.role != projections.RoleClient {
		return w.sees("")
	}
	mine := false
	for _, s := range subjects {
		if owner, ok := strings.CutPrefix(s, "owner:"); ok {
			if domain.Owner(owner) != w.owner {
				return false
			}
			mine = true
		}
	}
	return mine
}

var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

// call is who gives a command and how. guard has checked the key.
func (s *Server) call(c echo.Context) commands.Call {
	r := c.Request()
	trace := r.Header.Get("Traceparent")
	if !traceparent.MatchString(trace) {
		trace = requestID(c)
	}
	return commands.Call{Actor: callerOf(c).actor(), Key: r.Header.Get(idempotencyKey), Trace: trace}
}

// clientOperations are what a client may do at all; whose things it may do it
// to is checked with the thing.
var clientOperations = []string{
	"listSessions", "bookResource", "getSession", "releaseSession", "renewLease", "streamSessionEvents", opForward,
	"listJobs", "submitJob", "getJob", "cancelJob", "getJobResult", "streamJobEvents",
	"listRenderers", "getRenderer", "getPool", "getAdmission", "listEvents", "streamEvents", "getDecision",
}

// roleResource is a resource that registered itself; its owner is its identity.
const roleResource = "resource"

// ownOperations are what a resource may do, to itself.
var ownOperations = []string{"getResource", "heartbeatResource", "drainResource", "stopResource"}

func (w caller) may(op *operation, c echo.Context) bool {
	switch w.role {
	case roleResource:
		return slices.Contains(ownOperations, op.id) && c.Param("id") == string(w.owner)
	case projections.RoleOperator:
		return true
	case projections.RoleAuditor:
		return op.method == http.MethodGet && op.id != opForward // which renews leases and moves cameras
	case projections.RoleClient:
		return slices.Contains(clientOperations, op.id)
	}
	return false
}

// guard is in front of every operation of the document: who, whether they may,
// and whether the document allows the request. What is not an operation passes;
// it is a probe, a page, or nothing.
func (s *Server) guard(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		op := s.routeOf(c.Request().Method, c.Path())
		if op == nil {
			return next(c)
		}
		who, err := s.auth.identify(c.Request())
		if err != nil {
			return err
		}
		c.Set(keyCaller, who)
		if !who.may(op, c) {
			return fail(http.StatusForbidden, codeForbidden, "", "the role %s may not do this", who.role)
		}
		if op.id != opForward {
			if err := op.check(c); err != nil {
				return err
			}
		}
		return next(c)
	}
}

// authenticator finds out who calls, and remembers for a moment: a token that
// was revoked may work for tokenTrust longer. While the store cannot be
// reached it goes on knowing whom it knew, so that running sessions keep rendering.
type authenticator struct {
	tokens     Tokens
	heartbeats Heartbeats // nil: no resource has a token
	open       bool
	known      *lru[[sha256.Size]byte, caller]

	mu     sync.Mutex
	closed bool // a token was made; an open service is open no more, for good
	looked time.Time
}

const (
	tokenTrust  = 2 * time.Second
	storePause  = 5 * time.Second        // how long a store that failed is left alone where something is remembered
	storeWait   = 500 * time.Millisecond // for one look where something is remembered: a frame waits for it
	rememberMax = 10_000
)

func newAuthenticator(config Config) *authenticator {
	return &authenticator{tokens: config.Tokens, heartbeats: config.Heartbeats, open: config.Open, known: newLRU[[sha256.Size]byte, caller](rememberMax, tokenTrust)}
}

func (a *authenticator) identify(r *http.Request) (caller, error) {
	secret, ok := bearer(r)
	// A resource is known by its token in an open service too, so that the log shows who it was.
	resource := ok && a.heartbeats != nil && strings.HasPrefix(secret, projections.HeartbeatTokenPrefix)
	if a.open && !resource {
		open, err := a.stillOpen(r.Context())
		if err != nil {
			return caller{}, err
		}
		if open {
			return anonymous, nil
		}
	}
	if !ok {
		return caller{}, unauthenticated(`send "Authorization: Bearer TOKEN"`)
	}
	lookup := a.lookup
	if resource {
		lookup = a.lookupResource
	}
	return a.known.get(r.Context(), sha256.Sum256([]byte(secret)), func(ctx context.Context) (caller, error) { return lookup(ctx, secret) })
}

func (a *authenticator) lookup(ctx context.Context, secret string) (caller, error) {
	token, ok, err := a.tokens.Lookup(ctx, secret)
	if err == nil && !ok {
		err = unauthenticated("the token is unknown or revoked")
	}
	return caller{role: token.Role, owner: token.Owner}, err
}

func (a *authenticator) lookupResource(ctx context.Context, secret string) (caller, error) {
	id, ok, err := a.heartbeats.Lookup(ctx, secret)
	if err == nil && !ok {
		err = unauthenticated("the token is not the one of the resource that it names; register anew")
	}
	return caller{role: roleResource, owner: domain.Owner(id)}, err
}

func unauthenticated(why string) *problem {
	return fail(http.StatusUnauthorized, codeUnauthenticated, "", "%s", why).with("WWW-Authenticate", `Bearer realm="rrm"`)
}

const maxSecret = 512 // bytes; ours are shorter

func bearer(r *http.Request) (string, bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, secret, ok := strings.Cut(values[0], " ")
	secret = strings.TrimSpace(secret)
	return secret, ok && strings.EqualFold(scheme, "Bearer") && secret != "" && len(secret) <= maxSecret
}

// stillOpen looks now and then whether a token was made since.
func (a *authenticator) stillOpen(ctx context.Context) (bool, error) {
	a.mu.Lock()
	closed, fresh := a.closed, !a.looked.IsZero() && time.Since(a.looked) < tokenTrust
	a.mu.Unlock()
	if closed || fresh {
		return !closed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	any, err := soon(ctx, a.tokens.Any)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.looked.IsZero() {
		return false, err
	}
	a.looked = time.Now() // also when the store is away: it was open a moment ago, and a token cannot be made meanwhile
	a.closed = a.closed || err == nil && any
	return !a.closed, nil
}
