package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func (p *program) jobsCommand() *cobra.Command {
	var f filters
	cmd := &cobra.Command{
		Use: "jobs", Short: "List jobs", Args: needs(0, 0),
		Long: "Lists jobs, ended ones too, newest first.",
		RunE: p.client(func(c *call, _ []string) error { return c.listJobs(f) }),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.renderer, "renderer", "", "only of this renderer")
	fl.StringVar(&f.model, "model", "", "only with this model")
	fl.StringVar(&f.owner, "owner", "", "only of this owner")
	fl.StringVar(&f.state, "state", "", "only in this state: waiting, queued, assigned, running, succeeded, failed, cancelled")
	fl.StringVar(&f.kind, "kind", "", "only of this kind: image, frames, video")
	f.limitFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("renderer", p.completeRenderers(1))
	return clientFlags(cmd)
}

func (c *call) listJobs(f filters) error {
	all, raw, more, err := list[client.Job](f.limit, func(n int, cursor string) (*http.Response, error) {
		return c.api.ListJobs(c.ctx, &client.ListJobsParams{
			Renderer: f.renderer, Model: f.model, Owner: f.owner, State: client.JobState(f.state),
			Kind: client.JobKind(f.kind), Limit: n, Cursor: cursor,
		})
	})
	if err != nil {
		return err
	}
	defer c.more(more)
	return c.show(raw, func() {
		var rows [][]string
		for _, j := range all {
			rows = append(rows, []string{
				c.id(j.ID), string(j.Kind), j.Renderer, c.text(j.Model), c.text(j.Owner), string(j.State), c.ago(j.StateSince), j.Resource, c.remark(jobNote(&j)),
			})
		}
		c.table("There are no jobs.", []string{"job", "kind", "renderer", "model", "owner", "state", "since", "resource", "note"}, rows)
	})
}

// jobNote is what matters most about a job in its state.
func jobNote(j *client.Job) string {
	switch {
	case j.Queue.Position > 0:
		return queuePlace(j.Queue)
	case len(j.Parts) > 0 && j.EndedAt.IsZero():
		return percent(j.Progress) + ", " + j.Queue.Reason
	case j.State == client.JobStateRunning:
		return percent(j.Progress)
	case j.State == client.JobStateSucceeded:
		return size(j.Result.Bytes) + yes(j.Warm, ", warm", "")
	}
	return j.Reason
}

func (p *program) jobCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "job JOB", Short: "Show a job, or follow it to its end", Args: needs(1, 1),
		ValidArgsFunction: p.completeJobs(),
		RunE: p.client(func(c *call, args []string) error {
			id, err := c.job(c.ctx, args[0])
			if err != nil {
				return err
			}
			j, raw, err := answer[client.Job](c.api.GetJob(c.ctx, id))
			if err != nil {
				return err
			}
			if follow {
				return c.toTheEnd(j, "")
			}
			return c.show(raw, func() { c.jobDetails(j) })
		}),
	}
	cmd.Flags().BoolVar(&follow, "follow", false, "show progress until it has ended; a job that fails is a failure of this command")
	return clientFlags(cmd)
}

// toTheEnd follows a job, shows it, and writes its result to a file if one is named.
func (c *call) toTheEnd(j client.Job, file string) error {
	state, err := c.followJob(c.progress(), j)
	if err != nil {
		if c.ctx.Err() != nil {
			c.note("The job %s goes on; `rrm job %s --follow` comes back to it, `rrm cancel %s` ends it.", j.ID, j.ID, j.ID)
		}
		return err
	}
	j, raw, err := answer[client.Job](c.api.GetJob(c.ctx, j.ID))
	if err != nil {
		return err
	}
	if err := c.show(raw, func() { c.jobDetails(j) }); err != nil {
		return err
	}
	if state != string(client.JobStateSucceeded) {
		return &ended{what: "the job", state: string(j.State), code: j.Code, reason: j.Reason}
	}
	if file == "" {
		return nil
	}
	return c.fetchResult(j.ID, file)
}

func (c *call) jobDetails(j client.Job) {
	progress, took := "", ""
	if j.State == client.JobStateRunning {
		progress = percent(j.Progress)
	}
	if !j.EndedAt.IsZero() && !j.StartedAt.IsZero() {
		took = seconds(j.EndedAt.Sub(j.StartedAt).Seconds()) + ", " + seconds(j.EndedAt.Sub(j.SubmittedAt).Seconds()) + " since it was submitted"
	}
	result := ""
	if j.Result.URL != "" {
		result = j.Result.ContentType + ", " + size(j.Result.Bytes) + " (rrm result " + c.id(j.ID) + " -f FILE)"
	}
	deadline := ""
	if !j.Deadline.IsZero() {
		deadline = j.Deadline.Local().Format(time.DateTime) + " (" + c.ago(j.Deadline) + ")"
	}
	after := ""
	for _, id := range j.After {
		after += id + "\n"
	}
	state, why := string(j.State), j.Reason
	if !j.EndedAt.IsZero() {
		state, why = stateText(state, j.Reason), ""
	}
	c.details([][2]string{
		{"Job", j.ID},
		{"State", state + " (" + c.ago(j.StateSince) + ")"},
		{"Why", why},
		{"Progress", progress},
		{"Queue", queueText(j.Queue)},
		{"Kind", string(j.Kind)},
		{"Renderer", j.Renderer},
		{"Model", j.Model + yes(j.Warm, " (was loaded already)", "")},
		{"Owner", j.Owner},
		{"Resource", j.Resource},
		{"Attempts", attempts(j)},
		{"Parts", partsText(j)},
		{"Part of", j.PartOf},
		{"Moved", yes(j.Moves > 0, count(j.Moves, "time", "times")+" to make room for a session", "")},
		{"Priority", yes(j.Priority != 0, itoa(j.Priority), "")},
		{"Deadline", deadline},
		{"Warning", j.Warning},
		{"After", trimEnd(after)},
		{"Spec", compact(j.Spec)},
		{"Callback", j.CallbackURL},
		{"Took", took},
		{"Result", result},
		{"Decision", decisionText(j.Decision)},
	})
}

// partsText lists the parts of a set of frames, or the frames of a part.
func partsText(j client.Job) string {
	var lines []string
	for _, p := range j.Parts {
		lines = append(lines, fmt.Sprintf("%s (frames %d to %d)", p.Job, p.FirstFrame, p.LastFrame))
	}
	if j.PartOf != "" {
		lines = append(lines, fmt.Sprintf("frames %d to %d", j.FirstFrame, j.LastFrame))
	}
	return strings.Join(lines, "\n")
}

func (p *program) cancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel JOB...", Short: "Cancel jobs; repeating is safe", Args: needs(1, many),
		ValidArgsFunction: p.completeJobs(),
		RunE: p.client(func(c *call, args []string) error {
			for _, arg := range args {
				id, err := c.job(c.ctx, arg)
				if err != nil {
					return err
				}
				j, raw, err := answer[client.Job](c.api.CancelJob(c.ctx, id))
				if err != nil {
					return err
				}
				if err := c.show(raw, func() { c.line("Job %s is %s.", j.ID, stateText(string(j.State), j.Reason)) }); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	return clientFlags(cmd)
}
