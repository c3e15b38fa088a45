package slurm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Whatever a text is made of, bash reads it as one word, unchanged.
func TestQuotedTextIsReadAsItIs(t *testing.T) {
	t.Parallel()
	const seed = 20
	random := rand.New(rand.NewPCG(seed, seed))
	alphabet := []rune("ab $`\"'\\\n\r\t\x01\x1b\x7f!*?[]{}();&|<>#~=%^é模0123456789x")
	texts := []string{"", "'", "''", "\\", "$'", "\r\n", "#SBATCH --nodes=99", "a\n#SBATCH --nodes=99", "\x7f7", "\x011"}
	for range 300 {
		var b strings.Builder
		for range random.IntN(12) {
			b.WriteRune(alphabet[random.IntN(len(alphabet))])
		}
		texts = append(texts, b.String())
	}
	var script strings.Builder
	for _, text := range texts {
		if strings.ContainsAny(quote(text), "\n\r") {
			t.Errorf("%q has a new line of its own when quoted", text)
		}
		fmt.Fprintf(&script, "printf '%%s\\0' %s\n", quote(text))
	}
	cmd := exec.Command("bash")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := strings.Split(string(out), "\x00")
	if len(got) != len(texts)+1 {
		t.Fatalf("%d words of %d", len(got)-1, len(texts))
	}
	for i, text := range texts {
		if got[i] != text {
			t.Errorf("%q is read as %q", text, got[i])
		}
	}
}

func testLauncher(t *testing.T, change func(*Site)) (*Launcher, *Site) {
	t.Helper()
	site := Site{Name: "s", Directory: "/shared", NodeAddress: "127.0.0.1"}
	if change != nil {
		change(&site)
	}
	l, err := New(Options{Service: "svc", Sites: []Site{site}})
	if err != nil {
		t.Fatal(err)
	}
	return l, &l.sites[0].Site
}

// node runs a batch script as a node would, with a scontrol that only notes what it is told.
func node(t *testing.T, script string, env ...string) (stdout, stderr string, status int) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "scontrol"), []byte("#!/bin/sh\necho \"$@\" >> "+dir+"/told\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash")
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + dir + ":/usr/bin:/bin", "SLURM_JOB_ID=7", "SLURMD_NODENAME=n1"}, env...)
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(script, "for rrm_pause in 0 20", "for rrm_pause in 0"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestScriptBecomesTheRenderer(t *testing.T) {
	t.Parallel()
	l, site := testLauncher(t, nil)
	sub, err := l.submission(domain.LaunchSpec{Resource: "r", Model: "it's; a $(model)", Renderer: domain.Renderer{
		ID: "x", CommandLine: `printf %s\n`, SchedulerFormat: "${rest_hostname}:${rest_port} ${model} ${rest_schema} ${job_id} '' $A",
	}}, site)
	if err != nil {
		t.Fatal(err)
	}
	out, errs, status := node(t, sub.script)
	port := 20000 + 7*7
	want := fmt.Sprintf("127.0.0.1:%d\nit's; a $(model)\nrestxr\n7\n\n$A\n", port)
	if out != want || status != 0 {
		t.Errorf("it says %q, want %q; %s", out, want, errs)
	}
	if strings.Join(sub.args, " ") == "" || sub.name != "rrm.svc.r" {
		t.Errorf("%q %q", sub.name, sub.args)
	}
	for _, want := range []string{"--no-requeue", "--dependency=singleton", "--job-name=rrm.svc.r", "--output=/shared/rrm.svc/r/stdout"} {
		if !strings.Contains(" "+strings.Join(sub.args, " ")+" ", " "+want+" ") {
			t.Errorf("sbatch is not given %s", want)
		}
	}
}

// A script that lost its end on the way must not do half of what it should.
func TestScriptCutShortDoesNothing(t *testing.T) {
	t.Parallel()
	l, site := testLauncher(t, nil)
	sub, err := l.submission(domain.LaunchSpec{Resource: "r", Renderer: domain.Renderer{ID: "x", CommandLine: "echo started"}}, site)
	if err != nil {
		t.Fatal(err)
	}
	whole := len(sub.script) - len("rrm_main\n")
	for cut := 0; cut <= whole; cut += 1 + whole/60 {
		if out, _, _ := node(t, sub.script[:cut]); out != "" {
			t.Fatalf("cut after %d bytes it says %q", cut, out)
		}
	}
	if out, _, _ := node(t, sub.script); out != "started\n" {
		t.Errorf("whole it says %q", out)
	}
}

func TestScriptPassesOverPortsInUse(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	taken := ln.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		first, last, status int
	}{{taken, taken, exitPort}, {taken, taken + 40, 0}} {
		l, site := testLauncher(t, func(s *Site) { s.FirstPort, s.LastPort = c.first, c.last })
		script, err := l.script(domain.LaunchSpec{Resource: "r", Renderer: domain.Renderer{CommandLine: "echo ${rest_port}"}}, site)
		if err != nil {
			t.Fatal(err)
		}
		// The job ID with which the search begins at the port that is taken.
		out, errs, status := node(t, script, "SLURM_JOB_ID="+strconv.Itoa((c.last-c.first+1)*7))
		if status != c.status || status == 0 && strings.TrimSpace(out) == strconv.Itoa(taken) {
			t.Errorf("ports %d to %d with %d in use: %q, %q, exit status %d", c.first, c.last, taken, out, errs, status)
		}
	}
}

func TestNoSecondRunOfOneJob(t *testing.T) {
	t.Parallel()
	l, site := testLauncher(t, nil)
	script, err := l.script(domain.LaunchSpec{Resource: "r", Renderer: domain.Renderer{CommandLine: "echo started"}}, site)
	if err != nil {
		t.Fatal(err)
	}
	out, errs, status := node(t, script+"rrm_main\n") // exec: the second call is never reached
	if out != "started\n" || status != 0 {
		t.Errorf("%q %q %d", out, errs, status)
	}
	out, errs, status = node(t, "mkdir started-7\n"+script)
	if out != "" || status != exitSecond || !strings.Contains(errs, "a second time") {
		t.Errorf("the second run: %q, %q, exit status %d", out, errs, status)
	}
}

func TestMinutesAreRoundedUp(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int{time.Second: 1, time.Minute: 1, time.Minute + 1: 2, time.Hour: 60} {
		if got := minutes(d); got != want {
			t.Errorf("%s is %d, want %d", d, got, want)
		}
	}
}
