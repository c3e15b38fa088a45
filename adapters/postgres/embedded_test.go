package postgres_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/adapters/postgres"
)

const playVariable = "POSTGRES_TEST_PLAY"

// TestMain lets this binary play a program with an embedded server, to be killed:
// it writes rows, and says each number after its commit was acknowledged.
func TestMain(m *testing.M) {
	if dir := os.Getenv(playVariable); dir != "" {
		fmt.Println("error:", play(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func play(dir string) error {
	s, err := postgres.Embedded{DataDir: dir}.Start(context.Background())
	if err != nil {
		return err
	}
	db, err := postgres.Open(context.Background(), s.DSN(), postgres.Options{})
	if err != nil {
		return err
	}
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS acknowledged (n int PRIMARY KEY)`); err != nil {
		return err
	}
	fmt.Println("pid", s.PID())
	for n := 1; ; n++ {
		if _, err := db.Exec(`INSERT INTO acknowledged VALUES ($1)`, n); err != nil {
			return err
		}
		fmt.Println("row", n)
	}
}

func embedded(t *testing.T, dir string) postgres.Embedded {
	t.Helper()
	return postgres.Embedded{DataDir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// quick is embedded without syncs, for what is not about keeping data.
func quick(t *testing.T, dir string) postgres.Embedded {
	e := embedded(t, dir)
	e.Volatile = true
	return e
}

func start(t *testing.T, e postgres.Embedded) *postgres.Server {
	t.Helper()
	s, err := e.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *postgres.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// until polls a condition; it is the only way these tests wait.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("in vain waited until %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// gone is also true of a dead process that nobody collects.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, after, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(after, "Z")
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// openDir is a directory that every user may pass through, unlike t.TempDir.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rrm-pg-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), dsn, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db.DB
}

func TestServerComesBackAfterItsProcessIsKilled(t *testing.T) {
	s := start(t, embedded(t, t.TempDir()))
	db := open(t, s.DSN())
	if _, err := db.Exec(`CREATE TABLE kept (n int)`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO kept VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	// A backend that is busy without looking up does not see that its server
	// died, and holds the shared memory that the next one needs.
	busy := make(chan error, 1)
	go func() {
		_, err := db.Exec(`SELECT count(*) FROM generate_series(1, 3000000000) g WHERE g % 2 = 3`)
		busy <- err
	}()
	until(t, "the busy backend works", func() bool {
		var n int
		err := db.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND state = 'active' AND pid <> pg_backend_pid()`).Scan(&n)
		return err == nil && n == 1
	})
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	var n int
	until(t, "it answers again", func() bool { return s.Restarts() > 0 && db.QueryRow(`SELECT n FROM kept`).Scan(&n) == nil })
	t.Logf("back after %v", time.Since(killed))
	// About 1 s, or 5 s on a machine with ten times too much to do, where it may
	// also take a second try. Waiting for the busy backend would take minutes, or
	// 30 s until it is given up.
	if took := time.Since(killed); took > 15*time.Second {
		t.Errorf("it took %v and %d restarts to come back", took, s.Restarts())
	}
	if n != 1 {
		t.Errorf("the row is %d, want 1", n)
	}
	if err := <-busy; err == nil {
		t.Error("the busy backend outlived its server")
	}
}

// The program is killed, sometimes with its server, sometimes alone, and a new
// one starts at once on the same data.
func TestAcknowledgedRowsAreThereAfterTheProgramIsKilled(t *testing.T) {
	for _, alsoServer := range []bool{false, true} {
		t.Run(fmt.Sprintf("server too %v", alsoServer), func(t *testing.T) {
			dir := t.TempDir()
			acknowledged, server := killPlayer(t, dir, alsoServer)
			s := start(t, embedded(t, dir))
			var n int
			if err := open(t, s.DSN()).QueryRow(`SELECT count(*) FROM acknowledged WHERE n <= $1`, acknowledged).Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != acknowledged {
				t.Errorf("%d of %d acknowledged rows", n, acknowledged)
			}
			if !gone(server) {
				t.Errorf("the former server, process %d, still runs", server)
			}
		})
	}
}

// killPlayer runs a program with a server until it has written some rows, and
// kills it. It returns how many rows were acknowledged, and the server's process.
func killPlayer(t *testing.T, dir string, alsoServer bool) (acknowledged, server int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), playVariable+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word, value, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(value)
		switch {
		case err != nil && !killed:
			_ = cmd.Process.Kill()
			t.Fatalf("the player said %q", lines.Text())
		case err != nil:
		case word == "pid":
			server = n
		default:
			acknowledged = n
		}
		if acknowledged >= 50 && !killed {
			killed = true
			if alsoServer {
				_ = syscall.Kill(server, syscall.SIGKILL)
			}
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	return acknowledged, server
}

// Where the kernel does not end a server with its program (any system but
// Linux), the next start has to. Here the server of a killed program is made one
// that no signal of its parent reached, by starting it by hand.
func TestServerLeftRunningIsStoppedFirst(t *testing.T) {
	dir := openDir(t)
	s := start(t, quick(t, dir))
	db := open(t, s.DSN())
	if _, err := db.Exec(`CREATE TABLE kept AS SELECT 7 AS n`); err != nil {
		t.Fatal(err)
	}
	args := commandLine(t, s.PID())
	stop(t, s)
	orphan := runServer(t, dir, args)
	until(t, "the orphan answers", func() bool { return db.Ping() == nil })

	s = start(t, quick(t, dir))
	if err := orphan.Wait(); err != nil {
		t.Errorf("the orphan did not shut down in order: %v", err)
	}
	var n int
	if err := open(t, s.DSN()).QueryRow(`SELECT n FROM kept`).Scan(&n); err != nil || n != 7 {
		t.Errorf("row %d, error %v", n, err)
	}
}

func commandLine(t *testing.T, pid int) []string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Skip("needs /proc to read the server's command line")
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

func runServer(t *testing.T, dir string, args []string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = asOwnerOf(t, filepath.Join(dir, "postgres"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

func asOwnerOf(t *testing.T, path string) *syscall.SysProcAttr {
	t.Helper()
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() != 0 {
		return attr
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	attr.Credential = &syscall.Credential{Uid: st.Uid, Gid: st.Gid}
	return attr
}

// After a restart of a machine or container the number in postmaster.pid can be
// any program's. That one must not be harmed, and the server must start.
func TestProcessIDOfAStranger(t *testing.T) {
	dir := t.TempDir()
	s := start(t, quick(t, dir))
	stop(t, s)
	stranger := exec.Command("sleep", "60")
	stranger.SysProcAttr = asOwnerOf(t, filepath.Join(dir, "postgres"))
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	text := fmt.Sprintf("%d\n%s\n1600000000\n5432\n\n\n", stranger.Process.Pid, filepath.Join(dir, "postgres"))
	if err := os.WriteFile(filepath.Join(dir, "postgres", "postmaster.pid"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, quick(t, dir))
	if gone(stranger.Process.Pid) {
		t.Error("the stranger was ended")
	}
}

func TestTwoProgramsOnOneDirectory(t *testing.T) {
	dir := t.TempDir()
	s := start(t, quick(t, dir))
	_, err := quick(t, dir).Start(t.Context())
	if !errors.Is(err, postgres.ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("the second start: %v", err)
	}
	dsn, err := quick(t, dir).DSN()
	if err != nil || dsn != s.DSN() {
		t.Errorf("DSN without a start is %q, want %q (error %v)", dsn, s.DSN(), err)
	}
	open(t, dsn)
	stop(t, s)
	start(t, quick(t, dir)) // free again
}

func TestLongAndStrangePath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long ", 20)+"and, 'strange\" path", strings.Repeat("x", 100))
	s := start(t, quick(t, dir))
	var n int
	if err := open(t, s.DSN()).QueryRow(`SELECT 1`).Scan(&n); err != nil {
		t.Error(err)
	}
}

// initdb was killed in the middle: it left its workplace, and no data.
func TestUnfinishedInitIsBegunAgain(t *testing.T) {
	dir := t.TempDir()
	unborn := filepath.Join(dir, "postgres.init")
	if err := os.MkdirAll(filepath.Join(unborn, "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(unborn, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, quick(t, dir))
	open(t, s.DSN())
	if _, err := os.Stat(unborn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the workplace is still there (error %v)", err)
	}
}

func TestSettingsAreDurable(t *testing.T) {
	s := start(t, embedded(t, t.TempDir()))
	db := open(t, s.DSN())
	for name, want := range map[string]string{
		"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "listen_addresses": "",
	} {
		var got string
		if err := db.QueryRow(`SELECT current_setting($1)`, name).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, want %q (error %v)", name, got, want, err)
		}
	}
}
