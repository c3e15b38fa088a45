package service

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rendering-resource-manager/rrm/adapters/launch/local"
	"github.com/rendering-resource-manager/rrm/adapters/launch/slurm"
	"github.com/rendering-resource-manager/rrm/adapters/launch/static"
	"github.com/rendering-resource-manager/rrm/adapters/launch/unicore"
	"github.com/rendering-resource-manager/rrm/commands/process"
	"github.com/rendering-resource-manager/rrm/domain"
)

// openLaunchers sets up the ways to start resources: processes of this machine
// and machines that come by themselves always, a Slurm or a UNICORE site where one was named.
func (s *Service) openLaunchers(ctx context.Context) error {
	installation, err := s.Work.Installation(ctx)
	if err != nil {
		return err
	}
	processes, err := local.New(local.Options{
		Dir: filepath.Join(s.cfg.DataDir, "resources"), Service: installation, BinDirs: binDirs(), Logger: s.cfg.Log,
	})
	if err != nil {
		return err
	}
	s.launchers = map[string]process.Launcher{
		domain.LauncherLocal: processes, domain.LauncherStatic: static.New(s.Beats, s.cfg.HeartbeatEvery),
	}
	if s.cfg.SlurmSites != "" {
		if err := s.openSlurm(installation); err != nil {
			return err
		}
	}
	if s.cfg.UnicoreSite != "" {
		return s.openUnicore(installation)
	}
	return nil
}

func (s *Service) openSlurm(installation string) error {
	sites, err := slurm.ReadSites(s.cfg.SlurmSites)
	if err != nil {
		return err
	}
	l, err := slurm.New(slurm.Options{Service: installation, Sites: sites, Logger: s.cfg.Log})
	if err != nil {
		return err
	}
	s.launchers[domain.LauncherSlurm] = l
	s.closers = append(s.closers, func() { _ = l.Close() })
	return nil
}

// unicoreFile is what the file of a UNICORE site says; see unicore.Options for each.
type unicoreFile struct {
	Site                     string             `json:"site"`
	Registry                 string             `json:"registry"`
	SiteName                 string             `json:"site_name"`
	Hosts                    []string           `json:"hosts"`
	TokenFile                string             `json:"token_file"`
	TokenEnv                 string             `json:"token_env"`
	CAFile                   string             `json:"ca_file"`
	DangerouslySkipTLSVerify bool               `json:"dangerously_skip_tls_verify"`
	Imports                  []unicore.Transfer `json:"imports"`
	Exports                  []unicore.Transfer `json:"exports"`
	ListenHost               string             `json:"listen_host"`
	FirstPort                int                `json:"first_port"`
	LastPort                 int                `json:"last_port"`
}

func (s *Service) openUnicore(installation string) error {
	raw, err := os.ReadFile(s.cfg.UnicoreSite)
	if err != nil {
		return fmt.Errorf("read UNICORE site: %w", err)
	}
	var f unicoreFile
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return fmt.Errorf("read UNICORE site from %s: %w", s.cfg.UnicoreSite, err)
	}
	s.credentials = newCredentials(s.Reader.Resource)
	l, err := unicore.New(unicore.Options{
		Site: f.Site, Registry: f.Registry, SiteName: f.SiteName, Hosts: f.Hosts, Service: installation,
		TokenFile: f.TokenFile, TokenEnv: f.TokenEnv, CAFile: f.CAFile, DangerouslySkipTLSVerify: f.DangerouslySkipTLSVerify,
		Token: s.credentials.token, Imports: f.Imports, Exports: f.Exports, ListenHost: f.ListenHost, FirstPort: f.FirstPort, LastPort: f.LastPort, Logger: s.cfg.Log,
	})
	if err != nil {
		return err
	}
	s.launchers[domain.LauncherUnicore] = l
	s.closers = append(s.closers, l.Close)
	return nil
}
