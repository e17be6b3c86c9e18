// Package hostports is which ports of this machine instances reach, by project.
package hostports

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"giggle/fault"
	"giggle/relay"
	"giggle/resource"
)

// Names lead to this machine inside instances that reach any port of it. The second is Docker's.
var Names = []string{"host.giggle.internal", "host.docker.internal"}

// Port is a TCP port of this machine's loopback that instances reach.
type Port struct {
	Project string // whose instances; "" for everybody's
	Number  uint16
}

// Parse reads PORT or PROJECT:PORT.
func Parse(text string) (Port, error) {
	project, number := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		project, number = text[:i], text[i+1:]
		if !resource.ProjectID(project) {
			return Port{}, fault.New(fault.InvalidArgument, "%.80q is not PORT or PROJECT:PORT: %.80q is no project's id.",
				text, project)
		}
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return Port{}, fault.New(fault.InvalidArgument,
			"%.80q is not PORT or PROJECT:PORT, with a port from 1 to 65535.", text)
	}
	return Port{project, uint16(n)}, nil
}

// String is the form that Parse reads.
func (p Port) String() string {
	number := strconv.Itoa(int(p.Number))
	if p.Project == "" {
		return number
	}
	return p.Project + ":" + number
}

// Config is what Ports need.
type Config struct {
	Allowed []Port
	// Own reports whether the platform itself listens on an address. There it takes who connects for the user that the
	// platform runs as, so instances are not led there.
	Own func(netip.AddrPort) bool
	Log *slog.Logger
}

// Ports lead instances to this machine's ports.
type Ports struct{ Config }

// New returns Ports.
func New(cfg Config) Ports { return Ports{cfg} }

// Of returns what serves each port that a project's instances reach, as engine.Sockets has it; nil for none.
func (p Ports) Of(project string) map[uint16]func(net.Listener) {
	var out map[uint16]func(net.Listener)
	for _, a := range p.Allowed {
		if project == "" || a.Project != "" && a.Project != project {
			continue
		}
		if out == nil {
			out = make(map[uint16]func(net.Listener))
		}
		out[a.Number] = func(l net.Listener) { p.serve(l, a.Number) }
	}
	return out
}

func (p Ports) serve(l net.Listener, port uint16) {
	err := relay.Serve(l, func(ctx context.Context, _ net.Conn) (net.Conn, error) {
		c, err := p.dial(ctx, port)
		if err != nil {
			p.Log.Debug("a port of this machine", "port", port, "err", err)
		}
		return c, err
	})
	if err != nil {
		p.Log.Warn("a port of this machine is not served in an instance any more", "port", port, "err", err)
	}
}

// loopbacks are where programs of this machine listen, in the order in which they are tried.
var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

func (p Ports) dial(ctx context.Context, port uint16) (net.Conn, error) {
	d := net.Dialer{Control: NotOwn(p.Own)}
	var errs []error
	for _, a := range loopbacks {
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// NotOwn is a net.Dialer's Control, which sees the address after its name was resolved. It refuses the platform's own.
func NotOwn(own func(netip.AddrPort) bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if own(netip.AddrPortFrom(a.Addr().Unmap(), a.Port())) {
			return fault.New(fault.PermissionDenied, "The platform itself listens on %s.", address)
		}
		return nil
	}
}
