package egress

import (
	"net/netip"
	"strconv"
	"strings"

	"giggle/fault"
)

// never are addresses that no packet may go to unless it is allowed by name, as they were written by IANA's registries
// of special-purpose addresses (RFC 6890) and by clouds.
var never = prefixes(
	"0.0.0.0/8",          // this network
	"127.0.0.0/8",        // loopback
	"169.254.0.0/16",     // link-local: metadata servers, other instances
	"168.63.129.16/32",   // Azure's
	"192.0.0.0/24",       // protocol assignments: Oracle's metadata server is 192.0.0.192
	"100.100.100.200/32", // Alibaba's
	"224.0.0.0/4",        // multicast
	"240.0.0.0/4",        // reserved, and broadcast
	"::/96",              // loopback, unspecified, IPv4-compatible
	"::ffff:0:0/96",      // IPv4-mapped: on the wire it is nobody's
	"64:ff9b:1::/48",     // local translation
	"2001::/32",          // Teredo: an IPv4 address in disguise
	"2002::/16",          // 6to4: the same
	"fd00:ec2::254/128",  // Amazon's metadata server
	"fd20:ce::254/128",   // Google's
	"fe80::/10",          // link-local
	"ff00::/8",           // multicast
)

// private are the addresses of the networks around the machine.
var private = prefixes(
	"10.0.0.0/8",
	"100.64.0.0/10", // carriers', and of private overlays
	"172.16.0.0/12",
	"192.168.0.0/16",
	"198.18.0.0/15", // test beds
	"fc00::/7",
	"fec0::/10",
)

// translated is the prefix under which a translator of IPv6 to IPv4 has the latter's addresses (RFC 6052).
var translated = netip.MustParsePrefix("64:ff9b::/96")

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t)
	}
	return out
}

// closed returns the addresses that are not open, those behind a translator included.
func closed(all bool) []netip.Prefix {
	out := append([]netip.Prefix(nil), never...)
	if !all {
		out = append(out, private...)
	}
	for _, p := range out {
		if p.Addr().Is4() {
			a, four := translated.Addr().As16(), p.Addr().As4()
			copy(a[12:], four[:])
			out = append(out, netip.PrefixFrom(netip.AddrFrom16(a), translated.Bits()+p.Bits()))
		}
	}
	return out
}

// Allow is addresses that are open whatever else holds.
type Allow struct {
	To   netip.Prefix
	Port uint16 // 0 for all
}

// ParseAllow reads CIDR[:PORT]: 10.1.0.0/16, 192.168.1.7:5432, [fd12::7]:443 or [fd12::/64]:443. It fails with
// InvalidArgument.
func ParseAllow(text string) (a Allow, err error) {
	wrong := fault.New(fault.InvalidArgument,
		"%.80q is not CIDR[:PORT], such as 10.1.0.0/16, 192.168.1.7:5432 or [fd12::/64]:443.", text)
	addresses, port := text, ""
	if inner, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); ok && strings.HasPrefix(text, "[") {
		if addresses, port = inner, strings.TrimPrefix(rest, ":"); rest != "" && rest == port {
			return a, wrong
		}
	} else if strings.Count(text, ":") == 1 {
		addresses, port, _ = strings.Cut(text, ":")
		if port == "" {
			return a, wrong
		}
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return a, wrong
		}
		a.Port = uint16(n)
	}
	if !strings.Contains(addresses, "/") {
		addr, err := netip.ParseAddr(addresses)
		if err != nil || addr.Zone() != "" {
			return a, wrong
		}
		a.To = netip.PrefixFrom(addr, addr.BitLen())
	} else if a.To, err = netip.ParsePrefix(addresses); err != nil {
		return a, wrong
	}
	if a.To != a.To.Masked() {
		return a, fault.New(fault.InvalidArgument, "%.80q has bits behind its prefix: it may mean %s.", text, a.To.Masked())
	}
	if a.To.Addr().Is4In6() {
		return a, wrong
	}
	return a, nil
}

// String is the form that ParseAllow reads.
func (a Allow) String() string {
	to := a.To.String()
	if a.To.IsSingleIP() {
		to = a.To.Addr().String()
	}
	if a.Port == 0 {
		return to
	}
	if a.To.Addr().Is6() {
		to = "[" + to + "]"
	}
	return to + ":" + strconv.Itoa(int(a.Port))
}
