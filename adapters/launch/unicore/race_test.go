package unicore_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/domain"
)

// However a launch is interrupted, launching again gives one started job.
func TestInterruptedLaunch(t *testing.T) {
	t.Parallel()
	fails := func(w http.ResponseWriter, _ *http.Request) { unicoretest.Refuse(w, http.StatusBadRequest, "no") }
	for name, c := range map[string]struct {
		fault func(s *unicoretest.Site) func(http.ResponseWriter, *http.Request) bool
		works bool // the launch itself copes
	}{
		"before the job": {func(*unicoretest.Site) func(http.ResponseWriter, *http.Request) bool {
			return unicoretest.Only("POST /jobs", fails)
		}, false},
		"between the job and files": {func(*unicoretest.Site) func(http.ResponseWriter, *http.Request) bool {
			return unicoretest.Only("PUT /storages", fails)
		}, false},
		"between files and start": {func(*unicoretest.Site) func(http.ResponseWriter, *http.Request) bool {
			return unicoretest.Only("POST /jobs/", fails)
		}, false},
		"the answer to start lost":  {func(s *unicoretest.Site) func(http.ResponseWriter, *http.Request) bool { return lost(s, "POST /jobs/") }, true},
		"the answer to submit lost": {func(s *unicoretest.Site) func(http.ResponseWriter, *http.Request) bool { return lost(s, "POST /jobs") }, true},
		"the answer to a file lost": {func(s *unicoretest.Site) func(http.ResponseWriter, *http.Request) bool {
			return lost(s, "PUT /storages")
		}, true},
		"a directory that is late": {func(s *unicoretest.Site) func(http.ResponseWriter, *http.Request) bool {
			s.DirDelay = 300 * time.Millisecond
			return nil
		}, true},
		"a hiccup of the gateway": {func(*unicoretest.Site) func(http.ResponseWriter, *http.Request) bool { return hiccup(2) }, true},
		"a longer one of the lookup": {func(*unicoretest.Site) func(http.ResponseWriter, *http.Request) bool {
			return unicoretest.Only("GET /jobs", fails)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := unicoretest.Start(t)
			s.Change(func(s *unicoretest.Site) { s.Fault = c.fault(s) })
			opts := options(t, s)
			r, err := open(t, opts).Launch(t.Context(), spec(t, "r"))
			if (err == nil) != c.works {
				t.Fatalf("launch: %v", err)
			}
			s.Change(func(s *unicoretest.Site) { s.Fault = nil })
			l := open(t, opts)
			again := launch(t, l, spec(t, "r"))
			if err == nil && string(again.Handle) != string(r.Handle) {
				t.Errorf("launched %s, then %s", r.Handle, again.Handle)
			}
			ready(t, l, again)
			if all := s.Named("r"); len(all) != 1 || begun(s, "r") != 1 {
				t.Errorf("there are %d jobs, %d were started; want one", len(all), begun(s, "r"))
			}
		})
	}
}

// lost is carried out, and then the connection is cut, once.
func lost(s *unicoretest.Site, prefix string) func(http.ResponseWriter, *http.Request) bool {
	var done atomic.Bool
	return func(w http.ResponseWriter, r *http.Request) bool {
		return unicoretest.Only(prefix, func(_ http.ResponseWriter, r *http.Request) {
			if done.Swap(true) {
				again(s, w, r)
				return
			}
			again(s, discard{http.Header{}}, r)
			panic(http.ErrAbortHandler)
		})(w, r)
	}
}

// again serves without the fault.
func again(s *unicoretest.Site, w http.ResponseWriter, r *http.Request) {
	var fault func(http.ResponseWriter, *http.Request) bool
	s.Change(func(s *unicoretest.Site) { fault, s.Fault = s.Fault, nil })
	s.ServeHTTP(w, r)
	s.Change(func(s *unicoretest.Site) { s.Fault = fault })
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// hiccup fails so many times of each kind of request that may be repeated.
func hiccup(times int) func(http.ResponseWriter, *http.Request) bool {
	var mu sync.Mutex
	seen := map[string]int{}
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		kind := r.Method + fmt.Sprint(strings.Count(r.URL.Path, "/"))
		if seen[kind]++; seen[kind] > times || r.Method == http.MethodPost {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>")
		return true
	}
}

// Many launchers that launch the same resource at once end with one started job, and agree on it.
func TestRacingLaunchers(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	const racers = 6
	handles := make([]string, racers)
	var wg sync.WaitGroup
	for i := range racers {
		l := open(t, opts)
		wg.Go(func() {
			r, err := l.Launch(t.Context(), spec(t, "r"))
			if err != nil {
				t.Error(err)
			}
			handles[i] = string(r.Handle)
		})
	}
	wg.Wait()
	for _, h := range handles {
		if h != handles[0] {
			t.Errorf("handles %s and %s", handles[0], h)
		}
	}
	if all := s.Named("r"); len(all) != 1 || begun(s, "r") != 1 {
		t.Errorf("there are %d jobs, %d were started; want one", len(all), begun(s, "r"))
	}
}

// A job that another is about to start is left to it, whatever the order of the identities.
func TestLateRacer(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	opts.Settle = 5 * time.Second
	go1, held := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.Change(func(s *unicoretest.Site) {
		s.IDs = []string{"zzz", "aaa"}
		s.Fault = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "zzz-uspace") {
				once.Do(func() { close(held) })
				<-go1
			}
			return false
		}
	})
	var first domain.Launched
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if first, err = open(t, opts).Launch(t.Context(), spec(t, "r")); err != nil {
			t.Error(err)
		}
	})
	<-held
	wg.Go(func() { // the second makes a job of its own, as if it had not seen the first's
		s.Change(func(s *unicoretest.Site) {
			name := "rrm." + opts.Service + ".r"
			j := unicoretest.NewJob(s, "CN=Renderer,O=Test", unicoretest.Description{Name: name, Tags: []string{"rrm." + opts.Service, name}, Executable: "/bin/bash", Arguments: []string{"rrm-start"}})
			s.Jobs[j.ID] = j
		})
		second, err := open(t, opts).Launch(t.Context(), spec(t, "r"))
		if err != nil {
			t.Error(err)
		} else if jobOf(t, second) != "zzz" {
			t.Errorf("the second has job %s, want zzz", jobOf(t, second))
		}
	})
	eventually(t, func() (bool, string) { return s.Count("GET /jobs/aaa") > 2, "the second does not look" })
	close(go1)
	wg.Wait()
	if first.Resource == "" || jobOf(t, first) != "zzz" || begun(s, "r") != 1 {
		t.Errorf("the first has %s, %d jobs were started", first.Handle, begun(s, "r"))
	}
}
