package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func (p *program) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain SESSION|JOB|POSITION", Short: "Why: the decision behind a session, a job or a refusal", Args: needs(1, 1),
		Long: `Tells what happened to a session or job, and the last decision about it: why there and not elsewhere, what was looked at,
and what learned times it rested on. A number is the position of any decision in the log.`,
		ValidArgsFunction: p.completeSessions(),
		RunE:              p.client(func(c *call, args []string) error { return c.explain(args[0]) }),
	}
	return clientFlags(cmd)
}

func (c *call) explain(arg string) error {
	position, notNumber := strconv.ParseInt(arg, 10, 64)
	if notNumber == nil && len(arg) != idLength { // which may be the end of an identifier
		return c.explainPosition(position)
	}
	id, err := c.session(c.ctx, arg)
	if err != nil {
		return err
	}
	s, _, err := answer[client.Session](c.api.GetSession(c.ctx, id))
	if err == nil {
		return c.explainSubject("session:"+s.ID, s.Decision, title("Session", s.ID, s.Owner, s.Model, string(s.State), s.Reason, s.EndedAt), s.Queue)
	}
	var no *client.Error
	if !errors.As(err, &no) || no.Status != http.StatusNotFound {
		return err
	}
	if id, err = c.job(c.ctx, arg); err != nil {
		return err
	}
	j, _, err := answer[client.Job](c.api.GetJob(c.ctx, id))
	if err == nil {
		return c.explainSubject("job:"+j.ID, j.Decision, title("Job", j.ID, j.Owner, j.Model, string(j.State), j.Reason, j.EndedAt), j.Queue)
	}
	if errors.As(err, &no) && no.Status == http.StatusNotFound {
		if notNumber == nil {
			return c.explainPosition(position)
		}
		return &hinted{errors.New("there is no session or job " + arg), "`rrm sessions` and `rrm jobs` list them; a number is the position of a decision."}
	}
	return err
}

// title says what something is; why it ended, for what is not over has its decision below.
func title(noun, id, owner, model, state, reason string, endedAt time.Time) string {
	if endedAt.IsZero() {
		reason = ""
	}
	return fmt.Sprintf("%s %s of %s for %s is %s", noun, id, owner, model, stateText(state, reason))
}

// explainSubject tells the history of a session or job, then its last decision.
func (c *call) explainSubject(subject string, d client.DecisionRef, what string, queue client.QueuePlace) error {
	if c.json {
		if d.Position == 0 {
			return errors.New("nothing was decided about it yet")
		}
		return c.explainPosition(d.Position)
	}
	c.line("%s", clean(what, false))
	if queue.Position > 0 {
		c.line("It waits: %s", clean(queueText(queue), false))
	}
	c.line("")
	err := c.eachEvent(c.ctx, client.ListEventsParams{Subject: subject}, 0, func(e *client.Event) (bool, error) {
		return true, c.printEvent(e)
	})
	if err != nil || d.Position == 0 {
		return err
	}
	c.line("")
	return c.explainPosition(d.Position)
}

func (c *call) explainPosition(position int64) error {
	d, raw, err := answer[client.DecisionRecord](c.api.GetDecision(c.ctx, position))
	if err != nil {
		return err
	}
	return c.show(raw, func() { c.decisionDetails(d) })
}

func (c *call) decisionDetails(d client.DecisionRecord) {
	what := d.Decision
	e := client.Event{Type: d.Type, Data: d.Event}
	f := read(&e)
	c.details([][2]string{
		{"Decision", fmt.Sprintf("%d, %s", d.Position, d.At.Local().Format(time.DateTime+".000"))},
		{"Outcome", outcomeText(what.Outcome, &f)},
		{"Why", what.Reason},
		{"Caused by", d.Actor},
		{"Policy", fmt.Sprintf("%s, version %d", what.Policy, what.Version)},
		{"Looked at", count(what.Considered, thing(what.Outcome), thing(what.Outcome)+"s")},
		{"Left out", filteredText(what.Filtered)},
		{"Learned", costsText(what.Costs)},
		{"Inputs", compact(what.Inputs)},
	})
	if len(what.Candidates) == 0 {
		return
	}
	c.line("")
	var rows [][]string
	for i, cand := range what.Candidates {
		rows = append(rows, []string{
			yes(i == 0, "chosen", itoa(i+1)), cand.Resource, string(cand.State), expected(cand.Seconds), itoa(cand.Free), strings.Join(cand.Evicts, ", "),
		})
	}
	c.table("", []string{"", "candidate", "model", "first frame in", "free slots", "would evict"}, rows)
}

// expected is a candidate's score; at once is the best there is.
func expected(s float64) string {
	if s <= 0 {
		return "at once"
	}
	return seconds(s)
}

func thing(outcome string) string {
	if outcome == "evicted" {
		return "model"
	}
	return "resource"
}

func outcomeText(outcome string, f *fields) string {
	switch outcome {
	case "allocated", "assigned":
		s := outcome + " " + f.Resource + ", " + yes(f.Warm, "warm", "cold")
		if f.Waited >= 0.001 {
			s += ", after waiting " + seconds(f.Waited)
		}
		if f.Saved > 0 {
			s += ", avoiding " + seconds(f.Saved) + " of loading"
		}
		return s
	case "queued":
		return fmt.Sprintf("queued at place %d, about %s to wait", f.Place, seconds(f.Estimate))
	case "rejected":
		return fmt.Sprintf("rejected (%s), to be asked again in %s; %s", f.Code, seconds(f.RetryAfter), yes(f.Queue == 0, "nobody waited", itoa(f.Queue)+" waited already"))
	case "evicted":
		return fmt.Sprintf("evicted %s from %s to make room for %s", f.Model, f.Resource, f.For)
	case "shadowed":
		return fmt.Sprintf("would have had %d resources; nothing was done", f.Size)
	case "scaled":
		return fmt.Sprintf("scaled from %d to %d", f.From, f.To) + prefixed(", stopping ", strings.Join(f.Stop, ", "))
	}
	return outcome
}

// leftOut says in words why a resource was no candidate.
var leftOut = map[string]string{
	"no_free_slot":   "without a free slot",
	"models_in_use":  "whose models are all in use",
	"memory_in_use":  "without enough memory",
	"bound_to_other": "bound to another model",
	"requested":      "that is only requested",
	"starting":       "that is starting",
	"draining":       "that is draining",
	"stopping":       "that is stopping",
}

func filteredText(filtered map[string]int) string {
	var out []string
	for _, why := range slices.Sorted(maps.Keys(filtered)) {
		text := leftOut[why]
		if text == "" {
			text = "because of " + why
		}
		out = append(out, fmt.Sprintf("%d %s", filtered[why], text))
	}
	return strings.Join(out, ", ")
}

var costLabels = map[string]string{
	"load_seconds": "loading takes", "reload_seconds": "loading it again would take", "start_seconds": "a start takes", "hold_seconds": "a session lasts",
}

func costsText(costs map[string]float64) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(costs)) {
		label := costLabels[name]
		if label == "" {
			label = strings.ReplaceAll(strings.TrimSuffix(name, "_seconds"), "_", " ")
		}
		out = append(out, label+" "+seconds(costs[name]))
	}
	return strings.Join(out, ", ")
}
