package process

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// specOf is what the renderer is told to make: the job's spec, without the frames that are there already.
func specOf(j *pool.Job) (json.RawMessage, error) {
	if j.FirstFrame <= 1 && j.LastFrame == 0 {
		return j.Spec, nil
	}
	spec := map[string]json.RawMessage{}
	if len(j.Spec) > 0 {
		if err := json.Unmarshal(j.Spec, &spec); err != nil {
			return nil, fmt.Errorf("read the spec of job %s: %w", j.ID, err)
		}
	}
	set := func(name string, n int) {
		if n > 0 {
			spec[name] = json.RawMessage(fmt.Sprint(n))
		}
	}
	set("first_frame", j.FirstFrame)
	set("last_frame", j.LastFrame)
	return json.Marshal(spec)
}

// madeOf is how far a job is of which some frames were made before this attempt.
func madeOf(j *pool.Job, st domain.JobStatus) float64 {
	before := 0
	for _, p := range j.Pieces {
		before += p.Last - p.First + 1
	}
	if before == 0 || st.Progress <= 0 || st.Frames <= 0 {
		return st.Progress
	}
	all := float64(st.Frames) / st.Progress // of this attempt
	return (float64(before) + float64(st.Frames)) / (float64(before) + all)
}

// moved keeps what a job made until it stopped between two frames, and lets it
// go on elsewhere. It says whether that is done.
func (m *Jobs) moved(ctx context.Context, c Renderer, j *pool.Job, r *pool.Resource, st domain.JobStatus) bool {
	if st.Frames > 0 {
		body, contentType, err := c.JobResult(ctx, attemptID(j))
		if err == nil {
			_, err = m.Results.Store(ctx, pool.PieceID(j.ID, max(1, j.FirstFrame)), contentType, body, m.MaxBytes)
			_ = body.Close()
		}
		if err != nil {
			if ctx.Err() == nil {
				m.Log.Warn("the frames of a job that makes room could not be fetched; it will be tried again", "job", j.ID, "error", err)
			}
			return false
		}
	}
	report(ctx, m.Reporter, m.Log, "jobs", pool.ReportJobMoved{Job: j.ID, Resource: r.ID, Frames: st.Frames})
	return true
}

// gatherLimit bounds how long parts are put together before it is begun anew.
const gatherLimit = 10 * time.Minute

// gatherAll begins to put together the parts of every job whose parts are all made.
func (m *Jobs) gatherAll(ctx context.Context, wanted map[string]bool) error {
	jobs, err := m.Views.GatheringJobs(ctx)
	for i := range jobs {
		j := &jobs[i]
		key := "gather " + string(j.ID)
		wanted[key] = true
		m.do(ctx, key, gatherLimit, func(ctx context.Context) { m.gather(ctx, j) })
	}
	return err
}

// gather stores one result of what the parts of a job made, and reports that.
func (m *Jobs) gather(ctx context.Context, j *pool.Job) {
	parts := make([]domain.JobID, len(j.Parts))
	for i, p := range j.Parts {
		parts[i] = p.Job
	}
	all := m.together(ctx, parts, nil)
	defer func() { _ = all.Close() }()
	n, err := m.Results.Store(ctx, j.ID, typeZip, all, m.MaxBytes)
	done := pool.ReportJobGathered{Job: j.ID, Result: pool.Result{ContentType: typeZip, Bytes: n}}
	if refusal, ok := domain.AsRefusal(err); ok && refusal.Kind == domain.KindInvalid {
		done.Code, done.Reason = refusal.Code, refusal.Reason
		err = nil
	}
	if err != nil {
		if ctx.Err() == nil {
			m.Log.Warn("the parts of a job could not be put together; it will be tried again", "job", j.ID, "error", err)
		}
		return
	}
	report(ctx, m.Reporter, m.Log, "jobs", done)
}

// errNotArchives: frames can be put together only where they come as archives.
var errNotArchives = &domain.Refusal{Kind: domain.KindInvalid, Code: "parts_not_archives", Reason: "the frames were made in parts, and a part is no zip archive"}

const typeZip = "application/zip"

// together streams one archive of what several hold, in their order, each name
// once. Each is taken in whole before the next, on disk. An error ends the stream.
func (m *Jobs) together(ctx context.Context, pieces []domain.JobID, last io.Reader) io.ReadCloser {
	out, in := io.Pipe()
	go func() {
		z := zip.NewWriter(in)
		seen := map[string]bool{}
		err := m.eachPiece(ctx, pieces, last, func(r io.Reader) error { return addArchive(z, r, seen) })
		if err == nil {
			err = z.Close()
		}
		in.CloseWithError(err)
	}()
	return out
}

func (m *Jobs) eachPiece(ctx context.Context, pieces []domain.JobID, last io.Reader, add func(io.Reader) error) error {
	for _, id := range pieces {
		contentType, r, err := m.Results.Open(ctx, id)
		if err != nil {
			if refusal, ok := domain.AsRefusal(err); ok && refusal.Kind == domain.KindNotFound {
				return &domain.Refusal{Kind: domain.KindInvalid, Code: "part_lost", Reason: fmt.Sprintf("the frames %s are not kept any more", id)}
			}
			return err
		}
		if !isZip(contentType) {
			_ = r.Close()
			return errNotArchives
		}
		err = add(r)
		_ = r.Close()
		if err != nil {
			return err
		}
	}
	if last == nil {
		return nil
	}
	return add(last)
}

func isZip(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(kind) == typeZip
}

// addArchive copies the files of an archive as they are, those that are not there yet.
func addArchive(to *zip.Writer, r io.Reader, seen map[string]bool) error {
	f, err := os.CreateTemp("", "rrm-part-*.zip") // an archive is read from its end
	if err != nil {
		return fmt.Errorf("keep a part: %w", err)
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	n, err := io.Copy(f, r)
	if err != nil {
		return fmt.Errorf("keep a part: %w", err)
	}
	from, err := zip.NewReader(f, n)
	if errors.Is(err, zip.ErrFormat) {
		return errNotArchives
	}
	if err != nil {
		return fmt.Errorf("read a part: %w", err)
	}
	for _, file := range from.File {
		if seen[file.Name] {
			continue
		}
		seen[file.Name] = true
		if err := to.Copy(file); err != nil {
			return fmt.Errorf("put %s into the archive: %w", file.Name, err)
		}
	}
	return nil
}
