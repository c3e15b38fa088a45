package picture

import (
	"errors"
	"net/url"
	"testing"
)

func TestDecode(t *testing.T) {
	for text, field := range map[string]string{
		`{}`: "",
		`{"width":800,"height":600,"format":"jpeg","quality":50,"samples":3,"camera":{"yaw":-10.5},"frames":10000,"orbit":-90,"fps":60,"codec":"webm"}`: "",
		`[]`:                        "spec",
		`{`:                         "spec",
		`{"widht":800}`:             "spec.widht",
		`{"width":"800"}`:           "spec.width",
		`{"width":800.5}`:           "spec.width",
		`{"width":15}`:              "spec.width",
		`{"height":4097}`:           "spec.height",
		`{"width":-640}`:            "spec.width",
		`{"width":1e400}`:           "spec.width",
		`{"format":"gif"}`:          "spec.format",
		`{"format":7}`:              "spec.format",
		`{"quality":0}`:             "spec.quality",
		`{"samples":5}`:             "spec.samples",
		`{"frames":10001}`:          "spec.frames",
		`{"fps":0}`:                 "spec.fps",
		`{"orbit":1e9}`:             "spec.orbit",
		`{"codec":"avi"}`:           "spec.codec",
		`{"camera":3}`:              "spec.camera",
		`{"camera":{"roll":1}}`:     "spec.camera.roll",
		`{"camera":{"pitch":91}}`:   "spec.camera.pitch",
		`{"camera":{"distance":0}}`: "spec.camera.distance",
		`{"camera":{"fov":180}}`:    "spec.camera.fov",
		`{"camera":{"yaw":"x"}}`:    "spec.camera.yaw",
		`{"width":4096,"height":4096,"samples":3}`: "spec.samples",
	} {
		s := Default()
		err := s.Decode([]byte(text), "spec")
		var f *FieldError
		if field == "" && err != nil || field != "" && (!errors.As(err, &f) || f.Field != field) {
			t.Errorf("%s: %v, want %q to blame", text, err, field)
		}
	}
}

func TestAbsentFieldsStay(t *testing.T) {
	s := Default()
	if err := s.Decode([]byte(`{"height":100,"camera":{"pitch":5}}`), "spec"); err != nil {
		t.Fatal(err)
	}
	if s.Width != 640 || s.Height != 100 || s.Camera.Yaw != 30 || s.Camera.Pitch != 5 {
		t.Errorf("%+v", s)
	}
	c := DefaultCamera
	if err := DecodeCamera(&c, []byte(`{"yaw":1,"fov":500}`), ""); err == nil || c != DefaultCamera {
		t.Errorf("a refused change left %+v (%v)", c, err)
	}
}

func TestDecodeQuery(t *testing.T) {
	for query, field := range map[string]string{
		"width=100&yaw=7.5&format=jpeg&_=123": "",
		"width=x":                             "width",
		"yaw=NaN":                             "yaw",
		"fov=Inf":                             "fov",
		"pitch=95":                            "pitch",
		"samples=9":                           "samples",
		"format=bmp":                          "format",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		s := Default()
		err = s.DecodeQuery(q)
		var f *FieldError
		if field == "" && err != nil || field != "" && (!errors.As(err, &f) || f.Field != field) {
			t.Errorf("%s: %v, want %q to blame", query, err, field)
		}
	}
}

func TestOrbit(t *testing.T) {
	s := Default()
	if first, sixth := s.View(0).Camera.Yaw, s.View(6).Camera.Yaw; first != 30 || sixth != 120 {
		t.Errorf("yaw %v, then %v", first, sixth)
	}
}
