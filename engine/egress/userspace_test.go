package egress_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"giggle/engine/egress"
	"giggle/engine/egress/testnet"
	"giggle/engine/netns"
)

// Where the kernel's path can be made, it is gone, and what finds that out leaves nothing on the machine.
func TestPath(t *testing.T) {
	if err := egress.Possible(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ set, want egress.Path }{
		{"", egress.Kernel},
		{egress.Auto, egress.Kernel},
		{egress.Kernel, egress.Kernel},
		{egress.Userspace, egress.Userspace},
	} {
		w := newWorld(t, egress.Config{Path: row.set})
		if got, why := w.router.Path(); got != row.want || (why != nil) != (got == egress.Userspace) {
			t.Errorf("path %q leads by %q (%v), want %q", row.set, got, why, row.want)
		}
	}
}

// An instance that was armed before the machine has refused to have rules made for it is served in userspace.
func TestFallBack(t *testing.T) {
	at := netip.AddrPortFrom(public4, 99)
	w := newWorld(t, egress.Config{})
	echo(t, w.Outside, at)
	ns, _ := w.instance(t)
	w.router.FallBack(unix.EPERM)
	for _, network := range []string{"tcp", "udp"} {
		if got, err := call(ns, network, at); got != "joke" {
			t.Error(got, err)
		}
	}
	if path, why := w.router.Path(); path != egress.Userspace || !errors.Is(why, unix.EPERM) {
		t.Errorf("by %s, %v", path, why)
	}
	for _, row := range []struct {
		err  error
		want bool
	}{
		{unix.EPERM, true},
		{&os.PathError{Op: "open", Path: "/proc/sys/net/ipv4/ip_forward", Err: unix.EROFS}, true},
		{fmt.Errorf("uplink: %w", unix.EOPNOTSUPP), true},
		{unix.ENOMEM, false},
		{unix.EEXIST, false},
		{nil, false},
	} {
		if egress.Denied(row.err) != row.want {
			t.Errorf("%v is denied: %v", row.err, !row.want)
		}
	}
}

// A connection ends in one direction at a time, and all of it arrives.
func TestHalfClose(t *testing.T) { onBothPaths(t, testHalfClose) }

func testHalfClose(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	for _, a := range []netip.Addr{public4, public6} {
		at := netip.AddrPortFrom(a, 99)
		l := listen(t, w.Outside, at)
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b, _ := io.ReadAll(c)
			c.Write(b) // after the other side has ended its own
		}()
		ns, _ := w.instance(t)
		c, err := dial(ns, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		back, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(back, data) {
			t.Errorf("%s: %d bytes came back, %v", at, len(back), err)
		}
		c.Close()
	}
}

// What nobody listens on is refused, and what does not answer is not taken for open.
func TestRefusedOutside(t *testing.T) { onBothPaths(t, testRefusedOutside) }

func testRefusedOutside(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	for _, a := range []netip.Addr{public4, public6} {
		ns, _ := w.instance(t)
		at := netip.AddrPortFrom(a, 99)
		for _, network := range []string{"tcp", "udp"} {
			if _, err := call(ns, network, at); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s to %s: %v, want connection refused", network, at, err)
			}
		}
		// A listener whose queue is full lets the next one wait.
		fullListener(t, w.Outside, at)
		err := ns.Do(func() error {
			c, err := net.DialTimeout("tcp", at.String(), 300*time.Millisecond)
			if err == nil {
				c.Close()
			}
			return err
		})
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
			t.Errorf("%s, which does not answer: %v, want a timeout", at, err)
		}
	}
}

// fullListener listens at an address and takes nobody in any more.
func fullListener(t *testing.T, ns *netns.Namespace, at netip.AddrPort) {
	t.Helper()
	err := ns.Do(func() error {
		family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(at.Port())})
		if at.Addr().Is6() {
			family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: int(at.Port())}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		one := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if family == unix.AF_INET6 {
			one = errors.Join(one, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1))
		}
		if err := errors.Join(one, unix.Bind(fd, sa), unix.Listen(fd, 0)); err != nil {
			return err
		}
		for range 8 {
			c, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
			if err != nil {
				return nil // full
			}
			t.Cleanup(func() { c.Close() })
		}
		return errors.New("the queue is not full")
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What the other side breaks off is broken off here.
func TestReset(t *testing.T) { onBothPaths(t, testReset) }

func testReset(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	at := netip.AddrPortFrom(public4, 99)
	l := listen(t, w.Outside, at)
	ns, _ := w.instance(t)
	for _, server := range []bool{true, false} {
		inner, err := dial(ns, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		outer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		breaks, hears := outer, inner
		if !server {
			breaks, hears = inner, outer
		}
		breaks.(*net.TCPConn).SetLinger(0)
		breaks.Close()
		hears.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(hears); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the server breaks it off (%v): %v, want a reset", server, err)
		}
		hears.Close()
	}
}

// In userspace other protocols than TCP and UDP are refused, and why is said.
func TestUserspaceRefusesICMP(t *testing.T) {
	w := newWorld(t, egress.Config{Path: egress.Userspace})
	ns, _ := w.instance(t)
	refused := func(to netip.Addr) egress.Drop {
		return egress.Drop{To: netip.AddrPortFrom(to, 0), Protocol: "ICMP", Unsupported: true}
	}
	// That a port is closed, which the kernel says of an answer that came too late, nobody need hear of.
	sendRaw(t, ns, unix.IPPROTO_ICMP, testnet.Machine4, append([]byte{3, 3, 0xfc, 0xfc, 0, 0, 0, 0}, make([]byte, 28)...))
	sendRaw(t, ns, unix.IPPROTO_ICMP, public4, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0})
	d := refused(public4)
	wait(t, "a report", func() bool { return w.dropped(d) })
	if w.dropped(refused(testnet.Machine4)) {
		t.Error("an instance's ICMP error was reported")
	}
	if text := d.String(); !strings.Contains(text, "only TCP and UDP") {
		t.Errorf("it says %q", text)
	}
}

// Whatever is allowed, packets that name this process's own network do not get there: in userspace they would.
func TestUserspaceLoopback(t *testing.T) {
	everything := append(allow(t, "0.0.0.0/0"), allow(t, "::/0")...)
	w := newWorld(t, egress.Config{Path: egress.Userspace, All: true, Allow: everything})
	ns, l := w.instance(t)
	own, _ := l.Address()
	loopback := netip.MustParseAddr("127.0.0.1")
	seen := listenUDP(t, w.Machine, netip.AddrPortFrom(netip.IPv4Unspecified(), 98))
	for _, to := range []netip.Addr{loopback, netip.IPv4Unspecified(), netip.MustParseAddr("224.0.0.1")} {
		w.router.Packet(l, udp(own, to, 98))
	}
	w.router.Packet(l, udp(own, lan, 98)) // has the way made, and goes elsewhere
	c, err := dial(ns, "udp", netip.AddrPortFrom(testnet.Machine4, 98))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if n := seen(); n != 1 {
		t.Errorf("%d packets arrived at the machine, want the one to its address", n)
	}
}

// The sockets of the userspace path are shared out: who takes all that it gets leaves as much to the next one.
func TestUserspaceSockets(t *testing.T) {
	w := newWorld(t, egress.Config{Path: egress.Userspace, Sockets: 8})
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	for i, want := range []int{4, 2, 1} {
		ns, l := w.instance(t)
		n := 0
		for {
			c, err := dial(ns, "tcp", at)
			if err != nil {
				break
			}
			defer c.Close()
			n++
		}
		if n != want {
			t.Errorf("instance %d has %d connections, want %d", i, n, want)
		}
		if i == 2 { // all of an instance's are given back with it
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			next, _ := w.instance(t)
			if got, err := call(next, "tcp", at); got != "joke" {
				t.Error(got, err)
			}
		}
	}
}

// An instance that ends in the midst of all kinds of things leaves no goroutine and no socket.
func TestUserspaceLeavesNothing(t *testing.T) {
	w := newWorld(t, egress.Config{Path: egress.Userspace})
	at, full := netip.AddrPortFrom(public4, 99), netip.AddrPortFrom(public4, 100)
	echo(t, w.Outside, at)
	fullListener(t, w.Outside, full)
	goroutines, files := 0, 0
	for round := range 4 {
		if round == 1 {
			goroutines, files = runtime.NumGoroutine(), descriptors(t)
		}
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		l, err := w.router.Arm(ns, nil)
		if err != nil {
			t.Fatal(err)
		}
		var open []net.Conn
		for range 5 {
			for _, network := range []string{"tcp", "udp"} {
				c, err := dial(ns, network, at)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(c, "joke"); err != nil {
					t.Fatal(err)
				}
				open = append(open, c)
			}
		}
		if err := ns.Do(func() error {
			_, err := net.DialTimeout("tcp", full.String(), 50*time.Millisecond)
			return err
		}); err == nil {
			t.Error("what takes nobody in was open")
		}
		if err := errors.Join(l.Close(), ns.Close()); err != nil {
			t.Fatal(err)
		}
		for _, c := range open {
			c.Close()
		}
	}
	wait(t, "end of the goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
	wait(t, "end of the sockets", func() bool { return descriptors(t) <= files })
}

// Packets of any form do no harm.
func FuzzUserspacePacket(f *testing.F) {
	own := netip.MustParseAddr("169.254.128.1")
	f.Add(udp(own, public4, 99))
	f.Add([]byte{0x45, 0, 0, 20})
	f.Add(append([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 169, 254, 128, 1, 203, 0, 113, 10},
		0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) { egress.Answers(b) })
}

func listen(t *testing.T, ns *netns.Namespace, at netip.AddrPort) (l net.Listener) {
	t.Helper()
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp", at.String()); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(ns *netns.Namespace, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		c, err = net.DialTimeout(network, to.String(), 10*time.Second)
		return err
	})
	return c, err
}
