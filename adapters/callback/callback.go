// Package callback posts notices to the addresses that clients asked for, and
// to no others: only to hosts that the operator has named, without following
// redirects or using the environment's proxies.
package callback

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Poster posts to the hosts that it was given.
type Poster struct {
	hosts []string
	http  *http.Client
}

// MaxURL bounds a callback's URL, in bytes.
const MaxURL = 2048

// New makes a poster. A host is "name" (any port) or "name:port".
func New(hosts []string) *Poster {
	lower := make([]string, len(hosts))
	for i, h := range hosts {
		lower[i] = strings.ToLower(h)
	}
	return &Poster{hosts: lower, http: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
			ResponseHeaderTimeout: 10 * time.Second, MaxIdleConns: 16, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Check refuses a URL that no callback may go to.
func (p *Poster) Check(raw string) error {
	if raw == "" {
		return nil
	}
	if err := domain.CheckText("callback_url", raw, MaxURL); err != nil {
		return err
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return domain.Invalid("callback_url", "a callback goes to an http or https address without a user")
	}
	if !slices.Contains(p.hosts, strings.ToLower(u.Host)) && !slices.Contains(p.hosts, strings.ToLower(u.Hostname())) {
		r := domain.Invalid("callback_url", "callbacks to %q are not allowed here; an operator can allow the host with --callback-hosts", u.Host)
		r.Code = "callback_not_allowed"
		return r
	}
	return nil
}

// Post delivers a notice. Any 2xx answer counts as taken.
func (p *Poster) Post(ctx context.Context, raw string, body json.RawMessage) error {
	if err := p.Check(raw); err != nil { // the list may be shorter than when the job was submitted
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, raw, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "rrm")
	res, err := p.http.Do(req)
	if err != nil {
		return fmt.Errorf("post notice: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 4096))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("post notice: %s answered %s", req.URL.Host, res.Status)
	}
	return nil
}

// Close closes idle connections.
func (p *Poster) Close() { p.http.CloseIdleConnections() }
