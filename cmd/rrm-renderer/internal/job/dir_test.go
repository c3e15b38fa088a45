package job

import (
	"os"
	"path/filepath"
	"testing"
)

// What a killed renderer left is removed by the next; what a living one uses stays.
func TestResultsOfAKilledRendererAreSwept(t *testing.T) {
	parent := t.TempDir()
	alive, err := newResultsDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	killed, err := newResultsDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(killed.path, "1"), []byte("result"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := killed.lock.Close(); err != nil { // as the end of a process does
		t.Fatal(err)
	}
	next, err := newResultsDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{alive.path: true, killed.path: false, next.path: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, d := range []*resultsDir{alive, next} {
		if err := d.remove(); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("left: %v (%v)", left, err)
	}
}
