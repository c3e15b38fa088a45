package slurm

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/mattn/go-shellwords"

	"github.com/rendering-resource-manager/rrm/domain"
)

// word is one argument or value of the program's, as parts of which some are
// known only on the node.
type word []part

// part is text, or the shell variable of the batch script that has it.
type part struct {
	text     string
	variable string
}

// onNode are the placeholders whose values only the node knows, with the
// variables of the batch script that hold them.
var onNode = map[string]string{
	"rest_hostname": "rrm_host",
	"rest_port":     "rrm_port",
	"job_id":        "SLURM_JOB_ID",
}

// shell writes the word so that the shell of the batch script reads exactly
// that word, whatever it contains.
func (w word) shell() string {
	if len(w) == 0 {
		return "''"
	}
	var b strings.Builder
	for _, p := range w {
		if p.variable != "" {
			b.WriteString(`"${` + p.variable + `}"`)
		} else {
			b.WriteString(quote(p.text))
		}
	}
	return b.String()
}

// quote makes one word of bash out of any text. Control characters are written
// by number: sbatch refuses scripts with "\r\n", and a new line in a
// script is a line of Slurm's options if it begins with #SBATCH.
func quote(s string) string {
	if strings.IndexFunc(s, isControl) < 0 {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for _, c := range []byte(s) {
		switch {
		case c == '\\' || c == '\'':
			b.WriteByte('\\')
			b.WriteByte(c)
		case isControl(rune(c)):
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String() + "'"
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// splitWords splits at white space, quotes and backslashes as shells do, and
// refuses what only a shell could carry out.
func splitWords(field, line string) ([]string, error) {
	if strings.ContainsRune(line, 0) {
		return nil, domain.Invalid(field, "%s contains a NUL character", field)
	}
	p := shellwords.NewParser()
	p.ParseEnv, p.ParseBacktick, p.ParseComment = false, false, false
	words, err := p.Parse(line)
	if err != nil {
		return nil, domain.Invalid(field, "%s cannot be split into words: quotes or parentheses do not match", field)
	}
	if p.Position >= 0 { // the parser stops at ; & | < > and tells only what came before
		return nil, domain.Invalid(field, "%s is not run by a shell: ; & | < > must be quoted", field)
	}
	return words, nil
}

var placeholders = regexp.MustCompile(`\$\{([^}]*)\}`)

// expand fills in the placeholders of a text. What a value contains is not looked at again.
func expand(field, text string, values map[string]string) (word, error) {
	if strings.ContainsRune(text, 0) {
		return nil, domain.Invalid(field, "%s contains a NUL character", field)
	}
	var w word
	from := 0
	for _, m := range placeholders.FindAllStringSubmatchIndex(text, -1) {
		if m[0] > from {
			w = append(w, part{text: text[from:m[0]]})
		}
		from = m[1]
		name := text[m[2]:m[3]]
		value, known := values[name]
		switch {
		case onNode[name] != "":
			w = append(w, part{variable: onNode[name]})
		case !known:
			return nil, domain.Invalid(field, "%s has the unknown placeholder ${%s}; known are %s", field, name, knownPlaceholders(values))
		case name == "model" && value == "":
			return nil, domain.Invalid(field, "%s asks for ${model} but this resource has no model of its own (model_loading is not %s)", field, domain.LoadCommandLine)
		case strings.ContainsRune(value, 0):
			return nil, domain.Invalid(name, "the %s contains a NUL character", name)
		default:
			w = append(w, part{text: value})
		}
	}
	if from < len(text) {
		w = append(w, part{text: text[from:]})
	}
	return w, nil
}

func knownPlaceholders(values map[string]string) string {
	names := slices.Sorted(maps.Keys(values))
	names = append(names, slices.Sorted(maps.Keys(onNode))...)
	for i, n := range names {
		names[i] = "${" + n + "}"
	}
	return strings.Join(names, " ")
}

// arguments splits and expands one line of the renderer's settings.
func arguments(field, line string, values map[string]string) ([]word, error) {
	words, err := splitWords(field, line)
	if err != nil {
		return nil, err
	}
	out := make([]word, len(words))
	for i, text := range words {
		if out[i], err = expand(field, text, values); err != nil {
			return nil, err
		}
		// Clients choose model keys; one must not become an option of the renderer.
		if len(out[i]) > 0 && strings.HasPrefix(out[i][0].text, "-") && !strings.HasPrefix(text, "-") {
			return nil, domain.Invalid("model", "the model key %q would be read as an option by the renderer", values["model"])
		}
	}
	return out, nil
}
