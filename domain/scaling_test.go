package domain

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// Every parameter: its default, its bounds, and who does not have it.
func TestScalingParameters(t *testing.T) {
	for _, policy := range ScalingPolicies() {
		for _, s := range ScalingParametersOf(policy) {
			if _, _, err := s.read(s.Default); err != nil || s.Meaning == "" || s.Reason == "" {
				t.Errorf("%s %s: its default is refused, or nothing is said of it: %v", policy, s.Name, err)
			}
			for text, ok := range map[string]bool{s.bound(s.Low): true, s.bound(s.High): true, s.bound(s.High + 1): false, s.bound(s.Low - 1): false, "": false, "NaN": false, "x": false} {
				r := plain()
				r.Scaling.ScalingPolicy = ScalingPolicy{Policy: policy, Parameters: Parameters{s.Name: text}}
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
	} {
		r := plain()
		r.Scaling = c.set
		_, err := r.Checked()
		if refusal, is := AsRefusal(err); !is || refusal.Field != c.field || refusal.Kind != KindInvalid {
			t.Errorf("%+v: %v names %+v", c.set, err, refusal)
		}
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
