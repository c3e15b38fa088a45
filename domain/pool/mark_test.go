package pool_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
	"github.com/rendering-resource-manager/rrm/domain/pool"
)

// What is decided while an append is under way is taken back without it, or together with it.
func TestACommitKeepsWhatWasMarked(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	w.do(book("s1", "A"))
	give := func(c pool.Command) {
		t.Helper()
		if _, err := w.state.Decide(w.head, pool.Given{ID: "c", At: w.now.Add(time.Second), Command: c}); err != nil {
			t.Fatal(err)
		}
	}
	type snapshot struct {
		entities map[pool.Key]any
		orders   []string
		ended    string
	}
	now := func() snapshot {
		return snapshot{pool.Entities(w.state), pool.Orders(w.state), pool.Ended(w.state)}
	}
	same := func(what string, want snapshot) {
		t.Helper()
		if got := now(); !maps.Equal(got.entities, want.entities) || !slices.Equal(got.orders, want.orders) || got.ended != want.ended {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	changed := func() (keys []string) {
		w.state.Changed(func(k pool.Key, _ any) { keys = append(keys, k.ID) })
		return keys
	}
	before := now()
	for range 3 {
		give(release("s1"))
		w.state.Mark()
		if keys := changed(); len(keys) != 0 {
			t.Errorf("after the mark %v changed", keys)
		}
		give(book("s2", "A"))
		if keys := changed(); !slices.Contains(keys, "s2") || slices.Contains(keys, "s1") {
			t.Errorf("after the mark %v changed", keys)
		}
		w.state.Rollback()
		w.state.CommitMarked() // of nothing
		same("all taken back", before)
	}
	give(release("s1"))
	w.state.Mark()
	middle := now()
	give(book("s2", "A"))
	w.state.CommitMarked()
	w.state.Rollback()
	same("taken back up to the mark", middle)
	w.state.Rollback()
	same("nothing to take back", middle)
}

// However many sessions end, those in memory are bounded, also when each ends beside the append of another.
func TestMarkedCommitsForgetWhatEnded(t *testing.T) {
	w := given(t, demo(size(1, 1))).up()
	give := func(c pool.Command) {
		t.Helper()
		events, err := w.state.Decide(w.head, pool.Given{ID: "c", At: w.now, Command: c})
		if err != nil {
			t.Fatal(err)
		}
		w.head += int64(len(events))
		w.state.Mark()
		if w.head%7 == 0 {
			give := pool.Given{ID: "c", At: w.now, Command: pool.SetAdmission{Open: true, Reason: "a change to take back"}}
			if _, err := w.state.Decide(w.head, give); err != nil {
				t.Fatal(err)
			}
		}
		w.state.CommitMarked()
		if w.head%700 != 0 {
			w.state.Rollback()
			return
		}
		ended := pool.Ended(w.state)
		if w.state.Rollback(); ended != pool.Ended(w.state) {
			t.Fatal("a rollback changed what is to be forgotten")
		}
	}
	for i := range 5000 {
		s := domain.SessionID(fmt.Sprint("s", i))
		give(book(s, "A"))
		give(release(s))
	}
	if n := len(pool.Entities(w.state)); n > 4096+20 {
		t.Errorf("%d entities are in memory", n)
	}
}
