package edge

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"giggle/fault"
	"giggle/rest"
)

const (
	dialTimeout = 10 * time.Second
	maxTunnels  = 512
	tunnelIdle  = 15 * time.Minute // without a byte in either direction
)

// plainEdge is the handler of the plain port.
type plainEdge struct{ s *Server }

func (p *plainEdge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		p.connect(w, r)
	case r.URL.IsAbs() && !p.s.cfg.Router.owns(r.Host):
		p.forward(w, r)
	default:
		p.s.cfg.Router.ServeHTTP(w, r)
	}
}

// connect answers CONNECT HOST:PORT. For our names the tunnel ends here, in our own TLS listener, without a dial.
func (p *plainEdge) connect(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil || CleanHost(host) == "" {
		refuse(w, r, fault.New(fault.InvalidArgument, "CONNECT needs HOST:PORT."))
		return
	}
	if r.ProtoMajor != 1 {
		refuse(w, r, fault.New(fault.Unimplemented, "CONNECT is served over HTTP/1.1 only."))
		return
	}
	ours := p.s.cfg.Router.owns(host)
	if ours && port == "443" {
		if c, ok := hijack(w); ok {
			if p.s.inner.give(c) != nil {
				_ = c.Close()
			}
		}
		return
	}
	if ours || OwnName(host) {
		refuse(w, r, fault.New(fault.PermissionDenied, "Giggle does not serve %s.", r.Host))
		return
	}
	if !p.s.cfg.Direct {
		refuse(w, r, fault.New(fault.PermissionDenied,
			"%s is not one of Giggle's hosts, and tunnels to other hosts are off.", r.Host))
		return
	}
	if err := p.mayTunnel(r); err != nil {
		refuse(w, r, err)
		return
	}
	if !p.s.tunnels.enter() {
		refuse(w, r, fault.New(fault.ResourceExhausted, "Too many tunnels are open (%d).", maxTunnels))
		return
	}
	defer p.s.tunnels.leave()
	// Not the request's own cancellation: a client that has sent all it has to say may close its half already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), dialTimeout)
	defer cancel()
	up, err := p.s.cfg.Dial(ctx, "tcp", r.Host)
	if errors.Is(err, errInside) {
		refuse(w, r, inside(r.Host))
		return
	}
	if err != nil {
		p.s.cfg.Log.Debug("tunnel", "host", r.Host, "error", err)
		refuse(w, r, fault.New(fault.Unavailable, "%s cannot be reached.", r.Host))
		return
	}
	defer up.Close()
	down, ok := hijack(w)
	if !ok {
		return
	}
	defer down.Close()
	p.s.tunnels.run(down, up)
}

// hijack takes the connection over and tells the client that the tunnel stands.
func hijack(w http.ResponseWriter) (net.Conn, bool) {
	c, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "This connection cannot become a tunnel.", http.StatusInternalServerError)
		return nil, false
	}
	_ = c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		_ = c.Close()
		return nil, false
	}
	if buf.Reader.Buffered() == 0 {
		return c, true
	}
	return &bufferedConn{c, buf.Reader}, true // the client did not wait for the answer
}

type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (b *bufferedConn) Read(p []byte) (int, error) { return b.r.Read(p) }

// hopByHop are the headers that a proxy keeps to itself (RFC 9110 §7.6.1); ReverseProxy strips the rest.
var hopByHop = []string{"Proxy-Connection", "Proxy-Authorization"}

// forward is the plain-HTTP proxy for hosts that are not ours.
func (p *plainEdge) forward(w http.ResponseWriter, r *http.Request) {
	if !p.s.cfg.Direct || OwnName(r.Host) || r.URL.Scheme != "http" {
		refuse(w, r, fault.New(fault.PermissionDenied,
			"%s is not one of Giggle's hosts, and forwarding to other hosts is off.", r.Host))
		return
	}
	if err := p.mayTunnel(r); err != nil {
		refuse(w, r, err)
		return
	}
	if !p.s.tunnels.enter() {
		refuse(w, r, fault.New(fault.ResourceExhausted, "Too many tunnels are open (%d).", maxTunnels))
		return
	}
	defer p.s.tunnels.leave()
	proxy := httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			for _, h := range hopByHop {
				pr.Out.Header.Del(h)
			}
		},
		Transport:     p.s.tunnels.transport(p.s.cfg.Dial),
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, errInside) {
				refuse(w, r, inside(r.Host))
				return
			}
			p.s.cfg.Log.Debug("forward", "host", r.Host, "error", err)
			refuse(w, r, fault.New(fault.Unavailable, "%s cannot be reached.", r.Host))
		},
	}
	proxy.ServeHTTP(w, r)
}

// mayTunnel fails unless the owner asks: the platform dials as root, which others must not have done for them.
func (p *plainEdge) mayTunnel(r *http.Request) error {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if ok {
		uid, err := p.s.cfg.User(&addresses{local: local, remote: r.RemoteAddr})
		ok = err == nil && p.s.cfg.Owner(uid)
	}
	if !ok {
		return fault.New(fault.PermissionDenied,
			"%s is not one of Giggle's hosts; this proxy reaches others for the owner of the cloud only.", r.Host)
	}
	return nil
}

// addresses is a connection as far as its user is asked for.
type addresses struct {
	net.Conn
	local  net.Addr
	remote string
}

func (a *addresses) LocalAddr() net.Addr  { return a.local }
func (a *addresses) RemoteAddr() net.Addr { return remoteAddr(a.remote) }

type remoteAddr string

func (remoteAddr) Network() string  { return "tcp" }
func (a remoteAddr) String() string { return string(a) }

// errInside is why an address is not dialled.
var errInside = errors.New("edge: an address of this machine or its link")

func inside(host string) error {
	return fault.New(fault.PermissionDenied,
		"%s is on this machine or its link, where this proxy reaches nothing: name it in NO_PROXY.", host)
}

// onlyOutside is a net.Dialer's Control: it sees the address after the name was resolved. What listens on loopback
// trusts who is on this machine, and not whom the platform dials for.
func onlyOutside(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := a.Addr().Unmap()
	if ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.Zone() != "" {
		return errInside
	}
	return nil
}

func refuse(w http.ResponseWriter, r *http.Request, err error) {
	rest.WriteError(w, r, rest.NewFailure("", err))
}

// tunnels counts and cuts the connections that bypass us.
type tunnels struct {
	slots chan struct{}
	mu    sync.Mutex
	open  map[net.Conn]bool
	ended bool
	once  sync.Once
	trans *http.Transport
}

func (t *tunnels) init() {
	t.slots, t.open = make(chan struct{}, maxTunnels), map[net.Conn]bool{}
}

func (t *tunnels) transport(dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	t.once.Do(func() {
		t.trans = &http.Transport{
			DialContext:        dial,
			IdleConnTimeout:    time.Minute,
			MaxIdleConns:       32,
			DisableCompression: true,
		}
	})
	return t.trans
}

func (t *tunnels) enter() bool {
	select {
	case t.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t *tunnels) leave() { <-t.slots }

// run copies both ways until both ends are done, or idle for too long, or the server stops.
func (t *tunnels) run(a, b net.Conn) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	t.open[a], t.open[b] = true, true
	t.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { pump(a, b) })
	wg.Go(func() { pump(b, a) })
	wg.Wait()
	t.mu.Lock()
	delete(t.open, a)
	delete(t.open, b)
	t.mu.Unlock()
}

// pump copies src to dst and passes the end of the stream on.
func pump(dst, src net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		deadline := time.Now().Add(tunnelIdle)
		_ = src.SetReadDeadline(deadline)
		n, err := src.Read(buf)
		if n > 0 {
			_ = dst.SetReadDeadline(deadline) // traffic one way keeps the other way open
			_ = dst.SetWriteDeadline(deadline)
			if _, werr := dst.Write(buf[:n]); werr != nil {
				_ = src.Close()
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = dst.Close()
				return
			}
			if h, ok := dst.(interface{ CloseWrite() error }); ok {
				_ = h.CloseWrite()
			} else {
				_ = dst.Close()
			}
			return
		}
	}
}

func (t *tunnels) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for c := range t.open {
		_ = c.Close()
	}
	if t.trans != nil {
		t.trans.CloseIdleConnections()
	}
}

// CloseWrite passes the half-close through to the connection below.
func (b *bufferedConn) CloseWrite() error {
	if h, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return b.Conn.Close()
}
