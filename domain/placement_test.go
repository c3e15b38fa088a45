package domain

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Every parameter: its default, its bounds, and that it says what it is for.
func TestPlacementParameters(t *testing.T) {
	for _, policy := range slices.Concat(PlacementPolicies(), PlacementReferences()) {
		for _, p := range PlacementParametersOf(policy) {
			if p.Meaning == "" || p.Unit == "" || p.Reason == "" {
				t.Errorf("%s %s: its meaning, unit or reason is missing", policy, p.Name)
			}
			if got := (PlacementSettings{Policy: policy}).Number(p.Name); got != p.Default {
				t.Errorf("%s %s is %v where nothing was said, not %v", policy, p.Name, got, p.Default)
			}
			below, above := math.Nextafter(p.Low, math.Inf(-1)), math.Nextafter(p.High, math.Inf(1))
			for v, ok := range map[float64]bool{p.Low: true, p.High: true, p.Default: true, below: false, above: false, math.Inf(1): false, math.Inf(-1): false} {
				s := PlacementSettings{Policy: policy, Parameters: map[string]float64{p.Name: v}}
				err := s.Check(true)
				refusal, is := AsRefusal(err)
				if (err == nil) != ok || !ok && (!is || refusal.Kind != KindInvalid || refusal.Field != "placement.parameters."+p.Name) {
					t.Errorf("%s %s=%v: %v", policy, p.Name, v, err)
				}
				if s.Number(p.Name) != v {
					t.Errorf("%s %s=%v is taken as %v", policy, p.Name, v, s.Number(p.Name))
				}
			}
			if err := (PlacementSettings{Policy: policy, Parameters: map[string]float64{p.Name: math.NaN()}}).Check(true); err == nil {
				t.Errorf("%s %s may be no number at all", policy, p.Name)
			}
		}
	}
	if n := (PlacementSettings{Policy: PlaceStickyLRU}).Number("payoff"); n != 0 {
		t.Errorf("sticky-lru has a payoff of %v", n)
	}
}

func TestPlacementSettings(t *testing.T) {
	for _, c := range []struct {
		field string // refused for; empty: taken
		set   PlacementSettings
	}{
		{"", PlacementSettings{}},
		{"", PlacementSettings{Policy: PlaceStickyLRU}},
		{"", PlacementSettings{Parameters: map[string]float64{"payoff": 30}}}, // of the default
		{"placement.policy", PlacementSettings{Policy: "best"}},
		{"placement.policy", PlacementSettings{Policy: "TTFF"}},
		// Only a simulation knows the future, or has loads that take no time.
		{"placement.policy", PlacementSettings{Policy: PlaceBelady}},
		{"placement.policy", PlacementSettings{Policy: PlaceAllWarm}},
		{"placement.parameters.weight", PlacementSettings{Policy: PlaceTTFF, Parameters: map[string]float64{"weight": 1}}},
		{"placement.parameters.payoff", PlacementSettings{Policy: PlaceWarmFirst, Parameters: map[string]float64{"payoff": 50}}},
		// Of several the first by name, whatever the order of a map.
		{"placement.parameters.a", PlacementSettings{Policy: PlaceTTFF, Parameters: map[string]float64{"b": 1, "a": 1, "payoff": 1}}},
	} {
		r := plain()
		r.Placement = c.set
		_, err := r.Checked()
		if refusal, is := AsRefusal(err); (err != nil) != (c.field != "") || is && (refusal.Field != c.field || refusal.Kind != KindInvalid) {
			t.Errorf("%+v gives %v", c.set, err)
		}
	}
	for _, name := range PlacementReferences() {
		if err := (PlacementSettings{Policy: name}).Check(true); err != nil {
			t.Errorf("a simulation may not have %s: %v", name, err)
		}
	}
}

// Settings that were written before there was a choice stay good, and mean the default now.
func TestTheFormerPlacementBecomesTheDefault(t *testing.T) {
	var r Renderer
	old := `{"id":"demo","command_line":"x","placement":{"policy":"expected","parameters":{"w":0.5}}}`
	if err := json.Unmarshal([]byte(old), &r); err != nil {
		t.Fatal(err)
	}
	got, err := r.Checked()
	if err != nil || !reflect.DeepEqual(got.Placement, PlacementSettings{Policy: PlaceTTFF}) {
		t.Errorf("%+v, %v", got.Placement, err)
	}
}

// placementRow is a parameter as docs/placement.md tells it.
func placementRow(p PlacementParameter) string {
	return fmt.Sprintf("| %s | `%s` | %s | %v | %v | %v | %s | %s |", "`"+strings.Join(p.Policies, "`, `")+"`", p.Name, p.Unit, p.Low, p.High, p.Default, p.Meaning, p.Reason)
}

// docs/placement.md explains every policy and has every parameter, as it is.
func TestThePageOnPlacement(t *testing.T) {
	doc, err := os.ReadFile("../docs/placement.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range slices.Concat(PlacementPolicies(), PlacementReferences()) {
		if !strings.Contains(string(doc), "`"+policy+"`") {
			t.Errorf("docs/placement.md does not explain the policy %s", policy)
		}
		for _, p := range PlacementParametersOf(policy) {
			if !strings.Contains(string(doc), placementRow(p)+"\n") {
				t.Errorf("docs/placement.md has no row\n%s", placementRow(p))
			}
		}
	}
}
