package rrmv1

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/rendering-resource-manager/rrm/domain"
)

// environment is a set of variables as the predecessor's clients write it:
// NAME=VALUE, with commas or white space between. A value is taken as it
// stands, without quoting; what cannot be told apart is refused. Any value at all can be
// sent as an object, or as text that holds one.
type environment map[string]string

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// UnmarshalJSON takes text, an object or null.
func (e *environment) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		var object map[string]string
		if err := json.Unmarshal(b, &object); err != nil {
			return fmt.Errorf("environment variables are text like NAME=VALUE, or an object of texts: %w", err)
		}
		*e = object
		return nil
	}
	all, err := parseEnvironment(text)
	*e = all
	return err
}

func parseEnvironment(text string) (environment, error) {
	if text = strings.TrimSpace(text); strings.HasPrefix(text, "{") {
		var object map[string]string
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			return nil, fmt.Errorf("environment variables begin as an object and are none: %w", err)
		}
		return object, nil
	}
	all := environment{}
	for _, word := range words(text) {
		name, value, ok := strings.Cut(word, "=")
		if !ok || !variable.MatchString(name) {
			return nil, fmt.Errorf("%q in the environment is not NAME=VALUE; send values that hold commas or white space as a JSON object", word)
		}
		if torn(value) {
			return nil, fmt.Errorf("the value of %s may have been cut in two at a comma or at white space; send it as a JSON object", name)
		}
		all[name] = value
	}
	return all, nil
}

// words splits the predecessor's lists: commas or white space between, or both.
func words(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || unicode.IsSpace(c) })
}

// torn says that a value looks like a part of one: with a quote or bracket open,
// or with what keeps a space from being the end.
func torn(value string) bool {
	for _, quote := range []string{`"`, `'`, "`"} {
		if strings.Count(value, quote)%2 != 0 {
			return true
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(value, pair[:1]) != strings.Count(value, pair[1:]) {
			return true
		}
	}
	return strings.HasSuffix(value, `\`)
}

// String writes variables so that they can be read back: as the
// predecessor did where that says it all, else as an object.
func (e environment) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		all = append(all, name+"="+e[name])
	}
	text := strings.Join(all, ",")
	if again, err := parseEnvironment(text); err == nil && maps.Equal(again, e) {
		return text
	}
	b, err := json.Marshal(map[string]string(e))
	if err != nil { // texts only
		panic(err)
	}
	return string(b)
}

// check refuses what a session may not set: what the service sets itself, and
// what makes a program run other code than its own. ${...} would be replaced by the launcher.
func (e environment) check() error {
	for _, name := range slices.Sorted(maps.Keys(e)) {
		switch {
		case strings.HasPrefix(name, "RRM_"), name == "LD_PRELOAD", name == "LD_AUDIT":
			return domain.Invalid("environment", "%s is not a session's to set", name)
		case strings.Contains(e[name], "${"):
			return domain.Invalid("environment", "the value of %s has a placeholder; they are for configurations only", name)
		}
	}
	return nil
}
