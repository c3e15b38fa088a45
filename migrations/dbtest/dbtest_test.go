package dbtest_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"

	"github.com/rendering-resource-manager/rrm/migrations"
	"github.com/rendering-resource-manager/rrm/migrations/dbtest"
)

// TestMain lets this binary play a test process that is killed.
func TestMain(m *testing.M) {
	if os.Getenv("DBTEST_PLAY") == "victim" {
		s, err := dbtest.StartServer()
		if err != nil {
			println(err.Error())
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString(s.DSN + "\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestEachTestHasItsOwnMigratedDatabase(t *testing.T) {
	a, b := dbtest.New(t), dbtest.New(t)
	version, want, err := migrations.Current(t.Context(), a.DB)
	if err != nil || version != want || want == 0 {
		t.Fatalf("version %d of %d, error %v", version, want, err)
	}
	if _, err := a.Exec(`CREATE TABLE only_here (x int)`); err != nil {
		t.Fatal(err)
	}
	var there bool
	if err := b.Get(&there, `SELECT to_regclass('only_here') IS NOT NULL`); err != nil || there {
		t.Fatalf("a table of one test is seen by another (error %v)", err)
	}
	var first, second string
	if err := errors.Join(a.Get(&first, `SELECT id FROM installation`), b.Get(&second, `SELECT id FROM installation`)); err != nil {
		t.Fatal(err)
	}
	if first == second || len(first) != 32 {
		t.Errorf("two databases are the installations %q and %q", first, second)
	}
}

func TestDatabasesAreDropped(t *testing.T) {
	keep := dbtest.New(t)
	var name string
	t.Run("inner", func(t *testing.T) {
		db := dbtest.New(t)
		if err := db.Get(&name, `SELECT current_database()`); err != nil {
			t.Fatal(err)
		}
	})
	var n int
	if err := keep.Get(&n, `SELECT count(*) FROM pg_database WHERE datname = $1`, name); err != nil || n != 0 {
		t.Fatalf("%d databases %s after their test (error %v)", n, name, err)
	}
}

func TestEmptyHasNoSchema(t *testing.T) {
	db, err := sqlx.Open("postgres", dbtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	version, _, err := migrations.Current(t.Context(), db.DB)
	if err != nil || version != 0 {
		t.Fatalf("version %d, error %v", version, err)
	}
}

// Many processes of `go test ./...` come at once to a server without a template.
func TestTemplateIsMadeOnceByManyProcesses(t *testing.T) {
	if os.Getenv("DBTEST_PLAY") == "one of many" {
		t.Skip("it is the one that plays")
	}
	server, err := dbtest.StartServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestEachTestHasItsOwnMigratedDatabase$")
			cmd.Env = append(os.Environ(), "DBTEST_PLAY=one of many", dbtest.ServerVariable+"="+server.DSN)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
	db, err := sqlx.Open("postgres", server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var names []string
	err = db.Select(&names, `SELECT datname FROM pg_database WHERE datname LIKE 'rrm_t%' ORDER BY 1`)
	if want := "rrm_template_" + migrations.Fingerprint(); err != nil || len(names) != 1 || names[0] != want {
		t.Fatalf("databases left: %q, want %s alone (error %v)", names, want, err)
	}
}

func TestServerEndsWithAKilledProcess(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DBTEST_PLAY=victim")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the victim said %q: %v", line, err)
	}
	dir := strings.TrimSuffix(strings.Split(line, "'")[1], "/run")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the server's directory: %v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return // its last deed
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is still there", dir)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
