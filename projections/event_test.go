package projections

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
	"github.com/rendering-resource-manager/rrm/eventstore"
)

// matching is the dumb way to filter the log, to compare with.
func (w *world) matching(f EventFilter) (positions []int64) {
	w.t.Helper()
	all, err := w.log.Read(w.t.Context(), f.After, eventstore.MaxRead)
	w.ok(err)
	for _, e := range all {
		byType := f.Type == "" || e.Type == f.Type ||
			f.Type[len(f.Type)-1] == '*' && len(e.Type) > len(f.Type)-1 && e.Type[:len(f.Type)-1] == f.Type[:len(f.Type)-1]
		if byType && (f.Subject == "" || slices.Contains(e.Subjects, f.Subject)) {
			positions = append(positions, e.Position)
		}
	}
	return positions
}

var eventFilters = []EventFilter{
	{}, {After: 5}, {Subject: "session:s1"}, {Subject: "session:s1", After: 6}, {Subject: "owner:alice"}, {Subject: "model:brayns/circuit:1"},
	{Subject: "renderer:brayns"}, {Type: "session.allocated"}, {Type: "session.*"}, {Type: "session.*", After: 9}, {Type: "job.queued"},
	{Type: "model.*"}, {Subject: "owner:alice", Type: "session.*"}, {Subject: "owner:alice", Type: "job.queued"},
	{Subject: "nobody:x"}, {Type: "nothing.happened"}, {Type: "nothing.*"}, {Subject: "session:s", Type: "session.*"},
}

func (w *world) compareEvents(when string) {
	w.t.Helper()
	matched := 0
	for _, f := range eventFilters {
		f.Limit = MaxEvents
		got, err := w.reader.Events(w.t.Context(), f)
		w.ok(err)
		positions := idsOf(got, func(e eventstore.Event) int64 { return e.Position })
		if want := w.matching(f); !slices.Equal(positions, want) {
			w.t.Errorf("%s, %+v gives events %v, want %v", when, f, positions, want)
		}
		matched += len(got)
		for _, e := range got {
			if one, err := w.log.ReadOne(w.t.Context(), e.Position); err != nil || asJSON(w.t, one) != asJSON(w.t, e) {
				w.t.Errorf("%s, event %d is %s, want %s", when, e.Position, asJSON(w.t, e), asJSON(w.t, one))
			}
		}
	}
	if matched < 50 {
		w.t.Errorf("%s, only %d events matched", when, matched)
	}
}

func TestEventsBeforeWithAndBehindTheIndex(t *testing.T) {
	w := story(t)
	w.compareEvents("without an index")
	stop := w.follow()
	w.indexed()
	w.compareEvents("with all indexed")
	stop()
	done := count(t, w.db, `SELECT position FROM checkpoints WHERE follower = 'timeline'`)
	w.do(pool.ReleaseSession{Session: "s1"})
	w.do(pool.SetAdmission{Open: false, Reason: "test"}) // a type that the index does not know yet
	w.do(pool.CancelJob{Job: "j1", Reason: "test"})
	w.compareEvents("with a tail")
	if count(t, w.db, `SELECT position FROM checkpoints WHERE follower = 'timeline'`) != done {
		t.Error("the follower went on after it was stopped")
	}
	// The index is really used: what it does not hold is not found before its checkpoint.
	mustExec(t, w.db, `DELETE FROM event_subjects WHERE subject = 'session:s1'`)
	got, err := w.reader.Events(t.Context(), EventFilter{Subject: "session:s1"})
	w.ok(err)
	if len(got) == 0 || got[0].Position <= done {
		t.Errorf("without its entries the index gives %d events", len(got))
	}
}

func TestEventsPageThroughIndexAndTail(t *testing.T) {
	w := story(t)
	stop := w.follow()
	w.indexed()
	stop()
	w.do(pool.ReleaseSession{Session: "s1"})
	for _, f := range []EventFilter{{Subject: "owner:alice"}, {Type: "session.*"}, {}} {
		want := w.matching(f)
		f.Limit = 3
		var seen []int64
		for len(seen) <= len(want) {
			got, err := w.reader.Events(t.Context(), f)
			w.ok(err)
			if len(got) == 0 {
				break
			}
			for _, e := range got {
				seen = append(seen, e.Position)
			}
			f.After = seen[len(seen)-1]
		}
		if !slices.Equal(seen, want) {
			t.Errorf("%+v gives events %v, want %v", f, seen, want)
		}
	}
}

// While the follower works and the log grows, no reader ever misses an event
// that was there before it asked.
func TestEventsMissNothingWhileIndexing(t *testing.T) {
	w := newWorld(t)
	w.renderer("a", 0)
	w.follow()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	written := 0
	var readers sync.WaitGroup
	for _, f := range []EventFilter{{Type: "session.queued", Limit: MaxEvents}, {Type: "session.*", Limit: MaxEvents}, {Subject: "owner:alice", Type: "session.queued", Limit: MaxEvents}} {
		readers.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				least := written
				mu.Unlock()
				got, err := w.reader.Events(context.WithoutCancel(ctx), f)
				if err != nil {
					t.Error(err)
					return
				}
				n := 0
				for _, e := range got {
					if e.Type == "session.queued" {
						n++
					}
				}
				if n < least {
					t.Errorf("%+v gives %d events, %d were written before", f, n, least)
					return
				}
			}
		})
	}
	for i := range 150 {
		w.book("a", domain.SessionID(fmt.Sprintf("s%d", i)), "m", "alice")
		mu.Lock()
		written++
		mu.Unlock()
	}
	cancel()
	readers.Wait()
}

func TestEventsRefuse(t *testing.T) {
	w := newWorld(t)
	for field, filters := range map[string][]EventFilter{
		"after":   {{After: -1}},
		"limit":   {{Limit: -1}, {Limit: MaxEvents + 1}},
		"type":    {{Type: "session"}, {Type: "*"}, {Type: "session.**"}, {Type: "Session.ready"}, {Type: ".*"}, {Type: "a.b\n"}},
		"subject": {{Subject: "session:\x00"}, {Subject: "\xff"}, {Subject: string(make([]byte, maxSubject+1))}},
	} {
		for _, f := range filters {
			_, err := w.reader.Events(t.Context(), f)
			wantRefusal(t, err, domain.KindInvalid, "invalid", field)
		}
	}
}

// A tail beyond the bound is refused unless an event is found before, and never silently cut.
func TestEventsFarBehind(t *testing.T) {
	w := newWorld(t)
	const bound = 2000
	w.reader.tail = bound
	fillLog(t, w, bound+10, func(i int) bool { return i == bound-5 })
	near := EventFilter{Subject: "session:needle", After: 1}
	got, err := w.reader.Events(t.Context(), near)
	if err != nil || len(got) != 1 || got[0].Position != bound-5 {
		t.Fatalf("the event before the bound: %d events, %v", len(got), err)
	}
	_, err = w.reader.Events(t.Context(), EventFilter{Subject: "session:none"})
	wantRefusal(t, err, domain.KindUnavailable, "timeline_behind", "")
	// Close to the head nothing is refused, whatever the follower has done.
	got, err = w.reader.Events(t.Context(), EventFilter{Subject: "session:none", After: 100})
	if err != nil || len(got) != 0 {
		t.Fatalf("near the head: %d events, %v", len(got), err)
	}
	w.follow()
	w.indexed()
	got, err = w.reader.Events(t.Context(), EventFilter{Subject: "session:none"})
	if err != nil || len(got) != 0 {
		t.Fatalf("with all indexed: %d events, %v", len(got), err)
	}
}

// fillLog writes n events straight into the log, which is far faster than appending them. The needle is another session's.
func fillLog(t testing.TB, w *world, n int, needle func(i int) bool) {
	t.Helper()
	var at []int64
	for i := 1; i <= n; i++ {
		if needle(i) {
			at = append(at, int64(i))
		}
	}
	tx, err := w.db.Beginx()
	w.ok(err)
	defer func() { _ = tx.Rollback() }()
	for _, q := range []string{
		fmt.Sprintf(`INSERT INTO events (position, stream, version, type, data, meta, subjects)
SELECT i, 'pool/a', i, CASE WHEN i = ANY ('%[2]s') THEN 'session.rejected' ELSE (ARRAY['session.requested', 'session.allocated', 'session.ready', 'session.released'])[1 + i %% 4] END,
  '{}', '{"decided_at": "2026-01-01T00:00:00Z"}',
  ARRAY['session:' || CASE WHEN i = ANY ('%[2]s') THEN 'needle' ELSE (i / 4)::text END, 'owner:o' || i %% 10, 'renderer:a']
FROM generate_series(1, %[1]d) AS i`, n, arrayText(at)),
		fmt.Sprintf(`UPDATE log_head SET position = %d`, n),
	} {
		if _, err := tx.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	w.ok(tx.Commit())
	mustExec(t, w.db, `ANALYZE events`)
}

func arrayText(all []int64) string {
	s := "{"
	for i, v := range all {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprint(v)
	}
	return s + "}"
}

func TestTheTimelineHoldsEachSubjectOnce(t *testing.T) {
	w := story(t)
	stop := w.follow()
	w.indexed()
	stop()
	before := count(t, w.db, `SELECT sum(cardinality(positions)) FROM event_subjects`)
	want := count(t, w.db, `SELECT count(*) FROM (SELECT DISTINCT s, position FROM events, unnest(subjects || ('type:' || type)) AS s) AS x`)
	if before != want || want == 0 {
		t.Errorf("%d entries for %d subjects", before, want)
	}
	// Filled anew without having been emptied it would hold each twice: the alarm stops it.
	mustExec(t, w.db, `UPDATE checkpoints SET position = 0`)
	w.follow()
	eventually(t, "the timeline is paused", func() bool {
		return count(t, w.db, `SELECT count(*) FROM checkpoints WHERE follower = 'timeline' AND status = 'paused'`) == 1
	})
	if after := count(t, w.db, `SELECT sum(cardinality(positions)) FROM event_subjects`); after != before {
		t.Errorf("indexed twice there are %d entries, before %d", after, before)
	}
}

func TestDecision(t *testing.T) {
	w := newWorld(t)
	w.renderer("a", 0)
	events, err := w.try(pool.BookResource{Session: "s1", Renderer: "a", Model: "m", Owner: "alice"})
	wantRefusal(t, err, domain.KindUnavailable, "no_capacity", "")
	var rejected pool.Recorded
	for _, e := range events {
		if _, ok := e.Event.(pool.SessionRejected); ok {
			rejected = e
		}
	}
	v, err := w.reader.Decision(t.Context(), rejected.Position)
	w.ok(err)
	want := rejected.Event.(pool.SessionRejected).Decision
	if asJSON(t, v.Decision) != asJSON(t, want) || v.Type != "session.rejected" || v.Stream != "pool/a" || v.Actor != "client:test" ||
		v.Command == "" || !v.At.Equal(w.now) || !slices.Contains(v.Subjects, "owner:alice") || len(v.Event) == 0 {
		t.Errorf("the decision is %s, want %s", asJSON(t, v), asJSON(t, want))
	}
	for _, position := range []int64{1, 0, -1, 1 << 40} {
		_, err = w.reader.Decision(t.Context(), position)
		wantRefusal(t, err, domain.KindNotFound, "decision_not_found", "")
	}
}
