package domain

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseRendererID(t *testing.T) {
	for in, want := range map[string]RendererID{
		"demo": "demo", "Demo-2": "demo-2", "a": "a", "0_x.y": "0_x.y", strings.Repeat("a", MaxRendererID): RendererID(strings.Repeat("a", MaxRendererID)),
		"": "", strings.Repeat("a", MaxRendererID+1): "", "-a": "", ".a": "", "_a": "", "a b": "", "a/b": "", "a\x00": "", "ä": "", "a\xff": "",
	} {
		got, err := ParseRendererID(in)
		if want != "" && (err != nil || got != want) {
			t.Errorf("%q gives %q, %v", in, got, err)
		}
		if r, ok := AsRefusal(err); want == "" && (!ok || r.Kind != KindInvalid || r.Field != "id") {
			t.Errorf("%q gives %q, %v", in, got, err)
		}
	}
}

func TestCheckText(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{"", true}, {"circuit:100", true}, {"größe 日本", true}, {"12345678901234567", false}, {"1234567890123456", true},
		{"a\x00", false}, {"a\nb", false}, {"\x1b[31m", false}, {"\x7f", false}, {"\u0085", false}, {"a\xff", false},
	} {
		err := CheckText("model", c.text, 16)
		if r, ok := AsRefusal(err); (err == nil) != c.ok || err != nil && (!ok || r.Field != "model" || r.Kind != KindInvalid) {
			t.Errorf("%q gives %v", c.text, err)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{`"1m30s"`: 90 * time.Second, `"0s"`: 0, `"-1s"`: -time.Second, `"250ms"`: 250 * time.Millisecond} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err != nil || d.Std() != want {
			t.Errorf("%s gives %s, %v", text, d.Std(), err)
		}
		b, err := json.Marshal(d)
		var back Duration
		if err != nil || json.Unmarshal(b, &back) != nil || back != d {
			t.Errorf("%s is written as %s, %v", text, b, err)
		}
	}
	for _, text := range []string{`30`, `"30"`, `"soon"`, `true`, `{}`, `""`} {
		var d Duration
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("%s gives %s", text, d.Std())
		}
	}
	if s := Duration(1500 * time.Millisecond).Seconds(); s != 1.5 {
		t.Errorf("1.5s are %v seconds", s)
	}
}

func TestHandleKeepsItsBytes(t *testing.T) {
	for in, want := range map[string]string{`{"pid":7,"started":"x"}`: `{"pid":7,"started":"x"}`, `"12"`: `"12"`} {
		var h Handle
		if err := json.Unmarshal([]byte(in), &h); err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(h); err != nil || string(b) != want {
			t.Errorf("%s gives %s, %v", in, b, err)
		}
	}
	if b, err := json.Marshal(Handle(nil)); err != nil || string(b) != "null" {
		t.Errorf("none gives %s, %v", b, err)
	}
}

func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		refusal *Refusal
		kind    Kind
		code    string
		reason  string
	}{
		{Invalid("slots", "slots is from %d to %d", 1, 9), KindInvalid, "invalid", "slots is from 1 to 9"},
		{NotFound("session", "s1"), KindNotFound, "session_not_found", `there is no session "s1"`},
		{Conflict("job_ended", "it has %s", "failed"), KindConflict, "job_ended", "it has failed"},
		{Forbidden("admission_suspended", "no"), KindForbidden, "admission_suspended", "no"},
		{Unavailable("no_capacity", time.Second, "full"), KindUnavailable, "no_capacity", "full"},
	} {
		found, ok := AsRefusal(fmt.Errorf("book: %w", c.refusal))
		if !ok || found.Kind != c.kind || found.Code != c.code || found.Reason != c.reason || found.Error() != c.reason+" ("+c.code+")" {
			t.Errorf("%+v", found)
		}
	}
	if _, ok := AsRefusal(nil); ok {
		t.Error("nothing is no refusal")
	}
	if r := Unavailable("no_capacity", time.Second, "full"); r.RetryAfter != time.Second {
		t.Errorf("%+v", r)
	}
}

func TestStreams(t *testing.T) {
	if s := PoolStream("demo"); s != "pool/demo" {
		t.Error(s)
	}
}

func plain() Renderer {
	return Renderer{ID: "demo", CommandLine: "renderer --port ${port}", Scaling: DefaultScaling()}
}

func TestCheckedFillsInWhatWasLeftOut(t *testing.T) {
	r := plain()
	r.ID, r.Environment, r.Modules, r.Placement.Parameters = "DEMO", map[string]string{}, []string{}, map[string]float64{}
	got, err := r.Checked()
	if err != nil {
		t.Fatal(err)
	}
	want := Renderer{
		ID: "demo", CommandLine: "renderer --port ${port}", CPUs: 1, Launcher: LauncherLocal, Slots: 1, ModelsPerResource: 1, ModelLoading: LoadNone,
		Scaling: ScalingSettings{Max: 4, Idle: Duration(5 * time.Minute), ScalingPolicy: ScalingPolicy{Policy: DefaultScalingPolicy}}, Placement: PlacementSettings{Policy: DefaultPlacement},
		Job: JobSettings{MaxAttempts: 3, Timeout: Duration(30 * time.Minute)},
		Probe: ProbeSettings{StartTimeout: Duration(2 * time.Minute), LoadTimeout: Duration(10 * time.Minute), Interval: Duration(2 * time.Second),
			Timeout: Duration(2 * time.Second), Failures: 5},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("filled in is\n%+v, not\n%+v", got, want)
	}
	if again, err := got.Checked(); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("checked again is %+v, %v", again, err)
	}
}

// Every bound: the last value that is allowed, and the first that is not.
func TestCheckedBounds(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		field  string
		change func(*Renderer, bool) // to the last allowed value, or to the first that is refused
	}{
		{"name", func(r *Renderer, bad bool) { r.Name = text(256, bad) }},
		{"description", func(r *Renderer, bad bool) { r.Description = text(4096, bad) }},
		{"command_line", func(r *Renderer, bad bool) { r.CommandLine = text(4096, bad) }},
		{"process_rest_parameters_format", func(r *Renderer, bad bool) { r.ProcessFormat = text(4096, bad) }},
		{"scheduler_rest_parameters_format", func(r *Renderer, bad bool) { r.SchedulerFormat = text(4096, bad) }},
		{"project", func(r *Renderer, bad bool) { r.Project = text(1024, bad) }},
		{"queue", func(r *Renderer, bad bool) { r.Queue = text(1024, bad) }},
		{"qos", func(r *Renderer, bad bool) { r.QOS = text(1024, bad) }},
		{"reservation", func(r *Renderer, bad bool) { r.Reservation = text(1024, bad) }},
		{"working_directory", func(r *Renderer, bad bool) { r.WorkDir = "/" + text(1023, bad) }},
		{"working_directory", func(r *Renderer, bad bool) { r.WorkDir = map[bool]string{true: "scratch/", false: "/scratch"}[bad] }},
		{"modules[1]", func(r *Renderer, bad bool) { r.Modules = []string{"a", text(1024, bad)} }},
		{"nb_nodes", func(r *Renderer, bad bool) { r.Nodes = most(10_000, bad) }},
		{"nb_nodes", func(r *Renderer, bad bool) { r.Nodes = least(0, bad) }},
		{"nb_cpus", func(r *Renderer, bad bool) { r.CPUs = most(1<<20, bad) }},
		{"nb_cpus", func(r *Renderer, bad bool) { r.CPUs = least(0, bad) }},
		{"nb_gpus", func(r *Renderer, bad bool) { r.GPUs = most(1<<16, bad) }},
		{"nb_gpus", func(r *Renderer, bad bool) { r.GPUs = least(0, bad) }},
		{"memory", func(r *Renderer, bad bool) { r.Memory = most(1<<24, bad) }},
		{"memory", func(r *Renderer, bad bool) { r.Memory = least(0, bad) }},
		{"slots", func(r *Renderer, bad bool) { r.Slots = most(1024, bad) }},
		{"slots", func(r *Renderer, bad bool) { r.Slots = least(0, bad) }}, // 0 is 1
		{"models_per_resource", func(r *Renderer, bad bool) { r.ModelsPerResource = most(1024, bad) }},
		{"models_per_resource", func(r *Renderer, bad bool) { r.ModelsPerResource = least(0, bad) }},
		{"memory_mib", func(r *Renderer, bad bool) { r.MemoryMiB = most(1<<24, bad) }},
		{"memory_mib", func(r *Renderer, bad bool) { r.MemoryMiB = least(0, bad) }},
		{"scaling.max", func(r *Renderer, bad bool) { r.Scaling.Max = most(10_000, bad) }},
		{"scaling.max", func(r *Renderer, bad bool) { r.Scaling.Max = least(0, bad) }},
		{"scaling.min", func(r *Renderer, bad bool) { r.Scaling.Min = least(0, bad) }},
		{"scaling.min", func(r *Renderer, bad bool) { r.Scaling.Min = most(r.Scaling.Max, bad) }},
		{"scaling.buffer", func(r *Renderer, bad bool) { r.Scaling.Buffer = most(10_000*1024, bad) }},
		{"scaling.buffer", func(r *Renderer, bad bool) { r.Scaling.Buffer = least(0, bad) }},
		{"job.max_attempts", func(r *Renderer, bad bool) { r.Job.MaxAttempts = most(20, bad) }},
		{"job.max_attempts", func(r *Renderer, bad bool) { r.Job.MaxAttempts = least(0, bad) }},
		{"probe.failures", func(r *Renderer, bad bool) { r.Probe.Failures = most(1000, bad) }},
		{"probe.failures", func(r *Renderer, bad bool) { r.Probe.Failures = least(0, bad) }},
		{"allocation_time", func(r *Renderer, bad bool) { r.AllocationTime = longest(365*day, bad) }},
		{"allocation_time", func(r *Renderer, bad bool) { r.AllocationTime = shortest(0, bad) }},
		{"scaling.idle", func(r *Renderer, bad bool) { r.Scaling.Idle = longest(30*day, bad) }},
		{"scaling.idle", func(r *Renderer, bad bool) { r.Scaling.Idle = shortest(0, bad) }},
		{"job.timeout", func(r *Renderer, bad bool) { r.Job.Timeout = longest(7*day, bad) }},
		{"job.timeout", func(r *Renderer, bad bool) { r.Job.Timeout = shortest(time.Second, bad) }},
		{"probe.start_timeout", func(r *Renderer, bad bool) { r.Probe.StartTimeout = longest(day, bad) }},
		{"probe.start_timeout", func(r *Renderer, bad bool) { r.Probe.StartTimeout = shortest(time.Second, bad) }},
		{"probe.load_timeout", func(r *Renderer, bad bool) { r.Probe.LoadTimeout = longest(day, bad) }},
		{"probe.load_timeout", func(r *Renderer, bad bool) { r.Probe.LoadTimeout = shortest(time.Second, bad) }},
		{"probe.interval", func(r *Renderer, bad bool) { r.Probe.Interval = longest(time.Hour, bad) }},
		{"probe.interval", func(r *Renderer, bad bool) { r.Probe.Interval = shortest(time.Second/10, bad) }},
		{"probe.timeout", func(r *Renderer, bad bool) { r.Probe.Timeout = longest(time.Minute, bad) }},
		{"probe.timeout", func(r *Renderer, bad bool) { r.Probe.Timeout = shortest(time.Second/10, bad) }},
		{"launcher", func(r *Renderer, bad bool) { r.Launcher = choice(LauncherUnicore, bad) }},
		{"model_loading", func(r *Renderer, bad bool) { r.ModelLoading = choice(LoadHTTP, bad) }},
		{"placement.policy", func(r *Renderer, bad bool) { r.Placement.Policy = choice("expected", bad) }},
		{"models_per_resource", func(r *Renderer, bad bool) { r.ModelLoading, r.ModelsPerResource = LoadCommandLine, most(1, bad) }},
		{"environment_variables", func(r *Renderer, bad bool) { r.Environment = variables(most(128, bad)) }},
		{"environment_variables", func(r *Renderer, bad bool) {
			r.Environment = map[string]string{map[bool]string{true: "1A", false: "_A1"}[bad]: "x"}
		}},
		{"environment_variables.A", func(r *Renderer, bad bool) { r.Environment = map[string]string{"A": text(4096, bad)} }},
		{"environment_variables.A", func(r *Renderer, bad bool) {
			r.Environment = map[string]string{"A": map[bool]string{true: "\x00", false: "\n"}[bad]}
		}},
		{"placement.parameters.payoff", func(r *Renderer, bad bool) {
			r.Placement.Parameters = map[string]float64{"payoff": map[bool]float64{true: math.NaN(), false: 1}[bad]}
		}},
		{"placement.parameters.payoff", func(r *Renderer, bad bool) {
			r.Placement.Parameters = map[string]float64{"payoff": map[bool]float64{true: math.Inf(1), false: 1}[bad]}
		}},
		{"command_line", func(r *Renderer, bad bool) {
			r.CommandLine, r.Launcher = "", map[bool]string{true: LauncherSlurm, false: LauncherStatic}[bad]
		}},
	} {
		good, bad := plain(), plain()
		c.change(&good, false)
		c.change(&bad, true)
		if _, err := good.Checked(); err != nil {
			t.Errorf("the last value of %s that is allowed is refused: %v", c.field, err)
		}
		_, err := bad.Checked()
		if r, ok := AsRefusal(err); !ok || r.Kind != KindInvalid || r.Field != c.field {
			t.Errorf("the first value of %s that is not allowed gives %v", c.field, err)
		}
	}
}

func most(n int, bad bool) int {
	if bad {
		return n + 1
	}
	return n
}

func least(n int, bad bool) int {
	if bad {
		return n - 1
	}
	return n
}

func longest(d time.Duration, bad bool) Duration  { return Duration(most(int(d), bad)) }
func shortest(d time.Duration, bad bool) Duration { return Duration(least(int(d), bad)) }
func text(n int, bad bool) string                 { return strings.Repeat("x", most(n, bad)) }

func choice(good string, bad bool) string {
	if bad {
		return good + "s"
	}
	return good
}

func variables(n int) map[string]string {
	all := map[string]string{}
	for i := range n {
		all[fmt.Sprintf("V%d", i)] = "x"
	}
	return all
}

// An ID that is not one is refused before anything else, and the same settings for the same reason.
func TestCheckedIsTheSameEachTime(t *testing.T) {
	r := plain()
	r.Environment = map[string]string{"1": "", "2": "", "3": "", "4": ""}
	_, first := r.Checked()
	for range 20 {
		if _, err := r.Checked(); err == nil || err.Error() != first.Error() {
			t.Fatalf("%v, then %v", first, err)
		}
	}
	r.ID = "no such name"
	if ref, ok := AsRefusal(func() error { _, err := r.Checked(); return err }()); !ok || ref.Field != "id" {
		t.Errorf("%v", ref)
	}
}
