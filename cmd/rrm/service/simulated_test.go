package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/cmd/rrm/simulate"
	"github.com/rendering-resource-manager/rrm/domain"
)

// hour is the first hour of a trace with so many requests, counted from its beginning.
func hour(rows []simulate.Row, least, most int) []simulate.Row {
	for i := range rows {
		from := rows[i].Arrival
		n, _ := slices.BinarySearchFunc(rows, from+time.Hour, func(r simulate.Row, to time.Duration) int { return int(r.Arrival - to) })
		if n-i >= least && n-i <= most {
			of := slices.Clone(rows[i:n])
			for k := range of {
				of[k].Arrival -= from
			}
			return of
		}
	}
	return nil
}

// An hour of real demand, or of made-up demand where the trace is not there, a hundred times as fast, goes through the service and
// real renderers. Then the simulator is given what the renderers took, for each
// load and each job, and must come to the same warm ratio and time to first
// frame within 15 %: it is the same code, so what differs is what it leaves out.
func TestSimulatedAsItWas(t *testing.T) {
	all, err := simulate.ReadTrace(filepath.Join("..", "..", "..", "..", "shared", "data", "traces", "gentd26-days00-15.csv"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("an hour of made-up demand:", err)
		all, _, err = simulate.DefaultSynthetic(1).Generate()
	}
	if err != nil {
		t.Fatal(err)
	}
	const resources, faster, tries = 2, 100, 3
	rows := simulate.Compress(hour(all, 80, 110), faster)
	if len(rows) == 0 {
		t.Fatal("the trace has no such hour")
	}
	n := start(t, nil)
	for try := 1; !n.simulated(fmt.Sprint("try", try), rows, resources); try++ {
		if try == tries {
			t.Fatalf("in none of %d tries the simulation was within 15 %% of what happened", tries)
		}
	}
}

// simulated lets the service serve some demand with a fleet of its own, and says whether the simulator comes to the same.
func (n *node) simulated(renderer string, rows []simulate.Row, resources int) bool {
	n.t.Helper()
	n.renderer(renderer, doc{"models_per_resource": 1, "process_rest_parameters_format": "--listen ${rest_hostname}:${rest_port} --workers 1",
		"scaling": doc{"min": resources, "max": resources, "idle": "1h"}})
	eventually(n.t, 30*time.Second, "the fleet is there", func() bool {
		return len(n.must(200, "GET", base+"/resources?state=ready&renderer="+renderer, nil)["items"].([]any)) == resources
	})
	names := map[domain.ModelKey]string{}
	began := time.Now()
	for _, r := range rows {
		if names[r.Key] == "" {
			names[r.Key] = fmt.Sprintf("neuron:%d", 1+len(names))
		}
		pause(n.t.Context(), time.Until(began.Add(r.Arrival)))
		n.must(202, "POST", base+"/jobs", doc{"renderer": renderer, "model": names[r.Key], "kind": "frames", "owner": r.User,
			"spec": doc{"width": 320, "height": 240, "frames": 1 + min(9, int(r.Work.Seconds()/10))}})
	}
	eventually(n.t, 60*time.Second, "all jobs have succeeded", func() bool { return len(n.took(renderer)) == len(rows) })
	was := n.took(renderer)
	n.renderer(renderer, doc{"scaling": doc{"min": 0, "max": 0, "idle": "0s"}})
	return agrees(n.t, was, resources)
}

// one is what the log says of a job.
type one struct {
	submitted, assigned, loaded, ended time.Time
	model                              domain.ModelKey
	owner                              domain.Owner
	warm                               bool
}

// took reads from the log what became of all jobs that succeeded, in order of submission.
func (n *node) took(renderer string) []one {
	n.t.Helper()
	rows, err := n.DB.Query(`SELECT type, data, (meta->>'decided_at')::timestamptz FROM events WHERE stream = 'pool/' || $1 AND type IN ('job.submitted', 'job.assigned', 'model.loaded', 'job.succeeded') ORDER BY position`, renderer)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	jobs, on := map[string]*one{}, map[string]*one{}
	var ended []one
	for rows.Next() {
		var typ string
		var data []byte
		var at time.Time
		var e struct {
			Job, Resource string
			Model         domain.ModelKey
			Owner         domain.Owner
			Warm          bool
		}
		if err := rows.Scan(&typ, &data, &at); err != nil {
			n.t.Fatal(err)
		}
		if err := json.Unmarshal(data, &e); err != nil {
			n.t.Fatal(err)
		}
		switch typ {
		case "job.submitted":
			jobs[e.Job] = &one{submitted: at, model: e.Model, owner: e.Owner}
		case "job.assigned":
			j := jobs[e.Job]
			j.assigned, j.loaded, j.warm = at, at, e.Warm
			on[e.Resource] = j
		case "model.loaded":
			on[e.Resource].loaded = at
		case "job.succeeded":
			j := jobs[e.Job]
			j.ended = at
			ended = append(ended, *j)
		}
	}
	if err := rows.Err(); err != nil {
		n.t.Fatal(err)
	}
	slices.SortStableFunc(ended, func(a, b one) int { return a.submitted.Compare(b.submitted) })
	return ended
}

// agrees simulates what was, with what each load and each job took.
func agrees(t *testing.T, was []one, resources int) bool {
	t.Helper()
	loads, counts := simulate.ByModel{}, map[domain.ModelKey]int{}
	var rows []simulate.Row
	var warm, ttff float64
	for i, j := range was {
		rows = append(rows, simulate.Row{Row: i, Arrival: j.submitted.Sub(was[0].submitted), User: j.owner, Key: j.model, Work: j.ended.Sub(j.loaded)})
		ttff += j.loaded.Sub(j.submitted).Seconds() / float64(len(was))
		if j.warm {
			warm += 1 / float64(len(was))
			continue
		}
		loads[j.model] += j.loaded.Sub(j.assigned)
		counts[j.model]++
	}
	for m, n := range counts {
		loads[m] /= time.Duration(n)
	}
	r, err := simulate.Run(simulate.Options{Rows: rows, Resources: resources, Slots: 1, Models: 1, Loads: loads,
		Placement: domain.PlacementSettings{Policy: domain.DefaultPlacement}, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d jobs, %d models; warm %.3f, simulated %.3f; mean time to first frame %.2f s, simulated %.2f s", len(was), len(counts), warm, r.WarmRatio, ttff, r.TTFFMean)
	const within = 0.15
	return math.Abs(r.WarmRatio-warm) <= within*warm && math.Abs(r.TTFFMean-ttff) <= within*ttff
}
