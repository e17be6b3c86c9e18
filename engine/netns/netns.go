// Package netns makes network namespaces that hold only a loopback device, and opens sockets inside them.
//
// It serves the engine: every instance gets one. A socket belongs to the namespace it was created in, whichever thread
// uses it later, so the platform listens and dials inside an instance's namespace from an ordinary goroutine, and who
// is calling is known from the listener. There are no bridges, no veth pairs and no routes to the outside here.
package netns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"giggle/fault"
)

var (
	// Platform is the address that the platform's listeners have in every namespace: that of Google's metadata server.
	Platform = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	// App is the address to dial an instance's app on. It is not a loopback address, so that an app that listens on
	// 127.0.0.1 only can't be reached, as on Cloud Run.
	App = netip.AddrFrom4([4]byte{169, 254, 8, 1})
	// Databases are addresses whose port 3307 is that which Listen opens. OriginalDestination says which one was meant.
	Databases = netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, 71, 0}), 24)
)

// redirect is where connections to the well-known ports of Platform go: an app may then listen on any of those ports
// itself. The targets lie above the ephemeral ports (ip_local_port_range ends at 60999).
var redirect = map[uint16]uint16{53: 61053, 80: 61080, 443: 61443}

// The same for databases, which are at addresses of their own.
const (
	databasePort        = 3307
	databaseTo   uint16 = 61307
)

// Namespace is a network namespace with lo up, both addresses on it, the redirections, and every port free to bind
// for unprivileged processes. It lives as long as it is open here or a process is in it.
type Namespace struct{ ns *os.File }

// New makes a namespace. It takes about a millisecond.
func New() (_ *Namespace, err error) {
	defer fault.Wrap(&err, "netns.New")
	return create(furnish)
}

// Bare makes a namespace with nothing in it but a loopback device that is down.
func Bare() (_ *Namespace, err error) {
	defer fault.Wrap(&err, "netns.Bare")
	return create(func(int) error { return nil })
}

// Host returns the namespace of the calling thread: the machine's, to work in from any other.
func Host() (_ *Namespace, err error) {
	defer fault.Wrap(&err, "netns.Host")
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return &Namespace{ns: ns}, nil
}

// create makes a namespace, which furnish sets up on a thread in it.
func create(furnish func(ns int) error) (*Namespace, error) {
	var ns *os.File
	made := make(chan error)
	go func() {
		// Never unlocked: the thread belongs to the new namespace and ends with the goroutine.
		runtime.LockOSThread()
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			var err error
			if ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			return furnish(int(ns.Fd()))
		}()
	}()
	if err := <-made; err != nil {
		if ns != nil {
			ns.Close()
		}
		return nil, err
	}
	return &Namespace{ns: ns}, nil
}

// Adopt furnishes a namespace that another program has made, a container's runtime, and takes the file over.
func Adopt(ns *os.File) (_ *Namespace, err error) {
	defer fault.Wrap(&err, "netns.Adopt")
	n := &Namespace{ns: ns}
	if err := n.Do(func() error { return furnish(n.Fd()) }); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// furnish sets up the calling thread's new namespace.
func furnish(ns int) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	// Of a network on a loopback device all addresses are local.
	for _, a := range []netip.Prefix{netip.PrefixFrom(Platform, 32), netip.PrefixFrom(App, 32), Databases} {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), 32)}}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	// A container's root has no capability over this namespace, which belongs to the host's user namespace.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
		return err
	}
	if err := addRedirects(ns); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// Fd returns the namespace's file descriptor, valid until Close.
func (n *Namespace) Fd() int { return int(n.ns.Fd()) }

// Close lets go of the namespace. Sockets made in it stay open.
func (n *Namespace) Close() error { return n.ns.Close() }

// Do calls fn on a thread that is in the namespace. Sockets that fn makes stay there; fn must not start goroutines
// that make any. After Close it returns an error.
func (n *Namespace) Do(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		// The thread's own, whichever that is: who makes namespaces while they are in one must leave no thread there.
		own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(own)
			err = enter(n.ns)
		}
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = fn()
		if unix.Setns(own, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread() // otherwise the thread ends with this goroutine
		}
		done <- err
	}()
	return <-done
}

// enter moves the calling thread. It holds the file against a Close meanwhile: the number could else be that of
// another instance's namespace by now.
func enter(ns *os.File) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return err
	}
	var entered error
	if err := raw.Control(func(fd uintptr) { entered = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		return err
	}
	return entered
}

// Listen listens on a well-known TCP port: 53, 80 or 443 of Platform, or 3307 of all Databases.
func (n *Namespace) Listen(port uint16) (l net.Listener, err error) {
	defer fault.Wrap(&err, "netns.Listen(%d)", port)
	at, err := platform(port)
	if err != nil {
		return nil, err
	}
	err = n.Do(func() (err error) { l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); return })
	return l, err
}

// ListenPacket listens on a well-known UDP port of Platform: 53, 80 or 443.
func (n *Namespace) ListenPacket(port uint16) (c net.PacketConn, err error) {
	defer fault.Wrap(&err, "netns.ListenPacket(%d)", port)
	at, err := platform(port)
	if err != nil {
		return nil, err
	}
	err = n.Do(func() (err error) { c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); return })
	return c, err
}

func platform(port uint16) (netip.AddrPort, error) {
	to, ok := redirect[port]
	if port == databasePort {
		to, ok = databaseTo, true
	}
	if !ok {
		return netip.AddrPort{}, fault.New(fault.InvalidArgument, "Port %d is not redirected.", port)
	}
	return netip.AddrPortFrom(Platform, to), nil
}

// OriginalDestination returns where a connection was to, before it was redirected to one of the namespace's listeners.
func OriginalDestination(c *net.TCPConn) (at netip.AddrPort, err error) {
	defer fault.Wrap(&err, "netns.OriginalDestination")
	raw, err := c.SyscallConn()
	if err != nil {
		return at, err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		// It answers a sockaddr_in, for which this is the call that takes 16 bytes (and 4 more).
		b, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST)
		if err != nil {
			failed = os.NewSyscallError("getsockopt", err)
			return
		}
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b.Multiaddr[4:8])), binary.BigEndian.Uint16(b.Multiaddr[2:4]))
	}); err != nil {
		return at, err
	}
	return at, failed
}

// Dial connects to a TCP port of App.
func (n *Namespace) Dial(ctx context.Context, port uint16) (_ net.Conn, err error) {
	defer fault.Wrap(&err, "netns.Dial(%d)", port)
	return n.Connect(ctx, "tcp", netip.AddrPortFrom(App, port))
}

// Connect connects to an address as the namespace's routes lead there, by "tcp" or "udp". Only the socket is made
// inside the namespace: a connection that takes its time holds no thread there.
func (n *Namespace) Connect(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	kind := unix.SOCK_STREAM
	if network == "udp" {
		kind = unix.SOCK_DGRAM
	}
	family := unix.AF_INET
	var at unix.Sockaddr
	if to.Addr().Is4() {
		at = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	} else {
		family, at = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	}
	var fd int
	err := n.Do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close() // the connection has a descriptor of its own
	if err := connect(ctx, f, fd, at); err != nil {
		var addr net.Addr = net.TCPAddrFromAddrPort(to)
		if network == "udp" {
			addr = net.UDPAddrFromAddrPort(to)
		}
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addr, Err: err}
	}
	return net.FileConn(f)
}

func connect(ctx context.Context, f *os.File, fd int, at unix.Sockaddr) error {
	err := unix.Connect(fd, at)
	if err == nil {
		return ctx.Err()
	}
	if err != unix.EINPROGRESS {
		return os.NewSyscallError("connect", err)
	}
	stop := context.AfterFunc(ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		if err == nil {
			if _, err = unix.Getpeername(int(fd)); err == unix.ENOTCONN {
				return false // not yet
			}
		}
		if err != nil {
			result = os.NewSyscallError("connect", err)
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, result)
}
