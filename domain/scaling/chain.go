package scaling

import (
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
)

// chain asks policies in turn, as Agones' Chain does: the first that has an
// answer decides, within the bounds that those before it have set. When none
// has one demand decides, so that nobody waits for want of an answer.
type chain []Policy

func (chain) Name() string { return domain.ScalingChain }
func (chain) Version() int { return 1 }

func (c chain) Wish(in *Inputs) Wish {
	var low, high *int
	var names []string
	var bound func() string
	decided := Wish{Pass: true}
	for _, p := range c {
		w := p.Wish(in)
		if w.Pass && w.Low == nil && w.High == nil {
			continue
		}
		names = append(names, p.Name())
		if !w.Pass {
			decided = w
			break
		}
		if w.Low != nil && (low == nil || *w.Low > *low) {
			low, bound = w.Low, w.Reason
		}
		if w.High != nil && (high == nil || *w.High < *high) {
			high, bound = w.High, w.Reason
		}
	}
	if decided.Pass {
		decided = demand{}.Wish(in)
		names = append(names, demand{}.Name())
	}
	decided.By = strings.Join(names, "+")
	return decided.within(in, low, high, bound)
}

// within holds a wish to bounds.
func (w Wish) within(in *Inputs, low, high *int, reason func() string) Wish {
	if low != nil && w.Least < *low {
		w.Least, w.Reason = *low, reason
	}
	if low != nil {
		w.Most = max(w.Most, *low)
	}
	if high == nil {
		return w
	}
	w.Least, w.Most, w.High = min(w.Least, *high), min(w.Most, *high), high
	if in.Live > *high {
		w.Spare = reason
	}
	return w
}
