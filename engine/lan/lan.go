// Package lan connects network namespaces with each other, as Docker's networks do those of containers.
//
//	container ──veth── bridge ──veth── container
//
// The bridges of a LAN are in a namespace of their own that leads nowhere else: whose containers are on one reach each
// other, and nobody else does. It is made when the first of them joins. A container finds the others by the names that
// they have joined with: the packets that it asks the platform's DNS with are answered here where they ask for one.
package lan

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
	"giggle/fault"
)

// LAN is networks that have nothing to do with others. It is safe for concurrent use. The zero value is ready.
type LAN struct {
	mu     sync.Mutex
	ns     *netns.Namespace // nil until somebody joins
	handle *netlink.Handle  // in ns
	serial int              // of devices
	closed bool
}

// Network is one bridge. Its members are on one range of addresses.
type Network struct {
	lan   *LAN
	Range netip.Prefix // of IPv4; the first address is nobody's

	bridge  netlink.Link // nil until somebody joins; guarded by lan.mu
	members []*port      // guarded by lan.mu
}

// Member says how a host joins a network.
type Member struct {
	Network *Network
	Names   []string // that the network's other members find it by
	// Optional has a host do without the network where this machine allows no such devices.
	Optional bool
}

// Host is a namespace on networks. The zero value is on none.
type Host struct {
	ns    *netns.Namespace
	mu    sync.Mutex
	ports []*port
	ended bool
}

// port is where a host is on a network.
type port struct {
	network *Network
	names   []string
	addr    netip.Addr
	link    netlink.Link // the bridge's end
}

// Network returns another network, which nobody is on.
func (l *LAN) Network(addresses netip.Prefix) *Network {
	return &Network{lan: l, Range: addresses.Masked()}
}

// Close takes the networks away. Their members are on none then.
func (l *LAN) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.ns == nil {
		return nil
	}
	l.handle.Close()
	err := l.ns.Close() // with the last file of it the kernel ends the namespace, and both ends of each pair
	l.ns = nil
	return err
}

// NewHost returns a host that is on no network yet. The caller ends it with Leave, before it closes the namespace.
func NewHost(ns *netns.Namespace) *Host { return &Host{ns: ns} }

// Join puts a host on a network. It fails with Unavailable where this machine allows no such devices, and with
// ResourceExhausted on a network that is full.
func (h *Host) Join(m Member) (err error) {
	defer fault.Wrap(&err, "lan.Join(%s)", m.Network.Range)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return fault.New(fault.FailedPrecondition, "The container has ended.")
	}
	for _, p := range h.ports {
		if p.network == m.Network {
			return fault.New(fault.AlreadyExists, "The container is on the network already.")
		}
	}
	p := &port{network: m.Network, names: lowered(m.Names)}
	device := fmt.Sprintf("eth%d", len(h.ports)+1) // eth0 is the way to the outside
	if err := m.Network.plug(p, h.ns, device); err != nil {
		return err
	}
	h.ports = append(h.ports, p)
	return nil
}

// Leave takes the host off a network; nil is all of them, for good.
func (h *Host) Leave(n *Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	h.ports = slices.DeleteFunc(h.ports, func(p *port) bool {
		if n != nil && p.network != n {
			return false
		}
		errs = append(errs, p.network.unplug(p))
		return true
	})
	h.ended = h.ended || n == nil
	return errors.Join(errs...)
}

// Address returns the host's address on a network; it is not valid where the host is not on it.
func (h *Host) Address(n *Network) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.ports {
		if p.network == n {
			return p.addr
		}
	}
	return netip.Addr{}
}

// lookup returns the addresses that a name has on the host's networks.
func (h *Host) lookup(name string) (addrs []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.ports {
		addrs = append(addrs, p.network.find(name)...)
	}
	return addrs
}

func (n *Network) find(name string) (addrs []netip.Addr) {
	n.lan.mu.Lock()
	defer n.lan.mu.Unlock()
	for _, m := range n.members {
		if slices.Contains(m.names, name) {
			addrs = append(addrs, m.addr)
		}
	}
	return addrs
}

// Members is how many hosts are on the network.
func (n *Network) Members() int {
	n.lan.mu.Lock()
	defer n.lan.mu.Unlock()
	return len(n.members)
}

func lowered(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = strings.ToLower(name)
	}
	return out
}

// plug gives a namespace a device on the network.
func (n *Network) plug(p *port, ns *netns.Namespace, device string) error {
	l := n.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := n.open(); err != nil {
		return refused(err)
	}
	addr, err := n.free()
	if err != nil {
		return err
	}
	p.addr = addr
	l.serial++
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: fmt.Sprintf("v%d", l.serial), MasterIndex: n.bridge.Attrs().Index},
		PeerName:      device,
		PeerNamespace: netlink.NsFd(ns.Fd()),
	}
	if err := l.handle.LinkAdd(veth); err != nil {
		return refused(fmt.Errorf("veth pair: %w", err))
	}
	if p.link, err = l.handle.LinkByName(veth.Name); err != nil {
		return err
	}
	if err := errors.Join(ns.Do(func() error { return furnish(device, addr, n.Range.Bits()) }),
		l.handle.LinkSetUp(p.link)); err != nil {
		return errors.Join(err, l.handle.LinkDel(p.link))
	}
	n.members = append(n.members, p)
	return nil
}

// refused is the fault of a machine that allows no bridges or pairs.
func refused(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) {
		return &fault.Error{
			Code:    fault.Unavailable,
			Message: "This machine does not let containers have a network of their own (" + err.Error() + ").",
			Cause:   err,
		}
	}
	return err
}

// furnish sets up a member's end. It runs on a thread in its namespace.
func furnish(device string, addr netip.Addr, bits int) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	for _, setting := range [][2]string{
		{"ipv6/conf/" + device + "/addr_gen_mode", "1"}, // no addresses that nobody has asked for
		{"ipv4/conf/" + device + "/forwarding", "0"},    // a container is no way to the outside of another
		{"ipv6/conf/" + device + "/forwarding", "0"},
	} {
		err := os.WriteFile("/proc/sys/net/"+setting[0], []byte(setting[1]), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	at := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, 32)}}
	if err := netlink.AddrAdd(link, at); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	return netlink.LinkSetUp(link)
}

// open makes the bridge, and the namespace that it is in.
func (n *Network) open() error {
	l := n.lan
	if l.closed {
		return fault.New(fault.FailedPrecondition, "The network is gone.")
	}
	if l.ns == nil {
		ns, err := netns.Bare()
		if err != nil {
			return err
		}
		handle, err := netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
		if err != nil {
			return errors.Join(err, ns.Close())
		}
		l.ns, l.handle = ns, handle
	}
	if n.bridge != nil {
		return nil
	}
	l.serial++
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("br%d", l.serial)}}
	if err := l.handle.LinkAdd(bridge); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	link, err := l.handle.LinkByName(bridge.Name)
	if err != nil {
		return err
	}
	if err := l.handle.LinkSetUp(link); err != nil {
		return err
	}
	n.bridge = link
	return nil
}

// most is how many hosts may be on one network: a bridge has no more than 1023.
const most = 250

// free is an address that no member has.
func (n *Network) free() (netip.Addr, error) {
	if len(n.members) < most {
		at := n.Range.Addr().Next() // the gateway's, as Docker has it
		for range most + 1 {
			at = at.Next()
			if n.Range.Contains(at) && !slices.ContainsFunc(n.members, func(p *port) bool { return p.addr == at }) {
				return at, nil
			}
		}
	}
	return netip.Addr{}, fault.New(fault.ResourceExhausted, "The network %s is full: %d containers are on it.", n.Range,
		len(n.members))
}

// unplug takes a member's device away.
func (n *Network) unplug(p *port) error {
	l := n.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	n.members = slices.DeleteFunc(n.members, func(m *port) bool { return m == p })
	if l.ns == nil {
		return nil
	}
	err := l.handle.LinkDel(p.link)
	if errors.Is(err, unix.ENODEV) { // it went with the other end
		return nil
	}
	return err
}

// Close takes an empty network away. It fails with FailedPrecondition while hosts are on it.
func (n *Network) Close() error {
	l := n.lan
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(n.members) > 0 {
		return fault.New(fault.FailedPrecondition, "%d containers are on the network.", len(n.members))
	}
	if l.ns == nil || n.bridge == nil {
		return nil
	}
	bridge := n.bridge
	n.bridge = nil
	return l.handle.LinkDel(bridge)
}
