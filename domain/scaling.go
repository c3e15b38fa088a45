package domain

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
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
	Policy     string     `json:"policy,omitempty"` // "": demand, as in settings from before there was a choice
	Parameters Parameters `json:"parameters,omitempty"`
}

// The policies of scaling; see docs/scaling.md.
const (
	ScalingDemand    = "demand"
	ScalingBuffer    = "buffer"
	ScalingQueueTime = "queue-time"
	ScalingForecast  = "forecast"
)

// DefaultScalingPolicy is what settings get that name none.
const DefaultScalingPolicy = ScalingForecast

// ScalingPolicies are the names of all policies of scaling.
func ScalingPolicies() []string {
	return []string{ScalingBuffer, ScalingDemand, ScalingForecast, ScalingQueueTime}
}

// Learning is the choice of policy whose parameters say how the demand is
// learned: the first that forecasts, be it only the shadow, else the defaults.
func (s ScalingSettings) Learning() ScalingPolicy {
	if s.Policy == ScalingForecast || s.Policy == ScalingQueueTime {
		return s.ScalingPolicy
	}
	if s.Shadow != nil && (s.Shadow.Policy == ScalingForecast || s.Shadow.Policy == ScalingQueueTime) {
		return *s.Shadow
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

// ScalingParameter says what a parameter means and how it is bounded. The same
// list checks the settings, gives the policies their defaults, and is in docs/scaling.md.
type ScalingParameter struct {
	Policies []string // that have it; nil: all
	Name     string
	Kind     string // duration, number, count, size (a count or a percentage)
	Low      float64
	High     float64 // durations: seconds
	Default  string
	Meaning  string
	Reason   string // for the default, with its source
}

// Kinds of parameter.
const (
	kindDuration = "duration"
	kindNumber   = "number"
	kindCount    = "count"
	kindSize     = "size"
)

var scalingParameters = []ScalingParameter{
	{Name: "up_per_minute", Kind: kindCount, High: maxResources, Default: "0",
		Meaning: "resources that may be started in one minute; 0: no limit",
		Reason:  "a scheduler, a licence server or a file system may not bear many starts at once; most do"},
	{Name: "down_per_minute", Kind: kindCount, High: maxResources, Default: "0",
		Meaning: "resources that may be stopped in one minute; 0: no limit",
		Reason:  "a limit costs idle resources; what is stopped is idle anyway"},
	{Policies: []string{ScalingForecast, ScalingQueueTime}, Name: "window", Kind: kindDuration, High: 86400, Default: "0s",
		Meaning: "stabilisation: resources go when fewer have been enough for so long; at least the time that a start takes",
		Reason:  "what is stopped and started again costs a start, so to wait for about as long is never more than twice too dear (ski rental, Karlin et al. 1988)"},
	{Policies: []string{ScalingForecast, ScalingQueueTime}, Name: "head", Kind: kindNumber, High: 50, Default: "5",
		Meaning: "percentile of a model's idle times before which it is not expected back",
		Reason:  "Shahrad et al., Serverless in the Wild, 2020: 5"},
	{Policies: []string{ScalingForecast, ScalingQueueTime}, Name: "tail", Kind: kindNumber, Low: 50, High: 100, Default: "99",
		Meaning: "percentile of a model's idle times after which it is not expected back, and not kept",
		Reason:  "Shahrad et al., Serverless in the Wild, 2020: 99"},
	{Policies: []string{ScalingForecast}, Name: "risk", Kind: kindNumber, Low: 0.001, High: 0.9, Default: "0.05",
		Meaning: "share of the requests that may find no free slot and wait for a start",
		Reason:  "19 of 20 find one, so that the 95th percentile of the wait is near nothing; a smaller share costs more idle resources"},
	{Policies: []string{ScalingQueueTime}, Name: "goal", Kind: kindDuration, Low: 1, High: 86400, Default: "30s",
		Meaning: "how long the wished share of the requests waits at most",
		Reason:  "about a start and a bit; a goal below a start has to be held by slots that are free in advance"},
	{Policies: []string{ScalingQueueTime}, Name: "share", Kind: kindNumber, Low: 0.5, High: 0.999, Default: "0.95",
		Meaning: "share of the requests that are to begin within the goal",
		Reason:  "the 95th percentile is how waiting is usually stated"},
	{Policies: []string{ScalingBuffer}, Name: "size", Kind: kindSize, High: maxResources * maxSlots, Default: "1",
		Meaning: "slots to keep free: a number, or a percentage of all slots, 1% to 99%",
		Reason:  "Agones, FleetAutoscaler, bufferSize; it has no default, and 1 is the least that is of use"},
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

// read gives the value of a parameter's text.
func (s ScalingParameter) read(text string) (v float64, percent bool, err error) {
	switch s.Kind {
	case kindDuration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, false, fmt.Errorf("it is a duration such as \"30s\", not %q", text)
		}
		v = d.Seconds()
	case kindSize:
		if share, is := strings.CutSuffix(text, "%"); is {
			v, err = strconv.ParseFloat(share, 64)
			if err != nil || !(v >= 1 && v <= 99) {
				return 0, true, fmt.Errorf("a percentage is from 1%% to 99%%, not %q", text)
			}
			return v, true, nil
		}
		fallthrough
	default:
		if v, err = strconv.ParseFloat(text, 64); err != nil || math.IsNaN(v) {
			return 0, false, fmt.Errorf("it is a number, not %q", text)
		}
		if s.Kind != kindNumber && v != math.Trunc(v) {
			return 0, false, fmt.Errorf("it is a whole number, not %q", text)
		}
	}
	if v < s.Low || v > s.High {
		return 0, false, fmt.Errorf("it is from %s to %s, not %q", s.bound(s.Low), s.bound(s.High), text)
	}
	return v, false, nil
}

func (s ScalingParameter) bound(v float64) string {
	if s.Kind == kindDuration {
		return time.Duration(v * float64(time.Second)).String()
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
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
		if !known {
			return Invalid(field+".parameters."+name, "the policy %s has no parameter %q; it has %q", p.Policy, name, namesOf(p.Policy))
		}
		if _, _, err := s.read(p.Parameters[name]); err != nil {
			return Invalid(field+".parameters."+name, "%s: %s; %s", name, s.Meaning, err)
		}
	}
	return nil
}

func namesOf(policy string) []string {
	var names []string
	for _, s := range ScalingParametersOf(policy) {
		names = append(names, s.Name)
	}
	return names
}
