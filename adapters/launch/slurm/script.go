package slurm

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// The marks of a resource in its program's environment.
const (
	markResource = "RRM_RESOURCE"
	markService  = "RRM_SERVICE"
	markAddress  = "RRM_ADDRESS"
)

// Exit statuses of the batch script itself, before it becomes the renderer.
const (
	exitSecond   = 95
	exitScontrol = 96
	exitWorkDir  = 97
	exitModules  = 98
	exitPort     = 99
)

// scriptExits say what they mean.
var scriptExits = map[int]string{
	exitSecond:   "Slurm started the job a second time, as after a crash of its controller",
	exitScontrol: "the node has no scontrol to tell the port with",
	exitWorkDir:  "the working directory cannot be entered on the node",
	exitModules:  "a module could not be loaded",
	exitPort:     "no port is free on the node",
	126:          "the program cannot be executed",
	127:          "the program was not found",
}

// portMark begins the comment by which a job tells its port.
const portMark = "rrm-port:"

var (
	envNames    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	moduleNames = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+/@:=-]{0,255}$`)
	slurmNames  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+,@:-]{0,255}$`)
)

// submission is a resource as sbatch is told of it.
type submission struct {
	name   string // of the Slurm job, unique for ever
	args   []string
	script string
}

// submit turns a resource into what sbatch is given for one site. It is pure:
// all that can be refused without asking Slurm is refused here.
func (l *Launcher) submission(spec domain.LaunchSpec, site *Site) (submission, error) {
	r := spec.Renderer
	sub := submission{name: l.jobName(spec.Resource)}
	for _, n := range []struct{ field, value string }{
		{"queue", r.Queue}, {"project", r.Project}, {"qos", r.QOS}, {"reservation", r.Reservation},
	} {
		if n.value != "" && !slurmNames.MatchString(n.value) {
			return sub, domain.Invalid(n.field, "%q cannot be a name in Slurm", n.value)
		}
	}
	dir := l.dir(site, spec.Resource)
	sub.args = []string{
		"--parsable", "--job-name=" + sub.name,
		"--no-requeue",           // after a node failure Slurm would start it again somewhere, unasked
		"--dependency=singleton", // of two submissions at the same instant only one ever runs
		"--export=ALL",           // of what the runner lets sbatch see, which holds nothing of rrm's
		"--open-mode=append", "--input=/dev/null", "--chdir=" + dir,
		"--output=" + dir + "/stdout", "--error=" + dir + "/stderr",
		"--nodes=" + strconv.Itoa(max(1, r.Nodes)), "--ntasks-per-node=1",
	}
	add := func(given bool, option string, value any) {
		if given {
			sub.args = append(sub.args, fmt.Sprintf("--%s=%v", option, value))
		}
	}
	add(r.CPUs > 0, "cpus-per-task", r.CPUs)
	add(r.GPUs > 0, "gres", fmt.Sprintf("gpu:%d", r.GPUs))
	add(r.Memory > 0, "mem", fmt.Sprintf("%dM", r.Memory))
	add(r.AllocationTime > 0, "time", minutes(r.AllocationTime.Std()))
	add(r.Queue != "", "partition", r.Queue)
	add(r.Project != "", "account", r.Project)
	add(r.QOS != "", "qos", r.QOS)
	add(r.Reservation != "", "reservation", r.Reservation)
	if r.Exclusive {
		sub.args = append(sub.args, "--exclusive")
	}
	var err error
	sub.script, err = l.script(spec, site)
	return sub, err
}

// minutes rounds up: Slurm counts whole minutes.
func minutes(d time.Duration) int { return int((d + time.Minute - 1) / time.Minute) }

// script is the batch script. It picks a port, tells it, and becomes the
// renderer. All of it is one function, called in the last line: a script that
// was cut short on its way does nothing.
func (l *Launcher) script(spec domain.LaunchSpec, site *Site) (string, error) {
	r := spec.Renderer
	for _, m := range r.Modules {
		if !moduleNames.MatchString(m) {
			return "", domain.Invalid("modules", "%q cannot be the name of a module", m)
		}
	}
	program, err := l.program(spec)
	if err != nil {
		return "", err
	}
	workDir, err := expand("working_directory", r.WorkDir, nil)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if len(r.Modules) > 0 && site.ModulesInit == "" {
		line("#!/bin/bash -l") // a login shell knows the site's modules
	} else {
		line("#!/bin/bash")
	}
	line("rrm_fail() { printf 'rrm: %%s\\n' \"$2\" >&2; exit \"$1\"; }")
	line("rrm_main() {")
	line("rrm_node=${SLURMD_NODENAME:-$(hostname -s)}")
	// A controller that is killed may forget that it had started the job, and do so again beside the first.
	line("mkdir \"started-$SLURM_JOB_ID\" || rrm_fail %d \"%s\"", exitSecond, scriptExits[exitSecond])
	before, after, templated := strings.Cut(site.NodeAddress, nodePlaceholder)
	if templated {
		line("rrm_host=%s\"$rrm_node\"%s", quote(before), quote(after))
	} else {
		line("rrm_host=%s", quote(before))
	}
	if site.BinDir != "" {
		line("PATH=$PATH:%s", quote(site.BinDir))
	}
	line("command -v scontrol >/dev/null || rrm_fail %d \"%s: $rrm_node\"", exitScontrol, scriptExits[exitScontrol])
	b.WriteString(portScript(site))
	scriptModules(line, r.Modules, site.ModulesInit)
	if r.WorkDir != "" {
		line("cd -- %s || rrm_fail %d \"the working directory %s does not exist on $rrm_node, or cannot be entered\"", workDir.shell(), exitWorkDir, forMessage(r.WorkDir))
	}
	line("exec env -- %s", program)
	line("}")
	line("rrm_main")
	return b.String(), nil
}

// forMessage is a text inside double quotes of the script.
func forMessage(s string) string {
	return regexp.MustCompile(`[^A-Za-z0-9_+@=.,/ -]`).ReplaceAllString(s, "?")
}

// program is the command that the job becomes: the environment, the program, its arguments.
func (l *Launcher) program(spec domain.LaunchSpec) (string, error) {
	r := spec.Renderer
	values := map[string]string{
		"model":       string(spec.Model),
		"rest_schema": "rest" + string(r.ID) + string(spec.Resource), // as the predecessor had it: unique
	}
	argv, err := arguments("command_line", r.CommandLine, values)
	if err != nil {
		return "", err
	}
	if len(argv) == 0 || len(argv[0]) == 0 {
		return "", domain.Invalid("command_line", "the command line names no program")
	}
	for _, p := range argv[0] {
		if strings.ContainsRune(p.text, '=') { // env would take it for a variable
			return "", domain.Invalid("command_line", "the name of a program cannot contain '='")
		}
	}
	more, err := arguments("scheduler_rest_parameters_format", r.SchedulerFormat, values)
	if err != nil {
		return "", err
	}
	words, err := environment(r.Environment, values)
	if err != nil {
		return "", err
	}
	words = append(words,
		quote(markResource+"="+string(spec.Resource)), quote(markService+"="+l.opts.Service),
		markAddress+`="${rrm_host}:${rrm_port}"`)
	for _, w := range slices.Concat(argv, more) {
		words = append(words, w.shell())
	}
	return strings.Join(words, " "), nil
}

// environment is the renderer's, each variable one word for env.
func environment(settings, values map[string]string) ([]string, error) {
	const field = "environment_variables"
	var words []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if !envNames.MatchString(name) {
			return nil, domain.Invalid(field, "%q is not a name for an environment variable", name)
		}
		if name == markResource || name == markService || name == markAddress {
			return nil, domain.Invalid(field, "%s is set by rrm itself", name)
		}
		w, err := expand(field, settings[name], values)
		if err != nil {
			return nil, err
		}
		words = append(words, name+"="+w.shell())
	}
	return words, nil
}

func scriptModules(line func(string, ...any), modules []string, init string) {
	if len(modules) == 0 {
		return
	}
	if init != "" {
		line(". %s || rrm_fail %d \"%s cannot be read on $rrm_node\"", quote(init), exitModules, init)
	}
	line("type module >/dev/null 2>&1 || rrm_fail %d \"there are no modules on $rrm_node\"", exitModules)
	for _, m := range modules {
		line("module load %s || rrm_fail %d \"the module %s cannot be loaded on $rrm_node\"", quote(m), exitModules, m)
	}
}

// portScript picks a port that nothing on the node uses, and tells it in the job's
// comment, which every squeue shows: no file system needs to be shared for
// it. Jobs that start together begin to look at different ports. The
// comment is set again after 20 s, because a controller that is killed
// forgets its last seconds. What tells it is no child of the renderer and ends with the job.
func portScript(site *Site) string {
	count := site.LastPort - site.FirstPort + 1
	return fmt.Sprintf(`rrm_port=
for ((rrm_i = 0; rrm_i < %[2]d; rrm_i++)); do
  rrm_try=$(( %[1]d + (SLURM_JOB_ID * 7 + rrm_i) %% %[2]d ))
  printf -v rrm_hex '%%04X' "$rrm_try"
  if ! grep -qsE "^ *[0-9]+: [0-9A-F]+:$rrm_hex " /proc/net/tcp /proc/net/tcp6; then rrm_port=$rrm_try; break; fi
done
[ -n "$rrm_port" ] || rrm_fail %[3]d "no port from %[1]d on is free on $rrm_node"
( (
  for rrm_pause in 0 20; do
    sleep "$rrm_pause"
    until scontrol update JobId="$SLURM_JOB_ID" Comment="%[4]s$rrm_port"; do sleep 5; done
  done
) >/dev/null </dev/null & )
`, site.FirstPort, count, exitPort, portMark)
}
