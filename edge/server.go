// Package edge is the platform's front door: the local certificate authority, the TLS listener for Google's names, the
// router by host, the DNS responder, and the plain port with its CONNECT proxy.
//
// It serves cloud, which gives it handlers by class of host, and engine's users, which hand it listeners inside an
// instance's network namespace. It does not know what any handler does, and it never looks into a request beyond its
// host and the path prefix of endpoint overrides.
package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"giggle/edge/http1"
	"giggle/edge/http2"
	"giggle/peer"
)

// Limits of a connection. There is no write timeout: streams and slow downloads are legitimate.
const (
	readHeaderTimeout = 15 * time.Second // also bounds the TLS handshake
	idleTimeout       = 5 * time.Minute
	maxHeaderBytes    = 128 << 10
	maxConns          = 2048             // of one listener
	maxStreams        = 250              // of one HTTP/2 connection
	maxFrame          = 16 << 10         // of HTTP/2, the least that there is (RFC 9113, 4.2)
	pingAfter         = 30 * time.Second // without a frame on an HTTP/2 connection
	pingTimeout       = 15 * time.Second
	stuckTimeout      = 2 * time.Minute // when an HTTP/2 client takes not a byte
)

// Config is what a Server needs.
type Config struct {
	CA     *CA
	Router *Router
	Log    *slog.Logger
	Conns  int // open connections of one listener, 0 for 2048; those beyond are closed unheard

	// Direct lets the CONNECT proxy tunnel to hosts that are not ours, so that `giggle env` does not cut a shell off
	// the network.
	Direct bool
	// Dial opens those tunnels; nil is a net.Dialer that reaches neither this machine nor its neighbourhood.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Owner reports whether a local user may use the proxy for hosts that are not ours, and all connections there are.
	// Nil: everybody is.
	Owner func(uid int) bool
	// User returns the local user at the other end of a connection; nil is peer.User.
	User func(c net.Conn) (uid int, err error)
}

// Server serves the edge on listeners that the caller makes: Listen apart from Serve, so that port 0 works.
type Server struct {
	cfg      Config
	tls      *tls.Config
	secure   *http.Server
	plain    *http.Server
	redirect *http.Server
	inner    *handover // connections that CONNECT turned into TLS for us
	tunnels  tunnels
	once     sync.Once

	mu     sync.Mutex
	fronts map[*http1.Listener]bool // that accept
}

// NewServer returns a Server that serves nothing yet.
func NewServer(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Conns == 0 {
		cfg.Conns = maxConns
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout, Control: onlyOutside}).DialContext
	}
	if cfg.Owner == nil {
		cfg.Owner = func(int) bool { return true }
	}
	if cfg.User == nil {
		cfg.User = peer.User
	}
	s := &Server{
		cfg:    cfg,
		tls:    cfg.CA.TLSConfig(cfg.Router.owns),
		inner:  newHandover(),
		fronts: make(map[*http1.Listener]bool),
	}
	s.secure = s.newHTTP(cfg.Router, true) // its HTTP/2 is passed on without TLS
	s.plain = s.newHTTP(&plainEdge{s}, true)
	s.redirect = s.newHTTP(http.HandlerFunc(s.redirectToTLS), false)
	s.tunnels.init()
	return s
}

func (s *Server) newHTTP(h http.Handler, h2c bool) *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(h2c)
	return &http.Server{
		Handler:           withTLSState(http2.Refusals(h)),
		Protocols:         p,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			MaxReadFrameSize:     maxFrame,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
			WriteByteTimeout:     stuckTimeout,
		},
		ConnContext: connContext,
		ErrorLog:    log.New(debugWriter{s.cfg.Log}, "", 0),
	}
}

// withTLSState tells a handler of TLS that net/http does not see, since http1 passed the connection on.
func withTLSState(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			r.TLS = http1.TLSState(r.Context())
		}
		h.ServeHTTP(w, r)
	})
}

// serveFront has h serve what is left of l's connections when the plain requests for services, which are most, are
// taken out of them: http1 serves those. Without a config there is no TLS.
func (s *Server) serveFront(h *http.Server, l net.Listener, config *tls.Config) error {
	front := http1.Listen(l, http1.Config{
		TLS:         config,
		Handler:     s.cfg.Router,
		Context:     marked,
		HeadTimeout: readHeaderTimeout,
		IdleTimeout: idleTimeout,
		Log:         s.cfg.Log,
		Takes: func(host string) bool {
			return s.cfg.Router.to.Service != nil &&
				ParseName(host).Class == Service
		},
	})
	s.mu.Lock()
	s.fronts[front] = true
	s.mu.Unlock()
	defer func() { // listeners come and go with instances
		s.mu.Lock()
		delete(s.fronts, front)
		s.mu.Unlock()
	}()
	return quiet(h.Serve(front))
}

// debugWriter keeps net/http's remarks on broken handshakes out of sight.
type debugWriter struct{ log *slog.Logger }

func (d debugWriter) Write(p []byte) (int, error) {
	d.log.Debug("edge", "note", string(p))
	return len(p), nil
}

// ConnContext puts what is known of a connection into the context of its requests: for a listener inside an instance,
// which instance calls.
type ConnContext func(ctx context.Context, c net.Conn) context.Context

// ServeTLS serves every name of the Router on l until l is closed or the Server shuts down; either way it returns
// nil. mark may be nil. Any number of listeners may be served at once.
func (s *Server) ServeTLS(l net.Listener, mark ConnContext) error {
	s.once.Do(s.serveInner)
	return s.serveFront(s.secure, s.listener(l, mark), s.tls)
}

// ServeLocal is ServeTLS on a listener that all users of this machine reach: none but the owner gets more than a part
// of the connections that there are.
func (s *Server) ServeLocal(l net.Listener) error {
	s.once.Do(s.serveInner)
	return s.serveFront(s.secure, s.local(l), s.tls)
}

// ServePlain serves the plain edge on l: http://SERVICE.localhost, endpoint overrides below /_/HOST/, and the proxy for
// `giggle env` (CONNECT and absolute URLs). HTTP/2 without TLS is served too.
func (s *Server) ServePlain(l net.Listener, mark ConnContext) error {
	s.once.Do(s.serveInner)
	local := s.local(l)
	local.mark = mark
	return s.serveFront(s.plain, local, nil)
}

// serveInner serves the connections that CONNECT turned into TLS for us.
func (s *Server) serveInner() {
	go func() { _ = s.serveFront(s.secure, s.inner, s.tls) }()
}

// ServeRedirect answers on l, port 80, with redirects to https.
func (s *Server) ServeRedirect(l net.Listener) error {
	return quiet(s.redirect.Serve(s.local(l)))
}

func quiet(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, waits for requests until ctx ends, then cuts what is left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	fronts := slices.Collect(maps.Keys(s.fronts))
	s.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, 3+len(fronts))
	for i, f := range fronts {
		wg.Go(func() { errs[3+i] = f.Shutdown(ctx) })
	}
	for i, h := range []*http.Server{s.redirect, s.plain, s.secure} {
		wg.Go(func() {
			if errs[i] = h.Shutdown(ctx); errs[i] != nil {
				_ = h.Close()
			}
		})
	}
	wg.Wait()
	_ = s.inner.Close()
	s.tunnels.close()
	return errors.Join(errs...)
}

// redirectToTLS answers as Cloud Run's own port 80 does: 302, so that nothing is cached for ever.
func (s *Server) redirectToTLS(w http.ResponseWriter, r *http.Request) {
	host := CleanHost(r.Host)
	if host == "" || !s.cfg.Router.Serves(host) {
		http.Error(w, "Giggle does not serve this host.", http.StatusNotFound)
		return
	}
	http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusFound)
}

// handover is a listener whose connections come from inside the process.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give hands a connection to Accept.
func (h *handover) give(c net.Conn) error {
	select {
	case h.conns <- c:
		return nil
	case <-h.closed:
		return net.ErrClosed
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return &net.UnixAddr{Name: "connect", Net: "unix"} }
