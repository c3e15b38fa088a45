package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

const defaultLimit = 50

// filters are the flags that lists share.
type filters struct {
	renderer, model, owner, state, kind, resource string
	ended                                         bool
	limit                                         int
}

func (f *filters) limitFlag(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.limit, "limit", defaultLimit, "at most this many, the newest; 0: all")
}

// more says that a list goes on.
func (c *call) more(more bool) {
	if more && !c.json {
		c.note("There are more: --limit N, or --limit 0 for all.")
	}
}

func (p *program) sessionsCommand() *cobra.Command {
	var f filters
	cmd := &cobra.Command{
		Use: "sessions [SESSION]", Short: "List sessions, or show one", Args: needs(0, 1),
		Long:              "Lists sessions, ended ones too, newest first; with an identifier (its last 8 characters will do) shows one.",
		ValidArgsFunction: p.completeSessions(),
		RunE: p.client(func(c *call, args []string) error {
			if len(args) == 1 {
				return c.showSession(args[0])
			}
			return c.listSessions(f)
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.renderer, "renderer", "", "only of this renderer")
	fl.StringVar(&f.model, "model", "", "only with this model")
	fl.StringVar(&f.owner, "owner", "", "only of this owner")
	fl.StringVar(&f.state, "state", "", "only in this state: queued, starting, loading, ready, released, expired, lost, failed")
	fl.StringVar(&f.resource, "resource", "", "only on this resource")
	f.limitFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("renderer", p.completeRenderers(1))
	return clientFlags(cmd)
}

func (c *call) listSessions(f filters) error {
	all, raw, more, err := list[client.Session](f.limit, func(n int, cursor string) (*http.Response, error) {
		return c.api.ListSessions(c.ctx, &client.ListSessionsParams{
			Renderer: f.renderer, Model: f.model, Owner: f.owner, State: client.SessionState(f.state),
			Resource: f.resource, Limit: n, Cursor: cursor,
		})
	})
	if err != nil {
		return err
	}
	defer c.more(more)
	return c.show(raw, func() {
		var rows [][]string
		for _, s := range all {
			rows = append(rows, []string{
				c.id(s.ID), s.Renderer, c.text(s.Model), c.text(s.Owner), string(s.State), c.ago(s.StateSince), s.Resource, c.remark(sessionNote(&s, c)),
			})
		}
		c.table("There are no sessions.", []string{"session", "renderer", "model", "owner", "state", "since", "resource", "note"}, rows)
	})
}

// sessionNote is what matters most about a session in its state.
func sessionNote(s *client.Session, c *call) string {
	switch {
	case s.Queue.Position > 0:
		return queueText(s.Queue)
	case s.Warning != "":
		return "its resource is going: " + s.Warning
	case s.State == client.SessionStateReady && !s.LeaseExpiresAt.IsZero():
		return "lease ends " + c.ago(s.LeaseExpiresAt)
	}
	return s.Reason
}

func (c *call) showSession(arg string) error {
	id, err := c.session(c.ctx, arg)
	if err != nil {
		return err
	}
	s, raw, err := answer[client.Session](c.api.GetSession(c.ctx, id))
	if err != nil {
		return err
	}
	return c.show(raw, func() { c.sessionDetails(s) })
}

func (c *call) sessionDetails(s client.Session) {
	lease := seconds(s.LeaseSeconds)
	if !s.LeaseExpiresAt.IsZero() {
		lease += ", ends " + c.ago(s.LeaseExpiresAt) + " unless renewed"
	}
	resource := s.Resource
	if s.Node != "" {
		resource += " on " + s.Node
	}
	state, why, url := string(s.State), s.Reason, c.api.link(s.URL)
	if !s.EndedAt.IsZero() {
		state, why, url = stateText(state, s.Reason), "", ""
	}
	c.details([][2]string{
		{"Session", s.ID},
		{"State", state + " (" + c.ago(s.StateSince) + ")"},
		{"Why", why},
		{"Warning", s.Warning},
		{"Queue", queueText(s.Queue)},
		{"Renderer", s.Renderer},
		{"Model", s.Model + yes(s.Warm, " (was loaded already)", "")},
		{"Owner", s.Owner},
		{"Resource", resource},
		{"URL", url},
		{"Lease", lease},
		{"Longest", optionalSeconds(s.MaxDurationSeconds)},
		{"Parameters", compact(s.Params)},
		{"Moved", optionalCount(s.Moves, "time", "times")},
		{"Time to ready", readyText(s)},
		{"Decision", decisionText(s.Decision)},
	})
}

func readyText(s client.Session) string {
	if s.ReadyAt.IsZero() {
		return ""
	}
	return seconds(s.ReadyAt.Sub(s.RequestedAt).Seconds())
}

func queueText(q client.QueuePlace) string {
	if q.Position == 0 {
		return q.Reason
	}
	return queuePlace(q) + ": " + q.Reason
}

func decisionText(d client.DecisionRef) string {
	if d.Position == 0 {
		return ""
	}
	return fmt.Sprintf("%d (why: rrm explain %d)", d.Position, d.Position)
}

func optionalSeconds(s float64) string {
	if s == 0 {
		return ""
	}
	return seconds(s)
}

func optionalCount(n int, one, many string) string {
	if n == 0 {
		return ""
	}
	return count(n, one, many)
}

func compact(raw json.RawMessage) string {
	s := strings.TrimSpace(string(raw))
	if s == "{}" || s == "null" {
		return ""
	}
	return s
}
