package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// ErrInUse says that another program holds the data directory. A command that
// only wants to talk to that program's server can use Embedded.DSN.
var ErrInUse = errors.New("data directory is in use by another rrm")

// Embedded is a PostgreSQL server of the program's own: it listens on a Unix
// socket only, keeps its data below DataDir and ends with the program.
//
// Started as root it runs its processes as an unprivileged user (the owner of
// the data, else postgres, else nobody), because Postgres refuses root. Whoever may enter
// the socket's directory, which is that user and root, is trusted without a password.
type Embedded struct {
	DataDir string // the program's data directory; the server's is DataDir/postgres
	Log     *slog.Logger

	Binaries       string            // folder with initdb and postgres; empty: $RRM_POSTGRES_BIN, PATH, the usual places, a download
	Repository     string            // where the download comes from; empty: Maven Central
	MaxConnections int               // 100
	Volatile       bool              // for tests only: fast, and a crash of the machine may lose everything
	Settings       map[string]string // further server settings; they go before ours
}

const (
	superuser = "rrm"
	database  = "rrm"

	readyWithin = 2 * time.Minute // the first start; recovery after a crash is part of it
)

// Start brings the server up and returns when it answers: within about 3 s the
// first time (initdb), 1 s later. A server of a killed program that still runs
// on the data is stopped first; what it had acknowledged is there.
//
// Errors: ErrInUse; no binaries and no download; data of another major version;
// a data directory that the server's user cannot reach; the server's own last words.
func (e Embedded) Start(ctx context.Context) (_ *Server, err error) {
	if e.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	places, err := placesOf(e.DataDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(places.root, rootMode()); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockFile(places.lock)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", places.root, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	s := &Server{places: places, lock: lock, log: e.Log, stop: make(chan struct{}), done: make(chan struct{})}
	if err := s.prepare(ctx, e); err != nil {
		return nil, err
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// DSN is where a server of this data directory listens, whether or not one runs.
func (e Embedded) DSN() (string, error) {
	places, err := placesOf(e.DataDir)
	if err != nil {
		return "", err
	}
	return places.dsn(database), nil
}

// prepare does everything that comes before the server's first process: it
// finds the programs, the user, and makes or mends the directories.
func (s *Server) prepare(ctx context.Context, e Embedded) (err error) {
	if s.account, err = chooseAccount(s.data); err != nil {
		return err
	}
	major, err := dataMajor(s.data)
	if err != nil {
		return err
	}
	if s.programs, err = findPrograms(ctx, e, s.places, s.account, major); err != nil {
		return err
	}
	if err := s.account.reach(s.root, s.log); err != nil {
		return err
	}
	if err := stopFormer(ctx, s.data, s.log); err != nil {
		return err
	}
	if err := forgetStrangers(s.places, s.log); err != nil {
		return err
	}
	if err := s.account.takeOver(s.data); err != nil {
		return err
	}
	if major == 0 {
		if err := s.initialise(ctx, e.Volatile); err != nil {
			return err
		}
	}
	if err := s.account.makeSocketDir(s.socket); err != nil {
		return err
	}
	s.args, s.deathSignal = e.serverArgs(s.places), deathSignal(e.Volatile)
	return rotate(s.logFile)
}
