// Package egress gives the network namespaces of instances a way to the outside.
//
//	instance ──veth── the router's namespace ──veth── the machine ── its default route
//	                  filter, NAT                     NAT
//
// An instance that is armed has a route to the outside that leads to a TUN device, which is cheap and which nobody
// reads but a goroutine that waits. The first packet makes the veth pair, and is sent again through it: what never
// dials pays for a device, and nothing is done while an instance starts. The router's namespace, its filter and the
// machine's rules are made when the first of them dials.
//
// Where the machine does not let the platform make devices or rules, the TUN device stays, and a TCP/IP stack in this
// process serves it: userspace.go.
package egress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
	"giggle/fault"
)

// Config is what a Router needs.
type Config struct {
	Key string // of the platform: 1 to 12 letters and digits, in the names of its device and table on the machine
	// All opens private addresses and the machine's own, too. Never open unless allowed are loopback, link-local
	// (metadata servers of clouds), multicast and reserved addresses.
	All   bool
	Allow []Allow // what is open besides
	// Required has the platform not start where the machine lacks what a way out is made of (Available).
	Required bool
	// Connections is how many one instance may have open to the outside; 0 is 8192.
	Connections int
	Path        Path
	// Sockets is how many of the process's descriptors connections of the userspace path may take; 0 is 4096.
	Sockets int
	Log     *slog.Logger
}

// Link is the way out of one namespace. A nil one, which a nil Router gives, does nothing.
type Link struct {
	r      *Router
	ns     *netns.Namespace
	n      int // its number, from 0
	report func(Drop)
	tun    *tun

	mu    sync.Mutex
	veth  int // index in the router's namespace, 0 while there is none
	user  *userspace
	ended bool
	sent  uint64 // bytes, once it has ended
}

// Router connects namespaces with the outside. It is safe for concurrent use.
type Router struct {
	cfg Config

	host       *netns.Namespace // where the machine's routes are
	hostRoutes *netlink.Handle  // in host
	prefix     netip.Addr       // of the instances' IPv6 addresses
	closed     []netip.Prefix

	decided    chan struct{} // closed once impossible is known
	impossible error         // why the kernel's path can't be gone; guarded by mu from then on

	open    sync.Mutex // held while the namespace is made
	ns      *netns.Namespace
	handle  *netlink.Handle // in ns
	up      *uplink
	closing context.CancelFunc

	mu      sync.Mutex
	links   []*Link // by number
	free    []int   // the last one is given out first
	sockets int     // that are left to the userspace path
	sent    atomic.Uint64
}

// Available fails with Unavailable where the machine lacks what a way out is made of, and says what to do.
func Available() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fault.Error{
			Code: fault.Unavailable,
			Message: "Containers can't reach the outside: there is no TUN device on this machine (" + err.Error() +
				"). Load it with `modprobe tun`; in a container, give it /dev/net/tun.",
			Cause: err,
		}
	}
	return unix.Close(fd)
}

// New returns a router. It makes nothing yet; what an earlier one of the same key has left on the machine goes.
func New(cfg Config) (_ *Router, err error) {
	defer fault.Wrap(&err, "egress.New")
	host, err := netns.Host()
	if err != nil {
		return nil, err
	}
	if cfg.Connections == 0 {
		cfg.Connections = 8192
	}
	if cfg.Sockets == 0 {
		cfg.Sockets = 4096
	}
	r := &Router{
		cfg:     cfg,
		host:    host,
		prefix:  uniqueLocal(cfg.Key),
		closed:  closed(cfg.All),
		sockets: cfg.Sockets,
		decided: make(chan struct{}),
	}
	if r.hostRoutes, err = netlink.NewHandleAt(vnetns.NsHandle(host.Fd()), unix.NETLINK_ROUTE); err != nil {
		return nil, errors.Join(err, host.Close())
	}
	cleared := r.host.Do(r.clearHost)
	if err := r.choose(cleared); err != nil {
		r.hostRoutes.Close()
		return nil, errors.Join(err, host.Close())
	}
	return r, nil
}

// most is how many namespaces may be armed at once: the addresses from 169.254.128.1 to 169.254.144.0.
const most = 4 << 10

// Address returns the addresses of the link's namespace.
func (l *Link) Address() (v4, v6 netip.Addr) { return address4(l.n), l.r.address6(l.n) }

func address4(n int) netip.Addr {
	n++
	return netip.AddrFrom4([4]byte{169, 254, 128 + byte(n>>8), byte(n)})
}

func (r *Router) address6(n int) netip.Addr {
	a := r.prefix.As16()
	a[6], a[7], a[14], a[15] = 0, 1, byte((n+1)>>8), byte(n+1)
	return netip.AddrFrom16(a)
}

// Arm gives a namespace a route to the outside. Report hears of packets that were dropped; it must not block. The
// caller ends it with Close before it closes the namespace. A nil Router arms nothing.
func (r *Router) Arm(ns *netns.Namespace, report func(Drop)) (_ *Link, err error) {
	if r == nil {
		return nil, nil
	}
	defer fault.Wrap(&err, "egress.Arm")
	l := &Link{r: r, ns: ns, report: report}
	if err := r.number(l); err != nil {
		return nil, err
	}
	if l.tun, err = openTUN(ns, l); err != nil {
		r.forget(l)
		return nil, err
	}
	go l.wait()
	return l, nil
}

// number gives a link its number.
func (r *Router) number(l *Link) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := len(r.free); k > 0 {
		l.n = r.free[k-1]
		r.free = r.free[:k-1]
		r.links[l.n] = l
		return nil
	}
	if l.n = len(r.links); l.n == most {
		return fault.New(fault.ResourceExhausted, "%d containers have a way out, which is the most.", most)
	}
	r.links = append(r.links, l)
	return nil
}

func (r *Router) forget(l *Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links[l.n] = nil
	r.free = append(r.free, l.n)
}

// byAddress returns the link that an address belongs to, or nil.
func (r *Router) byAddress(a netip.Addr) *Link {
	var n int
	switch b := a.AsSlice(); {
	case a.Is4() && b[0] == 169 && b[1] == 254 && b[2] >= 128:
		n = int(b[2]-128)<<8 | int(b[3])
	case a.Is6() && a == r.address6(int(b[14])<<8|int(b[15])-1):
		n = int(b[14])<<8 | int(b[15])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n == 0 || n > len(r.links) {
		return nil
	}
	return r.links[n-1]
}

// wait makes the way out when the first packet comes.
func (l *Link) wait() {
	packets := l.tun.first()
	if packets == nil {
		return // closed
	}
	var err error
	if !l.r.inUserspace() {
		if err = l.r.start(); denied(err) && l.r.cfg.Path != Kernel {
			l.r.fallBack(err)
		}
	}
	if l.r.inUserspace() {
		l.serve(packets)
		return
	}
	if err == nil {
		err = l.connect(packets)
	}
	if err != nil && !l.isEnded() {
		l.r.cfg.Log.Error("connect a container with the outside", "err", err)
	}
	// Only now: it takes the kernel a while to take a device away, and the packets are on their way already.
	if err := l.tun.Close(); err != nil {
		l.r.cfg.Log.Error("take an idle device away", "err", err)
	}
}

// serve has packets passed on in userspace until the link is closed, which waits for the end of that.
func (l *Link) serve(packets [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	user, err := newUserspace(l)
	if err != nil {
		l.r.cfg.Log.Error("connect a container with the outside", "err", err)
		return
	}
	l.user = user
	user.works.Go(func() { user.serve(packets) })
}

func (l *Link) isEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// connect makes the veth pair and sends the packets that have come so far through it. The router must be started.
func (l *Link) connect(packets [][]byte) (err error) {
	r := l.r
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	if l.veth, err = r.pair(l); err != nil {
		return err
	}
	if err := l.ns.Do(func() error { return l.tun.replace(r.up.v6) }); err != nil {
		return err
	}
	if err := carries(func() (netlink.Link, error) { return r.handle.LinkByIndex(l.veth) }); err != nil {
		return err
	}
	return l.ns.Do(func() error {
		return resend(append(packets, l.tun.waiting()...))
	})
}

// carries waits until a device passes packets on: the kernel does that in its own time after both ends of a pair are
// up, and drops answers before.
func carries(find func() (netlink.Link, error)) error {
	for range 1000 {
		link, err := find()
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		time.Sleep(200 * time.Microsecond)
	}
	return fault.New(fault.Unavailable, "A container's device did not come up.")
}

// Sent returns how many bytes have left the namespace.
func (l *Link) Sent() uint64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes()
}

func (l *Link) bytes() uint64 {
	if l.user != nil {
		return l.user.sent.Load()
	}
	if l.veth == 0 || l.ended {
		return l.sent
	}
	link, err := l.r.handle.LinkByIndex(l.veth)
	if err != nil || link.Attrs().Statistics == nil {
		return l.sent
	}
	return link.Attrs().Statistics.RxBytes
}

// Close takes the way out away.
func (l *Link) Close() error {
	if l == nil {
		return nil
	}
	err := l.tun.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	if l.user != nil {
		l.user.close()
	}
	l.sent, l.ended = l.bytes(), true
	l.r.sent.Add(l.sent)
	if l.veth != 0 {
		gone := l.r.handle.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.veth}})
		if !errors.Is(gone, unix.ENODEV) {
			err = errors.Join(err, gone)
		}
	}
	l.r.forget(l)
	return err
}

// Sent returns how many bytes have left all namespaces.
func (r *Router) Sent() uint64 {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	links := append([]*Link(nil), r.links...)
	r.mu.Unlock()
	sum := r.sent.Load()
	for _, l := range links {
		if l != nil && !l.isEnded() {
			sum += l.Sent()
		}
	}
	return sum
}

// start makes the router's namespace unless it is there.
func (r *Router) start() (err error) {
	defer fault.Wrap(&err, "egress.start")
	r.open.Lock()
	defer r.open.Unlock()
	if r.ns != nil {
		return nil
	}
	ns, err := netns.Bare()
	if err != nil {
		return err
	}
	handle, err := netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()))
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	fail := func(err error) error { // the next one to dial tries again, on a machine as it was
		cancel()
		handle.Close()
		return errors.Join(err, r.host.Do(r.clearHost), ns.Close())
	}
	up, err := r.connectMachine(ns)
	if err != nil {
		return fail(err)
	}
	if err := ns.Do(func() error { return r.furnish(ns, up) }); err != nil {
		return fail(err)
	}
	uplink := func() (netlink.Link, error) { return netlink.LinkByName(r.hostDevice()) }
	if err := r.host.Do(func() error { return carries(uplink) }); err != nil {
		return fail(err)
	}
	if err := r.watchDrops(ctx, ns); err != nil {
		return fail(err)
	}
	if err := r.watchAddresses(ctx, ns); err != nil {
		return fail(err)
	}
	r.up = up
	if err := r.watchRoutes(ctx); err != nil {
		return fail(err)
	}
	r.ns, r.handle, r.closing = ns, handle, cancel
	return nil
}

// pair connects a link's namespace with the router's, and returns the device in the latter.
func (r *Router) pair(l *Link) (int, error) {
	name := fmt.Sprintf("i%d", l.n)
	inner, outer := mac(l.n, 0), mac(l.n, 1)
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{
			Name:         name,
			MTU:          r.up.mtu,
			HardwareAddr: outer,
			TxQLen:       1000,
			NumTxQueues:  1,
			NumRxQueues:  1,
			Flags:        net.FlagUp,
		},
		PeerName:         device,
		PeerHardwareAddr: inner,
		PeerNamespace:    netlink.NsFd(l.ns.Fd()),
		PeerMTU:          uint32(r.up.mtu),
		PeerNumTxQueues:  1,
		PeerNumRxQueues:  1,
	}
	if err := r.handle.LinkAdd(veth); err != nil {
		return 0, fmt.Errorf("veth pair: %w", err)
	}
	index := veth.Index
	if index == 0 {
		link, err := r.handle.LinkByName(name)
		if err != nil {
			return 0, err
		}
		index = link.Attrs().Index
	}
	v4, v6 := l.Address()
	for _, a := range []netip.Addr{v4, v6} {
		if a.Is6() && !r.up.v6 {
			continue
		}
		if err := r.handle.NeighSet(permanent(index, a, inner)); err != nil {
			return index, fmt.Errorf("neighbour %s: %w", a, err)
		}
		route := &netlink.Route{LinkIndex: index, Dst: ipNet(host(a)), Scope: netlink.SCOPE_LINK}
		if err := r.handle.RouteReplace(route); err != nil {
			return index, fmt.Errorf("route to %s: %w", a, err)
		}
	}
	return index, nil
}

// Close takes everything off the machine. All links must be closed. A second call does nothing.
func (r *Router) Close() error {
	if r == nil {
		return nil
	}
	r.open.Lock()
	defer r.open.Unlock()
	var errs []error
	if r.ns != nil {
		r.closing()
		r.handle.Close()
		errs = append(errs, r.host.Do(r.clearHost), r.ns.Close())
		r.ns = nil
	}
	if r.host != nil {
		<-r.decided
		r.hostRoutes.Close()
		errs = append(errs, r.host.Close())
		r.host = nil
	}
	return errors.Join(errs...)
}

// mac is the address of one side of the veth pair of a number.
func mac(n int, side byte) net.HardwareAddr {
	return net.HardwareAddr{0x02, 'g', 'g', side, byte(n >> 8), byte(n)}
}

// host is the prefix that holds one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// permanent is a neighbour that nobody need ask for.
func permanent(link int, a netip.Addr, at net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    link,
		State:        netlink.NUD_PERMANENT,
		IP:           a.AsSlice(),
		HardwareAddr: at,
	}
}
