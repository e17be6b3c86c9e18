package netns

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// addRedirects loads, into the namespace, one rule for each protocol and well-known port:
//
//	ip daddr 169.254.169.254 tcp dport 80 dnat to 169.254.169.254:61080
func addRedirects(ns int) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "giggle", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	for from, to := range redirect {
		for _, protocol := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dnat(protocol, Platform, from, to)})
		}
	}
	return c.Flush()
}

// dnat is the rule as the kernel's virtual machine sees it: register 1 is loaded and compared, then 1 and 2 hold the
// new destination.
func dnat(protocol byte, addr netip.Addr, from, to uint16) []expr.Any {
	equal := func(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}, // RFC 791: destination
		equal(addr.AsSlice()),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		equal([]byte{protocol}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // destination port
		equal(binary.BigEndian.AppendUint16(nil, from)),
		&expr.Immediate{Register: 1, Data: addr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}
