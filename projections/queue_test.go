package projections

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// The places that are read from the views are those that the decider would
// tell: by priority, deadline and age, behind the sessions that wait, and with what an owner's quota holds back.
func TestPlacesAreThoseOfTheDecider(t *testing.T) {
	w := newWorld(t)
	w.reader.now = func() time.Time { return w.now }
	one := 1
	w.do(pool.ConfigureRenderer{Renderer: domain.Renderer{
		ID: "a", CommandLine: "render", Slots: 2, ModelsPerResource: 2, Scaling: domain.ScalingSettings{Min: 1, Max: 1},
		Quotas: &domain.QuotaSettings{Owners: map[domain.Owner]domain.Quota{"alice": {JobsRunning: &one}}},
	}})
	w.serve("a")
	submit := func(id domain.JobID, owner domain.Owner, priority int, deadline time.Duration) {
		c := pool.SubmitJob{Job: id, Renderer: "a", Model: "m", Kind: pool.JobImage, Owner: owner, Priority: priority}
		if deadline > 0 {
			at := w.now.Add(deadline)
			c.Deadline = &at
		}
		w.do(c)
	}
	submit("j0", "alice", 0, 0)
	resource := w.state.Job("j0").Resource
	w.do(pool.ReportJobStarted{Job: "j0", Resource: resource})
	w.pass(20 * time.Second) // so a job takes 20 s
	w.do(pool.ReportJobSucceeded{Job: "j0", Resource: resource})
	submit("j1", "alice", 0, 0)
	submit("j2", "bob", 0, 0)
	submit("j3", "bob", 0, 0)
	submit("j4", "bob", 0, time.Hour)
	submit("j5", "alice", 0, time.Minute)
	submit("j6", "bob", 0, 25*time.Second)
	submit("j7", "alice", 1, 0)
	w.book("a", "s1", "m", "carol")
	w.pass(6 * time.Second)
	w.do(pool.Tick{}) // j6 can no longer make it
	order := map[domain.JobID]int{"j7": 1, "j5": 2, "j4": 3, "j3": 4, "j6": 5}
	for id, position := range order {
		v, err := w.reader.Job(t.Context(), id)
		w.ok(err)
		if want := w.state.PlaceOfJob(id, w.now); v.Queue == nil || *v.Queue != want || want.Position != position {
			t.Errorf("%s stands at %+v, the decider says %+v, and it should be %d", id, v.Queue, want, position)
		}
	}
	all, _, err := w.reader.Jobs(t.Context(), JobFilter{State: "queued"}, Page{})
	if err != nil || len(all) != len(order) {
		t.Fatalf("%d are queued, %v", len(all), err)
	}
	for _, v := range all {
		if want := w.state.PlaceOfJob(v.ID, w.now); v.Queue == nil || *v.Queue != want {
			t.Errorf("in the list %s stands at %+v, the decider says %+v", v.ID, v.Queue, want)
		}
	}
	if v := w.state.PlaceOfJob("j5", w.now); v.Code != pool.CodeQuota || fmt.Sprint(w.state.Job("j6").Late) != "true" {
		t.Errorf("the story went otherwise: %+v", v)
	}
}

// One who waits for a busy resource that has its model, beside a free slot, is
// told so by both: that needs what was learned of the model.
func TestPlacesBesideAFreeSlot(t *testing.T) {
	w := newWorld(t)
	w.do(pool.ConfigureRenderer{Renderer: domain.Renderer{
		ID: "a", CommandLine: "render", Launcher: domain.LauncherLocal, Slots: 1, ModelsPerResource: 1, ModelLoading: domain.LoadHTTP,
		Scaling:   domain.ScalingSettings{Min: 2, Max: 2, Idle: domain.Duration(24 * time.Hour)},
		Placement: domain.PlacementSettings{Policy: domain.PlaceDelay, Parameters: map[string]float64{"wait": 3600}},
	}})
	w.serve("a")
	w.do(pool.SubmitJob{Job: "other", Renderer: "a", Model: "other", Kind: pool.JobImage, Owner: "alice"})
	r := w.state.Job("other").Resource
	w.do(pool.ReportModelLoaded{Resource: r, Model: "other", Seconds: 99})
	w.do(pool.ReportJobStarted{Job: "other", Resource: r})
	w.do(pool.ReportJobSucceeded{Job: "other", Resource: r})
	w.do(pool.SubmitJob{Job: "j0", Renderer: "a", Model: "m", Kind: pool.JobImage, Owner: "alice"})
	w.load("a") // takes 3 s, where the other took 99: drawn to 51 by a quarter of a load
	w.do(pool.SubmitJob{Job: "j1", Renderer: "a", Model: "m", Kind: pool.JobImage, Owner: "alice"})
	w.book("a", "s1", "m", "carol")
	w.pass(time.Second)
	w.reader.now = func() time.Time { return w.now }
	want := w.state.PlaceOfJob("j1", w.now)
	if j, err := w.reader.Job(t.Context(), "j1"); err != nil || j.Queue == nil || *j.Queue != want || !strings.Contains(want.Reason, "has the model") || !strings.Contains(want.Reason, "takes 12.6 s") {
		t.Errorf("the job stands at %+v, %v, and the decider says %+v", j.Queue, err, want)
	}
	want = w.state.PlaceOfSession("s1", w.now)
	if e, err := w.reader.Session(t.Context(), "s1"); err != nil || e.Queue == nil || *e.Queue != want || !strings.Contains(want.Reason, "has the model") {
		t.Errorf("the session stands at %+v, %v, and the decider says %+v", e.Queue, err, want)
	}
}
