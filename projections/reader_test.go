package projections

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// story is a pool of two resources, both in use, with two sessions and three
// jobs that wait: enough for every field of every view.
func story(t testing.TB) *world {
	w := newWorld(t)
	w.renderer("brayns", 2)
	w.renderer("other", 1)
	w.book("brayns", "s1", "circuit:1", "alice")
	w.serve("brayns")
	w.book("brayns", "s2", "circuit:2", "bob")
	w.serve("brayns")
	w.pass(10 * time.Second)
	w.book("brayns", "s3", "circuit:1", "alice")
	w.pass(time.Second)
	w.book("brayns", "s4", "circuit:3", "bob")
	for i, priority := range []int{0, 5, 5} {
		w.do(pool.SubmitJob{Job: domain.JobID(fmt.Sprintf("j%d", i+1)), Renderer: "brayns", Model: "circuit:1", Kind: pool.JobImage, Owner: "alice", Priority: priority})
	}
	w.do(pool.SubmitJob{Job: "j4", Renderer: "brayns", Model: "circuit:1", Kind: pool.JobVideo, Owner: "alice", After: []domain.JobID{"j1", "j2"}})
	return w
}

func TestPool(t *testing.T) {
	w := story(t)
	ctx := t.Context()
	all, err := w.reader.Pools(ctx)
	w.ok(err)
	if len(all) != 2 || all[0].Settings.ID != "brayns" || all[1].Settings.ID != "other" {
		t.Fatalf("pools are %s", asJSON(t, all))
	}
	w.reader.now = func() time.Time { return w.now }
	v, err := w.reader.Pool(ctx, "brayns")
	w.ok(err)
	if got, want := fmt.Sprint(v.Sizes, v.SlotsTotal, v.SlotsFree, v.QueuedSessions, v.QueuedJobs, v.WaitingJobs, v.RunningJobs), "map[ready:2] 2 0 2 3 1 0"; got != want {
		t.Errorf("sizes, slots, queues are %s, want %s", got, want)
	}
	if want := *w.state.Pool("brayns"); asJSON(t, v.Pool) != asJSON(t, want) {
		t.Errorf("the pool is %s, want %s", asJSON(t, v.Pool), asJSON(t, want))
	}
	// s3 was requested 1 s before the last event; the database's clock may be a little further.
	if v.OldestWaitSeconds <= 0 && w.now.Before(time.Now().Add(-time.Second)) {
		t.Errorf("the oldest wait is %v s", v.OldestWaitSeconds)
	}
	_, err = w.reader.Pool(ctx, "none")
	wantRefusal(t, err, domain.KindNotFound, "renderer_not_found", "")
	_, err = w.reader.Pool(ctx, "bad\x00")
	wantRefusal(t, err, domain.KindNotFound, "renderer_not_found", "")

	w.do(pool.RemoveRenderer{Renderer: "other"})
	_, err = w.reader.Pool(ctx, "other")
	wantRefusal(t, err, domain.KindNotFound, "renderer_not_found", "")
	if all, err = w.reader.Pools(ctx); err != nil || len(all) != 1 {
		t.Fatalf("after the removal the pools are %s, %v", asJSON(t, all), err)
	}
}

func TestPoolOldestWait(t *testing.T) {
	w := newWorld(t)
	w.renderer("a", 0)
	w.pass(-time.Hour)
	w.book("a", "s1", "m", "alice")
	w.pass(time.Hour)
	v, err := w.reader.Pool(t.Context(), "a")
	w.ok(err)
	if v.OldestWaitSeconds < 3600 || v.OldestWaitSeconds > 3660 {
		t.Errorf("the oldest wait is %v s, want an hour", v.OldestWaitSeconds)
	}
	w.pass(-2 * time.Hour)
	w.do(pool.SubmitJob{Job: "j1", Renderer: "a", Model: "m", Kind: pool.JobImage, Owner: "alice"})
	v, err = w.reader.Pool(t.Context(), "a")
	w.ok(err)
	if v.OldestWaitSeconds < 7200 || v.OldestWaitSeconds > 7260 {
		t.Errorf("with an older job the oldest wait is %v s, want two hours", v.OldestWaitSeconds)
	}
}

func TestService(t *testing.T) {
	w := newWorld(t)
	s, err := w.reader.Service(t.Context())
	if err != nil || !s.Open {
		t.Fatalf("an untouched service is %+v, %v", s, err)
	}
	w.do(pool.SetAdmission{Open: false, Reason: "maintenance"})
	s, err = w.reader.Service(t.Context())
	if err != nil || s.Open || s.Reason != "maintenance" {
		t.Fatalf("the suspended service is %+v, %v", s, err)
	}
}

func TestResources(t *testing.T) {
	w := story(t)
	ctx := t.Context()
	all, next, err := w.reader.Resources(ctx, ResourceFilter{}, Page{})
	w.ok(err)
	if len(all) != 2 || next != "" || all[0].Seq < all[1].Seq {
		t.Fatalf("resources are %s, next %q", asJSON(t, all), next)
	}
	young, old := all[0], all[1]
	if want := *w.state.Resource(old.ID); asJSON(t, old) != asJSON(t, want) {
		t.Errorf("the resource is %s, want %s", asJSON(t, old), asJSON(t, want))
	}
	one, err := w.reader.Resource(ctx, young.ID)
	if err != nil || one.ID != young.ID || len(one.Users) != 1 {
		t.Errorf("the young one is %s, %v", asJSON(t, one), err)
	}
	_, err = w.reader.Resource(ctx, "none")
	wantRefusal(t, err, domain.KindNotFound, "resource_not_found", "")
	_, err = w.reader.Resource(ctx, "\xff")
	wantRefusal(t, err, domain.KindNotFound, "resource_not_found", "")

	w.do(pool.ReportLost{Resource: old.ID, Reason: "killed"})
	for _, c := range []struct {
		f    ResourceFilter
		want []domain.ResourceID
	}{
		{ResourceFilter{State: "lost"}, []domain.ResourceID{old.ID}},
		{ResourceFilter{State: "ready"}, []domain.ResourceID{young.ID}},
		{ResourceFilter{State: "failed"}, nil},
		{ResourceFilter{Model: "circuit:2"}, []domain.ResourceID{young.ID}},
		{ResourceFilter{Model: "circuit"}, nil},
		{ResourceFilter{Renderer: "other", Ended: true}, nil},
		{ResourceFilter{Renderer: "a\x00"}, nil},
		{ResourceFilter{Model: "a\x00"}, nil},
	} {
		got, _, err := w.reader.Resources(ctx, c.f, Page{})
		w.ok(err)
		if ids := idsOf(got, func(r pool.Resource) domain.ResourceID { return r.ID }); got == nil || !slices.Equal(ids, c.want) {
			t.Errorf("%+v gives %v, want %v", c.f, ids, c.want)
		}
	}
	got, _, err := w.reader.Resources(ctx, ResourceFilter{Ended: true}, Page{})
	w.ok(err)
	if !slices.ContainsFunc(got, func(r pool.Resource) bool { return r.ID == old.ID }) {
		t.Errorf("with ended ones the list lacks %s", old.ID)
	}
	got, _, err = w.reader.Resources(ctx, ResourceFilter{}, Page{})
	w.ok(err)
	if slices.ContainsFunc(got, func(r pool.Resource) bool { return r.Ended }) {
		t.Error("a list that was not asked for them has ended resources")
	}
	_, _, err = w.reader.Resources(ctx, ResourceFilter{State: "busy"}, Page{})
	wantRefusal(t, err, domain.KindInvalid, "invalid", "state")
}

// What a launcher says of a resource that is coming is told with it and to who waits for it, and no longer than it is coming.
func TestResourceNotes(t *testing.T) {
	w := newWorld(t)
	w.do(pool.ConfigureRenderer{Renderer: domain.Renderer{ID: "demo", CommandLine: "x", Launcher: "slurm", Scaling: domain.ScalingSettings{Max: 1}}})
	w.do(pool.BookResource{Session: "s1", Renderer: "demo", Model: "m", Wait: time.Hour, Lease: time.Minute})
	ctx, work := t.Context(), NewWork(w.db)
	all, _, err := w.reader.Resources(ctx, ResourceFilter{}, Page{})
	if err != nil || len(all) != 1 || all[0].Note != "" || !all[0].Expects.IsZero() {
		t.Fatalf("resources are %s, %v", asJSON(t, all), err)
	}
	id, expected := all[0].ID, w.now.Add(20*time.Minute).Truncate(time.Microsecond)
	w.ok(work.SetNote(ctx, id, "Priority", time.Time{}))
	w.ok(work.SetNote(ctx, id, "Resources: 3 jobs ahead, start expected 14:20", expected))
	look := func(note string, expects time.Time) {
		t.Helper()
		one, err := w.reader.Resource(ctx, id)
		w.ok(err)
		all, _, err := w.reader.Resources(ctx, ResourceFilter{Renderer: "demo"}, Page{})
		w.ok(err)
		for _, r := range append(all, one) {
			if r.Note != note || !r.Expects.Equal(expects) {
				t.Errorf("the note is %q, %s; want %q, %s", r.Note, r.Expects, note, expects)
			}
		}
	}
	look("Resources: 3 jobs ahead, start expected 14:20", expected)
	s, err := w.reader.Session(ctx, "s1")
	if err != nil || s.Queue == nil || !strings.HasSuffix(s.Queue.Reason, ": Resources: 3 jobs ahead, start expected 14:20") || s.Queue.EstimatedWaitSeconds < 600 {
		t.Errorf("who waits is told %s, %v", asJSON(t, s.Queue), err)
	}
	w.do(pool.ReportStarting{Launched: domain.Launched{Resource: id}})
	w.do(pool.ReportReady{Resource: id, Address: "10.0.0.7:1", Node: "n7"})
	look("", time.Time{})
	if s, err = w.reader.Session(ctx, "s1"); err != nil || s.Node != "n7" {
		t.Errorf("the session's node is %q, %v", s.Node, err)
	}
}

// A resource that is given its model on the command line counts for it before it has loaded anything.
func TestResourcesBoundToAModel(t *testing.T) {
	w := newWorld(t)
	w.do(pool.ConfigureRenderer{Renderer: domain.Renderer{
		ID: "a", CommandLine: "render", Launcher: domain.LauncherLocal, Slots: 1, ModelsPerResource: 1,
		ModelLoading: domain.LoadCommandLine, Scaling: domain.ScalingSettings{Max: 1},
	}})
	w.book("a", "s1", "circuit:1", "alice")
	for model, want := range map[string]int{"circuit:1": 1, "circuit:2": 0} {
		got, _, err := w.reader.Resources(t.Context(), ResourceFilter{Model: model}, Page{})
		if err != nil || len(got) != want {
			t.Errorf("%d resources are bound to %s, %v: %s", len(got), model, err, asJSON(t, got))
		}
	}
}

func idsOf[T any, ID comparable](all []T, id func(T) ID) []ID {
	var out []ID
	for _, v := range all {
		out = append(out, id(v))
	}
	return out
}

func TestSessions(t *testing.T) {
	w := story(t)
	w.reader.now = func() time.Time { return w.now }
	ctx := t.Context()
	ready, err := w.reader.Session(ctx, "s1")
	w.ok(err)
	if want := *w.state.Session("s1"); asJSON(t, ready.Session) != asJSON(t, want) {
		t.Errorf("the session is %s, want %s", asJSON(t, ready.Session), asJSON(t, want))
	}
	if ready.State != pool.SessionStateReady || ready.Address != "http://127.0.0.1:4711" || ready.Node != "node7" || ready.Queue != nil {
		t.Errorf("s1 is %s", asJSON(t, ready))
	}
	if ready.LeaseExpiresAt == nil || time.Until(*ready.LeaseExpiresAt) > time.Minute || time.Until(*ready.LeaseExpiresAt) < 50*time.Second {
		t.Errorf("the lease of s1 ends at %v, want in a minute", ready.LeaseExpiresAt)
	}
	for id, position := range map[domain.SessionID]int{"s3": 1, "s4": 2} {
		v, err := w.reader.Session(ctx, id)
		w.ok(err)
		want := w.state.PlaceOfSession(id, w.now)
		if v.Queue == nil || *v.Queue != want || v.Queue.Position != position || v.LeaseExpiresAt != nil || v.Address != "" {
			t.Errorf("%s is %s, want place %+v", id, asJSON(t, v), want)
		}
	}
	for _, id := range []domain.SessionID{"none", "a\x00"} {
		_, err = w.reader.Session(ctx, id)
		wantRefusal(t, err, domain.KindNotFound, "session_not_found", "")
	}
}

func TestSessionsThatEnded(t *testing.T) {
	w := story(t)
	w.do(pool.ReleaseSession{Session: "s1"}) // s3 gets the slot
	v, err := w.reader.Session(t.Context(), "s1")
	w.ok(err)
	if !v.Ended || v.LeaseExpiresAt != nil || v.Queue != nil {
		t.Errorf("the released session is %s", asJSON(t, v))
	}
	if v, err = w.reader.Session(t.Context(), "s4"); err != nil || v.Queue == nil || v.Queue.Position != 1 {
		t.Errorf("the last in the queue is %s, %v, want place 1", asJSON(t, v), err)
	}
}

func TestSessionLists(t *testing.T) {
	w := story(t)
	w.do(pool.ReleaseSession{Session: "s1"})
	s3 := w.state.Session("s3")
	for _, c := range []struct {
		f    SessionFilter
		want string
	}{
		{SessionFilter{}, "s4 s3 s2 s1"},
		{SessionFilter{Renderer: "brayns"}, "s4 s3 s2 s1"},
		{SessionFilter{Renderer: "other"}, ""},
		{SessionFilter{Owner: "alice"}, "s3 s1"},
		{SessionFilter{Owner: "alice", State: "released"}, "s1"},
		{SessionFilter{Model: "circuit:1"}, "s3 s1"},
		{SessionFilter{Resource: string(s3.Resource)}, "s3 s1"},
		{SessionFilter{State: "queued"}, "s4"},
		{SessionFilter{State: "ready"}, "s3 s2"},
		{SessionFilter{State: "released"}, "s1"},
		{SessionFilter{State: "lost"}, ""},
		{SessionFilter{Owner: "x\x00"}, ""},
	} {
		got, next, err := w.reader.Sessions(t.Context(), c.f, Page{})
		w.ok(err)
		var ids []string
		for _, v := range got {
			ids = append(ids, string(v.ID))
		}
		if got == nil || strings.Join(ids, " ") != c.want || next != "" {
			t.Errorf("%+v gives %v, next %q, want %s", c.f, ids, next, c.want)
		}
	}
	_, _, err := w.reader.Sessions(t.Context(), SessionFilter{State: "rejected"}, Page{})
	wantRefusal(t, err, domain.KindInvalid, "invalid", "state")
}

func TestJobs(t *testing.T) {
	w := story(t)
	w.reader.now = func() time.Time { return w.now }
	ctx := t.Context()
	for id, position := range map[domain.JobID]int{"j2": 1, "j3": 2, "j1": 3} {
		v, err := w.reader.Job(ctx, id)
		w.ok(err)
		if want := w.state.PlaceOfJob(id, w.now); v.Queue == nil || *v.Queue != want || v.Queue.Position != position {
			t.Errorf("%s is %s, want place %+v", id, asJSON(t, v), want)
		}
		if want := *w.state.Job(id); asJSON(t, v.Job) != asJSON(t, want) {
			t.Errorf("the job is %s, want %s", asJSON(t, v.Job), asJSON(t, want))
		}
	}
	v, err := w.reader.Job(ctx, "j4")
	w.ok(err)
	if want := w.state.PlaceOfJob("j4", w.now); v.Queue == nil || *v.Queue != want {
		t.Errorf("j4 is %s, want place %+v", asJSON(t, v), want)
	}
	for _, id := range []domain.JobID{"none", "a\x00"} {
		_, err = w.reader.Job(ctx, id)
		wantRefusal(t, err, domain.KindNotFound, "job_not_found", "")
	}
	for _, c := range []struct {
		f    JobFilter
		want string
	}{
		{JobFilter{}, "j4 j3 j2 j1"},
		{JobFilter{Kind: "image"}, "j3 j2 j1"},
		{JobFilter{State: "waiting"}, "j4"},
		{JobFilter{State: "failed"}, ""},
		{JobFilter{Model: "circuit:1", Owner: "alice", Renderer: "brayns"}, "j4 j3 j2 j1"},
		{JobFilter{Model: "circuit:9"}, ""},
		{JobFilter{Owner: "bob"}, ""},
	} {
		got, _, err := w.reader.Jobs(ctx, c.f, Page{})
		w.ok(err)
		var ids []string
		for _, v := range got {
			ids = append(ids, string(v.ID))
		}
		if got == nil || strings.Join(ids, " ") != c.want {
			t.Errorf("%+v gives %v, want %s", c.f, ids, c.want)
		}
	}
	_, _, err = w.reader.Jobs(ctx, JobFilter{Kind: "sculpture"}, Page{})
	wantRefusal(t, err, domain.KindInvalid, "invalid", "kind")
	_, _, err = w.reader.Jobs(ctx, JobFilter{State: "ready"}, Page{})
	wantRefusal(t, err, domain.KindInvalid, "invalid", "state")
}

func TestJobProgress(t *testing.T) {
	w := newWorld(t)
	w.renderer("a", 1)
	w.do(pool.SubmitJob{Job: "j1", Renderer: "a", Model: "m", Kind: pool.JobImage, Owner: "alice"})
	w.serve("a")
	leases := NewLeases(w.db)
	w.ok(leases.SetProgress(t.Context(), []Progress{{Kind: pool.UserJob, ID: "j1", Value: 0.25}}))
	resource := w.state.Job("j1").Resource
	progress := func() float64 {
		v, err := w.reader.Job(t.Context(), "j1")
		w.ok(err)
		return v.Progress
	}
	if got := progress(); got != 0 {
		t.Errorf("a job that has not started is at %v", got)
	}
	w.do(pool.ReportJobStarted{Job: "j1", Resource: resource})
	if got := progress(); got != 0.25 {
		t.Errorf("the running job is at %v, want 0.25", got)
	}
	w.pass(time.Second)
	w.do(pool.ReportJobFailed{Job: "j1", Resource: resource, Class: pool.ClassTransient, Code: "gone", Reason: "it is gone"})
	w.reader.now = func() time.Time { return w.now }
	v, err := w.reader.Job(t.Context(), "j1")
	w.ok(err)
	if want := w.state.PlaceOfJob("j1", w.now); v.Queue == nil || *v.Queue != want || v.Queue.Code != "backoff" || v.Progress != 0 {
		t.Errorf("the job that is tried again is %s, want place %+v", asJSON(t, v), want)
	}
	w.pass(time.Hour)
	w.do(pool.Tick{})
	w.serve("a")
	resource = w.state.Job("j1").Resource
	w.do(pool.ReportJobStarted{Job: "j1", Resource: resource})
	w.do(pool.ReportJobSucceeded{Job: "j1", Resource: resource, Result: pool.Result{ContentType: "image/png", Bytes: 3}})
	if got := progress(); got != 1 {
		t.Errorf("the job that succeeded is at %v", got)
	}
}

func TestModels(t *testing.T) {
	w := story(t)
	w.renderer("third", 1)
	w.book("third", "s9", "circuit:1", "alice")
	for _, res := range w.state.ResourcesOf("third") {
		w.do(pool.ReportReady{Resource: res.ID, Address: "http://127.0.0.1:1"})
	}
	all, next, err := w.reader.Models(t.Context(), "", Page{})
	w.ok(err)
	got := map[string]ModelView{}
	for i, m := range all {
		got[string(m.Renderer)+"/"+string(m.Model.Model)] = m
		if i > 0 && m.Seq >= all[i-1].Seq {
			t.Errorf("model %s is not older than the one before", m.Model.Model)
		}
	}
	one, two := w.state.Session("s1").Resource, w.state.Session("s2").Resource
	third := w.state.ResourcesOf("third")[0].ID
	for key, want := range map[string][2][]domain.ResourceID{
		"brayns/circuit:1": {{one}, {}},
		"brayns/circuit:2": {{two}, {}},
		"third/circuit:1":  {{}, {third}},
	} {
		m, ok := got[key]
		if !ok || !slices.Equal(m.Warm, want[0]) || !slices.Equal(m.Loading, want[1]) || m.Warm == nil || m.Loading == nil {
			t.Errorf("%s is %s, want warm and loading %v", key, asJSON(t, m), want)
		}
	}
	if want := *w.state.Model("brayns", "circuit:1"); asJSON(t, got["brayns/circuit:1"].Model) != asJSON(t, want) {
		t.Errorf("the model is %s, want %s", asJSON(t, got["brayns/circuit:1"].Model), asJSON(t, want))
	}
	if next != "" {
		t.Errorf("there is a next page %q", next)
	}
	few, _, err := w.reader.Models(t.Context(), "third", Page{})
	if err != nil || len(few) != 1 {
		t.Errorf("the models of one renderer are %s, %v", asJSON(t, few), err)
	}
	w.do(pool.DrainResource{Resource: two, Reason: "test"})
	few, _, err = w.reader.Models(t.Context(), "brayns", Page{})
	w.ok(err)
	for _, m := range few {
		if slices.Contains(m.Warm, two) {
			t.Errorf("%s is warm on a resource that takes no more", m.Model.Model)
		}
	}
}
