package unicore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

const (
	maxToken     = 64 << 10 // bytes; tokens with many claims are long
	maxAccounts  = 10_000   // tokens that are in use at once
	forgetAfter  = time.Hour
	hiddenSecret = "(hidden)"
)

// ErrNoToken is what Options.Token says of a resource whose token is not known any
// more. Such a resource is LaunchUnknown, and to stop it is given up: its job ends with its time.
var ErrNoToken = errors.New("its UNICORE token is not known any more")

// CheckToken says whether a token can be sent to a site. Its errors do not quote the token.
func CheckToken(token string) error {
	_, err := header(token)
	return err
}

// secret is text that must not come out of this process but in a header to
// the site. Printing or logging it by mistake hides it.
type secret string

// String hides the secret.
func (secret) String() string { return hiddenSecret }

// GoString hides the secret.
func (secret) GoString() string { return hiddenSecret }

// LogValue hides the secret.
func (secret) LogValue() slog.Value { return slog.StringValue(hiddenSecret) }

// MarshalText hides the secret.
func (secret) MarshalText() ([]byte, error) { return []byte(hiddenSecret), nil }

// account is one identity at the site: a token, and what was learned with it.
type account struct {
	authorization secret // the whole header

	mu       sync.Mutex
	used     time.Time
	session  secret // the site's security session, sent instead of the token while it is valid
	identity string // of whom the site takes us for; empty until it was asked
	round    *round // the refresh under way
	listed   time.Time
	jobs     map[jobID]bool // that the site listed then
	err      error          // of the last refresh
	errAt    time.Time
	complete bool // each job of the list has been looked at
}

// accountFor finds the account to use for a resource, or for the service itself if it is empty.
func (l *Launcher) accountFor(ctx context.Context, id domain.ResourceID) (*account, error) {
	token, err := l.token(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read the UNICORE token: %w", err)
	}
	authorization, err := header(token)
	if err != nil {
		return nil, fmt.Errorf("read the UNICORE token: %w", err)
	}
	sum := sha256.Sum256([]byte(authorization))
	l.mu.Lock()
	defer l.mu.Unlock()
	key := string(sum[:])
	a := l.accounts[key]
	if a == nil {
		l.forgetAccounts()
		if len(l.accounts) >= maxAccounts {
			return nil, fmt.Errorf("more than %d UNICORE tokens are in use", maxAccounts)
		}
		a = &account{authorization: authorization}
		l.accounts[key] = a
	}
	a.mu.Lock()
	a.used = time.Now()
	a.mu.Unlock()
	return a, nil
}

// forgetAccounts drops tokens that nobody has used for long. The caller holds l.mu.
func (l *Launcher) forgetAccounts() {
	for key, a := range l.accounts {
		a.mu.Lock()
		if time.Since(a.used) > forgetAfter && a.round == nil {
			delete(l.accounts, key)
		}
		a.mu.Unlock()
	}
}

func (l *Launcher) token(ctx context.Context, id domain.ResourceID) (string, error) {
	if l.opts.Token != nil {
		token, err := l.opts.Token(ctx, id)
		if err != nil || token != "" {
			return token, err
		}
	}
	if l.opts.TokenFile != "" {
		b, err := os.ReadFile(l.opts.TokenFile)
		return string(b), err
	}
	if l.opts.TokenEnv != "" {
		return os.Getenv(l.opts.TokenEnv), nil
	}
	return "", errors.New("the service has no token of its own")
}

// header makes the Authorization header. Its errors do not quote the token.
func header(token string) (secret, error) {
	token = strings.TrimSpace(token)
	switch {
	case token == "":
		return "", errors.New("it is empty")
	case len(token) > maxToken:
		return "", fmt.Errorf("it is longer than %d bytes", maxToken)
	}
	for _, c := range []byte(token) {
		if c < ' ' || c > '~' {
			return "", errors.New("it has characters that cannot be in a header")
		}
	}
	scheme, rest, two := strings.Cut(token, " ")
	if !two {
		return secret("Bearer " + token), nil
	}
	if !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "Basic") || strings.Contains(rest, " ") {
		return "", errors.New(`it is none of "TOKEN", "Bearer TOKEN" and "Basic CREDENTIALS"`)
	}
	return secret(token), nil
}

// scrub removes the account's secrets from text that the site sent.
func (a *account) scrub(text string) string {
	const shortest = 6 // what is shorter is no secret, and removing it would garble
	a.mu.Lock()
	secrets := []secret{a.authorization, a.session}
	a.mu.Unlock()
	for _, s := range secrets {
		_, bare, _ := strings.Cut(string(s), " ")
		for _, hide := range []string{string(s), bare} {
			if len(hide) >= shortest {
				text = strings.ReplaceAll(text, hide, hiddenSecret)
			}
		}
	}
	return text
}

// pseudonym is short, stays the same, and does not tell the name in the log.
func pseudonym(dn string) string {
	sum := sha256.Sum256([]byte(dn))
	return hex.EncodeToString(sum[:6])
}
