package edge

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"giggle/edge/http1"
)

// listener bounds the open connections of another, and remembers for each how its context is made.
type listener struct {
	net.Listener
	s    *Server
	mark ConnContext // or nil
	open atomic.Int64
}

func (s *Server) listener(l net.Listener, mark ConnContext) net.Listener {
	return &listener{Listener: l, s: s, mark: mark}
}

// Accept waits for a connection. Those that are too many are closed at once: to let them wait would only make who
// floods us wait along with everybody else.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= int64(l.s.cfg.Conns) {
			return &conn{Conn: c, of: l}, nil
		}
		l.open.Add(-1)
		_ = c.Close()
		l.s.cfg.Log.Debug("edge: too many connections", "listener", l.Addr().String(), "limit", l.s.cfg.Conns)
	}
}

// conn is a connection of a listener.
type conn struct {
	net.Conn
	of   *listener
	once sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

// CloseWrite passes the half-close through, which net/http makes when it ends a connection that is still being written to.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// connContext is http.Server's ConnContext.
func connContext(ctx context.Context, c net.Conn) context.Context {
	return marked(http1.Below(ctx, c))
}

// marked puts into ctx what the caller of ServeTLS or ServePlain knows of a connection.
func marked(ctx context.Context, c net.Conn) context.Context {
	if m, ok := c.(*conn); ok && m.of.mark != nil {
		return m.of.mark(ctx, m.Conn)
	}
	return ctx
}
