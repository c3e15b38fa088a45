package unicore

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	sessionHeader = "X-UNICORE-SecuritySession"
	// statusExpired is UNICORE's own: the security session, or the token, is valid no more.
	statusExpired = 432

	attempts    = 3 // of a request that may be repeated
	firstPause  = 100 * time.Millisecond
	maxJSON     = 4 << 20 // bytes of an answer
	maxMessage  = 300     // bytes of an error's text that are passed on
	maxHeader   = 64 << 10
	maxPerHost  = 64
	dialTimeout = 5 * time.Second
)

// httpClient speaks to the site and to nobody else: no proxy of the environment, no redirects.
func (o *Options) httpClient() (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the UNICORE site's CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the UNICORE site's CA: %s holds no certificate", o.CAFile)
		}
	}
	if o.DangerouslySkipTLSVerify {
		o.Logger.Warn("DANGER: the UNICORE site's certificate is not verified; anyone on the way can read the token and pose as the site",
			"setting", "DangerouslySkipTLSVerify", "site", o.Site, "registry", o.Registry)
		conf.InsecureSkipVerify = true
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:           nil,
			TLSClientConfig: conf, // and so HTTP/1.1 only, which forwarding needs
			DialContext:     (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,

			TLSHandshakeTimeout: o.Timeout, ResponseHeaderTimeout: o.Timeout, MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost: 8, MaxConnsPerHost: 0, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// siteError is an answer of the site that is a "no".
type siteError struct {
	status  int
	message string // the site's words, scrubbed
}

// Error explains the status and quotes the site.
func (e *siteError) Error() string {
	var text string
	switch {
	case e.status == statusExpired:
		text = "the token has expired: the site answers 432"
	case e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		text = fmt.Sprintf("the site refuses the token: it answers %d", e.status)
	case e.status == http.StatusServiceUnavailable:
		text = "the site is not available now: it answers 503"
	case e.status/100 == 3:
		text = fmt.Sprintf("the site answers %d, a redirect, which is not followed", e.status)
	default:
		text = fmt.Sprintf("the site answers %d", e.status)
	}
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// statusOf is the status of a siteError, else 0.
func statusOf(err error) int {
	var site *siteError
	if errors.As(err, &site) {
		return site.status
	}
	return 0
}

// request is one call of the site's API.
type request struct {
	method string
	url    string // of the configured site; see the functions that make one
	query  url.Values
	body   []byte
	kind   string // of the body; empty: application/json
	accept string // empty: application/json
	tail   int64  // > 0: only the last bytes of a file
	limit  int64  // of the answer's bytes; 0: maxJSON
	once   bool   // it must not be repeated if nobody knows what became of it
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// call makes a request, again if that may help, and reads the whole answer.
// Anything but 2xx is a *siteError.
func (l *Launcher) call(ctx context.Context, a *account, r request) (answer, error) {
	orElse(&r.limit, maxJSON)
	orElse(&r.accept, "application/json")
	tries := attempts
	if r.once {
		tries = 1
	}
	pause := firstPause
	for {
		got, err := l.try(ctx, a, r)
		tries--
		if err == nil || tries == 0 || ctx.Err() != nil || !passing(err) {
			return got, err
		}
		if wait(ctx, pause) != nil {
			return got, err
		}
		pause *= 3
	}
}

// passing errors may be over when asked again soon.
func passing(err error) bool {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return false
	}
	switch status := statusOf(err); status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests:
		return true
	default:
		return status == 0 && !errors.Is(err, errAnswer)
	}
}

// errAnswer marks answers that cannot be used: asking again will not mend them.
var errAnswer = errors.New("the site's answer is not understood")

// try sends the session if there is one, and the token where it has expired.
func (l *Launcher) try(ctx context.Context, a *account, r request) (answer, error) {
	a.mu.Lock()
	session := a.session
	a.mu.Unlock()
	if session != "" {
		got, err := l.send(ctx, a, r, sessionHeader, session)
		if statusOf(err) != statusExpired {
			return got, err
		}
		a.mu.Lock()
		if a.session == session {
			a.session = ""
		}
		a.mu.Unlock()
	}
	return l.send(ctx, a, r, "Authorization", a.authorization)
}

func (l *Launcher) send(ctx context.Context, a *account, r request, credential string, value secret) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	req, err := newRequest(ctx, r)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set(credential, string(value))
	res, err := l.http.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("ask the site: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if s := res.Header.Get(sessionHeader); s != "" && len(s) < maxToken && res.StatusCode/100 == 2 {
		a.mu.Lock()
		a.session = secret(s)
		a.mu.Unlock()
	}
	if res.StatusCode/100 != 2 {
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxHeader))
		return answer{}, &siteError{res.StatusCode, a.scrub(message(body))}
	}
	body, err := readBody(res, r)
	if err != nil {
		return answer{}, err
	}
	return answer{res.StatusCode, res.Header, body}, nil
}

func newRequest(ctx context.Context, r request) (*http.Request, error) {
	target := r.url
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader = http.NoBody
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("ask the site: %w", err)
	}
	req.Header.Set("Accept", r.accept)
	if r.body != nil {
		orElse(&r.kind, "application/json")
		req.Header.Set("Content-Type", r.kind)
	}
	if r.tail > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=-%d", r.tail))
	}
	return req, nil
}

func readBody(res *http.Response, r request) ([]byte, error) {
	if r.tail > 0 && res.StatusCode != http.StatusPartialContent {
		return lastBytes(res.Body, r.tail, r.limit) // a server that knows no ranges sends it all
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, r.limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the site's answer: %w", err)
	}
	if int64(len(b)) > r.limit {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errAnswer, r.limit)
	}
	return b, nil
}

// lastBytes reads to the end, which must come before limit, and keeps the last n bytes.
func lastBytes(from io.Reader, n, limit int64) ([]byte, error) {
	var kept []byte
	chunk := make([]byte, 64<<10)
	for total := int64(0); total <= limit; {
		got, err := from.Read(chunk)
		total += int64(got)
		kept = append(kept, chunk[:got]...)
		if int64(len(kept)) > 2*n+int64(len(chunk)) {
			kept = append(kept[:0], kept[int64(len(kept))-n:]...)
		}
		if errors.Is(err, io.EOF) {
			return kept[max(0, int64(len(kept))-n):], nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the site's answer: %w", err)
		}
	}
	return nil, fmt.Errorf("%w: it is longer than %d bytes", errAnswer, limit)
}

// message finds the site's words in the body of an error.
func message(body []byte) string {
	var e struct {
		Message string `json:"errorMessage"`
	}
	if json.Unmarshal(body, &e) != nil {
		return ""
	}
	return oneLine(e.Message)
}

// oneLine makes text of others fit for a reason: one line, bounded, valid.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", " "), "?")), " ")
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

func decode(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	return nil
}

// wait waits unless the context ends first.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
