package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func (p *program) resourcesCommand() *cobra.Command {
	var f filters
	var logs bool
	var stream string
	var tail int
	cmd := &cobra.Command{
		Use: "resources [RESOURCE]", Short: "List running renderers, show one, or read its output", Args: needs(0, 1),
		Example: `  rrm resources --renderer demo
  rrm resources demo-1-3f2a --logs --stream stderr`,
		ValidArgsFunction: p.completeResources(),
		RunE: p.client(func(c *call, args []string) error {
			switch {
			case len(args) == 0 && logs:
				return usage("--logs needs the resource whose output is meant")
			case len(args) == 0:
				return c.listResources(f)
			case logs:
				return c.logs(args[0], stream, tail)
			}
			r, raw, err := answer[client.Resource](c.api.GetResource(c.ctx, args[0]))
			if err != nil {
				return err
			}
			return c.show(raw, func() { c.resourceDetails(r) })
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.renderer, "renderer", "", "only of this renderer")
	fl.StringVar(&f.state, "state", "", "only in this state: requested, starting, ready, draining, stopping, stopped, failed, lost")
	fl.StringVar(&f.model, "model", "", "only those that hold this model")
	fl.BoolVar(&f.ended, "ended", false, "also those that have ended")
	f.limitFlag(cmd)
	fl.BoolVar(&logs, "logs", false, "print what the renderer wrote")
	fl.StringVar(&stream, "stream", "stdout", "with --logs: stdout or stderr")
	fl.IntVar(&tail, "tail", 100, "with --logs: at most this many lines, the last ones")
	_ = cmd.RegisterFlagCompletionFunc("renderer", p.completeRenderers(1))
	_ = cmd.RegisterFlagCompletionFunc("stream", cobra.FixedCompletions([]string{"stdout", "stderr"}, cobra.ShellCompDirectiveNoFileComp))
	return clientFlags(cmd)
}

func (c *call) listResources(f filters) error {
	all, raw, more, err := list[client.Resource](f.limit, func(n int, cursor string) (*http.Response, error) {
		return c.api.ListResources(c.ctx, &client.ListResourcesParams{
			Renderer: f.renderer, State: client.ResourceState(f.state), Model: f.model, Ended: f.ended, Limit: n, Cursor: cursor,
		})
	})
	if err != nil {
		return err
	}
	defer c.more(more)
	return c.show(raw, func() {
		var rows [][]string
		for _, r := range all {
			rows = append(rows, []string{
				r.ID, string(r.State), c.ago(r.StateSince), r.Node, fmt.Sprintf("%d/%d", r.SlotsFree, r.Slots), c.heldText(r.Models), c.usersText(r.Users), c.remark(resourceNote(&r)),
			})
		}
		c.table("No resources run.", []string{"resource", "state", "since", "node", "free", "models", "users", "note"}, rows)
	})
}

// resourceNote is what matters most about a resource in its state.
func resourceNote(r *client.Resource) string {
	if r.Note != "" {
		return r.Note
	}
	return r.Reason
}

func (c *call) heldText(models []client.LoadedModel) string {
	var out []string
	for _, m := range models {
		out = append(out, c.text(m.Model)+yes(m.State == client.LoadedModelStateLoading, " (loading)", ""))
	}
	return strings.Join(out, ", ")
}

func (c *call) usersText(users []client.ResourceUser) string {
	var out []string
	for _, u := range users {
		out = append(out, string(u.Kind)+" "+c.id(u.ID))
	}
	return strings.Join(out, ", ")
}

func (c *call) resourceDetails(r client.Resource) {
	memory := ""
	if r.MemoryMib > 0 {
		memory = fmt.Sprintf("%d MiB for models", r.MemoryMib)
	}
	ready := ""
	if !r.ReadyAt.IsZero() {
		ready = c.ago(r.ReadyAt) + ", " + seconds(r.ReadyAt.Sub(r.RequestedAt).Seconds()) + " after it was requested"
	}
	c.details([][2]string{
		{"Resource", r.ID},
		{"State", stateText(string(r.State), r.Reason) + " (" + c.ago(r.StateSince) + ")"},
		{"Note", r.Note},
		{"Renderer", r.Renderer},
		{"Launcher", r.Launcher},
		{"Node", r.Node},
		{"Address", r.Address},
		{"Keeps", r.Model},
		{"Slots", fmt.Sprintf("%d of %d free", r.SlotsFree, r.Slots)},
		{"Memory", memory},
		{"Requested", c.ago(r.RequestedAt)},
		{"Ready", ready},
		{"Idle", yes(r.IdleSince.IsZero(), "", "since "+c.ago(r.IdleSince))},
		{"Ended", c.ago(r.EndedAt)},
		{"Can", strings.Join(r.Capabilities, ", ")},
		{"Job kinds", strings.Join(r.JobKinds, ", ")},
		{"Last words", r.Output},
	})
	if len(r.Models) > 0 {
		c.line("")
		var rows [][]string
		for _, m := range r.Models {
			rows = append(rows, []string{c.text(m.Model), string(m.State), c.ago(m.Since), c.ago(m.LastUsed), optionalSeconds(m.LoadSeconds), itoa(m.Users)})
		}
		c.table("", []string{"model", "state", "since", "used", "load", "users"}, rows)
	}
	if len(r.Users) > 0 {
		c.line("")
		var rows [][]string
		for _, u := range r.Users {
			rows = append(rows, []string{string(u.Kind), u.ID, c.text(u.Model), c.ago(u.Since)})
		}
		c.table("", []string{"user", "id", "model", "since"}, rows)
	}
}

// logs prints a renderer's output; on a terminal nothing in it may steer that.
func (c *call) logs(id, stream string, tail int) error {
	if stream != "stdout" && stream != "stderr" {
		return usage("--stream is stdout or stderr, not %q", stream)
	}
	if tail < 1 || tail > 10000 {
		return usage("--tail is 1 to 10000, not %d", tail)
	}
	res, err := c.api.GetResourceLogs(c.ctx, id, &client.GetResourceLogsParams{Stream: client.GetResourceLogsParamsStream(stream), Tail: tail})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return &unreachable{server: c.api.root, cause: err}
	}
	if err := client.Failure(res, raw); err != nil {
		return err
	}
	text := string(raw)
	if terminal(c.stdout) {
		text = clean(text, true)
	}
	if text == "" {
		c.note("It wrote nothing to %s.", stream)
		return nil
	}
	_, err = io.WriteString(c.stdout, strings.TrimSuffix(text, "\n")+"\n")
	return err
}

func (p *program) drainCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "drain RESOURCE", Short: "Let a resource's work end, give it no more, then stop it", Args: needs(1, 1),
		ValidArgsFunction: p.completeResources(),
		RunE: p.client(func(c *call, args []string) error {
			r, raw, err := answer[client.Resource](c.api.DrainResource(c.ctx, args[0], &client.DrainResourceParams{IdempotencyKey: newKey()}, client.DrainRequest{Reason: reason}))
			if err != nil {
				return err
			}
			return c.show(raw, func() {
				c.line("Resource %s is %s; it has %s.", r.ID, stateText(string(r.State), r.Reason), count(len(r.Users), "user", "users"))
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "for the record")
	return clientFlags(cmd)
}

func (p *program) stopCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "stop RESOURCE...", Short: "Stop resources now; what uses them is moved or lost", Args: needs(1, many),
		ValidArgsFunction: p.completeResources(),
		RunE: p.client(func(c *call, args []string) error {
			for _, id := range args {
				r, raw, err := answer[client.Resource](c.api.StopResource(c.ctx, id))
				if err != nil {
					return err
				}
				if err := c.show(raw, func() { c.line("Resource %s is %s.", r.ID, stateText(string(r.State), r.Reason)) }); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	return clientFlags(cmd)
}

func (p *program) modelsCommand() *cobra.Command {
	var f filters
	cmd := &cobra.Command{
		Use: "models", Short: "List models: where they are warm, and what loading them takes", Args: needs(0, 0),
		RunE: p.client(func(c *call, _ []string) error {
			all, raw, more, err := list[client.Model](f.limit, func(n int, cursor string) (*http.Response, error) {
				return c.api.ListModels(c.ctx, &client.ListModelsParams{Renderer: f.renderer, Limit: n, Cursor: cursor})
			})
			if err != nil {
				return err
			}
			defer c.more(more)
			return c.show(raw, func() { c.modelsTable(all) })
		}),
	}
	cmd.Flags().StringVar(&f.renderer, "renderer", "", "only of this renderer")
	f.limitFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("renderer", p.completeRenderers(1))
	return clientFlags(cmd)
}

func (c *call) modelsTable(all []client.Model) {
	var rows [][]string
	for _, m := range all {
		warm := slices.Clone(m.Warm)
		for _, id := range m.Loading {
			warm = append(warm, id+" (loading)")
		}
		memory := ""
		if m.MemoryMib > 0 {
			memory = fmt.Sprintf("%d MiB", m.MemoryMib)
		}
		rows = append(rows, []string{
			m.Renderer, c.text(m.Model), strings.Join(warm, ", "), c.ago(m.LastUsed), learned(m.Loads, m.LoadSeconds), memory,
			learned(m.Jobs, m.JobSeconds), itoa(m.Uses), itoa(m.WarmUses),
		})
	}
	c.table("No model was used yet.", []string{"renderer", "model", "warm on", "used", "load", "memory", "job", "uses", "warm"}, rows)
}
