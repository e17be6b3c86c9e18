package netns

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"giggle/fault"
)

// HostAddr is the address of what the machine itself serves, in namespaces that ListenHost was called for.
var HostAddr = netip.AddrFrom4([4]byte{169, 254, 169, 253})

// Listeners on HostAddr have these ports, from the first on, so that an app may have any of the machine's ports for
// itself. Nothing listens on the port before: there goes what no listener is for, and is refused.
const (
	firstHostPort = 61500
	MaxHostPorts  = 64
)

// ListenHost listens on TCP ports of HostAddr, which the namespace hasn't had before. It may be called once.
func (n *Namespace) ListenHost(ports []uint16) (listeners []net.Listener, err error) {
	defer fault.Wrap(&err, "netns.ListenHost(%v)", ports)
	if len(ports) > MaxHostPorts {
		return nil, fault.Invalid("ports", "%d ports of the host are too many; %d are the most.", len(ports), MaxHostPorts)
	}
	err = n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("lo: %w", err)
		}
		if err := netlink.AddrAdd(lo, &netlink.Addr{
			IPNet: &net.IPNet{IP: HostAddr.AsSlice(), Mask: net.CIDRMask(32, 32)},
		}); err != nil {
			return fmt.Errorf("address %s: %w", HostAddr, err)
		}
		for k := range ports {
			at := netip.AddrPortFrom(HostAddr, uint16(firstHostPort+k))
			l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
		}
		return redirectHost(n.Fd(), ports)
	})
	if err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return nil, err
	}
	return listeners, nil
}

// redirectHost adds to the chains of addRedirects:
//
//	ip daddr 169.254.169.253 tcp dport 5432 dnat to 169.254.169.253:61500
//	ip daddr 169.254.169.253 meta l4proto tcp dnat to 169.254.169.253:61499
//
// The last one refuses the other ports: an app that listens on one of them would else meet itself.
func redirectHost(ns int, ports []uint16) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: "giggle", Family: nftables.TableFamilyIPv4}
	raw := &nftables.Chain{Name: "raw", Table: table}
	for _, offset := range []uint32{source, destination} { // first in the chain: before what isn't tracked
		c.InsertRule(&nftables.Rule{
			Table: table,
			Chain: raw,
			Exprs: append(address(offset, HostAddr), &expr.Verdict{Kind: expr.VerdictAccept}),
		})
	}
	output := &nftables.Chain{Name: "output", Table: table}
	for k, port := range ports {
		c.AddRule(&nftables.Rule{
			Table: table,
			Chain: output,
			Exprs: dnat(unix.IPPROTO_TCP, HostAddr, port, uint16(firstHostPort+k)),
		})
	}
	c.AddRule(&nftables.Rule{
		Table: table,
		Chain: output,
		Exprs: slices.Concat(address(destination, HostAddr), protocolIs(unix.IPPROTO_TCP),
			redirection(HostAddr, firstHostPort-1)),
	})
	return c.Flush()
}
