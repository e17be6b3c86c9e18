package cloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"giggle/edge"
	"giggle/fault"
	"giggle/shell"
)

// listeners are the platform's sockets.
type listeners struct {
	https, http, plain, console, socket net.Listener
	dnsTCP                              net.Listener
	dnsUDP                              net.PacketConn
}

// Listen binds every socket. A port that is taken is an error that names the flag that moves it.
func (c *Cloud) Listen() (err error) {
	if ip, err := netip.ParseAddr(c.cfg.Address); err != nil || !ip.IsLoopback() {
		return fault.New(fault.InvalidArgument,
			"--address %q is not a loopback address such as 127.71.71.1; Giggle listens on loopback only.",
			c.cfg.Address)
	}
	tcp := func(flag, address string) net.Listener {
		if err != nil {
			return nil
		}
		var l net.Listener
		if host, _, e := net.SplitHostPort(address); e != nil || !loopback(host) {
			err = fault.New(fault.InvalidArgument, "%s %q is not HOST:PORT of a loopback address.", flag, address)
			return nil
		}
		l, err = net.Listen("tcp", address)
		if err != nil {
			err = fault.New(fault.FailedPrecondition, "Can't listen on %s (%v). Move it with %s.", address, err, flag)
			return nil
		}
		c.onClose(func() error { _ = l.Close(); return nil }) // closed already by its server
		return l
	}
	at := func(port int) string { return net.JoinHostPort(c.cfg.Address, strconv.Itoa(port)) }
	c.https = tcp("--address or --https-port", at(c.cfg.HTTPSPort))
	c.http = tcp("--address or --http-port", at(c.cfg.HTTPPort))
	c.plain = tcp("--edge", c.cfg.Edge)
	c.console = tcp("--console", c.cfg.Console)
	c.dnsTCP = tcp("--address or --dns-port", at(c.cfg.DNSPort))
	if err != nil {
		return err
	}
	// The same port for UDP as for TCP.
	if c.dnsUDP, err = net.ListenPacket("udp", c.dnsTCP.Addr().String()); err != nil {
		return fault.New(fault.FailedPrecondition, "Can't listen on UDP %s (%v). Move it with --address or --dns-port.",
			c.dnsTCP.Addr(), err)
	}
	c.onClose(func() error { _ = c.dnsUDP.Close(); return nil })
	return c.listenSocket()
}

// ownAddress reports whether the platform listens on an address.
func (c *Cloud) ownAddress(a netip.AddrPort) bool {
	for _, l := range []net.Listener{c.https, c.http, c.plain, c.console, c.dnsTCP} {
		if l == nil { // not yet
			continue
		}
		if at, ok := l.Addr().(*net.TCPAddr); ok && at.AddrPort() == a {
			return true
		}
	}
	return c.databaseHost != nil && c.databaseHost.Listens(a)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// listenSocket binds the socket in the data directory, over one that a killed platform left.
func (c *Cloud) listenSocket() (err error) {
	path := c.path(shell.SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if c.socket, err = net.Listen("unix", path); err != nil {
		return err
	}
	c.onClose(func() error { _ = c.socket.Close(); return nil })
	return os.Chmod(path, 0o666) // who is on the other end decides, by its uid
}

// drainTimeout is how long requests in flight have to end when the platform stops.
const drainTimeout = 15 * time.Second

// expiryEvery is how often keys are looked at and what has expired is removed.
const expiryEvery = 24 * time.Hour

// Run serves until ctx ends, then drains: no new connections, requests in flight end, instances stop. Force, when it
// is closed, cuts the draining short.
func (c *Cloud) Run(ctx context.Context, force <-chan struct{}) error {
	self, err := netip.ParseAddr(c.cfg.Address)
	if err != nil {
		return err
	}
	outer := edge.NewDNS(edge.DNSConfig{
		Address:   self,
		TTL:       time.Minute,
		Resolvers: edge.MachineResolvers(self),
	})
	if err := c.reconciler.PublishAll(ctx); err != nil {
		return err
	}
	// The work that makes intent true ends first, so that nothing starts instances any more while they are stopped.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var g errgroup.Group
	failed, fail := context.WithCancelCause(ctx)
	actor := func(name string, serve func() error) {
		g.Go(func() error {
			err := serve()
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
			fail(err) // one that ends stops all
			return err
		})
	}
	actor("reconciler", func() error { return c.reconciler.Run(work) })
	actor("builds", func() error { return c.scheduler.Run(work) })
	actor("triggers", func() error { return c.triggers.Run(work) })
	actor("housekeeping", func() error { return c.housekeep(work) })
	actor("garbage collection", func() error { return c.garbage.Run(work) })
	actor("deleted revisions", func() error { return c.garbage.FollowRevisions(work) })
	actor("DNS", func() error { return outer.Serve(c.dnsUDP, c.server.Bound(c.dnsTCP)) })
	actor("HTTPS", func() error { return c.server.ServeLocal(c.https) })
	actor("HTTP", func() error { return c.server.ServeRedirect(c.http) })
	actor("plain edge", func() error { return c.server.ServePlain(c.plain, nil) })
	console := &http.Server{
		Handler:           http.HandlerFunc(c.serveConsole),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	actor("console", func() error { return serve(console, c.server.Bound(c.console)) })
	socket := c.api.HTTP()
	actor("socket", func() error { return serve(socket, c.server.Bound(c.socket)) })

	<-failed.Done()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	go func() {
		select {
		case <-force:
			cancel()
		case <-end.Done():
		}
	}()
	c.store.HangUp() // watches and waits end, which would else keep the servers from draining
	stopWork()
	outer.Close()
	err = errors.Join(c.server.Shutdown(end), socket.Shutdown(end), console.Shutdown(end), c.scaler.Close(end))
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		c.cfg.Log.Warn("not everything ended in time; the rest was cut off")
		err = nil
	}
	return errors.Join(err, g.Wait())
}

func serve(s *http.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// uploadAge is how long an abandoned upload is kept: a week, as Cloud Storage's resumable ones.
const uploadAge = 7 * 24 * time.Hour

// firstHousekeeping is how long after the start it is first due: a platform that is started again each day is kept,
// too.
const firstHousekeeping = 10 * time.Minute

// housekeep does what is due once a day.
func (c *Cloud) housekeep(ctx context.Context) error {
	due := time.NewTimer(firstHousekeeping)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
			due.Reset(expiryEvery)
		}
		_, objects := c.storage.ExpireUploads(ctx)
		_, pushes := c.blobs.ExpireUploads(ctx, c.cfg.Now().Add(-uploadAge))
		if err := errors.Join(c.identity.RotateKeys(ctx), c.identity.Expire(ctx), c.operations.Expire(ctx),
			c.store.Purge(ctx), objects, pushes, c.keepCaches()); err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("housekeeping", "err", err)
		}
	}
}

// Close ends what is left and frees the data directory.
func (c *Cloud) Close() error { return c.undo() }
