package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

// booking is what the flags of `rrm book` say.
type booking struct {
	wait, lease, maxDuration string
	owner, onLost            string
	param                    []string
	params                   string
	key                      string
	keep                     bool
}

func (p *program) bookCommand() *cobra.Command {
	var b booking
	cmd := &cobra.Command{
		Use:   "book RENDERER MODEL",
		Short: "Book a resource for interactive use",
		Long: `Books a resource that renders MODEL. Without --wait the answer comes at once: a session, or a refusal that says why
and when to ask again. With --wait the booking stays in the queue, and progress is shown until the session is ready.

The session lasts for its lease unless it is renewed: by using it, by "rrm renew", or by --keep.`,
		Example: `  rrm book demo neuron:1 --wait 2m
  rrm book demo circuit:100 --wait 10m --on-lost move --keep`,
		Args:              needs(2, 2),
		ValidArgsFunction: p.completeRenderers(1),
		RunE:              p.client(func(c *call, args []string) error { return c.book(b, args[0], args[1]) }),
	}
	f := cmd.Flags()
	f.StringVar(&b.wait, "wait", "", "stay in the queue for at most this long, such as 2m, and show progress until the session is ready")
	f.StringVar(&b.lease, "lease", "", "how long the session lasts unless renewed, 1s to 24h (default 60s)")
	f.StringVar(&b.maxDuration, "max-duration", "", "end the session after this, whatever is renewed")
	f.StringVar(&b.owner, "owner", "", "whom the session belongs to, for operators (default: the token's owner)")
	f.StringVar(&b.onLost, "on-lost", "", "when the resource goes away: end, or move to another (default end)")
	f.StringArrayVar(&b.param, "param", nil, "parameter KEY=VALUE kept with the session; VALUE may be JSON; may be repeated")
	f.StringVar(&b.params, "params", "", "the same as one JSON object")
	f.StringVar(&b.key, "idempotency-key", "", "same key and booking: the first answer again (default: a new one)")
	f.BoolVar(&b.keep, "keep", false, "renew the lease until interrupted, then release the session")
	_ = cmd.RegisterFlagCompletionFunc("on-lost", cobra.FixedCompletions([]string{"end", "move"}, cobra.ShellCompDirectiveNoFileComp))
	return clientFlags(cmd)
}

func (b *booking) request(renderer, model string) (client.SessionRequest, error) {
	r := client.SessionRequest{
		Renderer: renderer, Model: model, Owner: b.owner, Wait: b.wait, Lease: b.lease,
		MaxDuration: b.maxDuration, OnLost: client.SessionRequestOnLost(b.onLost),
	}
	for _, f := range [][2]string{{"--wait", b.wait}, {"--lease", b.lease}, {"--max-duration", b.maxDuration}} {
		if err := checkSpan(f[0], f[1]); err != nil {
			return r, err
		}
	}
	params := map[string]json.RawMessage{}
	if b.params != "" {
		if err := json.Unmarshal([]byte(b.params), &params); err != nil || params == nil {
			return r, usage(`--params is a JSON object such as {"view":"top"}, not %q`, b.params)
		}
	}
	for _, kv := range b.param {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return r, usage("--param is KEY=VALUE, not %q", kv)
		}
		if params[name] = json.RawMessage(value); !json.Valid(params[name]) {
			params[name], _ = json.Marshal(value)
		}
	}
	if len(params) > 0 {
		raw, err := json.Marshal(params)
		if err != nil {
			return r, fmt.Errorf("write parameters: %w", err)
		}
		r.Params = raw
	}
	return r, nil
}

// checkSpan refuses a flag that is no length of time; none is none.
func checkSpan(flag, value string) error {
	if d, err := time.ParseDuration(value); value != "" && (err != nil || d < 0) {
		return usage("%s is a time such as 30s or 2m, not %q", flag, value)
	}
	return nil
}

func (c *call) book(b booking, renderer, model string) error {
	request, err := b.request(renderer, model)
	if err != nil {
		return err
	}
	key := b.key
	if key == "" {
		key = newKey()
	}
	s, raw, err := answer[client.Session](c.api.BookResource(c.ctx, &client.BookResourceParams{IdempotencyKey: key}, request))
	if err != nil {
		return err
	}
	if b.wait != "" || b.keep {
		if s, raw, err = c.waitReady(s); err != nil {
			return err
		}
	}
	if err := c.show(raw, func() { c.sessionDetails(s) }); err != nil {
		return err
	}
	if b.keep {
		return c.keep(s)
	}
	return nil
}

// waitReady follows a session until frames can be had. Whoever gives up
// waiting gives the booking up: nobody else would use it.
func (c *call) waitReady(s client.Session) (client.Session, []byte, error) {
	end, err := c.followSession(c.progress(), s)
	if c.ctx.Err() != nil {
		c.releaseAfterAll(s.ID)
		return s, nil, c.ctx.Err()
	}
	if err != nil {
		return s, nil, err
	}
	s, raw, err := answer[client.Session](c.api.GetSession(c.ctx, s.ID))
	if err != nil {
		return s, nil, err
	}
	if end != string(client.SessionStateReady) {
		return s, raw, &ended{what: "the session " + s.ID, state: string(s.State), code: s.Code, reason: s.Reason, refused: s.Code == "wait_ended"}
	}
	return s, raw, nil
}

const farewell = 10 * time.Second // for the last request of an interrupted command

// releaseAfterAll releases a session when the command was interrupted.
func (c *call) releaseAfterAll(id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), farewell)
	defer cancel()
	if _, _, err := answer[client.Session](c.api.ReleaseSession(ctx, id)); err != nil {
		c.note("The session %s was not released: %s", id, clean(err.Error(), false))
		return
	}
	c.note("Released session %s.", id)
}

// keep renews the lease until the command is interrupted, then releases the session.
func (c *call) keep(s client.Session) error {
	c.note("The session is kept until this command is interrupted (Ctrl-C); then it is released.")
	every := max(time.Duration(s.LeaseSeconds*float64(time.Second))/3, 300*time.Millisecond)
	for {
		select {
		case <-c.ctx.Done():
			c.releaseAfterAll(s.ID)
			return nil
		case <-time.After(every):
		}
		_, _, err := answer[client.Session](c.api.RenewLease(c.ctx, s.ID, client.LeaseRequest{}))
		var no *client.Error
		switch {
		case err == nil || c.ctx.Err() != nil:
		case errors.As(err, &no) && no.Status < 500:
			return err
		default:
			c.note("The lease could not be renewed just now: %s", clean(err.Error(), false))
		}
	}
}

func (p *program) renewCommand() *cobra.Command {
	var lease string
	cmd := &cobra.Command{
		Use: "renew SESSION", Short: "Renew or extend a session's lease", Args: needs(1, 1),
		ValidArgsFunction: p.completeSessions(),
		RunE: p.client(func(c *call, args []string) error {
			if err := checkSpan("--lease", lease); err != nil {
				return err
			}
			id, err := c.session(c.ctx, args[0])
			if err != nil {
				return err
			}
			s, raw, err := answer[client.Session](c.api.RenewLease(c.ctx, id, client.LeaseRequest{Lease: lease}))
			if err != nil {
				return err
			}
			return c.show(raw, func() {
				if s.LeaseExpiresAt.IsZero() {
					c.line("The session is %s; its lease of %s begins when it is ready.", s.State, seconds(s.LeaseSeconds))
					return
				}
				c.line("The session lasts until %s (%s).", s.LeaseExpiresAt.Local().Format(time.DateTime), c.ago(s.LeaseExpiresAt))
			})
		}),
	}
	cmd.Flags().StringVar(&lease, "lease", "", "new length of the lease, 1s to 24h (default: as before)")
	return clientFlags(cmd)
}

func (p *program) releaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "release SESSION...", Short: "Release sessions; repeating is safe", Args: needs(1, many),
		ValidArgsFunction: p.completeSessions(),
		RunE: p.client(func(c *call, args []string) error {
			for _, arg := range args {
				id, err := c.session(c.ctx, arg)
				if err != nil {
					return err
				}
				s, raw, err := answer[client.Session](c.api.ReleaseSession(c.ctx, id))
				if err != nil {
					return err
				}
				if err := c.show(raw, func() { c.line("Session %s is %s.", s.ID, stateText(string(s.State), s.Reason)) }); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	return clientFlags(cmd)
}

func stateText(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + ": " + clean(reason, true)
}
