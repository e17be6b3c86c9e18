package engine

import (
	"net"
	"sync"

	"giggle/engine/netns"
)

// The most connections that one instance may have open to each of the platform's listeners.
const (
	metadataConns = 256
	edgeConns     = 2048
	dnsConns      = 128
	hostConns     = 256 // of each port, and of all databases
)

// databasePort is where databases are.
const databasePort = 3307

// connections counts what all instances have open to the platform's listeners, each of which takes one of the process's
// descriptors. An instance may open one more while it has fewer than are left: however many there are that take what
// they get, as much as each of them has is left for the others.
type connections struct {
	mu   sync.Mutex
	left int
}

// share is one instance's part of it.
type share struct {
	of   *connections
	open int
}

// newConnections returns the connections of a process that may have so many open files: half of them, so that the
// platform's own files and the connections to instances have the rest.
func newConnections(files uint64) *connections {
	return &connections{left: int(min(files/2, 1<<20))}
}

func (s *share) take(n int) bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.open+n > s.of.left {
		return false
	}
	s.open, s.of.left = s.open+n, s.of.left-n
	return true
}

func (s *share) give(n int) {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.open, s.of.left = s.open-n, s.of.left+n
}

// bounded is a listener of one instance. What is too much is closed unheard: to let it wait would only make who floods
// us wait along with everybody else.
type bounded struct {
	net.Listener
	share *share
	most  int
	each  int // descriptors that a connection takes: 2 where it is relayed
	// original has connections say where they were to, before they were redirected.
	original bool

	mu   sync.Mutex
	open int
}

func (l *bounded) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.take() {
			out := &counted{Conn: c, of: l}
			if t, ok := c.(*net.TCPConn); ok && l.original {
				if at, err := netns.OriginalDestination(t); err == nil { // else it is gone
					out.to = net.TCPAddrFromAddrPort(at)
				}
			}
			return out, nil
		}
		_ = c.Close() // it was never heard
	}
}

func (l *bounded) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most || !l.share.take(l.each) {
		return false
	}
	l.open++
	return true
}

func (l *bounded) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.share.give(l.each)
}

// counted is a connection that gives its place back when it is closed.
type counted struct {
	net.Conn
	of   *bounded
	to   net.Addr // where it was to, where that is asked for
	once sync.Once
}

func (c *counted) LocalAddr() net.Addr {
	if c.to != nil {
		return c.to
	}
	return c.Conn.LocalAddr()
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.of.give)
	return err
}

// Unwrap returns the connection below, for one who copies from it: the kernel does that where it knows both ends.
func (c *counted) Unwrap() net.Conn { return c.Conn }

// CloseWrite passes the half-close through, which net/http makes when it ends a connection that is still being written
// to.
func (c *counted) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
