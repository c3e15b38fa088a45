package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func TestBasePathAndToken(t *testing.T) {
	var path, auth string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, auth = r.URL.Path, r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"open":true}`))
	}))
	defer s.Close()
	for in, want := range map[string]string{
		"":                                   "/rendering-resource-manager/v2/admission",
		"/":                                  "/rendering-resource-manager/v2/admission",
		"/rendering-resource-manager/v2/":    "/rendering-resource-manager/v2/admission",
		"/viz/rendering-resource-manager/v2": "/viz/rendering-resource-manager/v2/admission",
		"/viz":                               "/viz/rendering-resource-manager/v2/admission",
	} {
		c, err := client.New(s.URL+in, "secret", nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.GetAdmissionWithResponse(t.Context())
		if err != nil || a.JSON200 == nil || !a.JSON200.Open {
			t.Fatalf("%q: %v %v", in, a, err)
		}
		if path != want || auth != "Bearer secret" {
			t.Errorf("%q: asked %s with %q, want %s", in, path, auth, want)
		}
	}
	for _, bad := range []string{"", "localhost:8383", "ftp://x", "http://"} {
		if _, err := client.New(bad, "", nil); err == nil {
			t.Errorf("%q was taken as an address", bad)
		}
	}
}

// The service refuses parameters that are empty, and bounds of 0.
func TestOnlyGivenParametersAreSent(t *testing.T) {
	asked := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.RawQuery }))
	defer s.Close()
	c, err := client.New(s.URL, "secret", s.Client())
	if err != nil {
		t.Fatal(err)
	}
	begin := int64(0)
	for want, call := range map[string]func() (*http.Response, error){
		"after=0": func() (*http.Response, error) { return c.ListEvents(t.Context(), &client.ListEventsParams{}) },
		"after=7&subject=session%3Aa%3D&limit=10": func() (*http.Response, error) {
			return c.ListEvents(t.Context(), &client.ListEventsParams{After: 7, Subject: "session:a=", Limit: 10})
		},
		"after=0&type=job.done": func() (*http.Response, error) {
			return c.StreamEvents(t.Context(), &client.StreamEventsParams{After: &begin, Type: "job.done"})
		},
		"": func() (*http.Response, error) { return c.ListSessions(t.Context(), &client.ListSessionsParams{}) },
	} {
		res, err := call()
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := <-asked; got != want {
			t.Errorf("asked for %q, want %q", got, want)
		}
	}
}

func TestFailure(t *testing.T) {
	res := func(status int) *http.Response {
		return &http.Response{StatusCode: status, Status: http.StatusText(status)}
	}
	if err := client.Failure(res(202), nil); err != nil {
		t.Errorf("202: %v", err)
	}
	err := client.Failure(res(503), []byte(`{"code":"no_capacity","detail":"all in use","status":503,"retry_after_seconds":1.5,"queue":{"waiting":3}}`))
	var e *client.Error
	if !errors.As(err, &e) || e.Code != "no_capacity" || e.RetryAfter != 1500*time.Millisecond || e.Queue.Waiting != 3 || err.Error() != "all in use (no_capacity)" {
		t.Errorf("503: %#v", err)
	}
	err = client.Failure(res(502), []byte("<html>"))
	if !errors.As(err, &e) || e.Code != "http_error" || e.Status != 502 {
		t.Errorf("502: %#v", err)
	}
}

// A stream that breaks after its first event is resumed after it, and ends with 204.
func TestFollowResumes(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last := r.Header.Get("Last-Event-ID")
		asked = append(asked, last)
		event := func(p int) {
			_, _ = fmt.Fprintf(w, "id: %d\nevent: session.queued\ndata: {\"position\":%d,\"type\":\"session.queued\"}\n\n", p, p)
		}
		switch last {
		case "":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprint(w, ": hello\n\nid: 6\n\n")
			event(7)
			_, _ = fmt.Fprint(w, "event: progress\ndata: {\"state\":\"queued\",\"queue\":{\"position\":2}}\n\n")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "7":
			w.Header().Set("Content-Type", "text/event-stream")
			event(9)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	defer s.Close()
	c, err := client.New(s.URL, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var got []int64
	places := 0
	for m, err := range client.Follow(ctx, c.SessionEvents("s-1")) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Event != nil {
			got = append(got, m.Event.Position)
		} else if m.Progress.Queue.Position == 2 {
			places++
		}
	}
	if fmt.Sprint(got) != "[7 9]" || places != 1 || fmt.Sprintf("%q", asked) != `["" "7" "9"]` {
		t.Errorf("got %v, %d places, asked %q", got, places, asked)
	}
}

func TestFollowGivesUpOnARefusal(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"code":"session_not_found","detail":"there is no session","status":404}`))
	}))
	defer s.Close()
	c, _ := client.New(s.URL, "", nil)
	n := 0
	for _, err := range client.Follow(t.Context(), c.SessionEvents("s-1")) {
		var e *client.Error
		if n++; !errors.As(err, &e) || e.Code != "session_not_found" {
			t.Errorf("%v", err)
		}
	}
	if n != 1 {
		t.Errorf("%d messages", n)
	}
}
