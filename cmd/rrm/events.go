package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func (p *program) eventsCommand() *cobra.Command {
	var f client.ListEventsParams
	var limit int
	var follow bool
	cmd := &cobra.Command{
		Use: "events", Short: "Read the log, or follow it", Args: needs(0, 0),
		Long: `Prints the newest events, or those after a position. --follow goes on with what happens, without loss or repeat
across broken connections. With -o json there is one event on each line.`,
		Example: `  rrm events --type 'session.*' --follow
  rrm events --subject owner:alice --after 0 -o json`,
		RunE: p.client(func(c *call, _ []string) error {
			f.Limit = min(maxPage, max(1, limit))
			if limit < 0 {
				return usage("--limit is not negative")
			}
			return c.events(f, limit, follow)
		}),
	}
	fl := cmd.Flags()
	fl.Int64Var(&f.After, "after", 0, "only events after this position (default: the newest ones)")
	fl.StringVar(&f.Subject, "subject", "", "only about this: session:ID, job:ID, resource:ID, model:RENDERER/KEY, owner:NAME")
	fl.StringVar(&f.Type, "type", "", "only of this type, such as session.ready, or of this noun, such as 'session.*'")
	fl.IntVar(&limit, "limit", defaultLimit, "at most this many; 0: all")
	fl.BoolVar(&follow, "follow", false, "go on until interrupted")
	return clientFlags(cmd)
}

// events prints what the log holds, then with follow what is added to it.
func (c *call) events(f client.ListEventsParams, limit int, follow bool) error {
	switch {
	case follow:
		return c.followEvents(f)
	case limit == 0 || c.cmd.Flags().Changed("after"):
		return c.pastEvents(f, f.After, limit)
	}
	return c.newestEvents(f, limit)
}

func (c *call) followEvents(f client.ListEventsParams) error {
	after := f.After
	if !c.cmd.Flags().Changed("after") {
		head, err := c.head(c.ctx)
		if err != nil {
			return err
		}
		after = head
	}
	open := c.api.streams.AllEvents(client.StreamEventsParams{Subject: f.Subject, Type: f.Type})
	from := func(ctx context.Context, resume *int64) (*http.Response, error) {
		if resume == nil {
			resume = &after
		}
		return open(ctx, resume)
	}
	for m, err := range client.Follow(c.ctx, from) {
		if err == nil && m.Event != nil {
			err = c.printEvent(m.Event)
		}
		if c.ctx.Err() != nil {
			return nil // following ends by being interrupted
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// newestEvents looks back from the end of the log, further each time, until there are enough.
func (c *call) newestEvents(f client.ListEventsParams, limit int) error {
	head, err := c.head(c.ctx)
	if err != nil {
		return err
	}
	f.Limit = maxPage
	var found []client.Event
	for back := int64(limit); ; back *= 4 {
		after := max(0, head-back)
		found = found[:0]
		err := c.eachEvent(c.ctx, f, after, func(e *client.Event) (bool, error) {
			if found = append(found, *e); len(found) > 2*limit {
				found = append(found[:0], found[len(found)-limit:]...)
			}
			return true, nil
		})
		if err != nil {
			return err
		}
		if len(found) >= limit || after == 0 {
			break
		}
	}
	for _, e := range found[max(0, len(found)-limit):] {
		if err := c.printEvent(&e); err != nil {
			return err
		}
	}
	if len(found) == 0 && !c.json {
		c.line("There are no such events.")
	}
	return nil
}

// pastEvents prints pages; without a limit until the end of the log.
func (c *call) pastEvents(f client.ListEventsParams, after int64, limit int) error {
	printed := 0
	err := c.eachEvent(c.ctx, f, after, func(e *client.Event) (bool, error) {
		printed++
		return limit == 0 || printed < limit, c.printEvent(e)
	})
	if err == nil && printed == 0 && !c.json {
		c.line("There are no such events.")
	}
	return err
}

// eachEvent gives events after a position, oldest first, until f says enough or the log ends.
func (c *call) eachEvent(ctx context.Context, f client.ListEventsParams, after int64, give func(*client.Event) (bool, error)) error {
	if f.Limit == 0 {
		f.Limit = maxPage
	}
	for {
		f.After = after
		page, _, err := answer[client.EventList](c.api.ListEvents(ctx, &f))
		if err != nil {
			return err
		}
		for i := range page.Items {
			if more, err := give(&page.Items[i]); err != nil || !more {
				return err
			}
		}
		if page.NextAfter <= after {
			return nil
		}
		after = page.NextAfter
	}
}

// head is the position of the newest event, found by halving: positions have no gaps.
func (c *call) head(ctx context.Context) (int64, error) {
	low, high := int64(0), int64(1) // the head is not before low; once the loop is over not after high
	for {
		newer, err := c.anyAfter(ctx, high)
		if err != nil {
			return 0, err
		}
		if !newer {
			break
		}
		if low, high = high+1, high*2; high > math.MaxInt64/4 {
			return 0, errors.New("the log has no end")
		}
	}
	for low < high {
		middle := low + (high-low)/2
		newer, err := c.anyAfter(ctx, middle)
		if err != nil {
			return 0, err
		}
		if newer {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, nil
}

func (c *call) anyAfter(ctx context.Context, position int64) (bool, error) {
	page, _, err := answer[client.EventList](c.api.ListEvents(ctx, &client.ListEventsParams{After: position, Limit: 1}))
	return len(page.Items) > 0, err
}

// printEvent prints at once: who follows wants to see it now, so columns have fixed widths.
func (c *call) printEvent(e *client.Event) error {
	if c.json {
		raw, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("print an event: %w", err)
		}
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return fmt.Errorf("print an event: %w", err)
		}
		c.line("%s", b.String())
		return nil
	}
	at := e.RecordedAt.Local().Format(time.TimeOnly)
	if c.now().Sub(e.RecordedAt) > 24*time.Hour {
		at = e.RecordedAt.Local().Format("2006-01-02 15:04:05")
	}
	c.line("%s", strings.TrimRight(fmt.Sprintf("%6d  %s  %-19s %s", e.Position, at, e.Type, c.eventText(e)), " "))
	return nil
}

// eventText tells an event in a line.
func (c *call) eventText(e *client.Event) string {
	f := read(e)
	var out []string
	add := func(label, value string) {
		if value != "" {
			out = append(out, label+clean(value, false))
		}
	}
	add("", c.id(f.Session+f.Job))
	switch e.Type {
	case "pool.scaled":
		add("", fmt.Sprintf("%s from %d to %d", strings.TrimPrefix(e.Stream, "pool/"), f.From, f.To))
	case "pool.shadowed":
		add("", fmt.Sprintf("%s would have %d", strings.TrimPrefix(e.Stream, "pool/"), f.Size))
	case "pool.advised":
		add("", strings.TrimPrefix(e.Stream, "pool/")+yes(f.Problem != "", " got no answer: "+f.Problem, fmt.Sprintf(" is to have %d", f.Size)))
	case "renderer.configured", "renderer.removed", "pool.backed_off":
		add("", strings.TrimPrefix(e.Stream, "pool/"))
	case "admission.changed":
		add("", yes(f.Open != nil && *f.Open, "open", "suspended"))
	}
	add("model ", c.text(f.Model))
	add("on ", f.Resource)
	add("for ", c.text(f.For))
	if strings.HasSuffix(e.Type, ".requested") || strings.HasSuffix(e.Type, ".submitted") {
		add("by ", c.text(f.Owner))
	}
	if e.Type == "session.allocated" || e.Type == "job.assigned" {
		add("", yes(f.Warm, "warm", "cold"))
		add("waited ", optionalSeconds(f.Waited))
	}
	if f.Place > 0 {
		add("", fmt.Sprintf("place %d, about %s", f.Place, seconds(f.Estimate)))
	}
	if f.Seconds > 0 {
		add("after ", seconds(f.Seconds))
	}
	add("", f.Code)
	text := strings.Join(out, "  ")
	if why := f.Reason + yes(f.Reason == "", f.Decision.Reason, ""); why != "" {
		text += "  (" + clean(why, false) + ")"
	}
	if c.wide && e.Actor != "" {
		text += "  by " + clean(e.Actor, false)
	}
	return text
}
