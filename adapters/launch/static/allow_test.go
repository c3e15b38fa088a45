package static

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/rendering-resource-manager/rrm/domain"
)

// site is a list over a world of names, on a machine that is 10.7.0.1 and fd00:7::1.
func site(t *testing.T, list ...string) *Addresses {
	t.Helper()
	a, err := NewAddresses(list)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{
		"gpu7": {"10.7.0.7"}, "both": {"fd00:7::9", "10.7.0.9"}, "half": {"192.168.0.1", "10.7.0.8"}, "inside": {"127.0.0.1"}, "meta": {"169.254.169.254"},
		"mapped": {"::ffff:169.254.169.254"}, "far": {"203.0.113.9"}, "localhost": {"127.0.0.1", "::1"}, "db": {"10.7.0.3"}, "none": {}, "self": {"10.7.0.1"},
		"0x0a070007": {"10.7.0.7"}, "10.7.7": {"10.7.0.7"}, "0120.7.0.7": {"10.7.0.7"}, "171376647": {"10.7.0.7"}, // as C libraries read them
	}
	a.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "slow" {
			return nil, errors.New("timeout")
		}
		texts, ok := names[host]
		if !ok {
			return nil, &net.DNSError{Name: host, IsNotFound: true}
		}
		var out []netip.Addr
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out, nil
	}
	a.Local = func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("fd00:7::1")}, nil
	}
	a.Own = []string{"0.0.0.0:8383", "db:5432", "127.0.0.1:6432"}
	return a
}

// What may register, and what it is from then on; an empty want is a refusal with a code.
func TestAddresses(t *testing.T) {
	inner := []string{"10.7.0.0/16", "fd00:7::/64", "far"}
	for _, c := range []struct {
		list          []string
		address, want string
		code          string
	}{
		{inner, "10.7.0.7:5000", "10.7.0.7:5000", ""},
		{inner, "gpu7:5000", "10.7.0.7:5000", ""},
		{inner, "GPU7.:5000", "10.7.0.7:5000", ""},
		{inner, "[fd00:7::7]:5000", "[fd00:7::7]:5000", ""},
		{inner, "both:1", "10.7.0.9:1", ""}, // one of them, and always the same
		{inner, "half:1", "10.7.0.8:1", ""},
		{inner, "[::ffff:10.7.0.7]:5000", "10.7.0.7:5000", ""},
		{inner, "far:5000", "203.0.113.9:5000", ""},
		{inner, "203.0.113.9:5000", "", "address_not_allowed"}, // the name is allowed, not what it leads to
		{inner, "10.8.0.7:5000", "", "address_not_allowed"},
		{inner, "[::ffff:10.8.0.7]:5000", "", "address_not_allowed"},
		{inner, "[fd00:8::7]:5000", "", "address_not_allowed"},
		{inner, "127.0.0.1:5000", "", "address_not_allowed"},
		{inner, "[::1]:5000", "", "address_not_allowed"},
		{inner, "[::ffff:127.0.0.1]:5000", "", "address_not_allowed"},
		{inner, "inside:5000", "", "address_not_allowed"},

		// The service itself and its database, by whatever address of the machine.
		{inner, "10.7.0.1:8383", "", "address_not_allowed"},
		{inner, "self:8383", "", "address_not_allowed"},
		{inner, "[fd00:7::1]:8383", "", "address_not_allowed"},
		{inner, "10.7.0.1:5000", "10.7.0.1:5000", ""},
		{inner, "10.7.0.3:5432", "", "address_not_allowed"},
		{inner, "[::ffff:10.7.0.3]:5432", "", "address_not_allowed"},
		{inner, "10.7.0.4:5432", "10.7.0.4:5432", ""},
		{inner, "10.7.0.1:6432", "", "address_not_allowed"}, // listens on loopback only, and better so
		{[]string{"localhost"}, "127.0.0.1:8383", "", "address_not_allowed"},
		{[]string{"localhost"}, "127.8.0.1:6432", "", "address_not_allowed"},

		// What no list allows.
		{[]string{"0.0.0.0/0", "::/0", "meta", "mapped", "inside"}, "169.254.169.254:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0", "::/0"}, "[::ffff:169.254.169.254]:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0", "::/0", "meta"}, "meta:80", "", "address_not_allowed"},
		{[]string{"mapped"}, "mapped:80", "", "address_not_allowed"},
		{[]string{"inside"}, "inside:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0"}, "0.0.0.0:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0"}, "0.1.2.3:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0"}, "255.255.255.255:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0"}, "239.1.1.1:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0"}, "127.0.0.1:80", "", "address_not_allowed"},
		{[]string{"0.0.0.0/0"}, "8.8.8.8:80", "8.8.8.8:80", ""},
		{[]string{"::/0"}, "[::]:80", "", "address_not_allowed"},
		{[]string{"::/0"}, "[::7f00:1]:80", "", "address_not_allowed"},
		{[]string{"::/0"}, "[fe80::1]:80", "", "address_not_allowed"},
		{[]string{"::/0"}, "[ff02::1]:80", "", "address_not_allowed"},
		{[]string{"::/0"}, "[64:ff9b::a9fe:a9fe]:80", "", "address_not_allowed"},
		{[]string{"::/0"}, "[2002:7f00:1::]:80", "", "address_not_allowed"},
		{[]string{"::/0"}, "[fd00:ec2::254]:80", "", "address_not_allowed"},
		{[]string{"::/0"}, "[2001:db8::1]:80", "[2001:db8::1]:80", ""},

		{[]string{"localhost"}, "127.0.0.1:5000", "127.0.0.1:5000", ""},
		{[]string{"127.0.0.1"}, "[::1]:5000", "", "address_not_allowed"},
		{[]string{"127.0.0.0/8"}, "inside:5000", "127.0.0.1:5000", ""},
		{[]string{"10.7.0.7"}, "10.7.0.7:1", "10.7.0.7:1", ""},
		{[]string{"::ffff:10.7.0.7"}, "10.7.0.7:1", "10.7.0.7:1", ""},
		{[]string{"10.7.0.7"}, "10.7.0.6:1", "", "address_not_allowed"},
		{nil, "10.7.0.7:5000", "", "address_not_allowed"},
		{nil, "127.0.0.1:5000", "", "address_not_allowed"},

		// What is no address.
		{inner, "10.7.0.7", "", "invalid"}, {inner, "10.7.0.7:0", "", "invalid"}, {inner, "10.7.0.7:65536", "", "invalid"}, {inner, "10.7.0.7:http", "", "invalid"},
		{inner, "10.7.0.7:05000", "", "invalid"}, {inner, ":5000", "", "invalid"}, {inner, "[fe80::1%eth0]:80", "", "invalid"}, {inner, "10.7.7:80", "", "invalid"},
		{inner, "0x0a070007:80", "", "invalid"}, {inner, "0120.7.0.7:80", "", "invalid"}, {inner, "171376647:80", "", "invalid"}, {inner, "gpu7/x:80", "", "invalid"},
		{inner, "user@gpu7:80", "", "invalid"}, {inner, "none:80", "", "invalid"}, {inner, "nowhere:80", "", "invalid"}, {inner, "gpu7\x00:80", "", "invalid"},
		{inner, "slow:80", "", "name_unresolved"},
	} {
		got, err := site(t, c.list...).Check(t.Context(), c.address)
		refusal, _ := domain.AsRefusal(err)
		switch {
		case c.want != "" && (err != nil || got != c.want):
			t.Errorf("%v, %q: %q, %v; want %s", c.list, c.address, got, err, c.want)
		case c.want == "" && (refusal == nil || refusal.Code != c.code || got != ""):
			t.Errorf("%v, %q: %q, %v; want a refusal %s", c.list, c.address, got, err, c.code)
		}
	}
}

// An open service takes loopback addresses without a list, and nothing else.
func TestLoopbackByDefault(t *testing.T) {
	open := true
	a := site(t)
	a.Loopback = func(context.Context) (bool, error) { return open, nil }
	check := func(address string, want bool) {
		t.Helper()
		if _, err := a.Check(t.Context(), address); (err == nil) != want {
			t.Errorf("%s: %v, want allowed: %v", address, err, want)
		}
	}
	check("127.0.0.1:5000", true)
	check("localhost:5000", true)
	check("[::1]:5000", true)
	check("127.0.0.1:8383", false)
	check("10.7.0.7:5000", false)
	check("0.0.0.0:5000", false)
	open = false
	check("127.0.0.1:5000", false)
	b := site(t, "10.7.0.0/16")
	b.Loopback = func(context.Context) (bool, error) { return true, nil }
	if _, err := b.Check(t.Context(), "127.0.0.1:5000"); err == nil {
		t.Error("a list without loopback allows loopback")
	}
}

func TestListOfAddresses(t *testing.T) {
	for _, wrong := range []string{"", "10.7.0.0/33", "10.7", "::ffff:10.0.0.0/104", "a b", "http://gpu7", "gpu7:5000", "*", "fe80::1%eth0", "-a"} {
		if _, err := NewAddresses([]string{wrong}); err == nil || !strings.Contains(err.Error(), "allow") {
			t.Errorf("%q is taken: %v", wrong, err)
		}
	}
}

// The real resolver and the real interfaces: what is in use here cannot be registered by another name.
func TestAddressesOfThisMachine(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := NewAddresses([]string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	if got, err := a.Check(t.Context(), "localhost:"+port); err != nil || got != "127.0.0.1:"+port {
		t.Errorf("localhost is %q, %v", got, err)
	}
	a.Own = []string{ln.Addr().String()}
	for _, host := range []string{"127.0.0.1", "localhost", "127.0.0.2", "[::1]"} {
		if _, err := a.Check(t.Context(), host+":"+port); err == nil {
			t.Errorf("the service itself is taken as %s", host)
		}
	}
}
