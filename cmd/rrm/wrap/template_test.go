package wrap

import (
	"errors"
	"strings"
	"testing"
)

func TestTemplates(t *testing.T) {
	values := map[string]string{
		"input": "/in/a b.pov", "output": "/o/x.png", "width": "640", "model": "{width}", "spec.yaw": "-30", "spec.name": "; rm -rf $HOME `x` \"",
	}
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"-D", "-D"},
		{"+I{input}", "+I/in/a b.pov"}, // a space does not split
		{"{width}x{width}", "640x640"},
		{"{{width}}", "{width}"},
		{"{{{width}}}", "{640}"},
		{"{model}", "{width}"}, // a value is not looked at again
		{"{spec.name}", values["spec.name"]},
		{"--yaw={spec.yaw}", "--yaw=-30"},
		{"-{spec.yaw}", "--30"}, // the operator wrote an option
		{"$HOME", "$HOME"},
	} {
		parsed, err := parseTemplate(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got, err := parsed.expand(values, func(string) bool { return false }); err != nil || got != c.want {
			t.Errorf("%q: %q, not %q (%v)", c.text, got, c.want, err)
		}
	}
	for _, text := range []string{
		"{", "}", "{}", "{width", "width}", "{wdith}", "{spec.}", "{spec.a b}", "{spec.a.b}", "{spec}", "{Width}", "{ width}", "{width}}", "{env.HOME}", "{{width}",
	} {
		if parsed, err := parseTemplate(text); err == nil {
			t.Errorf("%q was taken: %v", text, parsed)
		}
	}
}

func TestAValueNeverBecomesAnOption(t *testing.T) {
	for _, c := range []struct {
		text, value string
		refused     bool
	}{
		{"{spec.a}", "-o", true},
		{"{spec.a}x", "-o", true},
		{"{spec.a}", "--", true},
		{"{spec.a}", "o-", false},
		{"x{spec.a}", "-o", false},
		{"--{spec.a}", "-o", false},
	} {
		parsed, err := parseTemplate(c.text)
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]string{"spec.a": c.value}
		_, err = parsed.expand(values, func(string) bool { return false })
		var field *fieldError
		if (err != nil) != c.refused || err != nil && (!errors.As(err, &field) || field.field != "spec.a") {
			t.Errorf("%q of %q: %v", c.text, c.value, err)
		}
		if _, err := parsed.expand(values, func(name string) bool { return name == "spec.a" }); err != nil {
			t.Errorf("%q of %q, allowed: %v", c.text, c.value, err)
		}
	}
}

func TestSettingsThatCannotBeMeant(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Settings)
		says   string
	}{
		"no command":           {func(s *Settings) { s.Command = nil }, "no command"},
		"program of a job":     {func(s *Settings) { s.Command[0] = "{model}" }, "placeholders"},
		"no such program":      {func(s *Settings) { s.Command[0] = "no-such-program-at-all" }, "find the program"},
		"unknown placeholder":  {func(s *Settings) { s.Command = append(s.Command, "{colour}") }, "{colour}"},
		"unknown in variable":  {func(s *Settings) { s.Environment = []string{"A={colour}"} }, "{colour}"},
		"variable of rrm":      {func(s *Settings) { s.Environment = []string{"RRM_TOKEN=x"} }, "--env"},
		"no output":            {func(s *Settings) { s.Command = s.Command[:2] }, "{output}"},
		"input from nowhere":   {func(s *Settings) { s.Command = append(s.Command, "{input}") }, "{input}"},
		"text without input":   {func(s *Settings) { s.FromSpec = true }, "{input}"},
		"frames from nowhere":  {func(s *Settings) { s.Command = append(s.Command, "{frames_dir}") }, "--server"},
		"one number for all":   {func(s *Settings) { s.Kinds, s.Command = []string{"frames"}, append(s.Command, "{frame}") }, "--per-frame"},
		"the same each time":   {func(s *Settings) { s.Kinds, s.PerFrame = []string{"frames"}, true }, "{frame}"},
		"per frame, no frames": {func(s *Settings) { s.PerFrame = true }, "--per-frame"},
		"unknown kind":         {func(s *Settings) { s.Kinds = []string{"audio"} }, "audio"},
		"a kind twice":         {func(s *Settings) { s.Kinds = []string{"image", "image"} }, "--kinds"},
		"a kind of none":       {func(s *Settings) { s.Kinds = nil }, "--kinds"},
		"output elsewhere":     {func(s *Settings) { s.ImageOutput = "../x.png" }, "--image-output"},
		"input elsewhere":      {func(s *Settings) { s.InputName = "/etc/x" }, "--input-name"},
		"type of two kinds":    {func(s *Settings) { s.Kinds, s.ContentType = []string{"image", "video"}, "image/png" }, "--content-type"},
		"no type":              {func(s *Settings) { s.ContentType = "png" }, "--content-type"},
		"no slot":              {func(s *Settings) { s.Slots = 0 }, "--slots"},
		"no time":              {func(s *Settings) { s.Timeout = 0 }, "--timeout"},
		"no room":              {func(s *Settings) { s.MaxOutput = 0 }, "--max-output-mib"},
		"no port":              {func(s *Settings) { s.Listen = "here" }, "--listen"},
		"no directory":         {func(s *Settings) { s.InputDir = "/no/such/directory" }, "--input-dir"},
		"models of nothing":    {func(s *Settings) { s.Models = true }, "--models"},
		"odd server":           {func(s *Settings) { s.Server = "file:///etc" }, "--server"},
		"two tokens":           {func(s *Settings) { s.Server, s.Token, s.TokenFile = "http://h", "a", "b" }, "--token"},
		"broken pattern":       {func(s *Settings) { s.Progress = "(" }, "--progress"},
		"pattern of nothing":   {func(s *Settings) { s.Progress = "percent" }, "one group"},
		"pattern of three":     {func(s *Settings) { s.Progress = "(a)(b)(c)" }, "one group"},
		"odd group":            {func(s *Settings) { s.Progress = "(?P<far>a)" }, "far"},
		"two ways":             {func(s *Settings) { s.Progress = "(?P<done>a)(?P<percent>b)" }, "one of the groups"},
		"only a total":         {func(s *Settings) { s.Progress = "(?P<total>a)" }, "one of the groups"},
		"odd status":           {func(s *Settings) { s.Exit = []string{"0=permanent"} }, "--exit"},
		"odd class":            {func(s *Settings) { s.Exit = []string{"1=fatal"} }, "--exit"},
		"rule of nothing":      {func(s *Settings) { s.Allow = []string{"colour=.*"} }, "--allow"},
		"broken rule":          {func(s *Settings) { s.Allow = []string{"tint=("} }, "--allow"},
		"default of nothing":   {func(s *Settings) { s.Defaults = []string{"colour=red"} }, "--default"},
		"default too large":    {func(s *Settings) { s.Defaults = []string{"width=1e9"} }, "--default"},
		"default is no name":   {func(s *Settings) { s.Defaults = []string{"tint=../x"} }, "--default"},
	} {
		s := usual()
		s.Command = own(t, "{output}", "{spec.tint}")
		c.change(&s)
		if _, err := prepare(s); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := usual()
	s.Command = own(t, "{output}", "{spec.tint}")
	if _, err := prepare(s); err != nil {
		t.Errorf("without a fault: %v", err)
	}
}
