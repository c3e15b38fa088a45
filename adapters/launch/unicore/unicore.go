// Package unicore is the launcher that starts rendering resources as jobs of a
// UNICORE site, by its REST API. The renderer is the job; it is reached through
// the site's port forwarding, behind a listener on a loopback address of this
// machine. Jobs outlive a restart of rrm and are found again by their names.
//
// It may know the domain and the site. It decides nothing: what should run is
// wished for elsewhere.
package unicore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Defaults and bounds.
const (
	defaultTimeout      = 10 * time.Second
	defaultEvery        = 5 * time.Second
	defaultRunningEvery = 20 * time.Second
	defaultObserveWait  = time.Second
	defaultStaleAfter   = time.Minute
	defaultSettle       = time.Second
	defaultKeepEnded    = 50
	defaultFirstPort    = 20000 // below the ports that Linux gives to outgoing connections
	defaultLastPort     = 29999
)

// Transfer is a file that the site itself copies to or from the job's directory.
type Transfer struct {
	From string `json:"From"`
	To   string `json:"To"`
}

// Options say which site, as whom, and what its jobs are given.
type Options struct {
	// Site is the base of the site's API, https://GATEWAY/SITE/rest/core. Empty: Registry and SiteName tell.
	Site string
	// Registry is a registry's address, https://GATEWAY/REGISTRY/rest/registries/default_registry,
	// in which the site SiteName is looked up; SiteName may be empty if it names one site only.
	Registry, SiteName string
	// Hosts ("host" or "host:port") are the hosts beside the registry's own that
	// a registry may send us, and so the token, to.
	Hosts []string

	// Service identifies this installation: its jobs bear it in name and tags. Letters, digits, '-' and '_'.
	Service string

	// TokenFile and TokenEnv say where the service's own token is: read anew each time it
	// is needed, so that it can be replaced. A bare token is sent as "Bearer";
	// "Basic ..." and "Bearer ..." are sent as they are.
	TokenFile, TokenEnv string
	// Token gives the token to use for one resource, such as that of the request for which it
	// was made; empty (or a nil Token): the service's own. It is asked often and must be quick.
	Token func(ctx context.Context, r domain.ResourceID) (string, error)

	// CAFile holds certificates (PEM) to trust instead of the system's.
	CAFile string
	// DangerouslySkipTLSVerify lets anyone between us and the site read the
	// token. It is for a laboratory only and is warned of at each start.
	DangerouslySkipTLSVerify bool

	// Imports and Exports are copied by the site before and after the job.
	Imports, Exports []Transfer
	// ListenHost is what renderers are told to listen on; empty: the name of the node that they run on.
	ListenHost string
	// FirstPort and LastPort bound the ports that renderers are given on their nodes; 0: 20000 to 29999.
	FirstPort, LastPort int

	// Timeout of one request to the site; 0: 10 s.
	Timeout time.Duration
	// Every is how often the site is asked for the list of jobs, and for each job that is on its way; 0: 5 s.
	Every time.Duration
	// RunningEvery is how often it is asked for a job that runs; 0: 20 s. UNICORE itself lags 30 to 60 s.
	RunningEvery time.Duration
	// ObserveWait bounds how long Observe and List wait for the site; 0: 1 s.
	ObserveWait time.Duration
	// StaleAfter is how old what is known may be while the site is slow; 0: 1 min.
	StaleAfter time.Duration
	// Settle is how long to wait for another rrm that launches the same resource; 0: 1 s.
	Settle time.Duration
	// KeepEnded is how many ended jobs are kept at the site, for their output; 0: 50.
	KeepEnded int

	// Logger is told of what nobody asked for; nil: slog.Default().
	Logger *slog.Logger
}

// Launcher starts, finds, watches and stops jobs at one site. It is safe for use
// from many goroutines, and by several rrm processes with the same Service. Close ends its tunnels.
type Launcher struct {
	opts Options
	log  *slog.Logger
	http *http.Client
	// closing ends what goes on in the background; wg waits for it.
	closing chan struct{}
	wg      sync.WaitGroup
	// nextPort counts launches, from a number by chance, so that resources that start at once on one node take different ports.
	nextPort atomic.Uint32

	mu       sync.Mutex
	base     string // of the site, once it is known
	accounts map[string]*account
	views    map[jobID]*view
	tunnels  map[domain.ResourceID]*tunnel
	busy     map[domain.ResourceID]chan struct{} // launches under way; closed when done
	closed   bool
}

var (
	serviceNames = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	resourceIDs  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

// New checks the options. It does not ask the site, which may be down for now.
func New(opts Options) (*Launcher, error) {
	if !serviceNames.MatchString(opts.Service) {
		return nil, fmt.Errorf("a UNICORE launcher needs the service's identity, of letters, digits, '-' and '_'; %q is none", opts.Service)
	}
	if opts.Token == nil && opts.TokenFile == "" && opts.TokenEnv == "" {
		return nil, errors.New("a UNICORE launcher needs a token: name a file or a variable of the environment")
	}
	opts.fill()
	if opts.FirstPort < 1 || opts.LastPort > 65535 || opts.FirstPort > opts.LastPort {
		return nil, fmt.Errorf("ports %d to %d are no range of ports", opts.FirstPort, opts.LastPort)
	}
	if opts.ListenHost != "" && !hostNames.MatchString(opts.ListenHost) {
		return nil, fmt.Errorf("%q is not a host to listen on", opts.ListenHost)
	}
	base, err := opts.checkSite()
	if err != nil {
		return nil, err
	}
	client, err := opts.httpClient()
	if err != nil {
		return nil, err
	}
	l := &Launcher{
		opts: opts, log: opts.Logger, http: client, base: base, closing: make(chan struct{}),
		accounts: map[string]*account{}, views: map[jobID]*view{}, tunnels: map[domain.ResourceID]*tunnel{},
		busy: map[domain.ResourceID]chan struct{}{},
	}
	l.nextPort.Store(rand.Uint32N(1 << 16))
	return l, nil
}

func orElse[T comparable](v *T, other T) {
	var zero T
	if *v == zero {
		*v = other
	}
}

func (o *Options) fill() {
	orElse(&o.Timeout, defaultTimeout)
	orElse(&o.Every, defaultEvery)
	orElse(&o.RunningEvery, defaultRunningEvery)
	orElse(&o.ObserveWait, defaultObserveWait)
	orElse(&o.StaleAfter, defaultStaleAfter)
	orElse(&o.Settle, defaultSettle)
	orElse(&o.KeepEnded, defaultKeepEnded)
	orElse(&o.FirstPort, defaultFirstPort)
	orElse(&o.LastPort, defaultLastPort)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// Close ends the tunnels and what goes on in the background. The jobs go on.
func (l *Launcher) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.closing)
	}
	tunnels := l.tunnels
	l.tunnels = map[domain.ResourceID]*tunnel{}
	l.mu.Unlock()
	for _, t := range tunnels {
		t.close()
	}
	l.wg.Wait()
	l.http.CloseIdleConnections()
}

// background runs f until it returns, the limit is over or the launcher is
// closed. It does not begin if the launcher is closed already.
func (l *Launcher) background(limit time.Duration, f func(context.Context)) (begun bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-l.closing:
				cancel()
			case <-stop:
			}
		}()
		f(ctx)
	})
	return true
}

// checkID refuses resource IDs that are not safe in names and tags.
func checkID(id domain.ResourceID) error {
	if !resourceIDs.MatchString(string(id)) {
		return domain.Invalid("resource", "%q cannot be the identity of a UNICORE resource", id)
	}
	return nil
}

// tag is on all jobs of this service.
func (l *Launcher) tag() string { return "rrm." + l.opts.Service }

// name is the name, and a tag, of the jobs of one resource.
func (l *Launcher) name(id domain.ResourceID) string { return l.tag() + "." + string(id) }

// resourceOf is the resource that a job's name tells; empty for jobs of others.
func (l *Launcher) resourceOf(name string) domain.ResourceID {
	prefix := l.tag() + "."
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return ""
	}
	id := domain.ResourceID(name[len(prefix):])
	if checkID(id) != nil {
		return ""
	}
	return id
}
