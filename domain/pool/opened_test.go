package pool_test

import (
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

func open(id domain.SessionID) pool.OpenSession {
	return pool.OpenSession{Session: id, Renderer: "demo", Owner: "ann", Lease: 5 * time.Minute}
}

func TestAnOpenedSessionHoldsNothingUntilItIsScheduled(t *testing.T) {
	w := given(t, demo())
	w.when(open("s1"), "session.opened s1")
	if s := w.state.Session("s1"); s.State != pool.SessionStateOpened || !s.Throughout || s.LeaseSeconds != 300 {
		t.Errorf("%+v", s)
	}
	w.refused(open("s1"), domain.KindConflict, "session_exists")
	w.refused(pool.ScheduleSession{Session: "none", Model: "A"}, domain.KindNotFound, "session_not_found")
	w.refused(pool.ScheduleSession{Session: "s1"}, domain.KindInvalid, "invalid")
	w.when(pool.ScheduleSession{Session: "s1", Model: "A"}, "session.requested s1", "session.queued s1 at 1", "pool.scaled 0 to 1", "resource.requested r1")
	w.refused(pool.ScheduleSession{Session: "s1", Model: "A"}, domain.KindConflict, "session_scheduled")
	if s := w.state.Session("s1"); !s.Throughout || s.WaitUntil != nil || s.Owner != "ann" {
		t.Errorf("scheduling changed what was opened: %+v", s)
	}
	w.when(pool.ExpireSession{Session: "s1"}, "session.expired s1 lease_ended")
	w.refused(pool.ScheduleSession{Session: "s1", Model: "A"}, domain.KindConflict, "session_ended")
}

func TestOpeningAsksForAdmission(t *testing.T) {
	w := given(t, demo())
	w.do(pool.SetAdmission{Reason: "maintenance"})
	w.refused(open("s1"), domain.KindForbidden, pool.CodeAdmission)
	w.do(pool.SetAdmission{Open: true})
	w.do(open("s2"))
	w.refused(pool.OpenSession{Session: "s3", Renderer: "none", Lease: time.Minute}, domain.KindNotFound, "renderer_not_found")
	w.refused(pool.OpenSession{Session: "s3", Renderer: "demo"}, domain.KindInvalid, "invalid")
}

// Overrides get a resource of their own; another session with the same ones gets the same, one with others or none does not.
func TestOverridesGetAResourceOfTheirOwn(t *testing.T) {
	w := given(t, demo(size(1, 3))).up()
	mine := &domain.Overrides{Arguments: "--volume A", CPUs: 4}
	w.do(open("s1"), open("s2"), open("s3"))
	w.when(pool.ScheduleSession{Session: "s1", Model: "A", Overrides: mine}, "session.requested s1", "session.queued s1 at 1", "pool.scaled 1 to 2", "resource.requested r2")
	if r := w.state.Resource(w.r(2)); r.Overrides == nil || r.Overrides.Arguments != "--volume A" || r.Key == "" {
		t.Errorf("%+v", r)
	}
	w.do(pool.ReportStarting{Launched: domain.Launched{Resource: w.r(2)}}, pool.ReportReady{Resource: w.r(2)}, pool.ReportModelLoaded{Resource: w.r(2), Model: "A", Seconds: 1})
	if s := w.state.Session("s1"); s.Resource != w.r(2) || s.State != pool.SessionStateReady {
		t.Fatalf("%+v", s)
	}
	w.do(release("s1"))
	same := *mine
	w.do(pool.ScheduleSession{Session: "s2", Model: "A", Overrides: &same})
	if s := w.state.Session("s2"); s.Resource != w.r(2) || !s.Warm {
		t.Errorf("the same overrides did not get the warm resource: %+v", s)
	}
	w.do(release("s2"))
	w.do(pool.ScheduleSession{Session: "s3", Model: "A"})
	if s := w.state.Session("s3"); s.Resource != w.r(1) {
		t.Errorf("no overrides got %s", s.Resource)
	}
	w.refused(pool.ScheduleSession{Session: "s9", Model: "A"}, domain.KindNotFound, "session_not_found")
	w.do(open("s4"))
	w.refused(pool.ScheduleSession{Session: "s4", Model: "A", Overrides: &domain.Overrides{Launcher: "magic"}}, domain.KindInvalid, "invalid")
}

// A full pool makes room for overrides by stopping the longest idle resource.
func TestOverridesFindRoomInAFullPool(t *testing.T) {
	w := given(t, demo(size(1, 1))).up().warm(1, "A", 1)
	w.do(open("s1"))
	w.do(pool.ScheduleSession{Session: "s1", Model: "A", Overrides: &domain.Overrides{Queue: "gpu"}})
	if r := w.state.Resource(w.r(1)); r.State != pool.ResourceStateStopping {
		t.Fatalf("%+v", r)
	}
	w.do(pool.ReportStopped{Resource: w.r(1)})
	if r := w.state.Resource(w.r(2)); r == nil || r.Overrides.Queue != "gpu" {
		t.Errorf("%+v", r)
	}
}

func TestAResourceRegistersItself(t *testing.T) {
	set := demo(size(0, 4))
	set.Launcher, set.CommandLine = domain.LauncherStatic, ""
	w := given(t, set)
	here := pool.RegisterResource{Renderer: "demo", Address: "10.0.0.7:9000", Node: "gpu7", Slots: 2, Labels: map[string]string{"gpu": "a100"}}
	w.when(here, "resource.requested r1", "resource.starting r1")
	w.refused(here, domain.KindConflict, "address_in_use")
	w.do(pool.ReportReady{Resource: w.r(1), Address: here.Address})
	w.do(book("s1", "A"))
	if r := w.state.Resource(w.r(1)); r.Slots != 2 || r.Node != "gpu7" || len(r.Users) != 1 || r.Launcher != domain.LauncherStatic {
		t.Errorf("%+v", r)
	}
	here.Address, here.Slots = "10.0.0.8:9000", 1025
	w.refused(here, domain.KindInvalid, "invalid")
	w.do(pool.ConfigureRenderer{Renderer: func() domain.Renderer { r := demo(); r.ID = "other"; return r }()})
	second := set
	second.ID = "second"
	w.do(pool.ConfigureRenderer{Renderer: second})
	w.refused(pool.RegisterResource{Renderer: "second", Address: "10.0.0.7:9000"}, domain.KindConflict, "address_in_use")
	here.Renderer, here.Slots = "other", 1
	w.refused(here, domain.KindConflict, "not_static")
}

// A tunnel that was made anew changes where a resource is reached, and nothing else.
func TestAResourceIsReachedElsewhere(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"))
	w.when(pool.ReportAddress{Resource: w.r(1), Address: "127.0.0.1:40022"}, "resource.readdressed r1")
	w.silent(pool.ReportAddress{Resource: w.r(1), Address: "127.0.0.1:40022"})
	w.silent(pool.ReportAddress{Resource: w.r(1)})
	// A node that is told of later than the renderer answers.
	w.when(pool.ReportAddress{Resource: w.r(1), Address: "127.0.0.1:40022", Node: "n7"}, "resource.readdressed r1")
	w.silent(pool.ReportAddress{Resource: w.r(1), Address: "127.0.0.1:40022", Node: "n7"})
	w.silent(pool.ReportAddress{Resource: w.r(1), Address: "127.0.0.1:40022"})
	if r := w.state.Resource(w.r(1)); r.Node != "n7" {
		t.Errorf("%+v", r)
	}
	if r := w.state.Resource(w.r(1)); r.Address != "127.0.0.1:40022" || len(r.Users) != 1 || r.State != pool.ResourceStateReady {
		t.Errorf("%+v", r)
	}
}

// Before a scheduler ends a resource its sessions are warned, and then move if they asked for it.
func TestTimeAtTheSchedulerEnds(t *testing.T) {
	w := given(t, demo(size(1, 2))).up()
	w.do(book("s1", "A", moves))
	until := w.now.Add(2 * time.Minute)
	w.do(pool.DrainResource{Resource: w.r(1), Reason: "its time ends", Until: &until})
	if s := w.state.Session("s1"); s.Warning != "its time ends" || s.GoesAt == nil || !s.GoesAt.Equal(until) {
		t.Errorf("%+v", s)
	}
	w.do(pool.StopResource{Resource: w.r(1), Reason: "its time ends"})
	if s := w.state.Session("s1"); s.Moves != 1 || s.Warning != "" || s.Ended {
		t.Errorf("%+v", s)
	}
}

// A drain without a reason warns its sessions all the same.
func TestADrainWarns(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"), pool.DrainResource{Resource: w.r(1)})
	if s := w.state.Session("s1"); s.Warning != "it is drained" || s.GoesAt != nil {
		t.Errorf("%+v", s)
	}
}
