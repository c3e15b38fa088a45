package unicore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

const corePath = "/rest/core"

// checkSite checks the addresses of the options and returns the site's, if it is given.
func (o *Options) checkSite() (base string, err error) {
	switch {
	case o.Site == "" && o.Registry == "":
		return "", errors.New("a UNICORE launcher needs a site or a registry")
	case o.Site != "" && (o.Registry != "" || o.SiteName != ""):
		return "", errors.New("a UNICORE launcher needs either a site or a registry")
	case o.Site != "":
		return checkBase(o.Site)
	}
	u, err := checkURL(o.Registry)
	if err != nil {
		return "", fmt.Errorf("the UNICORE registry's address: %w", err)
	}
	o.Registry = u.String()
	return "", nil
}

// checkURL takes https addresses only, and none that hides credentials or parameters.
func checkURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("it cannot be read") // the error would quote it, with a password perhaps
	case u.Scheme != "https":
		return nil, fmt.Errorf("it begins with https://, not with %q, because a token is sent there", u.Scheme)
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return nil, errors.New("it has a host and a path only")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	if u.Path != "" && path.Clean(u.Path) != u.Path {
		return nil, errors.New("its path is not plain")
	}
	return u, nil
}

func checkBase(s string) (string, error) {
	u, err := checkURL(s)
	if err != nil {
		return "", fmt.Errorf("the UNICORE site's address: %w", err)
	}
	if !strings.HasSuffix(u.Path, corePath) {
		return "", fmt.Errorf("the UNICORE site's address ends with %s; %s does not", corePath, u.Path)
	}
	return u.String(), nil
}

// site is the base of the site's API; the registry is asked for it once.
func (l *Launcher) site(ctx context.Context, a *account) (string, error) {
	l.mu.Lock()
	base := l.base
	l.mu.Unlock()
	if base != "" {
		return base, nil
	}
	got, err := l.call(ctx, a, request{method: http.MethodGet, url: l.opts.Registry})
	if err != nil {
		return "", fmt.Errorf("ask the UNICORE registry: %w", err)
	}
	base, err = l.opts.choose(got.body)
	if err != nil {
		return "", fmt.Errorf("ask the UNICORE registry: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.base = base
	return base, nil
}

// choose finds the site in a registry's answer.
func (o *Options) choose(body []byte) (string, error) {
	var registry struct {
		Entries []struct {
			Href string `json:"href"`
			Type string `json:"type"`
		} `json:"entries"`
	}
	if err := decode(body, &registry); err != nil {
		return "", err
	}
	var found, names []string
	for _, e := range registry.Entries {
		if e.Type != "CoreServices" && e.Type != "TargetSystemFactory" { // the second is what older servers say
			continue
		}
		before, _, ok := strings.Cut(e.Href, corePath)
		base, err := checkBase(before + corePath)
		if !ok || err != nil {
			continue
		}
		name := path.Base(strings.TrimSuffix(base, corePath))
		if (o.SiteName == "" || name == o.SiteName) && !slices.Contains(found, base) {
			found = append(found, base)
			names = append(names, name)
		}
	}
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("it knows no site %q among its %d entries", o.SiteName, len(registry.Entries))
	case len(found) > 1:
		return "", fmt.Errorf("it knows several sites (%s); say which by its name or address", oneLine(strings.Join(names, ", ")))
	case !o.mayGo(found[0]):
		return "", fmt.Errorf("it says that the site is at %s, a host that is not allowed", oneLine(found[0]))
	}
	return found[0], nil
}

// mayGo tells whether a registry may send us to this address.
func (o *Options) mayGo(base string) bool {
	u, err1 := url.Parse(base)
	r, err2 := url.Parse(o.Registry)
	if err1 != nil || err2 != nil {
		return false
	}
	return hostPort(u) == hostPort(r) || slices.ContainsFunc(o.Hosts, func(h string) bool {
		return strings.EqualFold(h, u.Host) || strings.EqualFold(h, u.Hostname()) || strings.EqualFold(h, hostPort(u))
	})
}

// hostPort compares hosts whether or not the usual port is written.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// plainIDs are the identities that the site may give to jobs and storages.
var plainIDs = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// own takes an address that the site sent, of a job or of a storage, apart. What is not
// under the configured site is refused: the token must not follow it.
func own(base, kind, href string) (id string, err error) {
	b, err1 := url.Parse(base)
	u, err2 := url.Parse(href)
	if err1 != nil || err2 != nil || u.User != nil || u.RawQuery != "" || u.Scheme != "https" || hostPort(u) != hostPort(b) {
		return "", fmt.Errorf("%w: it names %q, which is not at the site %s", errAnswer, oneLine(href), base)
	}
	id, ok := strings.CutPrefix(strings.TrimRight(u.Path, "/"), b.Path+"/"+kind+"/")
	if !ok || !plainIDs.MatchString(id) {
		return "", fmt.Errorf("%w: it names %q, which is not one of the %s at %s", errAnswer, oneLine(href), kind, base)
	}
	return id, nil
}

// hello asks the site whom it takes us for. Nobody is believed to be gone
// before: to strangers a site shows no jobs at all.
func (l *Launcher) hello(ctx context.Context, a *account) (identity string, err error) {
	base, err := l.site(ctx, a)
	if err != nil {
		return "", err
	}
	got, err := l.call(ctx, a, request{method: http.MethodGet, url: base})
	if err != nil {
		return "", fmt.Errorf("ask the site who we are: %w", err)
	}
	var who struct {
		Client *struct {
			DN   string `json:"dn"`
			Role struct {
				Selected string `json:"selected"`
			} `json:"role"`
		} `json:"client"`
	}
	if err := decode(got.body, &who); err != nil {
		return "", fmt.Errorf("ask the site who we are: %w", err)
	}
	if who.Client == nil || who.Client.Role.Selected == "" {
		return "", fmt.Errorf("ask the site who we are: %w: it names no role", errAnswer)
	}
	if who.Client.Role.Selected == "anonymous" {
		return "", errors.New("the site does not know the token: it takes us for anonymous")
	}
	identity = pseudonym(who.Client.DN)
	a.mu.Lock()
	a.identity = identity
	a.mu.Unlock()
	return identity, nil
}

// known is the account's identity, asked for if need be.
func (l *Launcher) known(ctx context.Context, a *account) (string, error) {
	a.mu.Lock()
	identity := a.identity
	a.mu.Unlock()
	if identity != "" {
		return identity, nil
	}
	return l.hello(ctx, a)
}
