// Package unicoretest is a double of a UNICORE site for tests: TLS with a CA of
// its own, the REST API as far as its contract goes, and jobs that are real
// processes. It can be slow, wrong, restarted and expired. No real site was tried.
package unicoretest

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What the site takes, and where it is.
const (
	Token = "Bearer a-token-that-must-not-be-seen" // of "CN=Renderer,O=Test", the whole header
	Core  = "/SITE/rest/core"                      // the path of Site.Base
)

// Site is the double. It is an http.Handler, and serves by itself.
type Site struct {
	t      *testing.T
	Server *httptest.Server
	root   string

	mu       sync.Mutex
	Users    map[string]string // Authorization header -> distinguished name
	Sessions map[string]string
	Jobs     map[string]*Job
	asked    []string // "GET /jobs?...": what was asked for, in order
	Ranges   []string // that files were asked for
	forwards map[net.Conn]bool

	// How it misbehaves. Set through Change.
	Fault     func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	Lag       time.Duration                                     // until a start or end is noticed
	DirDelay  time.Duration                                     // until a job's directory is there
	PageSize  int
	NoRanges  bool
	Anonymous bool
	HrefBase  string // of the addresses in answers, if not its own
	Registry  []map[string]string
	Environ   []string // more that its jobs are given
	IDs       []string // of the next jobs, if not by chance
}

// Start makes a site that ends, with all its jobs, with the test.
func Start(t *testing.T) *Site {
	t.Helper()
	s := &Site{
		t: t, root: t.TempDir(), Users: map[string]string{Token: "CN=Renderer,O=Test"}, Sessions: map[string]string{},
		Jobs: map[string]*Job{}, forwards: map[net.Conn]bool{}, PageSize: 200,
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.ServeHTTP))
	s.Server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are wanted here
	s.Server.StartTLS()
	s.Registry = []map[string]string{{"href": s.Base(), "type": "CoreServices"}}
	t.Cleanup(s.close)
	return s
}

// Base is the address of its API.
func (s *Site) Base() string { return s.Server.URL + Core }

// CA writes the certificate to trust to a file.
func (s *Site) CA() string {
	path := filepath.Join(s.root, "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.Server.Certificate().Raw}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// Change changes the site while nobody else looks at it.
func (s *Site) Change(f func(s *Site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *Site) close() {
	s.mu.Lock()
	jobs := make([]*Job, 0, len(s.Jobs))
	for _, j := range s.Jobs {
		jobs = append(jobs, j)
	}
	s.mu.Unlock()
	for _, j := range jobs {
		j.Abort()
		<-j.finished()
	}
	s.Restart()
	s.Server.Close()
}

// Restart forgets what a server keeps in memory, and cuts all connections.
func (s *Site) Restart() {
	s.mu.Lock()
	s.Sessions = map[string]string{}
	for c := range s.forwards {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.Server.CloseClientConnections()
}

// Count is how often something was asked for.
func (s *Site) Count(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if strings.HasPrefix(a, prefix) {
			n++
		}
	}
	return n
}

// Job finds a job by its identity, or gives nil.
func (s *Site) Job(id string) *Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Jobs[id]
}

// Named are the jobs of a resource.
func (s *Site) Named(name string) (found []*Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.Jobs {
		if strings.HasSuffix(j.Name, "."+name) {
			found = append(found, j)
		}
	}
	return found
}

// ServeHTTP answers a request, or lets the fault do so.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), Core))
	fault := s.Fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	if r.URL.Path == "/REG/rest/registries/default_registry" {
		s.mu.Lock()
		defer s.mu.Unlock()
		Answer(w, http.StatusOK, map[string]any{"entries": s.Registry})
		return
	}
	dn, ok := s.authenticate(w, r)
	if !ok {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, Core)
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case !ok:
		Refuse(w, http.StatusNotFound, "no such site")
	case path == "":
		s.hello(w, dn)
	case parts[0] == "jobs" && len(parts) == 1 && r.Method == http.MethodGet:
		s.listJobs(w, r, dn)
	case parts[0] == "jobs" && len(parts) == 1 && r.Method == http.MethodPost:
		s.submit(w, r, dn)
	case parts[0] == "jobs":
		s.serveJob(w, r, dn, parts[1], parts[2:])
	case parts[0] == "storages" && len(parts) == 4 && parts[2] == "files":
		s.serveFile(w, r, dn, parts[1], parts[3])
	default:
		Refuse(w, http.StatusNotFound, "HTTP 404 Not Found")
	}
}

func (s *Site) authenticate(w http.ResponseWriter, r *http.Request) (dn string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Anonymous {
		return "", true
	}
	if session := r.Header.Get("X-UNICORE-SecuritySession"); session != "" {
		if dn, ok = s.Sessions[session]; !ok {
			Refuse(w, 432, "the security session has expired: "+session)
		}
		return dn, ok
	}
	authorization := r.Header.Get("Authorization")
	if dn, ok = s.Users[authorization]; !ok {
		Refuse(w, http.StatusUnauthorized, "not authenticated by "+authorization)
		return "", false
	}
	session := rand.Text()
	s.Sessions[session] = dn
	w.Header().Set("X-UNICORE-SecuritySession", session)
	return dn, true
}

func (s *Site) hello(w http.ResponseWriter, dn string) {
	role := "user"
	if dn == "" {
		role = "anonymous"
	}
	link := func(name string) map[string]string { return map[string]string{"href": s.Base() + "/" + name} }
	Answer(w, http.StatusOK, map[string]any{
		"client": map[string]any{"dn": dn, "role": map[string]any{"selected": role}, "xlogin": map[string]any{"UID": "nobody"}},
		"_links": map[string]any{"jobs": link("jobs"), "sites": link("sites"), "storages": link("storages")},
	})
}

func (s *Site) href(rest string) string {
	if s.HrefBase != "" {
		return s.HrefBase + rest
	}
	return s.Base() + rest
}

func (s *Site) listJobs(w http.ResponseWriter, r *http.Request, dn string) {
	q := r.URL.Query()
	offset, _ := strconv.Atoi(q.Get("offset"))
	num, err := strconv.Atoi(q.Get("num"))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || num > s.PageSize {
		num = s.PageSize
	}
	var ids []string
	for id, j := range s.Jobs {
		if tag := q.Get("tags"); j.Owner == dn && (tag == "" || slices.Contains(j.Tags, tag)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	urls := []string{}
	for _, id := range ids[min(offset, len(ids)):min(offset+num, len(ids))] {
		urls = append(urls, s.href("/jobs/"+id))
	}
	Answer(w, http.StatusOK, map[string]any{"jobs": urls, "_links": map[string]any{"self": map[string]string{"href": s.Base() + "/jobs"}}})
}

func (s *Site) submit(w http.ResponseWriter, r *http.Request, dn string) {
	var d Description
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil || d.Executable == "" || d.HaveClientStageIn != "true" {
		Refuse(w, http.StatusInternalServerError, fmt.Sprint("Could not submit job: ", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j := NewJob(s, dn, d)
	s.Jobs[j.ID] = j
	w.Header().Set("Location", s.href("/jobs/"+j.ID))
	w.WriteHeader(http.StatusCreated)
}

func (s *Site) serveJob(w http.ResponseWriter, r *http.Request, dn, id string, rest []string) {
	j := s.Job(id)
	if j == nil || j.Owner != dn {
		Refuse(w, http.StatusNotFound, "no such job")
		return
	}
	switch what := strings.Join(rest, "/"); {
	case what == "" && r.Method == http.MethodGet:
		Answer(w, http.StatusOK, j.Properties(r.URL.Query().Get("fields")))
	case what == "" && r.Method == http.MethodDelete:
		s.Change(func(s *Site) { delete(s.Jobs, id) })
		j.Abort()
		<-j.finished()
		_ = os.RemoveAll(j.Dir)
		w.WriteHeader(http.StatusNoContent)
	case what == "actions/start" && r.Method == http.MethodPost:
		if err := j.Start(); err != nil {
			Refuse(w, http.StatusInternalServerError, "Could not perform action: "+err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case what == "actions/abort" && r.Method == http.MethodPost:
		go j.Abort()
		w.WriteHeader(http.StatusNoContent)
	case what == "forward-port" && r.Method == http.MethodGet:
		s.forward(w, r, j)
	default:
		Refuse(w, http.StatusNotFound, "HTTP 404 Not Found")
	}
}

func (s *Site) serveFile(w http.ResponseWriter, r *http.Request, dn, storage, name string) {
	id, ok := strings.CutSuffix(storage, "-uspace")
	j := s.Job(id)
	if !ok || j == nil || j.Owner != dn || !j.ready() {
		Refuse(w, http.StatusNotFound, "no such storage")
		return
	}
	path := filepath.Join(j.Dir, filepath.Base(name))
	switch r.Method {
	case http.MethodPut:
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			Refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet:
		if r.Header.Get("Accept") != "application/octet-stream" {
			Answer(w, http.StatusOK, map[string]any{"isDirectory": false})
			return
		}
		s.Change(func(s *Site) { s.Ranges = append(s.Ranges, r.Header.Get("Range")) })
		f, err := os.Open(path)
		if err != nil {
			Refuse(w, http.StatusNotFound, "no such file")
			return
		}
		defer f.Close()
		if s.NoRanges {
			_, _ = io.Copy(w, f)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	}
}

func (s *Site) forward(w http.ResponseWriter, r *http.Request, j *Job) {
	if r.Header.Get("Upgrade") != "UNICORE-Socket-Forwarding" || r.Header.Get("Authorization") == "" || !j.Submitted() {
		Refuse(w, http.StatusInternalServerError, "Could not connect to backend service")
		return
	}
	q := r.URL.Query()
	backend, err := net.Dial("tcp", net.JoinHostPort(q.Get("host"), q.Get("port")))
	if err != nil {
		Refuse(w, http.StatusInternalServerError, "Could not connect to backend service")
		return
	}
	defer backend.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	s.Change(func(s *Site) { s.forwards[conn] = true })
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: UNICORE-Socket-Forwarding\r\nConnection: Upgrade\r\n\r\n")
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(backend, buffered)
		_ = backend.Close()
	})
	_, _ = io.Copy(conn, backend)
	_ = conn.Close()
	both.Wait()
	s.Change(func(s *Site) { delete(s.forwards, conn) })
}

// Answer sends JSON.
func Answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// Refuse sends an error as a site does.
func Refuse(w http.ResponseWriter, status int, message string) {
	Answer(w, status, map[string]any{"errorMessage": message, "status": status})
}

// Only makes a fault that concerns some requests: "GET /jobs/".
func Only(prefix string, f func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		path, err := url.PathUnescape(strings.TrimPrefix(r.URL.Path, Core))
		if err != nil || !strings.HasPrefix(r.Method+" "+path, prefix) {
			return false
		}
		f(w, r)
		return true
	}
}
