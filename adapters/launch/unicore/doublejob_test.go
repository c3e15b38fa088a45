package unicore_test

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

// description is all that a job may say.
type description struct {
	Name              string
	Tags              []string
	Executable        string
	Arguments         []string
	Resources         map[string]string
	Project           string
	Imports, Exports  []map[string]string
	HaveClientStageIn string `json:"haveClientStageIn"`
}

// job is one of the double's jobs: a real process once it is started.
type job struct {
	site        *site
	id, owner   string
	name        string
	tags        []string
	description description
	dir         string
	made        time.Time

	mu      sync.Mutex
	status  string // as the site says it, late perhaps
	message string
	exit    string
	begun   bool
	aborted bool
	pid     int
	done    chan struct{} // closed when no process is left and the status is final
}

// newJob waits for its start. The caller holds the site's lock.
func newJob(s *site, owner string, d description) *job {
	id := strings.ToLower(rand.Text())
	if len(s.ids) > 0 {
		id, s.ids = s.ids[0], s.ids[1:]
	}
	return &job{
		site: s, id: id, owner: owner, name: d.Name, tags: d.Tags, description: d, dir: filepath.Join(s.root, id),
		made: time.Now(), status: "READY", done: make(chan struct{}),
	}
}

// ready makes the directory when its time has come.
func (j *job) ready() bool {
	j.site.mu.Lock()
	delay := j.site.dirDelay
	j.site.mu.Unlock()
	if time.Since(j.made) < delay {
		return false
	}
	return os.MkdirAll(j.dir, 0o700) == nil
}

func (j *job) submitted() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.begun
}

func (j *job) finished() <-chan struct{} { return j.done }

func (j *job) process() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.pid
}

func (j *job) properties(fields string) map[string]any {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := map[string]any{
		"status": j.status, "statusMessage": j.message, "name": j.name, "queue": "N/A", "batchSystemID": "N/A", "log": []string{"created"},
		"submissionTime": j.made.Format("2006-01-02T15:04:05-0700"),
	}
	if j.exit != "" {
		all["exitCode"] = j.exit
	}
	if j.begun {
		all["batchSystemID"] = "4711"
	}
	links := map[string]any{}
	for name, rest := range map[string]string{
		"self": "/jobs/" + j.id, "action:start": "/jobs/" + j.id + "/actions/start", "action:abort": "/jobs/" + j.id + "/actions/abort",
		"workingDirectory": "/storages/" + j.id + "-uspace", "forwarding": "/jobs/" + j.id + "/forward-port",
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

func (j *job) start() error {
	j.site.mu.Lock()
	lag, extra := j.site.lag, j.site.environ
	j.site.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.begun || j.aborted {
		return errors.New("job is not ready to be started")
	}
	cmd := exec.Command(j.description.Executable, j.description.Arguments...)
	cmd.Dir = j.dir
	// A batch system tells its own processes by their control group; this double by a variable.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + j.dir, "DOUBLE_JOB=" + j.id, "HOSTNAME=login-node.invalid"}
	cmd.Env = append(cmd.Env, extra...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err1 := os.Create(filepath.Join(j.dir, "stdout"))
	stderr, err2 := os.Create(filepath.Join(j.dir, "stderr"))
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

func (j *job) watch(cmd *exec.Cmd, lag time.Duration) {
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

// abort is how a batch system cancels: SIGTERM, some time, SIGKILL for all that is left.
func (j *job) abort() {
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
func (j *job) sweep() {
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
		if err == nil && strings.Contains("\x00"+string(env), "\x00DOUBLE_JOB="+j.id+"\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
