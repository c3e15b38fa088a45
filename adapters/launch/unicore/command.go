package unicore

import (
	"crypto/sha256"
	_ "embed" // of the script below
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mattn/go-shellwords"

	"github.com/rendering-resource-manager/rrm/domain"
)

// startScript is the job: the same bytes for each resource.
//
//go:embed start.sh
var startScript []byte

// The files in a job's directory.
const (
	scriptFile  = "rrm-start"
	launchFile  = "rrm-launch"  // what startScript reads
	addressFile = "rrm-address" // what it writes: where the renderer is
)

// The variables that the launcher sets itself.
const (
	markResource = "RRM_RESOURCE"
	markService  = "RRM_SERVICE"
	markAddress  = "RRM_ADDRESS"
)

var (
	envNames     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	hostNames    = regexp.MustCompile(`^[A-Za-z0-9:]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9:])?$`)
	moduleNames  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+/@:-]*$`)
	placeholders = regexp.MustCompile(`\$\{([^}]*)\}`)
)

// launchData is the file of words that startScript reads: settings, modules,
// then the environment and the command as env(1) takes them.
func (l *Launcher) launchData(spec domain.LaunchSpec) ([]byte, error) {
	r := spec.Renderer
	// Where the renderer runs is known on its node only. The marks for host and port
	// are the same for the same launch, and nobody can put them into a value beforehand.
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", l.name(spec.Resource), r.CommandLine, r.SchedulerFormat, spec.Model, r.Environment))
	mark := "rrm-" + hex.EncodeToString(sum[:16])
	values := map[string]string{
		"rest_hostname": mark + "-host", "rest_port": mark + "-port",
		// As the predecessor had it: a name that no other resource has.
		"rest_schema": "rest" + string(r.ID) + string(spec.Resource),
		"job_id":      string(spec.Resource), "model": string(spec.Model),
	}
	command, err := commandWords(r, values)
	if err != nil {
		return nil, err
	}
	vars, err := environment(r.Environment, values)
	if err != nil {
		return nil, err
	}
	vars = append(vars, markResource+"="+string(spec.Resource), markService+"="+l.opts.Service, markAddress+"="+mark+"-host:"+mark+"-port")
	words := []string{
		mark, l.opts.ListenHost, strconv.Itoa(l.opts.FirstPort), strconv.Itoa(l.opts.LastPort - l.opts.FirstPort + 1),
		strconv.Itoa(int(l.nextPort.Add(1))),
		strconv.Itoa(int(r.AllocationTime.Std().Seconds())), r.WorkDir, strconv.Itoa(len(r.Modules)),
	}
	for _, m := range r.Modules {
		if !moduleNames.MatchString(m) {
			return nil, domain.Invalid("modules", "%q is not the name of an environment module", m)
		}
		words = append(words, m)
	}
	words = append(words, strconv.Itoa(len(vars)+len(command)))
	words = slices.Concat(words, vars, command)
	for _, w := range words {
		if strings.ContainsRune(w, 0) {
			return nil, domain.Invalid("command_line", "the command contains a NUL character")
		}
	}
	return []byte(strings.Join(words, "\x00") + "\x00"), nil
}

// commandWords is the command line and then the arguments of the scheduler's
// format, split into words as a shell would but by no shell.
func commandWords(r domain.Renderer, values map[string]string) ([]string, error) {
	var command []string
	for _, part := range []struct{ field, line string }{
		{"command_line", r.CommandLine}, {"scheduler_rest_parameters_format", r.SchedulerFormat},
	} {
		words, err := splitWords(part.field, part.line)
		if err != nil {
			return nil, err
		}
		for _, w := range words {
			s, err := expand(part.field, w, values)
			if err != nil {
				return nil, err
			}
			// Clients choose model keys; one must not become an option of the renderer.
			if strings.HasPrefix(s, "-") && !strings.HasPrefix(w, "-") {
				return nil, domain.Invalid("model", "the model key %q would be read as an option by the renderer", values["model"])
			}
			command = append(command, s)
		}
		if part.field == "command_line" && (len(command) == 0 || command[0] == "") {
			return nil, domain.Invalid(part.field, "the command line names no program")
		}
	}
	if strings.Contains(command[0], "=") || strings.HasPrefix(command[0], "-") {
		return nil, domain.Invalid("command_line", "%q cannot be the name of a program at a site: env(1) would not take it for one", command[0])
	}
	return command, nil
}

// splitWords refuses what only a shell could carry out.
func splitWords(field, line string) ([]string, error) {
	p := shellwords.NewParser()
	p.ParseEnv, p.ParseBacktick, p.ParseComment = false, false, false
	words, err := p.Parse(line)
	if err != nil {
		return nil, domain.Invalid(field, "%s cannot be split into words: quotes or parentheses do not match", field)
	}
	if p.Position >= 0 { // the parser stops at ; & | < > and returns only what came before
		return nil, domain.Invalid(field, "%s is not run by a shell: ; & | < > must be quoted", field)
	}
	return words, nil
}

// expand replaces each ${name}, once: what a value contains is not looked at again.
func expand(field, text string, values map[string]string) (string, error) {
	var bad error
	out := placeholders.ReplaceAllStringFunc(text, func(match string) string {
		name := match[2 : len(match)-1]
		value, known := values[name]
		switch {
		case bad != nil:
		case !known:
			bad = domain.Invalid(field, "%s has the unknown placeholder %s; known are ${%s}", field, match, strings.Join(slices.Sorted(maps.Keys(values)), "} ${"))
		case name == "model" && value == "":
			bad = domain.Invalid(field, "%s asks for %s but this resource has no model of its own (model_loading is not %s)", field, match, domain.LoadCommandLine)
		}
		return value
	})
	return out, bad
}

// environment is what the settings say; the rest of a job's environment is the site's.
func environment(settings, values map[string]string) ([]string, error) {
	const field = "environment_variables"
	var env []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if !envNames.MatchString(name) {
			return nil, domain.Invalid(field, "%q is not a name for an environment variable", name)
		}
		if name == markResource || name == markService || name == markAddress {
			return nil, domain.Invalid(field, "%s is set by rrm itself", name)
		}
		value, err := expand(field, settings[name], values)
		if err != nil {
			return nil, err
		}
		if strings.ContainsRune(value, 0) {
			return nil, domain.Invalid(field, "the value of %s contains a NUL character", name)
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}
