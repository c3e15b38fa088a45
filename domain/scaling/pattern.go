package scaling

import (
	"math"
	"slices"
	"time"
)

// Pattern is how long something stayed unused before it was wanted again: a
// histogram of idle times, as Shahrad et al., "Serverless in the Wild" (USENIX
// ATC 2020), keep one for each application. Theirs has bins of a minute up to
// four hours; ours are narrow for short times and wide for long ones, each 30 %
// wider than the one before, so that 37 of them reach as far. Counts are bytes:
// when one would overflow all are halved, which also lets old habits fade.
// A Pattern is never changed in place.
type Pattern []byte

const (
	patternFirst = time.Second
	patternRatio = 1.3
	patternBins  = 37 // the last bin but one ends at 1 s * 1.3^36, 3 h 31 min; the last takes what is longer
)

// With fewer idle times than this a histogram says nothing; the paper gives no
// number, and 10 is where its 10 % of tolerance on a percentile begins to mean something.
const patternLeast = 10

// patternSpread is the least coefficient of variation of the bins' counts at
// which a histogram is representative: 2, as in the paper. Counts that are spread evenly have no pattern.
const patternSpread = 2

// Add counts one idle time.
func (p Pattern) Add(idle time.Duration) Pattern {
	next := slices.Clone(p)
	bin := patternBin(idle)
	for len(next) <= bin {
		next = append(next, 0)
	}
	if next[bin] == math.MaxUint8 {
		for i := range next {
			next[i] /= 2
		}
	}
	next[bin]++
	return next
}

func patternBin(idle time.Duration) int {
	if idle < patternFirst {
		return 0
	}
	return min(patternBins-1, 1+int(math.Log(float64(idle)/float64(patternFirst))/math.Log(patternRatio)))
}

// patternEdge is where a bin begins.
func patternEdge(bin int) time.Duration {
	if bin == 0 {
		return 0
	}
	return time.Duration(float64(patternFirst) * math.Pow(patternRatio, float64(bin-1)))
}

// Window says when something that is unused will be wanted again: not before
// From, and not after Until, counted from its last use. Both are percentiles of
// the idle times, moved apart by the paper's 10 %. Known is false where the
// histogram is not representative: too few idle times, most of them beyond its end, or no pattern in them.
type Window struct {
	From, Until time.Duration
	Known       bool
	Few         bool // too few idle times for the percentile that Until is: it may lengthen the fixed keep-alive only
}

// Window is that of these percentiles, from 0 to 100.
func (p Pattern) Window(head, tail float64) Window {
	total, squares := 0.0, 0.0
	for _, n := range p {
		total += float64(n)
		squares += float64(n) * float64(n)
	}
	if total < patternLeast || len(p) == patternBins && 2*float64(p[patternBins-1]) > total {
		return Window{}
	}
	mean := total / patternBins
	if spread := math.Sqrt(max(0, squares/patternBins-mean*mean)) / mean; spread < patternSpread {
		return Window{}
	}
	const margin = 0.1
	w := Window{Known: true, Few: total*(100-tail) < 100}
	seen := 0.0
	for bin, n := range p {
		before := seen
		seen += float64(n)
		if n == 0 {
			continue
		}
		if before <= total*head/100 {
			w.From = time.Duration(float64(patternEdge(bin)) * (1 - margin))
		}
		if before < total*tail/100 {
			w.Until = time.Duration(float64(patternEdge(bin+1)) * (1 + margin))
		}
	}
	return w
}

// Kept says whether what was last used so long ago is to be kept: while it is
// likely to be wanted within the time that it takes to bring it back, up to the
// end of its window. Where no pattern is known, the fixed keep-alive decides.
func (w Window) Kept(idle, bringBack, fixed time.Duration) bool {
	if !w.Known {
		return idle < fixed
	}
	if w.Few {
		return idle < max(w.Until, fixed)
	}
	return idle >= w.From-bringBack && idle < w.Until
}

// Soon is the chance that what has been unused for so long is wanted within a
// time to come: by how many of the idle times that lasted so long ended then. Half
// an idle time is added to either side (Jeffreys' prior), so that where nothing
// is known it is as likely as not to be wanted before it has been unused for 30 % longer.
func (p Pattern) Soon(idle, within time.Duration) float64 {
	left := 0.0
	first := patternBin(idle)
	for bin := first; bin < len(p); bin++ {
		left += float64(p[bin])
	}
	not := 1.0
	end := idle + within
	for bin := first; bin < patternBins && idle < end; bin++ {
		n := 0.0
		if bin < len(p) {
			n = float64(p[bin])
		}
		from, to := patternEdge(bin), patternEdge(bin+1)
		if bin == patternBins-1 { // it has no end; as wide as a bin there would be
			from, to = idle, max(end, time.Duration(float64(idle)*patternRatio))
		}
		ends := (n + 0.5) / (left + 1) * min(1, float64(min(end, to)-idle)/float64(to-from))
		not *= 1 - min(1, ends)
		left, idle = left-n, to
	}
	return 1 - not
}
