// Package bench measures how many bookings and releases a service commits,
// beside what Postgres itself does on the same server in the same run: the
// machines that this runs on are noisy, so only the ratio means something.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/commands"
	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// Options of a run.
type Options struct {
	Clients  []int         // at once, one measurement each
	Duration time.Duration // of one measurement
	Rounds   int           // of all measurements; the median counts
	Dir      string        // for the temporary server's data
}

// Row is one measurement: commands (a booking or a release each) or inserts.
type Row struct {
	What      string  `json:"what"` // rrm or pgbench
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Errors    int     `json:"errors"`
	Ratio     float64 `json:"ratio,omitempty"` // of rrm to pgbench with as many clients
}

// MaxClients is how many clients may be measured at once: fewer than the resources and the connections of pgbench.
const MaxClients = 280

// resources is how many resources stand ready: more than clients, so that no booking is refused.
const resources = 300

// Run measures on a durable Postgres of its own (fsync on) and gives each row as it is known.
func Run(ctx context.Context, o Options, each func(Row)) ([]Row, error) {
	server, err := postgres.Embedded{DataDir: o.Dir, MaxConnections: 400}.Start(ctx)
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	defer func() { _ = server.Stop(context.WithoutCancel(ctx)) }()
	s, err := service.Start(ctx, service.Config{
		Listen: "127.0.0.1:0", DataDir: o.Dir, DatabaseURL: server.DSN(), NoManagers: true, Keep: time.Hour, MaxResultBytes: 1,
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	if err := prepare(ctx, s); err != nil {
		return nil, err
	}
	var rows []Row
	for range max(1, o.Rounds) {
		for _, n := range o.Clients {
			base, err := pgbench(ctx, server, o.Dir, n, o.Duration)
			if err != nil {
				return rows, err
			}
			each(base)
			ours, err := books(ctx, s, n, o.Duration)
			if err != nil {
				return rows, err
			}
			ours.Ratio = ours.PerSecond / base.PerSecond
			each(ours)
			rows = append(rows, base, ours)
		}
	}
	return rows, nil
}

// prepare brings up a pool of ready resources without processes behind them:
// the commands of the process managers are given by hand.
func prepare(ctx context.Context, s *service.Service) error {
	set := domain.Renderer{ID: "bench", CommandLine: "none", ModelLoading: domain.LoadNone, ModelsPerResource: 1,
		Scaling: domain.ScalingSettings{Min: resources, Max: resources}}
	call := commands.Call{Actor: "operator:bench"}
	if _, err := s.Handler.ConfigureRenderer(ctx, call, pool.ConfigureRenderer{Renderer: set}); err != nil {
		return err
	}
	live, err := s.Work.LiveResources(ctx)
	if err != nil {
		return err
	}
	if len(live) != resources {
		return fmt.Errorf("prepare: %d resources were requested, not %d", len(live), resources)
	}
	for _, r := range live {
		l := domain.Launched{Resource: r.ID, Address: "127.0.0.1:9"}
		if err := errors.Join(s.Handler.Report(ctx, "process:bench", pool.ReportStarting{Launched: l}),
			s.Handler.Report(ctx, "process:bench", pool.ReportReady{Resource: r.ID, Address: l.Address})); err != nil {
			return err
		}
	}
	return nil
}

// books lets n clients book and release for a time, each as fast as it is answered.
func books(ctx context.Context, s *service.Service, n int, d time.Duration) (Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	took := make([][]time.Duration, n)
	failed := make([]int, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			call := commands.Call{Actor: domain.Actor(fmt.Sprintf("client:%d", i))}
			model := domain.ModelKey(fmt.Sprintf("model:%d", i%8))
			for time.Since(began) < d {
				t := time.Now()
				b, err := s.Handler.BookResource(ctx, call, pool.BookResource{Renderer: "bench", Model: model, Owner: "bench"})
				took[i] = append(took[i], time.Since(t))
				if err != nil {
					failed[i]++
					continue
				}
				t = time.Now()
				if _, err := s.Handler.ReleaseSession(ctx, call, pool.ReleaseSession{Session: b.Session.ID}); err != nil {
					failed[i]++
				}
				took[i] = append(took[i], time.Since(t))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(began).Seconds()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	r := Row{What: "rrm", Clients: n, PerSecond: float64(len(all)) / elapsed, P50: rank(all, 0.5), P99: rank(all, 0.99)}
	for _, f := range failed {
		r.Errors += f
	}
	return r, nil
}

// rank gives a percentile by nearest rank, in milliseconds.
func rank(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Microseconds()) / 1000
}

var tps = regexp.MustCompile(`tps = ([0-9.]+) \(without`)

// pgbench inserts one row a transaction with as many connections.
func pgbench(ctx context.Context, server *postgres.Server, dir string, n int, d time.Duration) (Row, error) {
	program, err := exec.LookPath(filepath.Join(server.Programs(), "pgbench"))
	if err != nil {
		return Row{}, fmt.Errorf("pgbench is part of Postgres and was not found beside its server: %w", err)
	}
	script := filepath.Join(dir, "insert.sql")
	if err := os.WriteFile(script, []byte("\\set v random(1, 1000000)\nINSERT INTO bench_insert (v) VALUES (:v);\n"), 0o644); err != nil { //nolint:gosec // Postgres' user reads it
		return Row{}, err
	}
	logs, err := os.MkdirTemp("", "rrm-bench")
	if err != nil {
		return Row{}, err
	}
	defer func() { _ = os.RemoveAll(logs) }()
	if err := exec.CommandContext(ctx, filepath.Join(server.Programs(), "psql"), "-q", server.DSN(), "-c",
		"CREATE TABLE IF NOT EXISTS bench_insert (id bigserial PRIMARY KEY, v bigint)").Run(); err != nil {
		return Row{}, fmt.Errorf("make the table for pgbench: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, "-n", "-M", "prepared", "-c", strconv.Itoa(n), "-j", "2",
		"-T", strconv.Itoa(max(1, int(d.Seconds()))), "-l", "--log-prefix", filepath.Join(logs, "l"), "-f", script, server.DSN())
	out, err := cmd.CombinedOutput()
	m := tps.FindSubmatch(out)
	if err != nil {
		return Row{}, fmt.Errorf("run pgbench: %w\n%s", err, out)
	}
	if m == nil {
		return Row{}, fmt.Errorf("pgbench did nothing within %s; give it more time with --duration\n%s", d, out)
	}
	r := Row{What: "pgbench", Clients: n}
	r.PerSecond, _ = strconv.ParseFloat(string(m[1]), 64)
	all, err := latencies(logs)
	r.P50, r.P99 = rank(all, 0.5), rank(all, 0.99)
	return r, err
}
