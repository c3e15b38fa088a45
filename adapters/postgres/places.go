package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// places are the paths of an embedded server.
type places struct {
	root      string // the program's data directory, absolute
	data      string // what Postgres calls its data directory
	unborn    string // where initdb works, until it is done
	lock      string
	logFile   string
	downloads string // downloaded programs, one folder for each version
	socket    string // directory of the socket
}

const (
	port         = "5432"     // part of the socket's name, nothing listens on a network
	socketLimit  = 100        // sun_path holds 104 bytes (BSD, macOS) to 108 (Linux) with a final zero
	maxLogBytes  = int64(5e6) // of postgres.log, before it is put aside at the next start
	socketSuffix = "/.s.PGSQL." + port
)

func placesOf(dataDir string) (places, error) {
	if dataDir == "" {
		return places{}, errors.New("embedded Postgres: no data directory given")
	}
	root, err := filepath.Abs(dataDir)
	if err != nil {
		return places{}, fmt.Errorf("embedded Postgres: data directory: %w", err)
	}
	return places{
		root:      root,
		data:      filepath.Join(root, "postgres"),
		unborn:    filepath.Join(root, "postgres.init"),
		lock:      filepath.Join(root, "postgres.lock"),
		logFile:   filepath.Join(root, "postgres.log"),
		downloads: filepath.Join(root, "postgres-programs"),
		socket:    socketDir(root),
	}, nil
}

// socketDir lies in the data directory, unless the socket's path would be too
// long for the system or hold a comma, which in a DSN separates hosts. Then it
// is a directory for temporary files with a name made from the data directory's,
// the same for every program that looks for this server.
func socketDir(root string) string {
	dir := filepath.Join(root, "run")
	if len(dir+socketSuffix) <= socketLimit && !strings.Contains(dir, ",") {
		return dir
	}
	sum := sha256.Sum256([]byte(root))
	name := "rrm-" + hex.EncodeToString(sum[:6])
	dir = filepath.Join(os.TempDir(), name)
	if len(dir+socketSuffix) <= socketLimit && filepath.IsAbs(dir) && !strings.Contains(dir, ",") {
		return dir
	}
	return filepath.Join("/tmp", name)
}

// dsn names every setting that a PG* variable of the environment could bend.
func (p places) dsn(name string) string {
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=disable", quote(p.socket), port, superuser, quote(name))
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// rootMode: the server of a root's program is another user, who must be able to
// pass through the data directory, not to list it.
func rootMode() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// lockFile takes the lock that one program at a time has on a data directory.
// The system gives it back when the file is closed or the program dies.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		holder := make([]byte, 20)
		n, _ := f.Read(holder)
		return nil, fmt.Errorf("%w (process %s); stop it or choose another data directory",
			ErrInUse, strings.TrimSpace(string(holder[:n])))
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
		}
	}
	return f, nil
}

// serverArgs: what an operator put into postgresql.conf by hand does not turn
// durability off or the network on, because the command line goes before it.
func (e Embedded) serverArgs(p places) []string {
	settings := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": p.socket,
		"unix_socket_permissions": "0700",
		"port":                    port,
		"cluster_name":            "rrm",
		"max_connections":         "100",
		"shared_buffers":          "128MB",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"log_destination":         "stderr",
		"logging_collector":       "off",
		"log_checkpoints":         "off",
		// The clients' own errors go to the clients; a refusal that is repeated
		// must not fill the disk.
		"log_min_messages":   "log",
		"fsync":              "on",
		"full_page_writes":   "on",
		"synchronous_commit": "on",
	}
	if e.MaxConnections > 0 {
		settings["max_connections"] = strconv.Itoa(e.MaxConnections)
	}
	if e.Volatile {
		settings["fsync"], settings["full_page_writes"], settings["synchronous_commit"] = "off", "off", "off"
	}
	for name, value := range e.Settings {
		settings[name] = value
	}
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	args := []string{"-D", p.data}
	for _, name := range names {
		value := settings[name]
		if name == "unix_socket_directories" && value == p.socket {
			// A list of names, so one with a space or comma needs its quotes.
			value = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
		}
		args = append(args, "-c", name+"="+value)
	}
	return args
}

// rotate keeps the server's log from growing over the years: one old file beside the new.
func rotate(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() < maxLogBytes {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rotate server log: %w", err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		return fmt.Errorf("rotate server log: %w", err)
	}
	return nil
}
