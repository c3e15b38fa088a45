package pool

import "time"

// Confidence is the share of waits that should end within the interval that was stated for them.
const Confidence = 0.8

// Expectation is what was first said of a wait, kept to see how right it was.
type Expectation struct {
	At      time.Time `json:"at"`
	Basis   string    `json:"basis"`        // what it was reckoned from: start or turn
	Raw     float64   `json:"raw_seconds"`  // as reckoned, before what was learned of such reckonings
	Low     float64   `json:"low_seconds"`  // stated
	High    float64   `json:"high_seconds"` // stated
	Seconds float64   `json:"seconds"`      // stated
}

// What a wait is reckoned from.
const (
	BasisStart = "start" // a resource that is starting, or can be started
	BasisTurn  = "turn"  // slots in use that come free
)

// Calibration is how right a pool's expectations were. Sessions and jobs, and
// waits for a start and for a turn, are different things and learned apart.
type Calibration struct {
	SessionStart Calibrated `json:"session_start,omitzero"`
	SessionTurn  Calibrated `json:"session_turn,omitzero"`
	JobStart     Calibrated `json:"job_start,omitzero"`
	JobTurn      Calibrated `json:"job_turn,omitzero"`
}

// Calibrated counts the waits of one sort that ended with a slot, and learns by
// which factors they differ from what was reckoned.
type Calibrated struct {
	Waits  int     `json:"waits"`
	Within int     `json:"within"` // those that ended within the interval that was stated when they began
	Recent float64 `json:"recent"` // that share among the last of them, the newest count most
	Low    float64 `json:"low"`    // one wait in ten is shorter than reckoned times this
	Mid    float64 `json:"mid"`    // one in two
	High   float64 `json:"high"`   // nine in ten
}

func (c *Calibration) of(job bool, basis string) *Calibrated {
	switch {
	case job && basis == BasisStart:
		return &c.JobStart
	case job:
		return &c.JobTurn
	case basis == BasisStart:
		return &c.SessionStart
	}
	return &c.SessionTurn
}

// Factors before anything was learned: a wait is within four times the estimate either way.
const (
	factorUnseen   = 4.0
	factorLeast    = 1e-4
	factorMost     = 1e4
	roughWaits     = 10   // for so many waits the outer factors move in large steps, and the middle stays
	recentWeight   = 0.02 // of a new wait in Recent: the last fifty or so count
	stateLongestIn = 30 * 24 * time.Hour
)

func (c Calibrated) factors() (low, mid, high float64) {
	if c.Waits == 0 {
		return 1 / factorUnseen, 1, factorUnseen
	}
	return min(c.Low, c.Mid), c.Mid, max(c.Mid, c.High)
}

// expect makes of a reckoned wait what is told: a middle and an interval.
func (c Calibrated) expect(raw float64) (low, mid, high float64) {
	low, mid, high = c.factors()
	most := stateLongestIn.Seconds()
	mid = min(most, max(shortestWait, raw*mid))
	return min(mid, raw*low), mid, min(most, max(mid, raw*high))
}

// learn takes in a wait that ended with a slot.
//
// Each factor follows a quantile q: it goes up by w·q when a wait was longer than
// was stated with it, else down by w·(1-q), in logarithms. As it stays within
// bounds, the share of longer waits is 1-q in the long run, whatever the waits
// are distributed like and however late their ends are known (adaptive
// conformal inference, Gibbs and Candès 2021).
func (c Calibrated) learn(e *Expectation, waited float64) Calibrated {
	next := c
	next.Low, next.Mid, next.High = c.factors()
	within := waited >= e.Low && waited <= e.High
	next.Waits++
	share := 0.0
	if within {
		next.Within++
		share = 1
	}
	next.Recent = c.Recent + max(recentWeight, 1/float64(next.Waits))*(share-c.Recent)
	s := steps[0]
	if c.Waits >= roughWaits { // a handful says how wide the interval is, not where its middle is
		s = steps[1]
		next.Mid = follow(next.Mid, waited > e.Seconds, s.half, s.half)
	}
	next.Low = follow(next.Low, waited > e.Low, s.little, s.much)
	next.High = follow(next.High, waited > e.High, s.much, s.little)
	return next
}

// step holds e^(w·0.9), e^(w·0.5) and e^(w·0.1) for a weight w. They are
// written out because an exponential need not come out the same on every machine.
type step struct{ much, half, little float64 }

var steps = [2]step{
	{1.568312185, 1.284025417, 1.051271096}, // w = 0.5
	{1.046027860, 1.025315121, 1.005012521}, // w = 0.05
}

func follow(factor float64, longer bool, up, down float64) float64 {
	if longer {
		return min(factorMost, factor*up)
	}
	return max(factorLeast, factor/down)
}

// expected notes what was said of a wait, if it is the first that was said of it.
func expected(before *Expectation, at time.Time, basis string, low, mid, high, raw float64) *Expectation {
	if before != nil || basis == "" {
		return before
	}
	return &Expectation{At: at, Basis: basis, Raw: raw, Low: low, High: high, Seconds: mid}
}

// began learns from a wait that ended with a slot. One that ended the moment it began was none.
func (s *State) began(r Recorded, job bool, e *Expectation) {
	if e == nil || !r.At.After(e.At) {
		return
	}
	s.changePool(rendererOf(r.Stream), func(p *Pool) {
		c := p.Expectations.of(job, e.Basis)
		*c = c.learn(e, r.At.Sub(e.At).Seconds())
	})
}
