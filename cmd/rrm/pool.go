package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
	"github.com/rendering-resource-manager/rrm/domain"
)

func (p *program) poolCommand() *cobra.Command {
	var try tried
	cmd := &cobra.Command{
		Use: "pool RENDERER", Short: "Show a pool: its size, its queue, what was learned; try other limits", Args: needs(1, 1),
		Long: `Shows a pool, or, with any of the flags that change a setting, what scaling would do now under that
setting. Nothing is done: to do it, change the renderer (rrm renderers apply).`,
		Example: `  rrm pool demo
  rrm pool demo --max 2
  rrm pool demo --policy queue-time:goal=10s
  rrm pool demo --try new-scaling.yaml`,
		ValidArgsFunction: p.completeRenderers(1),
	}
	f := cmd.Flags()
	f.IntVar(&try.least, "min", 0, "try another least number of resources")
	f.IntVar(&try.most, "max", 0, "try another greatest number of resources")
	f.IntVar(&try.buffer, "buffer", 0, "try another number of slots to keep free")
	f.StringVar(&try.idle, "idle", "", "try another time without users")
	f.StringVar(&try.policy, "policy", "", "try another policy, as `NAME[:PARAMETER=VALUE,...]`; docs/scaling.md")
	f.StringVar(&try.file, "try", "", "try the scaling settings in a `FILE`, YAML or JSON; -: standard input")
	cmd.RunE = p.client(func(c *call, args []string) error {
		body, err := try.body(c, cmd)
		if err != nil {
			return err
		}
		if body == nil {
			pool, raw, err := answer[client.Pool](c.api.GetPool(c.ctx, args[0]))
			if err != nil {
				return err
			}
			return c.show(raw, func() { c.poolDetails(pool) })
		}
		plan, raw, err := answer[client.ScalingPlan](c.api.PlanScalingWithBody(c.ctx, args[0], "application/json", bytes.NewReader(body)))
		if err != nil {
			return err
		}
		return c.show(raw, func() { c.planDetails(plan) })
	})
	return clientFlags(cmd)
}

// tried are settings of scaling to be tried.
type tried struct {
	least, most, buffer int
	idle, policy, file  string
}

// body is the request; nil if there is nothing to try.
func (t *tried) body(c *call, cmd *cobra.Command) ([]byte, error) {
	set := map[string]any{}
	if t.file != "" {
		raw, err := c.readFile(t.file)
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(raw, &set); err != nil {
			return nil, usage("%s: %s", t.file, err)
		}
		if inner, whole := set["scaling"].(map[string]any); whole {
			set = inner // the settings of a renderer
		}
	}
	for name, value := range map[string]any{"min": t.least, "max": t.most, "buffer": t.buffer, "idle": t.idle} {
		if cmd.Flags().Changed(name) {
			set[name] = value
		}
	}
	if t.policy != "" {
		p, err := domain.ParseScalingPolicy(t.policy)
		if err != nil {
			return nil, usage("--policy: %s", err)
		}
		set["policy"] = p.Policy
		delete(set, "parameters")
		if len(p.Parameters) > 0 {
			set["parameters"] = p.Parameters
		}
	}
	if len(set) == 0 && t.file == "" {
		return nil, nil
	}
	body, err := json.Marshal(set)
	if err != nil {
		return nil, usage("%s: %s", t.file, err)
	}
	return body, nil
}

func (c *call) planDetails(p client.ScalingPlan) {
	would := "nothing"
	switch {
	case p.Start > 0:
		would = "start " + count(p.Start, "resource", "resources")
	case len(p.Stop) > 0:
		would = "stop " + strings.Join(p.Stop, ", ")
	}
	c.details([][2]string{
		{"Now", count(p.Live, "resource", "resources")},
		{"Would do", would},
		{"Then", count(p.Size, "resource", "resources")},
		{"Because", c.text(p.Reason)},
		{"Policy", c.text(p.Policy)},
	})
}

// advisedText is what other services answered, one line each.
func (c *call) advisedText(all []client.ScalingAdvice) string {
	var lines []string
	for _, a := range all {
		text := c.text(a.Host) + " has not answered"
		if !a.At.IsZero() {
			text = fmt.Sprintf("%s wants %d, %s", c.text(a.Host), a.Size, c.ago(a.At))
		}
		lines = append(lines, text+prefixed(": ", c.text(a.Reason))+prefixed("; no newer answer: ", c.text(a.Problem)))
	}
	return strings.Join(lines, "; ")
}

// shadowText compares the policy in the shadow with the other.
func (c *call) shadowText(s client.ScalingShadow) string {
	if s.Policy == "" {
		return ""
	}
	text := fmt.Sprintf("%s would have %s, %s: %s", c.text(s.Policy), count(s.Size, "resource", "resources"), c.ago(s.Since), c.text(s.Reason))
	took := s.Until.Sub(s.From).Seconds()
	if took <= 0 {
		return text
	}
	if s.DidResourceSeconds > 0 {
		text += fmt.Sprintf("; in %s %.0f %% of the resource-seconds", seconds(took), 100*s.WouldResourceSeconds/s.DidResourceSeconds)
	} else {
		text += "; in " + seconds(took)
	}
	return text + fmt.Sprintf(", too few slots for %.0f %% of the time (somebody waited for %.0f %%)", 100*s.WouldShortSeconds/took, 100*s.DidShortSeconds/took)
}
