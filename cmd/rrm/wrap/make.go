package wrap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errTooMuch and errTooLong are why a job's program was stopped.
var (
	errTooMuch = errors.New("the job wrote too much")
	errTooLong = errors.New("the job took too long")
)

// make runs the program for a job and leaves the outcome in its result file.
func (m *manager) make(ctx context.Context, j *job, w *work) (contentType string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.Timeout, errTooLong)
	defer cancel()
	t, err := m.prepare(ctx, j, w)
	if err != nil {
		return "", m.judge(ctx, err)
	}
	ctx, tooMuch := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchSize(ctx, t.dir, m.cfg.MaxOutput, func() { tooMuch(errTooMuch) })
	}()
	err = t.runAll(ctx)
	limited := context.Cause(ctx)
	tooMuch(nil)
	<-watched
	if limited != nil {
		err = limited
	}
	if size := sizeOf(t.dir); err == nil && size > m.cfg.MaxOutput {
		err = errTooMuch // between two looks
	}
	if err != nil {
		return "", m.judge(ctx, err)
	}
	contentType, err = t.collect()
	if err != nil {
		return "", err
	}
	// The result stays, all else has done its service.
	for _, dir := range []string{t.dir, t.framesDir} {
		m.removeDir(dir)
	}
	return contentType, nil
}

// judge makes an error of the job's limits into the failure that it is.
func (m *manager) judge(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(err, errTooMuch):
		return &failure{Code: codeTooLarge, Reason: fmt.Sprintf("the job wrote more than %d MiB", m.cfg.MaxOutput>>20)}
	case errors.Is(err, errTooLong), errors.Is(cause, errTooLong):
		return &failure{Code: codeTimeout, Reason: fmt.Sprintf("the job took longer than %s", m.cfg.Timeout)}
	}
	return err
}

// task is a job with its places.
type task struct {
	*work
	m         *manager
	job       *job
	dir       string // the program's working directory, {dir}
	out       string // where it writes its output
	framesDir string
}

// prepare makes the places and brings the input into them.
func (m *manager) prepare(ctx context.Context, j *job, w *work) (*task, error) {
	t := &task{work: w, m: m, job: j, dir: filepath.Join(j.dir, "work"), framesDir: filepath.Join(j.dir, "frames")}
	t.out = filepath.Join(t.dir, "out")
	for _, dir := range []string{t.out, filepath.Join(t.dir, "tmp")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the job's directory: %w", err)
		}
	}
	if w.text != "" {
		t.input = filepath.Join(t.dir, m.cfg.InputName)
		if err := os.WriteFile(t.input, []byte(w.text), 0o600); err != nil {
			return nil, fmt.Errorf("write the input: %w", err)
		}
	}
	if m.cfg.command.uses(nameFramesDir) {
		n, err := m.frames.fetch(ctx, w.id, w.framesOf, t.framesDir)
		if err != nil {
			return nil, err
		}
		t.values[nameFrames], t.frames = strconv.Itoa(n), n
	}
	return t, nil
}

// runAll runs the program once, or once for each frame.
func (t *task) runAll(ctx context.Context) error {
	if t.kind != kindFrames || !t.m.cfg.PerFrame {
		return t.runOnce(ctx, filepath.Join(t.out, t.outputName()), "", 0, 1)
	}
	for i := range t.frames {
		out := t.frameDir(i)
		if err := os.Mkdir(out, 0o700); err != nil {
			return fmt.Errorf("make a frame's directory: %w", err)
		}
		if err := t.runOnce(ctx, filepath.Join(out, t.frameName(i)), strconv.Itoa(i+1), i, t.frames); err != nil {
			return err
		}
		t.job.report(float64(i+1) / float64(t.frames))
	}
	return nil
}

func (t *task) outputName() string {
	switch t.kind {
	case kindFrames:
		return t.m.cfg.FramesOutput
	case kindVideo:
		return t.m.cfg.VideoOutput
	}
	return t.m.cfg.ImageOutput
}

func (t *task) frameDir(i int) string { return filepath.Join(t.out, fmt.Sprintf("%04d", i+1)) }

// frameName puts the number before the extension: frame_.png is frame_0007.png.
func (t *task) frameName(i int) string {
	ext := filepath.Ext(t.m.cfg.FramesOutput)
	return fmt.Sprintf("%s%04d%s", strings.TrimSuffix(t.m.cfg.FramesOutput, ext), i+1, ext)
}

// runOnce runs the program for part i of n.
func (t *task) runOnce(ctx context.Context, output, frame string, i, n int) error {
	values := maps.Clone(t.values)
	values[nameInput], values[nameOutput], values[nameDir], values[nameFramesDir] = t.input, output, t.dir, t.framesDir
	if frame != "" {
		values[nameFrame] = frame
	}
	cfg := t.m.cfg
	args, env, err := cfg.command.expand(values, cfg.rules.mayDash)
	if err != nil {
		return err
	}
	told := cfg.progress[t.kind]
	r := run{
		program: cfg.command.program, args: args, dir: t.dir, mark: t.job.dir,
		env: append(append(append([]string{}, t.m.environ...), "TMPDIR="+filepath.Join(t.dir, "tmp")), env...),
		line: func(line []byte) {
			if x, ok := told.read(line, t.frames); ok {
				t.job.report((float64(i) + x) / float64(n))
			}
		},
	}
	end, err := r.do(ctx)
	if err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	return t.endError(end)
}

// endError is nil for a run that ended well.
func (t *task) endError(end ending) error {
	if end.status.Exited() && end.status.ExitStatus() == 0 {
		return nil
	}
	how := fmt.Sprintf("exit status %d", end.status.ExitStatus())
	if end.status.Signaled() {
		how = fmt.Sprintf("killed by signal %d (%s)", int(end.status.Signal()), end.status.Signal())
	}
	reason := filepath.Base(t.m.cfg.command.program) + ": " + how
	if end.tail != "" {
		reason += ": " + strings.ReplaceAll(strings.ReplaceAll(end.tail, t.dir, "{dir}"), "\n", " | ")
	}
	return &failure{Code: t.m.cfg.exits.code(end.status), Reason: reason}
}

const (
	lookAtLeast = 50 * time.Millisecond
	lookShare   = 20 // a look may take this part of the time
)

// watchSize looks at a directory until ctx ends, and calls tooMuch once it holds more than limit bytes.
func watchSize(ctx context.Context, dir string, limit int64, tooMuch func()) {
	pause := lookAtLeast
	for {
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		began := time.Now()
		if sizeOf(dir) > limit {
			tooMuch()
			return
		}
		pause = max(lookAtLeast, lookShare*time.Since(began))
	}
}

// sizeOf adds up the files below a directory, each by its length or by what it
// takes on the disk, whichever is more. What vanishes meanwhile does not count.
func sizeOf(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // a program removes files while we look
		}
		if info, err := d.Info(); err == nil {
			size := info.Size()
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				size = max(size, st.Blocks*512)
			}
			total += size
		}
		return nil
	})
	return total
}
