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
	for {
		u, ok := c.(interface{ Unwrap() net.Conn })
		if !ok {
			return c
		}
		c = u.Unwrap()
	}
}

// reset ends a connection in a way that its other end takes for a failure.
func reset(c net.Conn) {
	if t, ok := bare(c).(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// Bound is a listener with so many connections open at most. What is too much is closed unheard: to let it wait would
// only make who floods us wait along with everybody else.
func Bound(l net.Listener, most int) net.Listener {
	return &bound{Listener: l, free: make(chan struct{}, most)}
}

type bound struct {
	net.Listener
	free chan struct{}
}

func (b *bound) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.free <- struct{}{}:
			return &bounded{Conn: c, leave: sync.OnceFunc(func() { <-b.free })}, nil
		default:
			reset(c)
		}
	}
}

type bounded struct {
	net.Conn
	leave func()
}

func (c *bounded) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// Unwrap returns the connection below.
func (c *bounded) Unwrap() net.Conn { return c.Conn }

// CloseWrite passes the half-close through.
func (c *bounded) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
