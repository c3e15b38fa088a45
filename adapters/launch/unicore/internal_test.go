package unicore

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
)

func TestParsePlace(t *testing.T) {
	t.Parallel()
	p := parsePlace("node7.cluster 20123 node7 1700000000 60\n")
	if p == nil || p.host != "node7.cluster" || p.port != 20123 || p.node != "node7" || p.started.Unix() != 1700000000 || p.ends.Unix() != 1700000060 {
		t.Errorf("got %+v", p)
	}
	if p := parsePlace("fe80::1 1 n 0 0"); p == nil || !p.ends.IsZero() {
		t.Errorf("got %+v, want no end", p)
	}
	for _, s := range []string{
		"", "node 1 node 0", "node 0 node 0 0", "node 65536 node 0 0", "node -1 node 0 0", "node x node 0 0", "node 1 node x 0", "node 1 node 0 -1",
		"no/de 1 node 0 0", "-n 1 node 0 0", "node 1 no&de 0 0", "node 1 node 0 0 more", "n?port=2 1 n 0 0", strings.Repeat("n", 300) + " 1 n 0 0",
	} {
		if p := parsePlace(s); p != nil {
			t.Errorf("%q was taken for %+v", s, p)
		}
	}
}

// The addresses of many resources differ, and are on loopback, where a tunnel may be.
func TestAddressOf(t *testing.T) {
	t.Parallel()
	l := &Launcher{opts: Options{Service: "s"}}
	seen := map[string]bool{}
	for i := range 20_000 {
		a := l.addressOf(domain.ResourceID(fmt.Sprint(i)))
		host, port, err := net.SplitHostPort(a)
		if ip := net.ParseIP(host).To4(); err != nil || !ip.IsLoopback() || ip[1] == 0 || ip[3] == 0 || ip[3] == 255 || len(port) != 5 || port >= "32768" {
			t.Fatalf("address %s", a)
		}
		if seen[a] {
			t.Fatalf("address %s twice", a)
		}
		seen[a] = true
	}
}

func TestHeader(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]secret{
		"abc": "Bearer abc", " abc\n": "Bearer abc", "Bearer abc": "Bearer abc", "basic dTpw": "basic dTpw",
		"": "", "  ": "", "a\nb": "", "a b": "", "Bearer a b": "", "Digest x": "", "tök": "", strings.Repeat("x", maxToken+1): "",
	} {
		got, err := header(token)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q gives %q, %v; want %q", token, string(got), err, string(want))
		}
		if err != nil && len(token) > 3 && strings.Contains(err.Error(), token) {
			t.Errorf("the error quotes the token: %v", err)
		}
	}
}

func TestSecretIsHidden(t *testing.T) {
	t.Parallel()
	s := secret("Bearer abc")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, struct{ S secret }{s}); strings.Contains(text, "abc") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestEnding(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v    view
		want string
	}{
		{view{status: statusSuccessful, exit: "0"}, "exit status 0"},
		{view{status: statusFailed, exit: "3", message: "it failed"}, "exit status 3: it failed"},
		{view{status: statusFailed, exit: "137"}, "killed by signal 9 (exit status 137)"},
		{view{status: statusFailed, exit: "127"}, "exit status 127: the program was not found"},
		{view{status: statusFailed, exit: "255"}, "exit status 255"},
		{view{status: statusFailed, message: "Job was aborted"}, "the job has failed: Job was aborted"},
		{view{status: statusStagingOut}, "the job has ended"},
	} {
		state, reason := c.v.state()
		if state != domain.LaunchGone || reason != c.want {
			t.Errorf("%+v is %s, %q; want gone, %q", c.v, state, reason, c.want)
		}
	}
}

func TestLastBytes(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 50_000)
	for _, n := range []int64{1, 10, 1000, 400_000, 1_000_000} {
		got, err := lastBytes(strings.NewReader(long), n, 1<<20)
		if want := long[max(0, int64(len(long))-n):]; err != nil || string(got) != want {
			t.Errorf("the last %d bytes: %d bytes, %v", n, len(got), err)
		}
	}
	if _, err := lastBytes(strings.NewReader(long), 10, 1000); err == nil {
		t.Error("read beyond the limit")
	}
}
