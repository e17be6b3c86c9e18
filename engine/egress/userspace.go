package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// The userspace path, for machines where root may not make devices or rules:
//
//	instance ──TUN── a TCP/IP stack in this process, and sockets of the platform ── the machine's routes
//
// A connection of TCP ends here and is made again: to the outside first, and only when that is open does the instance
// hear so. Datagrams are passed on by one socket for each source port and destination. Nothing else passes, and no
// address that the filter of the kernel's path (rules.go) refuses.

const (
	dialTimeout   = 30 * time.Second // of a connection to the outside
	acceptTimeout = 10 * time.Second // of the instance's part of it, which is on this machine
	datagramIdle  = time.Minute      // the time that an answer may take
	dnsIdle       = 10 * time.Second
	userspaceMTU  = 65535 // of the device: no datagram is ever in fragments
	mostQuoted    = 512   // bytes of a packet in the refusal of it
)

// userspace is the way out of one namespace.
type userspace struct {
	l     *Link
	stack *netstack
	ctx   context.Context
	stop  context.CancelFunc
	sent  atomic.Uint64
	told  *rate.Limiter // reports of what was refused
	works sync.WaitGroup

	mu    sync.Mutex
	flows map[flowKey]*flow // nil once it has ended
}

// flowKey is whose a packet is. The instance has one address of each kind.
type flowKey struct {
	protocol byte
	port     uint16 // the instance's
	to       netip.AddrPort
}

// flow is a connection, or a socket for datagrams.
type flow struct {
	key      flowKey
	conn     net.Conn       // to the outside, nil while it is made; guarded by the way's lock
	accepted chan *accepted // one at most
	used     atomic.Int64   // when the instance last sent a datagram, in ns
}

// newUserspace makes the way out behind a link's device.
func newUserspace(l *Link) (*userspace, error) {
	u := &userspace{l: l, told: rate.NewLimiter(reportRate, reportBurst), flows: make(map[flowKey]*flow)}
	u.ctx, u.stop = context.WithCancel(context.Background())
	var err error
	if u.stack, err = newNetstack(u.write, u.claim); err != nil {
		return nil, err
	}
	return u, nil
}

// serve passes packets on until the device is closed.
func (u *userspace) serve(first [][]byte) {
	for _, p := range first {
		u.packet(p)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := u.l.tun.file.Read(buf)
		if err != nil {
			return
		}
		u.packet(buf[:n])
	}
}

// close ends all connections. The device must be closed.
func (u *userspace) close() {
	u.stop()
	u.mu.Lock()
	for _, f := range u.flows {
		if f.conn != nil {
			_ = f.conn.Close() // whatever it had to say is lost
		}
	}
	u.flows = nil
	u.mu.Unlock()
	u.stack.close()
	u.works.Wait()
}

// write sends a packet to the instance. One that can't be sent is lost, as packets are.
func (u *userspace) write(parts ...[]byte) {
	raw, err := u.l.tun.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		_, _ = unix.Writev(int(fd), parts)
		return true
	})
}

// packet handles one that the instance has sent.
func (u *userspace) packet(b []byte) {
	p := parse(b)
	own4, own6 := u.l.Address()
	if p.from != own4 && p.from != own6 || !unicast(b) {
		return // nobody sends in another's name
	}
	u.sent.Add(uint64(len(b)))
	rest := transport(b)
	to := netip.AddrPortFrom(p.to, p.port)
	switch {
	case p.protocol == unix.IPPROTO_TCP && len(rest) >= tcpHeader:
		if flags := rest[13]; flags&(flagSYN|flagACK) == flagSYN {
			u.connect(flowKey{p.protocol, binary.BigEndian.Uint16(rest), to}, b)
			return
		}
		u.stack.inject(b)
	case p.protocol == unix.IPPROTO_UDP && len(rest) >= udpHeader:
		u.datagram(flowKey{p.protocol, binary.BigEndian.Uint16(rest), to}, b, rest)
	case p.protocol == unix.IPPROTO_TCP, p.protocol == unix.IPPROTO_UDP: // a fragment
	case isICMPError(p.protocol, rest): // about an answer that came too late: nobody else can use it
	default:
		u.refuse(b, Drop{To: to, Protocol: protocolName(p.protocol), Unsupported: true})
	}
}

// transport is what follows the header of a packet that is no fragment. Headers of IPv6 between the two count as a
// protocol of their own.
func transport(b []byte) []byte {
	if b[0]>>4 == 6 {
		return b[40:]
	}
	const more = 0x2000 // fragments follow
	header := int(b[0]&15) * 4
	if header < 20 || header > len(b) || fragment(b) != 0 || binary.BigEndian.Uint16(b[6:])&more != 0 {
		return nil
	}
	return b[header:]
}

// admit returns the flow that a packet begins, or nil where it was refused.
func (u *userspace) admit(k flowKey, b []byte) *flow {
	d := Drop{To: k.to, Protocol: protocolName(k.protocol)}
	if !u.l.r.isOpen(k.to) {
		u.refuse(b, d)
		return nil
	}
	u.mu.Lock()
	ended := u.flows == nil
	d.Crowded = len(u.flows) >= u.l.r.cfg.Connections || !ended && !u.l.r.takeSocket(len(u.flows))
	f := &flow{key: k, accepted: make(chan *accepted, 1)}
	if !ended && !d.Crowded {
		u.flows[k] = f
		u.works.Add(1)
	}
	u.mu.Unlock()
	if ended {
		return nil
	}
	if d.Crowded {
		u.refuse(b, d)
		return nil
	}
	return f
}

// leave ends what admit began.
func (u *userspace) leave(f *flow) {
	u.mu.Lock()
	if u.flows != nil {
		delete(u.flows, f.key)
	}
	if f.conn != nil {
		_ = f.conn.Close() // it was closed with care where that mattered
	}
	u.mu.Unlock()
	select {
	case a := <-f.accepted: // too late, or the next one of the same ports
		if a.conn != nil {
			a.abort()
		}
	default:
	}
	u.l.r.giveSocket()
	u.works.Done()
}

// opened gives a flow its connection to the outside; false where all have ended meanwhile.
func (u *userspace) opened(f *flow, conn net.Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	f.conn = conn // closed by leave
	return u.flows != nil
}

// connect handles the first packet of a connection, or one that was sent again.
func (u *userspace) connect(k flowKey, syn []byte) {
	u.mu.Lock()
	f := u.flows[k]
	open := f != nil && f.conn != nil
	u.mu.Unlock()
	switch {
	case open:
		u.stack.inject(syn)
	case f == nil:
		if f = u.admit(k, syn); f != nil {
			go u.relay(f, append([]byte(nil), syn...))
		}
	}
}

// relay connects to the outside, has the instance's side of it opened, and copies between the two.
func (u *userspace) relay(f *flow, syn []byte) {
	defer u.leave(f)
	ctx, cancel := context.WithTimeout(u.ctx, dialTimeout)
	conn, err := u.l.r.host.Connect(ctx, "tcp", f.key.to)
	cancel()
	if err != nil {
		if u.ctx.Err() == nil {
			u.failed(syn, err)
		}
		return
	}
	if !u.opened(f, conn) {
		return
	}
	u.stack.inject(syn)
	timeout := time.NewTimer(acceptTimeout)
	defer timeout.Stop()
	select {
	case a := <-f.accepted:
		a.join(conn.(*net.TCPConn))
	case <-timeout.C:
	case <-u.ctx.Done():
	}
}

// claim gives the stack's side of a connection to its flow; false where there is none that waits for it.
func (u *userspace) claim(k flowKey, a *accepted) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.flows[k]
	if f == nil || f.conn == nil {
		return false
	}
	if a == nil {
		return true // it will be made now
	}
	a.size = bufferSize(len(u.flows))
	select {
	case f.accepted <- a:
		return true
	default:
		return false
	}
}

// Buffers of all connections of an instance together have about this many bytes, and each of them no more and no less
// than so many: who opens the most connections is not to have much of the platform's memory.
const (
	allBuffers                = 32 << 20
	mostBuffer, leastBuffer   = 256 << 10, 8 << 10
	mostCopied, copiedAtLeast = 64 << 10, 4 << 10
)

// bufferSize is what the next of so many connections has in each direction.
func bufferSize(connections int) int {
	return min(max(allBuffers/max(connections, 1), leastBuffer), mostBuffer)
}

// datagram sends one on.
func (u *userspace) datagram(k flowKey, b, segment []byte) {
	size := int(binary.BigEndian.Uint16(segment[4:]))
	if size < udpHeader || size > len(segment) {
		return
	}
	u.mu.Lock()
	f := u.flows[k]
	u.mu.Unlock()
	if f == nil {
		if f = u.admit(k, b); f == nil {
			return
		}
		conn, err := u.l.r.host.Connect(u.ctx, "udp", k.to) // at once
		if err != nil {
			u.failed(b, err)
			u.leave(f)
			return
		}
		if !u.opened(f, conn) {
			u.leave(f)
			return
		}
		head := append([]byte(nil), b[:min(len(b), mostQuoted)]...)
		f.used.Store(time.Now().UnixNano())
		go u.answers(f, conn.(*net.UDPConn), head)
	}
	f.used.Store(time.Now().UnixNano())
	conn := f.conn // only this goroutine sets that of a flow of datagrams
	if _, err := conn.Write(segment[udpHeader:size]); errors.Is(err, unix.ECONNREFUSED) {
		_, _ = conn.Write(segment[udpHeader:size]) // that was about an earlier one
	}
}

// datagrams are buffers for one.
var datagrams = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// answers sends the instance what comes back, until none has gone either way for a while.
func (u *userspace) answers(f *flow, conn *net.UDPConn, first []byte) {
	defer u.leave(f)
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	idle := datagramIdle
	if f.key.to.Port() == 53 {
		idle = dnsIdle
	}
	last := time.Now()
	for u.ctx.Err() == nil {
		if sent := time.Unix(0, f.used.Load()); sent.After(last) {
			last = sent
		}
		if time.Since(last) >= idle || conn.SetReadDeadline(last.Add(idle)) != nil {
			return
		}
		// A buffer is taken only once something is there.
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			buf := datagrams.Get().(*[64 << 10]byte)
			defer datagrams.Put(buf)
			n, err := unix.Read(int(fd), buf[udpHeader:])
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				return false
			}
			if failed = err; err == nil {
				u.reply(first, unix.IPPROTO_UDP, udpAnswer(buf[:udpHeader+n], first))
			}
			return true
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded): // unless the instance has sent something meanwhile
		case err != nil:
			return
		case errors.Is(failed, unix.ECONNREFUSED), errors.Is(failed, unix.EHOSTUNREACH),
			errors.Is(failed, unix.ENETUNREACH):
			u.failed(first, failed)
			last = time.Now()
		case failed != nil:
			return
		default:
			last = time.Now()
		}
	}
}

// refuse says that the way to an address is closed.
func (u *userspace) refuse(b []byte, d Drop) {
	u.unreachable(b, prohibited)
	if u.l.report != nil && u.told.Allow() {
		u.l.report(d)
	}
}

// failed tells the instance what the platform's own socket was told.
func (u *userspace) failed(b []byte, err error) {
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		u.unreachable(b, noRoute)
	case errors.Is(err, unix.EHOSTUNREACH):
		u.unreachable(b, noHost)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		u.unreachable(b, prohibited)
	case parse(b).protocol == unix.IPPROTO_TCP:
		u.reply(b, unix.IPPROTO_TCP, reset(b))
	default:
		u.unreachable(b, noPort)
	}
}

func (u *userspace) unreachable(b []byte, why unreachable) { u.reply(b, 0, why.message(b)) }

// reply answers a packet in the name of whom it was sent to; protocol 0 is ICMP, of either kind.
func (u *userspace) reply(b []byte, protocol byte, message []byte) {
	if message != nil {
		u.write(answerHeader(b, protocol, len(message)), message)
	}
}

// accepted is the instance's side of a connection.
type accepted struct {
	conn   tcpConn        // nil for one that came to nothing
	abort  func()         // with a reset
	resize func(size int) // its buffers
	size   int
}

// tcpConn is a connection whose directions end one by one.
type tcpConn interface {
	net.Conn
	CloseWrite() error
}

// join copies in both directions until both have ended. What breaks one end breaks the other.
func (a *accepted) join(out *net.TCPConn) {
	if a.conn == nil {
		_ = out.SetLinger(0) // its close follows
		return
	}
	a.resize(a.size)
	size := min(max(a.size/4, copiedAtLeast), mostCopied)
	copyAll := func(to, from tcpConn) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, size))
		if err == nil {
			err = to.CloseWrite()
		}
		return err
	}
	broken := func() {
		_ = out.SetLinger(0) // it is as well if that can't be said
		_ = out.Close()
		a.abort()
	}
	var wg sync.WaitGroup
	for _, way := range [][2]tcpConn{{a.conn, out}, {out, a.conn}} {
		wg.Go(func() {
			if err := copyAll(way[0], way[1]); err != nil {
				broken()
			}
		})
	}
	wg.Wait()
	_, _ = a.conn.Close(), out.Close()
}

// isOpen judges an address when a connection is made to it: what rules.go has the kernel do.
func (r *Router) isOpen(to netip.AddrPort) bool {
	a := to.Addr()
	if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() {
		return false // here it would mean this process's own network, whatever is allowed
	}
	if instances4.Contains(a) || netip.PrefixFrom(r.prefix, 48).Contains(a) {
		return false
	}
	for _, open := range r.cfg.Allow {
		if open.To.Contains(a) && (open.Port == 0 || open.Port == to.Port()) {
			return true
		}
	}
	for _, p := range r.closed {
		if p.Contains(a) {
			return false
		}
	}
	return r.cfg.All || !r.isMachines(a)
}

// instances4 are the addresses of instances.
var instances4 = netip.MustParsePrefix("169.254.128.0/17")

// isMachines reports whether an address is one of the machine's own, by its routes; also where they can't be asked.
func (r *Router) isMachines(a netip.Addr) bool {
	routes, err := r.hostRoutes.RouteGet(a.AsSlice())
	if err != nil {
		return !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES)
	}
	for _, route := range routes {
		if route.Type == unix.RTN_LOCAL || route.Type == unix.RTN_BROADCAST || route.Type == unix.RTN_ANYCAST {
			return true
		}
	}
	return false
}

// takeSocket takes one of the descriptors that connections of the userspace path may have. An instance may have one
// more while it has fewer than are left, so that as much as it has is left to the others.
func (r *Router) takeSocket(has int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if has >= r.sockets {
		return false
	}
	r.sockets--
	return true
}

func (r *Router) giveSocket() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sockets++
}
