package rrmv1

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-shellwords"

	"github.com/rendering-resource-manager/rrm/domain"
)

// defaultModel is the key where params name no model, so that all such sessions are alike.
const defaultModel = "default"

var (
	// modelOptions are the options by which the predecessor's clients name what to
	// show: --volume of livre, -b of rtneuron, --morphology-folder and such of brayns.
	modelOptions = regexp.MustCompile(`^(--volume|-b|--[A-Za-z0-9][A-Za-z0-9_-]*-folder)$`)
	placeholder  = regexp.MustCompile(`\$\{([^}]*)\}?`)
)

// known are the placeholders that every launcher replaces in arguments.
var known = map[string]bool{"rest_hostname": true, "rest_port": true, "rest_schema": true, "job_id": true}

// params are a session's arguments for its renderer, and the model that they name.
type params struct {
	model domain.ModelKey
	// rest are the arguments without those that name the model.
	rest string
	// all are the arguments as they were sent.
	all string
}

// parseParams finds the model in a session's arguments. It splits them as the
// launchers do, and refuses what they would refuse later.
func parseParams(text string) (params, error) {
	text = strings.TrimSpace(text)
	p := params{all: text}
	split, err := splitWords(text)
	if err != nil {
		return p, err
	}
	for _, found := range placeholder.FindAllStringSubmatch(text, -1) {
		if !known[found[1]] || !strings.HasSuffix(found[0], "}") {
			return p, domain.Invalid("params", "params have the unknown placeholder %s", found[0])
		}
	}
	var rest []string
	for i := 0; i < len(split); i++ {
		name, value, joined := strings.Cut(split[i], "=")
		switch {
		case p.model != "" || !modelOptions.MatchString(name):
			rest = append(rest, split[i])
		case joined && value != "":
			p.model = domain.ModelKey(value)
		case !joined && i+1 < len(split) && split[i+1] != "" && !strings.HasPrefix(split[i+1], "-"):
			p.model = domain.ModelKey(split[i+1])
			i++
		default:
			rest = append(rest, split[i])
		}
	}
	switch {
	case p.model != "":
		p.rest = join(rest)
	case text == "":
		p.model = defaultModel
	default:
		p.model = domain.ModelKey(text)
		if strings.HasPrefix(text, "-") {
			p.rest = text // options, and not only a name
		}
	}
	return p, domain.CheckText("params", string(p.model), domain.MaxModelKey)
}

func splitWords(text string) ([]string, error) {
	p := shellwords.NewParser()
	p.ParseEnv, p.ParseBacktick, p.ParseComment = false, false, false
	all, err := p.Parse(text)
	if err != nil {
		return nil, domain.Invalid("params", "params cannot be split into words: quotes or parentheses do not match")
	}
	if p.Position >= 0 {
		return nil, domain.Invalid("params", "params are not run by a shell: ; & | < > must be quoted")
	}
	return all, nil
}

// plainWord is what needs no quotes.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./~^{}$#-]+$`)

// join writes words so that they are split into the same again.
func join(all []string) string {
	out := make([]string, len(all))
	for i, w := range all {
		out[i] = w
		if !plainWord.MatchString(w) {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

// allocation reads Slurm's forms of a time: minutes, minutes:seconds,
// hours:minutes:seconds, days-hours, days-hours:minutes and days-hours:minutes:seconds.
func allocation(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	days, clock, hasDays := strings.Cut(text, "-")
	units := [][]time.Duration{nil, {time.Minute}, {time.Minute, time.Second}, {time.Hour, time.Minute, time.Second}}
	if hasDays {
		units = [][]time.Duration{nil, {time.Hour}, {time.Hour, time.Minute}, {time.Hour, time.Minute, time.Second}}
	} else {
		days, clock = "0", text
	}
	parts := strings.Split(clock, ":")
	if len(parts) >= len(units) {
		return 0, badTime(text)
	}
	total, err := count(days, 24*time.Hour)
	if err != nil {
		return 0, badTime(text)
	}
	for i, unit := range units[len(parts)] {
		d, err := count(parts[i], unit)
		if err != nil {
			return 0, badTime(text)
		}
		total += d
	}
	return total, nil
}

func count(text string, unit time.Duration) (time.Duration, error) {
	const most = 1 << 20 // far from what a Duration cannot hold
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > most || time.Duration(n)*unit > 10*365*24*time.Hour {
		return 0, fmt.Errorf("%q is too much, or no number", text)
	}
	return time.Duration(n) * unit, nil
}

func badTime(text string) error {
	return domain.Invalid("allocation_time", "allocation_time is minutes, or [days-]hours:minutes:seconds, not %q", text)
}
