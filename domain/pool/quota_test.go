package pool_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func quota(change func(q *domain.QuotaSettings)) func(*domain.Renderer) {
	return func(r *domain.Renderer) {
		q := domain.QuotaSettings{}
		if r.Quotas != nil {
			q = *r.Quotas
		}
		change(&q)
		r.Quotas = &q
	}
}

func of(n int) *int { return &n }

func ownedBy(o domain.Owner) func(*pool.SubmitJob) {
	return func(c *pool.SubmitJob) { c.Owner = o }
}

func TestASessionOverTheQuotaIsRefused(t *testing.T) {
	w := given(t, demo(size(3, 3), quota(func(q *domain.QuotaSettings) { q.Sessions = of(1) }))).up()
	bob := func(c *pool.BookResource) { c.Owner = "bob" }
	w.do(book("s1", "A"))
	r := w.refused(book("s2", "A"), domain.KindTooMany, "quota_exceeded", "session.requested s2", "session.rejected s2 quota_exceeded")
	if r.Field != "owner" || r.RetryAfter < time.Second || r.Position == 0 || r.Reason != "ann has 1 sessions of 1" {
		t.Errorf("%+v", r)
	}
	if p := w.state.Pool("demo"); len(p.Unmet) != 0 {
		t.Errorf("an owner over its quota counts as demand: %+v", p.Unmet)
	}
	w.do(book("s3", "A", bob), release("s1"), book("s4", "A"))
}

func TestASessionThatWaitsCountsAsWell(t *testing.T) {
	w := given(t, demo(quota(func(q *domain.QuotaSettings) { q.Sessions = of(2) })))
	w.do(book("s1", "A", waits(time.Hour)), book("s2", "A", waits(time.Hour)))
	w.refused(book("s3", "A", waits(time.Hour)), domain.KindTooMany, "quota_exceeded", "session.requested s3", "session.rejected s3 quota_exceeded")
	w.do(release("s2"), book("s4", "A", waits(time.Hour)))
}

func TestAnOpenedSessionOverTheQuotaStaysOpened(t *testing.T) {
	w := given(t, demo(quota(func(q *domain.QuotaSettings) { q.Sessions = of(0) })))
	w.do(pool.OpenSession{Session: "s1", Renderer: "demo", Owner: "ann", Lease: time.Minute})
	w.refused(pool.ScheduleSession{Session: "s1", Model: "A"}, domain.KindTooMany, "quota_exceeded")
	if e := w.state.Session("s1"); e.State != pool.SessionStateOpened {
		t.Errorf("%+v", e)
	}
}

func TestASubmissionOverTheQuotaIsRefused(t *testing.T) {
	w := given(t, demo(size(1, 1), quota(func(q *domain.QuotaSettings) {
		q.JobsQueued = of(1)
		q.Owners = map[domain.Owner]domain.Quota{"bob": {JobsQueued: of(2)}, "eve": {Sessions: of(1)}}
	}))).up()
	w.do(book("s1", "A"))
	w.do(job("j1", "A"))
	r := w.refused(job("j2", "A", after("j1")), domain.KindTooMany, "quota_exceeded", "job.rejected j2 quota_exceeded")
	if r.Field != "owner" || r.RetryAfter < time.Second || r.Position == 0 {
		t.Errorf("%+v", r)
	}
	if w.state.Job("j2") != nil {
		t.Error("a job that was refused is there")
	}
	w.do(job("b1", "A", ownedBy("bob")), job("b2", "A", ownedBy("bob"), after("b1"))) // one that waits for another counts
	w.refused(job("b3", "A", ownedBy("bob")), domain.KindTooMany, "quota_exceeded", "job.rejected b3 quota_exceeded")
	w.do(job("e1", "A", ownedBy("eve"))) // what is not said of her is as for everybody
	w.refused(job("e2", "A", ownedBy("eve")), domain.KindTooMany, "quota_exceeded", "job.rejected e2 quota_exceeded")
	w.do(pool.CancelJob{Job: "j1"}, job("j3", "A"))
}

func TestJobsBeyondTheQuotaStayQueuedAndOthersPass(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(3), quota(func(q *domain.QuotaSettings) { q.JobsRunning = of(1) }))).up()
	w.when(job("j1", "A"), "job.submitted j1", "job.queued j1", "model.loading r1 A", "job.assigned j1 r1 cold attempt 1")
	w.when(job("j2", "A"), "job.submitted j2", "job.queued j2")
	w.when(job("b1", "A", ownedBy("bob")), "job.submitted b1", "job.queued b1", "job.assigned b1 r1 cold attempt 1")
	if p := w.state.PlaceOfJob("j2", w.now); p.Code != "quota_exceeded" || p.Reason != "ann has 1 jobs running of 1" {
		t.Errorf("%+v", p)
	}
	w.when(pool.CancelJob{Job: "j1"}, "job.cancelled j1", "job.assigned j2 r1 cold attempt 1")
}

func TestJobsThatTheQuotaHoldsBackStartNoResource(t *testing.T) {
	w := given(t, demo(size(0, 2), quota(func(q *domain.QuotaSettings) { q.JobsRunning = of(1) })))
	w.do(job("j1", "A"))
	w.up()
	w.when(job("j2", "B"), "job.submitted j2", "job.queued j2")
}

// The queue of one owner over its quota is longer than placement looks ahead.
func TestALongQueueOverTheQuotaHoldsUpNobody(t *testing.T) {
	w := given(t, demo(size(2, 2), slots(2), quota(func(q *domain.QuotaSettings) { q.JobsRunning = of(2) }))).up()
	for i := range 200 {
		w.do(job(domain.JobID(fmt.Sprintf("j%d", i)), "A"))
	}
	w.do(job("b1", "A", ownedBy("bob")))
	if j := w.state.Job("b1"); !j.Holding() {
		t.Errorf("bob's job is %s behind ann's 198 that may not run", j.State)
	}
}

func TestASmallerQuotaTakesNothingAway(t *testing.T) {
	w := given(t, demo(size(1, 1), slots(2))).up()
	w.do(job("j1", "A"), job("j2", "A"), job("j3", "A"))
	w.do(pool.ConfigureRenderer{Renderer: demo(size(1, 1), slots(2), quota(func(q *domain.QuotaSettings) { q.JobsRunning = of(1) }))})
	w.when(w.succeeded(1, "j1"), "job.succeeded j1")
	w.when(w.succeeded(1, "j2"), "job.succeeded j2", "job.assigned j3 r1 cold attempt 1")
}

// Whoever was there before the first quota was set counts.
func TestAQuotaCountsWhoIsThereAlready(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"), job("j1", "A"), job("j2", "A", after("j1")))
	w.do(pool.ConfigureRenderer{Renderer: demo(size(1, 1), quota(func(q *domain.QuotaSettings) { q.JobsQueued, q.Sessions = of(2), of(1) }))})
	w.refused(job("j3", "A"), domain.KindTooMany, "quota_exceeded", "job.rejected j3 quota_exceeded")
	w.refused(book("s2", "A"), domain.KindTooMany, "quota_exceeded", "session.requested s2", "session.rejected s2 quota_exceeded")
}

func theUseOfEveryOwnerIsCounted(w *world) error {
	for _, p := range pool.AllPools(w.state) {
		if kept, counted := pool.Uses(w.state, p.Settings.ID); kept != "" && kept != counted {
			return fmt.Errorf("the owners of %s are said to use %s and use %s", p.Settings.ID, kept, counted)
		}
	}
	return nil
}

// noOwnerGetsMoreThanItsQuota: not by a booking, not by a submission, and not by a slot for a job.
func noOwnerGetsMoreThanItsQuota(w *world, r pool.Recorded) error {
	var owner domain.Owner
	var is func() (has int, limit *int)
	p := w.fold.Pool(domain.RendererID(strings.TrimPrefix(string(r.Stream), "pool/")))
	if p == nil {
		return nil
	}
	switch e := r.Event.(type) {
	case pool.SessionAllocated, pool.SessionQueued:
		last, ok := w.events[len(w.events)-1].Event.(pool.SessionRequested)
		if !ok {
			return nil // it was let in before
		}
		owner, is = last.Owner, func() (int, *int) {
			return countSessions(w, p, last.Owner) - 1, p.Settings.Quotas.Of(last.Owner).Sessions
		}
	case pool.JobSubmitted:
		if e.PartOf != "" {
			return nil // its job counts
		}
		owner, is = e.Owner, func() (int, *int) {
			return countJobs(w, p, e.Owner, pool.JobStateWaiting, pool.JobStateQueued), p.Settings.Quotas.Of(e.Owner).JobsQueued
		}
	case pool.JobAssigned:
		owner, is = e.Owner, func() (int, *int) {
			return countJobs(w, p, e.Owner, pool.JobStateAssigned, pool.JobStateRunning), p.Settings.Quotas.Of(e.Owner).JobsRunning
		}
	default:
		return nil
	}
	if has, limit := is(); limit != nil && has >= *limit {
		return fmt.Errorf("%s has %d of %d already", owner, has, *limit)
	}
	return nil
}

func countSessions(w *world, p *pool.Pool, o domain.Owner) int {
	n := 0
	for _, e := range pool.AllSessions(w.fold) {
		if e.Renderer == p.Settings.ID && e.Owner == o && (e.Waiting() || e.Holding()) {
			n++
		}
	}
	return n
}

func countJobs(w *world, p *pool.Pool, o domain.Owner, states ...pool.JobState) int {
	n := 0
	for _, j := range pool.AllJobs(w.fold) {
		if j.Renderer == p.Settings.ID && j.Owner == o && slices.Contains(states, j.State) && (j.PartOf == "" || j.Holding()) {
			n++
		}
	}
	return n
}

// A burst by one owner does not hold up the others, and a weight gives its owner so many times the share.
func TestABurstDoesNotHoldUpTheOthers(t *testing.T) {
	for _, c := range []struct {
		weight int
		next   domain.JobID
	}{{1, "bobs"}, {20, "a3"}} {
		w := given(t, demo(size(2, 2), func(r *domain.Renderer) {
			r.Quotas = &domain.QuotaSettings{Owners: map[domain.Owner]domain.Quota{"ann": {Weight: &c.weight}}}
		})).up()
		w.do(job("a1", "A"), job("a2", "A"))
		for n := 1; n <= 2; n++ {
			w.do(pool.ReportModelLoaded{Resource: w.r(n), Model: "A", Seconds: 2})
		}
		w.started(1, "a1")
		w.do(job("a3", "A"), job("a4", "A"), job("a5", "A"))
		w.pass(time.Second)
		w.do(job("bobs", "A", ownedBy("bob")))
		w.pass(2 * time.Second)
		// Ann holds the other slot. At weight 1 her work counts twice, and bob waited for more than half as long.
		w.do(w.succeeded(1, "a1"))
		if got := w.state.Job(c.next).State; got != pool.JobStateAssigned {
			t.Errorf("weight %d: %s is %s", c.weight, c.next, got)
		}
	}
}
