package local

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/mattn/go-shellwords"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The marks by which a process is known to be a resource's, whatever became of its record.
const (
	markResource = "RRM_RESOURCE"
	markService  = "RRM_SERVICE"
	markAddress  = "RRM_ADDRESS"
)

// passedOn are the variables of rrm's environment that programs commonly
// need. All others stay behind, above all rrm's own with its secrets.
var passedOn = []string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
	"XDG_RUNTIME_DIR", "DISPLAY", "XAUTHORITY", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
}

// baseEnvironment picks what every resource gets of rrm's own environment.
func baseEnvironment(environ, allow []string) []string {
	var base []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		usual := slices.Contains(passedOn, name) || strings.HasPrefix(name, "LC_")
		if (usual || slices.Contains(allow, name)) && !strings.HasPrefix(name, "RRM_") {
			base = append(base, kv)
		}
	}
	return base
}

// command is what will be run: the command line and then the arguments of the
// process format, split into words as a shell would but by no shell.
func (l *Launcher) command(spec domain.LaunchSpec, port int) (*exec.Cmd, error) {
	r := spec.Renderer
	if len(r.Modules) > 0 {
		return nil, domain.Invalid("modules", "the local launcher loads no environment modules; leave modules empty or use a cluster's launcher")
	}
	values := map[string]string{
		"rest_hostname": host,
		"rest_port":     strconv.Itoa(port),
		// As the predecessor had it: a name that no other resource has.
		"rest_schema": "rest" + string(r.ID) + string(spec.Resource),
		"job_id":      string(spec.Resource),
		"model":       string(spec.Model),
	}
	words, err := splitWords("command_line", r.CommandLine)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, domain.Invalid("command_line", "the command line is empty")
	}
	argv, err := expandAll("command_line", words, values)
	if err != nil {
		return nil, err
	}
	words, err = splitWords("process_rest_parameters_format", r.ProcessFormat)
	if err != nil {
		return nil, err
	}
	more, err := expandAll("process_rest_parameters_format", words, values)
	if err != nil {
		return nil, err
	}
	argv = append(argv, more...)
	env, err := l.environment(r.Environment, values)
	if err != nil {
		return nil, err
	}
	env = setEnv(env, markResource, string(spec.Resource))
	env = setEnv(env, markService, l.opts.Service)
	env = setEnv(env, markAddress, net.JoinHostPort(host, strconv.Itoa(port)))
	program, err := l.program(argv[0], env)
	if err != nil {
		return nil, err
	}
	if r.WorkDir != "" { // else the failure would be told of the program
		if st, err := os.Stat(r.WorkDir); err != nil || !st.IsDir() {
			return nil, launchFailed("the working directory %s is none: %v", r.WorkDir, err)
		}
	}
	return &exec.Cmd{
		Path: program, Args: argv, Env: env, Dir: cmp.Or(r.WorkDir, l.opts.WorkDir),
		// A session of its own: no terminal's Ctrl-C reaches it, and it leads the group that Stop ends.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}, nil
}

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
	if p.Position >= 0 { // the parser stops at ; & | < > and returns only what came before
		return nil, domain.Invalid(field, "%s is not run by a shell: ; & | < > must be quoted", field)
	}
	return words, nil
}

var placeholders = regexp.MustCompile(`\$\{([^}]*)\}`)

// expand replaces each ${name}, once: what a value contains is not looked at again.
func expand(field, text string, values map[string]string) (string, error) {
	var bad error
	out := placeholders.ReplaceAllStringFunc(text, func(match string) string {
		name := match[2 : len(match)-1]
		value, known := values[name]
		switch {
		case bad != nil:
		case !known:
			bad = domain.Invalid(field, "%s has the unknown placeholder %s; known are %s", field, match, knownPlaceholders(values))
		case name == "model" && value == "":
			bad = domain.Invalid(field, "%s asks for %s but this resource has no model of its own (model_loading is not %s)", field, match, domain.LoadCommandLine)
		}
		return value
	})
	return out, bad
}

func knownPlaceholders(values map[string]string) string {
	names := slices.Sorted(maps.Keys(values))
	for i, n := range names {
		names[i] = "${" + n + "}"
	}
	return strings.Join(names, " ")
}

func expandAll(field string, words []string, values map[string]string) ([]string, error) {
	out := make([]string, len(words))
	for i, w := range words {
		s, err := expand(field, w, values)
		if err != nil {
			return nil, err
		}
		// Clients choose model keys; one must not become an option of the renderer.
		if strings.HasPrefix(s, "-") && !strings.HasPrefix(w, "-") {
			return nil, domain.Invalid("model", "the model key %q would be read as an option by the renderer", values["model"])
		}
		out[i] = s
	}
	return out, nil
}

var envNames = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// environment is the base with the renderer's settings over it.
func (l *Launcher) environment(settings, values map[string]string) ([]string, error) {
	const field = "environment_variables"
	env := slices.Clone(l.environ)
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
		env = setEnv(env, name, value)
	}
	return env, nil
}

func setEnv(env []string, name, value string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	return append(env, name+"="+value)
}

// program finds the executable: a bare name in BinDirs and then in the PATH that
// the process itself will have, anything else as a path from the working directory.
func (l *Launcher) program(name string, env []string) (string, error) {
	if name == "" {
		return "", launchFailed("the command line names no program")
	}
	if strings.ContainsRune(name, '/') {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(l.opts.WorkDir, path)
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return "", fmt.Errorf("find program %s: %w", name, err)
		}
		return path, isProgram(path)
	}
	var refused error
	for _, dir := range slices.Concat(l.opts.BinDirs, searchPath(env)) {
		if !filepath.IsAbs(dir) {
			continue // a program must not depend on where rrm was started
		}
		path := filepath.Join(dir, name)
		err := isProgram(path)
		if err == nil {
			return path, nil
		}
		if _, statErr := os.Stat(path); statErr == nil && refused == nil {
			refused = err
		}
	}
	if refused != nil {
		return "", refused
	}
	return "", launchFailed("there is no program %q in the service's directories or on the PATH", name)
}

func searchPath(env []string) []string {
	for _, kv := range env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			return filepath.SplitList(path)
		}
	}
	return nil
}

func isProgram(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return launchFailed("the program cannot be started: %v", err)
	case info.IsDir():
		return launchFailed("%s is a directory, not a program", path)
	case info.Mode()&0o111 == 0:
		return launchFailed("%s is not executable", path)
	}
	return nil
}
