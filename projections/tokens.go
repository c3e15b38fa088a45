package projections

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The roles of a token.
const (
	RoleClient   = "client"   // sees and touches what is its owner's
	RoleOperator = "operator" // everything
	RoleAuditor  = "auditor"  // reads everything
)

var roleLetters = map[string]string{RoleClient: "c", RoleOperator: "o", RoleAuditor: "a"}

// secretBytes of chance are 256 bits: nobody guesses one, so no slow hash is needed.
const secretBytes = 32

var secretPattern = regexp.MustCompile(`^rrm_[coa]_[A-Za-z0-9_-]{43}$`)

// Token is what is known about a token; its secret is not.
type Token struct {
	ID         string       `json:"id"`
	Owner      domain.Owner `json:"owner"`
	Role       string       `json:"role"`
	CreatedAt  time.Time    `json:"created_at" db:"created_at"`
	LastUsedAt *time.Time   `json:"last_used_at,omitempty" db:"last_used_at"` // to the minute
	RevokedAt  *time.Time   `json:"revoked_at,omitempty" db:"revoked_at"`
}

// Tokens keeps who may use the service. Only the SHA-256 of a secret is stored.
type Tokens struct{ db *sqlx.DB }

// NewTokens uses the table of tokens in db.
func NewTokens(db *sqlx.DB) *Tokens { return &Tokens{db: db} }

// Create makes a token and gives its secret, which cannot be had again:
// rrm_<letter of the role>_<43 characters of base64url>.
func (t *Tokens) Create(ctx context.Context, role, owner string) (id, secret string, err error) {
	letter, ok := roleLetters[role]
	if !ok {
		return "", "", domain.Invalid("role", "a role is client, operator or auditor, not %q", role)
	}
	if owner == "" {
		return "", "", domain.Invalid("owner", "a token has an owner")
	}
	if err := domain.CheckText("owner", owner, domain.MaxOwner); err != nil {
		return "", "", err
	}
	b := make([]byte, secretBytes)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	secret = "rrm_" + letter + "_" + base64.RawURLEncoding.EncodeToString(b)
	unique, err := uuid.NewV7()
	if err != nil {
		return "", "", fmt.Errorf("make a token's id: %w", err)
	}
	id = "token-" + unique.String()
	_, err = t.db.ExecContext(ctx, `INSERT INTO tokens (id, owner, role, hash) VALUES ($1, $2, $3, $4)`, id, owner, role, hashSecret(secret))
	if err != nil {
		return "", "", fmt.Errorf("store token: %w", err)
	}
	return id, secret, nil
}

func hashSecret(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

const tokenColumns = `id, owner, role, created_at, last_used_at, revoked_at` //nolint:gosec // G101 takes it for a secret

// maxTokens bounds the list; more tokens than this are no list for people.
const maxTokens = 10_000

// List gives all tokens, revoked ones too, oldest first, at most 10,000.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	out := []Token{}
	if err := t.db.SelectContext(ctx, &out, `SELECT `+tokenColumns+` FROM tokens ORDER BY created_at, id LIMIT $1`, maxTokens); err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	for i := range out {
		out[i].utc()
	}
	return out, nil
}

func (t *Token) utc() {
	t.CreatedAt = t.CreatedAt.UTC()
	for _, at := range []*time.Time{t.LastUsedAt, t.RevokedAt} {
		if at != nil {
			*at = at.UTC()
		}
	}
}

// Revoke ends a token at once; repeating is safe. not_found if there is none.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	if !plain(id) {
		return domain.NotFound("token", id)
	}
	result, err := t.db.ExecContext(ctx, `UPDATE tokens SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = $1`, id)
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	if n == 0 {
		return domain.NotFound("token", id)
	}
	return nil
}

// lookupQuery notes the use at most once a minute, so that not every request
// writes, and never waits for another request that is noting it.
const lookupQuery = `
WITH due AS (
  SELECT id FROM tokens
  WHERE hash = $1 AND revoked_at IS NULL AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')
  FOR NO KEY UPDATE SKIP LOCKED
), noted AS (
  UPDATE tokens SET last_used_at = clock_timestamp() FROM due WHERE tokens.id = due.id
)
SELECT ` + tokenColumns + ` FROM tokens WHERE hash = $1 AND revoked_at IS NULL`

// Lookup finds the token of a secret; false if there is none or it was revoked.
//
// The hash is found through a unique index, whose time tells something of how
// far a hash agrees with a stored one. That helps nobody: to approach a stored
// hash byte by byte one would have to choose the SHA-256 of what one sends, and
// the hash would still not give the secret. So nothing here is in constant time.
func (t *Tokens) Lookup(ctx context.Context, secret string) (Token, bool, error) {
	if !secretPattern.MatchString(secret) {
		return Token{}, false, nil
	}
	var found []Token
	if err := t.db.SelectContext(ctx, &found, lookupQuery, hashSecret(secret)); err != nil {
		return Token{}, false, fmt.Errorf("look up token: %w", err)
	}
	if len(found) == 0 {
		return Token{}, false, nil
	}
	found[0].utc()
	return found[0], true, nil
}

// Any says whether a token was ever made. Revoked ones count: revoking the
// last one must not open the service to everybody.
func (t *Tokens) Any(ctx context.Context) (bool, error) {
	var any bool
	if err := t.db.GetContext(ctx, &any, `SELECT EXISTS (SELECT 1 FROM tokens)`); err != nil {
		return false, fmt.Errorf("look for tokens: %w", err)
	}
	return any, nil
}
