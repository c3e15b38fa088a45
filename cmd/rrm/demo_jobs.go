package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/httpapi/client"
)

const (
	demoJobs    = 40
	demoModels  = 4
	jobsOwner   = "henri"
	jobsTime    = 60 * time.Second
	betweenJobs = 6 // jobs that are done before the next thing happens
)

func (s *story) submitJobs() error {
	for i := range demoJobs {
		model := fmt.Sprintf("neuron:%d", i%demoModels+1)
		spec, err := json.Marshal(map[string]any{"width": 640, "height": 360, "camera": map[string]any{"yaw": i * 360 / demoJobs}})
		if err != nil {
			return fmt.Errorf("write the spec: %w", err)
		}
		j, _, err := answer[client.Job](s.api.SubmitJob(s.ctx, &client.SubmitJobParams{IdempotencyKey: newKey()}, client.JobRequest{
			Renderer: s.renderer, Model: model, Kind: client.JobKindImage, Owner: jobsOwner, Spec: spec,
		}))
		if err != nil {
			return err
		}
		s.jobs, s.unfinished[j.ID] = append(s.jobs, j.ID), true
	}
	p, err := s.pool()
	if err != nil {
		return err
	}
	s.say("%d jobs over %d models queued; all %d slots are with sessions", p.QueuedJobs, demoModels, p.SlotsTotal)
	return expect(p.QueuedJobs == demoJobs && p.RunningJobs == 0, "40 queued jobs", "%d queued, %d running", p.QueuedJobs, p.RunningJobs)
}

// jobStates looks how the story's jobs stand.
func (s *story) jobStates() (done map[string]client.Job, failed string, err error) {
	all, _, _, err := list[client.Job](0, func(n int, cursor string) (*http.Response, error) {
		return s.api.ListJobs(s.ctx, &client.ListJobsParams{Renderer: s.renderer, Owner: jobsOwner, Limit: n, Cursor: cursor})
	})
	if err != nil {
		return nil, "", err
	}
	done = map[string]client.Job{}
	for _, j := range all {
		_, ours := s.unfinished[j.ID]
		if !ours || j.EndedAt.IsZero() {
			continue
		}
		if done[j.ID] = j; j.State != client.JobStateSucceeded {
			failed = stateText(string(j.State), j.Reason)
		}
		s.unfinished[j.ID] = false
	}
	return done, failed, nil
}

// jobsDone waits until so many jobs have succeeded.
func (s *story) jobsDone(want int) (map[string]client.Job, error) {
	until := s.now().Add(jobsTime)
	for {
		done, failed, err := s.jobStates()
		if err != nil {
			return nil, err
		}
		if err := expect(failed == "", "every job succeeded", "%s", failed); err != nil {
			return nil, err
		}
		if len(done) >= want {
			return done, nil
		}
		if s.now().After(until) {
			return nil, expect(false, fmt.Sprintf("%d jobs done within %s", want, jobsTime), "%d", len(done))
		}
		if pause(s.ctx, 100*time.Millisecond); s.ctx.Err() != nil {
			return nil, s.ctx.Err()
		}
	}
}

// runJobs lets sessions go one after the other, and one come in between.
func (s *story) runJobs() error {
	for _, who := range []string{"cleo", "dora"} {
		if err := s.release(who); err != nil {
			return err
		}
	}
	done, err := s.jobsDone(betweenJobs)
	if err != nil {
		return err
	}
	s.say("cleo and dora released: %d jobs done on their resources while Emil and Fred go on", len(done))
	if err := s.framePNG(s.people["fred"], "session-between-jobs.png"); err != nil {
		return err
	}
	if err := s.sessionsFirst(); err != nil {
		return err
	}
	for _, who := range []string{"gina", "fred", "emil"} {
		if err := s.release(who); err != nil {
			return err
		}
	}
	s.say("gina, fred and emil released: the jobs have the whole pool")
	if done, err = s.jobsDone(demoJobs); err != nil {
		return err
	}
	return s.jobPictures(done)
}

// sessionsFirst books while jobs wait: the next slot that comes free is the session's.
func (s *story) sessionsFirst() error {
	before, err := s.head(s.ctx)
	if err != nil {
		return err
	}
	p, err := s.pool()
	if err != nil {
		return err
	}
	if _, err := s.book("gina", "neuron:2", "1m"); err != nil {
		return err
	}
	e, err := s.ready("gina")
	if err != nil {
		return err
	}
	asked, allocated, overtaken := false, false, 0
	err = s.eachEvent(s.ctx, client.ListEventsParams{}, before, func(event *client.Event) (bool, error) {
		f := read(event)
		asked = asked || event.Type == "session.requested" && f.Session == e.ID
		allocated = asked && event.Type == "session.allocated" && f.Session == e.ID
		if asked && event.Type == "job.assigned" {
			overtaken++
		}
		return !allocated, nil
	})
	if err != nil {
		return err
	}
	waited := e.AllocatedAt.Sub(e.RequestedAt).Seconds()
	s.say("gina asked again and would wait: she went before %d queued jobs and waited %s for her slot", p.QueuedJobs, seconds(waited))
	return expect(p.QueuedJobs > 0 && allocated && overtaken == 0, "Gina's session before the jobs that wait",
		"%d queued jobs, %d of them given a slot after she asked and before she had one", p.QueuedJobs, overtaken)
}

// jobPictures fetches one picture of each model and counts how the jobs found theirs.
func (s *story) jobPictures(done map[string]client.Job) error {
	warm := 0
	for _, j := range done {
		if j.Warm {
			warm++
		}
	}
	var files []string
	for i, id := range s.jobs[:demoModels] {
		j := done[id]
		res, err := s.api.streams.GetJobResult(s.ctx, id)
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(io.LimitReader(res.Body, maxPicture))
		_ = res.Body.Close()
		if err != nil {
			return fmt.Errorf("read the result: %w", err)
		}
		if err := client.Failure(res, raw); err != nil {
			return err
		}
		img, format, err := picture(raw)
		if err != nil {
			return err
		}
		if err := expect(format == "png" && img.Bounds().Dx() == 640 && int64(len(raw)) == j.Result.Bytes, "a PNG 640 pixels wide", "%s %v, %d bytes", format, img.Bounds(), len(raw)); err != nil {
			return err
		}
		file := s.file(fmt.Sprintf("job-neuron-%d.png", i+1))
		if _, err := writeFile(file, bytes.NewReader(raw)); err != nil {
			return err
		}
		files = append(files, file)
	}
	s.say("%d jobs succeeded, %d of them found their model loaded", len(done), warm)
	s.say("pictures: %s", strings.Join(files, ", "))
	return expect(2*warm > len(done), "most jobs warm", "%d of %d", warm, len(done))
}
