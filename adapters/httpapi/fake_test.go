package httpapi

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/placement"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/projections"
)

// world is a small service in memory behind the interfaces of seams.go: it
// keeps what commands make and appends events, and decides nothing.
type world struct {
	mu        sync.Mutex
	refuse    error // every command answers this
	down      error // every question and command answers this
	reject    map[domain.ModelKey]error
	sessions  map[domain.SessionID]*projections.SessionView
	jobs      map[domain.JobID]*projections.JobView
	resources map[domain.ResourceID]*pool.Resource
	pools     map[domain.RendererID]*pool.Pool
	service   pool.Service
	events    []eventstore.Event
	decisions map[int64]projections.DecisionView
	results   map[domain.JobID]string
	tokens    map[string]projections.Token
	beats     map[domain.ResourceID]*beat
	calls     []commands.Call
	booked    []pool.BookResource
	submitted []pool.SubmitJob
	renewed   map[domain.SessionID]int
	asked     int // looks at sessions
	subs      map[chan struct{}]bool
	next      int
}

var t0 = time.Date(2026, 1, 5, 14, 3, 7, 0, time.UTC)

func newWorld() *world {
	w := &world{
		reject: map[domain.ModelKey]error{}, sessions: map[domain.SessionID]*projections.SessionView{}, jobs: map[domain.JobID]*projections.JobView{},
		resources: map[domain.ResourceID]*pool.Resource{}, pools: map[domain.RendererID]*pool.Pool{}, service: pool.Service{Open: true},
		decisions: map[int64]projections.DecisionView{}, results: map[domain.JobID]string{}, tokens: map[string]projections.Token{},
		beats: map[domain.ResourceID]*beat{}, renewed: map[domain.SessionID]int{}, subs: map[chan struct{}]bool{},
	}
	r, err := domain.Renderer{ID: "demo", CommandLine: "rrm-renderer", Environment: map[string]string{"SECRET": "x"}, GracefulExit: true, Scaling: domain.DefaultScaling()}.Checked()
	if err != nil {
		panic(err)
	}
	w.pools["demo"] = &pool.Pool{Settings: r, LastScaling: &pool.Scaling{Position: 1, At: t0, To: 1, Reason: "demand"}}
	w.resources["r-1"] = &pool.Resource{
		ID: "r-1", Renderer: "demo", Launcher: "local", State: pool.ResourceStateReady, StateSince: t0, Slots: 2, MaxModels: 1, RequestedAt: t0,
		Address: "127.0.0.1:1", Node: "node7", Models: []pool.Loaded{{Model: "m", State: "loaded", Since: t0, LastUsed: t0, LoadSeconds: 2}},
		Users: []pool.User{{Kind: "session", ID: "s-0", Model: "m", Since: t0}},
	}
	w.resources["m-1"] = &pool.Resource{
		ID: "m-1", Renderer: "gpu", Launcher: "static", State: pool.ResourceStateReady, StateSince: t0, Slots: 1, RequestedAt: t0, Address: "10.7.0.7:5000",
		Users: []pool.User{{Kind: "session", ID: "s-0", Model: "m", Since: t0}},
	}
	w.beats["m-1"] = &beat{token: "rrm_h_m-1"}
	for secret, who := range map[string]projections.Token{
		"alice": {Owner: "alice", Role: "client"}, "bob": {Owner: "bob", Role: "client"},
		"root": {Owner: "root", Role: "operator"}, "audit": {Owner: "audit", Role: "auditor"},
	} {
		w.tokens[secret] = who
	}
	return w
}

var errDown = fmt.Errorf("read session: %w", driver.ErrBadConn)

func (w *world) append(kind string, actor domain.Actor, data string, subjects ...string) int64 {
	e := eventstore.Event{Position: int64(len(w.events) + 1), RecordedAt: t0}
	e.Stream, e.Version, e.Type, e.Schema = "pool/demo", e.Position, kind, 1
	e.Data, e.Subjects, e.Meta.Actor = json.RawMessage(data), subjects, actor
	w.events = append(w.events, e)
	for c := range w.subs {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return e.Position
}

// say appends an event from outside.
func (w *world) say(kind string, subjects ...string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.append(kind, "process:test", `{}`, subjects...)
}

// change does something to the world under its lock.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) begin(c commands.Call) error {
	w.calls = append(w.calls, c)
	if w.down != nil {
		return w.down
	}
	return w.refuse
}

func (w *world) id(prefix string) string { w.next++; return fmt.Sprintf("%s-%d", prefix, w.next) }

func (w *world) BookResource(_ context.Context, c commands.Call, cmd pool.BookResource) (commands.Booking, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return commands.Booking{}, err
	}
	w.booked = append(w.booked, cmd)
	if w.pools[cmd.Renderer] == nil {
		return commands.Booking{}, domain.NotFound("renderer", string(cmd.Renderer))
	}
	if err := w.reject[cmd.Model]; err != nil {
		return commands.Booking{}, err
	}
	id := domain.SessionID(w.id("s"))
	at := w.append("session.requested", c.Actor, fmt.Sprintf(`{"session":%q}`, id), "session:"+string(id), "owner:"+string(cmd.Owner))
	v := &projections.SessionView{Session: pool.Session{
		ID: id, Seq: at, Renderer: cmd.Renderer, Model: cmd.Model, Owner: cmd.Owner, Params: cmd.Params, State: pool.SessionStateReady, StateSince: t0,
		RequestedAt: t0, LeaseSeconds: 60, OnLost: "end", Resource: "r-1", AllocatedAt: &t0, ReadyAt: &t0, Decision: at,
	}, Address: "127.0.0.1:1", Node: "node7"}
	w.sessions[id] = v
	var place *pool.Place
	if cmd.Wait > 0 {
		until := t0.Add(cmd.Wait)
		place = &pool.Place{Position: 2, EstimatedWaitSeconds: 12, Code: "no_capacity", Reason: "all 2 slots are in use"}
		v.State, v.Queue, v.WaitUntil, v.AllocatedAt, v.ReadyAt, v.Resource, v.Address = pool.SessionStateQueued, place, &until, nil, nil, "", ""
		w.append("session.queued", c.Actor, `{}`, "session:"+string(id), "owner:"+string(cmd.Owner))
	} else {
		expires := t0.Add(time.Minute)
		v.LeaseExpiresAt = &expires
		w.append("session.allocated", c.Actor, `{}`, "session:"+string(id), "owner:"+string(cmd.Owner))
	}
	return commands.Booking{Session: v.Session, Queue: place}, nil
}

func (w *world) ReleaseSession(_ context.Context, c commands.Call, cmd pool.ReleaseSession) (pool.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return pool.Session{}, err
	}
	v := w.sessions[cmd.Session]
	if !v.Ended {
		v.State, v.Ended, v.EndedAt = pool.SessionStateReleased, true, &t0
		w.append("session.released", c.Actor, `{}`, "session:"+string(v.ID), "owner:"+string(v.Owner))
	}
	return v.Session, nil
}

func (w *world) RenewLease(_ context.Context, _ commands.Call, id domain.SessionID, _ time.Duration) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return time.Time{}, w.down
	}
	v := w.sessions[id]
	switch {
	case v == nil:
		return time.Time{}, domain.NotFound("session", string(id))
	case v.Ended:
		return time.Time{}, domain.Conflict("session_ended", "the session was %s", v.State)
	case v.State != pool.SessionStateReady:
		return time.Time{}, nil
	}
	w.renewed[id]++
	return t0.Add(time.Hour), nil
}

func (w *world) SubmitJob(_ context.Context, c commands.Call, cmd pool.SubmitJob) (commands.JobAnswer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return commands.JobAnswer{}, err
	}
	w.submitted = append(w.submitted, cmd)
	if w.pools[cmd.Renderer] == nil {
		return commands.JobAnswer{}, domain.NotFound("renderer", string(cmd.Renderer))
	}
	id := domain.JobID(w.id("j"))
	at := w.append("job.submitted", c.Actor, `{}`, "job:"+string(id), "owner:"+string(cmd.Owner))
	v := &projections.JobView{Job: pool.Job{
		ID: id, Seq: at, Renderer: cmd.Renderer, Model: cmd.Model, Kind: cmd.Kind, Spec: cmd.Spec, Owner: cmd.Owner, Priority: cmd.Priority,
		Deadline: cmd.Deadline, After: cmd.After, MaxAttempts: 3, TimeoutSeconds: 1800, State: pool.JobStateQueued, StateSince: t0, SubmittedAt: t0, QueuedAt: &t0,
	}}
	w.jobs[id] = v
	return commands.JobAnswer{Job: v.Job, Queue: &pool.Place{Position: 1, EstimatedWaitSeconds: 1, Code: "no_capacity", Reason: "busy"}}, nil
}

func (w *world) CancelJob(_ context.Context, c commands.Call, cmd pool.CancelJob) (pool.Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return pool.Job{}, err
	}
	v := w.jobs[cmd.Job]
	if v.State == pool.JobStateSucceeded {
		return pool.Job{}, domain.Conflict("job_ended", "the job succeeded")
	}
	v.State, v.Ended, v.EndedAt = pool.JobStateCancelled, true, &t0
	return v.Job, nil
}

func (w *world) ConfigureRenderer(_ context.Context, c commands.Call, cmd pool.ConfigureRenderer) (domain.Renderer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return domain.Renderer{}, err
	}
	r, err := cmd.Renderer.Checked()
	if err == nil {
		w.pools[r.ID] = &pool.Pool{Settings: r}
	}
	return r, err
}

func (w *world) RemoveRenderer(_ context.Context, c commands.Call, cmd pool.RemoveRenderer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return err
	}
	if w.pools[cmd.Renderer] == nil {
		return domain.NotFound("renderer", string(cmd.Renderer))
	}
	if cmd.Renderer == "demo" {
		return domain.Conflict("renderer_in_use", "1 resource of demo has not ended")
	}
	delete(w.pools, cmd.Renderer)
	return nil
}

func (w *world) PlanScaling(_ context.Context, c commands.Call, cmd pool.PlanScaling) (pool.ScalingPlan, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return pool.ScalingPlan{}, err
	}
	s, g := pool.NewState(), pool.Given{At: t0, Command: cmd}
	s.Put(w.pools[cmd.Renderer])
	if _, err := s.Decide(0, g); err != nil {
		return pool.ScalingPlan{}, err
	}
	return s.Plan(cmd, g), nil
}

func (w *world) SetAdmission(_ context.Context, c commands.Call, cmd pool.SetAdmission) (pool.Service, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return pool.Service{}, err
	}
	w.service = pool.Service{Open: cmd.Open, Reason: cmd.Reason}
	return w.service, nil
}

func (w *world) DrainResource(_ context.Context, c commands.Call, cmd pool.DrainResource) (pool.Resource, error) {
	return w.endResource(c, cmd.Resource, pool.ResourceStateDraining)
}

func (w *world) StopResource(_ context.Context, c commands.Call, cmd pool.StopResource) (pool.Resource, error) {
	return w.endResource(c, cmd.Resource, pool.ResourceStateStopping)
}

func (w *world) endResource(c commands.Call, id domain.ResourceID, state pool.ResourceState) (pool.Resource, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return pool.Resource{}, err
	}
	r := w.resources[id]
	if r == nil {
		return pool.Resource{}, domain.NotFound("resource", string(id))
	}
	out := *r
	out.State = state
	return out, nil
}

func look[K comparable, V any](w *world, from map[K]*V, noun string, id K) (V, error) {
	var zero V
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return zero, w.down
	}
	if v := from[id]; v != nil {
		return *v, nil
	}
	return zero, domain.NotFound(noun, fmt.Sprint(id))
}

func all[K ~string, V any](w *world, from map[K]*V, keep func(*V) bool) ([]V, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return nil, "", w.down
	}
	var keys []K
	for k := range from {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var out []V
	for _, k := range keys {
		if keep(from[k]) {
			out = append(out, *from[k])
		}
	}
	return out, "MS4x", nil
}

func (w *world) Pools(context.Context) ([]pool.Pool, error) {
	out, _, err := all(w, w.pools, func(*pool.Pool) bool { return true })
	return out, err
}

func (w *world) Pool(_ context.Context, id domain.RendererID) (projections.PoolView, error) {
	p, err := look(w, w.pools, "renderer", id)
	return projections.PoolView{Pool: p, Sizes: map[pool.ResourceState]int{"ready": 1}, SlotsTotal: 2, SlotsFree: 1}, err
}

func (w *world) Resources(_ context.Context, f projections.ResourceFilter, _ projections.Page) ([]pool.Resource, string, error) {
	return all(w, w.resources, func(r *pool.Resource) bool { return f.State == "" || f.State == string(r.State) })
}

func (w *world) Resource(_ context.Context, id domain.ResourceID) (pool.Resource, error) {
	return look(w, w.resources, "resource", id)
}

func (w *world) Sessions(_ context.Context, f projections.SessionFilter, p projections.Page) ([]projections.SessionView, string, error) {
	if p.Cursor == "broken" {
		return nil, "", domain.Invalid("cursor", "the cursor is not one that a list gave")
	}
	return all(w, w.sessions, func(v *projections.SessionView) bool { return f.Owner == "" || f.Owner == string(v.Owner) })
}

func (w *world) Session(_ context.Context, id domain.SessionID) (projections.SessionView, error) {
	w.change(func() { w.asked++ })
	return look(w, w.sessions, "session", id)
}

func (w *world) Jobs(_ context.Context, f projections.JobFilter, _ projections.Page) ([]projections.JobView, string, error) {
	return all(w, w.jobs, func(v *projections.JobView) bool { return f.Owner == "" || f.Owner == string(v.Owner) })
}

func (w *world) Job(_ context.Context, id domain.JobID) (projections.JobView, error) {
	return look(w, w.jobs, "job", id)
}

func (w *world) Models(_ context.Context, id domain.RendererID, _ projections.Page) ([]projections.ModelView, string, error) {
	if id != "" {
		if _, err := look(w, w.pools, "renderer", id); err != nil {
			return nil, "", err
		}
	}
	return []projections.ModelView{{Model: pool.Model{Renderer: "demo", Model: "m", LastUsed: t0}, Warm: []domain.ResourceID{"r-1"}}}, "", w.down
}

func (w *world) Service(context.Context) (pool.Service, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.service, w.down
}

func (w *world) Events(_ context.Context, f projections.EventFilter) ([]eventstore.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return nil, w.down
	}
	var out []eventstore.Event
	pattern := watch{who: caller{role: "operator"}, subject: f.Subject, kind: f.Type}
	for i := range w.events {
		if w.events[i].Position > f.After && len(out) < f.Limit && pattern.wants(&w.events[i]) {
			out = append(out, w.events[i])
		}
	}
	return out, nil
}

func (w *world) Decision(_ context.Context, position int64) (projections.DecisionView, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.decisions[position]
	if !ok {
		return v, domain.NotFound("decision", fmt.Sprint(position))
	}
	return v, w.down
}

func (w *world) decide(position int64, owner string) {
	w.change(func() {
		w.decisions[position] = projections.DecisionView{
			Position: position, At: t0, Type: "session.allocated", Stream: "pool/demo", Actor: "client:alice", Subjects: []string{"owner:" + owner},
			Event: json.RawMessage(`{}`), Decision: pool.Decision{
				Policy: "expected", Version: 1, Outcome: "allocated", Reason: "warm", Considered: 1,
				Candidates: []placement.Candidate{{Resource: "r-1", State: "warm", Free: 1}}, Inputs: map[string]int{"n": 1},
			},
		}
	})
}

func (w *world) Result(_ context.Context, id domain.JobID) (projections.ResultInfo, io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.results[id]
	return projections.ResultInfo{ContentType: "image/png", Bytes: int64(len(b))}, io.NopCloser(bytes.NewReader([]byte(b))), w.down
}

func (w *world) Head(context.Context) (int64, int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(len(w.events)), 1, w.down
}

func (w *world) Read(_ context.Context, after int64, limit int) ([]eventstore.Event, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	after = min(after, int64(len(w.events)))
	end := min(after+int64(limit), int64(len(w.events)))
	return slices.Clone(w.events[after:end]), w.down
}

func (w *world) Subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	w.change(func() { w.subs[c] = true })
	return c, func() { w.change(func() { delete(w.subs, c) }) }
}

func (w *world) Lookup(_ context.Context, secret string) (projections.Token, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok := w.tokens[secret]
	return t, ok, w.down
}

func (w *world) Any(context.Context) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tokens) > 0, w.down
}

func (w *world) Output(_ context.Context, r pool.Resource, stream string, tail int) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader([]byte(fmt.Sprintf("%s of %s, %d lines\n", stream, r.ID, tail)))), nil
}
