package edge

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	forwardTotal = 2 * time.Second // for all resolvers together; then SERVFAIL
	forwardEach  = time.Second
	maxForwards  = 256 // at once
)

// DNSConfig is what a responder answers.
type DNSConfig struct {
	Address netip.Addr             // the A record of our names
	TTL     time.Duration          // of that record
	Owns    func(name string) bool // which names are ours, lower case without the last dot; nil is OwnName
	// Hosts are further names, which have addresses of their own. One without any is nowhere, here and elsewhere.
	Hosts map[string]netip.Addr
	// Resolvers returns "address:port" to forward the rest to; where it is nil, or returns none, it is NXDOMAIN at once.
	Resolvers func() []string
}

// DNS answers for our names and forwards the rest. One DNS may serve many sockets.
type DNS struct {
	cfg   DNSConfig
	slots chan struct{}

	mu      sync.Mutex
	servers map[*dns.Server]bool
	ended   bool
}

// NewDNS returns a responder that serves nothing yet.
func NewDNS(cfg DNSConfig) *DNS {
	if cfg.Owns == nil {
		cfg.Owns = OwnName
	}
	return &DNS{cfg: cfg, slots: make(chan struct{}, maxForwards), servers: map[*dns.Server]bool{}}
}

// Resolvers returns the nameservers of a resolv.conf text as "address:port", without those that are ourselves.
func Resolvers(resolvConf string, self ...netip.Addr) []string {
	var out []string
next:
	for _, line := range strings.Split(resolvConf, "\n") {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(out) == 3 { // glibc reads three, too
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil {
			continue
		}
		for _, s := range self {
			if a.Unmap().WithZone("") == s.Unmap() {
				continue next
			}
		}
		out = append(out, netip.AddrPortFrom(a, 53).String())
	}
	return out
}

// MachineResolvers returns the machine's nameservers without those that are ourselves, as they are each time: a network
// may come and go. Where there are none, only our own names resolve.
func MachineResolvers(self ...netip.Addr) func() []string {
	return func() []string {
		text, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			return nil
		}
		return Resolvers(string(text), self...)
	}
}

// Serve answers on a packet connection and a listener, either of which may be nil, until Close or until they are
// closed.
func (d *DNS) Serve(pc net.PacketConn, l net.Listener) error {
	errs := make(chan error, 2)
	n := 0
	for _, s := range []*dns.Server{{PacketConn: pc}, {Listener: l}} {
		if s.PacketConn == nil && s.Listener == nil {
			continue
		}
		s.Handler, s.ReadTimeout, s.MaxTCPQueries = d, 5*time.Second, 128
		s.IdleTimeout = func() time.Duration { return 10 * time.Second }
		d.mu.Lock()
		if d.ended {
			d.mu.Unlock()
			return nil
		}
		d.servers[s] = true
		d.mu.Unlock()
		n++
		go func() {
			err := s.ActivateAndServe()
			d.mu.Lock()
			delete(d.servers, s)
			d.mu.Unlock()
			errs <- err
		}()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && !errors.Is(err, net.ErrClosed) && first == nil {
			first = err
		}
	}
	return first
}

// Close stops all that Serve started, and closes their sockets.
func (d *DNS) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	for s := range d.servers {
		if s.PacketConn != nil {
			_ = s.PacketConn.Close()
		}
		if s.Listener != nil {
			_ = s.Listener.Close()
		}
	}
}

// ServeDNS answers one query. AAAA and every other type of our names is NODATA, not NXDOMAIN: a resolver that hears
// NXDOMAIN for AAAA gives the name up.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		_ = w.WriteMsg(m.SetRcode(q, dns.RcodeNotImplemented))
		return
	}
	m.SetReply(q)
	m.RecursionAvailable = true
	question := q.Question[0]
	name := strings.TrimSuffix(strings.ToLower(question.Name), ".")
	host, known := d.cfg.Hosts[name]
	switch {
	case name == "localhost" || strings.HasSuffix(name, ".localhost"): // RFC 6761 §6.3
		d.answer(m, question, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	case known && !host.IsValid():
		m.Rcode = dns.RcodeNameError
	case known:
		d.answer(m, question, host)
	case d.cfg.Owns(name):
		d.answer(m, question, d.cfg.Address)
	default:
		var resolvers []string
		if d.cfg.Resolvers != nil {
			resolvers = d.cfg.Resolvers()
		}
		if len(resolvers) == 0 {
			m.Rcode = dns.RcodeNameError
			break
		}
		_, tcp := w.RemoteAddr().(*net.TCPAddr)
		m = d.forward(q, resolvers, tcp)
	}
	_ = w.WriteMsg(m)
}

func (d *DNS) answer(m *dns.Msg, q dns.Question, a netip.Addr) {
	m.Authoritative = true
	if (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY) && a.Is4() {
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{
				Name:   q.Name,
				Rrtype: dns.TypeA,
				Class:  dns.ClassINET,
				Ttl:    uint32(d.cfg.TTL / time.Second),
			},
			A: a.AsSlice(),
		}}
	}
}

// forward asks the resolvers in turn, within two seconds. No network is an immediate SERVFAIL.
func (d *DNS) forward(q *dns.Msg, resolvers []string, tcp bool) *dns.Msg {
	fail := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	fail.RecursionAvailable = true
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		return fail
	}
	ctx, cancel := context.WithTimeout(context.Background(), forwardTotal)
	defer cancel()
	c := &dns.Client{Net: "udp", Timeout: forwardEach}
	if tcp {
		c.Net = "tcp"
	}
	for _, r := range resolvers {
		in, _, err := c.ExchangeContext(ctx, q, r)
		if err == nil && in != nil && in.Rcode != dns.RcodeServerFailure && in.Rcode != dns.RcodeRefused {
			return in
		}
		if ctx.Err() != nil {
			break
		}
	}
	return fail
}
