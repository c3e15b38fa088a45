package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// registration is a resource as the service knows it.
type registration struct {
	id, token string
	every     time.Duration
	state     client.ResourceState
}

const (
	maxAnswer    = 1 << 20
	minBeatLimit = time.Second
	leaveLimit   = 5 * time.Second
	leaveTries   = 3
)

// answer makes a call and reads what the service said; a refusal is a *client.Error.
func answer[T any](call func() (*http.Response, error)) (v T, fail error) {
	res, err := call()
	if err != nil {
		return v, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return v, fmt.Errorf("read the service's answer: %w", err)
	}
	if err := client.Failure(res, raw); err != nil {
		return v, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("read the service's answer: %w", err)
	}
	return v, nil
}

// refused finds the service's "no" in an error: an answer that the same request would get again.
func refused(err error) (*client.Error, bool) {
	var no *client.Error
	if errors.As(err, &no) && no.Status < http.StatusInternalServerError && no.Status != http.StatusTooManyRequests && no.Code != "http_error" {
		return no, true
	}
	return nil, false
}

// settings asks how the service treats this renderer, until it answers or the
// first patience is over.
func (a *agent) settings(ctx context.Context) (client.Renderer, error) {
	deadline := time.Now().Add(a.Wait)
	pause := backoff{first: a.pause, most: maxAway}
	for {
		set, err := answer[client.Renderer](func() (*http.Response, error) { return a.API.GetRenderer(ctx, a.Renderer) })
		if err == nil && set.Launcher != "static" {
			return set, &client.Error{Problem: client.Problem{Status: http.StatusConflict, Code: "not_static", Detail: fmt.Sprintf(
				"resources of %q are started by the %s launcher; only those of a renderer with launcher static register themselves", a.Renderer, set.Launcher)}}
		}
		if _, no := refused(err); err == nil || no || ctx.Err() != nil || !time.Now().Before(deadline) {
			return set, err
		}
		a.Log.Warn("the service does not answer; trying again", "error", err)
		if !sleep(ctx, nil, min(pause.next(), time.Until(deadline))) {
			return set, ctx.Err()
		}
	}
}

// register makes the renderer known, and tries until the service answers. Its
// errors are the service's refusals, the end of ctx, or errEnded.
func (a *agent) register(ctx context.Context, p *process) (*registration, error) {
	body := client.ResourceRequest{Renderer: a.Renderer, Address: p.address, Slots: a.Slots, Labels: a.Labels, Node: a.Node}
	key := uuid.NewString()
	pause := backoff{first: a.pause, most: maxAway}
	for {
		r, err := answer[client.Resource](func() (*http.Response, error) {
			return a.API.RegisterResource(ctx, &client.RegisterResourceParams{IdempotencyKey: key}, body)
		})
		if err == nil {
			return &registration{id: r.ID, token: r.HeartbeatToken, every: interval(r.HeartbeatSeconds), state: r.State}, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if no, is := refused(err); is {
			if no.Code != "address_in_use" {
				return nil, err
			}
			key = uuid.NewString() // a refusal is given again to the same key
		}
		a.Log.Warn("not registered; trying again", "address", p.address, "error", err)
		if !sleep(ctx, p.ended, pause.next()) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, errEnded
		}
	}
}

func interval(seconds float64) time.Duration {
	return max(time.Duration(seconds*float64(time.Second)), 10*time.Millisecond)
}

// as sends the resource's own token in place of the operator's.
func (r *registration) as(_ context.Context, req *http.Request) error {
	req.Header.Set("Authorization", "Bearer "+r.token)
	return nil
}

// beat sends one heartbeat, and learns how often the next are wanted.
func (a *agent) beat(ctx context.Context, r *registration, draining bool) (client.Heartbeat, error) {
	ctx, cancel := context.WithTimeout(ctx, max(r.every, minBeatLimit))
	defer cancel()
	h, err := answer[client.Heartbeat](func() (*http.Response, error) {
		return a.API.HeartbeatResource(ctx, r.id, client.HeartbeatRequest{Draining: draining}, r.as)
	})
	if err == nil {
		r.every = interval(h.HeartbeatSeconds)
	}
	return h, err
}

// leave deregisters the resource, also while the agent is told to end. Should
// the service not answer, it will miss the heartbeats.
func (a *agent) leave(ctx context.Context, r *registration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
	defer cancel()
	pause := backoff{first: a.pause / 4, most: maxAway}
	for try := 1; ; try++ {
		_, err := answer[client.Resource](func() (*http.Response, error) { return a.API.StopResource(ctx, r.id, r.as) })
		no, is := refused(err)
		switch {
		case err == nil:
			a.Log.Info("deregistered", "resource", r.id)
			return
		case is && slices.Contains([]int{http.StatusUnauthorized, http.StatusNotFound, http.StatusGone}, no.Status):
			return // it is not known any more
		case try == leaveTries || ctx.Err() != nil:
			a.Log.Warn("could not deregister; the service will miss the heartbeats", "resource", r.id, "error", err)
			return
		}
		sleep(ctx, nil, pause.next())
	}
}
