package sql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"giggle/fault"
	"giggle/relay"
)

// MaxConns is how many connections to one database an instance of a service may have open
// (https://cloud.google.com/sql/docs/postgres/connect-run).
const MaxConns = 100

// ProxyConfig is what a Proxy needs.
type ProxyConfig struct {
	Instances *Instances
	CA        *CA
	Identity  Identity
	// Own reports whether the platform itself listens on an address: there instances are not led.
	Own func(netip.AddrPort) bool
	Dir string // of the sockets; what a platform that was killed left in it goes
	Now func() time.Time
	Log *slog.Logger
}

// Identity says who may: *iam.IAM.
type Identity interface {
	// AuthorizeMember fails when a member of policies, "serviceAccount:EMAIL", lacks a permission on a resource, with
	// what would help.
	AuthorizeMember(ctx context.Context, member, permission, resource string) error
}

// Proxy leads connections to databases.
type Proxy struct{ ProxyConfig }

// NewProxy returns a Proxy.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return nil, err
	}
	return &Proxy{cfg}, os.MkdirAll(cfg.Dir, 0o700)
}

// Client is who connects.
type Client struct {
	ID     string // of the container, a file's name
	Member string // "serviceAccount:EMAIL"
	// Say writes a line into its log.
	Say func(text string)
}

// Sockets are the sockets of one container, a directory to be shown in it at /cloudsql.
type Sockets struct {
	Dir       string
	listeners []net.Listener
	open      sync.WaitGroup
}

// Open makes the sockets of a container, which is not to be able to change the directory: what is in it is the host's.
// Close ends it. An instance that leads nowhere has no socket, and the container's log says why.
func (p *Proxy) Open(ctx context.Context, c Client, names []string) (_ *Sockets, err error) {
	defer fault.Wrap(&err, "sql.Open(%s)", c.ID)
	s := &Sockets{Dir: filepath.Join(p.Dir, c.ID)}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if err := os.Mkdir(s.Dir, 0o755); err != nil {
		return nil, err
	}
	c.Say = p.seldom(c.Say)
	for _, text := range names {
		n, err := ParseName(text)
		if err != nil {
			return nil, err
		}
		i, err := p.Instances.Find(ctx, n)
		if fault.Is(err, fault.FailedPrecondition) {
			c.Say(fault.From(err).Message)
			continue
		}
		if err != nil {
			return nil, err
		}
		l, err := s.listen(i)
		if err != nil {
			return nil, err
		}
		s.listeners = append(s.listeners, l)
		s.open.Go(func() {
			if err := relay.Serve(relay.Bound(l, MaxConns), func(ctx context.Context, _ net.Conn) (net.Conn, error) {
				return p.dial(ctx, c, n)
			}); err != nil {
				p.Log.Warn("a socket of a database is not served any more", "instance", n, "err", err)
			}
		})
	}
	return s, nil
}

// SocketOf is the path of an instance's socket below /cloudsql, "" for a database that has none.
func SocketOf(i Instance) string {
	switch i.Engine() {
	case Postgres: // libpq takes the directory for the host and adds the port
		return i.Name.String() + "/.s.PGSQL.5432"
	case MySQL:
		return i.Name.String()
	}
	return ""
}

// maxSocket is the longest path of a socket.
const maxSocket = len(unix.RawSockaddrUnix{}.Path) - 1

func (s *Sockets) listen(i Instance) (net.Listener, error) {
	name := SocketOf(i)
	if name == "" {
		return nil, noSocket(i)
	}
	at := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return nil, err
	}
	// By a descriptor: the path from the root may be longer than a socket's may be.
	dir, err := os.Open(filepath.Dir(at))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(at))
	if len(short) > maxSocket {
		return nil, fault.New(fault.FailedPrecondition, "The name %s is too long for a socket's path.", i.Name)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the directory goes as a whole, and the path may be another's by then
	if err := os.Chmod(at, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Close ends the sockets and their connections.
func (s *Sockets) Close() error {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.open.Wait()
	return os.RemoveAll(s.Dir)
}

// dial connects a client to an instance, if it may.
func (p *Proxy) dial(ctx context.Context, c Client, n Name) (net.Conn, error) {
	to, err := p.tryDial(ctx, c, n)
	if err != nil {
		c.Say("Cloud SQL: " + fault.From(err).Text())
		p.Log.Debug("a connection to a database", "instance", n, "client", c.ID, "err", err)
	}
	return to, err
}

func (p *Proxy) tryDial(ctx context.Context, c Client, n Name) (net.Conn, error) {
	i, err := p.Instances.Find(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := p.allow(ctx, c.Member, n); err != nil {
		return nil, err
	}
	d := net.Dialer{Control: p.control}
	to, err := d.DialContext(ctx, "tcp", i.Address)
	if err != nil {
		e := fault.New(fault.Unavailable, "%s leads to %s, which can't be reached: %v", n, i.Address, err)
		e.Cause = err
		return nil, e
	}
	return to, nil
}

// allow fails when a member may not connect to an instance now.
func (p *Proxy) allow(ctx context.Context, member string, n Name) error {
	return p.Identity.AuthorizeMember(ctx, member, "cloudsql.instances.connect", n.Resource())
}

// control sees the address after its name was resolved.
func (p *Proxy) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := a.Addr().Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || p.Own(netip.AddrPortFrom(ip, a.Port())) {
		return fault.New(fault.PermissionDenied, "%s is an address of the platform's or of its link", address)
	}
	return nil
}

// sayEvery is how often a client's log is told the same.
const sayEvery = 10 * time.Second

// seldom is say for clients that try again and again.
func (p *Proxy) seldom(say func(string)) func(string) {
	var mu sync.Mutex
	said := make(map[string]time.Time)
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		now := p.Now()
		if at, ok := said[text]; ok && now.Sub(at) < sayEvery {
			return
		}
		if len(said) > 100 {
			clear(said)
		}
		said[text] = now
		say(text)
	}
}
