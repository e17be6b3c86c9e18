package edge_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"giggle/edge"
	"giggle/peer"
)

// The platform's other doors are bounded like its own, and who comes in is still known.
func TestBound(t *testing.T) {
	const conns = 16
	for network, address := range map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			raw, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			f := start(t, edge.Config{Conns: conns, Owner: func(int) bool { return false }}, nil)
			l := f.Bound(raw)
			defer l.Close()
			accepted := make(chan net.Conn, 4*conns)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					accepted <- c
				}
			}()
			refused := 0
			for range 2 * conns {
				c, err := net.Dial(network, raw.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				closed := make(chan error, 1)
				go func() { _, err := c.Read(make([]byte, 1)); closed <- err }()
				select {
				case c := <-accepted:
					defer c.Close()
					if uid, err := peer.User(c); err != nil || uid != os.Getuid() {
						t.Errorf("the other end is %d's (%v)", uid, err)
					}
				case err := <-closed:
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					refused++
				}
			}
			if want := 2*conns - conns/4 - conns/8; refused != want {
				t.Errorf("%d connections were refused, want %d", refused, want)
			}
		})
	}
}
