package simulate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Names splits a list of policies. A piece such as b=2 belongs to the one before: a:x=1,b=2,c is a:x=1,b=2 and c.
func Names(list string) []string {
	var names []string
	for _, piece := range strings.Split(list, ",") {
		name, _, _ := strings.Cut(piece, ":")
		if n := len(names); n > 0 && strings.Contains(name, "=") {
			names[n-1] += "," + piece
		} else {
			names = append(names, piece)
		}
	}
	return names
}

// parameters reads NAME[:param=value,…].
func parameters(text string) (name string, params [][2]string, err error) {
	name, rest, has := strings.Cut(text, ":")
	if !has {
		return name, nil, nil
	}
	for _, piece := range strings.Split(rest, ",") {
		key, value, ok := strings.Cut(piece, "=")
		if !ok || key == "" || value == "" {
			return "", nil, fmt.Errorf("%q: parameters are param=value, not %q", text, piece)
		}
		params = append(params, [2]string{key, value})
	}
	return name, params, nil
}

// ParsePlacement reads a policy of placement, references too.
func ParsePlacement(text string) (domain.PlacementSettings, error) {
	name, params, err := parameters(text)
	s := domain.PlacementSettings{Policy: name}
	if err != nil {
		return s, err
	}
	for _, p := range params {
		v, err := strconv.ParseFloat(p[1], 64)
		if err != nil {
			return s, fmt.Errorf("%q: %s is a number, not %q", text, p[0], p[1])
		}
		if s.Parameters == nil {
			s.Parameters = map[string]float64{}
		}
		s.Parameters[p[0]] = v
	}
	return s, s.Check(true)
}

// ParseScaling reads a policy of scaling.
func ParseScaling(text string) (domain.ScalingPolicy, error) {
	name, params, err := parameters(text)
	s := domain.ScalingPolicy{Policy: name}
	if err != nil {
		return s, err
	}
	if !slices.Contains(domain.ScalingPolicies(), name) {
		return s, fmt.Errorf("--scaling is one of %q, not %q", domain.ScalingPolicies(), name)
	}
	for _, p := range params {
		if s.Parameters == nil {
			s.Parameters = domain.Parameters{}
		}
		s.Parameters[p[0]] = p[1]
	}
	return s, nil // the settings' check reads them
}
