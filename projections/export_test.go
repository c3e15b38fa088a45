package projections

import "testing"

// SetFoldRun sets the length of a run until the test ends.
func SetFoldRun(t *testing.T, n int) {
	t.Helper()
	before := foldRun
	foldRun = n
	t.Cleanup(func() { foldRun = before })
}
