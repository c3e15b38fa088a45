package bench

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// latencies reads pgbench's per-transaction logs: client, transaction, microseconds, ...
func latencies(dir string) ([]time.Duration, error) {
	files, err := filepath.Glob(filepath.Join(dir, "l*"))
	if err != nil {
		return nil, err
	}
	var all []time.Duration
	for _, name := range files {
		f, err := os.Open(name) //nolint:gosec // in our own temporary directory
		if err != nil {
			return nil, fmt.Errorf("read pgbench's log: %w", err)
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if field := strings.Fields(lines.Text()); len(field) > 2 {
				if us, err := strconv.ParseInt(field[2], 10, 64); err == nil {
					all = append(all, time.Duration(us)*time.Microsecond)
				}
			}
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}
