package unicore

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// jobID is the last part of a job's address at the site.
type jobID string

// The states of a job; see the job's "status" in UNICORE's REST API.
const (
	statusStagingIn  = "STAGINGIN"
	statusReady      = "READY" // a job whose files we are to bring waits here for its start
	statusQueued     = "QUEUED"
	statusPending    = "PENDING"
	statusRunning    = "RUNNING"
	statusStagingOut = "STAGINGOUT" // the program has ended
	statusSuccessful = "SUCCESSFUL"
	statusFailed     = "FAILED" // or aborted
)

const (
	pageSize      = 200
	surelyOnePage = 50 // a page with fewer is the last; servers may have smaller pages than asked for
	maxPages      = 100
	maxAddress    = 1 << 10

	jobFields = "name,status,statusMessage,exitCode,submissionTime,queue,batchSystemID"
)

// view is what was seen of a job. It is never changed, only replaced.
type view struct {
	id       jobID
	by       *account // who looked
	resource domain.ResourceID
	status   string
	message  string // the site's words about a failure
	exit     string // status of the program, as text
	queue    string
	batch    string // its number in the batch system
	sent     string // when it was submitted, as the site writes it
	dir      string // the storage that is its directory
	place    *place // nil: not known yet
	looked   time.Time
	absent   bool  // the site said that there is no such job
	err      error // of the last look
}

// place is where a renderer runs, as its own job wrote it.
type place struct {
	host          string // that forwarding connects to
	port          int
	node          string
	started, ends time.Time // ends is zero where there is no limit known
}

// text takes JSON strings and numbers alike.
type text string

// UnmarshalJSON takes what is no string as it is written.
func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		s = string(b)
	}
	*t = text(s)
	return nil
}

type links map[string]struct {
	Href string `json:"href"`
}

func jobsURL(base string) string            { return base + "/jobs" }
func jobURL(base string, id jobID) string   { return base + "/jobs/" + string(id) }
func fileURL(base, dir, name string) string { return base + "/storages/" + dir + "/files/" + name }

// describe is the job's description in UNICORE's format.
func (l *Launcher) describe(spec domain.LaunchSpec) ([]byte, error) {
	r := spec.Renderer
	if r.QOS != "" {
		return nil, domain.Invalid("qos", "the unicore launcher knows no quality of service; leave qos empty")
	}
	resources := map[string]string{}
	number := func(name string, n int) {
		if n > 0 {
			resources[name] = strconv.Itoa(n)
		}
	}
	number("Nodes", r.Nodes)
	number("CPUsPerNode", r.CPUs)
	number("GPUsPerNode", r.GPUs)
	number("Runtime", int(r.AllocationTime.Std().Seconds()))
	if r.Memory > 0 {
		resources["Memory"] = strconv.Itoa(r.Memory) + "M" // UNICORE's M is 1024 × 1024 bytes
	}
	if r.Queue != "" {
		resources["Queue"] = r.Queue
	}
	if r.Reservation != "" {
		resources["Reservation"] = r.Reservation
	}
	if r.Exclusive {
		resources["Exclusive"] = "true"
	}
	d := map[string]any{
		"Name": l.name(spec.Resource), "Tags": []string{l.tag(), l.name(spec.Resource)},
		"Executable": "/bin/bash", "Arguments": []string{scriptFile},
		"haveClientStageIn": "true", "Resources": resources,
	}
	if r.Project != "" {
		d["Project"] = r.Project
	}
	if len(l.opts.Imports) > 0 {
		d["Imports"] = l.opts.Imports
	}
	if len(l.opts.Exports) > 0 {
		d["Exports"] = l.opts.Exports
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write the job's description: %w", err)
	}
	return b, nil
}

// submit makes a job, which waits for its files. After an error it may exist all the same.
func (l *Launcher) submit(ctx context.Context, a *account, base string, description []byte) (jobID, error) {
	got, err := l.call(ctx, a, request{method: http.MethodPost, url: jobsURL(base), body: description, once: true})
	if err != nil {
		return "", err
	}
	id, err := own(base, "jobs", got.header.Get("Location"))
	return jobID(id), err
}

// list names the jobs that bear a tag, with one query unless they are many.
func (l *Launcher) list(ctx context.Context, a *account, base, tag string) (map[jobID]bool, error) {
	found := map[jobID]bool{}
	for page := range maxPages {
		q := url.Values{"tags": {tag}, "num": {strconv.Itoa(pageSize)}}
		if page > 0 {
			q.Set("offset", strconv.Itoa(len(found)))
		}
		got, err := l.call(ctx, a, request{method: http.MethodGet, url: jobsURL(base), query: q})
		if err != nil {
			return nil, fmt.Errorf("list jobs: %w", err)
		}
		var answer struct {
			Jobs  *[]string `json:"jobs"`
			Links links     `json:"_links"`
		}
		if err := decode(got.body, &answer); err != nil {
			return nil, fmt.Errorf("list jobs: %w", err)
		}
		if answer.Jobs == nil {
			return nil, fmt.Errorf("list jobs: %w: it has no list", errAnswer)
		}
		before := len(found)
		for _, href := range *answer.Jobs {
			id, err := own(base, "jobs", href)
			if err != nil {
				return nil, fmt.Errorf("list jobs: %w", err)
			}
			found[jobID(id)] = true
		}
		_, more := answer.Links["next"]
		if len(found) == before || !more && len(*answer.Jobs) < surelyOnePage {
			return found, nil
		}
	}
	return nil, fmt.Errorf("list jobs: %w: there are more than %d pages", errAnswer, maxPages)
}

// look asks for a job, and for the renderer's place while that is of interest
// and not known. What was seen is remembered. 404 is an error.
func (l *Launcher) look(ctx context.Context, a *account, base string, id jobID) (*view, error) {
	l.mu.Lock()
	old := l.views[id]
	l.mu.Unlock()
	q := url.Values{}
	if old != nil && old.dir != "" {
		q.Set("fields", jobFields) // the links are known
	}
	got, err := l.call(ctx, a, request{method: http.MethodGet, url: jobURL(base, id), query: q})
	if err != nil {
		return nil, fmt.Errorf("ask for job %s: %w", id, err)
	}
	v, err := l.readJob(base, id, got.body)
	if err != nil {
		return nil, fmt.Errorf("ask for job %s: %w", id, err)
	}
	v.by = a
	if old != nil {
		if v.dir == "" {
			v.dir = old.dir
		}
		v.place = old.place
	}
	if v.place == nil && v.dir != "" && (v.status == statusQueued || v.status == statusPending || v.status == statusRunning) {
		// The job tells earlier than UNICORE that it runs. No answer means: not yet.
		v.place = l.readPlace(ctx, a, base, v.dir)
	}
	l.remember(v)
	return v, nil
}

func (l *Launcher) readJob(base string, id jobID, body []byte) (*view, error) {
	var j struct {
		Name    text   `json:"name"`
		Status  string `json:"status"`
		Message text   `json:"statusMessage"`
		Exit    text   `json:"exitCode"`
		Sent    text   `json:"submissionTime"`
		Queue   text   `json:"queue"`
		Batch   text   `json:"batchSystemID"`
		Links   links  `json:"_links"`
	}
	if err := decode(body, &j); err != nil {
		return nil, err
	}
	if j.Status == "" {
		return nil, fmt.Errorf("%w: it has no status", errAnswer)
	}
	v := &view{
		id: id, resource: l.resourceOf(string(j.Name)), status: strings.ToUpper(j.Status),
		message: oneLine(string(j.Message)), exit: oneLine(string(j.Exit)),
		queue: oneLine(string(j.Queue)), batch: oneLine(string(j.Batch)), sent: string(j.Sent), looked: time.Now(),
	}
	if link, ok := j.Links["workingDirectory"]; ok {
		dir, err := own(base, "storages", link.Href)
		if err != nil {
			return nil, err
		}
		v.dir = dir
	}
	return v, nil
}

func (l *Launcher) remember(v *view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.views[v.id] = v
}

// readPlace reads where the renderer is; nil if that cannot be read (yet).
func (l *Launcher) readPlace(ctx context.Context, a *account, base, dir string) *place {
	got, err := l.call(ctx, a, request{
		method: http.MethodGet, url: fileURL(base, dir, addressFile), accept: "application/octet-stream", limit: maxAddress, once: true,
	})
	if err != nil {
		return nil
	}
	return parsePlace(string(got.body))
}

// parsePlace is careful: a renderer can write what it likes there.
func parsePlace(s string) *place {
	words := strings.Fields(s)
	if len(words) != 5 || !hostNames.MatchString(words[0]) || !hostNames.MatchString(words[2]) {
		return nil
	}
	port, err1 := strconv.ParseUint(words[1], 10, 16)
	started, err2 := strconv.ParseInt(words[3], 10, 64)
	limit, err3 := strconv.ParseInt(words[4], 10, 32)
	if err1 != nil || err2 != nil || err3 != nil || port == 0 || limit < 0 {
		return nil
	}
	p := &place{host: words[0], port: int(port), node: words[2], started: time.Unix(started, 0).UTC()}
	if limit > 0 {
		p.ends = p.started.Add(time.Duration(limit) * time.Second)
	}
	return p
}

// ended is for jobs whose program does not run any more.
func (v *view) ended() bool {
	return v.absent || v.status == statusStagingOut || v.status == statusSuccessful || v.status == statusFailed
}

// waiting is for jobs that may still wait for their files and their start.
func (v *view) waiting() bool { return v.status == statusReady || v.status == statusStagingIn }

// state is the launcher's word for the job's status, with the reason.
func (v *view) state() (domain.LaunchState, string) {
	before := v.waiting() || v.status == statusQueued || v.status == statusPending
	switch {
	case v.absent:
		return domain.LaunchGone, "the site has its job no more"
	case v.ended():
		return domain.LaunchGone, v.ending()
	case v.status == statusRunning, before && v.place != nil: // UNICORE notices a start late
		return domain.LaunchRunning, ""
	case before:
		return domain.LaunchPending, v.pending()
	}
	return domain.LaunchUnknown, "the site says that its job is " + oneLine(v.status)
}

func (v *view) pending() string {
	reason := strings.ToLower(v.status)
	if v.queue != "" && v.queue != "N/A" {
		reason += " in " + v.queue
	}
	if v.batch != "" && v.batch != "N/A" {
		reason += ", batch job " + v.batch
	}
	if v.message != "" {
		reason += ": " + v.message
	}
	return reason
}

// ending says how a job ended. Shells, and so batch systems, say 128 + n of what signal n killed.
func (v *view) ending() string {
	reason := "the job has " + map[bool]string{true: "failed", false: "ended"}[v.status == statusFailed]
	if n, err := strconv.Atoi(v.exit); err == nil {
		reason = fmt.Sprintf("exit status %d", n)
		switch {
		case n > 128 && n < 128+65:
			reason = fmt.Sprintf("killed by signal %d (exit status %d)", n-128, n)
		case n == 127:
			reason += ": the program was not found"
		}
	}
	if v.message != "" {
		reason += ": " + v.message
	}
	return reason
}
