package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"giggle/engine/netns"
)

const (
	device     = "eth0"  // in an instance's namespace, once it dials
	idleDevice = "idle0" // before
	idleMTU    = 1280    // the least of IPv6: it goes through whatever the way turns out to be
	// mostPackets is how many packets are kept while the way out is made.
	mostPackets = 64
)

// gateway4 and gateway6 are the router as instances see it. They need not exist: where they are is told beforehand.
var (
	gateway4 = netip.AddrFrom4([4]byte{169, 254, 127, 1})
	gateway6 = netip.MustParseAddr("fe80::1")
)

// tun is the device that an instance's packets go to before there is a way out.
type tun struct {
	file  *os.File
	index int
	link  *Link
}

// openTUN makes the device with the routes to it, and gives the namespace its addresses.
func openTUN(ns *netns.Namespace, l *Link) (_ *tun, err error) {
	t := &tun{link: l}
	err = ns.Do(func() (err error) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
		}
		request, err := unix.NewIfreq(idleDevice)
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return errors.Join(os.NewSyscallError("TUNSETIFF", err), unix.Close(fd))
		}
		t.file = os.NewFile(uintptr(fd), "tun") // after the ioctl: the poller then knows a file that can be waited for
		return t.route()
	})
	if err != nil && t.file != nil {
		err = errors.Join(err, t.file.Close())
	}
	return t, err
}

// route leads everything to the device.
func (t *tun) route() error {
	link, err := netlink.LinkByName(idleDevice)
	if err != nil {
		return err
	}
	t.index = link.Attrs().Index
	if err := quiet(idleDevice); err != nil {
		return err
	}
	mtu := idleMTU
	if t.link.r.inUserspace() {
		mtu = userspaceMTU
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	v4, v6 := t.link.Address()
	for _, a := range []netip.Addr{v4, v6} {
		// On lo, so that it stays when the device changes, with the connections that have it.
		addr := &netlink.Addr{IPNet: ipNet(host(a)), Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
		if a.Is6() {
			if err := own(lo, a); err != nil {
				return fmt.Errorf("address %s: %w", a, err)
			}
		}
		if err := netlink.RouteAdd(defaultRoute(t.index, a, 1024)); err != nil {
			return fmt.Errorf("route to the outside: %w", err)
		}
	}
	return nil
}

// own has packets to an address of IPv6 taken in at once. The kernel gets round to that in its own time (it looks for
// duplicates first, even on lo), and refuses them meanwhile, for half a minute where it remembers that it has.
func own(lo netlink.Link, a netip.Addr) error {
	err := netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index,
		Dst:       ipNet(host(a)),
		Type:      unix.RTN_LOCAL,
		Table:     unix.RT_TABLE_LOCAL,
	})
	if errors.Is(err, unix.EEXIST) { // it was quick
		return nil
	}
	return err
}

// defaultRoute leads everything to a device, from an address.
func defaultRoute(link int, from netip.Addr, priority int) *netlink.Route {
	all := &net.IPNet{IP: make(net.IP, from.BitLen()/8), Mask: net.CIDRMask(0, from.BitLen())}
	return &netlink.Route{LinkIndex: link, Dst: all, Src: from.AsSlice(), Priority: priority}
}

// quiet keeps a device of the calling thread's namespace from speaking on its own.
func quiet(name string) error {
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/addr_gen_mode", []byte("1"), 0) // none
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// first waits for packets that are meant for somebody. It returns nil once the device is closed.
func (t *tun) first() [][]byte {
	buf := make([]byte, 64<<10)
	for {
		n, err := t.file.Read(buf)
		if err != nil {
			return nil
		}
		if p := buf[:n]; unicast(p) {
			return [][]byte{append([]byte(nil), p...)}
		}
	}
}

// unicast reports whether a packet goes to one host.
func unicast(p []byte) bool {
	to := destination(p)
	return to.IsValid() && !to.IsMulticast() && to != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// replace makes the device that has come the way out. It runs on a thread in the namespace.
func (t *tun) replace(v6 bool) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := quiet(device); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	index := link.Attrs().Index
	from4, from6 := t.link.Address()
	for _, way := range []struct{ from, gateway netip.Addr }{{from4, gateway4}, {from6, gateway6}} {
		if way.from.Is6() && !v6 {
			// There is none out there, and who tries is to hear that at once.
			if err := netlink.RouteDel(defaultRoute(t.index, way.from, 1024)); err != nil {
				return err
			}
			continue
		}
		if err := netlink.NeighSet(permanent(index, way.gateway, mac(t.link.n, 1))); err != nil {
			return fmt.Errorf("neighbour %s: %w", way.gateway, err)
		}
		route := defaultRoute(index, way.from, 512)
		route.Gw, route.Flags = way.gateway.AsSlice(), int(netlink.FLAG_ONLINK)
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("route through %s: %w", device, err)
		}
	}
	return nil
}

// waiting returns the packets that have come meanwhile.
func (t *tun) waiting() (packets [][]byte) {
	raw, err := t.file.SyscallConn()
	if err != nil {
		return nil
	}
	buf := make([]byte, 64<<10)
	_ = raw.Read(func(fd uintptr) bool { // what can't be read now will be sent again by its sender
		for len(packets) < mostPackets {
			n, err := unix.Read(int(fd), buf)
			if err != nil {
				return true
			}
			if unicast(buf[:n]) {
				packets = append(packets, append([]byte(nil), buf[:n]...))
			}
		}
		return true
	})
	return packets
}

// Close takes the device away.
func (t *tun) Close() error {
	if err := t.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// resend sends whole packets. It runs on a thread in the namespace.
func resend(packets [][]byte) error {
	var errs []error
	for _, p := range packets {
		errs = append(errs, send(p))
	}
	return errors.Join(errs...)
}

func send(p []byte) error {
	to := destination(p)
	family := unix.AF_INET
	var addr unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{}}
	if to.Is4() {
		addr = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
	}
	// A socket of IPPROTO_RAW takes packets with their header: raw(7).
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	switch err := unix.Sendto(fd, p, 0, addr); {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return nil // IPv6 where there is none: its sender tries again and hears of it
	case err != nil:
		return os.NewSyscallError("sendto", err)
	}
	return nil
}
