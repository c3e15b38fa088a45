// Package service puts the parts of rrm together: the one place that sees all
// of them. A test runs the service as the program does.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/rendering-resource-manager/rrm/adapters/callback"
	"github.com/rendering-resource-manager/rrm/adapters/launch/static"
	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/commands/process"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/eventstore"
	"github.com/rendering-resource-manager/rrm/migrations"
	"github.com/rendering-resource-manager/rrm/projections"
)

// Config is all that a service is told.
type Config struct {
	Listen         string        // host:port; port 0 takes a free one
	DataDir        string        // of the embedded Postgres, of renderers' output
	DatabaseURL    string        // empty: the embedded Postgres
	Demo           bool          // configure the renderer "demo"
	DemoArgs       string        // more arguments for the demonstration renderer
	CORSOrigins    []string      // browsers' origins that may use the service
	Hosts          []string      // names, beside loopback ones, that an open service answers to
	CallbackHosts  []string      // hosts that callback_url and the policy webhook may name; empty: none
	RegisterAllow  []string      // networks and hosts whose addresses may register; empty: loopback ones of an open service
	HeartbeatEvery time.Duration // of resources that registered themselves; 0: 5 s
	WarnBefore     time.Duration // before a scheduler ends a resource it gets no more work, and its sessions are warned; 0: 2 min
	MoveBefore     time.Duration // before that its sessions are moved or lost; 0: 20 s
	MaxResultBytes int64         // of one job
	Keep           time.Duration // answers for repeated commands, and results
	NoManagers     bool          // serve only; another replica acts outside
	SlurmSites     string        // file with the clusters of the slurm launcher; empty: there is none
	UnicoreSite    string        // file with the site of the unicore launcher; empty: there is none
	V1             V1            // the predecessor's API
	Log            *slog.Logger
}

// Service is a running rrm.
type Service struct {
	Handler *commands.Handler
	Lane    *commands.Lane
	Reader  *projections.Reader
	Tokens  *projections.Tokens
	Results *projections.Results
	Leases  *projections.Leases
	Work    *projections.Work
	Beats   *projections.Heartbeats
	Log     *eventstore.Log
	Bus     *eventstore.Bus
	DB      *sqlx.DB
	URL     string
	Open    bool // everyone may do everything: on a loopback address, and no token was made

	cfg       Config
	postgres  *postgres.Server
	launchers map[string]process.Launcher
	callbacks *callback.Poster
	// credentials are what clients sent for the UNICORE site; nil without one.
	credentials *credentials
	cancel      context.CancelFunc
	wg          sync.WaitGroup
	closers     []func()
}

// Start brings a service up. What it returns is ready; Close ends it.
func Start(ctx context.Context, cfg Config) (_ *Service, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.HeartbeatEvery <= 0 {
		cfg.HeartbeatEvery = static.DefaultEvery
	}
	if cfg.DataDir, err = filepath.Abs(cfg.DataDir); err != nil {
		return nil, fmt.Errorf("find data directory: %w", err)
	}
	s := &Service{cfg: cfg}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.openStore(ctx); err != nil {
		return nil, err
	}
	if err := s.startCore(ctx, run); err != nil {
		return nil, err
	}
	if err := s.openLaunchers(ctx); err != nil {
		return nil, err
	}
	if !cfg.NoManagers {
		s.startManagers(run)
	}
	if cfg.Demo {
		if err := s.configureDemo(ctx); err != nil {
			return nil, err
		}
	}
	if err := s.startHTTP(ctx, run); err != nil {
		return nil, err
	}
	return s, nil
}

// openStore connects to Postgres, its own if none was named, and brings the schema up to date.
func (s *Service) openStore(ctx context.Context) (err error) {
	if s.cfg.DatabaseURL == "" {
		if s.postgres, err = (postgres.Embedded{DataDir: s.cfg.DataDir, Log: s.cfg.Log}).Start(ctx); err != nil {
			return fmt.Errorf("start embedded Postgres: %w", err)
		}
		s.cfg.DatabaseURL = s.postgres.DSN()
	}
	if s.DB, err = postgres.Open(ctx, s.cfg.DatabaseURL, postgres.Options{MaxOpen: 32}); err != nil {
		return err
	}
	if _, err := migrations.Up(ctx, s.DB.DB); err != nil {
		return err
	}
	s.Log, err = eventstore.Open(ctx, s.DB)
	return err
}

// startCore starts the lane, the wake-ups and the followers.
func (s *Service) startCore(ctx, run context.Context) error {
	if err := s.Log.EnsurePartition(ctx); err != nil {
		return err
	}
	s.Bus = eventstore.NewBus(s.DB, s.cfg.DatabaseURL, s.cfg.Log)
	s.Reader, s.Tokens = projections.NewReader(s.DB, s.Log), projections.NewTokens(s.DB)
	s.Results, s.Leases = projections.NewResults(s.DB), projections.NewLeases(s.DB)
	s.Work, s.Beats = projections.NewWork(s.DB), projections.NewHeartbeats(s.DB)
	s.Lane = commands.NewLane(s.Log, commands.NewState(projections.Live{}), commands.Options{Logger: s.cfg.Log, OnCommit: s.Bus.Poke})
	s.Handler = commands.NewHandler(s.Lane, s.Log, projections.Live{}, s.Leases)
	s.callbacks = callback.New(s.cfg.CallbackHosts)
	s.closers = append(s.closers, s.callbacks.Close)
	s.Handler.CheckCallback = s.callbacks.Check
	s.goes("lane", run, s.Lane.Run)
	s.goes("wake-ups", run, s.Bus.Run)
	s.goes("followers", run, func(ctx context.Context) error {
		return eventstore.Follow(ctx, s.DB, s.Bus, s.cfg.Log, projections.Timeline(), projections.CallbackFollower())
	})
	return nil
}

// goes runs f until the service ends.
func (s *Service) goes(name string, run context.Context, f func(context.Context) error) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		if err := f(run); err != nil && run.Err() == nil {
			s.cfg.Log.Error("a part of the service ended", "part", name, "error", err)
		}
	}()
}

// Rhythm of the process managers: how often each looks without being woken, and how often at most.
const (
	launchEvery   = 250 * time.Millisecond
	loadEvery     = 500 * time.Millisecond
	leaseEvery    = 500 * time.Millisecond
	tickEvery     = 250 * time.Millisecond
	keepEvery     = time.Minute
	callbackEvery = time.Second
	adviceEvery   = time.Second // whether anybody is to be asked; each has its own interval
	managersWait  = 10 * time.Millisecond
)

// startManagers starts what acts outside. One replica at a time does, so as not to work in vain.
func (s *Service) startManagers(run context.Context) {
	outside := process.Outside{Launchers: s.launchers, Renderer: speak, Failure: failure}
	s.goes("process managers", run, func(run context.Context) error {
		postgres.Hold(run, s.DB, "process managers", s.cfg.Log, func(ctx context.Context) { s.manage(ctx, outside) })
		return nil
	})
}

// manage runs the process managers until ctx ends.
func (s *Service) manage(ctx context.Context, outside process.Outside) {
	log := s.cfg.Log
	launch := process.NewLaunch(s.Handler, s.Work, outside, s.Work, log)
	launch.WarnBefore, launch.MoveBefore = cmp.Or(s.cfg.WarnBefore, launch.WarnBefore), cmp.Or(s.cfg.MoveBefore, launch.MoveBefore)
	load := process.NewLoad(s.Handler, s.Work, outside, s.Work, log)
	jobs := process.NewJobs(s.Handler, s.Work, outside, s.Work, results{s.Results}, s.cfg.MaxResultBytes, log)
	expire := &process.Expire{Reporter: s.Handler, Leases: s.Leases, Log: log}
	clock := &process.Clock{Reporter: s.Handler}
	keep := &process.Keep{Store: keeper{s}, Log: log}
	advice := process.NewAdvice(s.Handler, s.Work, numbers{s.Reader}, s.callbacks, log)
	callbacks := process.NewCallbacks(notices{projections.NewCallbacks(s.DB)}, s.callbacks, log)
	var wg sync.WaitGroup
	loop := func(name string, every time.Duration, woken bool, f func(context.Context) error) {
		wake, stop := (<-chan struct{})(nil), func() {}
		if woken {
			wake, stop = s.Bus.Subscribe()
		}
		wg.Go(func() {
			defer stop()
			process.Loop(ctx, name, log, every, managersWait, wake, f)
		})
	}
	loop("launch", launchEvery, true, launch.RunOnce)
	loop("load", loadEvery, true, load.RunOnce)
	loop("jobs", loadEvery, true, jobs.RunOnce)
	loop("leases", leaseEvery, false, expire.RunOnce)
	loop("clock", tickEvery, false, clock.RunOnce)
	loop("keep", keepEvery, false, keep.RunOnce)
	loop("callbacks", callbackEvery, true, callbacks.RunOnce)
	loop("advice", adviceEvery, false, advice.RunOnce)
	wg.Wait()
	launch.Wait()
	load.Wait()
	jobs.Wait()
	callbacks.Wait()
	advice.Wait()
}

// keepHeartbeats is how long the token of a resource that is silent is known: until then it is told that it has ended.
const keepHeartbeats = 24 * time.Hour

// keeper throws away what is no longer needed and makes room ahead.
type keeper struct{ s *Service }

func (k keeper) Keep(ctx context.Context) error {
	_, err1 := k.s.Log.PruneAnswers(ctx, k.s.cfg.Keep, 10_000)
	_, err2 := k.s.Results.Prune(ctx, k.s.cfg.Keep)
	err3 := projections.NewCallbacks(k.s.DB).Prune(ctx, k.s.cfg.Keep)
	_, err4 := k.s.Leases.Forget(ctx, "job", k.s.cfg.Keep)
	_, err5 := k.s.Leases.Forget(ctx, "model", k.s.cfg.Keep)
	_, err6 := k.s.Leases.Forget(ctx, projections.ObservedHeartbeat, keepHeartbeats)
	return errors.Join(err1, err2, err3, err4, err5, err6, k.s.Log.PruneChanges(ctx), k.s.Log.EnsurePartition(ctx))
}

// binDirs are where bare program names are looked for first: beside rrm itself.
func binDirs() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{filepath.Dir(self)}
}

// configureDemo makes the renderer "demo" if there is none: an operator's changes to it stay.
func (s *Service) configureDemo(ctx context.Context) error {
	set := domain.Renderer{
		ID: "demo", Name: "Demonstration", Description: "The reference renderer: neuron:<seed>, circuit:<n>",
		CommandLine: "rrm-renderer", ProcessFormat: "--listen ${rest_hostname}:${rest_port} --memory-mib 256 " + s.cfg.DemoArgs,
		GracefulExit: true, WaitUntilReady: true, Launcher: domain.LauncherLocal, ModelLoading: domain.LoadHTTP,
		Slots: 1, ModelsPerResource: 2, MemoryMiB: 256,
		Scaling: domain.ScalingSettings{Min: 0, Max: 4, Idle: domain.Duration(10 * time.Second)},
		Probe:   domain.ProbeSettings{StartTimeout: domain.Duration(15 * time.Second), Interval: domain.Duration(time.Second)},
	}
	call := commands.Call{Actor: "operator:demo"}
	for {
		pools, err := s.Reader.Pools(ctx)
		if err != nil {
			return err
		}
		for i := range pools {
			if pools[i].Settings.ID == set.ID {
				return nil
			}
		}
		if _, err = s.Handler.ConfigureRenderer(ctx, call, domainConfigure(set)); err == nil {
			return nil
		}
		if r, ok := domain.AsRefusal(err); !ok || r.Code != "renderer_exists" {
			return fmt.Errorf("configure the demonstration renderer: %w", err)
		}
	}
}

// PostgresPID is the process ID of the embedded Postgres; 0 if there is none.
func (s *Service) PostgresPID() int {
	if s.postgres == nil {
		return 0
	}
	return s.postgres.PID()
}

// Close ends the service: first what comes in, then what acts outside, then
// the lane, then the store. Rendering resources go on; the next start adopts them.
func (s *Service) Close() error {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	if s.cancel != nil {
		s.cancel()
	}
	s.wg.Wait()
	var errs []error
	if s.Log != nil {
		errs = append(errs, s.Log.Close())
	}
	if s.DB != nil {
		errs = append(errs, s.DB.Close())
	}
	if s.postgres != nil {
		stop, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		errs = append(errs, s.postgres.Stop(stop))
	}
	return errors.Join(errs...)
}
