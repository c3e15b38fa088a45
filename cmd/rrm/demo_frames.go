package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // frames of streams
	_ "image/png"  // pictures
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

const (
	maxPicture = 32 << 20 // bytes
	streamTime = 20 * time.Second
)

// picture decodes an image and refuses one that shows nothing.
func picture(raw []byte) (image.Image, string, error) {
	img, format, err := image.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, "", expect(false, "a picture", "%d bytes that are none: %s", len(raw), err)
	}
	// The background is grey in all shades; what a model is made of has colour.
	coloured, b := 0, img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			red, green, blue, _ := img.At(x, y).RGBA()
			if max(red, green, blue)-min(red, green, blue) > 0x3000 {
				coloured++
			}
		}
	}
	return img, format, expect(coloured >= 100, "a picture of something", "%d coloured pixels", coloured)
}

// frames fetches pictures of Ada's session in the three ways there are.
func (s *story) frames() error {
	e := s.people["ada"]
	if err := s.framePNG(e, "session.png"); err != nil {
		return err
	}
	if err := s.frameMJPEG(e, "session-mjpeg.jpg"); err != nil {
		return err
	}
	return s.frameWebSocket(e, "session-websocket.jpg")
}

func (s *story) get(ctx context.Context, method, address string, body any) (*http.Response, error) {
	var in io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write the camera: %w", err)
		}
		in = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, in)
	if err != nil {
		return nil, fmt.Errorf("ask the renderer: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := s.api.render(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		_ = res.Body.Close()
		return nil, errors.Join(expect(false, "200 from the renderer", "%s", res.Status), client.Failure(res, raw))
	}
	return res, nil
}

func (s *story) framePNG(e client.Session, file string) error {
	begin := s.now()
	res, err := s.get(s.ctx, http.MethodGet, s.api.rendererURL(e.URL, "v1/image", url.Values{"width": {"960"}, "height": {"540"}}), nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxPicture))
	if err != nil {
		return fmt.Errorf("read the picture: %w", err)
	}
	img, format, err := picture(raw)
	if err != nil {
		return err
	}
	if err := expect(format == "png" && img.Bounds().Dx() == 960 && img.Bounds().Dy() == 540, "a PNG of 960 x 540", "%s %v", format, img.Bounds()); err != nil {
		return err
	}
	took := s.now().Sub(begin)
	if _, err := writeFile(s.file(file), bytes.NewReader(raw)); err != nil {
		return err
	}
	s.say("PNG, 960 x 540, %s in %s: %s", size(int64(len(raw))), seconds(took.Seconds()), s.file(file))
	return nil
}

// frameMJPEG reads some frames, turning the camera between them.
func (s *story) frameMJPEG(e client.Session, file string) error {
	ctx, cancel := context.WithTimeout(s.ctx, streamTime)
	defer cancel()
	res, err := s.get(ctx, http.MethodGet, s.api.rendererURL(e.URL, "v1/stream", url.Values{"width": {"480"}, "height": {"270"}, "fps": {"20"}}), nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return expect(false, "a stream of JPEGs", "%q", res.Header.Get("Content-Type"))
	}
	parts := multipart.NewReader(res.Body, params["boundary"])
	var last []byte
	frames, changes := 0, 0
	for ; frames < 5; frames++ {
		part, err := parts.NextPart()
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		raw, err := io.ReadAll(io.LimitReader(part, maxPicture))
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		if _, _, err := picture(raw); err != nil {
			return err
		}
		if !bytes.Equal(raw, last) && last != nil {
			changes++
		}
		last = raw
		camera, err := s.get(ctx, http.MethodPut, s.api.rendererURL(e.URL, "v1/camera", nil), map[string]float64{"yaw": 30 + 25*float64(frames+1)})
		if err != nil {
			return err
		}
		_ = camera.Body.Close()
	}
	if err := expect(changes > 0, "frames that follow the camera", "%d times the same", frames); err != nil {
		return err
	}
	if _, err := writeFile(s.file(file), bytes.NewReader(last)); err != nil {
		return err
	}
	s.say("MJPEG, %d frames while the camera turned: %s", frames, s.file(file))
	return nil
}

// frameWebSocket reads frames and sends a camera on the same connection.
func (s *story) frameWebSocket(e client.Session, file string) error {
	ctx, cancel := context.WithTimeout(s.ctx, streamTime)
	defer cancel()
	header := http.Header{}
	if s.api.token != "" {
		header.Set("Authorization", "Bearer "+s.api.token)
	}
	address := s.api.rendererURL(e.URL, "v1/stream", url.Values{"width": {"480"}, "height": {"270"}, "fps": {"20"}})
	ws, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{HTTPHeader: header}) //nolint:bodyclose // the library closes it
	if err != nil {
		return fmt.Errorf("open a WebSocket through the service: %w", err)
	}
	defer func() { _ = ws.CloseNow() }()
	ws.SetReadLimit(maxPicture)
	var first, last []byte
	frames := 0
	for ; frames < 20 && (first == nil || bytes.Equal(first, last)); frames++ {
		kind, raw, err := ws.Read(ctx)
		if err != nil {
			return fmt.Errorf("read the WebSocket: %w", err)
		}
		if kind != websocket.MessageBinary {
			return expect(false, "a JPEG in each message", "text: %s", string(raw))
		}
		if _, _, err := picture(raw); err != nil {
			return err
		}
		if last = raw; first == nil {
			first = raw
			if err := ws.Write(ctx, websocket.MessageText, []byte(`{"camera":{"yaw":250,"pitch":40}}`)); err != nil {
				return fmt.Errorf("write to the WebSocket: %w", err)
			}
		}
	}
	if err := expect(!bytes.Equal(first, last), "another frame after the camera moved", "%d times the same", frames); err != nil {
		return err
	}
	_ = ws.Close(websocket.StatusNormalClosure, "")
	if _, err := writeFile(s.file(file), bytes.NewReader(last)); err != nil {
		return err
	}
	s.say("WebSocket, %d frames, camera moved on the same connection: %s", frames, s.file(file))
	return nil
}
