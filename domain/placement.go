package domain

import (
	"maps"
	"math"
	"slices"
)

// PlacementSettings choose the policy that gives out slots, and say what it is told.
type PlacementSettings struct {
	Policy     string             `json:"policy"`
	Parameters map[string]float64 `json:"parameters,omitempty"`
}

// The policies of placement; see docs/placement.md.
const (
	PlaceTTFF        = "ttff"
	PlaceRandom      = "random"
	PlaceRoundRobin  = "round-robin"
	PlaceLeastLoaded = "least-loaded"
	PlaceHash        = "hash"
	PlaceHashBounded = "hash-bounded"
	PlaceStickyLRU   = "sticky-lru"
	PlaceDelay       = "delay"
	PlaceWarmFirst   = "warm-first"

	PlaceBelady  = "belady"   // a reference: it is told the future, which only a simulation can
	PlaceAllWarm = "all-warm" // a reference: loads that take no time
)

// DefaultPlacement is what settings get that name no policy.
const DefaultPlacement = PlaceTTFF

// formerPlacement is what settings from before there was a choice say.
const formerPlacement = "expected"

// PlacementPolicies are the names of all policies that a renderer may have.
func PlacementPolicies() []string {
	return []string{PlaceDelay, PlaceHash, PlaceHashBounded, PlaceLeastLoaded, PlaceRandom, PlaceRoundRobin, PlaceStickyLRU, PlaceTTFF, PlaceWarmFirst}
}

// PlacementReferences are the names of policies that only a simulation may have.
func PlacementReferences() []string { return []string{PlaceAllWarm, PlaceBelady} }

// PlacementParameter says what a parameter means and how it is bounded. The
// same list checks the settings, gives the policies their defaults, and is in docs/placement.md.
type PlacementParameter struct {
	Policies []string
	Name     string
	Unit     string
	Low      float64
	High     float64
	Default  float64
	Meaning  string
	Reason   string // for the default, with its source
}

var placementParameters = []PlacementParameter{
	{[]string{PlaceTTFF}, "payoff", "load times", 0, 1e6, 20,
		"work that a loaded model serves before its slot goes to an older request for another model",
		"on real demand anything from 20 to 100 was within a few per cent of the best mean, and 20 is the kindest to the users of rare models"},
	{[]string{PlaceTTFF}, "patience", "load times", 0, 100, 1.5,
		"longest wait for a busy resource that has the model, whatever was expected",
		"ski rental: who has waited as long as a load takes has lost at most as much again; a little more pays, as most work ends soon after it was expected to"},
	{[]string{PlaceTTFF}, "copies", "load times", 0, 100, 1,
		"expected wait for the busy copies of a model from which on another copy is loaded",
		"from there on the load is over sooner than the wait"},
	{[]string{PlaceTTFF}, "overdue", "times the mean", 1, 1000, 2.5,
		"age, in mean times to first frame of late, from which on a request comes before all others",
		"the worst case; below 2 it forces loads that cost all others more, above 4 it bounds nothing"},
	{[]string{PlaceTTFF}, "relief", "times the age", 1, 1000, 4,
		"how much older than all who wait for the model here somebody overdue must be whose model is in use elsewhere, to have a slot whose load is paid off",
		"anything from 2.5 to 10 did the same to the mean; without it the 99th percentile is higher by a few per cent, and single settings do worse than the best baseline"},
	{[]string{PlaceTTFF}, "share", "per slot held", 0, 100, 1,
		"how much an owner's slots hold back its next requests: each counts as if its work were longer by this",
		"1: who holds n slots waits n+1 times as long for the next as who holds none, relative to the work"},
	{[]string{PlaceTTFF}, "ratio", "0 or 1", 0, 1, 1,
		"1: lines are served by response ratio; 0: by age", "there to be taken away, see docs/quality.md"},
	{[]string{PlaceTTFF}, "demand", "0 or 1", 0, 1, 1,
		"1: what is least in demand is evicted; 0: what was unused longest", "there to be taken away, see docs/quality.md"},
	{[]string{PlaceWarmFirst, PlaceBelady}, "passes", "requests", 0, 1e6, 16,
		"how often the head of the queue may be passed over", "the value of the comparison that this is part of"},
	{[]string{PlaceDelay}, "wait", "seconds", 0, 86400, 15,
		"longest wait for a resource that has the model", "Zaharia et al. 2010: a small part of the work's length is enough"},
	{[]string{PlaceHashBounded}, "factor", "times the mean", 1, 100, 1.25,
		"load that a resource may have", "Mirrokni et al. 2018: 1+ε with ε from 0.25 on costs few moves"},
	{[]string{PlaceHashBounded}, "moves", "0 or 1", 0, 1, 0,
		"1: who waits is dealt out anew whenever somebody comes or goes", "0: as load balancers have it; see docs/quality.md for what moving brings"},
	{[]string{PlaceRandom}, "seed", "number", 0, 1 << 52, 0, "of the lots", "any does; the same gives the same lots"},
}

// PlacementParametersOf are the parameters that a policy has.
func PlacementParametersOf(policy string) []PlacementParameter {
	var all []PlacementParameter
	for _, p := range placementParameters {
		if slices.Contains(p.Policies, policy) {
			all = append(all, p)
		}
	}
	return all
}

// Number is a parameter as it was given, else its default.
func (s PlacementSettings) Number(name string) float64 {
	if v, ok := s.Parameters[name]; ok {
		return v
	}
	for _, p := range placementParameters {
		if p.Name == name && slices.Contains(p.Policies, s.Policy) {
			return p.Default
		}
	}
	return 0
}

// Check refuses a policy or parameter that there is not. References are for simulations only.
func (s PlacementSettings) Check(references bool) error {
	names := PlacementPolicies()
	if references {
		names = append(names, PlacementReferences()...)
	}
	if !slices.Contains(names, s.Policy) {
		return Invalid("placement.policy", "placement.policy is one of %q, not %q", names, s.Policy)
	}
	of := PlacementParametersOf(s.Policy)
	for _, name := range slices.Sorted(maps.Keys(s.Parameters)) {
		v := s.Parameters[name]
		i := slices.IndexFunc(of, func(p PlacementParameter) bool { return p.Name == name })
		if i < 0 {
			return Invalid("placement.parameters."+name, "the policy %s has no such parameter", s.Policy)
		}
		if math.IsNaN(v) || v < of[i].Low || v > of[i].High {
			return Invalid("placement.parameters."+name, "%s is from %g to %g (%s), not %g", name, of[i].Low, of[i].High, of[i].Unit, v)
		}
	}
	return nil
}
