package server

import (
	"net/http"
	"sync"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/raster"
)

// maxCameras is how many sessions' cameras are kept; the one that was not
// used for longest is forgotten.
const maxCameras = 1024

type camera struct {
	raster.Camera
	changed chan struct{} // closed at the next change
	used    uint64
}

// cameras keeps one camera for each session.
type cameras struct {
	mu    sync.Mutex
	of    map[string]*camera
	clock uint64
}

// get returns a session's camera, and a channel that closes when it changes.
func (c *cameras) get(session string) (raster.Camera, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.find(session)
	return k.Camera, k.changed
}

// change lets f change a session's camera; on an error it stays as it was.
func (c *cameras) change(session string, f func(*raster.Camera) error) (raster.Camera, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.find(session)
	next := k.Camera
	if err := f(&next); err != nil {
		return k.Camera, err
	}
	if next != k.Camera {
		k.Camera = next
		close(k.changed)
		k.changed = make(chan struct{})
	}
	return next, nil
}

func (c *cameras) find(session string) *camera {
	c.clock++
	k, ok := c.of[session]
	if !ok {
		if c.of == nil {
			c.of = make(map[string]*camera)
		}
		if len(c.of) >= maxCameras {
			c.forgetOldest()
		}
		k = &camera{Camera: picture.DefaultCamera, changed: make(chan struct{})}
		c.of[session] = k
	}
	k.used = c.clock
	return k
}

func (c *cameras) forgetOldest() {
	var oldest string
	least := c.clock + 1
	for session, k := range c.of {
		if k.used < least {
			oldest, least = session, k.used
		}
	}
	// Whoever watches it looks again, and gets a new one.
	close(c.of[oldest].changed)
	delete(c.of, oldest)
}

func sessionOf(r *http.Request) string {
	const longest = 256 // the rest of a longer one would only cost memory
	session := r.Header.Get("X-RRM-Session")
	return session[:min(len(session), longest)]
}

func (s *Server) getCamera(w http.ResponseWriter, r *http.Request) error {
	c, _ := s.cameras.get(sessionOf(r))
	return writeJSON(w, http.StatusOK, c)
}

func (s *Server) putCamera(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	c, err := s.cameras.change(sessionOf(r), func(c *raster.Camera) error {
		return picture.DecodeCamera(c, body, "")
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}
