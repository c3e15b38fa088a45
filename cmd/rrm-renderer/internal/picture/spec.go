// Package picture knows what a picture can be asked for: sizes, formats and
// cameras, with their bounds; and it draws and encodes it.
package picture

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/raster"
)

// FieldError says which field of a request is to blame.
type FieldError struct{ Field, Reason string }

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// The bounds of a picture.
const (
	MinSide    = 16
	MaxSide    = 4096
	MaxSamples = 4        // per axis
	MaxWork    = 67108864 // width * height * samples^2
	MaxFrames  = 10_000
	MaxFPS     = 120
)

// The formats of an image and the codecs of a video.
const (
	PNG  = "png"
	JPEG = "jpeg"
	MP4  = "mp4"
	WebM = "webm"
)

// Spec describes an image, a set of frames or a video.
type Spec struct {
	Width, Height, Quality, Samples int
	Format                          string
	Camera                          raster.Camera
	Frames, FPS                     int
	FirstFrame, LastFrame           int // of those to be made, from 1; 0: from the first, to the last
	Orbit                           float64
	Codec                           string
}

// DefaultCamera shows the whole model.
var DefaultCamera = raster.Camera{Yaw: 30, Pitch: 15, Distance: 2.6, FOV: 40}

// Default is the picture that one gets without asking for anything.
func Default() Spec {
	return Spec{
		Width: 640, Height: 360, Quality: 85, Samples: 2, Format: PNG, Camera: DefaultCamera,
		Frames: 24, FPS: 24, Orbit: 360, Codec: MP4,
	}
}

// View is the spec's view, for the frame of this number of a set of frames.
func (s *Spec) View(frame int) raster.View {
	c := s.Camera
	c.Yaw += s.Orbit * float64(frame) / float64(s.Frames)
	return raster.View{Width: s.Width, Height: s.Height, Samples: s.Samples, Camera: c}
}

// Range is the numbers of the first frame to be made, from 0, and of the first that is not.
func (s *Spec) Range() (from, to int) {
	from, to = max(0, s.FirstFrame-1), s.Frames
	if s.LastFrame > 0 {
		to = s.LastFrame
	}
	return from, to
}

// ContentType is the media type of the spec's images.
func (s *Spec) ContentType() string { return "image/" + s.Format }

// Decode changes the spec by a JSON object, whose own name is path; absent
// fields stay. It fails with a *FieldError.
func (s *Spec) Decode(data []byte, path string) error {
	if err := Object(data, path, map[string]any{
		"width": &s.Width, "height": &s.Height, "quality": &s.Quality, "samples": &s.Samples, "format": &s.Format,
		"frames": &s.Frames, "first_frame": &s.FirstFrame, "last_frame": &s.LastFrame, "fps": &s.FPS, "orbit": &s.Orbit, "codec": &s.Codec,
		"camera": func(data []byte, path string) error { return DecodeCamera(&s.Camera, data, path) },
	}); err != nil {
		return err
	}
	return s.check(path)
}

// DecodeCamera changes a camera by a JSON object; absent fields stay. On a
// *FieldError the camera is as it was.
func DecodeCamera(c *raster.Camera, data []byte, path string) error {
	changed := *c
	if err := Object(data, path, map[string]any{
		"yaw": &changed.Yaw, "pitch": &changed.Pitch, "distance": &changed.Distance, "fov": &changed.FOV,
	}); err != nil {
		return err
	}
	if err := checkCamera(changed, path); err != nil {
		return err
	}
	*c = changed
	return nil
}

// DecodeQuery changes the spec by the parameters of a URL. Parameters that
// mean nothing here are passed over: those of whoever forwards the request,
// or of a page that wants no cached answer.
func (s *Spec) DecodeQuery(q url.Values) error {
	for name, target := range map[string]*int{
		"width": &s.Width, "height": &s.Height, "quality": &s.Quality, "samples": &s.Samples, "fps": &s.FPS,
	} {
		if text := q.Get(name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil {
				return &FieldError{name, "must be a whole number"}
			}
			*target = n
		}
	}
	for name, target := range map[string]*float64{
		"yaw": &s.Camera.Yaw, "pitch": &s.Camera.Pitch, "distance": &s.Camera.Distance, "fov": &s.Camera.FOV,
	} {
		if text := q.Get(name); text != "" {
			x, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return &FieldError{name, "must be a number"}
			}
			*target = x
		}
	}
	if f := q.Get("format"); f != "" {
		s.Format = f
	}
	return s.check("")
}

func (s *Spec) check(path string) error {
	for _, f := range []struct {
		name          string
		value, lo, hi int
	}{
		{"width", s.Width, MinSide, MaxSide},
		{"height", s.Height, MinSide, MaxSide},
		{"quality", s.Quality, 1, 100},
		{"samples", s.Samples, 1, MaxSamples},
		{"frames", s.Frames, 1, MaxFrames},
		{"fps", s.FPS, 1, MaxFPS},
		{"first_frame", s.FirstFrame, 0, s.Frames},
		{"last_frame", s.LastFrame, 0, s.Frames},
	} {
		if f.value < f.lo || f.value > f.hi {
			return &FieldError{join(path, f.name), fmt.Sprintf("must be %d to %d", f.lo, f.hi)}
		}
	}
	switch {
	case s.Width*s.Height*s.Samples*s.Samples > MaxWork:
		return &FieldError{join(path, "samples"), fmt.Sprintf("width * height * samples^2 must be at most %d", MaxWork)}
	case s.LastFrame > 0 && s.LastFrame < s.FirstFrame:
		return &FieldError{join(path, "last_frame"), fmt.Sprintf("must be %d or more, as first_frame is", s.FirstFrame)}
	case !slices.Contains([]string{PNG, JPEG}, s.Format):
		return &FieldError{join(path, "format"), "must be png or jpeg"}
	case !slices.Contains([]string{MP4, WebM}, s.Codec):
		return &FieldError{join(path, "codec"), "must be mp4 or webm"}
	case !(math.Abs(s.Orbit) <= 1e6):
		return &FieldError{join(path, "orbit"), "must be -1e6 to 1e6"}
	}
	camera := join(path, "camera")
	if path == "" { // in a URL the camera's fields stand by themselves
		camera = ""
	}
	return checkCamera(s.Camera, camera)
}

func checkCamera(c raster.Camera, path string) error {
	for _, f := range []struct {
		name          string
		value, lo, hi float64
	}{
		{"yaw", c.Yaw, -1e6, 1e6},
		{"pitch", c.Pitch, -90, 90},
		{"distance", c.Distance, 0.01, 100},
		{"fov", c.FOV, 1, 150},
	} {
		if !(f.value >= f.lo && f.value <= f.hi) {
			return &FieldError{join(path, f.name), fmt.Sprintf("must be %g to %g", f.lo, f.hi)}
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Object decodes a JSON object into targets by field: pointers, or functions
// that take the value and its path. Unknown fields and wrong types are
// refused with a *FieldError.
func Object(data []byte, path string, targets map[string]any) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return &FieldError{path, "not valid JSON: " + syntax.Error()}
		}
		return &FieldError{path, "must be an object"}
	}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names) // the same fault is blamed each time
	for _, name := range names {
		at := join(path, name)
		target, ok := targets[name]
		if !ok {
			return &FieldError{at, "unknown field"}
		}
		if f, ok := target.(func([]byte, string) error); ok {
			if err := f(object[name], at); err != nil {
				return err
			}
			continue
		}
		if err := json.Unmarshal(object[name], target); err != nil {
			return &FieldError{at, "must be " + typeName(target)}
		}
	}
	return nil
}

func typeName(target any) string {
	switch target.(type) {
	case *int:
		return "a whole number"
	case *float64:
		return "a number"
	case *string:
		return "a text"
	}
	return "of another type"
}
