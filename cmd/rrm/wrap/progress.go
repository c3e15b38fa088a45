package wrap

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// progress reads how far a program is from what it writes. One group is a
// percentage, two are how much is done of how much. Named groups say it in
// other words: percent, done, begun (the number of the part that has begun)
// and total; where there is no total, it is the number of frames of the job.
type progress struct {
	pattern                     *regexp.Regexp // nil: not told
	percent, done, begun, total int            // numbers of the groups; 0: none
}

func newProgress(pattern string) (*progress, error) {
	if pattern == "" {
		return &progress{}, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("read the pattern: %w", err)
	}
	p := &progress{pattern: re}
	names := re.SubexpNames()[1:]
	named := slices.ContainsFunc(names, func(n string) bool { return n != "" })
	switch {
	case named:
		err := p.take(names)
		return p, err
	case len(names) == 1:
		p.percent = 1
	case len(names) == 2:
		p.done, p.total = 1, 2
	default:
		return nil, errors.New("the pattern has one group, a percentage, or two, how much is done of how much")
	}
	return p, nil
}

func (p *progress) take(names []string) error {
	for i, name := range names {
		switch name {
		case "percent":
			p.percent = i + 1
		case "done":
			p.done = i + 1
		case "begun":
			p.begun = i + 1
		case "total":
			p.total = i + 1
		case "":
		default:
			return fmt.Errorf("a group is percent, done, begun or total, not %q", name)
		}
	}
	ways := 0
	for _, group := range []int{p.percent, p.done, p.begun} {
		if group > 0 {
			ways++
		}
	}
	if ways != 1 {
		return errors.New("one of the groups percent, done and begun says how far it is")
	}
	return nil
}

// read tells how far a line says that the program is, from 0 to 1; not ok if it does not.
func (p *progress) read(line []byte, frames int) (fraction float64, ok bool) {
	if p.pattern == nil {
		return 0, false
	}
	found := p.pattern.FindSubmatch(line)
	if found == nil {
		return 0, false
	}
	group := func(n int) (float64, bool) {
		x, err := strconv.ParseFloat(string(found[n]), 64)
		return x, err == nil && x >= 0
	}
	total := float64(frames)
	if p.total > 0 {
		if total, ok = group(p.total); !ok {
			return 0, false
		}
	}
	var x float64
	switch {
	case p.percent > 0:
		x, ok = group(p.percent)
		total = 100
	case p.done > 0:
		x, ok = group(p.done)
	default:
		x, ok = group(p.begun)
		x = max(0, x-1)
	}
	if !ok || total <= 0 {
		return 0, false
	}
	return min(1, x/total), true
}
