package unicore_test

import (
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore/unicoretest"
	"github.com/rendering-resource-manager/rrm/domain"
)

func TestDescription(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	opts.Imports = []unicore.Transfer{{From: "link:/data/models", To: "models"}}
	opts.Exports = []unicore.Transfer{{From: "stdout", To: "https://archive.invalid/stdout"}}
	l := open(t, opts)
	work := t.TempDir()
	full := spec(t, "full")
	full.Renderer.Project, full.Renderer.Queue, full.Renderer.Reservation = "proj3", "prod", "demo-day"
	full.Renderer.Nodes, full.Renderer.CPUs, full.Renderer.GPUs, full.Renderer.Memory = 2, 8, 1, 4096
	full.Renderer.Exclusive, full.Renderer.WorkDir = true, work
	full.Renderer.AllocationTime = domain.Duration(90 * time.Minute)
	full.Renderer.Environment = map[string]string{"SECRET": "of-the-renderer"}
	o := ready(t, l, launch(t, l, full))
	if want := o.Started.Add(90 * time.Minute); !o.Ends.Equal(want) {
		t.Errorf("it ends at %s, want %s", o.Ends, want)
	}
	name := "rrm." + opts.Service + ".full"
	want := unicoretest.Description{
		Name: name, Tags: []string{"rrm." + opts.Service, name}, Executable: "/bin/bash", Arguments: []string{"rrm-start"}, Project: "proj3",
		Resources: map[string]string{
			"Nodes": "2", "CPUsPerNode": "8", "GPUsPerNode": "1", "Memory": "4096M", "Runtime": "5400",
			"Queue": "prod", "Reservation": "demo-day", "Exclusive": "true",
		},
		Imports: []map[string]string{{"From": "link:/data/models", "To": "models"}}, Exports: []map[string]string{{"From": "stdout", "To": "https://archive.invalid/stdout"}},
		HaveClientStageIn: "true",
	}
	if got := s.Named("full")[0].Description; !reflect.DeepEqual(got, want) {
		t.Errorf("the description is %+v, want %+v", got, want)
	}
	little := spec(t, "little")
	little.Renderer.Nodes, little.Renderer.CPUs = 0, 0
	if o := ready(t, l, launch(t, l, little)); !o.Ends.IsZero() {
		t.Errorf("it ends at %s, want no end", o.Ends)
	}
	if got := s.Named("little")[0].Description.Resources; len(got) != 0 {
		t.Errorf("a renderer that asks for nothing asks for %v", got)
	}
}

// What the script does for the renderer on its node.
func TestStartScript(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	opts := options(t, s)
	l := open(t, opts)
	work := t.TempDir() + "/a $(touch x) directory"
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	run := func(id domain.ResourceID, change func(*domain.Renderer)) (reason, stdout, stderr string) {
		sp := spec(t, id)
		sp.Renderer.SchedulerFormat = ""
		change(&sp.Renderer)
		r := launch(t, l, sp)
		reason = becomes(t, l, r, domain.LaunchGone, "").Reason
		texts := map[string]string{}
		for _, stream := range []string{"stdout", "stderr"} {
			b, err := l.Output(t.Context(), r, stream, 1000)
			if err != nil {
				t.Error(err)
			}
			texts[stream] = string(b)
		}
		return reason, texts["stdout"], texts["stderr"]
	}
	reason, stdout, _ := run("where", func(r *domain.Renderer) { r.CommandLine, r.WorkDir = "pwd", work })
	if reason != "exit status 0" || stdout != work+"\n" {
		t.Errorf("%s, it ran in %q, want %q", reason, stdout, work)
	}
	reason, _, stderr := run("nowhere", func(r *domain.Renderer) { r.CommandLine, r.WorkDir = "pwd", work+"-no" })
	if reason != "exit status 98" || !strings.Contains(stderr, "rrm: the working directory cannot be entered") {
		t.Errorf("%s, %q; want a directory that is missing to be told", reason, stderr)
	}
	reason, _, stderr = run("no-module", func(r *domain.Renderer) { r.CommandLine, r.Modules = "pwd", []string{"gcc/13"} })
	if reason != "exit status 98" || !strings.Contains(stderr, "the environment module gcc/13 cannot be loaded") {
		t.Errorf("%s, %q; want a module that is missing to be told", reason, stderr)
	}
	s.Change(func(s *unicoretest.Site) {
		s.Environ = []string{`BASH_FUNC_module%%=() { echo "module $*"; export A=module B=module; }`}
	})
	reason, stdout, _ = run("modules", func(r *domain.Renderer) {
		r.CommandLine, r.Modules = `printenv A B`, []string{"gcc/13", "mesa"}
		r.Environment = map[string]string{"A": "own & ${job_id}"}
	})
	if want := "module load gcc/13\nmodule load mesa\nown & modules\nmodule\n"; reason != "exit status 0" || stdout != want {
		t.Errorf("%s, %q; want %q", reason, stdout, want)
	}
	reason, stdout, _ = run("ampersand", func(r *domain.Renderer) {
		r.CommandLine = "printf"
		r.SchedulerFormat = `"%s|" "${rest_hostname}&x" "\\1" "*"`
	})
	if want := `127.0.0.1&x|\1|*|`; reason != "exit status 0" || stdout != want {
		t.Errorf("%s, %q; want %q", reason, stdout, want)
	}
	// Without a host to listen on it is the node's name, which is known there only.
	opts.ListenHost = ""
	l = open(t, opts)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	_, stdout, _ = run("host", func(r *domain.Renderer) { r.CommandLine = `echo ${rest_hostname}` })
	if stdout != host+"\n" {
		t.Errorf("the host is %q, want %q", stdout, host)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	l := open(t, options(t, s))
	for field, change := range map[string]func(*domain.LaunchSpec){
		"qos":                              func(s *domain.LaunchSpec) { s.Renderer.QOS = "high" },
		"modules":                          func(s *domain.LaunchSpec) { s.Renderer.Modules = []string{"gcc", "--help"} },
		"command_line":                     func(s *domain.LaunchSpec) { s.Renderer.CommandLine = "A=b renderer" },
		"scheduler_rest_parameters_format": func(s *domain.LaunchSpec) { s.Renderer.SchedulerFormat = "-x; id" },
		"resource":                         func(s *domain.LaunchSpec) { s.Resource = "../x" },
		"environment_variables":            func(s *domain.LaunchSpec) { s.Renderer.Environment = map[string]string{"RRM_RESOURCE": "y"} },
		"model": func(s *domain.LaunchSpec) {
			s.Renderer.SchedulerFormat, s.Model = "${model}", "--delete-everything"
		},
	} {
		sp := spec(t, "r")
		change(&sp)
		_, err := l.Launch(t.Context(), sp)
		if refusal, ok := domain.AsRefusal(err); !ok || refusal.Field != field || refusal.Kind != domain.KindInvalid {
			t.Errorf("got %v, want a refusal of %s", err, field)
		}
	}
	if s.Count("") != 0 {
		t.Error("the site was asked about what cannot be launched")
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	for name, change := range map[string]func(*unicore.Options){
		"no service":            func(o *unicore.Options) { o.Service = "" },
		"a service with dots":   func(o *unicore.Options) { o.Service = "a.b" },
		"no token":              func(o *unicore.Options) { o.TokenFile = "" },
		"no site":               func(o *unicore.Options) { o.Site = "" },
		"site and registry":     func(o *unicore.Options) { o.Registry = s.Server.URL },
		"http":                  func(o *unicore.Options) { o.Site = strings.Replace(o.Site, "https:", "http:", 1) },
		"a password in the URL": func(o *unicore.Options) { o.Site = strings.Replace(o.Site, "//", "//me:secret@", 1) },
		"another API":           func(o *unicore.Options) { o.Site += "/jobs" },
		"dots in the path":      func(o *unicore.Options) { o.Site = s.Server.URL + "/SITE/../rest/core" },
		"a host with a space":   func(o *unicore.Options) { o.ListenHost = "a b" },
		"ports upside down":     func(o *unicore.Options) { o.FirstPort, o.LastPort = 9000, 8000 },
	} {
		opts := options(t, s)
		change(&opts)
		if _, err := unicore.New(opts); err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	entry := func(href, kind string) map[string]string { return map[string]string{"href": href, "type": kind} }
	for name, c := range map[string]struct {
		entries func(base string) []map[string]string
		site    string
		hosts   []string
		err     string // empty: it works
	}{
		"a current one": {func(base string) []map[string]string {
			return []map[string]string{entry("https://other.invalid/X/rest/core", "CoreServices"), entry(base, "CoreServices"), entry(base+"/x", "WorkflowServices")}
		}, "SITE", nil, ""},
		"an older one": {func(base string) []map[string]string {
			return []map[string]string{entry(base+"/factories/default_target_system_factory", "TargetSystemFactory")}
		}, "", nil, ""},
		"several sites": {func(base string) []map[string]string {
			return []map[string]string{entry("https://other.invalid/X/rest/core", "CoreServices"), entry(base, "CoreServices")}
		}, "", nil, "several sites (X, SITE)"},
		"none of that name": {func(base string) []map[string]string {
			return []map[string]string{entry(base, "CoreServices")}
		}, "OTHER", nil, `no site "OTHER"`},
		"at another host": {func(string) []map[string]string {
			return []map[string]string{entry("https://other.invalid/SITE/rest/core", "CoreServices")}
		}, "SITE", nil, "a host that is not allowed"},
		"at another host that is allowed": {func(string) []map[string]string {
			return []map[string]string{entry("https://other.invalid/SITE/rest/core", "CoreServices")}
		}, "SITE", []string{"OTHER.invalid"}, "other.invalid"}, // which is asked, and does not exist
		"without TLS": {func(base string) []map[string]string {
			return []map[string]string{entry(strings.Replace(base, "https", "http", 1), "CoreServices")}
		}, "SITE", nil, "no site"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := unicoretest.Start(t)
			s.Change(func(s *unicoretest.Site) { s.Registry = c.entries(s.Base()) })
			opts := options(t, s)
			opts.Site, opts.Registry, opts.SiteName, opts.Hosts = "", s.Server.URL+"/REG/rest/registries/default_registry", c.site, c.hosts
			l := open(t, opts)
			r, err := l.Launch(t.Context(), spec(t, "r"))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			ready(t, l, r)
			if n := s.Count("GET /REG/"); n != 1 {
				t.Errorf("the registry was asked %d times, want once", n)
			}
		})
	}
}

func TestSubmissionIsOff(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	s.Change(func(s *unicoretest.Site) {
		s.Fault = unicoretest.Only("POST /jobs", func(w http.ResponseWriter, _ *http.Request) { unicoretest.Refuse(w, 503, "maintenance until noon") })
	})
	_, err := open(t, options(t, s)).Launch(t.Context(), spec(t, "r"))
	refusal, ok := domain.AsRefusal(err)
	if !ok || refusal.Kind != domain.KindUnavailable || refusal.RetryAfter == 0 || !strings.Contains(refusal.Reason, "maintenance until noon") {
		t.Errorf("got %v, want the site's reason and when to ask again", err)
	}
	if n := s.Count("POST /jobs"); n != 1 {
		t.Errorf("the job was submitted %d times; nobody knows what became of the first", n)
	}
}

func TestForeignAddresses(t *testing.T) {
	t.Parallel()
	s := unicoretest.Start(t)
	for _, base := range []string{
		"https://elsewhere.invalid" + unicoretest.Core, "http://" + s.Server.Listener.Addr().String() + unicoretest.Core,
		s.Server.URL + "/OTHER/rest/core", s.Base() + "/jobs/..", s.Base() + "/jobs/x?y=",
	} {
		s.Change(func(s *unicoretest.Site) { s.HrefBase = base })
		if r, err := open(t, options(t, s)).Launch(t.Context(), spec(t, "r")); err == nil {
			t.Errorf("%s: launched %+v", base, r)
		}
	}
}
