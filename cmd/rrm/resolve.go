package main

import (
	"context"
	"net/http"
	"strings"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// fullID is the length of the identifiers that tables shorten.
const fullID = 36

// session makes the short form of a session's identifier whole: it is looked
// for among the newest ones. What matches none is left for the service to refuse.
func (c *call) session(ctx context.Context, arg string) (string, error) {
	return whole(arg, "session", func(s client.Session) string { return s.ID }, func(n int, cursor string) (*http.Response, error) {
		return c.api.ListSessions(ctx, &client.ListSessionsParams{Limit: n, Cursor: cursor})
	})
}

// job is the same for jobs.
func (c *call) job(ctx context.Context, arg string) (string, error) {
	return whole(arg, "job", func(j client.Job) string { return j.ID }, func(n int, cursor string) (*http.Response, error) {
		return c.api.ListJobs(ctx, &client.ListJobsParams{Limit: n, Cursor: cursor})
	})
}

func whole[T any](arg, noun string, id func(T) string, get func(int, string) (*http.Response, error)) (string, error) {
	if len(arg) >= fullID || len(arg) < idLength {
		return arg, nil
	}
	items, _, _, err := list[T](maxPage, get)
	if err != nil {
		return "", err
	}
	var found []string
	for _, item := range items {
		if full := id(item); full == arg {
			return arg, nil
		} else if strings.HasSuffix(full, arg) {
			found = append(found, full)
		}
	}
	switch len(found) {
	case 0:
		return arg, nil
	case 1:
		return found[0], nil
	}
	return "", usage("%s is the end of %d %ss; give all of the identifier (--wide shows it)", arg, len(found), noun)
}
