package local

import (
	"testing"
	"time"
)

func TestAPortIsPromisedOnceForAWhile(t *testing.T) {
	t.Parallel()
	l, err := New(Options{Dir: t.TempDir(), Service: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if !l.claimPort(1) || l.claimPort(1) || !l.claimPort(2) {
		t.Error("a port was promised twice, or another not at all")
	}
	l.ports[1] = time.Now().Add(-2 * portMemory)
	if !l.claimPort(1) {
		t.Error("a port is promised for ever")
	}
}

func TestAGuessedReasonGivesWayToASureOne(t *testing.T) {
	t.Parallel()
	l, err := New(Options{Dir: t.TempDir(), Service: "s"})
	if err != nil {
		t.Fatal(err)
	}
	rec := record{Resource: "r", Service: "s", Phase: phaseRunning, PID: 1 << 30, StartTime: 1, Boot: l.boot}
	unlock, err := l.lock(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.write(rec); err != nil {
		t.Fatal(err)
	}
	unlock()
	for _, step := range []struct {
		reason string
		sure   bool
		want   string
	}{{"guess", false, "guess"}, {"exit status 3", true, "exit status 3"}, {"another guess", false, "exit status 3"}} {
		if err := l.finish(t.Context(), rec, step.reason, step.sure); err != nil {
			t.Fatal(err)
		}
		if now, _, err := l.read("r"); err != nil || now.Phase != phaseEnded || now.Reason != step.want {
			t.Errorf("after %q the record says %s, %q, %v; want %q", step.reason, now.Phase, now.Reason, err, step.want)
		}
	}
	other := rec
	other.PID++
	if err := l.finish(t.Context(), other, "the end of another process", true); err != nil {
		t.Fatal(err)
	}
	if now, _, err := l.read("r"); err != nil || now.Reason != "exit status 3" {
		t.Errorf("another process's end was recorded: %q, %v", now.Reason, err)
	}
}
