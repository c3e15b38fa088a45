package scaling

import (
	"math"
	"slices"
	"time"
)

const hoursOfWeek = 7 * 24

// hourOfWeek is in UTC: the habits of those who rise by another clock are learned all the same, and again after that is changed.
func hourOfWeek(t time.Time) int {
	t = t.UTC()
	return int(t.Weekday())*24 + t.Hour()
}

// The load of an hour is kept in a byte, on a scale of sixteenths of a doubling: 4 % of precision up to 60,000. 0: not known.
func hourByte(v float64) byte {
	return byte(min(255, 1+math.Round(16*math.Log2(1+max(0, v)))))
}

func hourValue(b byte) float64 { return math.Exp2(float64(b-1)/16) - 1 }

// usual is the usual load at a time; -1: not known. An hour of the week that was
// not seen yet is taken to be like the same hour of the days that were.
func (l *Load) usual(t time.Time) float64 {
	if len(l.Hours) != hoursOfWeek {
		return -1
	}
	hour := hourOfWeek(t)
	if b := l.Hours[hour]; b > 0 {
		return hourValue(b)
	}
	sum, n := 0.0, 0
	for day := range 7 {
		if b := l.Hours[day*24+hour%24]; b > 0 {
			sum, n = sum+hourValue(b), n+1
		}
	}
	if n == 0 {
		return -1
	}
	return sum / float64(n)
}

// hours adds a time of one load to the hours that it is part of.
func (l *Load) hours(from, to time.Time, load float64) {
	for range hoursOfWeek + 1 {
		end := from.Truncate(time.Hour).Add(time.Hour)
		if to.Before(end) {
			break
		}
		l.HourSum += load * max(0, end.Sub(from).Seconds())
		l.endHour(end)
		from = end
	}
	l.HourSum += load * max(0, to.Sub(from).Seconds())
}

// learnHour is the weight of the newest week.
const learnHour = 0.3

func (l *Load) endHour(end time.Time) {
	observed := end.Sub(l.HourFrom).Seconds()
	hour := hourOfWeek(end.Add(-time.Nanosecond))
	if observed >= 1800 { // less than half of the hour does not stand for it
		next := slices.Clone(l.Hours)
		if len(next) != hoursOfWeek {
			next = make([]byte, hoursOfWeek)
		}
		mean := l.HourSum / observed
		if old := next[hour]; old > 0 {
			mean = hourValue(old) + learnHour*(mean-hourValue(old))
		}
		next[hour] = hourByte(mean)
		l.Hours = next
	}
	l.HourFrom, l.HourSum = end, 0
}
