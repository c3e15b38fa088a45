package rrmv1_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/rrmv1"
	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/projections"
)

const base = rrmv1.BasePath

// world is a service in memory: commands and views of the least that the API needs.
type world struct {
	mu        sync.Mutex
	sessions  map[domain.SessionID]*projections.SessionView
	renderers map[domain.RendererID]domain.Renderer
	tokens    map[string]projections.Token
	suspended bool
	down      error // of the store
	away      error // of the launcher
	renewals  []domain.SessionID
	booked    []pool.ScheduleSession
	actors    []domain.Actor

	forwarded []forwarded
	answer    func(w http.ResponseWriter, r *http.Request, fail func(int, string, string)) // of the renderer
	picture   func() ([]byte, error)
	output    string
}

type forwarded struct {
	method, path, query, body string
	header                    http.Header
	to                        rrmv1.Target
}

func newWorld() *world {
	return &world{
		sessions: map[domain.SessionID]*projections.SessionView{}, tokens: map[string]projections.Token{},
		renderers: map[domain.RendererID]domain.Renderer{
			"livre": {ID: "livre", CommandLine: "livre", Launcher: "local", ModelLoading: domain.LoadNone, GracefulExit: true},
		},
		picture: func() ([]byte, error) { return []byte("a picture"), nil },
		output:  "rendering <b>now</b>\n",
	}
}

func id(n int) domain.SessionID {
	return domain.SessionID(fmt.Sprintf("00000000-0000-7000-8000-%012d", n))
}

func (w *world) OpenSession(_ context.Context, c commands.Call, cmd pool.OpenSession) (pool.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.actors = append(w.actors, c.Actor)
	switch _, known := w.renderers[cmd.Renderer]; {
	case w.down != nil:
		return pool.Session{}, w.down
	case !known:
		return pool.Session{}, domain.NotFound("renderer", string(cmd.Renderer))
	case w.suspended:
		return pool.Session{}, domain.Forbidden("admission_suspended", "new sessions are suspended")
	}
	s := pool.Session{ID: id(len(w.sessions) + 1), Renderer: cmd.Renderer, Owner: cmd.Owner, State: pool.SessionStateOpened,
		LeaseSeconds: cmd.Lease.Seconds(), Throughout: true, RequestedAt: time.Unix(0, 0)}
	w.sessions[s.ID] = &projections.SessionView{Session: s}
	return s, nil
}

func (w *world) ScheduleSession(_ context.Context, _ commands.Call, cmd pool.ScheduleSession) (commands.Booking, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.sessions[cmd.Session]
	if v.State != pool.SessionStateOpened {
		return commands.Booking{}, domain.Conflict("session_scheduled", "session %q is %s already", v.ID, v.State)
	}
	set := w.renderers[v.Renderer]
	if _, err := set.With(cmd.Overrides).Checked(); err != nil {
		return commands.Booking{}, err
	}
	w.booked = append(w.booked, cmd)
	v.Model, v.Overrides, v.State = cmd.Model, cmd.Overrides, pool.SessionStateStarting
	return commands.Booking{Session: v.Session}, nil
}

func (w *world) ReleaseSession(_ context.Context, _ commands.Call, cmd pool.ReleaseSession) (pool.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.sessions[cmd.Session]
	v.State, v.Ended = pool.SessionStateReleased, true
	return v.Session, nil
}

func (w *world) RenewLease(_ context.Context, _ commands.Call, id domain.SessionID, _ time.Duration) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v := w.sessions[id]; v == nil || v.Ended {
		return time.Time{}, domain.Conflict("session_ended", "it has ended")
	}
	w.renewals = append(w.renewals, id)
	return time.Now(), nil
}

func (w *world) ConfigureRenderer(_ context.Context, _ commands.Call, cmd pool.ConfigureRenderer) (domain.Renderer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, err := cmd.Renderer.Checked()
	if _, known := w.renderers[r.ID]; err == nil && known && cmd.Create {
		err = domain.Conflict("renderer_exists", "there is one")
	}
	if err == nil {
		w.renderers[r.ID] = r
	}
	return r, err
}

func (w *world) RemoveRenderer(_ context.Context, _ commands.Call, cmd pool.RemoveRenderer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.renderers[cmd.Renderer]; !known {
		return domain.NotFound("renderer", string(cmd.Renderer))
	}
	delete(w.renderers, cmd.Renderer)
	return nil
}

func (w *world) SetAdmission(_ context.Context, _ commands.Call, cmd pool.SetAdmission) (pool.Service, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.suspended = !cmd.Open
	return pool.Service{Open: cmd.Open}, nil
}

func (w *world) Pools(context.Context) ([]pool.Pool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []pool.Pool
	for _, r := range w.renderers {
		all = append(all, pool.Pool{Settings: r})
	}
	slices.SortFunc(all, func(a, b pool.Pool) int { return strings.Compare(string(a.Settings.ID), string(b.Settings.ID)) })
	return all, w.down
}

func (w *world) Resource(_ context.Context, id domain.ResourceID) (pool.Resource, error) {
	if id != "livre-1" {
		return pool.Resource{}, domain.NotFound("resource", string(id))
	}
	return pool.Resource{ID: id, Renderer: "livre", Launcher: "local", State: pool.ResourceStateReady}, nil
}

func (w *world) Session(_ context.Context, id domain.SessionID) (projections.SessionView, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return projections.SessionView{}, w.down
	}
	v := w.sessions[id]
	if v == nil {
		return projections.SessionView{}, domain.NotFound("session", string(id))
	}
	return *v, nil
}

func (w *world) Sessions(_ context.Context, f projections.SessionFilter, _ projections.Page) ([]projections.SessionView, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []projections.SessionView
	for _, v := range w.sessions {
		if string(v.State) == f.State && (f.Owner == "" || f.Owner == string(v.Owner)) {
			all = append(all, *v)
		}
	}
	return all, "", nil
}

func (w *world) Lookup(_ context.Context, secret string) (projections.Token, bool, error) {
	t, ok := w.tokens[secret]
	return t, ok, nil
}

func (w *world) Any(context.Context) (bool, error) { return len(w.tokens) > 0, nil }

func (w *world) Forward(rw http.ResponseWriter, r *http.Request, to rrmv1.Target, onActivity func(), fail func(int, string, string)) {
	b, _ := io.ReadAll(r.Body)
	w.mu.Lock()
	w.forwarded = append(w.forwarded, forwarded{r.Method, strings.TrimPrefix(r.URL.EscapedPath(), to.Prefix), r.URL.RawQuery, string(b), r.Header.Clone(), to})
	answer := w.answer
	w.mu.Unlock()
	onActivity()
	if answer != nil {
		answer(rw, r, fail)
		return
	}
	_, _ = rw.Write([]byte(`{"from":"the renderer"}`))
}

func (w *world) Frame(context.Context, string, domain.SessionID, domain.ModelKey) ([]byte, error) {
	w.mu.Lock()
	picture := w.picture
	w.mu.Unlock()
	return picture()
}

func (w *world) Output(_ context.Context, _ pool.Resource, stream string, _ int) (io.ReadCloser, error) {
	if w.away != nil {
		return nil, w.away
	}
	return io.NopCloser(strings.NewReader(stream + ": " + w.output)), nil
}

func (w *world) Info(context.Context, pool.Resource) (string, error) { return "pid=4711\n", w.away }

// put brings a session into a state, with what it has then.
func (w *world) put(id domain.SessionID, state pool.SessionState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.sessions[id]
	v.State = state
	switch state {
	case pool.SessionStateReady:
		v.Address, v.Node, v.Resource = "10.0.0.7:3000", "node7", "livre-1"
	case pool.SessionStateReleased, pool.SessionStateExpired, pool.SessionStateLost, pool.SessionStateFailed:
		v.Ended, v.Reason = true, "of what the test says"
	}
}

func (w *world) count(of func() int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return of()
}

// client speaks to a server in one dialect, through one prefix.
type client struct {
	t       *testing.T
	url     string
	query   bool // names its session by the query
	cookie  string
	session string
	header  http.Header
}

func serve(t *testing.T, w *world, change func(*rrmv1.Config)) *client {
	t.Helper()
	cfg := rrmv1.Config{Commands: w, Views: w, Tokens: w, Forward: w, Frames: w, Outputs: w, Open: true, FrameEvery: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	s, err := rrmv1.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		s.Close()
		h.Close()
	})
	return &client{t: t, url: h.URL + base, header: http.Header{}}
}

type reply struct {
	status int
	header http.Header
	raw    []byte
	doc    map[string]any
	list   []any
}

// call sends a request and expects JSON, whatever the status.
func (c *client) call(method, path string, body any) reply {
	c.t.Helper()
	r := c.do(method, path, body)
	var v any
	if err := json.Unmarshal(r.raw, &v); err != nil {
		c.t.Fatalf("%s %s: %d and no JSON: %q", method, path, r.status, r.raw)
	}
	if got := r.header.Get("Content-Type"); got != "application/json" && !strings.Contains(string(r.raw), "from") {
		c.t.Fatalf("%s %s: the type is %q", method, path, got)
	}
	r.doc, _ = v.(map[string]any)
	r.list, _ = v.([]any)
	return r
}

func (c *client) do(method, path string, body any) reply {
	c.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			c.t.Fatal(err)
		}
		in = bytes.NewReader(raw)
	}
	if c.query && c.session != "" && strings.HasPrefix(path, "/session") {
		path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "session_id=" + c.session
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, in)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header = c.header.Clone()
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if !c.query && c.cookie != "" {
		req.Header.Set("Cookie", c.cookie)
	}
	// A client that follows redirections would hide them.
	transport := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := transport.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{status: res.StatusCode, header: res.Header, raw: raw}
}

// must is call that expects a status.
func (c *client) must(want int, method, path string, body any) reply {
	c.t.Helper()
	r := c.call(method, path, body)
	if r.status != want {
		c.t.Fatalf("%s %s: %d, not %d: %s", method, path, r.status, want, r.raw)
	}
	return r
}

// begin opens a session and keeps its name, as the dialect has it.
func (c *client) begin() domain.SessionID {
	c.t.Helper()
	r := c.must(201, "POST", "/session/", map[string]string{"owner": "bbpvizuser", "configuration_id": "livre"})
	c.session, _ = r.doc["session_id"].(string)
	c.cookie, _, _ = strings.Cut(r.header.Get("Set-Cookie"), ";")
	if c.session == "" || c.cookie != "HBP="+c.session {
		c.t.Fatalf("the answer names the session %q, the cookie %q", c.session, r.header.Get("Set-Cookie"))
	}
	return domain.SessionID(c.session)
}

// status is the code and text of a status.
func (c *client) status() (float64, string) {
	c.t.Helper()
	r := c.must(200, "GET", "/session/status", nil)
	text, _ := r.doc["description"].(string)
	return r.doc["code"].(float64), text
}

// everywhere runs a test in both dialects, with and without a prefix.
func everywhere(t *testing.T, f func(t *testing.T, w *world, c *client)) {
	t.Helper()
	t.Parallel()
	for _, dialect := range []string{"cookie", "session_id"} {
		for _, prefix := range []string{"", "/viz", "/a/b"} {
			t.Run(dialect+prefix, func(t *testing.T) {
				t.Parallel()
				w := newWorld()
				c := serve(t, w, nil)
				c.query = dialect == "session_id"
				c.url = strings.Replace(c.url, base, prefix+base, 1)
				f(t, w, c)
			})
		}
	}
}
