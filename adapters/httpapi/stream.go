package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/rendering-resource-manager/rrm/eventstore"
)

// Intervals of a stream; variables so that tests need not wait.
var (
	heartbeatEvery = 15 * time.Second
	progressEvery  = time.Second
)

const (
	streamBatch = 200             // events of one read of the log
	retryStream = 5 * time.Second // what a client that may not open one is told to wait
)

// follow is one event stream under way.
type follow struct {
	watch
	begin int64    // where it begins by itself; -1 with ends nil: now
	after *int64   // where the client left off; nil: begin
	ends  []string // types of the event that is the last; none: the stream has no end
	ended bool     // the last event is in the log already
	// progress tells how things stand, and whether that can change without an event.
	progress func(context.Context) (now Progress, changing bool, err error)

	w        *echo.Response
	control  *http.ResponseController
	at       int64 // all up to here was sent, or was not wanted
	sent     int64 // the last id that the client was given
	told     Progress
	changing bool
	fresh    bool // events were sent since progress was told
}

// stream sends events until the client goes, the last event was sent, or the server stops.
func (s *Server) stream(c echo.Context, f *follow) error {
	if n := s.streams.Add(1); n > int64(s.MaxStreams) {
		s.streams.Add(-1)
		return fail(http.StatusServiceUnavailable, codeStreams, "", "%d streams are open", s.MaxStreams).retry(retryStream)
	}
	defer s.streams.Add(-1)
	head, leave, err := s.tail.open(c.Request().Context())
	if err != nil {
		return err
	}
	defer leave()
	f.at = f.begin
	if f.ends == nil {
		f.at = head
	}
	if f.after != nil {
		f.at = *f.after
		if f.at > head {
			return fail(http.StatusBadRequest, codeInvalid, "after", "the log ends at position %d", head)
		}
	}
	if f.ended {
		// Nothing may be left for a client that comes back: 204 tells a browser to stop coming.
		ctx, cancel := s.bounded(c)
		wanted, _, done, err := f.read(ctx, s.Views, f.at, 1)
		cancel()
		if err != nil {
			return err
		}
		if done && len(wanted) == 0 {
			return c.NoContent(http.StatusNoContent)
		}
	}
	f.w, f.control, f.fresh = c.Response(), http.NewResponseController(c.Response()), true
	if err := f.open(); err != nil {
		return nil // the client is gone
	}
	if isHead(c) {
		return nil
	}
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	s.run(ctx, f)
	return nil
}

func (f *follow) open() error {
	h := f.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // else nginx keeps events for itself
	f.w.WriteHeader(http.StatusOK)
	return f.mark()
}

// run sends until the end; what ends it early is for the client to notice and to come back.
func (s *Server) run(ctx context.Context, f *follow) {
	beat, look := time.NewTicker(heartbeatEvery), time.NewTicker(progressEvery)
	defer beat.Stop()
	defer look.Stop()
	for {
		more, over, err := s.catchUp(ctx, f)
		if err != nil || over || f.ended {
			return
		}
		if f.fresh {
			if err := f.tellProgress(ctx); err != nil {
				return
			}
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-more:
				waiting = false
			case <-beat.C:
				err = f.mark()
			case <-look.C:
				if f.changing {
					err = f.tellProgress(ctx)
				}
			}
			if err != nil {
				return
			}
		}
	}
}

// catchUp sends what there is: from the tail, or from the log where the tail does not reach back.
func (s *Server) catchUp(ctx context.Context, f *follow) (more <-chan struct{}, over bool, err error) {
	for {
		events, head, more, ok := s.tail.after(f.at)
		if ok {
			for i := range events {
				if !f.wants(&events[i]) {
					continue
				}
				if over, err := f.send(&events[i]); over || err != nil {
					return nil, over, err
				}
			}
			f.at = max(f.at, head)
			return more, false, nil
		}
		wanted, upTo, done, err := f.read(ctx, s.Views, f.at, streamBatch)
		if err != nil {
			s.log.Debug("a stream ends because the log cannot be read", "error", err)
			return nil, false, err
		}
		for i := range wanted {
			if over, err := f.send(&wanted[i]); over || err != nil {
				return nil, over, err
			}
		}
		f.at = upTo
		if done {
			f.at = max(f.at, head) // the log was read after the head was seen
		}
	}
}

func (f *follow) send(e *eventstore.Event) (over bool, err error) {
	data, err := json.Marshal(eventAnswer(e))
	if err != nil {
		return false, fmt.Errorf("write event %d: %w", e.Position, err)
	}
	f.sent, f.fresh = e.Position, true
	err = f.write("id: " + strconv.FormatInt(e.Position, 10) + "\nevent: " + e.Type + "\ndata: " + string(data) + "\n\n")
	return slices.Contains(f.ends, e.Type), err
}

// mark is the heartbeat. It carries how far the stream is as an id without an
// event, so that a client of a quiet stream that comes back need not go far back.
func (f *follow) mark() error {
	if f.at > f.sent {
		f.sent = f.at
		return f.write(": \nid: " + strconv.FormatInt(f.at, 10) + "\n\n")
	}
	return f.write(": \n\n")
}

func (f *follow) tellProgress(ctx context.Context) error {
	if f.progress == nil {
		return nil
	}
	f.fresh = false
	ctx, cancel := context.WithTimeout(ctx, tailWait)
	defer cancel()
	now, changing, err := f.progress(ctx)
	if err != nil {
		return nil // not worth a stream: the next look may work
	}
	f.changing = changing
	if now == f.told || !changing {
		return nil
	}
	f.told = now
	data, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("write progress: %w", err)
	}
	return f.write("event: progress\ndata: " + string(data) + "\n\n")
}

// write sends one message; a client that does not take it in time is cut off.
func (f *follow) write(message string) error {
	_ = f.control.SetWriteDeadline(time.Now().Add(stallTimeout)) // a writer without deadlines is a test's
	if _, err := f.w.Write([]byte(strings.ToValidUTF8(message, "\uFFFD"))); err != nil {
		return err
	}
	return f.control.Flush()
}
