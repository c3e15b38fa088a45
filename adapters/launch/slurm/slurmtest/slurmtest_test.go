package slurmtest

import (
	"os"
	"testing"
	"time"
)

func TestClusterStartsAndStops(t *testing.T) {
	if err := Missing(); err != nil {
		t.Skip(err)
	}
	start := time.Now()
	c, err := Start(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %s", time.Since(start))
	out, err := c.Run("sbatch", "--parsable", "--gres=gpu:1", "--wrap=sleep 100")
	if err != nil {
		t.Error(err)
	}
	t.Logf("job %s", out)
	start = time.Now()
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped in %s", time.Since(start))
	if _, err := os.Stat(c.Dir); err == nil {
		t.Error("the directory is left")
	}
}
