package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi"
	"github.com/rendering-resource-manager/rrm/adapters/launch/static"
	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/adapters/rrmv1"
	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func (p *program) serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the service", Args: needs(0, 0),
		Long: `Runs the service until it is told to end (SIGTERM, Ctrl-C); renderers go on and are adopted by the next start.
Settings come from flags, RRM_ variables (RRM_DATA_DIR) and a file (data_dir: ...), in that order.

Without --database-url it runs its own Postgres in the data directory. On a loopback address it is open to everybody on
this machine until a token is made; on any other address it needs tokens: rrm token create.`,
		Example: `  rrm serve --demo
  RRM_DATABASE_URL=postgres://rrm@db/rrm rrm serve --listen :8383 --log-format json`,
		RunE: p.run(p.serve),
	}
	return serveFlags(cmd)
}

func (p *program) serve(cmd *cobra.Command, _ []string) error {
	set, err := load[serveSettings](cmd)
	if err != nil {
		return err
	}
	if err := set.checkServe(); err != nil {
		return err
	}
	log := p.logger(set.storeSettings)
	if set.DatabaseURL != "" {
		log.Info("using a Postgres server", "server", postgres.Redact(set.DatabaseURL))
	}
	ctx := cmd.Context()
	svc, err := service.Start(ctx, service.Config{
		Listen: set.Listen, DataDir: set.DataDir, DatabaseURL: set.DatabaseURL, Demo: set.Demo, DemoArgs: set.DemoArgs,
		CORSOrigins: set.CORSOrigins, Hosts: set.Hosts, CallbackHosts: set.CallbackHosts, MaxResultBytes: set.MaxResultMiB << 20,
		RegisterAllow: set.RegisterAllow, HeartbeatEvery: set.Heartbeat,
		SlurmSites: set.SlurmSites, UnicoreSite: set.UnicoreSite,
		V1:   service.V1{Anonymous: set.V1Anonymous, Dialect: set.V1Dialect, Launcher: set.V1Launcher, Lease: set.V1Lease, Public: set.V1Public},
		Keep: set.Keep, NoManagers: !set.Managers, Log: log,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to end before it was ready; nothing was left behind
		}
		return startError(err)
	}
	p.line("rrm is ready at %s (API %s, documentation /docs)", svc.URL, httpapi.BasePath)
	if svc.Open {
		p.line("It is open: no token was made yet, so everybody on this machine may do everything. `rrm token create` changes that.")
	}
	<-ctx.Done()
	log.Info("stopping")
	begin := time.Now()
	if err := svc.Close(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	log.Info("stopped", "seconds", time.Since(begin).Seconds())
	return nil
}

// startError adds what to do about common reasons not to start.
func startError(err error) error {
	switch {
	case errors.Is(err, postgres.ErrInUse):
		return &hinted{err, "Another rrm runs on this data directory; replicas share a server with --database-url."}
	case strings.Contains(err.Error(), "address already in use"):
		return &hinted{err, "Is an rrm running there already? --listen takes another port."}
	}
	return err
}

func (s *serveSettings) checkServe() error {
	if err := s.check(); err != nil {
		return err
	}
	if _, port, err := net.SplitHostPort(s.Listen); err != nil || port == "" {
		return usage("listen is HOST:PORT such as 127.0.0.1:8383, not %q", s.Listen)
	}
	for _, origin := range s.CORSOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
			return usage("cors_origins are such as https://viz.example.org, not %q", origin)
		}
	}
	if s.MaxResultMiB < 1 || s.MaxResultMiB > 1<<20 {
		return usage("max_result_mib is 1 to 1048576, not %d", s.MaxResultMiB)
	}
	if s.Heartbeat < time.Second || s.Heartbeat > time.Minute {
		return usage("heartbeat is 1s to 1m, not %s", s.Heartbeat)
	}
	if _, err := static.NewAddresses(s.RegisterAllow); err != nil {
		return usage("register_allow: %v", err)
	}
	if s.Keep < time.Minute {
		return usage("keep is at least 1m, not %s", s.Keep)
	}
	return s.checkV1()
}

func (s *serveSettings) checkV1() error {
	launchers := []string{domain.LauncherLocal, domain.LauncherSlurm, domain.LauncherUnicore, domain.LauncherStatic}
	switch {
	case !slices.Contains([]string{rrmv1.DialectAuto, rrmv1.DialectCookie, rrmv1.DialectSession}, s.V1Dialect):
		return usage("v1_dialect is auto, cookie or session_id, not %q", s.V1Dialect)
	case !slices.Contains(launchers, s.V1Launcher):
		return usage("v1_launcher is one of %q, not %q", launchers, s.V1Launcher)
	case s.V1Lease < pool.MinLease || s.V1Lease > pool.MaxLease:
		return usage("v1_lease is from %s to %s, not %s", pool.MinLease, pool.MaxLease, s.V1Lease)
	case strings.Contains(s.V1Public, "//") || strings.HasPrefix(s.V1Public, "/") || strings.HasSuffix(s.V1Public, "/"):
		return usage("v1_public is HOST[:PORT][/PREFIX] such as viz.example.org/viz, not %q", s.V1Public)
	}
	return nil
}

func (p *program) logger(set storeSettings) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(set.LogLevel)) // was checked
	opts := &slog.HandlerOptions{Level: level}
	if set.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(p.stderr, opts))
	}
	return slog.New(slog.NewTextHandler(p.stderr, opts))
}

// quiet is a logger for commands that only use a server in passing: what goes wrong, no more.
func (p *program) quiet(set storeSettings) *slog.Logger {
	if set.LogLevel == "info" {
		set.LogLevel = "warn"
	}
	return p.logger(set)
}

// patience is how long a server may take to stop after a command has used it.
const patience = 20 * time.Second

func withPatience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), patience)
}
