package main

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// completionTime is how long a shell may wait for the service's names.
const completionTime = time.Second

type completer = func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// ask makes a completer of a question to the service; without an answer there are no suggestions.
func (p *program) ask(f func(c *call, args []string) []string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := p.connect(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionTime)
		defer cancel()
		c.ctx = ctx
		return f(c, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeRenderers suggests renderers for the first so many arguments, and for flags.
func (p *program) completeRenderers(most int) completer {
	return p.ask(func(c *call, args []string) []string {
		if len(args) >= most && c.cmd.Flags().Lookup("renderer") == nil {
			return nil
		}
		all, _, err := answer[client.RendererList](c.api.ListRenderers(c.ctx))
		if err != nil {
			return nil
		}
		var out []string
		for _, r := range all.Items {
			out = append(out, cobra.CompletionWithDesc(r.ID, r.Name))
		}
		return out
	})
}

// completeSessions suggests sessions that have not ended, or those in the states given.
func (p *program) completeSessions(states ...client.SessionState) completer {
	return p.ask(func(c *call, _ []string) []string {
		all, _, _, err := list[client.Session](defaultLimit, func(n int, cursor string) (*http.Response, error) {
			return c.api.ListSessions(c.ctx, &client.ListSessionsParams{Limit: n, Cursor: cursor})
		})
		if err != nil {
			return nil
		}
		var out []string
		for _, s := range all {
			if s.EndedAt.IsZero() && (len(states) == 0 || slices.Contains(states, s.State)) {
				out = append(out, cobra.CompletionWithDesc(s.ID, clean(s.Model+", "+string(s.State), false)))
			}
		}
		return out
	})
}

func (p *program) completeJobs() completer {
	return p.ask(func(c *call, _ []string) []string {
		all, _, _, err := list[client.Job](defaultLimit, func(n int, cursor string) (*http.Response, error) {
			return c.api.ListJobs(c.ctx, &client.ListJobsParams{Limit: n, Cursor: cursor})
		})
		if err != nil {
			return nil
		}
		var out []string
		for _, j := range all {
			out = append(out, cobra.CompletionWithDesc(j.ID, clean(j.Model+", "+string(j.State), false)))
		}
		return out
	})
}

func (p *program) completeResources() completer {
	return p.ask(func(c *call, _ []string) []string {
		all, _, _, err := list[client.Resource](defaultLimit, func(n int, cursor string) (*http.Response, error) {
			return c.api.ListResources(c.ctx, &client.ListResourcesParams{Limit: n, Cursor: cursor})
		})
		if err != nil {
			return nil
		}
		var out []string
		for _, r := range all {
			out = append(out, cobra.CompletionWithDesc(r.ID, string(r.State)))
		}
		return out
	})
}
