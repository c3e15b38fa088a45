package pool_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// foldedWholeLogIsTheState: every entity, not only what changed last.
func (m *machine) foldedWholeLogIsTheState() {
	m.Helper()
	if live, folded := pool.Rows(m.state), pool.Rows(m.fold); !maps.Equal(live, folded) {
		for k := range live {
			if live[k] != folded[k] {
				m.Fatalf("%v differs:\nlive   %s\nfolded %s", k, live[k], folded[k])
			}
		}
		m.Fatalf("the folded log has more rows than the state")
	}
}

// rowsAreTheState: a state loaded from rows, whatever their order, is the same
// and decides the same.
func (m *machine) rowsAreTheState() {
	m.Helper()
	loaded := pool.NewState()
	entities := pool.Entities(m.state)
	for _, k := range slices.SortedFunc(maps.Keys(entities), func(a, b pool.Key) int {
		return -compareKeys(a, b) // another order than that in which they were made
	}) {
		b, err := json.Marshal(entities[k])
		if err != nil {
			m.Fatalf("%v", err)
		}
		e := map[string]any{pool.ViewService: &pool.Service{}, pool.ViewPools: &pool.Pool{}, pool.ViewResources: &pool.Resource{},
			pool.ViewSessions: &pool.Session{}, pool.ViewJobs: &pool.Job{}, pool.ViewModels: &pool.Model{}, pool.ViewOwners: &pool.Owner{}}[k.View]
		if err := json.Unmarshal(b, e); err != nil {
			m.Fatalf("%v", err)
		}
		loaded.Put(e)
	}
	if a, b := pool.Orders(m.state), pool.Orders(loaded); !slices.Equal(a, b) {
		m.Fatalf("loaded from rows the orders are\n%q\nnot\n%q", b, a)
	}
	g := pool.Given{ID: "next", At: m.now.Add(time.Minute), Command: pool.Tick{}}
	one, _ := m.state.Decide(m.head, g)
	two, _ := loaded.Decide(m.head, g)
	if a, b := written(m, one), written(m, two); a != b {
		m.Fatalf("loaded from rows it decides\n%s\nnot\n%s", b, a)
	}
	m.state.Rollback()
}

func compareKeys(a, b pool.Key) int {
	if a.View != b.View {
		return map[bool]int{true: 1, false: -1}[a.View > b.View]
	}
	return map[bool]int{true: 1, false: -1}[a.ID > b.ID]
}

// allThatWaitsIsServedOnceAllGoesWell: no session and no job waits for ever
// while there is, or may be, a resource for it.
func (m *machine) allThatWaitsIsServedOnceAllGoesWell() {
	m.Helper()
	for _, id := range m.state.Pools() {
		if r := m.state.Pool(id).Settings; r.Scaling.Max == 0 {
			r.Scaling.Max = 1 // so that there may be one
			m.try(pool.ConfigureRenderer{Renderer: r})
		}
	}
	m.try(pool.SetAdmission{Open: true})
	var left string
	for range 400 {
		m.progress(func() bool { return true })
		for _, e := range pool.AllSessions(m.state) {
			if e.State == pool.SessionStateOpened { // nobody schedules it: its lease ends
				m.try(pool.ExpireSession{Session: e.ID})
			}
			if e.State == pool.SessionStateReady {
				m.try(pool.ReleaseSession{Session: e.ID})
			}
		}
		m.pass(5 * time.Second)
		m.try(pool.Tick{})
		if left = m.unfinished(); left == "" {
			return
		}
	}
	m.Fatalf("after half an hour in which all went well, %s has not ended", left)
}

func (m *machine) unfinished() string {
	for _, e := range pool.AllSessions(m.state) {
		if !e.Ended {
			var there []string
			for _, r := range m.state.ResourcesOf(e.Renderer) {
				there = append(there, fmt.Sprintf("%s %s%s %s with %d users", r.ID, r.Model, r.Key, r.State, len(r.Users)))
			}
			return fmt.Sprintf("session %s of %s (%s: %s) with %s%s, beside %q", e.ID, e.Model, e.State, e.Reason, e.Renderer, e.Overrides.Key(), there)
		}
	}
	for _, j := range pool.AllJobs(m.state) {
		if !j.Ended {
			var there []string
			for _, r := range m.state.ResourcesOf(j.Renderer) {
				there = append(there, fmt.Sprintf("%s %s%s %s with %d of %d users", r.ID, r.Model, r.Key, r.State, len(r.Users), r.Slots))
			}
			return fmt.Sprintf("job %s of %s (%s: %s) with %s of %s, beside %q", j.ID, j.Model, j.State, j.Reason, j.Renderer, j.Owner, there)
		}
	}
	return ""
}

// anIdlePoolGoesToItsMinimum: to nothing, where nothing is to be kept.
func (m *machine) anIdlePoolGoesToItsMinimum() {
	m.Helper()
	for range 6 { // a pool whose starts take long is kept for about thirty of them
		m.pass(6 * time.Hour)
		m.try(pool.Tick{})
		m.progress(func() bool { return true })
	}
	for _, id := range m.state.Pools() {
		set := m.state.Pool(id).Settings
		keep, free := 0, freeWhenIdle(set)
		if set.ModelLoading != domain.LoadCommandLine { // for which model would one be kept?
			keep = max(set.Scaling.Min, min(set.Scaling.Max, (free+set.Slots-1)/set.Slots))
		}
		live, slots := m.state.ResourcesOf(id), 0
		for _, r := range live {
			slots += r.Slots
		}
		// Resources that were started with fewer slots than the settings say now make up for it in number.
		if len(live) > keep && slots-largest(live) >= free && len(live) > set.Scaling.Min || len(live) < min(keep, 1) {
			m.Fatalf("the idle pool %s has %d resources with %d slots, and %d are to be kept: %+v", id, len(live), slots, keep, set.Scaling)
		}
	}
}

// freeWhenIdle is how many slots a policy keeps free where nothing is asked for.
func freeWhenIdle(set domain.Renderer) int {
	free := set.Scaling.Buffer
	if set.Scaling.Policy == domain.ScalingBuffer {
		if n, percent := set.Scaling.Size("size"); !percent {
			free = max(free, int(n))
		}
	}
	return free
}

func largest(resources []*pool.Resource) int {
	most := 0
	for _, r := range resources {
		most = max(most, r.Slots)
	}
	return most
}
