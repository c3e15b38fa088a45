package projections

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
)

func TestPages(t *testing.T) {
	w := newWorld(t)
	w.renderer("a", 0)
	const n = 23
	for i := range n {
		w.book("a", domain.SessionID(fmt.Sprintf("s%02d", i)), "m", "alice")
	}
	for _, f := range []SessionFilter{{}, {Model: "m"}, {State: "queued"}} {
		var seen []domain.SessionID
		cursor := ""
		for range n {
			got, next, err := w.reader.Sessions(t.Context(), f, Page{Limit: 5, Cursor: cursor})
			w.ok(err)
			if next != "" && len(got) != 5 {
				t.Fatalf("a page before the last has %d rows", len(got))
			}
			for _, v := range got {
				seen = append(seen, v.ID)
				if v.Queue == nil || fmt.Sprintf("s%02d", v.Queue.Position-1) != string(v.ID) {
					t.Errorf("%s has place %+v", v.ID, v.Queue)
				}
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if len(seen) != n || !slices.IsSortedFunc(seen, func(a, b domain.SessionID) int { return strings.Compare(string(b), string(a)) }) {
			t.Errorf("with %+v the pages give %v", f, seen)
		}
	}
	if got, next, err := w.reader.Sessions(t.Context(), SessionFilter{}, Page{Limit: n}); err != nil || len(got) != n || next != "" {
		t.Errorf("a page of exactly all has %d rows, next %q, %v", len(got), next, err)
	}
}

func TestPagesRefuse(t *testing.T) {
	w := newWorld(t)
	good := encodeCursor(7)
	for _, cursor := range []string{"7", "!", good + "=", good[:len(good)-1], encodeCursor(7) + "A", "MS4rNw", "Mi43", strings.Repeat("A", 10_000)} {
		_, _, err := w.reader.Sessions(t.Context(), SessionFilter{}, Page{Cursor: cursor})
		wantRefusal(t, err, domain.KindInvalid, "invalid", "cursor")
	}
	if seq, err := decodeCursor(good); err != nil || seq != 7 {
		t.Errorf("the cursor gives %d, %v", seq, err)
	}
	for _, limit := range []int{-1, MaxLimit + 1} {
		_, _, err := w.reader.Jobs(t.Context(), JobFilter{}, Page{Limit: limit})
		wantRefusal(t, err, domain.KindInvalid, "invalid", "limit")
	}
}
