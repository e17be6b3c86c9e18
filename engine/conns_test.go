package engine

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"giggle/engine/netns"
)

// flooded is an instance's network with all of the platform's listeners, each of which says hello.
type flooded struct {
	*testing.T
	ns *netns.Namespace
}

func flood(t *testing.T, of *connections) flooded {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Skipf("network namespaces need root: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
	hello := func(l net.Listener) {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			go func() {
				io.Copy(io.Discard, c) // until the other side goes
				c.Close()
			}()
		}
	}
	closes, err := serve(ns, Sockets{
		Metadata: hello,
		Edge:     hello,
		DNS:      func(_ net.PacketConn, l net.Listener) { hello(l) },
		Host:     map[uint16]func(net.Listener){5432: hello},
	}, &share{of: of})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range closes {
			c()
		}
	})
	return flooded{t, ns}
}

// dial opens a connection to one of the listeners, if it is heard there.
func (f flooded) dial(port int) (net.Conn, bool) {
	f.Helper()
	var c net.Conn
	at := "169.254.169.254"
	if port == 5432 {
		at = "169.254.169.253"
	}
	err := f.ns.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", net.JoinHostPort(at, strconv.Itoa(port)))
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 5)
	_, err = io.ReadFull(c, b)
	return c, err == nil
}

// open opens connections until one is not heard, and returns them.
func (f flooded) open(port, most int) (open []net.Conn) {
	f.Helper()
	for len(open) <= most {
		c, ok := f.dial(port)
		if !ok {
			return open
		}
		open = append(open, c)
	}
	return open
}

// Each listener that a container can reach has its limit; a place is free again when its connection is closed.
func TestConnectionsOfAListener(t *testing.T) {
	of := newConnections(1 << 20)
	f := flood(t, of)
	for port, most := range map[int]int{80: metadataConns, 53: dnsConns, 443: edgeConns, 5432: hostConns} {
		open := f.open(port, most)
		if len(open) != most {
			t.Fatalf("port %d takes %d connections, want %d", port, len(open), most)
		}
		open[0].Close()
		for end := time.Now().Add(10 * time.Second); ; {
			if _, ok := f.dial(port); ok {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("port %d: no place is free after a connection was closed", port)
			}
		}
	}
}

// All containers together have half of the process's descriptors, and those that take all that they get leave the next
// ones some, on every listener.
func TestConnectionsOfAll(t *testing.T) {
	const files = 400
	of := newConnections(files)
	var total int
	for n := range 4 {
		f := flood(t, of)
		mine := 0
		for _, port := range []int{443, 80, 53} {
			mine += len(f.open(port, files))
		}
		if total += mine; mine < files/2>>(n+1)-1 || total >= files/2 {
			t.Errorf("container %d got %d connections, all together %d of %d", n, mine, total, files/2)
		}
	}
	if got, before := len(flood(t, newConnections(files)).open(5432, files)), files/2; got > before/4 {
		t.Errorf("%d connections that take two descriptors each were open, of %d descriptors", got, before)
	}
	next := flood(t, of)
	for _, port := range []int{443, 80, 53} {
		if _, ok := next.dial(port); !ok {
			t.Errorf("port %d: nothing is left for a container that comes after four greedy ones", port)
		}
	}
}
