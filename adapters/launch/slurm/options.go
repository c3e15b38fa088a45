package slurm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Defaults.
const (
	defaultEvery      = 2 * time.Second
	defaultQueueEvery = 15 * time.Second
	defaultTimeout    = 20 * time.Second // the commands block for 9 to 18 s while the controller is down
	defaultKeepEnded  = 100
	defaultFirstPort  = 20000
	defaultLastPort   = 29999
	defaultNode       = nodePlaceholder
)

const nodePlaceholder = "${node}"

// Site is one cluster and how it is reached. The JSON names are those of the settings file.
type Site struct {
	// Name tells sites apart; it is part of every handle and must not change.
	Name string `json:"name"`
	// Hosts are the machines with Slurm's commands, "user@host:port" each, tried in
	// order over SSH. None: the commands are run on this machine.
	Hosts []string `json:"hosts,omitempty"`
	// KeyFiles are private keys without a passphrase. The agent of SSH_AUTH_SOCK is asked too, if there is one.
	KeyFiles []string `json:"key_files,omitempty"`
	// KnownHosts is the file of the hosts' keys; empty: ~/.ssh/known_hosts. A host that is not in it is refused.
	KnownHosts string `json:"known_hosts,omitempty"`
	// Directory holds one directory for each resource with what it writes. It is
	// absolute, seen by the nodes and by the machine with the commands alike, and writable.
	Directory string `json:"directory"`
	// NodeAddress is how a node is reached; ${node} stands for its name in Slurm. Empty: "${node}".
	NodeAddress string `json:"node_address,omitempty"`
	// FirstPort and LastPort bound the ports that renderers get; 0: 20000 and 29999.
	FirstPort int `json:"first_port,omitempty"`
	LastPort  int `json:"last_port,omitempty"`
	// Tunnel reaches the renderers through the SSH connection, where nodes cannot be reached directly.
	Tunnel bool `json:"tunnel,omitempty"`
	// BinDir is where Slurm's commands are, on the hosts and the nodes, if not on the PATH.
	BinDir string `json:"bin_dir,omitempty"`
	// SlurmConf is the value of SLURM_CONF, where the commands need one.
	SlurmConf string `json:"slurm_conf,omitempty"`
	// ModulesInit is the script that defines `module`; empty: what a login shell on the node has.
	ModulesInit string `json:"modules_init,omitempty"`
	// Timeout bounds each command; 0: 20 s.
	Timeout domain.Duration `json:"timeout,omitempty"`
}

// Options say where a launcher works.
type Options struct {
	// Service identifies this installation in the names of its Slurm jobs: letters, digits, '-' and '_'.
	Service string
	// Sites are tried in order: a resource goes to the first that takes it.
	Sites []Site
	// Every is how old what Observe tells may be: at most one squeue is run per site in that time; 0: 2 s.
	Every time.Duration
	// QueueEvery is how often the others' waiting jobs are counted, while some of ours wait; 0: 15 s.
	QueueEvery time.Duration
	// KeepEnded is how many directories of resources that ended are kept on each site for their output,
	// beside those changed within the hour; 0: 100.
	KeepEnded int
	// Logger is told of what nobody asked for; nil: slog.Default().
	Logger *slog.Logger
}

// settings is the file that ReadSites reads.
type settings struct {
	Sites []Site `json:"sites"`
}

// ReadSites reads {"sites": [...]} from a file and refuses what it does not know.
func ReadSites(path string) ([]Site, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read Slurm sites: %w", err)
	}
	var s settings
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("read Slurm sites from %s: %w", path, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read Slurm sites from %s: there is more than one value in it", path)
	}
	return s.Sites, checkSites(s.Sites)
}

var (
	serviceNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
	siteNames    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	// Paths go into command lines, file name patterns of Slurm and scripts: nothing that any of these would read differently.
	safePaths   = regexp.MustCompile(`^(/[A-Za-z0-9_+@=.,-]+)+$`)
	safeAddress = regexp.MustCompile(`^[A-Za-z0-9.:\[\]_-]*(\$\{node\})?[A-Za-z0-9.:\[\]_-]*$`)
)

func checkSites(sites []Site) error {
	if len(sites) == 0 {
		return errors.New("there is no Slurm site")
	}
	seen := map[string]bool{}
	for i := range sites {
		s := &sites[i]
		if !siteNames.MatchString(s.Name) || seen[s.Name] {
			return fmt.Errorf("slurm site %d: the name %q is missing, taken or not letters, digits, '.', '_' and '-'", i, s.Name)
		}
		seen[s.Name] = true
		if err := s.check(); err != nil {
			return fmt.Errorf("slurm site %s: %w", s.Name, err)
		}
	}
	return nil
}

// check fills in the defaults.
func (s *Site) check() error {
	for _, p := range []struct{ name, path string }{
		{"directory", s.Directory}, {"bin_dir", s.BinDir}, {"slurm_conf", s.SlurmConf}, {"modules_init", s.ModulesInit},
	} {
		if p.path == "" && p.name != "directory" {
			continue
		}
		if !safePaths.MatchString(p.path) || strings.Contains(p.path+"/", "/../") {
			return fmt.Errorf("%s is an absolute path of letters, digits and _+@=.,- only, not %q", p.name, p.path)
		}
	}
	if s.NodeAddress == "" {
		s.NodeAddress = defaultNode
	}
	if !safeAddress.MatchString(s.NodeAddress) {
		return fmt.Errorf("node_address is a host name that may hold ${node}, not %q", s.NodeAddress)
	}
	if s.FirstPort == 0 && s.LastPort == 0 {
		s.FirstPort, s.LastPort = defaultFirstPort, defaultLastPort
	}
	if s.FirstPort < 1024 || s.LastPort > 65535 || s.LastPort < s.FirstPort {
		return fmt.Errorf("ports are from 1024 to 65535, not from %d to %d", s.FirstPort, s.LastPort)
	}
	if s.Timeout == 0 {
		s.Timeout = domain.Duration(defaultTimeout)
	}
	if s.Timeout < 0 {
		return fmt.Errorf("timeout is positive, not %s", s.Timeout.Std())
	}
	if s.Tunnel && len(s.Hosts) == 0 {
		return errors.New("a tunnel needs hosts to go through")
	}
	for _, h := range s.Hosts {
		if _, err := parseHost(h); err != nil {
			return err
		}
	}
	return nil
}

// nodeHost is where a node is reached.
func (s *Site) nodeHost(node string) string {
	return strings.ReplaceAll(s.NodeAddress, nodePlaceholder, node)
}
