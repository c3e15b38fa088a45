package httpapi

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// beat is what is known of a resource's heartbeats.
type beat struct {
	token      string
	n          int
	stop, left bool
}

const goodResource = `{"renderer":"gpu","address":"10.7.0.8:5000"}`

// RegisterResource takes in resources of the renderer gpu.
func (w *world) RegisterResource(_ context.Context, c commands.Call, cmd pool.RegisterResource) (pool.Resource, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(c); err != nil {
		return pool.Resource{}, err
	}
	switch cmd.Renderer {
	case "gpu":
	case "demo":
		return pool.Resource{}, domain.Conflict("not_static", "resources of demo are started by the local launcher")
	default:
		return pool.Resource{}, domain.NotFound("renderer", string(cmd.Renderer))
	}
	r := &pool.Resource{
		ID: domain.ResourceID(w.id("m-new")), Renderer: cmd.Renderer, Launcher: "static", State: pool.ResourceStateStarting, StateSince: t0, RequestedAt: t0,
		Address: cmd.Address, Node: cmd.Node, Slots: max(1, cmd.Slots), Labels: cmd.Labels,
	}
	w.resources[r.ID] = r
	return *r, nil
}

// heartbeats is a world as Heartbeats.
type heartbeats struct{ *world }

func (h heartbeats) Enrol(_ context.Context, id domain.ResourceID) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	token := fmt.Sprintf("rrm_h_%s-%d", id, len(h.beats))
	h.beats[id] = &beat{token: token}
	return token, h.down
}

func (h heartbeats) Lookup(_ context.Context, secret string) (domain.ResourceID, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, b := range h.beats {
		if b.token == secret {
			return id, true, h.down
		}
	}
	return "", false, h.down
}

func (h heartbeats) Beat(_ context.Context, id domain.ResourceID) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats[id].n++
	return h.beats[id].stop, h.down
}

func (h heartbeats) Leave(_ context.Context, id domain.ResourceID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beats[id].left = true
	return h.down
}

// checkAddress allows 10.7/16 and the name gpu8.
func checkAddress(_ context.Context, address string) (string, error) {
	switch {
	case address == "gpu8:5000":
		return "10.7.0.8:5000", nil
	case strings.HasPrefix(address, "10.7."):
		return address, nil
	case address == "slow:5000":
		return "", domain.Unavailable("name_unresolved", 0, "not just now")
	}
	r := domain.Invalid("address", "it is not on the list")
	r.Code = "address_not_allowed"
	return "", r
}

func TestRegister(t *testing.T) {
	s := newSite(t)
	r := s.ask("root", "POST /resources", `{"renderer":"GPU","address":"gpu8:5000","slots":3,"labels":{"gpu":"a100"}}`)
	got := read[Resource](t, r, 201)
	if got.Address != "10.7.0.8:5000" || got.Node != "gpu8" || got.Slots != 3 || got.Renderer != "gpu" || got.Launcher != "static" || got.State != "starting" ||
		!reflect.DeepEqual(got.Labels, map[string]string{"gpu": "a100"}) || got.HeartbeatSeconds != 5 || got.HeartbeatToken == "" {
		t.Errorf("registered: %+v", got)
	}
	if r.Header.Get("Location") != BasePath+"/resources/"+got.ID || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", r.Header)
	}
	again := s.ask(got.HeartbeatToken, "GET /resources/"+got.ID, "")
	if strings.Contains(string(again.body), "rrm_h_") || strings.Contains(string(again.body), "heartbeat_seconds") {
		t.Errorf("told again: %s", again.body)
	}
	if named := read[Resource](t, s.ask("root", "POST /resources", `{"renderer":"gpu","address":"10.7.0.9:5000","node":"left"}`), 201); named.Node != "left" {
		t.Errorf("the node is %q", named.Node)
	}
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{"renderer":"gpu","address":"10.8.0.8:5000"}`:  {422, "address_not_allowed"},
		`{"renderer":"demo","address":"10.7.0.8:5000"}`: {409, "not_static"},
		`{"renderer":"none","address":"10.7.0.8:5000"}`: {404, "renderer_not_found"},
		`{"renderer":"gpu","address":"slow:5000"}`:      {503, "name_unresolved"},
	} {
		if p := s.ask("root", "POST /resources", body).problem(t); p.Status != want.status || p.Code != want.code {
			t.Errorf("%s: %+v, want %d %s", body, p, want.status, want.code)
		}
	}
	if none := newSite(t, func(c *Config) { c.Heartbeats = nil }).ask("root", "POST /resources", goodResource); none.StatusCode != 403 {
		t.Errorf("without heartbeats: %d", none.StatusCode)
	}
}

// A resource may do to itself what it must, to others nothing; nobody else may but an operator.
func TestResourceToken(t *testing.T) {
	const own = "rrm_h_m-1"
	s := newSite(t)
	other := read[Resource](t, s.ask("root", "POST /resources", goodResource), 201)
	for _, c := range []struct {
		who, what string
		status    int
	}{
		{own, "POST /resources/m-1/heartbeat", 200}, {own, "GET /resources/m-1", 200}, {own, "POST /resources/m-1/drain", 200},
		{"root", "POST /resources/m-1/heartbeat", 200}, {other.HeartbeatToken, "POST /resources/" + other.ID + "/heartbeat", 200},
		{"", "POST /resources/m-1/heartbeat", 401}, {"rrm_h_m-1x", "POST /resources/m-1/heartbeat", 401}, {"rrm_h_", "POST /resources/m-1/heartbeat", 401},
		{"alice", "POST /resources/m-1/heartbeat", 403}, {"audit", "POST /resources/m-1/heartbeat", 403}, {other.HeartbeatToken, "POST /resources/m-1/heartbeat", 403},
		{other.HeartbeatToken, "DELETE /resources/m-1", 403}, {other.HeartbeatToken, "POST /resources/m-1/drain", 403}, {other.HeartbeatToken, "GET /resources/m-1", 403},
		{own, "GET /resources", 403}, {own, "POST /resources", 403}, {own, "GET /resources/m-1/logs", 403}, {own, "GET /sessions", 403}, {own, "DELETE /sessions/m-1", 403},
		{own, "GET /sessions/m-1/renderer/x", 403}, {own, "PUT /admission", 403}, {own, "DELETE /renderers/m-1", 403},
		{"alice", "POST /resources", 403}, {"audit", "POST /resources", 403}, {"", "POST /resources", 401},
		{"root", "POST /resources/none/heartbeat", 404}, {"root", "POST /resources/r-1/heartbeat", 409},
	} {
		body := ""
		if c.what == "POST /resources" {
			body = goodResource
		}
		if r := s.ask(c.who, c.what, body); r.StatusCode != c.status {
			t.Errorf("%s, %s: %d, want %d: %s", c.who, c.what, r.StatusCode, c.status, r.body)
		}
	}
	if s.beats["m-1"].n != 2 || s.beats["m-1"].left {
		t.Errorf("m-1: %+v", s.beats["m-1"])
	}
	if s.ask("root", "DELETE /resources/m-1", ""); s.beats["m-1"].left {
		t.Error("an operator's stop was taken for the resource's own word")
	}
	if s.ask(own, "DELETE /resources/m-1", ""); !s.beats["m-1"].left || s.calls[len(s.calls)-1].Actor != "resource:m-1" {
		t.Errorf("deregistered: %+v by %s", s.beats["m-1"], s.calls[len(s.calls)-1].Actor)
	}
	if r := s.ask("root", "POST /resources", strings.Replace(goodResource, "gpu", "none", 1)); r.StatusCode != 404 {
		t.Errorf("no such renderer: %d", r.StatusCode)
	}
}

// In a service that is open to all a resource is known by its token all the same, and a wrong one is refused.
func TestResourceTokenInAnOpenService(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Open = true })
	s.change(func() { clear(s.tokens) })
	for who, status := range map[string]int{"": 200, "rrm_h_m-1": 200, "rrm_h_wrong": 401} {
		if r := s.ask(who, "POST /resources/m-1/heartbeat", ""); r.StatusCode != status {
			t.Errorf("%q: %d, want %d", who, r.StatusCode, status)
		}
	}
	if s.ask("rrm_h_m-1", "DELETE /resources/m-1", ""); s.calls[len(s.calls)-1].Actor != "resource:m-1" {
		t.Errorf("deregistered by %s", s.calls[len(s.calls)-1].Actor)
	}
}

// What a heartbeat is answered tells who runs the resource what to do.
func TestHeartbeat(t *testing.T) {
	s := newSite(t)
	ask := func(state pool.ResourceState, ended, stop bool, body string) *reply {
		t.Helper()
		s.change(func() {
			s.resources["m-1"].State, s.resources["m-1"].Ended, s.resources["m-1"].Reason = state, ended, "so it is"
			*s.beats["m-1"] = beat{token: "rrm_h_m-1", stop: stop}
		})
		return s.ask("rrm_h_m-1", "POST /resources/m-1/heartbeat", body)
	}
	for _, state := range []pool.ResourceState{"starting", "ready", "draining", "stopping", "stopped"} {
		got := read[Heartbeat](t, ask(state, state == "stopped", state == "stopping", ""), 200)
		if got.State != ResourceState(state) || got.HeartbeatSeconds != 5 || got.Users != 1 || got.Reason != "so it is" || s.beats["m-1"].left {
			t.Errorf("%s: %+v %+v", state, got, s.beats["m-1"])
		}
	}
	if got := read[Heartbeat](t, ask("ready", false, false, `{"draining":true}`), 200); got.State != "draining" {
		t.Errorf("it wants to be drained: %+v", got)
	}
	n := len(s.calls)
	for _, state := range []pool.ResourceState{"draining", "stopping", "stopped"} {
		ask(state, state == "stopped", false, `{"draining":true}`)
	}
	if len(s.calls) != n {
		t.Error("drained again")
	}
	for _, state := range []pool.ResourceState{"lost", "failed"} {
		if p := ask(state, true, false, "").problem(t); p.Status != 410 || p.Code != "resource_ended" || !strings.Contains(p.Detail, string(state)+": so it is") || s.beats["m-1"].n != 0 {
			t.Errorf("%s: %+v", state, p)
		}
	}
	// Its launcher gives it up: it is told as if it had failed already, and nobody waits for it.
	if p := ask("ready", false, true, "").problem(t); p.Status != 410 || p.Code != "resource_ended" || !s.beats["m-1"].left {
		t.Errorf("given up: %+v %+v", p, s.beats["m-1"])
	}
}
