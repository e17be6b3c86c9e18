package netns_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"giggle/engine/netns"
)

func open(t *testing.T) *netns.Namespace {
	t.Helper()
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// inside dials from within the namespace, as an app does.
func inside(t *testing.T, n *netns.Namespace, network, addr string) (c net.Conn, err error) {
	t.Helper()
	err = n.Do(func() (err error) { c, err = (&net.Dialer{Timeout: time.Minute}).Dial(network, addr); return err })
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func TestListenersAreRedirected(t *testing.T) {
	n := open(t)
	for _, port := range []uint16{53, 80, 443} {
		l, err := n.Listen(port)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "hello")
				c.Close()
			}
		}()
		addr := net.JoinHostPort("169.254.169.254", map[uint16]string{53: "53", 80: "80", 443: "443"}[port])
		c, err := inside(t, n, "tcp", addr)
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		if b, _ := io.ReadAll(c); string(b) != "hello" {
			t.Errorf("%s answered %q", addr, b)
		}
		// The app may have the same port for itself.
		err = n.Do(func() error {
			own, err := net.Listen("tcp4", "0.0.0.0:"+strings.TrimPrefix(addr, "169.254.169.254:"))
			if err == nil {
				own.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("an app can't listen on port %d: %v", port, err)
		}
	}

	u, err := n.ListenPacket(53)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() {
		b := make([]byte, 64)
		k, from, err := u.ReadFrom(b)
		if err == nil {
			u.WriteTo([]byte("re: "+string(b[:k])), from)
		}
	}()
	c, err := inside(t, n, "udp", "169.254.169.254:53")
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, "joke")
	b := make([]byte, 64)
	k, err := c.Read(b)
	if err != nil || string(b[:k]) != "re: joke" {
		t.Errorf("UDP answered %q, %v", b[:k], err)
	}

	if _, err := n.Listen(8080); err == nil {
		t.Error("a port without redirection was given out")
	}
}

func TestDial(t *testing.T) {
	n := open(t)
	serve := func(addr string) {
		var l net.Listener
		if err := n.Do(func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "app") }))
	}
	serve("0.0.0.0:80")
	serve("127.0.0.1:81")
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return n.Dial(ctx, 80) },
		},
	}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://app/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "app" {
		t.Errorf("body = %q", b)
	}
	for _, port := range []uint16{81, 82} {
		if c, err := n.Dial(t.Context(), port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d: %v, %v, want connection refused", port, c, err)
		}
	}
}

// Connections to the app are not tracked: the table would soon be full of them.
func TestAppIsNotTracked(t *testing.T) {
	n := open(t)
	var l net.Listener
	if err := n.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	platform, err := n.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	defer platform.Close()
	tracked := func() (count string) {
		t.Helper()
		if err := n.Do(func() error {
			b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
			count = strings.TrimSpace(string(b))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return count
	}
	for range 5 {
		c, err := n.Dial(t.Context(), 80)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if got := tracked(); got != "0" {
		t.Errorf("%s connections to the app are tracked", got)
	}
	if _, err := inside(t, n, "tcp", "169.254.169.254:80"); err != nil {
		t.Fatal(err)
	}
	if got := tracked(); got != "1" {
		t.Errorf("%s connections are tracked after one to the platform", got)
	}
}

// A listener whose backlog is full leaves a connection pending: it must end with the context.
func TestDialEndsWithContext(t *testing.T) {
	n := open(t)
	var fd int
	err := n.Do(func() (err error) {
		if fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Port: 99}), syscall.Listen(fd, 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for range 10 {
		c, err := n.Dial(ctx, 99)
		if err == nil {
			defer c.Close()
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		return
	}
	t.Error("the backlog never filled")
}

func TestNamespacesAreApart(t *testing.T) {
	a, b := open(t), open(t)
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if _, err := inside(t, a, "tcp", host.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the host's loopback: %v, want refused", err)
	}
	l, err := a.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := inside(t, b, "tcp", "169.254.169.254:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the neighbour's metadata: %v, want refused", err)
	}
	if _, err := inside(t, a, "tcp", "1.1.1.1:80"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("the outside: %v, want unreachable", err)
	}
}

func TestPool(t *testing.T) {
	before := descriptors(t)
	p := netns.NewPool(2, func(err error) { t.Error(err) })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			n, err := p.Get(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			n.Close()
		})
	}
	wg.Wait()
	p.Close()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		n, err := netns.New()
		if err != nil {
			b.Fatal(err)
		}
		n.Close()
	}
}

func BenchmarkDial(b *testing.B) {
	n, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	var l net.Listener
	n.Do(func() error { l, err = net.Listen("tcp", ":80"); return err })
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for b.Loop() {
		c, err := n.Dial(b.Context(), 80)
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// Whoever makes namespaces while they are in one leaves no thread there: the next process that a thread starts would be
// in it, too.
func TestThreadsComeBack(t *testing.T) {
	where := func() string {
		at, err := os.Readlink("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		return at
	}
	home := where()
	outer, err := netns.Bare()
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	err = outer.Do(func() error {
		if where() == home {
			t.Error("Do is not in the namespace")
		}
		for range 20 {
			inner, err := netns.Bare()
			if err != nil {
				return err
			}
			if err := errors.Join(inner.Do(func() error { return nil }), inner.Close()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for range 64 { // more than there are threads: each has one to itself
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			<-begin
			if at := where(); at != home {
				t.Errorf("a thread is in %s, want %s", at, home)
			}
		})
	}
	close(begin)
	wg.Wait()
}
