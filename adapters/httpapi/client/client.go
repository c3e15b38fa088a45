// Package client speaks the service's API from Go. Types and calls are
// generated from ../openapi.yaml; this file adds what a document cannot say:
// where the API is under a server's address, the token, and one error for all
// refusals.
package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// BasePath is where the API is under a server's address.
const BasePath = "/rendering-resource-manager/v2"

// New makes a client of the service at server, such as "http://127.0.0.1:8383"
// (a path in front of the base path is kept; the base path itself may be
// given). An empty token sends none. A nil doer is http.DefaultClient, which
// has no time limit: streams need that, and contexts bound the rest. Query
// parameters that were left out are not sent.
func New(server, token string, doer HttpRequestDoer) (*ClientWithResponses, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("read the server's address: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("read the server's address: %q is not like http://HOST:PORT", server)
	}
	u.RawQuery, u.Fragment = "", ""
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), BasePath) + BasePath
	opts := []ClientOption{WithRequestEditorFn(parametersGiven)}
	if doer != nil {
		opts = append(opts, WithHTTPClient(doer))
	}
	if token != "" {
		opts = append(opts, WithRequestEditorFn(func(_ context.Context, req *http.Request) error {
			req.Header.Set("Authorization", "Bearer "+token)
			return nil
		}))
	}
	return NewClientWithResponses(u.String(), opts...)
}

// parametersGiven takes parameters that nobody gave out of the query. The
// generated calls send them too, as "subject=" and "limit=0", and the service
// refuses both. No parameter means anything by an empty value, and no bound by
// 0; "after=0" stays, because it is the beginning of the log.
func parametersGiven(_ context.Context, req *http.Request) error {
	if req.URL.RawQuery == "" {
		return nil
	}
	given := slices.DeleteFunc(strings.Split(req.URL.RawQuery, "&"), func(kv string) bool {
		_, value, _ := strings.Cut(kv, "=")
		return value == "" || kv == "limit=0" || kv == "tail=0"
	})
	req.URL.RawQuery = strings.Join(given, "&")
	return nil
}

// Error is an answer that is not 2xx.
type Error struct {
	Problem
	RetryAfter time.Duration // 0: not said
}

// Error gives the detail and the code.
func (e *Error) Error() string {
	if e.Field != "" && !strings.Contains(e.Detail, e.Field) {
		return fmt.Sprintf("%s: %s (%s)", e.Field, e.Detail, e.Code)
	}
	return fmt.Sprintf("%s (%s)", e.Detail, e.Code)
}

// Failure is nil for an answer with a 2xx status, else an *Error. For a call
// of ClientWithResponses give it answer.HTTPResponse and answer.Body. An answer
// without a problem in it, such as a proxy's page, becomes one with the code "http_error".
func Failure(res *http.Response, body []byte) error {
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return nil
	}
	e := &Error{}
	if err := json.Unmarshal(body, &e.Problem); err != nil || e.Code == "" {
		e.Problem = Problem{
			Status: res.StatusCode, Code: "http_error", Title: http.StatusText(res.StatusCode),
			Detail: fmt.Sprintf("the server answered %s", res.Status),
		}
	}
	e.RetryAfter = time.Duration(e.RetryAfterSeconds * float64(time.Second))
	return e
}
