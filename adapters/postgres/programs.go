package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// programs are the executables of one installed Postgres.
type programs struct {
	dir   string
	major int
	full  string // as the program says it: "15.14"
}

func (p programs) initdb() string   { return filepath.Join(p.dir, "initdb") }
func (p programs) postgres() string { return filepath.Join(p.dir, "postgres") }

// oldestMajor is what lib/pq can talk to.
const oldestMajor = 14

const howToInstall = "install PostgreSQL 14 or newer (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; " +
	"macOS: brew install postgresql@17), or set RRM_POSTGRES_BIN to the folder that holds its initdb and postgres, " +
	"or RRM_DATABASE_URL to a server that runs"

// usualPlaces are where packages put the programs without putting them on the PATH.
var usualPlaces = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // packages of postgresql.org for Red Hat and its kin
	"/usr/lib64/postgresql*/bin",
	"/usr/libexec/postgresql*", // Alpine
	"/opt/homebrew/opt/postgresql@*/bin",
	"/opt/homebrew/opt/postgresql/bin",
	"/usr/local/opt/postgresql@*/bin",
	"/usr/local/pgsql/bin", // built from source
	"/usr/local/pgsql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// findPrograms finds the programs for data of the given major version, or the
// first and newest if there is no data yet (major 0). Only if none at all are
// found are they downloaded.
func findPrograms(ctx context.Context, e Embedded, p places, a account, major int) (programs, error) {
	explicit := cmp.Or(e.Binaries, os.Getenv("RRM_POSTGRES_BIN"))
	if explicit != "" {
		found, err := explicitPrograms(ctx, explicit)
		if err != nil {
			return programs{}, err
		}
		return choose([]programs{found}, major, p.data)
	}
	var found []programs
	for _, dir := range candidates(append([]string{os.Getenv("PATH")}, downloadPlaces(p)...)) {
		if c, err := inspect(ctx, dir); err == nil && c.major >= oldestMajor {
			found = append(found, c)
		}
	}
	if len(found) > 0 {
		return choose(found, major, p.data)
	}
	dir, err := download(ctx, e.Repository, programsDir(p, a), cmp.Or(major, downloadMajor), e.Log)
	if err != nil {
		return programs{}, fmt.Errorf("no Postgres programs on this machine, and the download failed: %w; %s", err, howToInstall)
	}
	return inspect(ctx, dir)
}

func explicitPrograms(ctx context.Context, dir string) (programs, error) {
	for _, d := range []string{dir, filepath.Join(dir, "bin")} {
		c, err := inspect(ctx, d)
		if err == nil && c.major < oldestMajor {
			return programs{}, fmt.Errorf("RRM_POSTGRES_BIN names Postgres %s in %s, which is too old: %s", c.full, d, howToInstall)
		}
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, errNoPrograms) {
			return programs{}, fmt.Errorf("RRM_POSTGRES_BIN: %w", err)
		}
	}
	return programs{}, fmt.Errorf("RRM_POSTGRES_BIN is %s, which does not hold initdb and postgres", dir)
}

// choose takes the programs that can read the data.
func choose(found []programs, major int, data string) (programs, error) {
	if major == 0 {
		return found[0], nil
	}
	var have []string
	for _, c := range found {
		if c.major == major {
			return c, nil
		}
		have = append(have, fmt.Sprintf("%s in %s", c.full, c.dir))
	}
	return programs{}, fmt.Errorf("the data in %s was made by Postgres %d, but the programs here are Postgres %s: "+
		"install Postgres %d, or upgrade the data with pg_upgrade", data, major, strings.Join(have, ", "), major)
}

// candidates: PATH (the first of lists, which separates as PATH does) goes
// first, then the usual places with the newest version first, then what was
// downloaded before. Each folder once.
func candidates(lists []string) []string {
	var dirs []string
	add := func(dir string) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range filepath.SplitList(lists[0]) {
		if program := filepath.Join(dir, "postgres"); isFile(program) {
			if real, err := filepath.EvalSymlinks(program); err == nil {
				program = real // a link in a folder of links; the others are beside what it points to
			}
			add(filepath.Dir(program))
		}
	}
	for _, dir := range newestFirst(usualPlaces) {
		add(dir)
	}
	for _, dir := range newestFirst(lists[1:]) {
		add(dir)
	}
	return dirs
}

var firstNumber = regexp.MustCompile(`\d+(\.\d+)*`)

// newestFirst sorts by the version in the path as numbers: 9.6 is older than 15.
func newestFirst(patterns []string) []string {
	var dirs []string
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern) // the patterns are well formed
		dirs = append(dirs, matches...)
	}
	slices.SortStableFunc(dirs, func(a, b string) int {
		return slices.Compare(versionNumbers(b), versionNumbers(a))
	})
	return dirs
}

// versionNumbers reads the last version in a path, because a home directory can
// have digits in its name too.
func versionNumbers(path string) []int {
	all := firstNumber.FindAllString(path, -1)
	if len(all) == 0 {
		return nil
	}
	var numbers []int
	for part := range strings.SplitSeq(all[len(all)-1], ".") {
		n, _ := strconv.Atoi(part) // digits; too many of them is 0
		numbers = append(numbers, n)
	}
	return numbers
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

var (
	errNoPrograms = errors.New("no initdb and postgres here")
	versionLine   = regexp.MustCompile(`\(PostgreSQL\) (\d+)[^ \n]*`)
)

// inspect asks the programs of a folder for their version.
func inspect(ctx context.Context, dir string) (programs, error) {
	p := programs{dir: dir}
	if !isFile(p.initdb()) || !isFile(p.postgres()) {
		return p, fmt.Errorf("%s: %w", dir, errNoPrograms)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, p.postgres(), "--version").CombinedOutput()
	if err != nil {
		return p, fmt.Errorf("%s --version: %w %s", p.postgres(), err, lastLines(out, 3))
	}
	m := versionLine.FindStringSubmatch(string(out))
	if m == nil {
		return p, fmt.Errorf("%s --version says %q, which no Postgres says", p.postgres(), lastLines(out, 1))
	}
	p.full = strings.TrimPrefix(m[0], "(PostgreSQL) ")
	p.major, err = strconv.Atoi(m[1])
	return p, err
}
