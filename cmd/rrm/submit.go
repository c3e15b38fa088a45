package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// submission is what the flags of `rrm submit` say.
type submission struct {
	kind, spec, owner, deadline, timeout, callback, key, result string
	priority, maxAttempts                                       int
	after                                                       []string
	follow                                                      bool

	width, height, frames, quality, samples, fps int
	orbit, yaw, pitch, distance, fov             float64
	format, codec                                string
}

func (p *program) submitCommand() *cobra.Command {
	var s submission
	cmd := &cobra.Command{
		Use:   "submit RENDERER MODEL",
		Short: "Submit a job: an image, frames or a video",
		Long: `Puts a job into the queue. What to render is said in the renderer's own words with --spec; the flags below it are
shortcuts for the words of the reference renderer and go before --spec.`,
		Example: `  rrm submit demo neuron:1 --width 1280 --height 720 --follow --result neuron.png
  rrm submit demo neuron:1 --frames 48 --orbit 360 --follow --result frames.zip
  rrm submit demo circuit:100 --kind video --spec @spec.json --priority 10 --deadline 2h`,
		Args:              needs(2, 2),
		ValidArgsFunction: p.completeRenderers(1),
		RunE:              p.client(func(c *call, args []string) error { return c.submit(s, args[0], args[1]) }),
	}
	f := cmd.Flags()
	f.StringVar(&s.kind, "kind", "", "image, frames or video (default image; frames if --frames is given)")
	f.StringVar(&s.spec, "spec", "", "what to render: JSON, @FILE or @- for standard input")
	f.IntVar(&s.width, "width", 0, "spec: pixels")
	f.IntVar(&s.height, "height", 0, "spec: pixels")
	f.IntVar(&s.frames, "frames", 0, "spec: how many frames")
	f.Float64Var(&s.orbit, "orbit", 0, "spec: degrees that the camera turns over all frames")
	f.StringVar(&s.format, "format", "", "spec: png or jpeg")
	f.IntVar(&s.quality, "quality", 0, "spec: of JPEG, 1 to 100")
	f.IntVar(&s.samples, "samples", 0, "spec: supersampling per axis, 1 to 4")
	f.IntVar(&s.fps, "fps", 0, "spec: frames a second of a video")
	f.StringVar(&s.codec, "codec", "", "spec: mp4 or webm")
	f.Float64Var(&s.yaw, "yaw", 0, "spec: camera, degrees")
	f.Float64Var(&s.pitch, "pitch", 0, "spec: camera, degrees")
	f.Float64Var(&s.distance, "distance", 0, "spec: camera, radii of the model's bounding sphere")
	f.Float64Var(&s.fov, "fov", 0, "spec: camera, degrees")
	f.StringVar(&s.owner, "owner", "", "whom the job belongs to, for operators (default: the token's owner)")
	f.IntVar(&s.priority, "priority", 0, "higher goes first, -1000 to 1000")
	f.StringVar(&s.deadline, "deadline", "", "when the result is wanted: a time such as 2026-01-05T12:00:00Z, or from now such as 2h")
	f.StringSliceVar(&s.after, "after", nil, "jobs that must have succeeded before; may be repeated")
	f.IntVar(&s.maxAttempts, "max-attempts", 0, "attempts in all, 1 to 20 (default: the renderer's setting)")
	f.StringVar(&s.timeout, "timeout", "", "longest time of one attempt, such as 10m (default: the renderer's setting)")
	f.StringVar(&s.callback, "callback-url", "", "kept with the job for whoever notifies")
	f.StringVar(&s.key, "idempotency-key", "", "same key and job: the first answer again (default: a new one)")
	f.BoolVar(&s.follow, "follow", false, "show progress until it has ended")
	f.StringVar(&s.result, "result", "", "follow, and write the result to this `FILE`")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"image", "frames", "video"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"png", "jpeg"}, cobra.ShellCompDirectiveNoFileComp))
	return clientFlags(cmd)
}

func (c *call) submit(s submission, renderer, model string) error {
	request, err := c.jobRequest(s, renderer, model)
	if err != nil {
		return err
	}
	key := s.key
	if key == "" {
		key = newKey()
	}
	j, raw, err := answer[client.Job](c.api.SubmitJob(c.ctx, &client.SubmitJobParams{IdempotencyKey: key}, request))
	if err != nil {
		return err
	}
	if s.follow || s.result != "" {
		return c.toTheEnd(j, s.result)
	}
	return c.show(raw, func() { c.jobDetails(j) })
}

func (c *call) jobRequest(s submission, renderer, model string) (client.JobRequest, error) {
	r := client.JobRequest{
		Renderer: renderer, Model: model, Kind: client.JobKind(s.kind), Owner: s.owner, Priority: s.priority,
		MaxAttempts: s.maxAttempts, Timeout: s.timeout, CallbackURL: s.callback,
	}
	if s.kind == "" {
		r.Kind = client.JobKindImage
		if c.cmd.Flags().Changed("frames") {
			r.Kind = client.JobKindFrames
		}
	}
	err := checkSpan("--timeout", s.timeout)
	if err != nil {
		return r, err
	}
	if r.Deadline, err = c.deadline(s.deadline); err != nil {
		return r, err
	}
	for _, id := range s.after {
		full, err := c.job(c.ctx, strings.TrimSpace(id))
		if err != nil {
			return r, err
		}
		r.After = append(r.After, full)
	}
	r.Spec, err = c.jobSpec(s)
	return r, err
}

// deadline is a time, or a duration from now.
func (c *call) deadline(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(strings.TrimPrefix(text, "+")); err == nil && d > 0 {
		return c.now().Add(d).UTC().Truncate(time.Millisecond), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, usage("--deadline is a time such as 2026-01-05T12:00:00Z, or a duration from now such as 2h, not %q", text)
	}
	return t, nil
}

// jobSpec joins --spec and its shortcuts, which go before it.
func (c *call) jobSpec(s submission) (json.RawMessage, error) {
	spec, err := c.readSpec(s.spec)
	if err != nil {
		return nil, err
	}
	camera, _ := spec["camera"].(map[string]any)
	if camera == nil {
		camera = map[string]any{}
	}
	flags := c.cmd.Flags()
	for name, value := range map[string]any{
		"width": s.width, "height": s.height, "frames": s.frames, "orbit": s.orbit, "format": s.format,
		"quality": s.quality, "samples": s.samples, "fps": s.fps, "codec": s.codec,
	} {
		if flags.Changed(name) {
			spec[name] = value
		}
	}
	for name, value := range map[string]any{"yaw": s.yaw, "pitch": s.pitch, "distance": s.distance, "fov": s.fov} {
		if flags.Changed(name) {
			camera[name] = value
			spec["camera"] = camera
		}
	}
	if len(spec) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("write the spec: %w", err)
	}
	return raw, nil
}

const maxSpec = 1 << 20 // bytes of a file; the service takes less

func (c *call) readSpec(arg string) (map[string]any, error) {
	spec := map[string]any{}
	if arg == "" {
		return spec, nil
	}
	raw, what := []byte(arg), "--spec"
	if file, ok := strings.CutPrefix(arg, "@"); ok {
		var err error
		if raw, err = c.readFile(file); err != nil {
			return nil, err
		}
		what = file
	}
	if err := json.Unmarshal(raw, &spec); err != nil || spec == nil {
		return nil, usage(`%s is not a JSON object such as {"width": 640}`, what)
	}
	return spec, nil
}

// readFile reads a small file, or standard input for "-".
func (c *call) readFile(path string) ([]byte, error) {
	in := c.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, noSuchFile(path, err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxSpec+1))
	if err != nil {
		return nil, noSuchFile(path, err)
	}
	if len(raw) > maxSpec {
		return nil, usage("%s has more than 1 MiB", path)
	}
	return raw, nil
}
