package domain

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

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
	kindURL      = "url"
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
	{Policies: []string{ScalingForecast}, Name: "risk", Kind: kindNumber, Low: 0.001, High: 0.9, Default: "0.1",
		Meaning: "share of the requests that may find no free slot and wait for a start",
		Reason:  "nine of ten find one; half of that costs about a tenth more resource-seconds on bursty demand, and shortens waits that are short"},
	{Policies: []string{ScalingQueueTime}, Name: "goal", Kind: kindDuration, Low: 1, High: 86400, Default: "30s",
		Meaning: "how long the wished share of the requests waits at most",
		Reason:  "about a start and a bit; a goal below a start has to be held by slots that are free in advance"},
	{Policies: []string{ScalingQueueTime}, Name: "share", Kind: kindNumber, Low: 0.5, High: 0.999, Default: "0.95",
		Meaning: "share of the requests that are to begin within the goal",
		Reason:  "the 95th percentile is how waiting is usually stated"},
	{Policies: []string{ScalingWebhook}, Name: "url", Kind: kindURL, High: 2048, Default: "",
		Meaning: "the http or https address that is asked, on a host that the operator of the service allows with --callback-hosts",
		Reason:  "it has no default"},
	{Policies: []string{ScalingWebhook}, Name: "interval", Kind: kindDuration, Low: 1, High: 3600, Default: "30s",
		Meaning: "time between two questions",
		Reason:  "that of Agones' FleetAutoscaler; an answer can hardly be acted upon faster than a start"},
	{Policies: []string{ScalingWebhook}, Name: "deadline", Kind: kindDuration, Low: 0.1, High: 30, Default: "5s",
		Meaning: "time for an answer; later counts as none",
		Reason:  "shorter than any interval that is of use; who has not answered by then rather not be waited for"},
	{Policies: []string{ScalingWebhook}, Name: "valid", Kind: kindDuration, Low: 5, High: 86400, Default: "10m",
		Meaning: "how long an answer holds when no other comes; then the next of the chain decides, or demand",
		Reason:  "twenty intervals: longer than a restart of the service that answers, shorter than anybody would want an old wish to count"},
	{Policies: []string{ScalingBuffer}, Name: "size", Kind: kindSize, High: maxResources * maxSlots, Default: "1",
		Meaning: "slots to keep free: a number, or a percentage of all slots, 1% to 99%",
		Reason:  "Agones, FleetAutoscaler, bufferSize; it has no default, and 1 is the least that is of use"},
}

// read gives the value of a parameter's text.
func (s ScalingParameter) read(text string) (v float64, percent bool, err error) {
	switch s.Kind {
	case kindURL:
		return 0, false, checkURL(text, int(s.High))
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

// checkURL checks what the domain can; whether it may be asked at all is for the service to say.
func checkURL(text string, most int) error {
	rest, secure := strings.CutPrefix(text, "https://")
	plain := false
	if !secure {
		rest, plain = strings.CutPrefix(text, "http://")
	}
	host, _, _ := strings.Cut(rest, "/")
	if !secure && !plain || host == "" || strings.ContainsAny(host, "@?#") || len(text) > most || CheckText("url", text, most) != nil {
		return fmt.Errorf("it is an http or https address without a user, not %q", text)
	}
	return nil
}
