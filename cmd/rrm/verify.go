package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/projections"
)

func (p *program) verifyCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "verify", Short: "Fold the log and compare every live row with it", Args: needs(0, 0),
		Long: `Folds the whole log and compares what comes out with every row of the live views, beside a running service. It fails,
and says which rows differ, if any does; "rrm rebuild" puts them right.`,
	}
	cmd.RunE = p.run(func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(output); err != nil {
			return err
		}
		return p.withStore(func(ctx context.Context, s *store) error { return p.verify(ctx, s, output) })(cmd, args)
	})
	outputFlag(cmd, &output)
	return storeFlags(cmd)
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "table or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func checkOutput(output string) error {
	if output != "table" && output != "json" {
		return usage("--output is table or json, not %q", output)
	}
	return nil
}

func (p *program) verify(ctx context.Context, s *store, output string) error {
	g := p.progress()
	var differences []projections.Difference
	v, err := projections.Verify(ctx, s.db, folded(g), func(d projections.Difference) { differences = append(differences, d) })
	g.done()
	if err != nil {
		return err
	}
	if output == "json" {
		raw, err := json.Marshal(struct {
			projections.Verified
			Found []projections.Difference `json:"found,omitempty"`
		}{v, differences})
		if err != nil {
			return fmt.Errorf("print what was found: %w", err)
		}
		if err := writeJSON(p.stdout, raw); err != nil {
			return err
		}
	} else {
		for _, d := range differences {
			p.line("%s", clean(d.String(), false))
		}
	}
	if v.Differences > 0 {
		return &hinted{fmt.Errorf("%s not what the log says, %s", count(v.Differences, "live row is", "live rows are"), count(int(v.Events), "event", "events")), "`rrm rebuild` makes the live views from the log."}
	}
	if output == "table" {
		rows := 0
		for _, n := range v.Rows {
			rows += n
		}
		p.line("The live views are what the log says: %s, %s.", count(rows, "row", "rows"), count(int(v.Events), "event", "events"))
	}
	return nil
}

// folded shows how much of the log was folded.
func folded(g *progress) func(done, total int64) {
	return func(done, total int64) {
		if g.live || done == total {
			g.say(fmt.Sprint("folded ", done), "folded %d of %d events", done, total)
		}
	}
}

func (p *program) rebuildCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rebuild", Short: "Make the live views anew from the log", Args: needs(0, 0),
		Long: `Folds the log into fresh tables and puts in place what differs. A service may go on meanwhile; it waits for the last
step only, and reads its live state anew.`,
		RunE: p.withStore(func(ctx context.Context, s *store) error {
			g := p.progress()
			r, err := projections.Rebuild(ctx, s.db, folded(g))
			g.done()
			if err != nil {
				return err
			}
			changed := 0
			for _, view := range slices.Sorted(maps.Keys(r.Changed)) {
				if n := r.Changed[view]; n > 0 {
					p.line("%s: %s put right", view, count(n, "row", "rows"))
					changed += n
				}
			}
			p.line("The live views are what the log says up to position %d; %s changed.", r.Position, count(changed, "row was", "rows were"))
			return nil
		}),
	}
	return storeFlags(cmd)
}
