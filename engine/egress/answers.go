package egress

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Packets that the userspace path answers with, each made of the packet that it answers. The latter must have been read
// by parse.

const (
	tcpHeader, udpHeader, icmpHeader = header.TCPMinimumSize, header.UDPMinimumSize, 8

	flagSYN, flagACK = uint8(header.TCPFlagSyn), uint8(header.TCPFlagAck)
)

// unreachable is why a packet goes nowhere, as the codes of ICMP for IPv4 and IPv6 (RFC 792, RFC 1812, RFC 4443).
type unreachable struct{ code4, code6 byte }

var (
	noRoute    = unreachable{0, 0}
	noHost     = unreachable{1, 3}
	noPort     = unreachable{3, 4}
	prohibited = unreachable{13, 1}
)

// isICMPError reports whether a message says what became of another packet. Nobody answers those (RFC 1122, 3.2.2;
// RFC 4443, 2.4).
func isICMPError(protocol byte, message []byte) bool {
	switch {
	case len(message) == 0:
		return false
	case protocol == unix.IPPROTO_ICMPV6:
		return message[0] < 128
	case protocol != unix.IPPROTO_ICMP:
		return false
	}
	switch header.ICMPv4Type(message[0]) {
	case header.ICMPv4DstUnreachable, header.ICMPv4SrcQuench, header.ICMPv4Redirect, header.ICMPv4TimeExceeded,
		header.ICMPv4ParamProblem:
		return true
	}
	return false
}

// message is the ICMP message with as much of the packet as is needed to know whose it is.
func (why unreachable) message(b []byte) []byte {
	quoted := b[:min(len(b), mostQuoted)]
	m := make([]byte, icmpHeader, icmpHeader+len(quoted))
	if b[0]>>4 == 4 {
		m[0], m[1] = byte(header.ICMPv4DstUnreachable), why.code4
		m = append(m, quoted...)
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		return m
	}
	m[0], m[1] = byte(header.ICMPv6DstUnreachable), why.code6
	m = append(m, quoted...)
	binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, pseudo(b, unix.IPPROTO_ICMPV6, len(m))))
	return m
}

// reset is the segment that refuses a connection (RFC 9293, 3.10.7.1).
func reset(syn []byte) []byte {
	from := header.TCP(transport(syn))
	if len(from) < tcpHeader {
		return nil
	}
	m := header.TCP(make([]byte, tcpHeader))
	m.Encode(&header.TCPFields{
		SrcPort:    from.DestinationPort(),
		DstPort:    from.SourcePort(),
		AckNum:     from.SequenceNumber() + 1,
		DataOffset: tcpHeader,
		Flags:      header.TCPFlagRst | header.TCPFlagAck,
	})
	m.SetChecksum(^checksum.Checksum(m, pseudo(syn, unix.IPPROTO_TCP, len(m))))
	return m
}

// udpAnswer fills the header of an answer to a datagram in; there is space for it at the beginning.
func udpAnswer(m, to []byte) []byte {
	from := header.UDP(transport(to))
	if len(from) < udpHeader || len(m) > 0xffff {
		return nil
	}
	udp := header.UDP(m)
	udp.Encode(&header.UDPFields{SrcPort: from.DestinationPort(), DstPort: from.SourcePort(), Length: uint16(len(m))})
	sum := ^checksum.Checksum(m, pseudo(to, unix.IPPROTO_UDP, len(m)))
	if sum == 0 {
		sum = 0xffff // 0 is none (RFC 768)
	}
	udp.SetChecksum(sum)
	return m
}

// pseudo is the sum of the header that the checksums of answers include (RFC 9293, 3.1).
func pseudo(b []byte, protocol byte, size int) uint16 {
	p := parse(b)
	return header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(protocol), tcpip.AddrFromSlice(p.to.AsSlice()),
		tcpip.AddrFromSlice(p.from.AsSlice()), uint16(size))
}

// answerHeader is the IP header of an answer; protocol 0 is ICMP.
func answerHeader(b []byte, protocol byte, size int) []byte {
	p := parse(b)
	from, to := tcpip.AddrFromSlice(p.to.AsSlice()), tcpip.AddrFromSlice(p.from.AsSlice())
	if p.to.Is4() {
		if protocol == 0 {
			protocol = unix.IPPROTO_ICMP
		}
		h := header.IPv4(make([]byte, header.IPv4MinimumSize))
		h.Encode(&header.IPv4Fields{
			TotalLength: uint16(len(h) + size),
			Flags:       header.IPv4FlagDontFragment,
			TTL:         64,
			Protocol:    protocol,
			SrcAddr:     from,
			DstAddr:     to,
		})
		h.SetChecksum(^h.CalculateChecksum())
		return h
	}
	if protocol == 0 {
		protocol = unix.IPPROTO_ICMPV6
	}
	h := header.IPv6(make([]byte, header.IPv6MinimumSize))
	h.Encode(&header.IPv6Fields{
		PayloadLength:     uint16(size),
		TransportProtocol: tcpip.TransportProtocolNumber(protocol),
		HopLimit:          64,
		SrcAddr:           from,
		DstAddr:           to,
	})
	return h
}
