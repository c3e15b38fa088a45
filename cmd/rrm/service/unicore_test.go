package service_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// shared takes the log of the whole service.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *shared) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *shared) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// atUnicore is a change of a service's settings: it uses the double, with a token of its own.
func atUnicore(t *testing.T, site *unicoretest.Site, log *shared) func(*service.Config) {
	t.Helper()
	dir := t.TempDir()
	token, file := filepath.Join(dir, "token"), filepath.Join(dir, "site.json")
	settings, err := json.Marshal(doc{
		"site": site.Base(), "token_file": token, "ca_file": site.CA(), "listen_host": "127.0.0.1", "first_port": 31000, "last_port": 31400,
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{token: unicoretest.Token, file: string(settings)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(c *service.Config) {
		c.UnicoreSite = file
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

func siteRenderer(n *node, id string) {
	n.t.Helper()
	n.renderer(id, doc{
		"launcher": "unicore", "command_line": program("rrm-renderer"), "process_rest_parameters_format": "", "model_loading": "none",
		"scheduler_rest_parameters_format": "--listen ${rest_hostname}:${rest_port} --memory-mib 256 --model neuron:1", "models_per_resource": 1,
		"scaling": doc{"min": 0, "max": 3, "idle": "1m"}, "probe": doc{"start_timeout": "60s", "interval": "500ms", "timeout": "500ms", "failures": 3},
	})
}

func bearing(n *node, authorization string) *old {
	c := client(n, "")
	if authorization != "" {
		c.header.Set("Authorization", authorization)
	}
	return c
}

// The Authorization of a client of version 1 is what its renderer is started with at the site, and it is
// on no record: not in the log of events, not in the views, not in the program's log. Who sends
// none has the service's own account. No session gets a renderer of another's account.
func TestUnicoreByTheClientsToken(t *testing.T) {
	const alices, newer, bobs = "Bearer alices-token-0001", "Bearer alices-token-0002", "Basic Ym9iOmJvYnMtcGFzc3dvcmQ="
	site := unicoretest.Start(t)
	site.Change(func(s *unicoretest.Site) {
		s.Users[alices], s.Users[newer], s.Users[bobs] = "CN=Alice", "CN=Alice", "CN=Bob"
	})
	var log shared
	dsn, data := dbtest.DSN(t), t.TempDir()
	config := func(c *service.Config) {
		atUnicore(t, site, &log)(c)
		c.DatabaseURL, c.DataDir = dsn, data
	}
	cfg := service.Config{Listen: "127.0.0.1:0", Keep: time.Hour, MaxResultBytes: 1 << 20}
	config(&cfg)
	s, err := service.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, URL: s.URL, Service: s}
	siteRenderer(n, "far")
	begin := func(authorization string) (*old, string) {
		c := bearing(n, authorization)
		id := c.must(201, "POST", "/session/", doc{"owner": "x", "configuration_id": "far"})["session_id"].(string)
		c.must(200, "PUT", "/session/schedule", doc{"params": ""})
		return c, id
	}
	where := func(id string) string { return n.must(200, "GET", base+"/sessions/"+id, nil)["resource"].(string) }
	alice, first := begin(alices)
	bob, second := begin(bobs)
	own, third := begin("")
	for c, id := range map[*old]string{alice: first, bob: second, own: third} {
		c.until(3, "", nil)
		if status, _ := c.raw("GET", "/session/v1/camera", nil); status != 200 {
			t.Errorf("%s: the renderer cannot be reached: %d", id, status)
		}
	}
	resource := where(first)
	for id, owner := range map[string]string{first: "CN=Alice", second: "CN=Bob", third: "CN=Renderer,O=Test"} {
		if jobs := site.Named(where(id)); len(jobs) != 1 || jobs[0].Owner != owner {
			t.Errorf("the job of %s: %d, of another than %s", id, len(jobs), owner)
		}
	}
	// Alice's next session has her warm renderer; nobody else's does.
	alice.must(200, "DELETE", "/session/", nil)
	again, fourth := begin(alices)
	if again.until(3, "", nil); where(fourth) != resource {
		t.Errorf("with the same token: %s, not the warm %s", where(fourth), resource)
	}

	// After a restart the token is known no more, until its client sends it again, or a newer one.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n = start(t, config)
	if job := bearing(n, "").must(200, "GET", "/session/job?session_id="+fourth, nil)["contents"].(string); !strings.Contains(job, "launcher=unicore") || strings.Contains(job, "BatchSystemID") {
		t.Errorf("without the token the site tells %q", job)
	}
	pause(t.Context(), 2500*time.Millisecond) // more than the probes that make a renderer hung
	if d := n.must(200, "GET", base+"/sessions/"+fourth, nil); d["state"] != "ready" {
		t.Errorf("after the restart: %v", d)
	}
	back := bearing(n, newer)
	back.must(200, "GET", "/session/status?session_id="+fourth, nil)
	eventually(t, 30*time.Second, "the renderer is reached again", func() bool {
		status, _ := back.raw("GET", "/session/v1/camera?session_id="+fourth, nil)
		return status == 200
	})
	if where(fourth) != resource {
		t.Errorf("another resource: %s", where(fourth))
	}

	// Bob never comes back: to stop his is given up, and said.
	lone := where(second)
	n.must(200, "DELETE", base+"/resources/"+lone, nil)
	n.state("/resources/"+lone, "stopped")
	if !strings.Contains(log.String(), "its token is not known any more; it runs until its time is over") {
		t.Error("the log does not say that bob's job goes on")
	}
	if jobs := site.Named(lone); len(jobs) != 1 || jobs[0].Properties("")["status"] != "RUNNING" {
		t.Error("bob's job was ended without his token")
	}

	var text string
	if err := n.DB.Get(&text, `SELECT string_agg(x, ' ') FROM (SELECT events::text AS x FROM events UNION ALL SELECT sessions::text FROM sessions
		UNION ALL SELECT resources::text FROM resources UNION ALL SELECT answers::text FROM answers UNION ALL SELECT liveness::text FROM liveness) AS everything`); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{alices, newer, bobs, unicoretest.Token} {
		_, bare, _ := strings.Cut(secret, " ")
		if strings.Contains(text, bare) || strings.Contains(log.String(), bare) {
			t.Errorf("%q is on record", bare)
		}
	}
	if !strings.Contains(text, `"identity"`) {
		t.Error("no identity is on record: this test looks at nothing")
	}
	n.verify()
}
