package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestARendererIsConfigured(t *testing.T) {
	w := newWorld(t)
	w.when(pool.ConfigureRenderer{Renderer: demo()}, "renderer.configured")
	w.silent(pool.ConfigureRenderer{Renderer: demo(func(r *domain.Renderer) { r.ID, r.Environment = "DEMO", map[string]string{} })})
	w.refused(pool.ConfigureRenderer{Renderer: demo(), Create: true}, domain.KindConflict, "renderer_exists")
	r := w.refused(pool.ConfigureRenderer{Renderer: demo(slots(-1))}, domain.KindInvalid, "invalid")
	if r.Field != "slots" {
		t.Errorf("%+v", r)
	}
	w.do(pool.ConfigureRenderer{Renderer: demo(named("other")), Create: true})
	if ids := w.state.Pools(); !slices.Equal(ids, []domain.RendererID{"demo", "other"}) {
		t.Errorf("%v", ids)
	}
}

func TestResourcesKeepTheSettingsTheyWereStartedWith(t *testing.T) {
	w := given(t, demo(size(1, 2))).up()
	w.do(pool.ConfigureRenderer{Renderer: demo(size(1, 2), slots(3), models(2, 500))})
	w.do(book("s1", "A"), book("s2", "A", waits(time.Hour)))
	if a, b := w.state.Resource(w.r(1)), w.state.Resource(w.r(2)); a.Slots != 1 || a.MaxModels != 1 || b.Slots != 3 || b.MaxModels != 2 || b.MemoryMiB != 500 {
		t.Errorf("%+v\n%+v", a, b)
	}
}

func TestARendererIsRemoved(t *testing.T) {
	w := given(t, demo(size(1, 2))).up()
	remove := pool.RemoveRenderer{Renderer: "demo"}
	w.do(book("s1", "A"), job("j1", "A"))
	w.refused(remove, domain.KindConflict, "renderer_in_use")
	w.do(release("s1"))
	w.refused(remove, domain.KindConflict, "renderer_in_use")
	w.do(pool.CancelJob{Job: "j1"}, pool.StopResource{Resource: w.r(2)})
	if got := w.do(remove); !slices.Equal(got, []string{"resource.stopping r1", "renderer.removed"}) {
		t.Errorf("%q", got)
	}
	w.refused(remove, domain.KindNotFound, "renderer_not_found")
	w.refused(book("s2", "A"), domain.KindNotFound, "renderer_not_found")
	w.when(pool.ReportStopped{Resource: w.r(1)}, "resource.stopped r1")
	w.tick(time.Hour)
	if w.state.Pool("demo") != nil || len(w.state.Pools()) != 0 {
		t.Error("it is still there")
	}
	// It may come again, and its stream goes on.
	w.when(pool.ConfigureRenderer{Renderer: demo(size(1, 2)), Create: true}, "renderer.configured", "pool.scaled 0 to 1", "resource.requested r3")
}

func TestARendererThatOthersWaitInIsNotRemoved(t *testing.T) {
	w := given(t, demo(), demo(named("video")))
	w.do(job("j1", "A"), job("v1", "A", after("j1"), func(c *pool.SubmitJob) { c.Renderer = "video" }))
	w.refused(pool.RemoveRenderer{Renderer: "video"}, domain.KindConflict, "renderer_in_use")
}

func TestSubjects(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"))
	events, _ := w.decide(release("s1"))
	if got := w.state.Subjects(events[0]); !slices.Equal(got, []string{"session:s1", "owner:ann", "resource:" + string(w.r(1)), "renderer:demo"}) {
		t.Errorf("%q", got)
	}
	events, _ = w.decide(book("s2", "B"))
	want := [][]string{
		{"session:s2", "owner:ann", "model:demo/B", "renderer:demo"},
		{"resource:" + string(w.r(1)), "model:demo/A", "renderer:demo"},
		{"resource:" + string(w.r(1)), "model:demo/B", "renderer:demo"},
		{"session:s2", "owner:ann", "resource:" + string(w.r(1)), "model:demo/B", "renderer:demo"},
	}
	for i, e := range events {
		if got := w.state.Subjects(e); !slices.Equal(got, want[i]) {
			t.Errorf("%s: %q", e.Event.Type(), got)
		}
	}
	events, _ = w.decide(book("s3", "B")) // rejected, and found by its owner nevertheless
	for _, e := range events {
		if got := w.state.Subjects(e); !slices.Contains(got, "owner:ann") || !slices.Contains(got, "session:s3") {
			t.Errorf("%s: %q", e.Event.Type(), got)
		}
	}
	events, _ = w.decide(pool.SetAdmission{Reason: "closed"})
	if got := w.state.Subjects(events[0]); !slices.Equal(got, []string{"admission"}) {
		t.Errorf("%q", got)
	}
}
