// Package simulate drives the deciders of domain/pool with a virtual clock:
// demand from a trace, and a model of what starting, loading and working take.
// Whatever it finds out about a policy, the service does, since it is the same code.
package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Row is one request of a trace. Times are exact to the nanosecond, so that what happens at one instant does so here.
type Row struct {
	Row     int           // in the file, from 0
	Arrival time.Duration // since the start of the trace
	User    domain.Owner
	Key     domain.ModelKey
	Work    time.Duration // that the slot is used, loading excluded
}

// ReadTrace reads a trace: CSV with a header and the columns arrival_s, user,
// key and duration_s, in any order; more are ignored. Arrivals must not go back.
func ReadTrace(file string) ([]Row, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	defer func() { _ = f.Close() }()
	return readTrace(f)
}

func readTrace(in io.Reader) ([]Row, error) {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read the trace's header: %w", err)
	}
	at, err := columns(header, "arrival_s", "user", "key", "duration_s")
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	var rows []Row
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read trace: %w", err)
		}
		line, _ := r.FieldPos(0)
		row := Row{Row: len(rows), User: domain.Owner(rec[at[1]]), Key: domain.ModelKey(rec[at[2]])}
		if row.Arrival, err = readSeconds(rec[at[0]]); err != nil {
			return nil, fmt.Errorf("read trace: line %d: arrival_s: %w", line, err)
		}
		if row.Work, err = readSeconds(rec[at[3]]); err != nil {
			return nil, fmt.Errorf("read trace: line %d: duration_s: %w", line, err)
		}
		if row.Key == "" {
			return nil, fmt.Errorf("read trace: line %d: key is empty", line)
		}
		if n := len(rows); n > 0 && row.Arrival < rows[n-1].Arrival {
			return nil, fmt.Errorf("read trace: line %d: arrival_s goes back", line)
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, errors.New("read trace: it has no requests")
	}
	return rows, nil
}

func columns(header []string, names ...string) ([]int, error) {
	at := make([]int, len(names))
	for i, name := range names {
		if at[i] = slices.Index(header, name); at[i] < 0 {
			return nil, fmt.Errorf("there is no column %s", name)
		}
	}
	return at, nil
}

func readSeconds(s string) (time.Duration, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 1e9 {
		return 0, fmt.Errorf("%q is no number of seconds from 0 to 1e9", s)
	}
	return seconds(v), nil
}

func seconds(v float64) time.Duration { return time.Duration(math.Round(v * 1e9)) }

// Between keeps the rows that arrive from one day of the trace (24 h, from 0)
// up to another, this excluded, and counts their time from the first of these days.
func Between(rows []Row, from, to float64) []Row {
	var kept []Row
	low, high := seconds(from*86400), time.Duration(math.MaxInt64)
	if to > 0 {
		high = seconds(to * 86400)
	}
	for _, r := range rows {
		if r.Arrival >= low && r.Arrival < high {
			r.Arrival -= low
			kept = append(kept, r)
		}
	}
	return kept
}

// Compress divides the gaps between arrivals.
func Compress(rows []Row, by float64) []Row {
	out := slices.Clone(rows)
	for i := range out {
		out[i].Arrival = time.Duration(math.Round(float64(out[i].Arrival) / by))
	}
	return out
}

// Loads says how long each model takes to load.
type Loads interface {
	Of(key domain.ModelKey, seed uint64) time.Duration
}

// Lognormal draws one load time for each model, always the same for the same seed.
type Lognormal struct{ P50, P95 time.Duration }

// z95 is the 95th percentile of the standard normal distribution.
const z95 = 1.6448536269514722

// Of draws.
func (l Lognormal) Of(key domain.ModelKey, seed uint64) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // never fails
	return l.draw(rand.New(rand.NewPCG(seed, h.Sum64())))
}

func (l Lognormal) draw(chance *rand.Rand) time.Duration {
	mu := math.Log(l.P50.Seconds())
	sigma := (math.Log(l.P95.Seconds()) - mu) / z95
	return seconds(math.Exp(mu + sigma*chance.NormFloat64()))
}

// ByModel is load times as a file gives them, exact.
type ByModel map[domain.ModelKey]time.Duration

// Of looks up; a model that the file does not name was refused before.
func (m ByModel) Of(key domain.ModelKey, _ uint64) time.Duration { return m[key] }

// ReadLoads reads load times: CSV with a header and the columns key and load_s. Every model of the trace must be there.
func ReadLoads(file string, rows []Row) (ByModel, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open load times: %w", err)
	}
	defer func() { _ = f.Close() }()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil || len(all) == 0 {
		return nil, fmt.Errorf("read load times: %w", errors.Join(err, errors.New("want a header key,load_s and one line for each model")))
	}
	at, err := columns(all[0], "key", "load_s")
	if err != nil {
		return nil, fmt.Errorf("read load times: %w", err)
	}
	loads := ByModel{}
	for i, rec := range all[1:] {
		d, err := readSeconds(rec[at[1]])
		if err != nil {
			return nil, fmt.Errorf("read load times: line %d: load_s: %w", i+2, err)
		}
		loads[domain.ModelKey(rec[at[0]])] = d
	}
	for _, r := range rows {
		if _, ok := loads[r.Key]; !ok {
			return nil, fmt.Errorf("read load times: there is none for %q", r.Key)
		}
	}
	return loads, nil
}

var lognormal = regexp.MustCompile(`^(?i:lognormal)\(p50=([^,]+),\s*p95=([^)]+)\)$`)

// ParseLoad reads LOGNORMAL(p50=22.7s,p95=45s).
func ParseLoad(text string) (Loads, error) {
	m := lognormal.FindStringSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("--load is LOGNORMAL(p50=DURATION,p95=DURATION), not %q", text)
	}
	p50, err50 := time.ParseDuration(m[1])
	p95, err95 := time.ParseDuration(m[2])
	if err := errors.Join(err50, err95); err != nil {
		return nil, fmt.Errorf("--load: %w", err)
	}
	if p50 <= 0 || p95 < p50 {
		return nil, fmt.Errorf("--load: 0 < p50 <= p95 must hold, not %s and %s", p50, p95)
	}
	return Lognormal{p50, p95}, nil
}
