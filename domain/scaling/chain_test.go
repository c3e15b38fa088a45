package scaling

import (
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

func n(v int) *int { return &v }

func scheduled(entries ...domain.ScheduleEntry) domain.ScalingPolicy {
	return domain.ScalingPolicy{Policy: "schedule", Schedule: entries}
}

// at is a time of Monday, 2 March 2026, UTC.
func at(t *testing.T, clock string) time.Time {
	t.Helper()
	v, err := time.Parse("15:04:05", clock)
	if err != nil {
		t.Fatal(err)
	}
	return time.Date(2026, 3, 2, v.Hour(), v.Minute(), v.Second(), 0, time.UTC)
}

func TestSchedule(t *testing.T) {
	office := domain.ScheduleEntry{Days: []string{"mon"}, From: "08:00", To: "18:00", Min: n(3), Max: n(5)}
	class := domain.ScheduleEntry{From: "18:00", To: "20:00", Target: n(6)}
	night := domain.ScheduleEntry{From: "22:00", To: "06:00", Max: n(0)}
	policy := New(scheduled(office, class, night))
	for _, c := range []struct {
		name  string
		at    string
		in    Inputs // Max 10, starts take 30 s
		start int
		stop  int
		by    string
	}{
		{name: "before office hours", at: "07:59:29", by: "demand"},
		{name: "a start before they begin", at: "07:59:30", start: 3, by: "schedule+demand"},
		{name: "in them", at: "12:00:00", start: 3, by: "schedule+demand"},
		{name: "more if more are asked for", at: "12:00:00", in: Inputs{Waiting: 4}, start: 4, by: "schedule+demand"},
		{name: "but not beyond the most", at: "12:00:00", in: Inputs{Waiting: 9}, start: 5, by: "schedule+demand"},
		{name: "idle ones go down to the least", at: "12:00:00", in: idlers(5, time.Hour), stop: 2, by: "schedule+demand"},
		{name: "as many as the target, early", at: "17:59:40", in: idlers(5, 0), start: 1, by: "schedule+demand"},
		{name: "as many as the target", at: "18:00:00", in: idlers(5, 0), start: 1, by: "schedule"},
		{name: "and no others, whoever waits", at: "19:00:00", in: Inputs{Waiting: 9, Live: 6, Occupied: 6}, by: "schedule"},
		{name: "what is too many goes at once", at: "19:00:00", in: idlers(8, 0), stop: 2, by: "schedule"},
		{name: "none by night", at: "23:00:00", in: idlers(2, 0), stop: 2, by: "schedule+demand"},
		{name: "none by night, whoever waits", at: "03:00:00", in: Inputs{Waiting: 1}, by: "schedule+demand"},
		{name: "after the night", at: "06:00:00", in: Inputs{Waiting: 1}, start: 1, by: "demand"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := c.in
			in.Now, in.Max, in.Slots, in.Start, in.Idle = at(t, c.at), 10, 1, 30, 5*time.Minute
			if in.Idlers != nil {
				in = since(in)
			}
			got := Decide(policy, &in)
			if got.Start != c.start || len(got.Stop) != c.stop || got.Policy != c.by {
				t.Errorf("%+v", got)
			}
			if changes := c.start+c.stop > 0; changes != (got.Reason != "") {
				t.Errorf("the reason is %q", got.Reason)
			}
		})
	}
}

// idlers are inputs with so many idle resources and nothing else.
func idlers(count int, idleFor time.Duration) Inputs {
	in := Inputs{Live: count, Occupied: count, FreeSlots: count}
	in.Idlers = func(Wish) ([]Idle, map[domain.ModelKey]int) {
		var all []Idle
		for i := range count {
			all = append(all, Idle{Resource: domain.ResourceID("r" + string(rune('0'+i))), Since: time.Time{}.Add(idleFor), Slots: 1})
		}
		return all, map[domain.ModelKey]int{}
	}
	return in
}

// since makes the idle ones of idlers idle for that long at the time of the inputs.
func since(in Inputs) Inputs {
	list, now := in.Idlers, in.Now
	in.Idlers = func(w Wish) ([]Idle, map[domain.ModelKey]int) {
		all, holders := list(w)
		for i := range all {
			all[i].Since = now.Add(-all[i].Since.Sub(time.Time{}))
		}
		return all, holders
	}
	return in
}

func TestWebhookAndItsFallBack(t *testing.T) {
	const url = "https://hooks.example.org/size"
	alone := New(chosen("webhook", "url", url, "valid", "1m"))
	chained := New(domain.ScalingPolicy{Policy: "chain", Chain: []domain.ScalingPolicy{
		chosen("webhook", "url", url, "valid", "1m"), chosen("buffer", "size", "2"), chosen("demand")}})
	for _, c := range []struct {
		name   string
		policy Policy
		advice Advice
		start  int
		by     string
	}{
		{"it was never asked", alone, Advice{}, 1, "demand"},
		{"its answer", alone, Advice{URL: url, At: now.Add(-59 * time.Second), Size: 5}, 5, "webhook"},
		{"its answer, though it fails since", alone, Advice{URL: url, At: now.Add(-59 * time.Second), Size: 5, Problem: "503"}, 5, "webhook"},
		{"an answer that is old", alone, Advice{URL: url, At: now.Add(-time.Minute), Size: 5}, 1, "demand"},
		{"none at all", alone, Advice{URL: url, Problem: "unreachable"}, 1, "demand"},
		{"another's", alone, Advice{URL: url + "s", At: now, Size: 5}, 1, "demand"},
		{"zero, though somebody waits", alone, Advice{URL: url, At: now, Size: 0}, 0, "webhook"},
		{"more than may be", alone, Advice{URL: url, At: now, Size: 99}, 10, "webhook"},
		{"the next of a chain", chained, Advice{}, 3, "buffer"},
		{"the first of a chain", chained, Advice{URL: url, At: now, Size: 7, Reason: "a class begins"}, 7, "webhook"},
	} {
		in := Inputs{Now: now, Max: 10, Slots: 1, Waiting: 1, Advice: []Advice{c.advice}}
		got := Decide(c.policy, &in)
		if got.Start != c.start || got.Policy != c.by {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.advice.Reason != "" && !strings.Contains(got.Reason, c.advice.Reason) {
			t.Errorf("%s: the reason is %q", c.name, got.Reason)
		}
	}
}

func TestAChainKeepsToAllBoundsBeforeWhoDecides(t *testing.T) {
	always := func(low, high *int) domain.ScalingPolicy {
		return scheduled(domain.ScheduleEntry{From: "00:00", To: "24:00", Min: low, Max: high})
	}
	for _, c := range []struct {
		chain []domain.ScalingPolicy
		start int
		by    string
	}{
		{[]domain.ScalingPolicy{always(n(2), nil), always(n(4), n(6)), chosen("demand")}, 4, "schedule+schedule+demand"},
		{[]domain.ScalingPolicy{always(n(2), n(3)), chosen("buffer", "size", "9")}, 3, "schedule+buffer"},
		{[]domain.ScalingPolicy{chosen("buffer", "size", "9"), always(n(2), n(3))}, 9, "buffer"}, // what comes after is not asked
	} {
		in := Inputs{Now: now, Max: 10, Slots: 1}
		if got := Decide(New(domain.ScalingPolicy{Policy: "chain", Chain: c.chain}), &in); got.Start != c.start || got.Policy != c.by {
			t.Errorf("%+v: %+v", c.chain, got)
		}
	}
}
