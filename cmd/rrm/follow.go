package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// fields are what the events of sessions and jobs say, as far as people are told.
type fields struct {
	Session    string          `json:"session"`
	Job        string          `json:"job"`
	Resource   string          `json:"resource"`
	Model      string          `json:"model"`
	Owner      string          `json:"owner"`
	Place      int             `json:"place"`
	Estimate   float64         `json:"estimate_seconds"`
	Warm       bool            `json:"warm"`
	Waited     float64         `json:"waited_seconds"`
	Saved      float64         `json:"saved_seconds"`
	Seconds    float64         `json:"seconds"`
	Expected   float64         `json:"expected_seconds"`
	Attempt    int             `json:"attempt"`
	Code       string          `json:"code"`
	Reason     string          `json:"reason"`
	RetryAfter float64         `json:"retry_after_seconds"`
	Queue      int             `json:"queue"`
	Bytes      int64           `json:"bytes"`
	Kind       string          `json:"kind"`
	For        string          `json:"for"`
	Renderer   json.RawMessage `json:"renderer"`
	From       int             `json:"from"`
	To         int             `json:"to"`
	Size       int             `json:"size"`
	Problem    string          `json:"problem"`
	Open       *bool           `json:"open"`
	Stop       []string        `json:"stop"`
	Decision   client.Decision `json:"decision"`
}

func read(e *client.Event) fields {
	var f fields
	_ = json.Unmarshal(e.Data, &f) // an event of a newer service may say more, or otherwise; what is known is shown
	return f
}

// errStreamEnded is a stream that ended before what it is about did.
var errStreamEnded = errors.New("the service closed the stream of events before the end")

// followSession shows how a session gets on until it is ready or ended, and says which.
func (c *call) followSession(g *progress, s client.Session) (state string, err error) {
	defer g.done()
	if s.State == client.SessionStateReady {
		return string(s.State), nil
	}
	for m, err := range client.Follow(c.ctx, c.api.streams.SessionEvents(s.ID)) {
		if err != nil {
			return "", err
		}
		switch {
		case m.Progress != nil && m.Progress.State == string(client.SessionStateReady):
			return m.Progress.State, nil
		case m.Progress != nil:
			showSessionProgress(g, m.Progress)
		case m.Event != nil:
			if state := showSessionEvent(g, m.Event); state != "" {
				return state, nil
			}
		}
	}
	if c.ctx.Err() != nil {
		return "", c.ctx.Err()
	}
	return "", errStreamEnded
}

func showSessionProgress(g *progress, now *client.Progress) {
	switch q := now.Queue; {
	case now.State == string(client.SessionStateStarting):
		_, note, _ := strings.Cut(q.Reason, " is starting: ") // what the cluster says is worth a line when it changes
		g.say("starting"+note, "%s, about %s", q.Reason, seconds(q.EstimatedWaitSeconds))
	case q.Position > 0:
		g.queued(q)
	case now.State == string(client.SessionStateLoading) && now.Progress > 0:
		g.say(fmt.Sprintf("loading %d", int(now.Progress*10)), "loading the model: %.0f %%", now.Progress*100)
	}
}

// queued tells a place in the queue. It is worth a new line when the place
// changes, or when something is wrong; reasons change with every start.
func (g *progress) queued(q client.QueuePlace) {
	key := fmt.Sprintf("queued %d", q.Position)
	if q.Code != "" && q.Code != "no_capacity" {
		key += " " + q.Code
	}
	g.say(key, "queued: %s", queueText(q))
}

// showSessionEvent shows an event and gives the state if it is one in which waiting is over.
func showSessionEvent(g *progress, e *client.Event) string {
	f := read(e)
	switch e.Type {
	case "session.queued":
		g.queued(client.QueuePlace{Position: f.Place, EstimatedWaitSeconds: f.Estimate, Reason: f.Decision.Reason})
	case "session.starting":
		g.say("starting", "%s is starting", f.Resource)
	case "session.allocated":
		if f.Warm {
			g.say("allocated "+f.Resource, "ready: allocated %s, which has %s loaded", f.Resource, f.Model)
			return string(client.SessionStateReady)
		}
		g.say("allocated "+f.Resource, "allocated %s, which loads %s", f.Resource, f.Model)
	case "session.moved":
		g.say("moved "+f.Resource, "%s went away, back in the queue: %s", f.Resource, f.Reason)
	case "session.ready":
		g.say("ready", "ready after %s", seconds(f.Seconds))
		return string(client.SessionStateReady)
	case "session.released", "session.expired", "session.lost", "session.failed":
		return e.Type[len("session."):]
	}
	return ""
}

// followJob shows how a job gets on until it has ended, and says how.
func (c *call) followJob(g *progress, j client.Job) (state string, err error) {
	defer g.done()
	if !j.EndedAt.IsZero() {
		return string(j.State), nil
	}
	for m, err := range client.Follow(c.ctx, c.api.streams.JobEvents(j.ID)) {
		if err != nil {
			return "", err
		}
		if m.Progress != nil {
			showJobProgress(g, m.Progress)
			continue
		}
		if m.Event == nil {
			continue
		}
		if state := showJobEvent(g, m.Event); state != "" {
			return state, nil
		}
	}
	if c.ctx.Err() != nil {
		return "", c.ctx.Err()
	}
	return "", errStreamEnded
}

func showJobProgress(g *progress, now *client.Progress) {
	switch {
	case now.Queue.Position > 0:
		g.queued(now.Queue)
	case now.Queue.Reason != "":
		g.say("waiting "+now.Queue.Reason, "waiting: %s", now.Queue.Reason)
	case now.State == string(client.JobStateRunning) && now.Progress > 0:
		g.say(fmt.Sprintf("running %d", int(now.Progress*10)), "running: %.0f %%", now.Progress*100)
	}
}

func showJobEvent(g *progress, e *client.Event) string {
	f := read(e)
	switch e.Type {
	case "job.assigned":
		if f.Warm {
			g.say("assigned "+f.Resource, "assigned to %s, which has %s loaded", f.Resource, f.Model)
		} else {
			g.say("assigned "+f.Resource, "assigned to %s, which loads %s", f.Resource, f.Model)
		}
	case "job.started":
		g.say("started", "running on %s", f.Resource)
	case "job.retried":
		g.say(fmt.Sprint("retried ", e.Position), "will be tried again: %s", f.Reason)
	case "job.succeeded":
		g.say("succeeded", "succeeded after %s: %s", seconds(f.Seconds), size(f.Bytes))
		return string(client.JobStateSucceeded)
	case "job.failed", "job.cancelled":
		return e.Type[len("job."):]
	}
	return ""
}
