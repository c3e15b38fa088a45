package scaling

import (
	"math"
	"time"
)

// Load is what is learned of the demand on one pool, folded from its events.
// It is part of the pool's row, so it is small and of a fixed size.
//
// Time is cut into intervals as long as a start takes, because what is started
// now helps from the end of one on. Of each interval the highest offered load
// counts: the slots that would have been in use if there had been enough.
//
// The forecast for the next interval is Level + Persistence * (peak - Level):
// what is usual, and the part of the present deviation that usually lasts (the
// best linear forecast of a first-order autoregressive process; Box and Jenkins
// 1970). Beside it stands the same with the usual load of this hour of the
// week, learned over the weeks; each of the two counts by how right it has
// been. By how much forecasts were too low is kept as well, see Misses, and gives
// the margin. Intervals count by their requests: a quiet night does not make a
// busy day look well served.
type Load struct {
	At      time.Time `json:"at,omitzero"` // up to when all is folded in
	Offered float64   `json:"offered"`     // slots that would be in use by now, had nobody had to wait, at the mean time that one is held
	All     Holds     `json:"all"`         // how long a slot is held
	Session Holds     `json:"sessions"`    // by sessions
	Job     Holds     `json:"jobs"`        // by jobs
	Busy    int       `json:"busy"`        // slots in use since At
	Waiting int       `json:"waiting"`

	Smooth   float64   `json:"smooth"`           // the load, averaged over a moment
	Interval float64   `json:"interval_seconds"` // length of the one under way
	Until    time.Time `json:"until,omitzero"`   // its end
	Arrivals int       `json:"arrivals"`         // in it
	Peak     float64   `json:"peak"`             // highest offered load in it
	Before   float64   `json:"peak_before"`      // in the one before
	Gone     float64   `json:"forecast"`         // what was forecast for the one under way
	GoneHour float64   `json:"forecast_by_hour"` // what the hours of the week forecast

	HeldUntil  time.Time `json:"held_until,omitzero"` // end of the time of stabilisation under way
	Held       float64   `json:"held"`                // highest load in it
	HeldBefore float64   `json:"held_before"`

	Often    float64 `json:"often"`  // share of the intervals with requests
	Closed   int     `json:"closed"` // intervals
	Awake    bool    `json:"awake"`  // a margin is kept in this interval
	Weight   float64 `json:"weight"` // of the intervals learned from
	Typical  float64 `json:"typical_arrivals"`
	Level    float64 `json:"level"`
	Variance float64 `json:"variance"`
	Lasting  float64 `json:"covariance"`       // with the interval before
	Misses   Misses  `json:"misses,omitempty"` // by how much the forecasts were too low
	Lateness float64 `json:"lateness"`         // the same for the goal of queue-time
	Errors   float64 `json:"error"`            // mean squared error of the forecast by what is recent
	ByHour   float64 `json:"error_by_hour"`

	HourFrom    time.Time  `json:"hour_from,omitzero"` // since when this hour is observed
	HourSum     float64    `json:"hour_sum"`           // slot-seconds in it
	Hours       []byte     `json:"hours,omitempty"`    // usual load by hour of the week, Sunday 0:00 UTC first; see hourValue
	IdleSince   *time.Time `json:"idle_since,omitempty"`
	IdlePattern Pattern    `json:"idle_pattern,omitempty"` // how long the pool was unused before it was wanted again
}

// Spans are the lengths that learning depends on.
type Spans struct {
	Start  time.Duration // how long a start takes, as learned
	Window time.Duration // of stabilisation
	Risk   float64       // share of the requests that may find no slot
	Goal   time.Duration // of waiting, where there is one
}

// How far back learning reaches, and the bounds of an interval.
const (
	learnIntervals = 60 // of those with requests; 45 to 720 change little
	learnServes    = 100
	learnErrors    = 60
	learnOften     = 60
	priorOften     = 4 // intervals without requests, before any were seen
	maxMargin      = 10
	maxRelative    = 4 // an interval counts for four typical ones at most
	shortest       = time.Second
	longest        = 10 * time.Minute
	mostIntervals  = 64 // closed one by one; after a longer silence the rest is passed over
)

func (s Spans) interval() time.Duration { return min(longest, max(shortest, s.Start)) }

// Fold is what Update makes of the load, which stays as it is.
func (l Load) Fold(at time.Time, busy, waiting, arrived int, s Spans) Load {
	l.Update(at, busy, waiting, arrived, s)
	return l
}

// Update brings the load up to a time at which so many slots are in use and so
// many wait, of whom arrived have just come.
func (l *Load) Update(at time.Time, busy, waiting, arrived int, s Spans) {
	l.advance(at, s)
	if arrived > 0 && l.IdleSince != nil {
		l.IdlePattern, l.IdleSince = l.IdlePattern.Add(at.Sub(*l.IdleSince)), nil
	}
	l.Busy, l.Waiting = busy, waiting
	l.Offered += float64(arrived)
	l.Arrivals += arrived
	if busy+waiting == 0 && l.IdleSince == nil {
		since := at // a pointer to at itself would cost each call an allocation
		l.IdleSince = &since
	} else if busy+waiting > 0 {
		l.IdleSince = nil
	}
	l.Peak, l.Held = max(l.Peak, l.Smooth), max(l.Held, l.Smooth)
	l.round()
}

// round keeps what is written short. More digits would be believed by nobody.
func (l *Load) round() {
	for _, v := range []*float64{&l.Offered, &l.Smooth, &l.Peak, &l.Before, &l.Gone, &l.GoneHour, &l.Held, &l.HeldBefore, &l.Weight, &l.Typical,
		&l.Level, &l.Variance, &l.Lasting, &l.Lateness, &l.Errors, &l.ByHour, &l.HourSum, &l.Interval, &l.Often} {
		*v = math.Round(*v*1e4) / 1e4
	}
}

// Holds is a mean time that a slot is held, over about the last hundred times.
type Holds struct {
	Times   int     `json:"times"`
	Seconds float64 `json:"seconds"`
}

func (h *Holds) add(seconds float64) {
	h.Times++
	h.Seconds += (seconds - h.Seconds) / float64(min(h.Times, learnServes))
	h.Seconds = math.Round(h.Seconds*1e4) / 1e4
}

// Or is the mean, in seconds; what is given while nothing is known.
func (h Holds) Or(unseen float64) float64 {
	if h.Times == 0 {
		return unseen
	}
	return max(0.001, h.Seconds)
}

// Served counts a slot that a session, or else a job, held for so long.
func (l Load) Served(session bool, seconds float64) Load {
	l.All.add(seconds)
	if session {
		l.Session.add(seconds)
	} else {
		l.Job.add(seconds)
	}
	return l
}

// Waited tells queue-time whether somebody waited for too long, where the share miss may.
func (l Load) Waited(late bool, miss float64) Load {
	step := -miss
	if late {
		step++
	}
	l.Lateness = min(maxMargin, max(leastLateness, l.Lateness+learnLateness*step))
	return l
}

// occupied is the offered load: of those who are there, as many as would be in
// service had nobody had to wait. A queue that came in a burst does not stay, and
// what serves it now was late. Where slots are held for long, those in use are no such remains.
func (l Load) occupied() float64 {
	offered := l.Offered
	if l.serve() > l.Interval {
		offered = max(offered, float64(l.Busy))
	}
	return min(float64(l.Busy+l.Waiting), offered)
}

// serve is the mean time that a slot is held, in seconds; long, so that each
// who waits has one, while nothing is known.
func (l Load) serve() float64 {
	return l.All.Or(serveUnseen)
}

const serveUnseen = 300

// moment is over how long the load is averaged, in seconds: a queue that is
// gone within half of the time that a start takes, or of the goal, is no reason for a start.
// A shorter moment costs more resources and shortens waits that are short already.
func (l *Load) moment(s Spans) float64 {
	if s.Goal > 0 {
		return min(l.Interval, s.Goal.Seconds()) / 2
	}
	return l.Interval / 2
}

// asleep is the greatest chance that anybody comes within the time that a
// start takes at which nothing is kept for whoever might: that of the default risk.
const asleep = 0.05

// chance is the chance that anybody comes within the next interval: as often as
// there were requests in one lately; for a pool without users also by how long it usually is unused.
func (l *Load) chance(at time.Time) float64 {
	if l.IdleSince == nil {
		return l.Often
	}
	return min(l.Often, l.IdlePattern.Soon(at.Sub(*l.IdleSince), time.Duration(l.Interval*float64(time.Second))))
}

func (l *Load) advance(at time.Time, s Spans) {
	if l.At.IsZero() {
		l.At, l.HourFrom = at, at
		l.begin(at, s)
		l.HeldUntil = at.Add(max(s.Window, s.interval()))
		return
	}
	for range mostIntervals {
		if at.Before(l.Until) {
			break
		}
		l.decay(l.Until, s)
		l.close(s)
		l.begin(l.Until, s)
	}
	if !at.Before(l.Until) { // a long silence: nothing but what is in use is left of the load
		l.decay(at, s)
		l.hours(l.Until, at, float64(l.Busy))
		l.Often *= math.Pow(1-1.0/learnOften, at.Sub(l.Until).Seconds()/l.Interval)
		l.begin(at, s)
		l.Before = l.Peak
	}
	l.decay(at, s)
	if hold := max(s.Window, s.interval()); !at.Before(l.HeldUntil) {
		l.HeldBefore, l.Held = l.Held, l.Smooth
		if at.Sub(l.HeldUntil) >= hold {
			l.HeldBefore = l.Held
		}
		l.HeldUntil = at.Add(hold)
	}
}

func (l *Load) decay(to time.Time, s Spans) {
	if d := to.Sub(l.At).Seconds(); d > 0 {
		was := l.occupied()
		l.Smooth = was + (l.Smooth-was)*math.Exp(-d/(l.moment(s)))
		l.Offered *= math.Exp(-d / l.serve())
		l.At = to
		l.Peak, l.Held = max(l.Peak, l.Smooth), max(l.Held, l.Smooth)
	}
}

// begin starts an interval, and notes what is forecast for it.
func (l *Load) begin(at time.Time, s Spans) {
	l.Before, l.Peak, l.Arrivals = l.Peak, l.Smooth, 0
	length := s.interval()
	l.Interval, l.Until = length.Seconds(), at.Add(length)
	l.Gone, l.GoneHour, l.Awake = l.recent(l.Before), l.byHour(l.Before, at, l.Until), l.chance(at) > asleep
}

// close learns from the interval that ends.
func (l *Load) close(s Spans) {
	y := l.Peak
	l.hours(l.Until.Add(-time.Duration(l.Interval*float64(time.Second))), l.Until, y)
	l.Errors += (square(y-l.Gone) - l.Errors) / learnErrors
	if l.GoneHour >= 0 {
		l.ByHour += (square(y-l.GoneHour) - l.ByHour) / learnErrors
	} else {
		l.ByHour += (square(y-l.Gone) - l.ByHour) / learnErrors
	}
	l.Closed++
	l.Often *= 1 - 1/float64(min(learnOften, l.Closed+priorOften))
	if l.Arrivals == 0 {
		return
	}
	l.Often += 1 / float64(min(learnOften, l.Closed+priorOften))
	weight := 1.0
	if l.Weight > 0 {
		weight = min(maxRelative, float64(l.Arrivals)/l.Typical)
	}
	l.Weight = l.Weight*(1-1.0/learnIntervals) + weight
	part := weight / l.Weight
	l.Typical += part * (float64(l.Arrivals) - l.Typical)
	f := l.mix(l.Gone, l.GoneHour)
	if l.Awake {
		l.Misses = l.Misses.Add((y-f)/deviation(f), weight)
	}
	if l.Level == 0 && l.Variance == 0 {
		l.Level = y // the first
	}
	before, now := l.Before-l.Level, y-l.Level
	l.Level += part * now
	l.Variance += part * (now*now - l.Variance)
	l.Lasting += part * (before*now - l.Lasting)
}

func square(v float64) float64 { return v * v }

// recent is the forecast by what is recent, from the highest load of the interval before.
func (l *Load) recent(peak float64) float64 {
	if l.Weight == 0 || l.Variance <= 0 {
		return peak
	}
	persistence := min(1, max(0, l.Lasting/l.Variance))
	return max(0, l.Level+persistence*(peak-l.Level))
}

// byHour is the forecast by the hour of the week; negative where that is not known.
func (l *Load) byHour(peak float64, now, then time.Time) float64 {
	usual, usually := l.usual(now), l.usual(then)
	if usual < 0 || usually < 0 {
		return -1
	}
	persistence := 1.0
	if l.Variance > 0 {
		persistence = min(1, max(0, l.Lasting/l.Variance))
	}
	return max(0, usually+persistence*(peak-usual))
}

// mix counts each forecast by how right it has been.
func (l *Load) mix(recent, byHour float64) float64 {
	if byHour < 0 {
		return recent
	}
	weight := 0.5
	if sum := l.Errors + l.ByHour; sum > 0 {
		weight = l.Errors / sum
	}
	return recent + weight*(byHour-recent)
}

// deviation is the unit in which errors of a forecast are told.
func deviation(f float64) float64 { return math.Sqrt(max(1, f)) }

// Forecast is what is expected of the time that a start takes.
type Forecast struct {
	Slots     float64 `json:"slots"`     // in use, at the highest
	Deviation float64 `json:"deviation"` // of that forecast
	Margin    float64 `json:"margin"`    // in deviations
	Chance    float64 `json:"chance"`    // that anybody comes
	ByHour    float64 `json:"by_hour"`   // what the hour of the week alone would say; -1: not known
	Spread    float64 `json:"spread"`    // by how much five of six forecasts are too low at most
	Held      float64 `json:"held"`      // highest load within the time of stabilisation
}

// Ahead is the forecast. The load must have been folded up to now.
func (l Load) Ahead(s Spans) Forecast {
	f := Forecast{Margin: l.Misses.Margin(s.Risk), Held: max(l.Held, l.HeldBefore)}
	peak := l.lately()
	then := l.At.Add(time.Duration(l.Interval * float64(time.Second)))
	f.ByHour = l.byHour(peak, l.At, then)
	f.Chance = l.chance(l.At)
	recent := l.recent(peak)
	if f.Chance <= min(s.Risk, asleep) {
		recent, f.Margin = float64(l.Busy), 0
	}
	f.Slots = max(l.mix(recent, f.ByHour), min(recent, float64(l.Busy))) // who is there is there, whatever the hour
	f.Deviation = deviation(f.Slots)
	f.Spread = max(1, l.Misses.Margin(1.0/6)) * f.Deviation
	return f
}

// lately is the highest load within about the time that a start takes: that of the interval under way, and the
// less of the one before the more of this one is over, as when it was the highest then is not known.
func (l *Load) lately() float64 {
	left := min(1, max(0, l.Until.Sub(l.At).Seconds()/max(1, l.Interval)))
	return max(l.Peak, l.Peak+(l.Before-l.Peak)*left)
}

// Arriving is how many requests are expected each second (Little's law).
func (l Load) Arriving(f Forecast) float64 { return f.Slots / l.serve() }
