package wrap

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// framesSource fetches the frames of other jobs from the one rrm that the
// operator named, for programs with {frames_dir}.
type framesSource struct {
	cfg  *config
	http *http.Client
}

const maxAnswer = 1 << 20 // bytes of what rrm says about a job

func newFramesSource(cfg *config) (*framesSource, error) {
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the default transport is none of HTTP")
	}
	transport = transport.Clone()
	transport.Proxy = nil // the token goes to that server and to no other
	return &framesSource{cfg: cfg, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// fetch unpacks the frames of a job into dir, which it makes, and says how
// many they are. The job must be one that this one comes after: rrm has looked
// that whoever submitted this one may see it. So the wrapper's token, which may
// see more, gives nobody what is not theirs.
func (s *framesSource) fetch(ctx context.Context, attempt, of, dir string) (int, error) {
	api, err := s.api()
	if err != nil {
		return 0, err
	}
	own, err := s.look(ctx, api, ownID(attempt))
	if err != nil {
		return 0, err
	}
	switch {
	case of == "" && len(own.After) == 1:
		of = own.After[0]
	case of == "":
		return 0, invalidField(fieldFramesOf, "is missing: it names the job, of those in after, whose frames are wanted")
	case !slices.Contains(own.After, of):
		return 0, invalidField(fieldFramesOf, "must be one of the jobs that this one comes after (after)")
	}
	other, err := s.look(ctx, api, of)
	if err != nil {
		return 0, err
	}
	if other.Kind != kindFrames {
		return 0, invalidField(fieldFramesOf, fmt.Sprintf("must be a job of the kind frames, not %s", other.Kind))
	}
	archive := dir + ".zip"
	if err := s.download(ctx, api, of, archive); err != nil {
		return 0, err
	}
	n, err := unpack(archive, dir, s.cfg.MaxOutput)
	if rerr := os.Remove(archive); err == nil && rerr != nil {
		err = fmt.Errorf("remove the archive: %w", rerr)
	}
	return n, err
}

func invalidField(field, reason string) error {
	return &failure{Code: codeInvalid, Reason: specPrefix + field + " " + reason}
}

// api is made for each job, so that a token that was changed is the new one.
func (s *framesSource) api() (*client.ClientWithResponses, error) {
	token := s.cfg.Token
	if s.cfg.TokenFile != "" {
		raw, err := os.ReadFile(s.cfg.TokenFile)
		if err != nil {
			return nil, &failure{Code: codeNoFrames, Reason: "the wrapper's token cannot be read"}
		}
		token = strings.TrimSpace(string(raw))
	}
	api, err := client.New(s.cfg.server.String(), token, s.http)
	if err != nil {
		return nil, fmt.Errorf("make a client of rrm: %w", err)
	}
	return api, nil
}

var attemptSuffix = regexp.MustCompile(`\.[0-9]+$`)

// ownID is the job of an attempt: rrm numbers a job's attempts (ID.1, ID.2) on renderers.
func ownID(attempt string) string { return attemptSuffix.ReplaceAllString(attempt, "") }

// look asks rrm about a job.
func (s *framesSource) look(ctx context.Context, api *client.ClientWithResponses, id string) (client.Job, error) {
	var j client.Job
	res, err := api.GetJob(ctx, id)
	if err != nil {
		return j, unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return j, unreachable(err)
	}
	if err := answered(id, res, body); err != nil {
		return j, err
	}
	if err := json.Unmarshal(body, &j); err != nil {
		return j, unreachable(err)
	}
	return j, nil
}

func unreachable(err error) error {
	return &failure{Code: codeNoFrames, Reason: "rrm could not be asked for the frames: " + err.Error()}
}

// answered judges an answer: a job that is not there will not be there later
// either, all else may be better at the next attempt.
func answered(id string, res *http.Response, body []byte) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	f := &failure{Code: codeNoFrames, Reason: fmt.Sprintf("rrm refuses job %s to the wrapper: %s", id, res.Status)}
	var said *client.Error
	if err := client.Failure(res, body); errors.As(err, &said) {
		f.Reason = fmt.Sprintf("rrm refuses job %s to the wrapper: %s", id, said.Error())
	}
	if res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusConflict {
		f.Code = codeInvalid
	}
	return f
}

// download writes a job's result to a file of at most the size of an output.
func (s *framesSource) download(ctx context.Context, api *client.ClientWithResponses, id, to string) (err error) {
	res, err := api.GetJobResult(ctx, id)
	if err != nil {
		return unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		return answered(id, res, body)
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make the archive's file: %w", err)
	}
	n, err := io.Copy(f, io.LimitReader(res.Body, s.cfg.MaxOutput+1))
	switch cerr := f.Close(); {
	case err != nil:
		return unreachable(err)
	case cerr != nil:
		return fmt.Errorf("write the archive: %w", cerr)
	case n > s.cfg.MaxOutput:
		return errTooMuch
	}
	return nil
}

var frameName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// unpack writes the files of an archive, at most limit bytes and maxFrames of
// them, into a new directory.
func unpack(archive, dir string, limit int64) (n int, err error) {
	bad := func(why string) error {
		return &failure{Code: codeInvalid, Reason: "the frames are no archive of frames: " + why}
	}
	z, err := zip.OpenReader(archive)
	if err != nil {
		return 0, bad(err.Error())
	}
	defer func() { _ = z.Close() }()
	if len(z.File) == 0 || len(z.File) > maxFrames {
		return 0, bad(fmt.Sprintf("it holds %d files", len(z.File)))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return 0, fmt.Errorf("make a directory for the frames: %w", err)
	}
	root, err := os.OpenRoot(dir) // names with a way out are refused before; this would stop them too
	if err != nil {
		return 0, fmt.Errorf("open the directory for the frames: %w", err)
	}
	defer func() { _ = root.Close() }()
	for _, f := range z.File {
		if !frameName.MatchString(f.Name) {
			return 0, bad(fmt.Sprintf("it holds %q", f.Name))
		}
		written, err := unpackFile(root, f, limit)
		if err != nil {
			return 0, bad(err.Error())
		}
		if limit -= written; limit < 0 {
			return 0, errTooMuch
		}
	}
	return len(z.File), nil
}

func unpackFile(root *os.Root, f *zip.File, limit int64) (n int64, err error) {
	r, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	w, err := root.OpenFile(f.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(w, io.LimitReader(r, limit+1))
	return n, errors.Join(err, w.Close())
}
