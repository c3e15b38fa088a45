package wrap

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Names of the placeholders. Fields of a job's spec that have no name of
// their own here are {spec.NAME}.
const (
	nameInput     = "input"
	nameOutput    = "output"
	nameDir       = "dir"
	nameFramesDir = "frames_dir"
	nameModel     = "model"
	nameID        = "id"
	nameWidth     = "width"
	nameHeight    = "height"
	nameFrame     = "frame"
	nameFrames    = "frames"
	nameFPS       = "fps"

	specPrefix = "spec."
)

var placeholderNames = []string{
	nameInput, nameOutput, nameWidth, nameHeight, nameFrame, nameFrames, nameFPS, nameModel, nameID, nameDir, nameFramesDir,
}

var specName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// part is a piece of an argument: text that stays, or a placeholder's name.
type part struct{ literal, name string }

// template is one argument of the command, or the value of one variable of its environment.
type template []part

// parseTemplate reads {name}; {{ and }} stand for the braces themselves.
// Whatever else has a brace is refused, so that a misspelled placeholder is
// found when the wrapper starts and not in a picture.
func parseTemplate(text string) (template, error) {
	var t template
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			t = append(t, part{literal: literal.String()})
			literal.Reset()
		}
	}
	for rest := text; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			literal.WriteByte(rest[0])
			rest = rest[2:]
		case rest[0] == '}':
			return nil, fmt.Errorf("%q has a } without its {; the brace itself is written }}", text)
		case rest[0] == '{':
			name, after, closed := strings.Cut(rest[1:], "}")
			if !closed {
				return nil, fmt.Errorf("%q has a { without its }; the brace itself is written {{", text)
			}
			if !knownPlaceholder(name) {
				return nil, fmt.Errorf("%q has the unknown placeholder {%s}; known are {%s} and {spec.NAME}", text, name, strings.Join(placeholderNames, "} {"))
			}
			flush()
			t = append(t, part{name: name})
			rest = after
		default:
			literal.WriteByte(rest[0])
			rest = rest[1:]
		}
	}
	flush()
	return t, nil
}

func knownPlaceholder(name string) bool {
	field, ofSpec := strings.CutPrefix(name, specPrefix)
	return ofSpec && specName.MatchString(field) || slices.Contains(placeholderNames, name)
}

// expand puts the values in, once: what a value contains is not looked at
// again, and it never becomes more than a part of this one argument. An
// argument that becomes an option only by the value that it begins with is
// refused, unless mayDash says that the placeholder's values may do that.
func (t template) expand(values map[string]string, mayDash func(name string) bool) (string, error) {
	var b strings.Builder
	for _, p := range t {
		if p.name == "" {
			b.WriteString(p.literal)
			continue
		}
		value, ok := values[p.name]
		if !ok {
			return "", &fieldError{fieldOf(p.name), "is missing"}
		}
		if b.Len() == 0 && strings.HasPrefix(value, "-") && !mayDash(p.name) {
			return "", &fieldError{fieldOf(p.name), "must not begin with '-': it would be read as an option"}
		}
		b.WriteString(value)
	}
	return b.String(), nil
}

// fieldOf is the field of a job's request that a placeholder's value comes from.
func fieldOf(name string) string {
	switch name {
	case nameModel, nameID:
		return name
	case nameInput:
		return nameModel
	}
	if strings.HasPrefix(name, specPrefix) {
		return name
	}
	return specPrefix + name
}

// command is a program with its arguments and what is added to its environment.
type command struct {
	program string // path
	args    []template
	env     []variable
}

type variable struct {
	name  string
	value template
}

// uses tells whether the placeholder is anywhere in the command or its environment.
func (c *command) uses(name string) bool {
	has := func(t template) bool { return slices.Contains(t, part{name: name}) }
	return slices.ContainsFunc(c.args, has) || slices.ContainsFunc(c.env, func(v variable) bool { return has(v.value) })
}

// specFields are the names that the command wants from the spec as {spec.NAME}.
func (c *command) specFields() []string {
	var out []string
	add := func(t template) {
		for _, p := range t {
			if field, ok := strings.CutPrefix(p.name, specPrefix); ok && !slices.Contains(out, field) {
				out = append(out, field)
			}
		}
	}
	for _, t := range c.args {
		add(t)
	}
	for _, v := range c.env {
		add(v.value)
	}
	return out
}

// expand makes the arguments and the variables ("NAME=value") of one run.
func (c *command) expand(values map[string]string, mayDash func(name string) bool) (args, env []string, err error) {
	for _, t := range c.args {
		arg, err := t.expand(values, mayDash)
		if err != nil {
			return nil, nil, err
		}
		args = append(args, arg)
	}
	for _, v := range c.env {
		value, err := v.value.expand(values, func(string) bool { return true }) // a variable is no option
		if err != nil {
			return nil, nil, err
		}
		env = append(env, v.name+"="+value)
	}
	return args, env, nil
}
