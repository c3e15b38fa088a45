package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/bench"
)

// benchCommand measures on this machine, on a database of its own.
func (p *program) benchCommand() *cobra.Command {
	var o bench.Options
	var output string
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure bookings and releases a second, beside pgbench on the same server", Args: needs(0, 0),
		Long: `Starts a durable Postgres of its own in a temporary directory, and lets clients book and release as fast as they are
answered; before each measurement pgbench inserts one row a transaction with as many connections on the same server.
Compare the two, not this machine with another.`,
	}
	cmd.RunE = p.run(func(cmd *cobra.Command, _ []string) error {
		dir, err := os.MkdirTemp("", "rrm-bench")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		o.Dir = filepath.Join(dir, "data")
		progress := p.progress()
		rows, err := bench.Run(cmd.Context(), o, func(r bench.Row) {
			progress.say("bench", "%s with %s: %.0f a second", r.What, count(r.Clients, "client", "clients"), r.PerSecond)
		})
		progress.done()
		if err != nil {
			return err
		}
		rows = bench.Medians(rows)
		if output == "json" {
			raw, err := json.Marshal(rows)
			if err != nil {
				return err
			}
			return writeJSON(p.stdout, raw)
		}
		var table [][]string
		for _, r := range rows {
			what, ratio := "book or release", fmt.Sprintf("%.2f", r.Ratio)
			if r.What == "pgbench" {
				what, ratio = "pgbench, insert a row", "1"
			}
			table = append(table, []string{what, strconv.Itoa(r.Clients), fmt.Sprintf("%.0f", r.PerSecond), fmt.Sprintf("%.2f ms", r.P50), fmt.Sprintf("%.2f ms", r.P99), ratio, strconv.Itoa(r.Errors)})
		}
		p.table("Nothing was measured.", []string{"What", "Clients", "A second", "p50", "p99", "Ratio", "Errors"}, table)
		return nil
	})
	f := cmd.Flags()
	f.IntSliceVar(&o.Clients, "clients", []int{1, 64, 256}, "clients at once, one measurement each")
	f.DurationVar(&o.Duration, "duration", 3*time.Second, "of one measurement")
	f.IntVar(&o.Rounds, "rounds", 3, "of all measurements; medians are shown")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains([]string{"table", "json"}, output) {
			return usage("-o is table or json, not %q", output)
		}
		if o.Duration < time.Second || o.Rounds < 1 || len(o.Clients) == 0 || slices.Min(o.Clients) < 1 || slices.Max(o.Clients) > bench.MaxClients {
			return usage("--duration is at least 1s, --rounds at least 1, and --clients from 1 to %d", bench.MaxClients)
		}
		return nil
	}
	return cmd
}
