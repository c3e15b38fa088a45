package postgres

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// fakePrograms makes a folder with programs that say that they are the version.
func fakePrograms(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"postgres": "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + " (Test 1)'\n",
		"initdb":   "#!/bin/sh\nexit 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func usualPlacesAre(t *testing.T, patterns ...string) {
	t.Helper()
	before := usualPlaces
	usualPlaces = patterns
	t.Cleanup(func() { usualPlaces = before })
}

func TestNewestProgramsAreFoundByNumber(t *testing.T) {
	root := t.TempDir()
	for _, v := range []string{"9.6", "15", "14", "100"} {
		fakePrograms(t, filepath.Join(root, "pg2000", v, "bin"), v+".1")
	}
	usualPlacesAre(t, filepath.Join(root, "pg2000", "*", "bin"))
	t.Setenv("RRM_POSTGRES_BIN", "")
	t.Setenv("PATH", "/nowhere")
	p := mustPlaces(t, t.TempDir())
	for _, c := range []struct {
		major int
		want  string
	}{{0, "100.1"}, {14, "14.1"}, {15, "15.1"}} {
		got, err := findPrograms(t.Context(), Embedded{Log: quiet()}, p, account{}, c.major)
		if err != nil || got.full != c.want {
			t.Errorf("for data of %d: found %q, want %q (error %v)", c.major, got.full, c.want, err)
		}
	}
}

func TestProgramsOnThePathGoFirst(t *testing.T) {
	root := t.TempDir()
	fakePrograms(t, filepath.Join(root, "usual", "17", "bin"), "17.1")
	real := fakePrograms(t, filepath.Join(root, "kept", "bin"), "16.2")
	links := filepath.Join(root, "links")
	if err := os.Mkdir(links, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(real, "postgres"), filepath.Join(links, "postgres")); err != nil {
		t.Fatal(err)
	}
	usualPlacesAre(t, filepath.Join(root, "usual", "*", "bin"))
	t.Setenv("RRM_POSTGRES_BIN", "")
	t.Setenv("PATH", "/nowhere:"+links)
	got, err := findPrograms(t.Context(), Embedded{Log: quiet()}, mustPlaces(t, root), account{}, 0)
	if err != nil || got.full != "16.2" || !strings.HasSuffix(got.dir, "kept/bin") {
		t.Errorf("found %+v, error %v", got, err)
	}
}

func TestProgramsThatDoNotFit(t *testing.T) {
	root := t.TempDir()
	p := mustPlaces(t, root)
	old := fakePrograms(t, filepath.Join(root, "old"), "13.9")
	fifteen := fakePrograms(t, filepath.Join(root, "fifteen", "bin"), "15.3")
	for name, c := range map[string]struct {
		bin   string
		major int
		want  []string
	}{
		"another major version": {fifteen, 14, []string{p.data, "made by Postgres 14", "15.3 in " + fifteen, "install Postgres 14"}},
		"too old":               {old, 0, []string{"13.9", "too old"}},
		"not there":             {filepath.Join(root, "nothing"), 0, []string{"RRM_POSTGRES_BIN is " + filepath.Join(root, "nothing")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("RRM_POSTGRES_BIN", c.bin)
			_, err := findPrograms(t.Context(), Embedded{Log: quiet()}, p, account{}, c.major)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	t.Setenv("RRM_POSTGRES_BIN", filepath.Dir(fifteen)) // the folder above will do
	if got, err := findPrograms(t.Context(), Embedded{Log: quiet()}, p, account{}, 15); err != nil || got.major != 15 {
		t.Errorf("found %+v, error %v", got, err)
	}
}

func TestDataOfAnotherVersionIsNamed(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "postgres")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("12\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Embedded{DataDir: dir}.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "made by Postgres 12") || !strings.Contains(err.Error(), "programs here are Postgres ") {
		t.Errorf("error %v", err)
	}
}

func TestStrangersDataIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "postgres", "precious")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Embedded{DataDir: dir}.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// repository serves one version as Maven Central does.
func repository(t *testing.T, spoilChecksum bool) *httptest.Server {
	t.Helper()
	inner, err := os.ReadFile("testdata/programs.txz")
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	w, err := z.Create("postgres-test.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(inner); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(jar.Bytes())
	if spoilChecksum {
		sum[0]++
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "15.13.0.jar"):
			_, _ = w.Write(jar.Bytes())
		case strings.HasSuffix(r.URL.Path, "15.13.0.jar.sha256"):
			_, _ = fmt.Fprint(w, hex.EncodeToString(sum[:]))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func TestProgramsAreDownloadedWhereThereAreNone(t *testing.T) {
	usualPlacesAre(t)
	t.Setenv("RRM_POSTGRES_BIN", "")
	t.Setenv("PATH", "/nowhere")
	p := mustPlaces(t, t.TempDir())
	server := repository(t, false)
	got, err := findPrograms(t.Context(), Embedded{Repository: server.URL, Log: quiet()}, p, account{}, 0)
	if err != nil || got.full != "15.13" || !strings.HasPrefix(got.dir, p.downloads) {
		t.Fatalf("brought %+v, error %v", got, err)
	}
	server.Close() // and the next start needs no network
	again, err := findPrograms(t.Context(), Embedded{Repository: server.URL, Log: quiet()}, p, account{}, 15)
	if err != nil || again != got {
		t.Errorf("found %+v, error %v", again, err)
	}
}

func TestFailedDownloadSaysWhatToInstall(t *testing.T) {
	usualPlacesAre(t)
	t.Setenv("RRM_POSTGRES_BIN", "")
	t.Setenv("PATH", "/nowhere")
	gone := repository(t, false)
	gone.Close()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		url   string
		major int
	}{
		"no network":     {t.Context(), gone.URL, 0},
		"bad checksum":   {t.Context(), repository(t, true).URL, 0},
		"not there":      {t.Context(), repository(t, false).URL, 16},
		"no such":        {t.Context(), gone.URL, 77},
		"given up early": {canceled, gone.URL, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustPlaces(t, t.TempDir())
			_, err := findPrograms(c.ctx, Embedded{Repository: c.url, Log: quiet()}, p, account{}, c.major)
			for _, want := range []string{"no Postgres programs on this machine", "apt-get install postgresql", "RRM_POSTGRES_BIN", "RRM_DATABASE_URL"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if found, _ := filepath.Glob(filepath.Join(p.downloads, "*", "bin")); len(found) > 0 {
				t.Errorf("left %q", found)
			}
		})
	}
}

func mustPlaces(t *testing.T, dir string) places {
	t.Helper()
	p, err := placesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSocketPathIsShortEnough(t *testing.T) {
	short := mustPlaces(t, "/data").socket
	if short != "/data/run" {
		t.Errorf("socket of a short path in %s", short)
	}
	a := mustPlaces(t, "/"+strings.Repeat("a", 200)).socket
	b := mustPlaces(t, "/"+strings.Repeat("b", 200)).socket
	comma := mustPlaces(t, "/a,b").socket
	for _, s := range []string{a, b, comma} {
		if len(s+socketSuffix) > socketLimit || strings.Contains(s, ",") {
			t.Errorf("socket in %s", s)
		}
	}
	if a == b || a == comma {
		t.Errorf("two data directories share %s", a)
	}
}

// A directory for sockets that somebody else made, to listen in the server's place.
func TestSquattedSocketDirectoryIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a file of another user")
	}
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	a := account{uid: 54321, gid: 54321, switched: true}
	if err := a.makeSocketDir(dir); err == nil {
		t.Error("taken")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := a.makeSocketDir(link); err == nil {
		t.Error("a link was followed")
	}
}

func TestAccountFindsTheClosedDirectory(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(root, "closed", "deep")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	a := account{uid: 54321, gid: 54321, switched: true}
	if got, err := a.firstClosed(deep); err != nil || got != "" {
		t.Errorf("closed %q, error %v", got, err)
	}
	if err := os.Chmod(filepath.Join(root, "closed"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := a.firstClosed(deep); err != nil || filepath.Base(got) != "closed" {
		t.Errorf("closed %q, error %v", got, err)
	}
	own := account{uid: uint32(os.Geteuid()), switched: true}
	if got, err := own.firstClosed(deep); err != nil || got != "" {
		t.Errorf("closed to its owner %q, error %v", got, err)
	}
}

func TestVersionNumbersInPaths(t *testing.T) {
	for path, want := range map[string][]int{
		"/usr/lib/postgresql/15/bin":     {15},
		"/home/user2/postgresql@9.6/bin": {9, 6},
		"/x/15.13.0/bin":                 {15, 13, 0},
		"/usr/local/pgsql/bin":           nil,
	} {
		if got := versionNumbers(path); !slices.Equal(got, want) {
			t.Errorf("%s is version %v, want %v", path, got, want)
		}
	}
}
