package rrmv1

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

const (
	frameTimeout = 10 * time.Second       // for one picture
	frameRetry   = 200 * time.Millisecond // between two attempts at one
	frameWait    = 5 * time.Second        // how long a renderer may give no picture before that is the answer, or the end
	frameAlways  = time.Second            // how often a picture is sent that is the same
	sendTimeout  = 15 * time.Second       // for one picture to get away
	boundary     = "frame"
)

// imagefeed answers GET /session/imagefeed: where the session's stream of
// pictures is. It answers only when there is a picture, because one client asks once and
// never again. The URI has no scheme: one client puts "http://" before it, another takes it as it is.
func (s *Server) imagefeed(c *call) error {
	if err := s.identify(c); err != nil {
		return err
	}
	if c.who.reads() {
		return errReads
	}
	ctx, cancel := c.bounded()
	defer cancel()
	v, err := s.live(ctx, c)
	if err != nil {
		return err
	}
	t, err := s.ready(ctx, c, v.ID)
	if err != nil {
		return err
	}
	if _, err := s.picture(ctx, t, frameWait); err != nil {
		return noPicture(err)
	}
	host := c.r.Host + c.base
	if s.Public != "" {
		host = s.Public + BasePath
	}
	return answer(c.w, http.StatusOK, map[string]string{"uri": "//" + host + "/imagefeed/" + string(t.view.ID)})
}

func noPicture(err error) error {
	if r, ok := domain.AsRefusal(err); ok && r.Kind == domain.KindNotFound {
		return fail(http.StatusNotFound, "there is no image stream: %s", r.Reason)
	}
	return fail(http.StatusBadRequest, "there is no image stream yet: the renderer gives no picture")
}

// picture takes one, trying again for a while. A renderer that gives none at all is a not_found refusal.
func (s *Server) picture(ctx context.Context, t target, within time.Duration) ([]byte, error) {
	if s.Frames == nil {
		return nil, domain.NotFound("image stream", string(t.view.ID))
	}
	ctx, cancel := context.WithTimeout(ctx, within+frameTimeout)
	defer cancel()
	for begin := time.Now(); ; {
		b, err := s.frame(ctx, t)
		if err == nil && len(b) > 0 {
			return b, nil
		}
		if err == nil {
			err = errors.New("an empty picture")
		}
		if _, refused := domain.AsRefusal(err); refused || time.Since(begin) >= within {
			return nil, fmt.Errorf("take a picture: %w", err)
		}
		if err := wait(ctx, frameRetry); err != nil {
			return nil, err
		}
	}
}

func (s *Server) frame(ctx context.Context, t target) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, frameTimeout)
	defer cancel()
	return s.Frames.Frame(ctx, t.view.Address, t.view.ID, t.model)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// feed answers GET /imagefeed/{id}: the stream itself. An <img> sends neither
// token nor, across sites, a cookie; who knows the session's id was told this address.
func (s *Server) feed(c *call, id domain.SessionID) error {
	if s.streams.Add(1) > int64(s.MaxStreams) {
		s.streams.Add(-1)
		return &fault{status: http.StatusServiceUnavailable, text: "too many image streams are open", retry: 10 * time.Second}
	}
	defer s.streams.Add(-1)
	t, err := s.findReady(c, func(ctx context.Context) (target, error) { return s.look(ctx, id) })
	if err != nil {
		return err
	}
	c.who = caller{role: "process", owner: "imagefeed"}
	ctx, active, end := s.hold(c.r.Context(), c, t)
	defer end()
	first, err := s.picture(ctx, t, frameWait)
	if err != nil {
		return noPicture(err)
	}
	h := c.w.Header()
	h.Set("Content-Type", "multipart/x-mixed-replace; boundary="+boundary)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // pictures are for now; proxies would collect them
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	s.stream(ctx, c, t, first, active)
	return nil
}

// stream sends pictures until the session ends, the client goes, or the renderer gives none any more.
func (s *Server) stream(ctx context.Context, c *call, t target, next []byte, active func()) {
	out := http.NewResponseController(c.w)
	defer func() { _ = out.SetWriteDeadline(time.Time{}) }()
	var last []byte
	var sent time.Time
	lead := "--" + boundary + "\r\n"
	for {
		begin := time.Now()
		if !bytes.Equal(next, last) || begin.Sub(sent) >= frameAlways {
			// The boundary comes right behind the picture: browsers show a part when they see its end.
			part := fmt.Appendf(nil, "%sContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n--%s\r\n", lead, len(next), next, boundary)
			_ = out.SetWriteDeadline(begin.Add(sendTimeout)) // a writer without deadlines is bounded by its client
			if _, err := c.w.Write(part); err != nil {
				return
			}
			if out.Flush() != nil {
				return
			}
			lead, last, sent = "", next, begin
			active()
		}
		if wait(ctx, s.FrameEvery-time.Since(begin)) != nil {
			return
		}
		var err error
		if next, err = s.picture(ctx, t, frameWait); err != nil {
			return
		}
	}
}
