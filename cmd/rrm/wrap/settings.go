package wrap

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kinds of jobs.
const (
	kindImage  = "image"
	kindFrames = "frames"
	kindVideo  = "video"
)

// Settings say which program is wrapped and how. Prepare checks them.
type Settings struct {
	Listen  string   // HOST:PORT; port 0 takes a free one
	Command []string // the program and its arguments, with placeholders
	Name    string   // of the renderer; empty: the program's
	Version string

	Kinds        []string // image, frames, video
	PerFrame     bool     // frames: one run for each, not one for all
	ImageOutput  string   // names of the files that {output} is, without directories
	FramesOutput string
	VideoOutput  string
	ContentType  string // of an image or video; empty: by the extension

	Progress       string   // pattern on the program's output
	FramesProgress string   // the same for one run that makes all frames
	Exit           []string // STATUS=CLASS

	Slots       int           // programs at once, 1 to 256
	Timeout     time.Duration // of one job, waiting for a slot left out
	MaxOutput   int64         // bytes that a job may write
	InputDir    string        // where {input} is looked up by the model key
	FromSpec    bool          // spec.input is the text of the input
	InputName   string        // of the file that spec.input is written to
	MaxInput    int64         // bytes of spec.input
	Models      bool          // offer the capability models: files below InputDir
	Defaults    []string      // NAME=VALUE of a spec's fields
	Allow       []string      // NAME=PATTERN that values of a field must match, instead of the usual rule
	Environment []string      // NAME=VALUE with placeholders
	WorkDir     string        // where work directories are made; empty: the system's temporary one

	Server    string // of rrm, for frames of other jobs; empty: none
	Token     string
	TokenFile string // read again for each job

	Log *slog.Logger
}

const (
	maxSlots   = 256
	maxTimeout = 7 * 24 * time.Hour
	maxBytes   = 1 << 40
)

// SettingError is a setting that cannot be meant.
type SettingError struct{ Reason string }

func (e *SettingError) Error() string { return e.Reason }

func wrong(format string, args ...any) error { return &SettingError{fmt.Sprintf(format, args...)} }

// config is Settings made ready.
type config struct {
	Settings
	command  command
	rules    rules
	progress map[string]*progress // by kind
	exits    exits
	server   *url.URL
}

// prepare checks everything that can be known before the first job.
func prepare(s Settings) (*config, error) {
	c := &config{Settings: s}
	for _, step := range []func() error{
		c.checkNumbers, c.checkKinds, c.checkOutputs, c.readCommand, c.checkPlaces, c.checkUse, c.readPatterns, c.readRules,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *config) checkNumbers() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return wrong("--listen is HOST:PORT such as 127.0.0.1:5000, not %q", c.Listen)
	}
	switch {
	case c.Slots < 1 || c.Slots > maxSlots:
		return wrong("--slots is 1 to %d, not %d", maxSlots, c.Slots)
	case c.Timeout < time.Millisecond || c.Timeout > maxTimeout:
		return wrong("--timeout is up to %s, not %s", maxTimeout, c.Timeout)
	case c.MaxOutput < 1 || c.MaxOutput > maxBytes:
		return wrong("--max-output-mib is 1 to %d", maxBytes>>20)
	case c.FromSpec && (c.MaxInput < 1 || c.MaxInput > maxBody/2):
		return wrong("--max-input-kib is 1 to %d", maxBody/2>>10)
	}
	return nil
}

func (c *config) checkKinds() error {
	if len(c.Kinds) == 0 {
		return wrong("--kinds names no kind of job")
	}
	for i, kind := range c.Kinds {
		if !slices.Contains([]string{kindImage, kindFrames, kindVideo}, kind) || slices.Contains(c.Kinds[:i], kind) {
			return wrong("--kinds are some of image,frames,video, each once, not %q", strings.Join(c.Kinds, ","))
		}
	}
	if c.PerFrame && !slices.Contains(c.Kinds, kindFrames) {
		return wrong("--per-frame is for --kinds frames")
	}
	if c.ContentType != "" && slices.Contains(c.Kinds, kindImage) && slices.Contains(c.Kinds, kindVideo) {
		return wrong("--content-type cannot be that of images and of videos: give the outputs their extensions instead")
	}
	if c.ContentType != "" && !contentTypePattern.MatchString(c.ContentType) {
		return wrong("--content-type is such as image/png, not %q", c.ContentType)
	}
	return nil
}

var (
	contentTypePattern = regexp.MustCompile(`^[a-z]+/[A-Za-z0-9][A-Za-z0-9.+-]{0,100}$`)
	fileName           = regexp.MustCompile(`^[A-Za-z0-9_%#][A-Za-z0-9._%#-]{0,127}$`)
)

func (c *config) checkOutputs() error {
	for _, f := range []struct{ flag, name string }{
		{"--image-output", c.ImageOutput}, {"--frames-output", c.FramesOutput}, {"--video-output", c.VideoOutput}, {"--input-name", c.InputName},
	} {
		if !fileName.MatchString(f.name) {
			return wrong("%s is the name of a file, without a directory, not %q", f.flag, f.name)
		}
	}
	if c.PerFrame && strings.ContainsAny(c.FramesOutput, "%#") {
		return wrong("--frames-output with --per-frame gets its number by itself: %q should have none", c.FramesOutput)
	}
	return nil
}

// readCommand reads the templates and finds the program, which no job can choose.
func (c *config) readCommand() error {
	if len(c.Command) == 0 {
		return wrong("there is no command: rrm wrap [flags] -- COMMAND ARGS...")
	}
	if t, err := parseTemplate(c.Command[0]); err != nil || len(t) != 1 || t[0].name != "" {
		return wrong("the program itself, %q, must not have placeholders", c.Command[0])
	}
	path, err := exec.LookPath(c.Command[0])
	if err == nil {
		path, err = filepath.Abs(path) // the working directory will be another
	}
	if err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	c.command.program = path
	if c.Name == "" {
		c.Name = filepath.Base(path)
	}
	for _, arg := range c.Command[1:] {
		t, err := parseTemplate(arg)
		if err != nil {
			return wrong("%v", err)
		}
		c.command.args = append(c.command.args, t)
	}
	for _, kv := range c.Environment {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || !specName.MatchString(name) || strings.HasPrefix(name, "RRM_") {
			return wrong("--env is NAME=VALUE, with no name of rrm's own, not %q", kv)
		}
		t, err := parseTemplate(value)
		if err != nil {
			return wrong("--env: %v", err)
		}
		c.command.env = append(c.command.env, variable{name, t})
	}
	return nil
}

// checkPlaces looks at what the settings name outside the program.
func (c *config) checkPlaces() error {
	if c.InputDir != "" {
		dir, err := filepath.Abs(c.InputDir)
		if info, serr := os.Stat(dir); err != nil || serr != nil || !info.IsDir() {
			return wrong("--input-dir: %s is not a directory", c.InputDir)
		}
		c.InputDir = dir
	}
	if c.Models && c.InputDir == "" {
		return wrong("--models are files: it needs --input-dir")
	}
	if c.Server == "" {
		return nil
	}
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return wrong("--server is such as http://127.0.0.1:8383, not %q", c.Server)
	}
	if c.Token != "" && c.TokenFile != "" {
		return wrong("there are --token and --token-file: one of them is enough")
	}
	c.server = u
	return nil
}

// checkUse compares the placeholders with the settings that fill them.
func (c *config) checkUse() error {
	uses := c.command.uses
	switch {
	case !uses(nameOutput):
		return wrong("the command does not say {output}, the file that it has to write")
	case uses(nameInput) && c.InputDir == "" && !c.FromSpec:
		return wrong("{input} needs --input-dir, --input-from-spec or both")
	case c.FromSpec && !uses(nameInput):
		return wrong("--input-from-spec is for a command with {input}")
	case uses(nameFramesDir) && c.server == nil:
		return wrong("{frames_dir} needs --server, from which the frames come")
	case uses(nameFrame) && slices.Contains(c.Kinds, kindFrames) && !c.PerFrame:
		return wrong("{frame} for --kinds frames needs --per-frame: one run that writes all of them has no single number")
	case c.PerFrame && !uses(nameFrame):
		return wrong("--per-frame without {frame} would make the same picture again and again")
	}
	return nil
}

func (c *config) readPatterns() error {
	c.progress = map[string]*progress{}
	for _, kind := range c.Kinds {
		flag, text := "--progress", c.Progress
		if kind == kindFrames && !c.PerFrame && c.FramesProgress != "" {
			flag, text = "--frames-progress", c.FramesProgress
		}
		p, err := newProgress(text)
		if err != nil {
			return wrong("%s: %v", flag, err)
		}
		c.progress[kind] = p
	}
	var err error
	c.exits, err = readExits(c.Exit)
	return err
}

// readRules learns which fields a spec may have, and what they may be.
func (c *config) readRules() error {
	c.rules = rules{fields: c.command.specFields(), allow: map[string]*regexp.Regexp{}, defaults: map[string]string{}}
	for _, kv := range c.Allow {
		name, pattern, ok := strings.Cut(kv, "=")
		if !ok || name != nameModel && !slices.Contains(c.rules.fields, name) {
			return wrong("--allow is NAME=PATTERN of model or of a {spec.NAME} in the command, not %q", kv)
		}
		re, err := regexp.Compile(`^(?:` + pattern + `)$`)
		if err != nil {
			return wrong("--allow %s: %v", name, err)
		}
		c.rules.allow[name] = re
	}
	for _, kv := range c.Defaults {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || !slices.Contains(c.rules.fields, name) && !isNumberField(name) {
			return wrong("--default is NAME=VALUE of a field that the command uses, not %q", kv)
		}
		raw := []byte(value)
		if kind := jsonKind(raw); kind != kindOfNumber && kind != kindOfBool {
			raw = []byte(strconv.Quote(value))
		}
		text, err := c.rules.value(name, raw)
		if err != nil {
			return wrong("--default %s: %v", kv, err)
		}
		c.rules.defaults[name] = text
	}
	return nil
}
