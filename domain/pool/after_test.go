package pool_test

import (
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func TestAJobAfterAnother(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"))
	w.when(job("j2", "A", after("j1", "j1")), "job.submitted j2")
	if place := w.state.PlaceOfJob("j2", w.now); place.Code != "dependencies" || place.Reason == "" {
		t.Errorf("%+v", place)
	}
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "job.unblocked j2 by j1", "job.queued j2", "job.assigned j2 r1 cold attempt 1")
	// One that comes after the fact does not wait.
	w.when(job("j3", "A", after("j1")), "job.submitted j3", "job.queued j3")
}

func TestAJobAfterSeveral(t *testing.T) {
	w := given(t, demo(size(2, 2))).up()
	w.do(job("j1", "A"), job("j2", "B"), job("j3", "A", after("j1", "j2")))
	w.when(w.succeeded(2, "j2"), "job.succeeded j2", "job.unblocked j3 by j2")
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "job.unblocked j3 by j1", "job.queued j3", "job.assigned j3 r1 cold attempt 1")
}

func TestAFailureIsPassedOn(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"), job("j2", "A", after("j1")), job("j3", "A", after("j2")), job("j4", "A"))
	w.when(w.failed(1, "j1", pool.ClassPermanent), "job.failed j1 broken", "job.failed j2 dependency_failed", "job.failed j3 dependency_failed", "job.assigned j4 r1 cold attempt 1")
	if j := w.state.Job("j3"); j.Reason != `job "j2", which it waits for, failed: job "j1", which it waits for, failed: it broke` {
		t.Errorf("%+v", j)
	}
	w.when(job("j5", "A", after("j4", "j3")), "job.submitted j5", "job.failed j5 dependency_failed")
}

// j3 waits for j1 and for j2, which waits for j1: it must not fail twice.
func TestAFailureIsPassedOnOnce(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"), job("j2", "A", after("j1")), job("j3", "A", after("j1", "j2")))
	w.when(w.failed(1, "j1", pool.ClassPermanent), "job.failed j1 broken", "job.failed j2 dependency_failed", "job.failed j3 dependency_failed")
}

func TestAJobAfterOneInAnotherPool(t *testing.T) {
	w := given(t, demo(size(1, 1)), demo(named("video"), size(1, 1))).up()
	inVideo := func(c *pool.SubmitJob) { c.Renderer, c.Kind = "video", pool.JobVideo }
	w.do(job("j1", "A"))
	w.do(job("v1", "A", inVideo, after("j1")))
	// Both pools are settled in one batch.
	w.when(w.succeeded(1, "j1"), "job.succeeded j1", "video job.unblocked v1 by j1", "video job.queued v1", "video model.loading r1 A", "video job.assigned v1 r1 cold attempt 1")
	w.do(job("j2", "A"), job("v2", "A", inVideo, after("j2")))
	w.when(pool.CancelJob{Job: "j2"}, "job.cancelled j2", "video job.failed v2 dependency_failed")
}

func TestNobodyWaitsForTheJobOfAnother(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(job("j1", "A"))
	bobs := func(c *pool.SubmitJob) { c.Owner = "bob" }
	a := w.refused(job("j2", "A", bobs, after("j1")), domain.KindInvalid, "invalid")
	b := w.refused(job("j2", "A", bobs, after("jx")), domain.KindInvalid, "invalid")
	if strings.ReplaceAll(a.Reason, "j1", "jx") != b.Reason {
		t.Errorf("%q tells more than %q", a.Reason, b.Reason)
	}
	if keys := w.state.Needs(job("j2", "A", after("j1", "j9"))); len(keys) != 1 || keys[0].ID != "j9" {
		t.Errorf("it needs %v", keys)
	}
}
