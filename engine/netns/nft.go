package netns

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// addRedirects loads two chains into the namespace. One has a rule for each protocol and well-known port:
//
//	ip daddr 169.254.169.254 tcp dport 80 dnat to 169.254.169.254:61080
//	ip daddr 169.254.71.0/24 tcp dport 3307 dnat to 169.254.169.254:61307
//
// The other takes all that concerns no platform socket out of connection tracking, whose table would be full after
// some ten thousand short connections to the app:
//
//	ip daddr 169.254.169.254 accept
//	ip saddr 169.254.169.254 accept
//	ip daddr 169.254.71.0/24 accept
//	notrack
func addRedirects(ns int) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "giggle", Family: nftables.TableFamilyIPv4})
	raw := c.AddChain(&nftables.Chain{
		Name:     "raw",
		Table:    table,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityRaw,
	})
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	c.AddRule(&nftables.Rule{Table: table, Chain: raw, Exprs: append(address(destination, Platform), accept)})
	c.AddRule(&nftables.Rule{Table: table, Chain: raw, Exprs: append(address(source, Platform), accept)})
	c.AddRule(&nftables.Rule{Table: table, Chain: raw, Exprs: append(within(destination, Databases), accept)})
	c.AddRule(&nftables.Rule{Table: table, Chain: raw, Exprs: []expr.Any{&expr.Notrack{}}})

	chain := c.AddChain(&nftables.Chain{
		Name:     "output",
		Table:    table,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityNATDest,
	})
	for from, to := range redirect {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dnat(protocol, Platform, from, to)})
		}
	}
	c.AddRule(&nftables.Rule{
		Table: table,
		Chain: chain,
		Exprs: slices.Concat(within(destination, Databases), protocolIs(unix.IPPROTO_TCP), portIs(databasePort),
			redirection(Platform, databaseTo)),
	})
	return c.Flush()
}

// Where the addresses are in an IPv4 header, in bytes (RFC 791).
const source, destination = 12, 16

// address matches an address of the packet. Like all expressions here it works as the kernel's virtual machine does:
// load into register 1, compare.
func address(offset uint32, addr netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		equal(addr.AsSlice()),
	}
}

// within matches addresses of a network of whole bytes.
func within(offset uint32, network netip.Prefix) []expr.Any {
	n := network.Bits() / 8
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(n)},
		equal(network.Addr().AsSlice()[:n]),
	}
}

func protocolIs(protocol byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{protocol})}
}

// portIs matches the destination port.
func portIs(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, port)),
	}
}

func equal(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

// dnat gives packets to addr and port from the port to.
func dnat(protocol byte, addr netip.Addr, from, to uint16) []expr.Any {
	return slices.Concat(address(destination, addr), protocolIs(protocol), portIs(from), redirection(addr, to))
}

func redirection(addr netip.Addr, to uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: addr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}
