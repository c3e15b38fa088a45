package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Message is one message of a stream of events: an event, or progress, or
// neither, which only says how far the stream is.
type Message struct {
	Position int64     // all up to here was received; 0 with progress
	Event    *Event    // nil: none
	Progress *Progress // how things stand at the moment; not recorded, not resumed
}

// maxMessage bounds one message, in bytes: an event is well under it.
const maxMessage = 4 << 20

// Open opens a stream after a position; nil: where the stream begins by itself.
type Open func(ctx context.Context, after *int64) (*http.Response, error)

// SessionEvents opens the stream of a session, for Follow.
func (c *ClientWithResponses) SessionEvents(id SessionID) Open {
	return func(ctx context.Context, after *int64) (*http.Response, error) {
		return c.StreamSessionEvents(ctx, id, &StreamSessionEventsParams{LastEventID: after})
	}
}

// JobEvents opens the stream of a job, for Follow.
func (c *ClientWithResponses) JobEvents(id JobID) Open {
	return func(ctx context.Context, after *int64) (*http.Response, error) {
		return c.StreamJobEvents(ctx, id, &StreamJobEventsParams{LastEventID: after})
	}
}

// AllEvents opens the stream of the log, for Follow. After nil it begins now;
// the params' After and LastEventID are not used.
func (c *ClientWithResponses) AllEvents(params StreamEventsParams) Open {
	return func(ctx context.Context, after *int64) (*http.Response, error) {
		p := params
		p.After, p.LastEventID = nil, after
		return c.StreamEvents(ctx, &p)
	}
}

// Follow reads a stream until it is over: a session or job ended, or nothing is
// left to come. When the connection breaks, or the service cannot answer for
// now, it comes back after a second, and goes on after the last event that
// was given, without loss or repeat. An error ends it: the context's, or an
// *Error that coming back would not change.
func Follow(ctx context.Context, open Open) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		c := connection{open: open, give: func(m Message) bool { return yield(m, nil) }}
		for {
			err := c.read(ctx)
			var refused *Error
			switch {
			case c.over:
				return
			case err == nil && c.given > 0:
				continue // closed properly: coming back tells whether it is over
			case errors.As(err, &refused) && refused.Status < 500 && refused.Status != http.StatusTooManyRequests:
				yield(Message{}, err)
				return
			}
			pause := time.Second
			if refused != nil && refused.RetryAfter > pause {
				pause = refused.RetryAfter
			}
			select {
			case <-ctx.Done():
				yield(Message{}, ctx.Err())
				return
			case <-time.After(pause):
			}
		}
	}
}

// connection is what Follow knows between two connections.
type connection struct {
	open  Open
	give  func(Message) bool
	after *int64 // the last event given
	given int    // messages on the last connection
	over  bool   // no other connection should follow
}

// read reads one connection to its end.
func (c *connection) read(ctx context.Context) error {
	c.given = 0
	res, err := c.open(ctx, c.after)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode == http.StatusNoContent {
		c.over = true
		return nil
	}
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxMessage))
		return Failure(res, body)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != "text/event-stream" {
		return &Error{Problem: Problem{Status: http.StatusNotAcceptable, Code: "not_a_stream", Detail: fmt.Sprintf("the server answered %q, not a stream of events", kind)}}
	}
	for m, err := range Messages(res.Body) {
		if err != nil {
			return err
		}
		if m.Position > 0 {
			c.after = &m.Position
		}
		if m.Event == nil && m.Progress == nil {
			continue
		}
		c.given++
		if !c.give(m) {
			c.over = true
			return nil
		}
	}
	return nil
}

// Messages reads server-sent events until the body ends. A broken connection
// is an error, a proper end is not.
func Messages(body io.Reader) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		lines := bufio.NewScanner(body)
		lines.Buffer(make([]byte, 0, 4096), maxMessage)
		var id, kind string
		var data []string
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case lines.Text() == "":
				m, err := message(id, kind, strings.Join(data, "\n"))
				if (m != Message{} || err != nil) && !yield(m, err) || err != nil {
					return
				}
				id, kind, data = "", "", nil
			case field == "id":
				id = value
			case field == "event":
				kind = value
			case field == "data":
				data = append(data, value)
			}
		}
		if err := lines.Err(); err != nil {
			yield(Message{}, fmt.Errorf("read the stream: %w", err))
		}
	}
}

func message(id, kind, data string) (Message, error) {
	if kind == "progress" {
		m := Message{Progress: &Progress{}}
		if err := json.Unmarshal([]byte(data), m.Progress); err != nil {
			return Message{}, fmt.Errorf("read progress: %w", err)
		}
		return m, nil
	}
	if id == "" {
		return Message{}, nil
	}
	position, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return Message{}, fmt.Errorf("read an event's id: %w", err)
	}
	m := Message{Position: position}
	if data == "" {
		return m, nil
	}
	m.Event = &Event{}
	if err := json.Unmarshal([]byte(data), m.Event); err != nil {
		return Message{}, fmt.Errorf("read an event: %w", err)
	}
	return m, nil
}
