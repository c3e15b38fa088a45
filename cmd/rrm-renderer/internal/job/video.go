package job

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
)

// Encoder makes videos with the program ffmpeg.
type Encoder struct {
	program string
	codecs  map[string]string // of the spec -> ffmpeg's name
}

var codecNames = map[string]string{picture.MP4: "libx264", picture.WebM: "libvpx-vp9"}

// FindEncoder looks for the program (a name on the PATH, or a path) and asks
// it which codecs it has; nil if there is none that can be used.
func FindEncoder(ctx context.Context, program string) *Encoder {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "-hide_banner", "-encoders").Output()
	if err != nil {
		return nil
	}
	e := &Encoder{program: path, codecs: make(map[string]string)}
	for codec, name := range codecNames {
		if strings.Contains(string(out), " "+name+" ") {
			e.codecs[codec] = name
		}
	}
	if len(e.codecs) == 0 {
		return nil
	}
	return e
}

// Can says whether the encoder, which may be nil, has the codec.
func (e *Encoder) Can(codec string) bool { return e != nil && e.codecs[codec] != "" }

// encode runs ffmpeg on the raw frames that write sends it. It is killed when
// the context is done.
func (e *Encoder) encode(ctx context.Context, path string, s *picture.Spec, write func(io.Writer) error) error {
	args := []string{
		"-hide_banner", "-loglevel", "error", "-y",
		"-f", "rawvideo", "-pix_fmt", "rgba",
		"-video_size", fmt.Sprintf("%dx%d", s.Width, s.Height), "-framerate", strconv.Itoa(s.FPS), "-i", "pipe:0",
		// Players want colors at half size, which needs even sides.
		"-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p",
		"-c:v", e.codecs[s.Codec], "-fs", strconv.Itoa(maxResult),
	}
	if s.Codec == picture.MP4 {
		args = append(args, "-preset", "veryfast", "-crf", "20", "-movflags", "+faststart")
	} else {
		args = append(args, "-b:v", "0", "-crf", "32", "-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1")
	}
	cmd := exec.CommandContext(ctx, e.program, append(args, "-f", s.Codec, path)...)
	cmd.WaitDelay = time.Second
	said := &head{limit: 2048}
	cmd.Stderr = said
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start ffmpeg: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start ffmpeg: %w", err)
	}
	wrote := write(in)
	if wrote != nil {
		_ = cmd.Process.Kill() // it would make a video of the frames it got
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil && said.Len() > 0 {
		return fmt.Errorf("ffmpeg: %w: %s", err, strings.TrimSpace(said.String()))
	} else if wrote != nil {
		return wrote
	} else if err != nil {
		return fmt.Errorf("ffmpeg: %w", err)
	}
	// ffmpeg stops writing a little before the limit, and says nothing.
	if info, err := os.Stat(path); err != nil {
		return fmt.Errorf("ffmpeg made no file: %w", err)
	} else if info.Size() > maxResult/100*99 {
		return errTooLarge
	}
	return nil
}

// head keeps the first bytes that a program says: its first error is the cause.
type head struct {
	bytes.Buffer
	limit int
}

func (t *head) Write(p []byte) (int, error) {
	if room := t.limit - t.Len(); room > 0 {
		t.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
