package unicore_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/domain"
)

// Whatever the site says or fails to say: while the renderer runs it is never gone.
func TestTroubleIsUnknownAndNeverGone(t *testing.T) {
	var strangers atomic.Int32
	stranger := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strangers.Add(1) }))
	t.Cleanup(stranger.Close)
	status := func(code int) func(*unicoretest.Site) {
		return func(s *unicoretest.Site) {
			s.Fault = unicoretest.Only("", func(w http.ResponseWriter, _ *http.Request) { unicoretest.Refuse(w, code, "as it was told") })
		}
	}
	text := func(prefix, body string) func(*unicoretest.Site) {
		return func(s *unicoretest.Site) {
			s.Fault = unicoretest.Only(prefix, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
		}
	}
	for name, c := range map[string]struct {
		trouble func(*unicoretest.Site)
		reason  string
	}{
		"the token has expired":             {status(432), "the token has expired: the site answers 432"},
		"the token is refused":              {status(401), "refuses the token: it answers 401"},
		"the token is not enough":           {status(403), "refuses the token: it answers 403"},
		"it is broken":                      {status(500), "the site answers 500: as it was told"},
		"the gateway finds no site":         {status(503), "not available now"},
		"it shows strangers nothing":        {func(s *unicoretest.Site) { s.Anonymous = true }, "anonymous"},
		"every answer is not found":         {status(404), "404"},
		"its lists are not JSON":            {text("GET /jobs", "<html>"), "not understood"},
		"its lists are something else":      {text("GET /jobs", "{}"), "not understood"},
		"a job is not JSON":                 {text("GET /jobs/", "]"), "not understood"},
		"a job has no status":               {text("GET /jobs/", `{"name": "x"}`), "no status"},
		"a job has a status not known":      {text("GET /jobs/", `{"status": "DREAMING"}`), "DREAMING"},
		"an answer never ends":              {text("GET /jobs", `{"jobs": ["`+strings.Repeat("x", 5<<20)+`"]}`), "longer than"},
		"its addresses are of another host": {func(s *unicoretest.Site) { s.HrefBase = "https://elsewhere.invalid" + unicoretest.Core }, "not at the site"},
		"it sends us elsewhere": {func(s *unicoretest.Site) {
			s.Fault = unicoretest.Only("GET ", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, stranger.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			})
		}, "redirect"},
		"it does not answer in time": {func(s *unicoretest.Site) {
			s.Fault = unicoretest.Only("GET /jobs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}, "deadline exceeded"},
		"it cuts connections": {func(s *unicoretest.Site) {
			s.Fault = unicoretest.Only("GET /jobs", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := unicoretest.Start(t)
			opts := options(t, s)
			opts.Timeout = 300 * time.Millisecond
			l := open(t, opts)
			r := launch(t, l, spec(t, "r"))
			before := ready(t, l, r)
			s.Change(c.trouble)
			last := before
			eventually(t, func() (bool, string) {
				last = observe(t, l, r)
				if last.State == domain.LaunchGone {
					t.Fatalf("it is gone: %s", last.Reason)
				}
				return last.State == domain.LaunchUnknown && strings.Contains(last.Reason, c.reason), string(last.State) + " " + last.Reason
			})
			if string(last.Handle) != string(r.Handle) || last.Address != r.Address {
				t.Errorf("the unknown is %+v, want its handle and address kept", last.Launched)
			}
			s.Change(func(s *unicoretest.Site) { s.Fault, s.Anonymous, s.HrefBase = nil, false, "" })
			after := becomes(t, l, r, domain.LaunchRunning, "")
			if after.Node != before.Node || !after.Started.Equal(before.Started) {
				t.Errorf("afterwards it is %+v, want %+v", after, before)
			}
		})
	}
	t.Cleanup(func() {
		if n := strangers.Load(); n != 0 {
			t.Errorf("%d requests went to another host", n)
		}
	})
}

func TestTroubleIsNoEmptyListAndNoSuccess(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	l := open(t, options(t, s))
	r := launch(t, l, spec(t, "r"))
	ready(t, l, r)
	for name, trouble := range map[string]func(*unicoretest.Site){
		"anonymous": func(s *unicoretest.Site) { s.Anonymous, s.Sessions = true, map[string]string{} },
		"expired": func(s *unicoretest.Site) {
			s.Fault = unicoretest.Only("", func(w http.ResponseWriter, _ *http.Request) { unicoretest.Refuse(w, 432, "") })
		},
	} {
		s.Change(trouble)
		for kind, l := range map[string]*unicore.Launcher{"the same": l, "a new": open(t, options(t, s))} {
			eventually(t, func() (bool, string) { // a list may be as old as Options.Every
				all, err := l.List(t.Context())
				return err != nil, fmt.Sprintf("%s: %s launcher lists %v, want an error", name, kind, all)
			})
			if err := l.Stop(t.Context(), r, true); err == nil {
				t.Errorf("%s: %s launcher says it has stopped what runs", name, kind)
			}
			if _, err := l.Launch(t.Context(), spec(t, "r")); err == nil {
				t.Errorf("%s: %s launcher says it has launched", name, kind)
			}
		}
		s.Change(func(s *unicoretest.Site) { s.Fault, s.Anonymous = nil, false })
	}
	if n := begun(s, "r"); n != 1 {
		t.Errorf("%d jobs were started, want 1", n)
	}
}

func TestRestartedSite(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	l := open(t, options(t, s))
	r := launch(t, l, spec(t, "r"))
	o := ready(t, l, r)
	expired := s.Count("")
	s.Restart()
	if s.Count("") < expired {
		t.Fatal("the double forgot more than its sessions")
	}
	// The sessions are gone; the credentials are sent again, and nobody notices.
	for range 5 {
		if now := observe(t, l, r); now.State != domain.LaunchRunning {
			t.Errorf("after the restart it is %s, %s", now.State, now.Reason)
		}
	}
	if _, err := pid(o.Address); err != nil {
		t.Errorf("after the restart a new connection fails: %v", err)
	}
	if err := l.Stop(t.Context(), r, true); err != nil {
		t.Error(err)
	}
}

func TestTokenIsReplaced(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	ready(t, l, r)
	const next = "the-next-token"
	s.Change(func(s *unicoretest.Site) {
		s.Sessions = map[string]string{}
		s.Users = map[string]string{"Bearer " + next: s.Users[unicoretest.Token]}
	})
	becomes(t, l, r, domain.LaunchUnknown, "refuses the token")
	if err := os.WriteFile(opts.TokenFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	becomes(t, l, r, domain.LaunchUnknown, "read the UNICORE token: it is empty")
	if err := os.WriteFile(opts.TokenFile, []byte(next), 0o600); err != nil { // without "Bearer"
		t.Fatal(err)
	}
	becomes(t, l, r, domain.LaunchRunning, "")
}

func TestTokensOfRequests(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	alice := secretFor(t, s, "CN=Alice")
	var mine atomic.Value
	mine.Store(alice)
	opts.Token = func(_ context.Context, r domain.ResourceID) (string, error) {
		if r == "of-alice" {
			return mine.Load().(string), nil
		}
		return "", nil
	}
	l := open(t, opts)
	hers, ours := launch(t, l, spec(t, "of-alice")), launch(t, l, spec(t, "of-service"))
	ready(t, l, hers)
	ready(t, l, ours)
	if j := s.Named("of-alice")[0]; j.Owner != "CN=Alice" {
		t.Errorf("the job is %s's, want Alice's", j.Owner)
	}
	if j := s.Named("of-service")[0]; j.Owner != "CN=Renderer,O=Test" {
		t.Errorf("the job is %s's, want the service's", j.Owner)
	}
	both, err := l.List(t.Context())
	if err != nil || len(both) != 2 {
		t.Errorf("listed %v, %v; want both", both, err)
	}
	// With another's token her job cannot be seen. That is not its end.
	mine.Store(secretFor(t, s, "CN=Bob"))
	becomes(t, l, hers, domain.LaunchUnknown, "another identity")
	if err := l.Stop(t.Context(), hers, false); err == nil {
		t.Error("Bob stopped what is Alice's, or said so")
	}
	mine.Store(alice)
	becomes(t, l, hers, domain.LaunchRunning, "")
}

// secretFor makes the site know a token.
func secretFor(t *testing.T, s *unicoretest.Site, dn string) string {
	t.Helper()
	token := "Bearer token-of-" + strings.TrimPrefix(dn, "CN=")
	s.Change(func(s *unicoretest.Site) { s.Users[token] = dn })
	return token
}

func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	var log buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	o := ready(t, l, r)
	said := []string{fmt.Sprintf("%+v %s %+v", l, r.Handle, o)}
	s.Change(func(s *unicoretest.Site) { // it answers with what it was sent
		s.Fault = unicoretest.Only("", func(w http.ResponseWriter, r *http.Request) {
			unicoretest.Refuse(w, http.StatusForbidden, fmt.Sprintf("%v %s", r.Header, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
		})
	})
	said = append(said, becomes(t, l, r, domain.LaunchUnknown, "hidden").Reason)
	for _, act := range []func() error{
		func() error { return l.Stop(t.Context(), r, true) },
		func() error { _, err := l.List(t.Context()); return err },
		func() error { _, err := l.Output(t.Context(), r, "stdout", 10); return err },
		func() error { _, err := l.Launch(t.Context(), spec(t, "r2")); return err },
		func() error { _, err := pid(o.Address); return err },
	} {
		err := act()
		if err == nil {
			t.Error("it worked though all is forbidden")
			continue
		}
		said = append(said, err.Error())
	}
	said = append(said, log.String())
	s.Change(func(s *unicoretest.Site) {
		for session := range s.Sessions {
			for _, text := range said {
				if strings.Contains(text, session) {
					t.Errorf("the session is told: %s", text)
				}
			}
		}
	})
	for _, text := range said {
		if strings.Contains(text, strings.TrimPrefix(unicoretest.Token, "Bearer ")) {
			t.Errorf("the token is told: %s", text)
		}
	}
	if strings.Contains(string(r.Handle), "Renderer") {
		t.Errorf("the handle tells the name: %s", r.Handle)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	opts.CAFile = ""
	if _, err := open(t, opts).Launch(t.Context(), spec(t, "r")); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want a site with an unknown certificate to be refused", err)
	}
	if s.Count("") != 0 {
		t.Error("something was sent to a site with an unknown certificate")
	}
	for range 2 {
		var log buffer
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		opts.DangerouslySkipTLSVerify = true
		l := open(t, opts)
		if _, err := l.List(t.Context()); err != nil {
			t.Errorf("not verifying: %v", err)
		}
		if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "DangerouslySkipTLSVerify") {
			t.Errorf("the log is %q, want a warning at each start", log.String())
		}
	}
	opts.DangerouslySkipTLSVerify = false
	for _, file := range []string{"/does/not/exist", os.Args[0]} {
		opts.CAFile = file
		if _, err := unicore.New(opts); err == nil {
			t.Errorf("%s was taken for a CA file", file)
		}
	}
}

// A site that hangs must not hold up whoever looks at other launchers too.
func TestObserveReturnsInTime(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	opts.ObserveWait = 50 * time.Millisecond
	for _, name := range []string{"alice", "bob", "r"} {
		secretFor(t, s, "CN="+name)
	}
	opts.Token = func(_ context.Context, r domain.ResourceID) (string, error) {
		return "Bearer token-of-" + string(r), nil
	}
	l := open(t, opts)
	r := launch(t, l, spec(t, "r"))
	ready(t, l, r)
	s.Change(func(s *unicoretest.Site) {
		s.Fault = unicoretest.Only("GET /jobs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	})
	for range 3 {
		start := time.Now()
		o := observe(t, l, r)
		if took := time.Since(start); took > time.Second {
			t.Errorf("looking took %s", took)
		}
		// What was seen a moment ago still counts.
		if o.State != domain.LaunchRunning {
			t.Errorf("it is %s, %s; want running", o.State, o.Reason)
		}
	}
	fresh := open(t, opts)
	if _, err := fresh.Observe(t.Context(), []domain.Launched{{Resource: "alice"}, {Resource: "bob"}, r}); err != nil {
		t.Error(err)
	}
	if o := observe(t, fresh, r); o.State != domain.LaunchUnknown || !strings.Contains(o.Reason, "has not answered") {
		t.Errorf("a new launcher sees %s, %q; want unknown", o.State, o.Reason)
	}
	start := time.Now()
	opts.Token = nil
	if _, err := open(t, opts).List(t.Context()); err == nil || time.Since(start) > time.Second {
		t.Errorf("a list gave %v after %s, want an error soon", err, time.Since(start))
	}
}
