package service_test

import (
	"testing"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/service"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
	"github.com/rendering-resource-manager/rrm/projections"
)

// A process that holds what a damaged view told it reads anew after a rebuild, though no event touched the row.
func TestARebuildReachesRunningProcesses(t *testing.T) {
	dsn := dbtest.DSN(t)
	alone := func(c *service.Config) { c.DatabaseURL, c.NoManagers = dsn, true }
	first := start(t, alone)
	readyPool(t, first)
	if _, err := first.DB.Exec(`UPDATE resources SET body = jsonb_set(body, '{slots}', '0')`); err != nil {
		t.Fatal(err)
	}
	misled := start(t, alone)
	if status, _, d := misled.call("POST", base+"/sessions", doc{"renderer": "race", "model": "m"}); status != 503 {
		t.Fatalf("the damage does not show: %d %v", status, d)
	}
	if _, err := projections.Rebuild(t.Context(), misled.DB, nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{misled, first} {
		n.must(201, "POST", base+"/sessions", doc{"renderer": "race", "model": "m"})
	}
	misled.verify()
}
