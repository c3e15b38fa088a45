package bench

import (
	"bufio"
	"cmp"
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
		f, err := os.Open(name)
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

// Medians gives, for each kind and number of clients, the row with the median
// rate of all rounds (the lower of two), so that rate and latencies are of one run.
func Medians(rows []Row) []Row {
	type key struct {
		what    string
		clients int
	}
	var order []key
	by := map[key][]Row{}
	for _, r := range rows {
		k := key{r.What, r.Clients}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], r)
	}
	var out []Row
	rate := map[key]float64{}
	for _, k := range order {
		same := by[k]
		slices.SortFunc(same, func(a, b Row) int { return cmp.Compare(a.PerSecond, b.PerSecond) })
		r := same[(len(same)-1)/2]
		rate[k] = r.PerSecond
		if base := rate[key{"pgbench", k.clients}]; r.What == "rrm" && base > 0 {
			r.Ratio = r.PerSecond / base
		}
		out = append(out, r)
	}
	return out
}
