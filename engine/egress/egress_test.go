package egress_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"giggle/engine/egress"
	"giggle/engine/egress/testnet"
	"giggle/engine/netns"
)

// The hosts of the outside.
var (
	public4 = netip.MustParseAddr("203.0.113.10")
	public6 = netip.MustParseAddr("2001:db8:ff::10")
	lan     = netip.MustParseAddr("10.0.0.7")
	lan6    = netip.MustParseAddr("fd12::7")
	cloud   = netip.MustParseAddr("169.254.169.253") // where a cloud's own machine has its metadata server
)

// world is a router on a machine of its own.
type world struct {
	*testnet.Net
	router *egress.Router

	mu    sync.Mutex
	drops []egress.Drop
}

func newWorld(t *testing.T, cfg egress.Config) *world {
	t.Helper()
	n, err := testnet.New(1400, public4, public6, lan, lan6, cloud)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	w := &world{Net: n}
	cfg.Key, cfg.Log = "test", logger(t)
	if err := n.Machine.Do(func() (err error) { w.router, err = egress.New(cfg); return }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.router.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func logger(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// instance is an armed namespace.
func (w *world) instance(t *testing.T) (*netns.Namespace, *egress.Link) {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.router.Arm(ns, func(d egress.Drop) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.drops = append(w.drops, d)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), ns.Close()); err != nil {
			t.Error(err)
		}
	})
	return ns, l
}

func (w *world) dropped(d egress.Drop) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.drops, d)
}

// echo serves TCP connections and packets in a namespace: it sends back what it gets.
func echo(t *testing.T, ns *netns.Namespace, at netip.AddrPort) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	err := ns.Do(func() (err error) {
		if l, err = net.Listen("tcp", at.String()); err == nil {
			p, err = net.ListenPacket("udp", at.String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			p.WriteTo(buf[:n], from)
		}
	}()
}

// call sends a text to an echo and returns what came back.
func call(ns *netns.Namespace, network string, to netip.AddrPort) (string, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: 10 * time.Second}).Dial(network, to.String())
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "joke"); err != nil {
		return "", err
	}
	b := make([]byte, 4)
	_, err = io.ReadFull(c, b)
	return string(b), err
}

// onBothPaths runs a test of what holds by whichever means namespaces reach the outside.
func onBothPaths(t *testing.T, test func(*testing.T, egress.Path)) {
	for _, path := range []egress.Path{egress.Kernel, egress.Userspace} {
		t.Run(string(path), func(t *testing.T) { test(t, path) })
	}
}

func TestOutside(t *testing.T) { onBothPaths(t, testOutside) }

func testOutside(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	for _, a := range []netip.Addr{public4, public6} {
		echo(t, w.Outside, netip.AddrPortFrom(a, 443))
	}
	for _, network := range []string{"tcp", "udp"} {
		for _, a := range []netip.Addr{public4, public6} {
			ns, l := w.instance(t) // the first packet of each
			for i := range 3 {
				started := time.Now()
				if got, err := call(ns, network, netip.AddrPortFrom(a, 443)); got != "joke" {
					t.Errorf("%s to %s: %q, %v", network, a, got, err)
				}
				t.Logf("%s to %s, call %d: %s", network, a, i, time.Since(started))
			}
			if l.Sent() == 0 {
				t.Error("no byte was counted")
			}
		}
	}
	if sum := w.router.Sent(); sum < 4*3*4 {
		t.Errorf("%d bytes in all", sum)
	}
}

func TestClosedAddresses(t *testing.T) { onBothPaths(t, testClosedAddresses) }

func testClosedAddresses(t *testing.T, path egress.Path) {
	for _, row := range []struct {
		name string
		cfg  egress.Config
		to   string
		open bool
	}{
		{"public", egress.Config{}, "203.0.113.10:80", true},
		{"LAN", egress.Config{}, "10.0.0.7:80", false},
		{"LAN, all", egress.Config{All: true}, "10.0.0.7:80", true},
		{"LAN, allowed", egress.Config{Allow: allow(t, "10.0.0.0/24")}, "10.0.0.7:80", true},
		{"LAN, port allowed", egress.Config{Allow: allow(t, "10.0.0.7:80")}, "10.0.0.7:80", true},
		{"LAN, another port allowed", egress.Config{Allow: allow(t, "10.0.0.7:81")}, "10.0.0.7:80", false},
		{"LAN of IPv6", egress.Config{}, "[fd12::7]:80", false},
		{"LAN of IPv6, allowed", egress.Config{Allow: allow(t, "[fd12::7]:80")}, "[fd12::7]:80", true},
		{"metadata of a cloud", egress.Config{}, "169.254.169.253:80", false},
		{"metadata of a cloud, all", egress.Config{All: true}, "169.254.169.253:80", false},
		{"the machine", egress.Config{}, testnet.Machine4.String() + ":80", false},
		{"the machine by IPv6", egress.Config{}, "[" + testnet.Machine6.String() + "]:80", false},
		{"the machine, all", egress.Config{All: true}, testnet.Machine4.String() + ":80", true},
		{"the machine, allowed", egress.Config{Allow: allow(t, testnet.Machine4.String()+":80")},
			testnet.Machine4.String() + ":80", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			to := netip.MustParseAddrPort(row.to)
			row.cfg.Path = path
			w := newWorld(t, row.cfg)
			at := w.Outside
			if to.Addr() == testnet.Machine4 || to.Addr() == testnet.Machine6 {
				at = w.Machine
			}
			echo(t, at, to)
			ns, _ := w.instance(t)
			started := time.Now()
			got, err := call(ns, "tcp", to)
			if (got == "joke") != row.open {
				t.Fatalf("%q, %v; want open: %v", got, err, row.open)
			}
			if row.open {
				return
			}
			if !errors.Is(err, syscall.EHOSTUNREACH) && !errors.Is(err, syscall.EACCES) {
				t.Errorf("%v, want no route to host", err)
			}
			if took := time.Since(started); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
			wait(t, "a report", func() bool { return w.dropped(egress.Drop{To: to, Protocol: "TCP"}) })
		})
	}
}

func wait(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// dropIPv6 takes the way to the outside for IPv6 away from the calling thread's network.
func dropIPv6() error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V6)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Gw != nil {
			if err := netlink.RouteDel(&r); err != nil {
				return err
			}
		}
	}
	return nil
}

func allow(t *testing.T, text string) []egress.Allow {
	t.Helper()
	a, err := egress.ParseAllow(text)
	if err != nil {
		t.Fatal(err)
	}
	return []egress.Allow{a}
}
