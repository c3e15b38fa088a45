package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/raster"
)

const (
	stillEvery = time.Second // between frames while nothing changes
	maxMessage = 4 << 10     // bytes of a message from a client
)

// errUnloaded ends a stream whose model is gone.
var errUnloaded = errors.New("the model was unloaded")

// stream sends frames until the client leaves, the model is unloaded or the
// program ends.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) error {
	spec, err := s.asked(r)
	if err != nil {
		return err
	}
	spec.Format = picture.JPEG
	use, err := s.use(r)
	if err != nil {
		return err
	}
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return &failure{http.StatusServiceUnavailable, "busy", fmt.Sprintf("%d streams are open already", maxStreams), ""}
	}
	defer s.streams.Add(-1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-s.Stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	f := &feed{s: s, use: use, spec: spec, session: sessionOf(r)}
	if r.Header.Get("Upgrade") != "" {
		return s.websocket(ctx, w, r, f)
	}
	return s.mjpeg(ctx, w, f)
}

func (s *Server) stopping() bool {
	select {
	case <-s.Stopping:
		return true
	default:
		return false
	}
}

// feed is the sequence of frames of one stream.
type feed struct {
	s       *Server
	use     model.Use
	spec    picture.Spec
	session string
}

// run calls send with each frame: one at once, then whenever the camera has
// changed, at most fps a second, and at least one a second.
func (f *feed) run(ctx context.Context, send func([]byte) error) error {
	pace := time.NewTicker(time.Second / time.Duration(f.spec.FPS))
	defer pace.Stop()
	still := time.NewTimer(stillEvery)
	defer still.Stop()
	for {
		var changed <-chan struct{}
		f.spec.Camera, changed = f.s.cameras.get(f.session)
		data, err := f.s.draw(ctx, f.use, &f.spec)
		if err == nil {
			err = send(data)
		}
		if err != nil && !errors.Is(err, picture.ErrBusy) { // a busy renderer skips a frame
			return err
		}
		still.Reset(stillEvery)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-still.C:
		case <-f.use.Gone:
			return errUnloaded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Server) mjpeg(ctx context.Context, w http.ResponseWriter, f *feed) error {
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	// The boundary that ends a frame follows it at once: a client that waits
	// for it would otherwise show each frame when the next one comes.
	before := "--frame\r\n"
	_ = f.run(ctx, func(data []byte) error {
		if err := control.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
			return fmt.Errorf("set the deadline: %w", err)
		}
		if _, err := fmt.Fprintf(w, "%sContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n", before, len(data)); err != nil {
			return fmt.Errorf("send a frame: %w", err)
		}
		before = ""
		if _, err := w.Write(append(data, "\r\n--frame\r\n"...)); err != nil {
			return fmt.Errorf("send a frame: %w", err)
		}
		return control.Flush()
	})
	return nil // the answer has begun: its end is all that can be told
}

func (s *Server) websocket(ctx context.Context, w http.ResponseWriter, r *http.Request, f *feed) error {
	// Who may connect is decided by rrm, which forwards; the page's origin is
	// that of the service, never the renderer's.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return nil // Accept has answered
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(maxMessage)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Reads and writes do not use ctx: when one is cancelled the connection is
	// cut, without the reason that Close gives below.
	received := make(chan struct{})
	go func() {
		defer close(received)
		defer cancel()
		s.receive(r.Context(), c, f.session)
	}()
	err = f.run(ctx, func(data []byte) error {
		sending, done := context.WithTimeout(r.Context(), answerTimeout)
		defer done()
		return c.Write(sending, websocket.MessageBinary, data)
	})
	code, reason := websocket.StatusInternalError, "the frame could not be drawn"
	switch {
	case errors.Is(err, errUnloaded):
		code, reason = websocket.StatusGoingAway, errUnloaded.Error()
	case s.stopping():
		code, reason = websocket.StatusGoingAway, "the renderer exits"
	case ctx.Err() != nil:
		code, reason = websocket.StatusNormalClosure, ""
	}
	_ = c.Close(code, reason)
	<-received
	return nil
}

// receive takes {"camera": {...}} messages until the connection ends. A bad
// one is answered by a text message with the error; the stream goes on.
func (s *Server) receive(ctx context.Context, c *websocket.Conn, session string) {
	for {
		_, message, err := c.Read(ctx)
		if err != nil {
			return
		}
		_, err = s.cameras.change(session, func(k *raster.Camera) error {
			return picture.Object(message, "", map[string]any{
				"camera": func(data []byte, path string) error { return picture.DecodeCamera(k, data, path) },
			})
		})
		if err == nil {
			continue
		}
		if err := c.Write(ctx, websocket.MessageText, asFailure(err).json()); err != nil {
			return
		}
	}
}
