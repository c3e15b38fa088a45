package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// downloadMajor is brought where there is no data that asks for another: the
// version that the tests run on.
const downloadMajor = 15

var downloadable = map[int]embeddedpostgres.PostgresVersion{
	14: embeddedpostgres.V14,
	15: embeddedpostgres.V15,
	16: embeddedpostgres.V16,
	17: embeddedpostgres.V17,
	18: embeddedpostgres.V18,
}

// systemPrograms is where a root's program keeps downloaded programs when its
// data directory is closed to the server's user: a capability lets that user
// pass to its data, but the kernel wants the way to a program itself open.
const systemPrograms = "/var/cache/rrm/postgres-programs"

func programsDir(p places, a account) string {
	if closed, err := a.firstClosed(p.root); err == nil && closed != "" {
		return systemPrograms
	}
	return p.downloads
}

func downloadPlaces(p places) []string {
	return []string{p.downloads + "/*/bin", systemPrograms + "/*/bin"}
}

// download brings the programs of one version into a folder of dir and returns
// where they are. About 10 MB come from repository (empty: Maven Central, where
// the embedded-postgres-binaries of zonky.io are), checked against the
// checksum there, and are unpacked. It is tried in the tests with a repository
// of their own and with one that cannot be reached, not with the real one.
//
// embedded-postgres can only download, initialise and start in one; it neither
// works as root nor on a socket. So it is given a data directory that cannot
// be: it ends after unpacking, before it starts any program.
func download(ctx context.Context, repository, dir string, major int, log *slog.Logger) (string, error) {
	version, ok := downloadable[major]
	if !ok {
		return "", fmt.Errorf("postgres %d cannot be downloaded", major)
	}
	repository = cmp.Or(repository, "https://repo1.maven.org/maven2")
	done, unpacked := filepath.Join(dir, string(version)), filepath.Join(dir, string(version)+".unpacking")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a folder for Postgres: %w", err)
	}
	log.Info("no Postgres programs on this machine: downloading them", "version", string(version), "from", repository, "to", done)
	config := embeddedpostgres.DefaultConfig().
		Version(version).
		BinaryRepositoryURL(repository).
		CachePath(dir).
		RuntimePath(unpacked).
		DataPath(filepath.Join(dir, "no\x00where")).
		Logger(io.Discard)
	result := make(chan error, 1)
	go func() { result <- embeddedpostgres.NewDatabase(config).Start() }()
	var err error
	select {
	case err = <-result:
	case <-ctx.Done():
		// The library cannot be interrupted; what it still unpacks is cleared the next time.
		return "", fmt.Errorf("download Postgres %s from %s: %w", version, repository, ctx.Err())
	}
	if p := (programs{dir: filepath.Join(unpacked, "bin")}); !isFile(p.initdb()) || !isFile(p.postgres()) {
		return "", fmt.Errorf("download Postgres %s from %s: %w", version, repository,
			cmp.Or(err, errors.New("the archive holds no programs")))
	}
	if err := errors.Join(os.RemoveAll(done), os.Rename(unpacked, done)); err != nil {
		return "", fmt.Errorf("unpack Postgres: %w", err)
	}
	return filepath.Join(done, "bin"), nil
}
