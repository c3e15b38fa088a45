package service

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/adapters/launch/static"
)

// addresses says who may register: what the operator allows, or while the
// service is open to everybody on this machine, this machine; never the service itself.
func (s *Service) addresses(listen string) (*static.Addresses, error) {
	a, err := static.NewAddresses(s.cfg.RegisterAllow)
	if err != nil {
		return nil, fmt.Errorf("read the list of what may register: %w", err)
	}
	if a.Own, err = databaseAddresses(s.cfg.DatabaseURL); err != nil {
		return nil, err
	}
	a.Own = append(a.Own, listen)
	a.Loopback = func(ctx context.Context) (bool, error) {
		if !s.Open {
			return false, nil
		}
		made, err := s.Tokens.Any(ctx) // it may be open no more
		return !made, err
	}
	return a, nil
}

// databaseAddresses are host:port of the servers of a DSN; those on Unix sockets have none.
func databaseAddresses(dsn string) ([]string, error) {
	cfg, err := pq.NewConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("find the database's address: %w", err) // it was read before, so that this shows no password
	}
	var out []string
	add := func(host string, port uint16) {
		if host != "" && !strings.HasPrefix(host, "/") && !strings.HasPrefix(host, "@") {
			out = append(out, net.JoinHostPort(host, strconv.Itoa(int(port))))
		}
	}
	one := func(host string, hasAddress bool, address string, port uint16) {
		add(host, port)
		if hasAddress {
			add(address, port)
		}
	}
	one(cfg.Host, cfg.Hostaddr.IsValid(), cfg.Hostaddr.String(), cfg.Port)
	for _, m := range cfg.Multi {
		one(m.Host, m.Hostaddr.IsValid(), m.Hostaddr.String(), m.Port)
	}
	return out, nil
}
