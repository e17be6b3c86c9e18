package sql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"sync"

	"giggle/engine/netns"
	"giggle/fault"
	"giggle/relay"
)

// Port is where Google's connectors connect to.
const Port = 3307

// InsideAddress is where an instance is for programs in containers.
func InsideAddress(i Instance) netip.Addr {
	a := netns.Databases.Addr().As4()
	a[3] = byte(i.Number)
	return netip.AddrFrom4(a)
}

// inside returns the instance that a connection in a container is to.
func (p *Proxy) inside(ctx context.Context, c net.Conn) (Name, error) {
	at, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil || !netns.Databases.Contains(at.Addr()) {
		return Name{}, fault.New(fault.NotFound, "%s is the address of no database.", c.LocalAddr())
	}
	i, err := p.Instances.numbered(ctx, int(at.Addr().As4()[3]))
	return i.Name, err
}

// ServeInside serves connectors in a container, each connection for the instance whose address it is to.
func (p *Proxy) ServeInside(l net.Listener, c Client) error {
	c.Say = p.seldom(c.Say)
	return p.serve(l, c.Say, p.inside)
}

// serve serves connectors. Whose connection it is their certificate says.
func (p *Proxy) serve(
	l net.Listener, say func(string), of func(ctx context.Context, c net.Conn) (Name, error),
) error {
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		n, err := of(hello.Context(), hello.Conn)
		if err != nil {
			return nil, err
		}
		return p.config(hello.Context(), n, say)
	}}
	return relay.Serve(tls.NewListener(l, config), func(ctx context.Context, from net.Conn) (net.Conn, error) {
		c := from.(*tls.Conn)
		if err := c.HandshakeContext(ctx); err != nil {
			p.Log.Debug("a connector's handshake", "from", c.RemoteAddr(), "err", err)
			return nil, err
		}
		n, err := of(ctx, c.NetConn())
		if err != nil {
			return nil, err
		}
		return p.dial(ctx, Client{Member: member(c.ConnectionState().PeerCertificates[0]), Say: say}, n)
	})
}

// config is the TLS of one instance. Who may not connect hears it in the handshake.
func (p *Proxy) config(ctx context.Context, n Name, say func(string)) (*tls.Config, error) {
	cert, err := p.CA.server(n)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{*cert},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              p.CA.pool(),
		Time:                   p.Now,
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			err := p.admit(ctx, s.PeerCertificates, n)
			if err != nil {
				say("Cloud SQL: " + fault.From(err).Text())
			}
			return err
		},
	}, nil
}

func (p *Proxy) admit(ctx context.Context, certs []*x509.Certificate, n Name) error {
	if len(certs) == 0 || certs[0].Subject.CommonName != commonName(n) {
		return fault.New(fault.PermissionDenied, "The client's certificate is not one for %s.", n)
	}
	return p.allow(ctx, member(certs[0]), n)
}

// hostConns is how many connections programs of this machine may have open to one database.
const hostConns = 256

// Host are the listeners for connectors that run on this machine, outside containers.
type Host struct {
	proxy *Proxy
	from  netip.Addr // the first address to try

	mu        sync.Mutex
	listeners map[Name]net.Listener
	closed    bool
	open      sync.WaitGroup
}

// Host returns the listeners on addresses from the loopback address on. There are none until one is asked for.
func (p *Proxy) Host(from netip.Addr) *Host {
	return &Host{proxy: p, from: from, listeners: make(map[Name]net.Listener)}
}

// Address returns where an instance is for programs of this machine, and has it listen there: on the first loopback
// address whose port is free, since connectors name no server that would tell instances apart.
func (h *Host) Address(n Name) (netip.Addr, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.listeners[n]; l != nil {
		return l.Addr().(*net.TCPAddr).AddrPort().Addr().Unmap(), nil
	}
	if h.closed {
		return netip.Addr{}, fault.New(fault.Unavailable, "The platform is stopping.")
	}
	var errs []error
	at := h.from
	for range MaxInstances {
		l, err := net.Listen("tcp", netip.AddrPortFrom(at, Port).String())
		if err == nil {
			h.listeners[n] = l
			h.open.Go(func() { h.serve(l, n) })
			return at, nil
		}
		errs = append(errs, err)
		a := at.As4()
		if a[3]++; a[3] == 0 || a[3] == 255 {
			a[3] = 1
		}
		at = netip.AddrFrom4(a)
	}
	return netip.Addr{}, &fault.Error{
		Code:    fault.ResourceExhausted,
		Message: "No loopback address has port 3307 free for the database.",
		Cause:   errors.Join(errs...),
	}
}

func (h *Host) serve(l net.Listener, n Name) {
	log := h.proxy.Log
	err := h.proxy.serve(relay.Bound(l, hostConns), func(text string) { log.Info(text, "instance", n) },
		func(context.Context, net.Conn) (Name, error) { return n, nil })
	if err != nil {
		log.Warn("connectors of this machine are not served any more", "instance", n, "err", err)
	}
}

// Listens reports whether one of the listeners is on an address.
func (h *Host) Listens(at netip.AddrPort) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.listeners {
		if l.Addr().(*net.TCPAddr).AddrPort() == at {
			return true
		}
	}
	return false
}

// Close ends the listeners and their connections.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	for _, l := range h.listeners {
		_ = l.Close()
	}
	h.mu.Unlock()
	h.open.Wait()
	return nil
}
