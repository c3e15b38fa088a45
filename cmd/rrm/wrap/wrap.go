// Package wrap makes a one-shot program, such as POV-Ray or ffmpeg, a
// rendering resource that takes jobs: it speaks the renderer protocol
// (docs/renderer-protocol.md) and runs the program for each job. It knows the
// program by a command with placeholders, starts it without a shell, and
// believes nothing that a job says before it was checked. See docs/wrap.md.
package wrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// exitTime is how long requests under way may take after the exit has begun;
// the protocol allows two seconds for everything.
const exitTime = time.Second

// Run serves until ctx ends or an exit is requested; then all programs that
// run are stopped and all that they left is removed. It says on stdout where
// it listens. A *SettingError is a setting that cannot be meant.
func Run(ctx context.Context, set Settings, stdout io.Writer) (err error) {
	cfg, err := prepare(set)
	if err != nil {
		return err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, exit := context.WithCancel(ctx)
	defer exit()
	jobs, err := newManager(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, jobs.close()) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &server{cfg: cfg, jobs: jobs, exit: exit, log: cfg.Log}
	h := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	fmt.Fprintf(stdout, "rrm wrap listens on http://%s for jobs of %s\n", listener.Addr(), cfg.Name)
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	jobs.stop()
	return errors.Join(err, shutdown(h))
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
