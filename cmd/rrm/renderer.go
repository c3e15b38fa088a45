package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

func (p *program) renderersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "renderers", Short: "List, show, make and delete kinds of renderer", Args: needs(0, 0),
		RunE: p.client(func(c *call, _ []string) error { return c.listRenderers() }),
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List renderers", Args: needs(0, 0),
			RunE: p.client(func(c *call, _ []string) error { return c.listRenderers() }),
		},
		&cobra.Command{
			Use: "get RENDERER", Short: "Show a renderer's settings, in a form that apply takes", Args: needs(1, 1),
			ValidArgsFunction: p.completeRenderers(1),
			RunE: p.client(func(c *call, args []string) error {
				_, raw, err := answer[client.Renderer](c.api.GetRenderer(c.ctx, args[0]))
				if err != nil {
					return err
				}
				return c.showYAML(raw)
			}),
		},
		p.applyCommand(),
		&cobra.Command{
			Use: "delete RENDERER", Short: "Delete a renderer that has no resources, sessions or jobs left", Args: needs(1, 1),
			ValidArgsFunction: p.completeRenderers(1),
			RunE: p.client(func(c *call, args []string) error {
				if _, _, err := answer[struct{}](c.api.DeleteRenderer(c.ctx, args[0])); err != nil {
					return err
				}
				c.note("Deleted %s.", args[0])
				return nil
			}),
		},
	)
	return clientFlags(cmd)
}

func (c *call) listRenderers() error {
	all, raw, err := answer[client.RendererList](c.api.ListRenderers(c.ctx))
	if err != nil {
		return err
	}
	return c.show(raw, func() {
		var rows [][]string
		for _, r := range all.Items {
			rows = append(rows, []string{
				r.ID, r.Launcher, itoa(r.Slots), itoa(r.ModelsPerResource), scalingText(r.Scaling), r.ModelLoading, c.text(r.Name),
			})
		}
		c.table("There are no renderers: `rrm renderers apply -f FILE` makes one.",
			[]string{"renderer", "launcher", "slots", "models", "resources", "loading", "name"}, rows)
	})
}

func scalingText(s client.ScalingSettings) string {
	low, high := 0, 0
	if s.Min != nil {
		low = *s.Min
	}
	if s.Max != nil {
		high = *s.Max
	}
	return fmt.Sprintf("%d to %d", low, high)
}

// showYAML prints settings as YAML, which apply reads again.
func (c *call) showYAML(raw []byte) error {
	return c.show(raw, func() {
		var v yaml.Node // JSON is YAML; the order of the fields stays
		if err := yaml.Unmarshal(raw, &v); err != nil {
			_ = writeJSON(c.stdout, raw)
			return
		}
		plain(&v)
		var b bytes.Buffer
		e := yaml.NewEncoder(&b)
		e.SetIndent(2)
		if err := e.Encode(&v); err != nil {
			_ = writeJSON(c.stdout, raw)
			return
		}
		_, _ = c.stdout.Write(b.Bytes())
	})
}

// plain takes JSON's braces and quotes away.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}

func (p *program) applyCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make or replace renderers as a file says", Args: needs(0, 0),
		Long: `Reads settings in YAML or JSON; several YAML documents make several renderers. Settings that are absent take their
defaults. Resources that run keep the settings with which they were started.`,
		RunE: p.client(func(c *call, _ []string) error {
			if file == "" {
				return usage("apply needs -f FILE; - is standard input")
			}
			raw, err := c.readFile(file)
			if err != nil {
				return err
			}
			docs, err := documents(raw)
			if err != nil {
				return usage("%s: %s", yes(file == "-", "standard input", file), err)
			}
			for _, d := range docs {
				r, answered, err := answer[client.Renderer](c.api.PutRendererWithBody(c.ctx, d.id, "application/json", bytes.NewReader(d.body)))
				if err != nil {
					return fmt.Errorf("renderer %s: %w", d.id, err)
				}
				if err := c.show(answered, func() { c.line("Renderer %s is configured.", r.ID) }); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`FILE` to read; -: standard input")
	return cmd
}

type document struct {
	id   string
	body []byte
}

// documents reads YAML or JSON; what the fields mean is the service's matter.
func documents(raw []byte) ([]document, error) {
	var out []document
	d := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		var v map[string]any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.New("it is neither YAML nor JSON with the settings of a renderer: " + strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if v == nil {
			continue
		}
		id, _ := v["id"].(string)
		if id == "" {
			return nil, errors.New("the settings have no id")
		}
		body, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("renderer %s: its keys must be text", id)
		}
		out = append(out, document{id, body})
	}
	if len(out) == 0 {
		return nil, errors.New("there are no settings in it")
	}
	return out, nil
}

func (c *call) poolDetails(p client.Pool) {
	scaled := ""
	if s := p.LastScaling; !s.At.IsZero() {
		scaled = fmt.Sprintf("%s, from %d to %d: %s", c.ago(s.At), s.From, s.To, s.Reason)
		if s.Decision.Position > 0 {
			scaled += fmt.Sprintf(" (rrm explain %d)", s.Decision.Position)
		}
	}
	failing := ""
	if p.Failures > 0 {
		failing = count(p.Failures, "start", "starts") + " failed in a row: " + p.LastFailure
		if p.BackoffUntil.After(c.now()) {
			failing += "; next try " + c.ago(p.BackoffUntil)
		}
	}
	waiting := fmt.Sprintf("%s, %s", count(p.QueuedSessions, "session", "sessions"), count(p.QueuedJobs, "job", "jobs"))
	if p.OldestWaitSeconds > 0 {
		waiting += ", the oldest for " + seconds(p.OldestWaitSeconds)
	}
	var facts []string
	for _, f := range []string{
		prefixed("start ", learned(p.Learned.Starts, p.Learned.StartSeconds)), prefixed("load ", learned(p.Learned.Loads, p.Learned.LoadSeconds)),
		prefixed("session ", learned(p.Learned.Holds, p.Learned.HoldSeconds)), prefixed("job ", learned(p.Learned.Jobs, p.Learned.JobSeconds)),
	} {
		if f != "" {
			facts = append(facts, f)
		}
	}
	c.details([][2]string{
		{"Pool", p.Renderer},
		{"Resources", sizesText(p.Sizes)},
		{"Limits", fmt.Sprintf("%d to %d", p.Min, p.Max) + yes(p.Buffer > 0, ", keeping "+count(p.Buffer, "slot", "slots")+" free", "")},
		{"Slots", fmt.Sprintf("%d of %d free", p.SlotsFree, p.SlotsTotal)},
		{"Waiting", waiting},
		{"Blocked", optionalCount(p.WaitingJobs, "job waits for others", "jobs wait for others")},
		{"Running", optionalCount(p.RunningJobs, "job", "jobs")},
		{"Learned", strings.Join(facts, ", ")},
		{"Expected", expectationsText(p.Expectations)},
		{"Policy", c.text(p.Policy)},
		{"Scaled", scaled},
		{"Advised", c.advisedText(p.Advice)},
		{"Shadow", c.shadowText(p.Shadow)},
		{"Failing", failing},
	})
}

// expectationsText says how many of the waits ended within the interval that was stated for them.
func expectationsText(e client.Expectations) string {
	var lines []string
	for _, one := range []struct {
		what string
		is   client.Calibrated
	}{
		{"sessions waiting for a start", e.SessionStart}, {"sessions waiting for a turn", e.SessionTurn},
		{"jobs waiting for a start", e.JobStart}, {"jobs waiting for a turn", e.JobTurn},
	} {
		if one.is.Waits > 0 {
			lines = append(lines, fmt.Sprintf("%s of %d %s began when they were told, lately %s (aim: %s)",
				percent(one.is.Share), one.is.Waits, one.what, percent(one.is.Recent), percent(e.Confidence)))
		}
	}
	return strings.Join(lines, "\n")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func sizesText(sizes map[string]int) string {
	var out []string
	for _, state := range slices.Sorted(maps.Keys(sizes)) {
		if sizes[state] > 0 {
			out = append(out, fmt.Sprintf("%d %s", sizes[state], state))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

func (p *program) admissionCommand() *cobra.Command {
	show := func(c *call, a client.Admission, raw []byte, err error) error {
		if err != nil {
			return err
		}
		return c.show(raw, func() {
			if a.Open {
				c.line("New sessions are admitted.")
				return
			}
			c.line("New sessions are suspended%s.", prefixed(": ", clean(a.Reason, false)))
		})
	}
	cmd := &cobra.Command{
		Use: "admission", Short: "Show, suspend or open the admission of new sessions", Args: needs(0, 0),
		RunE: p.client(func(c *call, _ []string) error {
			a, raw, err := answer[client.Admission](c.api.GetAdmission(c.ctx))
			return show(c, a, raw, err)
		}),
	}
	var reason string
	suspend := &cobra.Command{
		Use: "suspend", Short: "Admit no new sessions; what exists goes on", Args: needs(0, 0),
		RunE: p.client(func(c *call, _ []string) error {
			a, raw, err := answer[client.Admission](c.api.SetAdmission(c.ctx, client.Admission{Reason: reason}))
			return show(c, a, raw, err)
		}),
	}
	suspend.Flags().StringVar(&reason, "reason", "", "given to those who are refused, such as: maintenance until 16:00")
	open := &cobra.Command{
		Use: "open", Short: "Admit new sessions again", Args: needs(0, 0),
		RunE: p.client(func(c *call, _ []string) error {
			a, raw, err := answer[client.Admission](c.api.SetAdmission(c.ctx, client.Admission{Open: true}))
			return show(c, a, raw, err)
		}),
	}
	cmd.AddCommand(suspend, open)
	return clientFlags(cmd)
}
