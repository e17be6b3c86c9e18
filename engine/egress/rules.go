package egress

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
)

const (
	// reports is the group of netlink where dropped packets are reported.
	reports = 71
	// crowdedPrefix marks the reports of instances that have too many connections open.
	crowdedPrefix = "crowded"
	// reportedBytes is how much of a dropped packet is reported: its headers.
	reportedBytes = 64
	// The most reports in a second, and at once: who floods is not to keep the platform busy.
	reportRate, reportBurst = 50, 100
)

// The sets of addresses that the machine itself has, kept by watchAddresses.
const machine4, machine6 = "machine4", "machine6"

// addRules loads the filter of the router's namespace:
//
//	table inet giggle {
//		chain spoofed {                                  # nobody sends in another's name
//			type filter hook prerouting priority raw
//			iifname != up0 fib saddr . iif oif missing drop
//		}
//		chain forward {
//			type filter hook forward priority filter; policy drop
//			tcp flags syn tcp option maxseg size set rt mtu
//			iifname up0 oifname up0 drop                 # for an instance that has ended: not out again
//			ct state established,related accept
//			iifname up0 drop                             # nobody calls in
//			oifname != up0 jump refused                  # no instance calls another
//			ct state invalid drop
//			add @connections4 { ip saddr ct count over 8192 } jump crowded
//			<allowed> accept …
//			ip daddr @machine4 jump refused
//			<closed> jump refused …
//			accept
//		}
//		chain refused { # and crowded alike, with another prefix
//			limit rate 50/second log prefix closed group 71; reject with icmpx admin-prohibited }
//		chain input   { type filter hook input priority filter; policy drop
//			iifname lo accept; iifname up0 accept; jump refused }
//		chain out     { type nat hook postrouting priority srcnat; oifname up0 masquerade }
//	}
func (r *Router) addRules(ns *netns.Namespace) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns.Fd()))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "giggle", Family: nftables.TableFamilyINet})
	drop := nftables.ChainPolicyDrop
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, at *nftables.ChainPriority,
		policy *nftables.ChainPolicy) *nftables.Chain {
		return c.AddChain(&nftables.Chain{
			Name:     name,
			Table:    table,
			Type:     kind,
			Hooknum:  hook,
			Priority: at,
			Policy:   policy,
		})
	}
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		var exprs []expr.Any
		for _, p := range parts {
			exprs = append(exprs, p...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}

	refusal := func(name, prefix string) *nftables.Chain {
		chain := c.AddChain(&nftables.Chain{Name: name, Table: table})
		rule(chain, []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: reportRate, Unit: expr.LimitTimeSecond, Burst: reportBurst},
			&expr.Log{
				Key:     1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN | 1<<unix.NFTA_LOG_PREFIX,
				Group:   reports,
				Snaplen: reportedBytes,
				Data:    []byte(prefix),
			},
		})
		rule(chain, reject())
		return chain
	}
	refused, crowded := refusal("refused", "closed"), refusal("crowded", crowdedPrefix)

	spoofed := chain("spoofed", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, nil)
	rule(spoofed, through(expr.MetaKeyIIFNAME, expr.CmpOpNeq, uplinkDevice), []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true, FlagPRESENT: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}},
	}, verdict(expr.VerdictDrop))

	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter,
		&drop)
	rule(forward, clampMSS())
	inbound := through(expr.MetaKeyIIFNAME, expr.CmpOpEq, uplinkDevice)
	rule(forward, inbound, through(expr.MetaKeyOIFNAME, expr.CmpOpEq, uplinkDevice), verdict(expr.VerdictDrop))
	rule(forward, state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))
	rule(forward, inbound, verdict(expr.VerdictDrop))
	rule(forward, through(expr.MetaKeyOIFNAME, expr.CmpOpNeq, uplinkDevice), jump(refused))
	rule(forward, state(expr.CtStateBitINVALID), verdict(expr.VerdictDrop))
	for _, v6 := range []bool{false, true} {
		set, err := r.connectionSet(c, table, v6)
		if err != nil {
			return err
		}
		rule(forward, family(v6), []expr.Any{payload(sourceOf(v6)), &expr.Dynset{
			SrcRegKey: 1,
			SetName:   set.Name,
			SetID:     set.ID,
			Operation: uint32(unix.NFT_DYNSET_OP_ADD),
			Exprs:     []expr.Any{&expr.Connlimit{Count: uint32(r.cfg.Connections), Flags: 1}}, // over
		}}, jump(crowded))
	}
	for _, a := range r.cfg.Allow {
		rule(forward, to(a.To), port(a.Port), verdict(expr.VerdictAccept))
	}
	if !r.cfg.All {
		for _, v6 := range []bool{false, true} {
			set := machineSet(table, v6)
			if err := c.AddSet(set, nil); err != nil {
				return err
			}
			rule(forward, family(v6), []expr.Any{
				payload(destinationOf(v6)),
				&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
			}, jump(refused))
		}
	}
	for _, p := range closed(r.cfg.All) {
		rule(forward, to(p), jump(refused))
	}
	rule(forward, verdict(expr.VerdictAccept))

	input := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, &drop)
	for _, name := range []string{"lo", uplinkDevice} {
		rule(input, through(expr.MetaKeyIIFNAME, expr.CmpOpEq, name), verdict(expr.VerdictAccept))
	}
	rule(input, jump(refused))

	out := chain("out", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nil)
	rule(out, through(expr.MetaKeyOIFNAME, expr.CmpOpEq, uplinkDevice), []expr.Any{&expr.Masq{}})
	return c.Flush()
}

func machineSet(table *nftables.Table, v6 bool) *nftables.Set {
	if v6 {
		return &nftables.Set{Table: table, Name: machine6, KeyType: nftables.TypeIP6Addr}
	}
	return &nftables.Set{Table: table, Name: machine4, KeyType: nftables.TypeIPAddr}
}

// connectionSet counts the connections of each source.
func (r *Router) connectionSet(c *nftables.Conn, table *nftables.Table, v6 bool) (*nftables.Set, error) {
	set := &nftables.Set{
		Table:   table,
		Name:    "connections4",
		KeyType: nftables.TypeIPAddr,
		Dynamic: true,
		Size:    most,
	}
	if v6 {
		set.Name, set.KeyType = "connections6", nftables.TypeIP6Addr
	}
	return set, c.AddSet(set, nil)
}

// hostTable is the name of the platform's table on the machine.
func (r *Router) hostTable() string { return "giggle-" + r.cfg.Key }

// addHostRules loads the machine's part, on a thread in its network: what comes through the uplink goes out in the
// machine's own name, and nothing of it is for the machine itself unless that is open.
//
//	table inet giggle-KEY {
//		chain out   { type nat hook postrouting priority srcnat; ip saddr <uplink> masquerade }
//		chain input { type filter hook input priority filter
//			iifname gg-KEY ct state established,related accept
//			iifname gg-KEY meta l4proto ipv6-icmp accept
//			iifname gg-KEY <allowed> accept …
//			iifname gg-KEY reject with icmpx admin-prohibited }
//	}
func (r *Router) addHostRules(up *uplink) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: r.hostTable(), Family: nftables.TableFamilyINet})
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		var exprs []expr.Any
		for _, p := range parts {
			exprs = append(exprs, p...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
	}
	out := c.AddChain(&nftables.Chain{
		Name:     "out",
		Table:    table,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	})
	for _, a := range []netip.Addr{up.here, up.here6} {
		rule(out, family(a.Is6()), []expr.Any{payload(sourceOf(a.Is6())), equal(a.AsSlice()), &expr.Masq{}})
	}
	input := c.AddChain(&nftables.Chain{
		Name:     "input",
		Table:    table,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter,
	})
	ours := through(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.hostDevice())
	rule(input, ours, state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))
	rule(input, ours, protocol(unix.IPPROTO_ICMPV6), verdict(expr.VerdictAccept)) // neighbours
	for _, a := range r.cfg.Allow {
		rule(input, ours, to(a.To), port(a.Port), verdict(expr.VerdictAccept))
	}
	if !r.cfg.All {
		rule(input, ours, reject())
	}
	return c.Flush()
}

// clearHost takes what a router of this key has made off the machine, on a thread in its network.
func (r *Router) clearHost() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.Name == r.hostTable() {
			c.DelTable(t)
		}
	}
	if err := r.unpassDocker(c); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	return removeDevice(r.hostDevice())
}

// The expressions below work as the kernel's virtual machine does: load into register 1, compare.

func equal(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func jump(to *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to.Name}}
}

func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

// through compares the name of the device that a packet came by, or goes by.
func through(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

// state matches connections in one of the states.
func state(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1,
			DestRegister:   1,
			Len:            4,
			Mask:           binaryutil.NativeEndian.PutUint32(bits),
			Xor:            make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// family matches packets of IPv4 or of IPv6.
func family(v6 bool) []expr.Any {
	kind := byte(unix.NFPROTO_IPV4)
	if v6 {
		kind = unix.NFPROTO_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{kind})}
}

// sourceOf and destinationOf are where a header has its addresses, and how long they are, in bytes (RFC 791, RFC 8200).
func sourceOf(v6 bool) (offset, length uint32) {
	if v6 {
		return 8, net.IPv6len
	}
	return 12, net.IPv4len
}

func destinationOf(v6 bool) (offset, length uint32) {
	if v6 {
		return 24, net.IPv6len
	}
	return 16, net.IPv4len
}

func payload(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// to matches packets to the addresses of a prefix.
func to(p netip.Prefix) []expr.Any {
	v6 := p.Addr().Is6()
	bytes := p.Addr().AsSlice()
	return append(family(v6),
		payload(destinationOf(v6)),
		&expr.Bitwise{
			SourceRegister: 1,
			DestRegister:   1,
			Len:            uint32(len(bytes)),
			Mask:           net.CIDRMask(p.Bits(), p.Addr().BitLen()),
			Xor:            make([]byte, len(bytes)),
		},
		equal(bytes))
}

func protocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{p})}
}

// port matches packets to a port, whatever their protocol; 0 is every port.
func port(n uint16) []expr.Any {
	if n == 0 {
		return nil
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, n)),
	}
}

// clampMSS has connections use no more than fits into the packets of their way, which not every way says by itself.
func clampMSS() []expr.Any {
	const flags, syn, rst = 13, 0x02, 0x04 // RFC 9293, 3.1
	const kind, value, size = 2, 2, 2      // of the option: RFC 9293, 3.2
	return append(protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{syn | rst}, Xor: []byte{0}},
		equal([]byte{syn}),
		&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: size, Size: size},
		&expr.Exthdr{SourceRegister: 1, Type: kind, Offset: value, Len: size, Op: expr.ExthdrOpTcpopt},
	)
}
