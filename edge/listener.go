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

	users *users // nil: who connects is not asked
}

func (s *Server) listener(l net.Listener, mark ConnContext) *listener {
	return &listener{Listener: l, s: s, mark: mark}
}

// local is a listener for local users.
func (s *Server) local(l net.Listener) *listener {
	return &listener{Listener: l, s: s, users: &users{open: make(map[int]int)}}
}

// Bound is a listener whose connections local users have as they have those that the Server serves: for the platform's
// other doors on this machine.
func (s *Server) Bound(l net.Listener) net.Listener { return s.local(l) }

// users counts the connections of local users.
type users struct {
	mu     sync.Mutex
	open   map[int]int // by uid
	others int         // of all but the owner
}

// Accept waits for a connection. Those that are too many are closed at once: to let them wait would only make who
// floods us wait along with everybody else.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if n := l.open.Add(1); n <= int64(l.s.cfg.Conns) {
			if uid, ok := l.enter(c, int(n)); ok {
				return &conn{Conn: c, of: l, uid: uid}, nil
			}
		}
		l.open.Add(-1)
		_ = c.Close()
		l.s.cfg.Log.Debug("edge: too many connections", "listener", l.Addr().String(), "limit", l.s.cfg.Conns)
	}
}

// noUser is the uid of a connection that was not asked for its user.
const noUser = -1

// enter reports whether a connection, the nth that is open, may stay. While a quarter of the connections is not in use
// no caller is asked who they are. Beyond it a user other than the owner has an eighth of them, and all of these a
// quarter: half stays for the owner.
func (l *listener) enter(c net.Conn, n int) (uid int, ok bool) {
	limit := l.s.cfg.Conns
	if l.users == nil || n <= limit/4 {
		return noUser, true
	}
	uid, err := l.s.cfg.User(c)
	if err == nil && l.s.cfg.Owner(uid) {
		return noUser, true
	}
	if err != nil {
		uid = noUser - 1 // that one is gone
	}
	u := l.users
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.open[uid] >= limit/8 || u.others >= limit/4 {
		return noUser, false
	}
	u.open[uid]++
	u.others++
	return uid, true
}

func (l *listener) leave(uid int) {
	l.open.Add(-1)
	if uid == noUser {
		return
	}
	l.users.mu.Lock()
	defer l.users.mu.Unlock()
	l.users.others--
	if l.users.open[uid]--; l.users.open[uid] == 0 {
		delete(l.users.open, uid)
	}
}

// conn is a connection of a listener.
type conn struct {
	net.Conn
	of   *listener
	uid  int
	once sync.Once
}

func (c *conn) Close() error {
	c.once.Do(func() { c.of.leave(c.uid) })
	return c.Conn.Close()
}

// NetConn is the connection below, for who asks the kernel about it.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite passes the half-close through, which net/http makes when it ends a connection that is still being written
// to.
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
