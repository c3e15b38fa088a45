package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/wrap"
)

func (p *program) wrapCommand() *cobra.Command {
	set := wrap.Settings{Version: version()}
	cmd := &cobra.Command{
		Use:   "wrap [flags] -- COMMAND ARGS...",
		Short: "Make a one-shot program a rendering resource that takes jobs",
		Long: `Serves the renderer protocol and runs COMMAND for each job. It stands in the command line of a renderer's settings,
where rrm starts and stops it. No shell is involved; in an argument these are replaced by what the job says:
  {input}  {output}  {width}  {height}  {frame}  {frames}  {fps}  {model}  {id}  {dir}  {frames_dir}  {spec.NAME}
and {{ and }} are the braces themselves. docs/wrap.md explains them, the flags and the examples.`,
		Example: `  rrm wrap --listen 127.0.0.1:5000 --input-dir scenes -- povray -D +I{input} +O{output} +W{width} +H{height}
  rrm wrap --listen 127.0.0.1:5000 --kinds video --server http://127.0.0.1:8383 -- \
    ffmpeg -nostdin -framerate {fps} -i {frames_dir}/frame_%04d.png {output}`,
		RunE: p.run(func(cmd *cobra.Command, args []string) error { return p.wrap(cmd, set, args) }),
	}
	wrapFlags(cmd, &set)
	return cmd
}

func wrapFlags(cmd *cobra.Command, set *wrap.Settings) {
	f := cmd.Flags()
	f.SetInterspersed(false) // what comes after the program is the program's
	f.StringVar(&set.Listen, "listen", "127.0.0.1:0", "`HOST:PORT` to serve on; port 0 takes a free one")
	f.StringVar(&set.Name, "name", "", "of the renderer (default: the program's)")
	f.StringSliceVar(&set.Kinds, "kinds", []string{"image"}, "kinds of jobs that are taken: image,frames,video")
	f.BoolVar(&set.PerFrame, "per-frame", false, "frames: run the program once for each {frame}, not once for all")
	f.StringVar(&set.ImageOutput, "image-output", "result.png", "name of the file that {output} is for an image")
	f.StringVar(&set.FramesOutput, "frames-output", "frame_.png", "the same for frames; for one run such as frame_%04d.png, as the program numbers files")
	f.StringVar(&set.VideoOutput, "video-output", "result.mp4", "the same for a video")
	f.StringVar(&set.ContentType, "content-type", "", "of the result (default: by the output's extension; frames are a zip)")
	f.StringVar(&set.Progress, "progress", "", "`REGEX` on the program's output with one group, a percentage, or two, done of total")
	f.StringVar(&set.FramesProgress, "frames-progress", "", "the same for one run that makes all frames")
	f.StringSliceVar(&set.Exit, "exit", nil, "what exit statuses mean: 2=permanent,75=transient,signal=transient (default: transient, but 126 and 127)")
	f.IntVar(&set.Slots, "slots", 1, "programs that run at once")
	f.DurationVar(&set.Timeout, "timeout", time.Hour, "longest time of one job")
	f.Int64("max-output-mib", 256, "most that one job may write, in MiB")
	f.StringVar(&set.InputDir, "input-dir", "", "`DIR`ectory below which {input} is the file that the model key names")
	f.BoolVar(&set.FromSpec, "input-from-spec", false, "{input} is a file with the text of spec.input, where a job has it")
	f.StringVar(&set.InputName, "input-name", "input.txt", "name of that file")
	f.Int64("max-input-kib", 64, "longest spec.input, in KiB")
	f.BoolVar(&set.Models, "models", false, "offer the files of --input-dir as models, for model_loading: http")
	f.StringArrayVar(&set.Defaults, "default", nil, "`NAME=VALUE` of a field that a spec leaves out; may be repeated")
	f.StringArrayVar(&set.Allow, "allow", nil, "`NAME=REGEX` that the whole value of a field must match, instead of being a number or a name; may be repeated")
	f.StringArrayVar(&set.Environment, "env", nil, "`NAME=VALUE` for the program, with placeholders; may be repeated")
	f.StringVar(&set.WorkDir, "work-dir", "", "`DIR`ectory for work directories (default: the system's temporary one)")
	f.String("server", "", "`URL` of the rrm from which frames of other jobs come, for {frames_dir} (RRM_SERVER)")
	f.String("token", "", "token for it (better: RRM_TOKEN or --token-file)")
	f.String("token-file", "", "`FILE` with the token (RRM_TOKEN_FILE)")
}

func (p *program) wrap(cmd *cobra.Command, set wrap.Settings, args []string) error {
	v, err := bind(cmd.Flags())
	if err != nil {
		return err
	}
	set.Command = args
	set.MaxOutput, set.MaxInput = v.GetInt64("max_output_mib")<<20, v.GetInt64("max_input_kib")<<10
	set.Server, set.Token, set.TokenFile = v.GetString("server"), v.GetString("token"), v.GetString("token_file")
	set.Log = slog.New(slog.NewTextHandler(p.stderr, nil))
	err = wrap.Run(cmd.Context(), set, p.stdout)
	var wrong *wrap.SettingError
	if errors.As(err, &wrong) {
		return usage("%s", wrong.Reason)
	}
	return err
}
