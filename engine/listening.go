package engine

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"giggle/engine/netns"
)

// parseListening returns the local addresses of the listening sockets in a /proc/PID/net/tcp or tcp6 file, without
// the platform's own. Format: Documentation/networking/proc_net_tcp.rst in the kernel's source; addresses are printed
// as 32-bit words in the machine's byte order, which is little-endian wherever Giggle runs.
func parseListening(text string) []netip.AddrPort {
	const listen = "0A" // TCP_LISTEN, include/net/tcp_states.h
	var out []netip.AddrPort
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != listen {
			continue
		}
		ip, port, ok := strings.Cut(f[1], ":")
		raw, err := hex.DecodeString(ip)
		p, err2 := strconv.ParseUint(port, 16, 16)
		if !ok || err != nil || err2 != nil || len(raw)%4 != 0 {
			continue
		}
		for i := 0; i < len(raw); i += 4 {
			binary.BigEndian.PutUint32(raw[i:], binary.LittleEndian.Uint32(raw[i:]))
		}
		addr, ok := netip.AddrFromSlice(raw)
		if ok && addr != netns.Platform {
			out = append(out, netip.AddrPortFrom(addr, uint16(p)))
		}
	}
	return out
}
