package callback

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
