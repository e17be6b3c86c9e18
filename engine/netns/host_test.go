package netns_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"giggle/engine/netns"
)

// greet says a word to all who connect.
func greet(t *testing.T, l net.Listener, word string) {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, word)
			c.Close()
		}
	}()
}

// Any port of the host has a listener in the namespace that is in no app's way; the others are refused.
func TestListenHost(t *testing.T) {
	n := open(t)
	ports := []uint16{53, 80, 443, 5432, 8080}
	listeners, err := n.ListenHost(ports)
	if err != nil {
		t.Fatal(err)
	}
	for k, l := range listeners {
		greet(t, l, fmt.Sprint("host ", ports[k]))
	}
	platform, err := n.Listen(80)
	if err != nil {
		t.Fatal(err)
	}
	greet(t, platform, "platform")
	for _, port := range []int{80, 8080, 9999} {
		var app net.Listener
		err := n.Do(func() (err error) {
			app, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
			return err
		})
		if err != nil {
			t.Fatalf("an app can't listen on port %d: %v", port, err)
		}
		greet(t, app, fmt.Sprint("app ", port))
	}
	for addr, want := range map[string]string{
		"169.254.169.253:53":   "host 53",
		"169.254.169.253:80":   "host 80",
		"169.254.169.253:443":  "host 443",
		"169.254.169.253:5432": "host 5432",
		"169.254.169.253:8080": "host 8080",
		"169.254.169.254:80":   "platform",
		"169.254.8.1:80":       "app 80",
		"127.0.0.1:8080":       "app 8080",
	} {
		c, err := inside(t, n, "tcp", addr)
		if err != nil {
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if b, err := io.ReadAll(c); string(b) != want {
			t.Errorf("%s answered %q, %v, want %q", addr, b, err, want)
		}
	}
	// An app's own port, one that nobody has, and the listeners' real ones.
	for _, port := range []int{9999, 22, 61500, 61501, 61499} {
		c, err := inside(t, n, "tcp", fmt.Sprintf("169.254.169.253:%d", port))
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d: %v, %v, want a refused connection", port, c, err)
		}
	}

	other := open(t)
	if c, err := inside(t, other, "tcp", "169.254.169.253:5432"); err == nil {
		t.Errorf("a namespace without ports of the host reaches %v", c.RemoteAddr())
	}
	if _, err := other.ListenHost(make([]uint16, 65)); err == nil {
		t.Error("65 ports were listened on")
	}
}

// All addresses of databases lead to one listener, which learns which one was meant.
func TestDatabases(t *testing.T) {
	n := open(t)
	l, err := n.Listen(3307)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			at, err := netns.OriginalDestination(c.(*net.TCPConn))
			fmt.Fprint(c, at, " ", err)
			c.Close()
		}
	}()
	for _, addr := range []string{"169.254.71.1:3307", "169.254.71.250:3307"} {
		c, err := inside(t, n, "tcp", addr)
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		if b, _ := io.ReadAll(c); string(b) != addr+" <nil>" {
			t.Errorf("%s arrives as one to %q", addr, b)
		}
	}
	for _, addr := range []string{"169.254.71.1:3306", "169.254.72.1:3307", "169.254.169.254:3307"} {
		if c, err := inside(t, n, "tcp", addr); err == nil {
			t.Errorf("%s leads to %v", addr, c.RemoteAddr())
		}
	}
}
