package unicoretest

import (
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Description is all that a job may say.
type Description struct {
	Name              string
	Tags              []string
	Executable        string
	Arguments         []string
	Resources         map[string]string
	Project           string
	Imports, Exports  []map[string]string
	HaveClientStageIn string `json:"haveClientStageIn"`
}

// Job is one of the site's: a real process once it is started.
type Job struct {
	site        *Site
	ID, Owner   string
	Name        string
	Tags        []string
	Description Description
	Dir         string
	Made        time.Time

	mu      sync.Mutex
	status  string // as the site says it, late perhaps
	message string
	exit    string
	begun   bool
	aborted bool
	pid     int
	done    chan struct{} // closed when no process is left and the status is final
}

// NewJob makes a job that waits for its start. The caller is in Site.Change.
func NewJob(s *Site, owner string, d Description) *Job {
	id := strings.ToLower(rand.Text())
	if len(s.IDs) > 0 {
		id, s.IDs = s.IDs[0], s.IDs[1:]
	}
	return &Job{
		site: s, ID: id, Owner: owner, Name: d.Name, Tags: d.Tags, Description: d, Dir: filepath.Join(s.root, id),
		Made: time.Now(), status: "READY", done: make(chan struct{}),
	}
}

// ready makes the directory when its time has come.
func (j *Job) ready() bool {
	j.site.mu.Lock()
	delay := j.site.DirDelay
	j.site.mu.Unlock()
	if time.Since(j.Made) < delay {
		return false
	}
	return os.MkdirAll(j.Dir, 0o700) == nil
}

// Submitted says whether it was started.
func (j *Job) Submitted() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.begun
}

func (j *Job) finished() <-chan struct{} { return j.done }

// Process is its process ID; 0 if it has none.
func (j *Job) Process() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pid
}

// Properties are what the site says of it; fields, separated by commas, limit that.
func (j *Job) Properties(fields string) map[string]any {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := map[string]any{
		"status": j.status, "statusMessage": j.message, "name": j.Name, "queue": "N/A", "batchSystemID": "N/A", "log": []string{"created"},
		"submissionTime": j.Made.Format("2006-01-02T15:04:05-0700"),
	}
	if j.exit != "" {
		all["exitCode"] = j.exit
	}
	if j.begun {
		all["batchSystemID"] = "4711"
	}
	links := map[string]any{}
	for name, rest := range map[string]string{
		"self": "/jobs/" + j.ID, "action:start": "/jobs/" + j.ID + "/actions/start", "action:abort": "/jobs/" + j.ID + "/actions/abort",
		"workingDirectory": "/storages/" + j.ID + "-uspace", "forwarding": "/jobs/" + j.ID + "/forward-port",
	} {
		links[name] = map[string]string{"href": j.site.href(rest)}
	}
	all["_links"] = links
	if fields != "" {
		for name := range all {
			if !slices.Contains(strings.Split(fields, ","), name) {
				delete(all, name)
			}
		}
	}
	return all
}

// Start starts its process, once.
func (j *Job) Start() error {
	j.site.mu.Lock()
	lag, extra := j.site.Lag, j.site.Environ
	j.site.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.begun || j.aborted {
		return errors.New("job is not ready to be started")
	}
	cmd := exec.Command(j.Description.Executable, j.Description.Arguments...)
	cmd.Dir = j.Dir
	// A batch system tells its own processes by their control group; this double by a variable.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + j.Dir, "DOUBLE_JOB=" + j.ID, "HOSTNAME=login-node.invalid"}
	cmd.Env = append(cmd.Env, extra...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err1 := os.Create(filepath.Join(j.Dir, "stdout"))
	stderr, err2 := os.Create(filepath.Join(j.Dir, "stderr"))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Start()
	_ = stdout.Close()
	_ = stderr.Close()
	if err != nil {
		return err
	}
	j.begun, j.status, j.pid = true, "QUEUED", cmd.Process.Pid
	if lag == 0 {
		j.status = "RUNNING"
	}
	go j.watch(cmd, lag)
	return nil
}

func (j *Job) watch(cmd *exec.Cmd, lag time.Duration) {
	var late *time.Timer
	if lag > 0 {
		late = time.AfterFunc(lag, func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			if j.status == "QUEUED" {
				j.status = "RUNNING"
			}
		})
		defer late.Stop()
	}
	_ = cmd.Wait()
	j.sweep()
	j.mu.Lock()
	defer j.mu.Unlock()
	defer close(j.done)
	j.pid = 0
	if j.aborted {
		j.status, j.message = "FAILED", "Job was aborted by the user."
		return
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	j.exit, j.status = strconv.Itoa(code), "SUCCESSFUL"
	if code != 0 {
		j.status = "FAILED"
	}
}

// Abort is how a batch system cancels: SIGTERM, some time, SIGKILL for all that is left.
func (j *Job) Abort() {
	j.mu.Lock()
	pid, begun, again := j.pid, j.begun, j.aborted
	j.aborted = true
	if !begun && !again {
		j.status, j.message = "FAILED", "Job was aborted by the user."
		close(j.done)
	}
	j.mu.Unlock()
	if pid == 0 || again {
		return
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	grace := time.NewTimer(200 * time.Millisecond)
	defer grace.Stop()
	select {
	case <-j.done:
	case <-grace.C:
		j.sweep()
	}
}

// sweep kills all processes of the job.
func (j *Job) sweep() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		j.site.t.Error(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err == nil && strings.Contains("\x00"+string(env), "\x00DOUBLE_JOB="+j.ID+"\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
