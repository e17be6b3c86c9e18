package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	vnetlink "github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
)

// Drop is a packet that an instance sent and that went nowhere.
type Drop struct {
	To       netip.AddrPort // port 0 for protocols without
	Protocol string         // "TCP", "UDP", "ICMP", …
	Crowded  bool           // the instance has too many connections open; else the address is closed
	// Unsupported is a protocol that the userspace path does not carry.
	Unsupported bool
}

// The messages of the kernel's log subsystem: include/uapi/linux/netfilter/nfnetlink_log.h.
const (
	logMessages = unix.NFNL_SUBSYS_ULOG << 8
	logConfig   = logMessages | 1
	logPacket   = logMessages

	configCommand, configMode, configTimeout, configThreshold = 1, 2, 4, 5
	commandBind                                               = 1
	modePacket                                                = 2
	attributePayload                                          = 9
	attributePrefix                                           = 10
)

// watchDrops tells the links of what the filter of a namespace has refused, until ctx ends.
func (r *Router) watchDrops(ctx context.Context, ns *netns.Namespace) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.Fd()})
	if err != nil {
		return err
	}
	for _, a := range []netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: append(binary.BigEndian.AppendUint32(nil, reportedBytes), modePacket, 0)},
		{Type: configTimeout, Data: binary.BigEndian.AppendUint32(nil, 1)},   // in 1/100 s
		{Type: configThreshold, Data: binary.BigEndian.AppendUint32(nil, 1)}, // packets in a message
	} {
		attributes, err := netlink.MarshalAttributes([]netlink.Attribute{a})
		if err == nil {
			_, err = c.Execute(netlink.Message{
				Header: netlink.Header{Type: logConfig, Flags: netlink.Request | netlink.Acknowledge},
				Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, reports}, attributes...),
			})
		}
		if err != nil {
			return errors.Join(fmt.Errorf("ask for dropped packets: %w", err), c.Close())
		}
	}
	context.AfterFunc(ctx, func() { _ = c.Close() })
	go func() {
		for {
			messages, err := c.Receive()
			if err != nil && ctx.Err() != nil {
				return
			}
			if err != nil && !errors.Is(err, unix.ENOBUFS) { // some were lost
				r.cfg.Log.Error("dropped packets are no longer reported", "err", err)
				return
			}
			for _, m := range messages {
				if m.Header.Type == logPacket {
					r.tell(m.Data)
				}
			}
		}
	}()
	return nil
}

// tell reports a dropped packet to the link that it came from.
func (r *Router) tell(message []byte) {
	if len(message) < 4 { // struct nfgenmsg
		return
	}
	attributes, err := netlink.UnmarshalAttributes(message[4:])
	if err != nil {
		return
	}
	var p packet
	var crowded bool
	for _, a := range attributes {
		switch a.Type {
		case attributePayload:
			p = parse(a.Data)
		case attributePrefix:
			crowded = strings.TrimRight(string(a.Data), "\x00") == crowdedPrefix
		}
	}
	if l := r.byAddress(p.from); l != nil && l.report != nil && p.to.IsValid() && !p.to.IsMulticast() {
		l.report(Drop{
			To:       netip.AddrPortFrom(p.to, p.port),
			Protocol: protocolName(p.protocol),
			Crowded:  crowded,
		})
	}
}

// watchAddresses keeps the sets of the machine's own addresses, until ctx ends.
func (r *Router) watchAddresses(ctx context.Context, ns *netns.Namespace) error {
	if r.cfg.All {
		return nil
	}
	c, err := nftables.New(nftables.WithNetNSFd(ns.Fd()))
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: "giggle", Family: nftables.TableFamilyINet}
	keep := func(a netip.Addr, there bool) error {
		a = a.Unmap()
		set, elements := machineSet(table, a.Is6()), []nftables.SetElement{{Key: a.AsSlice()}}
		if there {
			err = c.SetAddElements(set, elements)
		} else {
			err = c.SetDeleteElements(set, elements)
		}
		if err == nil {
			err = c.Flush()
		}
		if errors.Is(err, os.ErrNotExist) && !there || errors.Is(err, os.ErrExist) && there {
			return nil
		}
		return err
	}
	updates := make(chan vnetlink.AddrUpdate, 64)
	at := vnetns.NsHandle(r.host.Fd())
	err = vnetlink.AddrSubscribeWithOptions(updates, ctx.Done(), vnetlink.AddrSubscribeOptions{
		Namespace:    &at,
		ListExisting: true,
		ErrorCallback: func(err error) {
			if ctx.Err() == nil {
				r.cfg.Log.Error("the machine's addresses are no longer watched", "err", err)
			}
		},
	})
	if err != nil {
		return err
	}
	var present []vnetlink.Addr
	list := func() (err error) { present, err = vnetlink.AddrList(nil, vnetlink.FAMILY_ALL); return err }
	if err := r.host.Do(list); err != nil {
		return err
	}
	for _, p := range present { // before the first packet passes
		if a, ok := netip.AddrFromSlice(p.IP); ok {
			if err := keep(a, true); err != nil {
				return err
			}
		}
	}
	go func() {
		for u := range updates {
			a, ok := netip.AddrFromSlice(u.LinkAddress.IP)
			if !ok {
				continue
			}
			if err := keep(a, u.NewAddr); err != nil && ctx.Err() == nil {
				r.cfg.Log.Error("an address of the machine", "address", a, "err", err)
			}
		}
	}()
	return nil
}

// removeDevice takes a device of the calling thread's network away, if it is there.
func removeDevice(name string) error {
	link, err := vnetlink.LinkByName(name)
	if errors.As(err, new(vnetlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = vnetlink.LinkDel(link)
	}
	return err
}
