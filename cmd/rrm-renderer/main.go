// Command rrm-renderer is the reference renderer: a CPU renderer of triangle
// meshes and neurons that speaks docs/renderer-protocol.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/job"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/model"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/picture"
	"github.com/rendering-resource-manager/rrm/cmd/rrm-renderer/internal/server"
)

// exitTime is how long requests under way may take after the exit has begun;
// the protocol allows two seconds for everything.
const exitTime = time.Second

const (
	maxMemoryMiB = 1 << 20
	maxWorkers   = 1024
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

type settings struct {
	listen    string
	models    []string
	memoryMiB int
	modelDir  string
	workers   int
	ffmpeg    string
}

// Main runs the program until the context is done or an exit is requested and
// returns its exit code: 0, 1 after a failure, 2 for wrong arguments.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	set, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(stderr, nil)))
	if err := run(ctx, set, stdout); err != nil {
		slog.Error("rrm-renderer failed", "err", err)
		return 1
	}
	return 0
}

// parse reads the arguments; what is wrong with them it says on stderr.
func parse(args []string, stderr io.Writer) (settings, error) {
	var set settings
	f := flag.NewFlagSet("rrm-renderer", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintln(stderr, "Usage: rrm-renderer --listen HOST:PORT [--model KEY]... [--memory-mib N] [--model-dir DIR] [--workers N]")
		f.PrintDefaults()
	}
	f.StringVar(&set.listen, "listen", "", "`HOST:PORT` to serve on; port 0 takes a free one")
	f.Func("model", "`KEY` of a model to load before being ready; may be repeated", func(key string) error {
		set.models = append(set.models, key)
		return nil
	})
	f.IntVar(&set.memoryMiB, "memory-mib", 1024, "memory for models, in `MiB`")
	f.StringVar(&set.modelDir, "model-dir", "", "`DIR`ectory of model files; without it only generated models")
	f.IntVar(&set.workers, "workers", 0, "`N` goroutines a frame; 0: one per CPU")
	f.StringVar(&set.ffmpeg, "ffmpeg", "ffmpeg", "`PROGRAM` that makes videos")
	if err := f.Parse(args); err != nil {
		return set, err
	}
	if err := set.check(f.Args()); err != nil {
		fmt.Fprintln(stderr, "rrm-renderer:", err)
		f.Usage()
		return set, err
	}
	return set, nil
}

func (s *settings) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	if s.listen == "" {
		return errors.New("--listen is missing")
	}
	if _, _, err := net.SplitHostPort(s.listen); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if s.memoryMiB < 1 || s.memoryMiB > maxMemoryMiB {
		return fmt.Errorf("--memory-mib must be 1 to %d", maxMemoryMiB)
	}
	if s.workers < 0 || s.workers > maxWorkers {
		return fmt.Errorf("--workers must be 0 to %d", maxWorkers)
	}
	if s.modelDir != "" {
		if info, err := os.Stat(s.modelDir); err != nil || !info.IsDir() {
			return fmt.Errorf("--model-dir: %s is not a directory", s.modelDir)
		}
	}
	return nil
}

func run(ctx context.Context, set settings, stdout io.Writer) (err error) {
	ctx, exit := context.WithCancel(ctx)
	defer exit()
	library, err := model.OpenLibrary(set.modelDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, library.Close()) }()
	models := model.NewStore(library, int64(set.memoryMiB)<<20)
	// Not waited for: a load leaves nothing behind, and one of a gibibyte may
	// take longer to notice than an exit may take.
	defer models.Stop()
	painter := picture.NewPainter(set.workers)
	video := job.FindEncoder(ctx, set.ffmpeg)
	jobs, err := job.NewManager(painter, video)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, jobs.Close()) }()
	s := &server.Server{
		Models: models, Jobs: jobs, Painter: painter, Video: video, Version: version(), Exit: exit, Stopping: ctx.Done(),
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", set.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	h := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	fmt.Fprintf(stdout, "rrm-renderer listens on http://%s\n", listener.Addr())
	err = loadFirst(ctx, models, set.models)
	if err == nil {
		s.SetReady()
		select {
		case <-ctx.Done():
		case err = <-served:
		}
	}
	exit() // whatever ended it, streams end too
	models.Stop()
	jobs.Stop()
	return errors.Join(err, shutdown(h))
}

// loadFirst loads the models of the command line: a renderer that is meant to
// have them is not ready without, and of no use if one of them fails.
func loadFirst(ctx context.Context, models *model.Store, keys []string) error {
	for _, key := range keys {
		if _, err := models.Load(key); err != nil {
			return fmt.Errorf("load %s: %w", key, err)
		}
	}
	for _, key := range keys {
		st, err := models.Wait(ctx, key)
		switch {
		case ctx.Err() != nil:
			return nil // asked to exit meanwhile
		case err != nil:
			return fmt.Errorf("load %s: %w", key, err)
		case st.State == model.Failed:
			return fmt.Errorf("load %s: %s: %s", key, st.Code, st.Reason)
		}
	}
	return nil
}

func shutdown(h *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), exitTime)
	defer cancel()
	if err := h.Shutdown(ctx); err != nil {
		// Requests that still run are cut off.
		if err := h.Close(); err != nil {
			return fmt.Errorf("close: %w", err)
		}
	}
	return nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return info.Main.Version
	}
	return "devel"
}
