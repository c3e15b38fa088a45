package server

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/job"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

var jobID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

func (s *Server) submitJob(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if !jobID.MatchString(id) {
		return &picture.FieldError{Field: "id", Reason: "must be 1 to 128 letters, digits, or one of ._:- after the first"}
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	st, ok := s.Jobs.Status(id)
	if !ok {
		request, err := s.jobRequest(r, body)
		if err != nil {
			return err
		}
		if st, err = s.Jobs.Submit(id, request); err != nil {
			return err
		}
	}
	return writeJSON(w, http.StatusAccepted, st)
}

func (s *Server) jobRequest(r *http.Request, body []byte) (job.Request, error) {
	request := job.Request{Spec: picture.Default()}
	key := ""
	if err := picture.Object(body, "", map[string]any{
		"kind": &request.Kind, "model": &key,
		"spec": func(data []byte, path string) error { return request.Spec.Decode(data, path) },
	}); err != nil {
		return request, err
	}
	if !slices.Contains([]string{job.Image, job.Frames, job.Video}, request.Kind) {
		return request, &picture.FieldError{Field: "kind", Reason: "must be image, frames or video"}
	}
	if request.Kind == job.Video && !s.Video.Can(request.Spec.Codec) {
		reason := fmt.Sprintf("no video can be made here: ffmpeg with the codec for %s is not installed", request.Spec.Codec)
		return request, &failure{http.StatusUnprocessableEntity, "video_unavailable", reason, ""}
	}
	if key == "" {
		key = r.Header.Get("X-RRM-Model")
	}
	use, err := s.Models.Get(key)
	request.Use = use
	return request, err
}

var errNoJob = &failure{http.StatusNotFound, "job_not_found", "there is no job of this id", ""}

func (s *Server) getJob(w http.ResponseWriter, r *http.Request) error {
	st, ok := s.Jobs.Status(r.PathValue("id"))
	if !ok {
		return errNoJob
	}
	return writeJSON(w, http.StatusOK, st)
}

func (s *Server) jobResult(w http.ResponseWriter, r *http.Request) error {
	st, ok := s.Jobs.Status(r.PathValue("id"))
	switch {
	case !ok:
		return errNoJob
	case st.State == job.Running:
		return &failure{http.StatusConflict, "job_running", "the job is still running", ""}
	case st.State != job.Succeeded && (st.State != job.Stopped || st.Frames == 0):
		return &failure{http.StatusConflict, "job_" + st.State, "the job has no result: it " + st.State + ". " + st.Reason, ""}
	}
	f, err := s.Jobs.Open(st.ID)
	if err != nil {
		return errNoJob // deleted since
	}
	defer func() { _ = f.Close() }()
	w.Header().Set("Content-Type", st.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(&patient{w, http.NewResponseController(w)}, r, "", time.Time{}, f)
	return nil
}

// patient gives the client time for each piece of a long answer, not for the whole.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(answerTimeout))
	return p.ResponseWriter.Write(b)
}

// ReadFrom copies in pieces, so that each has its deadline.
func (p *patient) ReadFrom(src io.Reader) (n int64, err error) {
	defer func() { _ = p.control.SetWriteDeadline(time.Time{}) }()
	return io.CopyBuffer(struct{ io.Writer }{p}, src, make([]byte, 256<<10))
}

func (s *Server) stopJob(w http.ResponseWriter, r *http.Request) error {
	st, ok, err := s.Jobs.StopAfterFrame(r.PathValue("id"))
	switch {
	case !ok:
		return errNoJob
	case err != nil:
		return &failure{http.StatusConflict, "not_stoppable", err.Error(), ""}
	}
	return writeJSON(w, http.StatusAccepted, st)
}

func (s *Server) deleteJob(w http.ResponseWriter, r *http.Request) error {
	st, ok := s.Jobs.Delete(r.PathValue("id"))
	if !ok {
		st = job.Status{ID: r.PathValue("id"), State: job.Cancelled}
	}
	return writeJSON(w, http.StatusOK, st)
}
