package static

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/rendering-resource-manager/rrm/domain"
)

// Addresses says which addresses a machine may register: those that the
// operator named, and of these none that would lead back into the service itself.
// Sessions' requests are passed on to registered addresses, so this list is what
// keeps a registration from opening the service's own network to clients.
type Addresses struct {
	nets  []netip.Prefix
	names []string

	// Own are the service's own host:port: where it listens, its database. On an address of this
	// machine they are refused at every other address of this machine too.
	Own []string
	// Loopback says whether loopback addresses are allowed although no list was given. Nil: never.
	Loopback func(ctx context.Context) (bool, error)
	// Lookup finds the addresses of a name; nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Local gives the addresses of this machine; nil: those of its network interfaces.
	Local func() ([]netip.Addr, error)
}

// NewAddresses reads a list of networks ("10.7.0.0/16", "fd00:7::/64"), addresses and host names. A
// name allows what is registered by that very name, wherever it leads; it does not allow the addresses that it has.
// Loopback addresses are allowed by localhost, or by a network of loopback addresses, and not by a wider one.
func NewAddresses(list []string) (*Addresses, error) {
	a := &Addresses{}
	for _, text := range list {
		text = strings.ToLower(strings.TrimSpace(text))
		if text == "localhost" {
			a.nets = append(a.nets, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
			continue
		}
		if p, err := netip.ParsePrefix(text); err == nil {
			if p.Addr().Is4In6() {
				return nil, fmt.Errorf("allow %q: write IPv4 networks as IPv4", text)
			}
			a.nets = append(a.nets, p.Masked())
			continue
		}
		if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
			ip = ip.Unmap()
			a.nets = append(a.nets, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		if !hostName(text) || digits(text) {
			return nil, fmt.Errorf("allow %q: it is neither a network such as 10.7.0.0/16, nor an address, nor a host name", text)
		}
		a.names = append(a.names, strings.TrimSuffix(text, "."))
	}
	return a, nil
}

// hostName says whether a text is a host name, with letters of either case.
func hostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

// digits says whether the last label could be part of a number: such names are what
// resolvers take for addresses in odd notations (127.1, 0x7f000001, 017700000001).
func digits(s string) bool {
	s = strings.TrimSuffix(s, ".")
	last := s[strings.LastIndexByte(s, '.')+1:]
	return last != "" && last[0] >= '0' && last[0] <= '9'
}

// Check refuses an address (host:port) that may not register. It gives the address to
// use from then on: an IP address and a port, so that a name that leads elsewhere later changes nothing.
func (a *Addresses) Check(ctx context.Context, address string) (pinned string, err error) {
	host, port, err := split(address)
	if err != nil {
		return "", err
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	candidates, err := a.resolve(ctx, name)
	if err != nil {
		return "", err
	}
	loopback, err := a.loopbackAllowed(ctx)
	if err != nil {
		return "", err
	}
	var last *domain.Refusal
	for _, ip := range candidates {
		ip = ip.Unmap()
		refused, err := a.refuse(ctx, name, ip, port, loopback)
		if err != nil {
			return "", err
		}
		if refused == "" {
			return netip.AddrPortFrom(ip, port).String(), nil
		}
		last = domain.Invalid("address", "%s may not be registered: %s", at(host, ip, port), refused)
		last.Code = "address_not_allowed"
	}
	return "", last
}

func at(host string, ip netip.Addr, port uint16) string {
	there := netip.AddrPortFrom(ip, port).String()
	if given, err := netip.ParseAddr(host); err == nil && given.Unmap() == ip {
		return there
	}
	return fmt.Sprintf("%s (%s)", net.JoinHostPort(host, strconv.Itoa(int(port))), there)
}

func split(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(text, 10, 16)
	if err != nil || perr != nil || n == 0 || text[0] == '0' {
		return "", 0, domain.Invalid("address", "an address is host:port such as gpu7.example.org:5000, not %q", address)
	}
	ip, err := netip.ParseAddr(host)
	if err == nil && ip.Zone() != "" {
		return "", 0, domain.Invalid("address", "an address has no zone, and %q has", host)
	}
	if err != nil && (!hostName(host) || digits(host)) {
		return "", 0, domain.Invalid("address", "%q is neither a host name nor an IP address in its usual form", host)
	}
	return host, uint16(n), nil
}

// resolve gives at least one address, IPv4 before IPv6, always in the same order.
func (a *Addresses) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{ip}, nil
	}
	found, err := a.lookup(ctx, name)
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return nil, domain.Invalid("address", "there is no host %q", name)
		}
		return nil, domain.Unavailable("name_unresolved", 0, "the host %q cannot be looked up just now: %v", name, err)
	}
	if len(found) == 0 {
		return nil, domain.Invalid("address", "the host %q has no address", name)
	}
	slices.SortFunc(found, func(x, y netip.Addr) int { return x.Unmap().Compare(y.Unmap()) }) // which puts IPv4 first
	return found, nil
}

func (a *Addresses) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if a.Lookup != nil {
		return a.Lookup(ctx, name)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

func (a *Addresses) loopbackAllowed(ctx context.Context) (bool, error) {
	if len(a.nets)+len(a.names) > 0 || a.Loopback == nil {
		return false, nil
	}
	return a.Loopback(ctx)
}

// never are addresses that belong to no renderer: they mean this machine, its link (with
// the metadata services of clouds), many machines, or another address in disguise.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), // NAT64, RFC 6052 and 8215
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"), // 6to4, RFC 3056; Teredo, RFC 4380
	netip.MustParsePrefix("fd00:ec2::254/128"), // the metadata service of EC2
}

// compatible are the obsolete IPv4-compatible addresses (RFC 4291); :: is among them, and ::1, which is loopback.
var compatible = netip.MustParsePrefix("::/96")

// refuse says why not, or nothing.
func (a *Addresses) refuse(ctx context.Context, name string, ip netip.Addr, port uint16, loopback bool) (string, error) {
	if slices.ContainsFunc(never, func(p netip.Prefix) bool { return p.Contains(ip) }) || compatible.Contains(ip) && !ip.IsLoopback() {
		return "no renderer can have such an address", nil
	}
	own, err := a.own(ctx, ip, port)
	if err != nil {
		return "", err
	}
	if own {
		return "it is the service itself or its database", nil
	}
	switch {
	case slices.ContainsFunc(a.nets, func(p netip.Prefix) bool { return p.Contains(ip) && p.Addr().IsLoopback() == ip.IsLoopback() }):
		return "", nil
	case ip.IsLoopback():
		if loopback {
			return "", nil
		}
	case slices.Contains(a.names, name):
		return "", nil
	}
	return "it is not on the list of what may register (--register-allow, RRM_REGISTER_ALLOW)", nil
}

// own says whether ip:port is one of the service's own. What cannot be looked up is compared by port alone.
func (a *Addresses) own(ctx context.Context, ip netip.Addr, port uint16) (bool, error) {
	for _, address := range a.Own {
		host, text, err := net.SplitHostPort(address)
		if err != nil || text != strconv.Itoa(int(port)) {
			continue
		}
		theirs := []netip.Addr{netip.IPv6Unspecified()}
		if host != "" {
			if theirs, err = a.resolve(ctx, strings.ToLower(host)); err != nil {
				return true, nil //nolint:nilerr // better one address too many than the database
			}
		}
		this, err := a.thisMachine()
		if err != nil {
			return false, err
		}
		for _, t := range theirs {
			t = t.Unmap()
			if t == ip || this(ip) && (t.IsUnspecified() || this(t)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// thisMachine gives a function that tells addresses of this machine.
func (a *Addresses) thisMachine() (func(netip.Addr) bool, error) {
	local := a.Local
	if local == nil {
		local = interfaceAddresses
	}
	all, err := local()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	return func(ip netip.Addr) bool {
		return ip.IsLoopback() || slices.ContainsFunc(all, func(l netip.Addr) bool { return l.Unmap() == ip })
	}, nil
}

func interfaceAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, one := range all {
		if p, err := netip.ParsePrefix(one.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}
