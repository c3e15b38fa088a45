package domain

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Every parameter: its default, its bounds, and who does not have it.
func TestScalingParameters(t *testing.T) {
	three := 3
	entry := ScheduleEntry{From: "08:00", To: "18:00", Min: &three}
	with := func(policy, name, value string) ScalingPolicy {
		p := ScalingPolicy{Policy: policy, Parameters: Parameters{name: value}}
		switch policy {
		case ScalingWebhook:
			p.Parameters = Parameters{"url": "https://hooks.example.org/size", name: value}
		case ScalingChain:
			p.Chain = []ScalingPolicy{{Policy: ScalingDemand}}
		case ScalingSchedule:
			p.Schedule = []ScheduleEntry{entry}
		}
		return p
	}
	for _, policy := range ScalingPolicies() {
		for _, s := range ScalingParametersOf(policy) {
			if s.Kind == kindURL {
				continue
			}
			if _, _, err := s.read(s.Default); err != nil || s.Meaning == "" || s.Reason == "" {
				t.Errorf("%s %s: its default is refused, or nothing is said of it: %v", policy, s.Name, err)
			}
			for text, ok := range map[string]bool{s.bound(s.Low): true, s.bound(s.High): true, s.bound(s.High + 1): false, s.bound(s.Low - 1): false, "": false, "NaN": false, "x": false} {
				r := plain()
				r.Scaling.ScalingPolicy = with(policy, s.Name, text)
				_, err := r.Checked()
				refusal, is := AsRefusal(err)
				if (err == nil) != ok || !ok && (!is || refusal.Field != "scaling.parameters."+s.Name) {
					t.Errorf("%s %s=%q: %v", policy, s.Name, text, err)
				}
			}
		}
	}
	for _, c := range []struct {
		field string
		set   ScalingSettings
	}{
		{"scaling.policy", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "best"}}},
		{"scaling.shadow.policy", ScalingSettings{Shadow: &ScalingPolicy{}}},
		{"scaling.parameters.size", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "demand", Parameters: Parameters{"size": "1"}}}},
		{"scaling.parameters.size", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "buffer", Parameters: Parameters{"size": "100%"}}}},
		{"scaling.parameters.size", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "buffer", Parameters: Parameters{"size": "1.5"}}}},
		{"scaling.shadow.parameters.size", ScalingSettings{Shadow: &ScalingPolicy{Policy: "buffer", Parameters: Parameters{"size": "-1"}}}},
		{"scaling.schedule", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "schedule"}}},
		{"scaling.schedule", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "demand", Schedule: []ScheduleEntry{entry}}}},
		{"scaling.schedule", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "schedule", Schedule: make([]ScheduleEntry, 65)}}},
		{"scaling.schedule.1.from", scheduled(entry, ScheduleEntry{From: "24:00", To: "24:00", Min: &three})},
		{"scaling.schedule.0.to", scheduled(ScheduleEntry{From: "8:00", To: "25:00", Min: &three})},
		{"scaling.schedule.0.days", scheduled(ScheduleEntry{Days: []string{"mon", "Monday"}, From: "08:00", To: "09:00", Min: &three})},
		{"scaling.schedule.0.zone", scheduled(ScheduleEntry{From: "08:00", To: "09:00", Zone: "Mars/Olympus", Min: &three})},
		{"scaling.schedule.0.zone", scheduled(ScheduleEntry{From: "08:00", To: "09:00", Zone: "Local", Min: &three})},
		{"scaling.schedule.0", scheduled(ScheduleEntry{From: "08:00", To: "09:00"})},
		{"scaling.schedule.0.target", scheduled(ScheduleEntry{From: "08:00", To: "09:00", Min: &three, Target: &three})},
		{"scaling.schedule.0.min", scheduled(ScheduleEntry{From: "08:00", To: "09:00", Min: &three, Max: new(int)})},
		{"scaling.chain", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "chain"}}},
		{"scaling.chain", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "buffer", Chain: []ScalingPolicy{{Policy: "demand"}}}}},
		{"scaling.chain", chained(make([]ScalingPolicy, 9)...)},
		{"scaling.chain.1.policy", chained(ScalingPolicy{Policy: "demand"}, ScalingPolicy{Policy: "best"})},
		{"scaling.chain.0.policy", chained(ScalingPolicy{Policy: "chain", Chain: []ScalingPolicy{{Policy: "demand"}}})},
		{"scaling.chain.0.schedule.0.to", chained(ScalingPolicy{Policy: "schedule", Schedule: []ScheduleEntry{{From: "08:00", Min: &three}}})},
		{"scaling.chain.0.parameters.up_per_minute", chained(ScalingPolicy{Policy: "demand", Parameters: Parameters{"up_per_minute": "1"}})},
		{"scaling.parameters.url", ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "webhook"}}},
		{"scaling.parameters.url", ScalingSettings{ScalingPolicy: with("webhook", "url", "ftp://hooks.example.org/")}},
		{"scaling.parameters.url", ScalingSettings{ScalingPolicy: with("webhook", "url", "http://user@hooks.example.org/")}},
		{"scaling.parameters.url", ScalingSettings{ScalingPolicy: with("webhook", "url", "http:///size")}},
		{"scaling.parameters.url", ScalingSettings{ScalingPolicy: with("webhook", "url", "http://hooks.example.org/\x00")}},
	} {
		r := plain()
		r.Scaling = c.set
		_, err := r.Checked()
		if refusal, is := AsRefusal(err); !is || refusal.Field != c.field || refusal.Kind != KindInvalid {
			t.Errorf("%+v: %v names %+v", c.set, err, refusal)
		}
	}
}

func scheduled(entries ...ScheduleEntry) ScalingSettings {
	return ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "schedule", Schedule: entries}}
}

func chained(parts ...ScalingPolicy) ScalingSettings {
	return ScalingSettings{ScalingPolicy: ScalingPolicy{Policy: "chain", Chain: parts}}
}

func TestWebhooksAndWhatTeachesTheForecast(t *testing.T) {
	hook := func(url string) ScalingPolicy {
		return ScalingPolicy{Policy: "webhook", Parameters: Parameters{"url": url, "interval": "1m"}}
	}
	set := chained(hook("http://a/"), ScalingPolicy{Policy: "queue-time", Parameters: Parameters{"goal": "9s"}}, hook("http://b/"))
	shadow := chained(hook("http://b/"), hook("http://c/"), ScalingPolicy{Policy: "forecast"}).ScalingPolicy
	set.Shadow = &shadow
	var got []string
	for _, w := range set.Webhooks() {
		got = append(got, w.Field+" "+w.URL)
		if w.Interval != time.Minute || w.Deadline != 5*time.Second || w.Valid != 10*time.Minute {
			t.Errorf("%+v", w)
		}
	}
	if want := []string{"scaling.chain.0.parameters.url http://a/", "scaling.chain.2.parameters.url http://b/", "scaling.shadow.chain.1.parameters.url http://c/"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	if l := set.Learning(); l.Policy != "queue-time" || l.Duration("goal") != 9*time.Second {
		t.Errorf("%+v", l)
	}
	set.ScalingPolicy = ScalingPolicy{Policy: "demand"}
	if l := set.Learning(); l.Policy != "forecast" {
		t.Errorf("%+v", l)
	}
	set.Shadow = nil
	if l := set.Learning(); l.Policy != "forecast" || l.Number("risk") != 0.1 {
		t.Errorf("%+v", l)
	}
}

// What a schedule's times mean, across midnight and where the clocks change.
func TestScheduleEntryHolds(t *testing.T) {
	zurich, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	day, night := ScheduleEntry{Days: []string{"mon", "fri"}, From: "08:00", To: "18:00"}, ScheduleEntry{Days: []string{"fri"}, From: "22:00", To: "06:00"}
	whole, early := ScheduleEntry{From: "00:00", To: "24:00"}, ScheduleEntry{From: "02:00", To: "03:00"}
	for _, c := range []struct {
		e    ScheduleEntry
		at   string // UTC
		want bool
	}{
		{day, "2026-03-02T06:59:59Z", false}, {day, "2026-03-02T07:00:00Z", true}, {day, "2026-03-02T16:59:59Z", true}, {day, "2026-03-02T17:00:00Z", false},
		{day, "2026-03-03T09:00:00Z", false},                                      // a Tuesday
		{day, "2026-06-01T06:00:00Z", true}, {day, "2026-06-01T16:00:00Z", false}, // in summer the wall is two hours ahead
		{night, "2026-03-06T20:59:00Z", false}, {night, "2026-03-06T21:00:00Z", true}, {night, "2026-03-07T04:59:00Z", true}, {night, "2026-03-07T05:00:00Z", false},
		{night, "2026-03-07T21:30:00Z", false}, // Saturday
		{night, "2026-03-06T04:00:00Z", false}, // Thursday's night
		{whole, "2026-03-06T22:59:59Z", true}, {whole, "2026-03-06T23:00:00Z", true},
		{early, "2026-03-28T01:30:00Z", true},  // 02:30
		{early, "2026-03-29T00:59:00Z", false}, // 01:59; then it is 03:00
		{early, "2026-03-29T01:00:00Z", false},
		{early, "2026-10-25T00:30:00Z", true}, {early, "2026-10-25T01:30:00Z", true}, {early, "2026-10-25T02:00:00Z", false}, // 02:30 comes twice
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.e.Holds(at, zurich); got != c.want {
			t.Errorf("%s at %s: %v", c.e, at.In(zurich), got)
		}
	}
	if (ScheduleEntry{Zone: "Europe/Zurich"}).Location().String() != "Europe/Zurich" || (ScheduleEntry{}).Location() != time.UTC || (ScheduleEntry{Zone: "Local"}).Location() != time.UTC {
		t.Error("zones")
	}
}

func TestParametersAreTextOrNumbers(t *testing.T) {
	var s ScalingSettings
	if err := json.Unmarshal([]byte(`{"max":3,"idle":"1m","policy":"buffer","parameters":{"size":"20%","up_per_minute":2}}`), &s); err != nil {
		t.Fatal(err)
	}
	if want := (ScalingPolicy{Policy: "buffer", Parameters: Parameters{"size": "20%", "up_per_minute": "2"}}); !reflect.DeepEqual(s.ScalingPolicy, want) {
		t.Errorf("%+v", s)
	}
	if n, percent := s.Size("size"); n != 20 || !percent || s.Count("up_per_minute") != 2 || s.Count("down_per_minute") != 0 {
		t.Errorf("%v %v", n, percent)
	}
	if err := json.Unmarshal([]byte(`{"parameters":{"size":[1]}}`), &s); err == nil {
		t.Error("a list is no parameter")
	}
	b, _ := json.Marshal(ScalingSettings{Max: 1})
	if string(b) != `{"min":0,"max":1,"buffer":0,"idle":"0s"}` {
		t.Errorf("settings without a policy are written as %s", b)
	}
}

func TestParseScalingPolicy(t *testing.T) {
	got, err := ParseScalingPolicy("buffer:size=20%,up_per_minute=3")
	if want := (ScalingPolicy{Policy: "buffer", Parameters: Parameters{"size": "20%", "up_per_minute": "3"}}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = ParseScalingPolicy("demand"); err != nil || got.Policy != "demand" || got.Parameters != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"buffer:", "buffer:size", "buffer:=1", "buffer:size=1,size=2"} {
		if _, err := ParseScalingPolicy(bad); err == nil || !strings.Contains(err.Error(), "parameter=value") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// row is a parameter as docs/scaling.md tells it.
func row(s ScalingParameter) string {
	of := "all"
	if s.Policies != nil {
		of = "`" + strings.Join(s.Policies, "`, `") + "`"
	}
	bounds, initial := s.bound(s.Low)+" to "+s.bound(s.High), "`"+s.Default+"`"
	switch s.Kind {
	case kindURL:
		bounds, initial = "at most "+s.bound(s.High)+" bytes", "none"
	case kindSize:
		bounds += ", or `1%` to `99%`"
	case kindDuration:
		bounds = strings.ReplaceAll(strings.ReplaceAll(bounds, "h0m0s", "h"), "m0s", "m")
	}
	return "| `" + s.Name + "` | " + of + " | " + s.Meaning + " | " + s.Kind + ", " + bounds + " | " + initial + " | " + s.Reason + " |"
}

func TestTheDocumentationHasEveryParameter(t *testing.T) {
	doc, err := os.ReadFile("../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scalingParameters {
		if !strings.Contains(string(doc), row(s)) {
			t.Errorf("docs/scaling.md has no row\n%s", row(s))
		}
	}
	for _, p := range ScalingPolicies() {
		if !strings.Contains(string(doc), "### `"+p+"`") {
			t.Errorf("docs/scaling.md does not explain the policy %s", p)
		}
	}
}
