package server

import (
	"bytes"
	"context"
	"net/http"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

// asked is the picture that a request's query asks for, from its session's camera.
func (s *Server) asked(r *http.Request) (picture.Spec, error) {
	spec := picture.Default()
	spec.Camera, _ = s.cameras.get(sessionOf(r))
	err := spec.DecodeQuery(r.URL.Query())
	return spec, err
}

func (s *Server) draw(ctx context.Context, use model.Use, spec *picture.Spec) ([]byte, error) {
	img, err := s.Painter.DrawNow(ctx, use.Scene, spec.View(0))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := spec.Encode(&b, img); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (s *Server) image(w http.ResponseWriter, r *http.Request) error {
	spec, err := s.asked(r)
	if err != nil {
		return err
	}
	return s.answerImage(r, &spec, func(data []byte) error {
		return writeBytes(w, http.StatusOK, spec.ContentType(), data)
	})
}

func (s *Server) imageJPEG(w http.ResponseWriter, r *http.Request) error {
	spec, err := s.asked(r)
	if err != nil {
		return err
	}
	spec.Format = picture.JPEG
	return s.answerImage(r, &spec, func(data []byte) error {
		return writeJSON(w, http.StatusOK, map[string][]byte{"data": data}) // base64 by encoding/json
	})
}

func (s *Server) answerImage(r *http.Request, spec *picture.Spec, answer func([]byte) error) error {
	use, err := s.use(r)
	if err != nil {
		return err
	}
	data, err := s.draw(r.Context(), use, spec)
	if err != nil {
		return err
	}
	return answer(data)
}
