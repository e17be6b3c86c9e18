package lan_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"giggle/engine/lan"
	"giggle/engine/netns"
	"giggle/fault"
)

var one, two = netip.MustParsePrefix("192.168.10.0/24"), netip.MustParsePrefix("172.17.0.0/16")

// newHost returns a host in a namespace of its own.
func newHost(t testing.TB) (*lan.Host, *netns.Namespace) {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	h := lan.NewHost(ns)
	t.Cleanup(func() {
		if err := errors.Join(h.Leave(nil), ns.Close()); err != nil {
			t.Error(err)
		}
	})
	return h, ns
}

func newLAN(t testing.TB) *lan.LAN {
	l := &lan.LAN{}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func join(t testing.TB, h *lan.Host, n *lan.Network, names ...string) netip.Addr {
	t.Helper()
	if err := h.Join(lan.Member{Network: n, Names: names}); err != nil {
		t.Fatal(err)
	}
	return h.Address(n)
}

// serve says hello on a port of a namespace.
func serve(t testing.TB, ns *netns.Namespace) {
	t.Helper()
	var l net.Listener
	if err := ns.Do(func() (err error) { l, err = net.Listen("tcp4", "0.0.0.0:8099"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
}

// reach fails where a namespace does not reach the server at an address.
func reach(t testing.TB, ns *netns.Namespace, at netip.Addr, within time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	c, err := ns.Connect(ctx, "tcp", netip.AddrPortFrom(at, 8099))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Errorf("it answers %q, %v", b, err)
	}
	return nil
}

// Members of a network reach each other, and those of others do not.
func TestReach(t *testing.T) {
	l := newLAN(t)
	a, b := l.Network(one), l.Network(two)
	first, _ := newHost(t)
	second, secondNS := newHost(t)
	stranger, strangerNS := newHost(t)
	_, outsideNS := newHost(t)
	at := join(t, first, a, "srv")
	if at != netip.MustParseAddr("192.168.10.2") {
		t.Errorf("the first has %s", at)
	}
	join(t, second, a)
	join(t, stranger, b)
	server, serverNS := newHost(t)
	at = join(t, server, a)
	serve(t, serverNS)
	if err := reach(t, secondNS, at, time.Minute); err != nil {
		t.Errorf("on the same network: %v", err)
	}
	for what, ns := range map[string]*netns.Namespace{"on another network": strangerNS, "on none": outsideNS} {
		if err := reach(t, ns, at, time.Second); err == nil {
			t.Errorf("%s the server is reached", what)
		}
	}
	join(t, stranger, a) // on both
	if err := reach(t, strangerNS, at, time.Minute); err != nil {
		t.Errorf("on both networks: %v", err)
	}
	if err := stranger.Leave(a); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, strangerNS, at, time.Second); err == nil {
		t.Error("who left the network still reaches it")
	}
}

// What can't be joined or closed says why, and addresses of those that have left are given out again.
func TestMembers(t *testing.T) {
	l := newLAN(t)
	n := l.Network(netip.MustParsePrefix("192.168.10.0/29")) // .2 to .7
	var hosts []*lan.Host
	for range 6 {
		h, _ := newHost(t)
		join(t, h, n)
		hosts = append(hosts, h)
	}
	if err := hosts[0].Join(lan.Member{Network: n}); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("twice on a network: %v", err)
	}
	more, _ := newHost(t)
	if err := more.Join(lan.Member{Network: n}); !fault.Is(err, fault.ResourceExhausted) {
		t.Errorf("one more than fit: %v", err)
	}
	if err := n.Close(); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("a network with members is closed: %v", err)
	}
	if err := hosts[3].Leave(nil); err != nil {
		t.Fatal(err)
	}
	if err := hosts[3].Join(lan.Member{Network: n}); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("who has ended joins: %v", err)
	}
	if at := join(t, more, n); at != netip.MustParseAddr("192.168.10.5") {
		t.Errorf("the free address is %s", at)
	}
	for _, h := range append(hosts, more) {
		if err := h.Leave(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Close(); err != nil || n.Members() != 0 {
		t.Errorf("an empty network with %d members: %v", n.Members(), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	late, _ := newHost(t)
	if err := late.Join(lan.Member{Network: n}); !fault.Is(err, fault.FailedPrecondition) {
		t.Errorf("a LAN that is closed is joined: %v", err)
	}
}

// packets is a connection that has one query, and keeps what it is answered.
type packets struct {
	net.PacketConn
	query  []byte
	answer []byte
}

func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	if p.query == nil {
		return 0, nil, io.EOF
	}
	n := copy(b, p.query)
	p.query = nil
	return n, &net.UDPAddr{}, nil
}

func (p *packets) WriteTo(b []byte, _ net.Addr) (int, error) {
	p.answer = append([]byte(nil), b...)
	return len(b), nil
}

func query(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Names of members are answered on their network; all other queries go on to the platform's own server.
func TestNames(t *testing.T) {
	l := newLAN(t)
	a, b := l.Network(one), l.Network(two)
	h, _ := newHost(t)
	join(t, h, a, "step_0")
	for _, names := range [][]string{{"srv", "Alias"}, {"many"}, {"many"}} {
		other, _ := newHost(t)
		join(t, other, a, names...)
	}
	stranger, _ := newHost(t)
	join(t, stranger, b, "elsewhere")
	gone, _ := newHost(t)
	join(t, gone, a, "gone")
	if err := gone.Leave(nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string // "on" where the query goes on
	}{
		{"srv.", dnsmessage.TypeA, "192.168.10.3"},
		{"SRV.", dnsmessage.TypeA, "192.168.10.3"},
		{"alias.", dnsmessage.TypeA, "192.168.10.3"},
		{"step_0.", dnsmessage.TypeA, "192.168.10.2"},
		{"many.", dnsmessage.TypeA, "192.168.10.4 192.168.10.5"},
		{"srv.", dnsmessage.TypeAAAA, ""},
		{"srv.", dnsmessage.TypeTXT, ""},
		{"elsewhere.", dnsmessage.TypeA, "on"},
		{"gone.", dnsmessage.TypeA, "on"},
		{"srv.example.", dnsmessage.TypeA, "on"},
		{"run.googleapis.com.", dnsmessage.TypeA, "on"},
		{".", dnsmessage.TypeNS, "on"},
	} {
		p := &packets{query: query(t, c.name, c.kind)}
		n, _, err := h.Names(p).ReadFrom(make([]byte, 512))
		got := "on"
		if errors.Is(err, io.EOF) {
			var m dnsmessage.Message
			if err := m.Unpack(p.answer); err != nil || m.ID != 7 || !m.Response || m.RCode != 0 {
				t.Fatalf("%s: %+v, %v", c.name, m, err)
			}
			var addrs []string
			for _, r := range m.Answers {
				addrs = append(addrs, netip.AddrFrom4(r.Body.(*dnsmessage.AResource).A).String())
			}
			got = strings.Join(addrs, " ")
		} else if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, c.kind, got, c.want)
		}
	}
}

// Whatever comes as a query goes on or is answered: nothing breaks the server.
func FuzzNames(f *testing.F) {
	l := newLAN(f)
	h, _ := newHost(f)
	join(f, h, l.Network(one), "srv")
	f.Add(query(f, "srv.", dnsmessage.TypeA))
	f.Add([]byte{})
	f.Add(make([]byte, 12))
	f.Fuzz(func(t *testing.T, q []byte) {
		p := &packets{query: append(make([]byte, 0, 512), q[:min(len(q), 512)]...)}
		_, _, err := h.Names(p).ReadFrom(make([]byte, 512))
		if (err == nil) == (p.answer != nil) {
			t.Errorf("%x: %v, answered %x", q, err, p.answer)
		}
	})
}

func BenchmarkJoin(b *testing.B) {
	l := newLAN(b)
	n := l.Network(one)
	h, _ := newHost(b)
	for b.Loop() {
		if err := errors.Join(h.Join(lan.Member{Network: n}), h.Leave(n)); err != nil {
			b.Fatal(err)
		}
	}
}
