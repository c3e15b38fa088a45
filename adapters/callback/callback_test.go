package callback

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

func TestOnlyNamedHostsAreCalled(t *testing.T) {
	p := New([]string{"Viz.example.org", "127.0.0.1:9000"})
	defer p.Close()
	for url, ok := range map[string]bool{
		"": true, "https://viz.example.org/done?x=1": true, "http://VIZ.example.org:8443/": true, "http://127.0.0.1:9000/": true,
		"http://127.0.0.1:9001/": false, "http://127.0.0.1/": false, "http://viz.example.org.evil.org/": false, "http://evil.org/viz.example.org": false,
		"ftp://viz.example.org/": false, "http://user:secret@viz.example.org/": false, "//viz.example.org/": false, "viz.example.org": false,
		"http://viz.example.org/\x00": false, "http://viz.example.org/" + strings.Repeat("x", MaxURL): false,
	} {
		err := p.Check(url)
		if (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
		if r, is := domain.AsRefusal(err); err != nil && (!is || r.Field != "callback_url") {
			t.Errorf("%q: the refusal does not name its field: %v", url, err)
		}
	}
}

// A redirect is not followed, and only a 2xx counts as taken.
func TestWhatCountsAsTaken(t *testing.T) {
	followed := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		case "/elsewhere":
			followed = true
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	p := New([]string{strings.TrimPrefix(s.URL, "http://")})
	defer p.Close()
	for path, ok := range map[string]bool{"/": true, "/moved": false, "/broken": false} {
		if err := p.Post(t.Context(), s.URL+path, []byte(`{}`)); (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	if followed {
		t.Error("the redirect was followed")
	}
	if err := p.Post(t.Context(), "http://127.0.0.1:1/", []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("a host that was taken off the list: %v", err)
	}
}

// What a name leads to is looked at as well: this machine and its cloud's credentials have to be named themselves.
func TestNamesThatLeadWhereTheyMustNot(t *testing.T) {
	for _, c := range []struct {
		hosts   []string
		address string
		ok      bool
	}{
		{[]string{"viz.example.org"}, "127.0.0.1:80", false}, {[]string{"viz.example.org"}, "[::1]:80", false},
		{[]string{"viz.example.org"}, "169.254.169.254:80", false}, {[]string{"viz.example.org"}, "[fe80::1%eth0]:80", false},
		{[]string{"viz.example.org"}, "100.100.100.200:80", false}, {[]string{"viz.example.org"}, "[fd00:ec2::254]:80", false},
		{[]string{"viz.example.org"}, "0.0.0.0:80", false}, {[]string{"viz.example.org"}, "224.0.0.1:80", false},
		{[]string{"viz.example.org"}, "[::ffff:127.0.0.1]:80", false}, {[]string{"viz.example.org"}, "viz:80", false},
		{[]string{"viz.example.org"}, "10.7.0.3:80", true}, {[]string{"viz.example.org"}, "203.0.113.9:443", true},
		{[]string{"127.0.0.1"}, "127.0.0.1:80", true}, {[]string{"127.0.0.1:80"}, "127.0.0.1:80", true}, {[]string{"127.0.0.1:80"}, "127.0.0.1:81", false},
		{[]string{"localhost"}, "[::1]:80", true}, {[]string{"localhost:80"}, "127.0.0.1:80", true}, {[]string{"169.254.169.254"}, "169.254.169.254:80", true},
	} {
		p := New(c.hosts)
		if err := p.control("tcp", c.address, nil); (err == nil) != c.ok {
			t.Errorf("%q, %s: %v", c.hosts, c.address, err)
		}
		p.Close()
	}
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	p := New([]string{"localhost.localdomain", "127.0.0.2"})
	defer p.Close()
	if err := p.Post(t.Context(), "http://127.0.0.1:"+port+"/", []byte(`{}`)); err == nil || strings.Contains(err.Error(), "404") {
		t.Errorf("an address that is not named: %v", err)
	}
}

func TestAsk(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = w.Write([]byte(strings.Repeat("x", maxAnswer+1)))
		case "/broken":
			w.WriteHeader(http.StatusBadGateway)
		case "/slow":
			_, _ = io.Copy(io.Discard, r.Body) // only then is it seen that the client has left
			<-r.Context().Done()
		default:
			_, _ = w.Write([]byte(`{"size":3}`))
		}
	}))
	defer s.Close()
	p := New([]string{"127.0.0.1"})
	defer p.Close()
	if a, err := p.Ask(t.Context(), s.URL+"/", []byte(`{}`)); err != nil || string(a) != `{"size":3}` {
		t.Errorf("%s %v", a, err)
	}
	for _, path := range []string{"/long", "/broken", "/slow?token=secret"} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if a, err := p.Ask(ctx, s.URL+path, []byte(`{}`)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q %v", path, a, err)
		}
		cancel()
	}
}
