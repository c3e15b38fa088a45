package placement

import "testing"

func TestWaitForWarm(t *testing.T) {
	for _, c := range []struct {
		name              string
		ahead, copies     int
		job, waited, cost float64
		wait              bool
	}{
		{name: "no copy to wait for", copies: 0, job: 1, cost: 20},
		{name: "soon free", copies: 1, job: 5, cost: 20, wait: true},
		{name: "as long as a load would take", copies: 1, job: 20, cost: 20},
		{name: "three ahead", ahead: 3, copies: 1, job: 5, cost: 20},
		{name: "two ahead", ahead: 2, copies: 1, job: 5, cost: 20, wait: true},
		{name: "three ahead of two copies", ahead: 3, copies: 2, job: 5, cost: 20, wait: true},
		{name: "waited as long as a load takes", copies: 1, job: 5, waited: 20, cost: 20},
		{name: "waited nearly as long", copies: 1, job: 5, waited: 19.9, cost: 20, wait: true},
		{name: "loading is free", copies: 1, job: 0, cost: 0},
	} {
		if got := WaitForWarm(c.ahead, c.copies, c.job, c.waited, c.cost); got != c.wait {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
