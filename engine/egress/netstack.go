package egress

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// netstack is gVisor's TCP for one instance: it takes connections to any address for which there is a flow.
type netstack struct {
	stack *stack.Stack
	wire  *wire
}

const (
	nic = 1
	// wireMTU is how long the stack's own packets are, and those that it has the instance send: the kernel keeps a
	// packet that comes from a TUN device in one piece, and can't always find so much.
	wireMTU = 32000
)

// wire is the stack's device: what it sends goes to write.
type wire struct {
	*channel.Endpoint
	write func(parts ...[]byte)
}

// WritePackets sends packets.
func (w *wire) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	for _, p := range packets.AsSlice() {
		w.write(p.AsSlices()...)
	}
	return packets.Len(), nil
}

// newNetstack returns a stack that sends by write. Claim is asked for each new connection whether it may be made, with
// nil, and then takes it, or hears by one without a conn that it came to nothing.
func newNetstack(write func(parts ...[]byte), claim func(flowKey, *accepted) bool) (*netstack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{}), // which asks for no router
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	w := &wire{Endpoint: channel.New(0, wireMTU, ""), write: write}
	w.LinkEPCapabilities = stack.CapabilityRXChecksumOffload // the kernel has made them
	sack, own := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(false)
	// Nothing is late on this wire: a port may be used again at once.
	wait := tcpip.TCPTimeWaitTimeoutOption(time.Millisecond)
	for _, err := range []tcpip.Error{
		s.CreateNIC(nic, w),
		s.SetPromiscuousMode(nic, true), // it takes packets to any address,
		s.SetSpoofing(nic, true),        // and answers in its name
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &own),
		s.SetTransportProtocolOption(tcp.ProtocolNumber, &wait),
		s.SetTransportProtocolOption(tcp.ProtocolNumber,
			&tcpip.TCPReceiveBufferSizeRangeOption{Min: leastBuffer, Default: mostBuffer, Max: mostBuffer}),
		s.SetTransportProtocolOption(tcp.ProtocolNumber,
			&tcpip.TCPSendBufferSizeRangeOption{Min: leastBuffer, Default: mostBuffer, Max: mostBuffer}),
	} {
		if err != nil {
			s.Destroy()
			return nil, errors.New("userspace TCP: " + err.String())
		}
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	n := &netstack{stack: s, wire: w}
	forwarder := tcp.NewForwarder(s, 0, 1<<16, func(r *tcp.ForwarderRequest) { accept(r, claim) })
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	return n, nil
}

// accept makes the instance's side of a connection.
func accept(r *tcp.ForwarderRequest, claim func(flowKey, *accepted) bool) {
	id := r.ID()
	k := flowKey{unix.IPPROTO_TCP, id.RemotePort, netip.AddrPortFrom(address(id.LocalAddress), id.LocalPort)}
	if !claim(k, nil) {
		r.Complete(true)
		return
	}
	var queue waiter.Queue
	ep, err := r.CreateEndpoint(&queue)
	r.Complete(err != nil)
	if err != nil { // the instance no longer wants it
		claim(k, &accepted{})
		return
	}
	resize := func(size int) {
		ep.SocketOptions().SetReceiveBufferSize(int64(size), true)
		ep.SocketOptions().SetSendBufferSize(int64(size), true)
	}
	if !claim(k, &accepted{conn: gonet.NewTCPConn(&queue, ep), abort: ep.Abort, resize: resize}) {
		ep.Abort()
	}
}

func address(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

// inject has the stack take a packet in.
func (n *netstack) inject(b []byte) {
	protocol := header.IPv4ProtocolNumber
	if b[0]>>4 == 6 {
		protocol = header.IPv6ProtocolNumber
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	n.wire.InjectInbound(protocol, p)
	p.DecRef()
}

// close ends all connections.
func (n *netstack) close() { n.stack.Destroy() }
