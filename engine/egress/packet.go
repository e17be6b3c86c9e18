package egress

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// packet is what the filter's reports tell of one.
type packet struct {
	from, to netip.Addr
	protocol byte   // of IPPROTO_…
	port     uint16 // 0 for protocols without
}

// parse reads the beginning of an IP packet (RFC 791, RFC 8200). What isn't one has no addresses.
func parse(b []byte) (p packet) {
	var rest []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p.from, p.to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.protocol = b[9]
		if header := int(b[0]&15) * 4; header >= 20 && header <= len(b) && fragment(b) == 0 {
			rest = b[header:]
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		p.from, p.to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.protocol, rest = b[6], b[40:]
	default:
		return p
	}
	switch p.protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		if len(rest) >= 4 {
			p.port = binary.BigEndian.Uint16(rest[2:])
		}
	}
	return p
}

// fragment is how far into a packet a fragment of IPv4 lies, in units of 8 bytes.
func fragment(b []byte) uint16 { return binary.BigEndian.Uint16(b[6:]) & 0x1fff }

// destination is where a packet goes, the zero Addr for none.
func destination(b []byte) netip.Addr { return parse(b).to }

// protocolName is what people call a protocol of IP.
func protocolName(p byte) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "TCP"
	case unix.IPPROTO_UDP:
		return "UDP"
	case unix.IPPROTO_SCTP:
		return "SCTP"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "ICMP"
	}
	return "IP"
}
