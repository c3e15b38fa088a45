package scaling

import (
	"math"
	"slices"
)

// Misses is by how much forecasts were too low: a histogram of their errors,
// each divided by the square root of the forecast, so that small loads and
// large ones can be told together. The quantile of the errors is what a
// forecast is to be raised by to be high enough for a share of the requests: a
// split conformal forecast (Vovk et al. 2005; Lei et al. 2018), which assumes no
// distribution. Counts are bytes and are halved when one would overflow, so that
// about the last hundred intervals count. A Misses is never changed in place.
type Misses []byte

const (
	missLowest = -3.0 // errors below are as good as this
	missStep   = 0.5  // width of the bins up to missLinear
	missLinear = 4.0
	missRatio  = 1.25 // of the wider bins from there on
	missBins   = 24   // the last ends at 4 * 1.25^10, 37
	missUnit   = 4    // what an interval with a typical number of requests counts
)

func missBin(u float64) int {
	if u < missLinear {
		return max(0, int(math.Floor((u-missLowest)/missStep)))
	}
	return min(missBins-1, int((missLinear-missLowest)/missStep)+int(math.Log(u/missLinear)/math.Log(missRatio)))
}

func missEdge(bin int) float64 {
	if linear := int((missLinear - missLowest) / missStep); bin > linear {
		return missLinear * math.Pow(missRatio, float64(bin-linear))
	}
	return missLowest + float64(bin)*missStep
}

// Add counts an error, with the weight of its requests: 1 is a typical interval.
func (m Misses) Add(err, weight float64) Misses {
	next := slices.Clone(m)
	if len(next) != missBins {
		next = make(Misses, missBins)
	}
	bin, n := missBin(err), int(math.Round(max(1, missUnit*weight)))
	if int(next[bin])+n > math.MaxUint8 {
		for i := range next {
			next[i] /= 2
		}
	}
	next[bin] += byte(min(n, math.MaxUint8/2))
	return next
}

// Margin is what a forecast is to be raised by, in square roots of itself, to
// be too low for no more than the share risk of the requests. With too few
// errors for that it is the greatest of them; with none, 0.
func (m Misses) Margin(risk float64) float64 {
	total := 0.0
	for _, n := range m {
		total += float64(n)
	}
	if total == 0 {
		return 0
	}
	wanted := (total + missUnit) * (1 - risk) // the next error is one more, and may be the greatest
	seen, last := 0.0, 0
	for bin, n := range m {
		if n == 0 {
			continue
		}
		last = bin
		if seen+float64(n) >= wanted {
			return missEdge(bin) + (missEdge(bin+1)-missEdge(bin))*(wanted-seen)/float64(n)
		}
		seen += float64(n)
	}
	return missEdge(last + 1)
}
