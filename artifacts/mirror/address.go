package mirror

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"giggle/fault"
)

// reach is where an address lies, as seen from this machine.
type reach string

const (
	public   reach = "public"
	private  reach = "private"
	loopback reach = "loopback"
	link     reach = "link-local" // and what no packet should be sent to at all
)

// special are ranges that package netip calls global, but that are nobody's on the internet (RFC 6890).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
}

var (
	carrier = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	nat64   = netip.MustParsePrefix("64:ff9b::/96")  // RFC 6052: the IPv4 address is in it
	sixTo4  = netip.MustParsePrefix("2002::/16")     // RFC 3056: so it is here
)

// reachOf tells where an address lies.
func reachOf(a netip.Addr) reach {
	a = a.Unmap()
	switch raw := a.As16(); {
	case nat64.Contains(a):
		return reachOf(netip.AddrFrom4([4]byte(raw[12:16])))
	case sixTo4.Contains(a):
		return reachOf(netip.AddrFrom4([4]byte(raw[2:6])))
	case a.IsLoopback():
		return loopback
	case a.IsPrivate() || carrier.Contains(a):
		return private
	case !a.IsGlobalUnicast():
		return link
	}
	for _, p := range special {
		if p.Contains(a) {
			return link
		}
	}
	return public
}

// dialTimeout bounds how long a registry takes to accept a connection.
const dialTimeout = 10 * time.Second

// guard looks at the addresses that a registry's name, its redirects and its token server lead to: who asks for an
// image must not have the platform talk to what is inside this machine and its network. It sees the address that is
// dialled, so that a name that changes its address between a look-up and a connection leads nowhere else.
type guard struct {
	host   string // of the registry, with its port if the name has one
	inside bool   // the registry may be at an address that is not public

	mu      sync.Mutex
	at      reach               // where the registry turned out to be
	proxies map[string]struct{} // HOST:PORT of the machine's proxies, which may be anywhere
}

// dial is net.Dialer's DialContext.
func (g *guard) dial(ctx context.Context, network, to string) (net.Conn, error) {
	d := net.Dialer{
		Timeout: dialTimeout,
		Control: func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return g.admit(to, a.Addr())
		},
	}
	return d.DialContext(ctx, network, to)
}

// through remembers that a proxy is dialled for what goes through it.
func (g *guard) through(proxy string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proxies == nil {
		g.proxies = map[string]struct{}{}
	}
	g.proxies[proxy] = struct{}{}
}

// own reports whether HOST:PORT is the registry itself.
func (g *guard) own(to string) bool {
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return false
	}
	return strings.EqualFold(to, g.host) ||
		(port == "443" || port == "80") && strings.EqualFold(host, strings.Trim(g.host, "[]"))
}

// admit decides about an address that HOST:PORT leads to.
func (g *guard) admit(to string, a netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, proxy := g.proxies[to]; proxy {
		return nil
	}
	at := reachOf(a)
	switch {
	case at == public:
		return nil
	case !g.own(to) && at == g.at:
		return nil
	case !g.own(to):
		return fault.New(fault.PermissionDenied, "%s sends on to %s, which is at a %s address (%s): not followed.",
			g.host, to, at, a)
	case !g.inside:
		return fault.New(fault.PermissionDenied,
			"The registry %s is at a %s address (%s). Only registries that this machine's administrator names are asked there: `giggle images login %s`, or an entry in the file of --registries.",
			g.host, at, a, g.host)
	}
	g.at = at
	return nil
}
