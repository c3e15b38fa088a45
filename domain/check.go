package domain

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Bounds of a renderer's settings.
const (
	maxCommandLine = 4096
	maxSetting     = 1024
	maxVariables   = 128
	maxSlots       = 1024
	maxModels      = 1024
	maxResources   = 10_000
	maxMemoryMiB   = 1 << 24 // 16 TiB
)

// What a renderer gets that does not say otherwise.
const (
	defaultIdle         = 5 * time.Minute
	defaultMoves        = 2
	maxSpread           = 256
	defaultSettled      = 5 * time.Second
	defaultMax          = 4
	defaultJobTimeout   = 30 * time.Minute
	defaultAttempts     = 3
	defaultStartTimeout = 2 * time.Minute
	defaultLoadTimeout  = 10 * time.Minute
	defaultProbe        = 2 * time.Second
	defaultProbeTimeout = 2 * time.Second
	defaultFailures     = 5
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Checked fills in what was left out and refuses, by field, what cannot be.
func (r Renderer) Checked() (Renderer, error) {
	id, err := ParseRendererID(string(r.ID))
	if err != nil {
		return r, err
	}
	r.ID = id
	r.fill()
	for _, check := range []func(*Renderer) error{checkTexts, checkEnvironment, checkNumbers, checkChoices, checkTimes, checkQuotas, checkScaling} {
		if err := check(&r); err != nil {
			return r, err
		}
	}
	return r, nil
}

func orElse[T comparable](v *T, other T) {
	var zero T
	if *v == zero {
		*v = other
	}
}

func (r *Renderer) fill() {
	orElse(&r.Launcher, LauncherLocal)
	orElse(&r.ModelLoading, LoadNone)
	orElse(&r.Slots, 1)
	orElse(&r.ModelsPerResource, 1)
	orElse(&r.CPUs, 1)
	if r.Placement.Policy == formerPlacement {
		r.Placement = PlacementSettings{} // its successor is better, and its parameters had no meaning
	}
	orElse(&r.Placement.Policy, DefaultPlacement)
	orElse(&r.Scaling.Policy, DefaultScalingPolicy)
	r.Scaling.fill()
	if r.Scaling.Shadow != nil {
		r.Scaling.Shadow = &[]ScalingPolicy{*r.Scaling.Shadow}[0] // the caller's stays as it is
		r.Scaling.Shadow.fill()
	}
	orElse(&r.Job.MaxAttempts, defaultAttempts)
	orElse(&r.Job.Timeout, Duration(defaultJobTimeout))
	orElse(&r.Probe.StartTimeout, Duration(defaultStartTimeout))
	orElse(&r.Probe.LoadTimeout, Duration(defaultLoadTimeout))
	orElse(&r.Probe.Interval, Duration(defaultProbe))
	orElse(&r.Probe.Timeout, Duration(defaultProbeTimeout))
	orElse(&r.Probe.Failures, defaultFailures)
	if len(r.Environment) == 0 {
		r.Environment = nil // so that settings which mean the same are the same
	}
	if len(r.Modules) == 0 {
		r.Modules = nil
	}
	if len(r.Placement.Parameters) == 0 {
		r.Placement.Parameters = nil
	}
}

// DefaultScaling is what a renderer gets whose settings do not speak of scaling at all.
func DefaultScaling() ScalingSettings {
	return ScalingSettings{Max: defaultMax, Idle: Duration(defaultIdle)}
}

// DefaultSpread is what a renderer gets whose settings do not speak of it.
const DefaultSpread = 8

// DefaultSessions is what a renderer gets whose settings do not speak of sessions at all.
func DefaultSessions() SessionSettings {
	return SessionSettings{Moves: defaultMoves, Settled: Duration(defaultSettled)}
}

func checkTexts(r *Renderer) error {
	for _, t := range []struct {
		field, value string
		most         int
	}{
		{"name", r.Name, 256}, {"description", r.Description, 4096}, {"command_line", r.CommandLine, maxCommandLine},
		{"process_rest_parameters_format", r.ProcessFormat, maxCommandLine},
		{"scheduler_rest_parameters_format", r.SchedulerFormat, maxCommandLine},
		{"project", r.Project, maxSetting}, {"queue", r.Queue, maxSetting},
		{"qos", r.QOS, maxSetting}, {"reservation", r.Reservation, maxSetting}, {"working_directory", r.WorkDir, maxSetting},
	} {
		if err := CheckText(t.field, t.value, t.most); err != nil {
			return err
		}
	}
	if r.CommandLine == "" && r.Launcher != LauncherStatic {
		return Invalid("command_line", "the %s launcher needs a command line", r.Launcher)
	}
	if r.WorkDir != "" && r.WorkDir[0] != '/' {
		return Invalid("working_directory", "the working directory is an absolute path, not %q", r.WorkDir)
	}
	for i, m := range r.Modules {
		if err := CheckText(fmt.Sprintf("modules[%d]", i), m, maxSetting); err != nil {
			return err
		}
	}
	return nil
}

func checkEnvironment(r *Renderer) error {
	if len(r.Environment) > maxVariables {
		return Invalid("environment_variables", "there may be at most %d variables", maxVariables)
	}
	names := make([]string, 0, len(r.Environment))
	for name := range r.Environment {
		names = append(names, name)
	}
	slices.Sort(names) // so that the same settings are refused for the same reason
	for _, name := range names {
		value := r.Environment[name]
		field := "environment_variables." + name
		switch {
		case !variableName.MatchString(name):
			return Invalid("environment_variables", "%q is not a name of a variable", name)
		case len(value) > maxCommandLine:
			return Invalid(field, "the value is longer than %d bytes", maxCommandLine)
		}
		for _, c := range []byte(value) {
			if c == 0 {
				return Invalid(field, "the value contains a NUL")
			}
		}
	}
	return nil
}

func checkNumbers(r *Renderer) error {
	for _, n := range []struct {
		field            string
		value, low, high int
	}{
		{"nb_nodes", r.Nodes, 0, maxResources}, {"nb_cpus", r.CPUs, 0, 1 << 20}, {"nb_gpus", r.GPUs, 0, 1 << 16},
		{"memory", r.Memory, 0, maxMemoryMiB}, {"slots", r.Slots, 1, maxSlots},
		{"models_per_resource", r.ModelsPerResource, 1, maxModels}, {"memory_mib", r.MemoryMiB, 0, maxMemoryMiB},
		{"scaling.min", r.Scaling.Min, 0, maxResources}, {"scaling.max", r.Scaling.Max, 0, maxResources},
		{"scaling.buffer", r.Scaling.Buffer, 0, maxResources * maxSlots},
		{"sessions.reserve", r.Sessions.Reserve, 0, maxResources * maxSlots}, {"sessions.moves", r.Sessions.Moves, 0, 100},
		{"job.spread", r.Job.Spread, 0, maxSpread},
		{"job.max_attempts", r.Job.MaxAttempts, 1, 20}, {"probe.failures", r.Probe.Failures, 1, 1000},
	} {
		if n.value < n.low || n.value > n.high {
			return Invalid(n.field, "%s is from %d to %d, not %d", n.field, n.low, n.high, n.value)
		}
	}
	return nil
}

func checkChoices(r *Renderer) error {
	for _, c := range []struct {
		field, value string
		of           []string
	}{
		{"launcher", r.Launcher, []string{LauncherLocal, LauncherSlurm, LauncherUnicore, LauncherStatic}},
		{"model_loading", r.ModelLoading, []string{LoadHTTP, LoadCommandLine, LoadNone}},
	} {
		if !slices.Contains(c.of, c.value) {
			return Invalid(c.field, "%s is one of %q, not %q", c.field, c.of, c.value)
		}
	}
	if r.ModelLoading == LoadCommandLine && r.ModelsPerResource != 1 {
		return Invalid("models_per_resource", "a resource that is given its model on the command line holds one model")
	}
	return r.Placement.Check(false)
}

func checkTimes(r *Renderer) error {
	const second, day = Duration(time.Second), Duration(24 * time.Hour)
	for _, t := range []struct {
		field            string
		value, low, high Duration
	}{
		{"allocation_time", r.AllocationTime, 0, 365 * day},
		{"scaling.idle", r.Scaling.Idle, 0, 30 * day}, {"job.timeout", r.Job.Timeout, second, 7 * day},
		{"sessions.settled", r.Sessions.Settled, 0, day},
		{"probe.start_timeout", r.Probe.StartTimeout, second, day}, {"probe.load_timeout", r.Probe.LoadTimeout, second, day},
		{"probe.interval", r.Probe.Interval, second / 10, second * 3600}, {"probe.timeout", r.Probe.Timeout, second / 10, second * 60},
	} {
		if t.value < t.low || t.value > t.high {
			return Invalid(t.field, "%s is from %s to %s, not %s", t.field, t.low.Std(), t.high.Std(), t.value.Std())
		}
	}
	return nil
}
