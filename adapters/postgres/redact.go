package postgres

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// parse reads a DSN. Its error says nothing of the text that it read: a
// password with a stray '/' or '@' in it is exactly what makes a DSN unreadable,
// and the parsers' messages quote it.
func parse(dsn string) (pq.Config, error) {
	cfg, err := pq.NewConfig(dsn)
	if err == nil {
		return cfg, nil
	}
	var badURL *url.Error
	isURL := strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
	switch {
	case strings.TrimSpace(dsn) == "":
		return cfg, errors.New("read database address: it is empty")
	case errors.As(err, &badURL):
		return cfg, errors.New("read database address: not a valid postgres:// URL; " +
			"characters such as @ / : # ? % in a user name or password must be percent-encoded")
	case isURL:
		return cfg, errors.New("read database address: a setting of the postgres:// URL is not valid, " +
			"see https://www.postgresql.org/docs/current/libpq-connect.html")
	default:
		return cfg, errors.New("read database address: neither a postgres:// URL nor a list of key=value pairs such as " +
			`"host=db.example user=rrm dbname=rrm"`)
	}
}

// Redact describes the server of a DSN for logs and people: host, port, user,
// database and sslmode, and never a password or another setting.
func Redact(dsn string) string {
	cfg, err := parse(dsn)
	if err != nil {
		return "(unreadable database address)"
	}
	return describe(cfg)
}

func describe(cfg pq.Config) string {
	hosts := []string{hostPort(cfg.Host, cfg.Hostaddr.IsValid(), cfg.Hostaddr.String(), cfg.Port)}
	for _, m := range cfg.Multi {
		hosts = append(hosts, hostPort(m.Host, m.Hostaddr.IsValid(), m.Hostaddr.String(), m.Port))
	}
	s := fmt.Sprintf("host=%s user=%s dbname=%s", strings.Join(hosts, ","), cfg.User, cfg.Database)
	if cfg.SSLMode != "" {
		s += " sslmode=" + string(cfg.SSLMode)
	}
	if cfg.Password != "" {
		s = strings.ReplaceAll(s, cfg.Password, "***")
	}
	return s
}

func hostPort(host string, hasAddr bool, addr string, port uint16) string {
	if host == "" && hasAddr {
		host = addr
	}
	if strings.HasPrefix(host, "/") || port == 0 {
		return host
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(port))
}

// withoutSecret returns err unless its text holds the secret; then an error
// with the secret struck out, which wraps nothing, because what it would wrap
// could be printed.
func withoutSecret(err error, secret string) error {
	if err == nil || secret == "" || !strings.Contains(err.Error(), secret) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), secret, "***"))
}
