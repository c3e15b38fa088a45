package unicore_test

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

const (
	goodToken = "Bearer a-token-that-must-not-be-seen"
	core      = "/SITE/rest/core"
)

// site is a double of a UNICORE site: TLS with a CA of its own, the REST API as far
// as its contract goes, and jobs that are real processes. It can be told to misbehave.
type site struct {
	t      *testing.T
	server *httptest.Server
	root   string

	mu       sync.Mutex
	users    map[string]string // Authorization header -> distinguished name
	sessions map[string]string
	jobs     map[string]*job
	asked    []string // "GET /jobs?...": what was asked for, in order
	ranges   []string // that files were asked for
	forwards map[net.Conn]bool

	// How it misbehaves. Set through change.
	fault     func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	lag       time.Duration                                     // until a start or end is noticed
	dirDelay  time.Duration                                     // until a job's directory is there
	pageSize  int
	noRanges  bool
	anonymous bool
	hrefBase  string // of the addresses in answers, if not its own
	registry  []map[string]string
	environ   []string // more that its jobs are given
	ids       []string // of the next jobs, if not by chance
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{
		t: t, root: t.TempDir(), users: map[string]string{goodToken: "CN=Renderer,O=Test"}, sessions: map[string]string{},
		jobs: map[string]*job{}, forwards: map[net.Conn]bool{}, pageSize: 200,
	}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are wanted here
	s.server.StartTLS()
	s.registry = []map[string]string{{"href": s.base(), "type": "CoreServices"}}
	t.Cleanup(s.close)
	return s
}

func (s *site) base() string { return s.server.URL + core }

// ca writes the certificate to trust to a file.
func (s *site) ca() string {
	path := filepath.Join(s.root, "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s *site) change(f func(s *site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *site) close() {
	s.mu.Lock()
	jobs := make([]*job, 0, len(s.jobs))
	for _, j := range s.jobs {
		jobs = append(jobs, j)
	}
	s.mu.Unlock()
	for _, j := range jobs {
		j.abort()
		<-j.finished()
	}
	s.restart()
	s.server.Close()
}

// restart forgets what a server keeps in memory, and cuts all connections.
func (s *site) restart() {
	s.mu.Lock()
	s.sessions = map[string]string{}
	for c := range s.forwards {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.server.CloseClientConnections()
}

// count is how often something was asked for.
func (s *site) count(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if strings.HasPrefix(a, prefix) {
			n++
		}
	}
	return n
}

func (s *site) job(id string) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs[id]
}

// named are the jobs of a resource.
func (s *site) named(name string) (found []*job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if strings.HasSuffix(j.name, "."+name) {
			found = append(found, j)
		}
	}
	return found
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+strings.TrimPrefix(r.URL.RequestURI(), core))
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	if r.URL.Path == "/REG/rest/registries/default_registry" {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer(w, http.StatusOK, map[string]any{"entries": s.registry})
		return
	}
	dn, ok := s.authenticate(w, r)
	if !ok {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, core)
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "no such site")
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
		refuse(w, http.StatusNotFound, "HTTP 404 Not Found")
	}
}

func (s *site) authenticate(w http.ResponseWriter, r *http.Request) (dn string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.anonymous {
		return "", true
	}
	if session := r.Header.Get("X-UNICORE-SecuritySession"); session != "" {
		if dn, ok = s.sessions[session]; !ok {
			refuse(w, 432, "the security session has expired: "+session)
		}
		return dn, ok
	}
	authorization := r.Header.Get("Authorization")
	if dn, ok = s.users[authorization]; !ok {
		refuse(w, http.StatusUnauthorized, "not authenticated by "+authorization)
		return "", false
	}
	session := rand.Text()
	s.sessions[session] = dn
	w.Header().Set("X-UNICORE-SecuritySession", session)
	return dn, true
}

func (s *site) hello(w http.ResponseWriter, dn string) {
	role := "user"
	if dn == "" {
		role = "anonymous"
	}
	link := func(name string) map[string]string { return map[string]string{"href": s.base() + "/" + name} }
	answer(w, http.StatusOK, map[string]any{
		"client": map[string]any{"dn": dn, "role": map[string]any{"selected": role}, "xlogin": map[string]any{"UID": "nobody"}},
		"_links": map[string]any{"jobs": link("jobs"), "sites": link("sites"), "storages": link("storages")},
	})
}

func (s *site) href(rest string) string {
	if s.hrefBase != "" {
		return s.hrefBase + rest
	}
	return s.base() + rest
}

func (s *site) listJobs(w http.ResponseWriter, r *http.Request, dn string) {
	q := r.URL.Query()
	offset, _ := strconv.Atoi(q.Get("offset"))
	num, err := strconv.Atoi(q.Get("num"))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || num > s.pageSize {
		num = s.pageSize
	}
	var ids []string
	for id, j := range s.jobs {
		if tag := q.Get("tags"); j.owner == dn && (tag == "" || slices.Contains(j.tags, tag)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	urls := []string{}
	for _, id := range ids[min(offset, len(ids)):min(offset+num, len(ids))] {
		urls = append(urls, s.href("/jobs/"+id))
	}
	answer(w, http.StatusOK, map[string]any{"jobs": urls, "_links": map[string]any{"self": map[string]string{"href": s.base() + "/jobs"}}})
}

func (s *site) submit(w http.ResponseWriter, r *http.Request, dn string) {
	var d description
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil || d.Executable == "" || d.HaveClientStageIn != "true" {
		refuse(w, http.StatusInternalServerError, fmt.Sprint("Could not submit job: ", err))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j := newJob(s, dn, d)
	s.jobs[j.id] = j
	w.Header().Set("Location", s.href("/jobs/"+j.id))
	w.WriteHeader(http.StatusCreated)
}

func (s *site) serveJob(w http.ResponseWriter, r *http.Request, dn, id string, rest []string) {
	j := s.job(id)
	if j == nil || j.owner != dn {
		refuse(w, http.StatusNotFound, "no such job")
		return
	}
	switch what := strings.Join(rest, "/"); {
	case what == "" && r.Method == http.MethodGet:
		answer(w, http.StatusOK, j.properties(r.URL.Query().Get("fields")))
	case what == "" && r.Method == http.MethodDelete:
		s.change(func(s *site) { delete(s.jobs, id) })
		j.abort()
		<-j.finished()
		_ = os.RemoveAll(j.dir)
		w.WriteHeader(http.StatusNoContent)
	case what == "actions/start" && r.Method == http.MethodPost:
		if err := j.start(); err != nil {
			refuse(w, http.StatusInternalServerError, "Could not perform action: "+err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case what == "actions/abort" && r.Method == http.MethodPost:
		go j.abort()
		w.WriteHeader(http.StatusNoContent)
	case what == "forward-port" && r.Method == http.MethodGet:
		s.forward(w, r, j)
	default:
		refuse(w, http.StatusNotFound, "HTTP 404 Not Found")
	}
}

func (s *site) serveFile(w http.ResponseWriter, r *http.Request, dn, storage, name string) {
	id, ok := strings.CutSuffix(storage, "-uspace")
	j := s.job(id)
	if !ok || j == nil || j.owner != dn || !j.ready() {
		refuse(w, http.StatusNotFound, "no such storage")
		return
	}
	path := filepath.Join(j.dir, filepath.Base(name))
	switch r.Method {
	case http.MethodPut:
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet:
		if r.Header.Get("Accept") != "application/octet-stream" {
			answer(w, http.StatusOK, map[string]any{"isDirectory": false})
			return
		}
		s.change(func(s *site) { s.ranges = append(s.ranges, r.Header.Get("Range")) })
		f, err := os.Open(path)
		if err != nil {
			refuse(w, http.StatusNotFound, "no such file")
			return
		}
		defer f.Close()
		if s.noRanges {
			_, _ = io.Copy(w, f)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, f)
	}
}

func (s *site) forward(w http.ResponseWriter, r *http.Request, j *job) {
	if r.Header.Get("Upgrade") != "UNICORE-Socket-Forwarding" || r.Header.Get("Authorization") == "" || !j.submitted() {
		refuse(w, http.StatusInternalServerError, "Could not connect to backend service")
		return
	}
	q := r.URL.Query()
	backend, err := net.Dial("tcp", net.JoinHostPort(q.Get("host"), q.Get("port")))
	if err != nil {
		refuse(w, http.StatusInternalServerError, "Could not connect to backend service")
		return
	}
	defer backend.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	s.change(func(s *site) { s.forwards[conn] = true })
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: UNICORE-Socket-Forwarding\r\nConnection: Upgrade\r\n\r\n")
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(backend, buffered)
		_ = backend.Close()
	})
	_, _ = io.Copy(conn, backend)
	_ = conn.Close()
	both.Wait()
	s.change(func(s *site) { delete(s.forwards, conn) })
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]any{"errorMessage": message, "status": status})
}

// only makes a fault that concerns some requests: "GET /jobs/".
func only(prefix string, f func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		path, err := url.PathUnescape(strings.TrimPrefix(r.URL.Path, core))
		if err != nil || !strings.HasPrefix(r.Method+" "+path, prefix) {
			return false
		}
		f(w, r)
		return true
	}
}
