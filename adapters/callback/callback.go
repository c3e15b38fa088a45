// Package callback posts notices to the addresses that clients asked for, and
// questions to those that a pool's settings name, and to no others: only to
// hosts that the operator has named, without following redirects or using the
// environment's proxies. A name that leads to this machine, or to where a cloud
// keeps its machines' credentials, is not enough: such an address has to be named itself.
package callback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
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
	p := &Poster{hosts: lower}
	p.http = &http.Client{
		Timeout: slowest,
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second, Control: p.control}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
			ResponseHeaderTimeout: slowest, MaxIdleConns: 16, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p
}

// slowest is the longest that anybody is waited for; callers have shorter deadlines of their own.
const slowest = 30 * time.Second

// metadata are addresses at which clouds keep their machines' credentials, beside the link-local ones.
var metadata = []string{"100.100.100.200", "168.63.129.16", "fd00:ec2::254", "192.0.0.192"}

// control refuses a connection to an address that the host's name must not lead to.
func (p *Poster) control(_, address string, _ syscall.RawConn) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("read address %q: %w", address, err)
	}
	ip := net.ParseIP(strings.SplitN(host, "%", 2)[0])
	named := func(name string) bool {
		return slices.Contains(p.hosts, name) || slices.Contains(p.hosts, net.JoinHostPort(name, port))
	}
	switch {
	case ip == nil:
		return fmt.Errorf("%q is no address", host)
	case named(ip.String()), ip.IsLoopback() && named("localhost"):
		return nil
	case ip.IsLoopback(), ip.IsUnspecified(), ip.IsLinkLocalUnicast(), ip.IsLinkLocalMulticast(), ip.IsMulticast(), slices.Contains(metadata, ip.String()):
		return fmt.Errorf("its name leads to %s, which --callback-hosts does not name", ip)
	}
	return nil
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

// noticeLimit is how long a notice may take.
const noticeLimit = 10 * time.Second

// Post delivers a notice. Any 2xx answer counts as taken.
func (p *Poster) Post(ctx context.Context, raw string, body json.RawMessage) error {
	ctx, cancel := context.WithTimeout(ctx, noticeLimit)
	defer cancel()
	if _, err := p.post(ctx, raw, body); err != nil {
		return fmt.Errorf("post notice: %w", err)
	}
	return nil
}

// Ask posts a question and gives the answer, at most 4 KiB of a 2xx one.
func (p *Poster) Ask(ctx context.Context, raw string, body json.RawMessage) (json.RawMessage, error) {
	answer, err := p.post(ctx, raw, body)
	if err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("ask: the answer is longer than %d bytes", maxAnswer)
	}
	return answer, nil
}

const maxAnswer = 4096

func (p *Poster) post(ctx context.Context, raw string, body json.RawMessage) ([]byte, error) {
	if err := p.Check(raw); err != nil { // the list may be shorter than when the address was taken
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, raw, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "rrm")
	res, err := p.http.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if res.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s answered %s", req.URL.Host, res.Status)
	}
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return answer, nil
}

// withoutURL leaves the address out of an error: it may hold a secret.
func withoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// Close closes idle connections.
func (p *Poster) Close() { p.http.CloseIdleConnections() }
