package process_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/callback"
	"github.com/rendering-resource-manager/rrm/commands/process"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// desk is what the manager sees of the service, in memory.
type desk struct {
	mu       sync.Mutex
	settings map[domain.RendererID]domain.Renderer
	said     []pool.ReportAdvice
}

func (d *desk) LiveResources(context.Context) ([]pool.Resource, error) { return nil, nil }
func (d *desk) HeldJobs(context.Context) ([]pool.Job, error)           { return nil, nil }
func (d *desk) GatheringJobs(context.Context) ([]pool.Job, error)      { return nil, nil }
func (d *desk) Settings(context.Context) (map[domain.RendererID]domain.Renderer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.settings), nil
}

func (d *desk) Report(_ context.Context, _ domain.Actor, cmd pool.Command) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, cmd.(pool.ReportAdvice))
	return nil
}

func (d *desk) Numbers(_ context.Context, id domain.RendererID) (process.Numbers, error) {
	if id == "removed" {
		return process.Numbers{}, domain.NotFound("renderer", string(id))
	}
	return process.Numbers{Renderer: id, Max: 5, QueuedSessions: 2, Resources: map[string]int{"ready": 1}}, nil
}

// asks is a renderer whose size another service is asked for.
func asks(id domain.RendererID, url string) domain.Renderer {
	return domain.Renderer{ID: id, CommandLine: "x", Scaling: domain.ScalingSettings{Max: 5, ScalingPolicy: domain.ScalingPolicy{
		Policy: "webhook", Parameters: domain.Parameters{"url": url, "deadline": "200ms", "interval": "1h"}}}}
}

// A real server over the loopback, which was allowed: what it answers, and what is made of it.
func TestAdviceIsAskedForAndReported(t *testing.T) {
	var asked struct {
		sync.Mutex
		process.Numbers
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/good":
			asked.Lock()
			_ = json.Unmarshal(body, &asked.Numbers)
			asked.Unlock()
			_, _ = w.Write([]byte(`{"size":3,"reason":"a class begins","more":"is ignored"}`))
		case "/slow":
			<-r.Context().Done()
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusTemporaryRedirect)
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte(map[string]string{"/text": "three", "/none": "{}", "/negative": `{"size":-1}`, "/half": `{"size":1.5}`,
				"/huge": `{"size":1e9}`, "/long": `{"size":1,"reason":"` + strings.Repeat("x", 5000) + `"}`, "/list": `[3]`}[r.URL.Path]))
		}
	}))
	defer s.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close() // nobody listens there any more
	host := strings.TrimPrefix(s.URL, "http://")
	poster := callback.New([]string{host, strings.TrimPrefix(gone.URL, "http://")})
	defer poster.Close()
	for name, c := range map[string]struct {
		url     string
		problem string // part of it; empty: it answered
	}{
		"good": {s.URL + "/good", ""}, "slow": {s.URL + "/slow", "no answer within 200ms"}, "moved": {s.URL + "/moved", "307"},
		"busy": {s.URL + "/busy", "503"}, "text": {s.URL + "/text", "read answer"}, "none": {s.URL + "/none", "whole number"},
		"negative": {s.URL + "/negative", "whole number"}, "half": {s.URL + "/half", "whole number"}, "huge": {s.URL + "/huge", "whole number"},
		"long": {s.URL + "/long", "longer than"}, "list": {s.URL + "/list", "read answer"}, "gone": {gone.URL, "refused"},
		"forbidden": {"http://127.0.0.1:1/", "not allowed"}, "metadata": {"http://169.254.169.254/latest", "not allowed"},
	} {
		d := &desk{settings: map[domain.RendererID]domain.Renderer{"demo": asks("demo", c.url)}}
		m := process.NewAdvice(d, d, d, poster, slog.New(slog.DiscardHandler))
		began := time.Now()
		for range 2 { // the second time is too early
			if err := m.RunOnce(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.Wait()
		}
		if len(d.said) != 1 || d.said[0].URL != c.url || d.said[0].Renderer != "demo" {
			t.Errorf("%s: it says %+v", name, d.said)
			continue
		}
		if took := time.Since(began); took > 2*time.Second { // the deadline is a tenth of that
			t.Errorf("%s: it took %s", name, took)
		}
		got := d.said[0]
		if c.problem == "" && (got.Problem != "" || got.Size != 3 || got.Reason != "a class begins") {
			t.Errorf("%s: %+v", name, got)
		}
		if c.problem != "" && !strings.Contains(got.Problem, c.problem) {
			t.Errorf("%s: the problem is %q", name, got.Problem)
		}
	}
	if asked.Renderer != "demo" || asked.Max != 5 || asked.QueuedSessions != 2 || asked.Resources["ready"] != 1 {
		t.Errorf("it was asked about %+v", asked.Numbers)
	}
}

// stuck answers when it is let go, or its caller leaves.
type stuck struct{ called chan string }

func (s stuck) Ask(ctx context.Context, url string, _ json.RawMessage) (json.RawMessage, error) {
	s.called <- url
	<-ctx.Done()
	return nil, errors.New("let go")
}

// Settings that change end the question, and a pool that was removed is not asked for.
func TestAdviceThatIsNotWantedAnyMore(t *testing.T) {
	d := &desk{settings: map[domain.RendererID]domain.Renderer{"removed": asks("removed", "http://a/"), "static": asks("static", "http://b/")}}
	static := d.settings["static"]
	static.Launcher = domain.LauncherStatic
	d.settings["static"] = static
	s := stuck{make(chan string, 8)}
	m := process.NewAdvice(d, d, d, s, slog.New(slog.DiscardHandler))
	if err := m.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Wait()
	if len(s.called) != 0 || len(d.said) != 0 {
		t.Errorf("asked at %d places, said %+v", len(s.called), d.said)
	}
	slow := asks("demo", "http://c/")
	slow.Scaling.Parameters["deadline"] = "30s"
	d.mu.Lock()
	d.settings["demo"] = slow
	d.mu.Unlock()
	_ = m.RunOnce(t.Context())
	if url := <-s.called; url != "http://c/" {
		t.Errorf("asked %s", url)
	}
	d.mu.Lock()
	delete(d.settings, "demo")
	d.mu.Unlock()
	began := time.Now()
	_ = m.RunOnce(t.Context())
	m.Wait()
	if len(d.said) != 0 || time.Since(began) > 10*time.Second {
		t.Errorf("it says %+v after %s", d.said, time.Since(began))
	}
}
