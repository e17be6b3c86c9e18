package egress_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"giggle/engine/egress"
	"giggle/engine/netns"
	"giggle/fault"
)

// What has the right to make any packet, which no instance has, can't send in another's name, nor to another.
func TestSpoofedSources(t *testing.T) { onBothPaths(t, testSpoofedSources) }

func testSpoofedSources(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path, All: true})
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	a, linkA := w.instance(t)
	b, linkB := w.instance(t)
	for _, ns := range []*netns.Namespace{a, b} {
		if got, err := call(ns, "tcp", at); got != "joke" {
			t.Fatal(got, err)
		}
	}
	ownA, _ := linkA.Address()
	ownB, ownB6 := linkB.Address()
	for _, to := range []netip.Addr{ownB, ownB6} {
		echo(t, b, netip.AddrPortFrom(to, 99))
		if got, err := call(a, "tcp", netip.AddrPortFrom(to, 99)); err == nil {
			t.Errorf("another instance at %s answered %q", to, got)
		}
	}
	nobody := netip.MustParseAddrPort("169.254.128.99:99")
	if _, err := call(a, "tcp", nobody); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("an address of no instance: %v, want no route to host", err)
	}
	send := func(from netip.Addr) {
		t.Helper()
		sendRaw(t, a, unix.IPPROTO_RAW, public4, udp(from, public4, 98))
	}
	seen := listenUDP(t, w.Outside, netip.AddrPortFrom(public4, 98))
	for _, from := range []netip.Addr{ownB, public4, lan, netip.MustParseAddr("127.0.0.1")} {
		send(from)
	}
	send(ownA)
	if n := seen(); n != 1 {
		t.Errorf("%d packets arrived, want only the one with the instance's own address", n)
	}
}

// sendRaw sends what follows the header of IPv4, or with IPPROTO_RAW that, too.
func sendRaw(t *testing.T, ns *netns.Namespace, protocol int, to netip.Addr, p []byte) {
	t.Helper()
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: to.As4()})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// udp is a packet of IPv4 with one byte.
func udp(from, to netip.Addr, port uint16) []byte {
	f, d := from.As4(), to.As4()
	p := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	p = append(append(p, f[:]...), d[:]...)
	return append(p, 0, 53, byte(port>>8), byte(port), 0, 9, 0, 0, 'x')
}

// listenUDP returns a function that says how many packets have come, once the next is there.
func listenUDP(t *testing.T, ns *netns.Namespace, at netip.AddrPort) func() int {
	t.Helper()
	var fd int
	err := ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		timeout := unix.Timeval{Sec: 20}
		return errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() (n int) {
		buf := make([]byte, 64)
		if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil {
			t.Fatal("no packet came: ", err)
		}
		for n = 1; ; n++ {
			if _, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT); err != nil {
				return n
			}
		}
	}
}

// What ends leaves nothing, whether it has dialled or not, and its number is used again.
func TestLinksLeaveNothing(t *testing.T) { onBothPaths(t, testLinksLeaveNothing) }

func testLinksLeaveNothing(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	var before int
	for round := range 3 {
		if round == 1 { // the router has all its own by now
			before = descriptors(t)
		}
		for i := range 4 {
			ns, err := netns.New()
			if err != nil {
				t.Fatal(err)
			}
			l, err := w.router.Arm(ns, nil)
			if err != nil {
				t.Fatal(err)
			}
			if a, _ := l.Address(); a != netip.MustParseAddr("169.254.128.1") {
				t.Fatalf("address %s", a)
			}
			if i%2 == 0 {
				if got, err := call(ns, "tcp", at); got != "joke" {
					t.Fatal(got, err)
				}
			}
			if err := errors.Join(l.Close(), l.Close(), ns.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	wait(t, "end of the descriptors", func() bool { return descriptors(t) <= before })
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// The next instance with an address of one that has ended loses no packet, from the first on.
func TestAddressesAreUsedAgain(t *testing.T) { onBothPaths(t, testAddressesAreUsedAgain) }

func testAddressesAreUsedAgain(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	for i := range 20 {
		at := netip.AddrPortFrom([]netip.Addr{public4, public6}[i%2], 99)
		if i < 2 {
			echo(t, w.Outside, at)
		}
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		l, err := w.router.Arm(ns, nil)
		if err != nil {
			t.Fatal(err)
		}
		var c net.Conn
		if err := ns.Do(func() (err error) { c, err = net.Dial("tcp", at.String()); return err }); err != nil {
			t.Fatal(err)
		}
		if n := retransmitted(t, c); n > 0 {
			t.Errorf("instance %d to %s: %d packets were sent again", i, at, n)
		}
		if err := errors.Join(c.Close(), l.Close(), ns.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// retransmitted is how many packets of a connection had to be sent again.
func retransmitted(t *testing.T, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		info, e := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if e != nil {
			t.Error(e)
			return
		}
		n = info.Total_retrans
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Without a way for IPv6 an attempt fails at once, so that programs fall back to IPv4.
func TestNoIPv6(t *testing.T) { onBothPaths(t, testNoIPv6) }

func testNoIPv6(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	if err := w.Machine.Do(dropIPv6); err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	ns, _ := w.instance(t)
	if got, err := call(ns, "tcp", at); got != "joke" {
		t.Fatal(got, err)
	}
	if _, err := call(ns, "tcp", netip.AddrPortFrom(public6, 99)); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("%v, want network unreachable", err)
	}
}

// Docker's firewall drops what a machine passes on, but for what its chain for exceptions lets through: the router uses
// that, and takes its rules away.
func TestDockersFirewall(t *testing.T) {
	w := newWorld(t, egress.Config{})
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	docker := func(c *nftables.Conn) (*nftables.Table, *nftables.Chain) {
		drop := nftables.ChainPolicyDrop
		table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
		user := c.AddChain(&nftables.Chain{Name: "DOCKER-USER", Table: table})
		forward := c.AddChain(&nftables.Chain{
			Name:     "FORWARD",
			Table:    table,
			Type:     nftables.ChainTypeFilter,
			Hooknum:  nftables.ChainHookForward,
			Priority: nftables.ChainPriorityFilter,
			Policy:   &drop,
		})
		jump := &expr.Verdict{Kind: expr.VerdictJump, Chain: user.Name}
		c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{jump}})
		return table, user
	}
	exceptions := func() (n int) {
		t.Helper()
		if err := w.Machine.Do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			rules, err := c.GetRules(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4},
				&nftables.Chain{Name: "DOCKER-USER"})
			n = len(rules)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var blocking []string
	if err := w.Machine.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		docker(c)
		if err := c.Flush(); err != nil {
			return err
		}
		blocking, err = egress.Blocking()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(blocking, []string{"ip filter FORWARD"}) {
		t.Errorf("the firewalls are %q", blocking)
	}
	ns, l := w.instance(t)
	if got, err := call(ns, "tcp", at); got != "joke" {
		t.Error(got, err)
	}
	if n := exceptions(); n != 2 {
		t.Errorf("%d exceptions", n)
	}
	if err := errors.Join(l.Close(), w.router.Close()); err != nil {
		t.Error(err)
	}
	if n := exceptions(); n != 0 {
		t.Errorf("%d exceptions are left", n)
	}
}

// A machine without a default route says so at once, and one that gets it later has it.
func TestRouteComesLater(t *testing.T) { onBothPaths(t, testRouteComesLater) }

func testRouteComesLater(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	var routes []netlink.Route
	if err := w.Machine.Do(func() (err error) {
		if err := dropIPv6(); err != nil {
			return err
		}
		if routes, err = netlink.RouteList(nil, netlink.FAMILY_V4); err != nil {
			return err
		}
		for _, r := range routes {
			if r.Gw != nil {
				return netlink.RouteDel(&r)
			}
		}
		return errors.New("no default route")
	}); err != nil {
		t.Fatal(err)
	}
	if w.router.Online() {
		t.Error("it is online")
	}
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	ns, _ := w.instance(t)
	if _, err := call(ns, "tcp", at); !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("%v, want unreachable", err)
	}
	if err := w.Machine.Do(func() error {
		for _, r := range routes {
			if r.Gw != nil {
				return netlink.RouteAdd(&r)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wait(t, "way", func() bool { got, _ := call(ns, "tcp", at); return got == "joke" })
	if !w.router.Online() {
		t.Error("it is not online")
	}
}

// A router that was killed has left its device and table; the next one of its key takes them away and works.
func TestRouterAfterCrash(t *testing.T) { onBothPaths(t, testRouterAfterCrash) }

func testRouterAfterCrash(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path})
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	ns, _ := w.instance(t)
	if got, err := call(ns, "tcp", at); got != "joke" {
		t.Fatal(got, err)
	}
	var next *egress.Router
	if err := w.Machine.Do(func() (err error) {
		next, err = egress.New(egress.Config{Key: "test", Path: path, Log: logger(t)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	other, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l, err := next.Arm(other, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, err := call(other, "tcp", at); got != "joke" {
		t.Error(got, err)
	}
}

// An instance can't have more than its number of connections; that is said, and another instance has its own.
func TestConnectionsAreBounded(t *testing.T) { onBothPaths(t, testConnectionsAreBounded) }

func testConnectionsAreBounded(t *testing.T, path egress.Path) {
	w := newWorld(t, egress.Config{Path: path, Connections: 3})
	at := netip.AddrPortFrom(public4, 99)
	echo(t, w.Outside, at)
	ns, _ := w.instance(t)
	open := func(ns *netns.Namespace) (c net.Conn, err error) {
		err = ns.Do(func() (err error) { c, err = net.Dial("tcp", at.String()); return err })
		return c, err
	}
	for range 3 {
		c, err := open(ns)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := open(ns); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("one too many: %v", err)
	}
	wait(t, "a report", func() bool { return w.dropped(egress.Drop{To: at, Protocol: "TCP", Crowded: true}) })
	other, _ := w.instance(t)
	if got, err := call(other, "tcp", at); got != "joke" {
		t.Error(got, err)
	}
}

// What an instance hears of its drops: each once in a minute, no more than twenty, with the flag.
func TestSay(t *testing.T) {
	now := time.Unix(0, 0)
	var said []string
	report := egress.Say(func(text string) { said = append(said, text) }, func() time.Time { return now })
	at := func(i int) egress.Drop {
		return egress.Drop{To: netip.AddrPortFrom(lan, uint16(5432+i)), Protocol: "TCP"}
	}
	report(at(0))
	report(at(0))
	if len(said) != 1 || !strings.Contains(said[0], "giggle up --egress-allow 10.0.0.7:5432") {
		t.Errorf("said %q", said)
	}
	for i := range 100 {
		report(at(i))
	}
	if len(said) != 20 {
		t.Errorf("%d were said", len(said))
	}
	now = now.Add(time.Minute)
	report(at(0))
	report(egress.Drop{To: netip.AddrPortFrom(lan6, 0), Protocol: "ICMP"})
	if len(said) != 22 || !strings.Contains(said[21], "--egress-allow fd12::7`") {
		t.Errorf("a minute later: %q", said[20:])
	}
}

func TestParseAllow(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"10.1.0.0/16", "10.1.0.0/16"},
		{"10.1.0.0/16:5432", "10.1.0.0/16:5432"},
		{"192.168.1.7", "192.168.1.7"},
		{"192.168.1.7/32:443", "192.168.1.7:443"},
		{"fd12::/64", "fd12::/64"},
		{"fd12::7", "fd12::7"},
		{"[fd12::7]:443", "[fd12::7]:443"},
		{"[fd12::/64]:443", "[fd12::/64]:443"},
		{"0.0.0.0/0", "0.0.0.0/0"},
		{"", ""},
		{"host:80", ""},
		{"10.1.2.3/16", ""},
		{"10.0.0.1:0", ""},
		{"10.0.0.1:", ""},
		{"10.0.0.1:70000", ""},
		{"[fd12::7]443", ""},
		{"[fd12::7", ""},
		{"::ffff:10.0.0.1", ""},
		{"fe80::1%eth0", ""},
		{"10.0.0.0/33", ""},
	} {
		a, err := egress.ParseAllow(row.text)
		switch {
		case row.want == "" && !fault.Is(err, fault.InvalidArgument):
			t.Errorf("%q: %v, %v", row.text, a, err)
		case row.want != "" && (err != nil || a.String() != row.want):
			t.Errorf("%q: %v, %v; want %s", row.text, a, err, row.want)
		}
		if row.want != "" && err == nil {
			if again, err := egress.ParseAllow(a.String()); err != nil || again != a {
				t.Errorf("%q: its own form %s is read as %v, %v", row.text, a, again, err)
			}
		}
	}
}

func FuzzParseAllow(f *testing.F) {
	f.Add("10.1.0.0/16:5432")
	f.Add("[fd12::/64]:443")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := egress.ParseAllow(text)
		if err != nil {
			return
		}
		if again, err := egress.ParseAllow(a.String()); err != nil || again != a {
			t.Errorf("%q: its own form %s is read as %v, %v", text, a, again, err)
		}
		if strings.Contains(text, "%") {
			t.Errorf("%q has a zone", text)
		}
	})
}

// What arming costs, while an instance is prepared, and the first packet.
func BenchmarkArm(b *testing.B) {
	for _, armed := range []bool{false, true} {
		b.Run(map[bool]string{false: "bare", true: "armed"}[armed], func(b *testing.B) {
			r, err := egress.New(egress.Config{Key: "bench", Log: logger(b)})
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			for b.Loop() {
				ns, err := netns.New()
				if err != nil {
					b.Fatal(err)
				}
				if armed {
					l, err := r.Arm(ns, nil)
					if err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					l.Close()
					b.StartTimer()
				}
				ns.Close()
			}
		})
	}
}
