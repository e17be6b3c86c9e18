// Package relay carries connections on to somewhere else.
//
// It serves what leads out of an instance to something of the machine's: its ports, its databases. Who may, and where
// to, is said by whoever dials.
package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// DialTimeout is how long a connection waits for the other end.
const DialTimeout = 10 * time.Second

// Dial opens the other end of a connection.
type Dial func(ctx context.Context, from net.Conn) (net.Conn, error)

// Serve carries each connection of a listener on, until the listener is closed; then it ends those that are open. One
// whose other end can't be dialled is reset, so that its program sees that it was refused, and not that it ended well.
func Serve(l net.Listener, dial Dial) error {
	ctx, cancel := context.WithCancel(context.Background())
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() {
			defer c.Close()
			dialling, done := context.WithTimeout(ctx, DialTimeout)
			to, err := dial(dialling, c)
			done()
			if err != nil {
				reset(c)
				return
			}
			defer to.Close()
			Copy(ctx, c, to)
		})
	}
}

// Copy carries bytes both ways until both have ended, one has failed, or ctx ends. It passes the end of each way on.
func Copy(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() {
		_ = a.Close()
		_ = b.Close()
	})
	defer stop()
	var ways sync.WaitGroup
	ways.Go(func() { pump(a, b) })
	ways.Go(func() { pump(b, a) })
	ways.Wait()
}

// pump copies one way. Where both are sockets the kernel does it (splice), and nothing comes through this process.
func pump(to, from net.Conn) {
	if _, err := io.Copy(bare(to), bare(from)); err != nil {
		reset(to) // the other way has no use without this one
		_ = from.Close()
		return
	}
	if h, ok := to.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // it may be gone
	} else {
		_ = to.Close()
	}
}

// bare is the connection below one that only counts it.
func bare(c net.Conn) net.Conn {
	if u, ok := c.(interface{ Unwrap() net.Conn }); ok {
		return u.Unwrap()
	}
	return c
}

// reset ends a connection in a way that its other end takes for a failure.
func reset(c net.Conn) {
	if t, ok := bare(c).(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
