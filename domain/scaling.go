package domain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ScalingSettings bound the number of a pool's resources, and choose the
// policy that decides it within these bounds.
type ScalingSettings struct {
	Min    int      `json:"min"`
	Max    int      `json:"max"`
	Buffer int      `json:"buffer"` // free slots to keep beyond what is asked for, whatever the policy
	Idle   Duration `json:"idle"`   // how long a resource may be unused before it is removed
	ScalingPolicy
	Shadow *ScalingPolicy `json:"shadow,omitempty"` // decides beside the other: recorded and compared, never carried out
}

// ScalingPolicy names a policy of scaling and says what it is told.
type ScalingPolicy struct {
	Policy     string          `json:"policy,omitempty"` // "": demand, as in settings from before there was a choice
	Parameters Parameters      `json:"parameters,omitempty"`
	Schedule   []ScheduleEntry `json:"schedule,omitempty"` // of schedule: the first entry whose time it is holds
	Chain      []ScalingPolicy `json:"chain,omitempty"`    // of chain: the first that has an answer decides
}

// The policies of scaling; see docs/scaling.md.
const (
	ScalingDemand    = "demand"
	ScalingBuffer    = "buffer"
	ScalingQueueTime = "queue-time"
	ScalingForecast  = "forecast"
	ScalingSchedule  = "schedule"
	ScalingWebhook   = "webhook"
	ScalingChain     = "chain"
)

// DefaultScalingPolicy is what settings get that name none.
const DefaultScalingPolicy = ScalingForecast

// ScalingPolicies are the names of all policies of scaling.
func ScalingPolicies() []string {
	return []string{ScalingBuffer, ScalingDemand, ScalingForecast, ScalingQueueTime, ScalingSchedule, ScalingWebhook, ScalingChain}
}

// Learning is the choice of policy whose parameters say how the demand is
// learned: the first that forecasts, be it only the shadow, else the defaults.
func (s ScalingSettings) Learning() ScalingPolicy {
	choices := s.all()
	if s.Shadow != nil {
		choices = slices.Concat(choices, s.Shadow.all())
	}
	for _, c := range choices {
		if c.Policy == ScalingForecast || c.Policy == ScalingQueueTime {
			return c
		}
	}
	return ScalingPolicy{Policy: ScalingForecast}
}

// Parameters are a policy's own settings, by name, each as text: a duration
// such as "30s", a number, a percentage. In JSON they may be numbers as well.
type Parameters map[string]string

// UnmarshalJSON takes numbers for the text that they are.
func (p *Parameters) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return fmt.Errorf("read parameters: %w", err)
	}
	out := make(Parameters, len(raw))
	for name, v := range raw {
		var text string
		var number json.Number
		switch {
		case json.Unmarshal(v, &text) == nil:
		case json.Unmarshal(v, &number) == nil:
			text = number.String()
		default:
			return fmt.Errorf("the parameter %q is a number or a text", name)
		}
		out[name] = text
	}
	*p = out
	return nil
}

// ScalingParametersOf are the parameters that a policy has.
func ScalingParametersOf(policy string) []ScalingParameter {
	var all []ScalingParameter
	for _, p := range scalingParameters {
		if p.Policies == nil || slices.Contains(p.Policies, policy) {
			all = append(all, p)
		}
	}
	return all
}

func (p ScalingPolicy) spec(name string) (ScalingParameter, bool) {
	for _, s := range scalingParameters {
		if s.Name == name && (s.Policies == nil || slices.Contains(s.Policies, p.Policy)) {
			return s, true
		}
	}
	return ScalingParameter{}, false
}

// text is a parameter as it was given, else its default.
func (p ScalingPolicy) text(name string) string {
	if v, ok := p.Parameters[name]; ok {
		return v
	}
	s, _ := p.spec(name)
	return s.Default
}

// Number is a parameter's value; that of a duration in seconds. Settings were
// checked when they were made; what cannot be read is 0.
func (p ScalingPolicy) Number(name string) float64 {
	s, _ := p.spec(name)
	v, _, err := s.read(p.text(name))
	if err != nil {
		return 0
	}
	return v
}

// Count is a parameter's value as a whole number.
func (p ScalingPolicy) Count(name string) int { return int(p.Number(name)) }

// Duration is the value of a parameter that is a duration.
func (p ScalingPolicy) Duration(name string) time.Duration {
	return time.Duration(p.Number(name) * float64(time.Second))
}

// Size is the value of a parameter that is a number or a percentage.
func (p ScalingPolicy) Size(name string) (n float64, percent bool) {
	s, _ := p.spec(name)
	n, percent, _ = s.read(p.text(name))
	return n, percent
}

// ParseScalingPolicy reads "NAME" or "NAME:parameter=value,…", as command lines have it. It is checked with the settings.
func ParseScalingPolicy(text string) (ScalingPolicy, error) {
	name, list, some := strings.Cut(text, ":")
	p := ScalingPolicy{Policy: name}
	if !some {
		return p, nil
	}
	p.Parameters = Parameters{}
	for _, one := range strings.Split(list, ",") {
		key, value, ok := strings.Cut(one, "=")
		if _, twice := p.Parameters[key]; !ok || key == "" || twice {
			return p, Invalid("policy", "%q is not like parameter=value, or it is there twice", one)
		}
		p.Parameters[key] = value
	}
	return p, nil
}

func (p *ScalingPolicy) fill() {
	if len(p.Parameters) == 0 {
		p.Parameters = nil // so that settings which mean the same are the same
	}
	if len(p.Schedule) == 0 {
		p.Schedule = nil
	}
	if len(p.Chain) == 0 {
		p.Chain = nil
	}
	p.Chain = slices.Clone(p.Chain) // the caller's stays as it is
	for i := range p.Chain {
		p.Chain[i].fill()
	}
}

// checkScaling refuses, by field, a choice of policy that cannot be.
func checkScaling(r *Renderer) error {
	if r.Scaling.Min > r.Scaling.Max {
		return Invalid("scaling.min", "the minimum of %d is more than the maximum of %d", r.Scaling.Min, r.Scaling.Max)
	}
	if err := r.Scaling.check("scaling"); err != nil {
		return err
	}
	if r.Scaling.Shadow != nil {
		return r.Scaling.Shadow.check("scaling.shadow")
	}
	return nil
}

func (p ScalingPolicy) check(field string) error {
	if !slices.Contains(ScalingPolicies(), p.Policy) {
		return Invalid(field+".policy", "%s.policy is one of %q, not %q", field, ScalingPolicies(), p.Policy)
	}
	names := make([]string, 0, len(p.Parameters))
	for name := range p.Parameters {
		names = append(names, name)
	}
	slices.Sort(names) // so that the same settings are refused for the same reason
	for _, name := range names {
		s, known := p.spec(name)
		if known && s.Policies == nil && strings.Contains(field, ".chain.") {
			return Invalid(field+".parameters."+name, "%s is a parameter of the whole chain", name)
		}
		if !known {
			return Invalid(field+".parameters."+name, "the policy %s has no parameter %q; it has %q", p.Policy, name, namesOf(p.Policy))
		}
		if _, _, err := s.read(p.Parameters[name]); err != nil {
			return Invalid(field+".parameters."+name, "%s: %s; %s", name, s.Meaning, err)
		}
	}
	return p.checkParts(field)
}

const maxChain = 8

// checkParts checks the schedule and the chain, and that they are where they belong.
func (p ScalingPolicy) checkParts(field string) error {
	switch {
	case (p.Policy == ScalingSchedule) != (len(p.Schedule) > 0):
		return Invalid(field+".schedule", "the policy schedule has a schedule, and no other has one")
	case len(p.Schedule) > maxSchedule:
		return Invalid(field+".schedule", "a schedule has at most %d entries", maxSchedule)
	case (p.Policy == ScalingChain) != (len(p.Chain) > 0):
		return Invalid(field+".chain", "the policy chain has a chain, and no other has one")
	case len(p.Chain) > maxChain:
		return Invalid(field+".chain", "a chain has at most %d policies", maxChain)
	case p.Policy == ScalingWebhook && p.Parameters["url"] == "":
		return Invalid(field+".parameters.url", "the policy webhook names the address that is asked")
	}
	for i, e := range p.Schedule {
		if err := e.check(fmt.Sprintf("%s.schedule.%d", field, i)); err != nil {
			return err
		}
	}
	for i, c := range p.Chain {
		if c.Policy == ScalingChain {
			return Invalid(fmt.Sprintf("%s.chain.%d.policy", field, i), "a chain holds no chain")
		}
		if err := c.check(fmt.Sprintf("%s.chain.%d", field, i)); err != nil {
			return err
		}
	}
	return nil
}

// Webhook is an address that a policy of scaling asks.
type Webhook struct {
	Field    string // of the settings
	URL      string
	Interval time.Duration // between two questions
	Deadline time.Duration // of an answer
	Valid    time.Duration // of an answer, when no other comes
}

// Webhooks are all that the settings ask, the shadow's too, each address once.
func (s ScalingSettings) Webhooks() []Webhook {
	var all []Webhook
	s.webhooks("scaling", &all)
	if s.Shadow != nil {
		s.Shadow.webhooks("scaling.shadow", &all)
	}
	return all
}

func (p ScalingPolicy) webhooks(field string, all *[]Webhook) {
	at := p.Parameters["url"]
	if p.Policy == ScalingWebhook && !slices.ContainsFunc(*all, func(w Webhook) bool { return w.URL == at }) {
		*all = append(*all, Webhook{
			Field: field + ".parameters.url", URL: at,
			Interval: p.Duration("interval"), Deadline: p.Duration("deadline"), Valid: p.Duration("valid"),
		})
	}
	for i, c := range p.Chain {
		c.webhooks(fmt.Sprintf("%s.chain.%d", field, i), all)
	}
}

// all are the policies of a choice: itself, or those of its chain.
func (p ScalingPolicy) all() []ScalingPolicy {
	if p.Policy == ScalingChain {
		return p.Chain
	}
	return []ScalingPolicy{p}
}

func namesOf(policy string) []string {
	var names []string
	for _, s := range ScalingParametersOf(policy) {
		names = append(names, s.Name)
	}
	return names
}
