// Package testnet makes a small internet of network namespaces for tests and benchmarks: a machine with a default
// route, and everything that lies behind it. No packet leaves it.
package testnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
	"giggle/fault"
)

// The addresses of the machine and of its router.
var (
	Machine4 = netip.MustParseAddr("192.0.2.2")
	Machine6 = netip.MustParseAddr("2001:db8:1::2")
	router4  = netip.MustParseAddr("192.0.2.1")
	router6  = netip.MustParseAddr("2001:db8:1::1")
)

// Net is a machine and what it can reach.
type Net struct {
	Machine *netns.Namespace // with eth0 and a default route
	Outside *netns.Namespace // has all other addresses
}

// New makes a machine, and an outside that has the addresses besides its own. MTU is that of the way between them.
func New(mtu int, outside ...netip.Addr) (_ *Net, err error) {
	defer fault.Wrap(&err, "testnet.New")
	n := &Net{}
	if n.Machine, err = netns.Bare(); err != nil {
		return nil, err
	}
	if n.Outside, err = netns.Bare(); err != nil {
		return nil, errors.Join(err, n.Machine.Close())
	}
	err = n.Outside.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: "machine", MTU: mtu},
			PeerName:      "eth0",
			PeerNamespace: netlink.NsFd(n.Machine.Fd()),
			PeerMTU:       uint32(mtu),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if err := errors.Join(up("lo", outside...), up("machine", router4, router6)); err != nil {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	})
	if err == nil {
		err = n.Machine.Do(func() error {
			if err := errors.Join(up("lo"), up("eth0", Machine4, Machine6)); err != nil {
				return err
			}
			return errors.Join(defaultRoute(router4), defaultRoute(router6))
		})
	}
	if err == nil {
		err = errors.Join(carries(n.Machine, "eth0"), carries(n.Outside, "machine"))
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// carries waits until the kernel says that a device of a namespace passes packets on.
func carries(ns *netns.Namespace, device string) error {
	done, updates := make(chan struct{}), make(chan netlink.LinkUpdate, 64)
	defer close(done)
	at := vnetns.NsHandle(ns.Fd())
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		Namespace:    &at,
		ListExisting: true,
	})
	if err != nil {
		return err
	}
	timeout := time.After(10 * time.Second)
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return errors.New("the kernel no longer says what becomes of " + device)
			}
			if a := u.Attrs(); a.Name == device && a.OperState == netlink.OperUp {
				return nil
			}
		case <-timeout:
			return errors.New(device + " did not come up")
		}
	}
}

// up gives a device of the calling thread's namespace addresses and starts it.
func up(device string, addresses ...netip.Addr) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		bits := a.BitLen()
		if device != "lo" {
			bits = map[bool]int{true: 24, false: 64}[a.Is4()]
		}
		addr := &netlink.Addr{
			IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())},
			Flags: unix.IFA_F_NODAD,
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return netlink.LinkSetUp(link)
}

func defaultRoute(via netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	all := &net.IPNet{IP: make(net.IP, via.BitLen()/8), Mask: net.CIDRMask(0, via.BitLen())}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Gw: via.AsSlice()})
}

// Close lets go of both.
func (n *Net) Close() error { return errors.Join(n.Machine.Close(), n.Outside.Close()) }

// Plain returns a namespace that is connected with the machine by nothing but a veth pair and masquerading: what a way
// out costs at least, to stand beside another.
func (n *Net) Plain() (_ *netns.Namespace, err error) {
	defer fault.Wrap(&err, "testnet.Plain")
	ns, err := netns.Bare()
	if err != nil {
		return nil, err
	}
	inner, outer := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.1")
	err = n.Machine.Do(func() error {
		way, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: "plain", MTU: way.Attrs().MTU},
			PeerName:      "eth0",
			PeerNamespace: netlink.NsFd(ns.Fd()),
			PeerMTU:       uint32(way.Attrs().MTU),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return err
		}
		return errors.Join(up("plain", outer), masquerade("eth0"))
	})
	if err == nil {
		err = ns.Do(func() error { return errors.Join(up("lo"), up("eth0", inner), defaultRoute(outer)) })
	}
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// masquerade has what leaves the calling thread's network by a device carry the device's address.
func masquerade(device string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "plain", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name:     "out",
		Table:    table,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	})
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Masq{},
	}})
	return c.Flush()
}
