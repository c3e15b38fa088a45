package domain

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // so that a zone is known wherever the program runs
)

// ScheduleEntry says how many resources there are at certain times of the
// week. Times are by the clock on the wall of its zone: an hour that the clocks
// skip does not come, one that they repeat comes twice.
type ScheduleEntry struct {
	Days   []string `json:"days,omitempty"`   // mon to sun, on which it begins; none: every day
	From   string   `json:"from"`             // "08:00"
	To     string   `json:"to"`               // "18:00"; on the next day if it is not after From, "24:00" the day's end
	Zone   string   `json:"zone,omitempty"`   // a name of the IANA database such as Europe/Zurich; none: UTC
	Min    *int     `json:"min,omitempty"`    // resources at least
	Max    *int     `json:"max,omitempty"`    // resources at most
	Target *int     `json:"target,omitempty"` // as many and no others; goes without min and max
}

const maxSchedule = 64

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Clock reads a time of the day, "08:00", as minutes since midnight; "24:00" is 1440.
func Clock(text string) (minutes int, ok bool) {
	if text == "24:00" {
		return 24 * 60, true
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, false
	}
	return t.Hour()*60 + t.Minute(), true
}

// Holds says whether it is the entry's time, by the clock of its zone.
func (e ScheduleEntry) Holds(at time.Time, zone *time.Location) bool {
	from, _ := Clock(e.From)
	to, _ := Clock(e.To)
	at = at.In(zone)
	now := at.Hour()*60 + at.Minute()
	if from < to {
		return from <= now && now < to && e.on(at.Weekday())
	}
	yesterday := (at.Weekday() + 6) % 7
	return now >= from && e.on(at.Weekday()) || now < to && e.on(yesterday)
}

func (e ScheduleEntry) on(day time.Weekday) bool {
	return len(e.Days) == 0 || slices.Contains(e.Days, weekdays[day])
}

// Location is the entry's zone; UTC if it is not known here.
func (e ScheduleEntry) Location() *time.Location {
	if loc, err := time.LoadLocation(e.Zone); err == nil && e.Zone != "Local" {
		return loc
	}
	return time.UTC
}

func (e ScheduleEntry) check(field string) error {
	for _, day := range e.Days {
		if !slices.Contains(weekdays, day) {
			return Invalid(field+".days", "a day is one of %s, not %q", strings.Join(weekdays, ", "), day)
		}
	}
	for _, t := range []struct{ name, text string }{{"from", e.From}, {"to", e.To}} {
		if _, ok := Clock(t.text); !ok || t.name == "from" && t.text == "24:00" {
			return Invalid(field+"."+t.name, "a time of the day is like 08:30, not %q", t.text)
		}
	}
	if _, err := time.LoadLocation(e.Zone); err != nil || len(e.Zone) > 64 || e.Zone == "Local" {
		return Invalid(field+".zone", "a zone is a name of the IANA database such as Europe/Zurich, not %q", e.Zone)
	}
	return e.checkNumbers(field)
}

func (e ScheduleEntry) checkNumbers(field string) error {
	for _, n := range []struct {
		name string
		v    *int
	}{{"min", e.Min}, {"max", e.Max}, {"target", e.Target}} {
		if n.v != nil && (*n.v < 0 || *n.v > maxResources) {
			return Invalid(field+"."+n.name, "%s is from 0 to %d, not %d", n.name, maxResources, *n.v)
		}
	}
	switch {
	case e.Min == nil && e.Max == nil && e.Target == nil:
		return Invalid(field, "an entry says min, max or target")
	case e.Target != nil && (e.Min != nil || e.Max != nil):
		return Invalid(field+".target", "a target leaves no room for min and max")
	case e.Min != nil && e.Max != nil && *e.Min > *e.Max:
		return Invalid(field+".min", "the minimum of %d is more than the maximum of %d", *e.Min, *e.Max)
	}
	return nil
}

// String is the entry in words.
func (e ScheduleEntry) String() string {
	days := "every day"
	if len(e.Days) > 0 {
		days = strings.Join(e.Days, ", ")
	}
	zone := e.Zone
	if zone == "" {
		zone = "UTC"
	}
	return fmt.Sprintf("%s from %s to %s %s", days, e.From, e.To, zone)
}
