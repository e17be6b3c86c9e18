package lan

import (
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// names answers what asks for a name of the host's networks, and hands on everything else.
type names struct {
	net.PacketConn
	host *Host
}

// Names returns a connection that has the queries of c but those that are answered here.
func (h *Host) Names(c net.PacketConn) net.PacketConn { return &names{c, h} }

func (c *names) ReadFrom(p []byte) (n int, from net.Addr, err error) {
	for {
		n, from, err = c.PacketConn.ReadFrom(p)
		if err != nil {
			return n, from, err
		}
		answer := c.host.answer(p[:n])
		if answer == nil {
			return n, from, nil
		}
		_, _ = c.WriteTo(answer, from) // who gets none asks again
	}
}

// ttl is for how long an answer may be kept, in seconds: containers come and go.
const ttl = 1

// answer is the answer to a query, nil for one that somebody else answers (RFC 1035).
func (h *Host) answer(query []byte) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil || head.Response || head.OpCode != 0 {
		return nil
	}
	q, err := p.Question()
	if err != nil || q.Class != dnsmessage.ClassINET {
		return nil
	}
	if err := p.SkipQuestion(); err != dnsmessage.ErrSectionDone { // nobody asks two
		return nil
	}
	addrs := h.lookup(strings.ToLower(strings.TrimSuffix(q.Name.String(), ".")))
	if len(addrs) == 0 {
		return nil
	}
	out := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID:                 head.ID,
			Response:           true,
			Authoritative:      true,
			RecursionDesired:   head.RecursionDesired,
			RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{q},
	}
	for _, a := range addrs[:min(len(addrs), 16)] { // it fits into 512 bytes
		if q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeALL {
			break // there is the name, and nothing else of it
		}
		out.Answers = append(out.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeA, Class: q.Class, TTL: ttl},
			Body:   &dnsmessage.AResource{A: a.As4()},
		})
	}
	packed, err := out.Pack()
	if err != nil {
		return nil
	}
	return packed
}
