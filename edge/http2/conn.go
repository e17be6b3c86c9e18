// Package http2 stands between a connection and net/http's HTTP/2 server, which reads two things otherwise than RFC
// 9113 says: a setting that comes twice in one frame ends the connection, and a request with a field that belongs to
// HTTP/1's connections is answered with 400 in place of a stream error. A Conn changes such frames so that the server
// does what it should; all other bytes go through as they are. It judges nothing else: a broken frame is the server's
// to refuse.
package http2

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// preface is what a client begins HTTP/2 with (RFC 9113, 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Begins reports whether b, the first bytes of a connection up to an empty line at least, are those of HTTP/2.
func Begins(b []byte) bool { return bytes.HasPrefix(b, []byte("PRI * HTTP/2.0\r\n\r\n")) }

// Frames begin with length (3 bytes), type, flags and stream (4 bytes) (RFC 9113, 4.1).
const (
	headLength = 9
	maxPayload = 16 << 10 // the most that the server takes; a longer frame ends the connection

	typeHeaders      = 1
	typeSettings     = 4
	typeContinuation = 9

	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// tableSize is the dynamic table that the server allows a client, and maxField the longest name or value that is looked
// into.
const (
	tableSize = 4096
	maxField  = 256 << 10
)

// Conn is a connection from a client. Only one goroutine may read.
type Conn struct {
	net.Conn
	in    *bufio.Reader
	begun bool      // the preface has been seen
	plain bool      // nothing is looked at any more
	rest  int       // bytes of a frame's payload that go through unseen
	frame []byte    // the head and payload of the frame that is being read, as far as it is there
	want  int       // the length of frame when it is whole
	out   []byte    // to be read, before anything else
	small [256]byte // what frame begins in: most frames need no more, and it is read before the next one comes

	fields *hpack.Decoder
	bad    bool // a field in the block that is being read belongs to a connection
}

// NewConn returns a connection whose client is to speak HTTP/2, from the preface on.
func NewConn(c net.Conn) *Conn {
	h := &Conn{Conn: c, in: bufio.NewReader(c)}
	h.fields = hpack.NewDecoder(tableSize, func(f hpack.HeaderField) { h.bad = h.bad || ofConnection(f) })
	h.fields.SetMaxStringLength(maxField)
	return h
}

// ofConnection reports whether a field must not be in HTTP/2 (RFC 9113, 8.2.2).
func ofConnection(f hpack.HeaderField) bool {
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	case "te":
		return f.Value != "trailers" && f.Value != ""
	}
	return false
}

// CloseWrite passes the half-close through.
func (c *Conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

func (c *Conn) Read(p []byte) (int, error) {
	for {
		switch {
		case len(c.out) > 0:
			n := copy(p, c.out)
			if c.out = c.out[n:]; len(c.out) == 0 {
				c.out = nil
			}
			return n, nil
		case c.plain:
			return c.in.Read(p)
		case c.rest > 0:
			n, err := c.in.Read(p[:min(len(p), c.rest)])
			c.rest -= n
			return n, err
		case !c.begun:
			if err := c.begin(); err != nil {
				return 0, err
			}
		default:
			if err := c.next(); err != nil {
				return 0, err
			}
		}
	}
}

// begin reads the preface. Another one is the end of the connection (RFC 9113, 3.4), of which the server makes no
// words.
func (c *Conn) begin() error {
	b, err := c.in.Peek(len(preface))
	switch {
	case !strings.HasPrefix(preface, string(b)):
		return io.EOF
	case err != nil:
		return err
	}
	c.begun, c.rest = true, len(preface)
	return nil
}

// next reads the next frame, or its head if the rest may go through. It can be called again after an error that passes,
// such as a deadline's.
func (c *Conn) next() error {
	if c.want == 0 {
		c.frame, c.want = c.small[:0], headLength
	}
	for len(c.frame) < c.want {
		n := len(c.frame)
		c.frame = slices.Grow(c.frame, c.want-n)
		m, err := c.in.Read(c.frame[n:c.want])
		c.frame = c.frame[:n+m]
		if err != nil {
			return err
		}
		if len(c.frame) != headLength || c.want != headLength {
			continue
		}
		length := int(c.frame[0])<<16 | int(binary.BigEndian.Uint16(c.frame[1:]))
		if !seen(c.frame[3]) || length > maxPayload {
			c.out, c.rest = c.frame, length
			c.frame, c.want = nil, 0
			return nil
		}
		c.want += length
	}
	frame := c.frame
	c.frame, c.want = nil, 0
	if frame[3] == typeSettings {
		c.out = settings(frame)
	} else {
		c.out = c.block(frame)
	}
	return nil
}

func seen(kind byte) bool {
	return kind == typeHeaders || kind == typeSettings || kind == typeContinuation
}

// settings returns a SETTINGS frame with the last of each setting only, which is the one that holds (RFC 9113, 6.5.3).
func settings(frame []byte) []byte {
	const size = 6 // identifier (2 bytes), value (4)
	payload := frame[headLength:]
	if frame[4]&flagAck != 0 || len(payload)%size != 0 {
		return frame
	}
	last := make(map[[2]byte]int)
	for at := 0; at < len(payload); at += size {
		last[[2]byte(payload[at:])] = at
	}
	var kept []byte
	for at := 0; at < len(payload); at += size {
		if last[[2]byte(payload[at:])] == at {
			kept = append(kept, payload[at:at+size]...)
		}
	}
	return append(head(len(kept), frame[3], frame[4], frame[5:headLength]), kept...)
}

// spoiler is a field whose name is in upper case (RFC 7541, 6.2.2: a literal without indexing, with a new name): the
// server treats a request with it as malformed, as it should.
var spoiler = []byte{0, 1, 'X', 0}

// block looks into a HEADERS or CONTINUATION frame. It returns what the server is to read: the frame, and where a field
// must not be in HTTP/2, the spoiler after it.
func (c *Conn) block(frame []byte) []byte {
	fragment := frame[headLength:]
	if frame[3] == typeHeaders {
		c.bad = false
		fragment = withoutPadding(fragment, frame[4])
	}
	if _, err := c.fields.Write(fragment); err != nil {
		c.plain = true // the server's table is not what ours is from here on, and it ends the connection
		return frame
	}
	if frame[4]&flagEndHeaders == 0 {
		return frame
	}
	if err := c.fields.Close(); err != nil {
		c.plain = true
		return frame
	}
	if c.bad {
		frame[4] &^= flagEndHeaders
		frame = append(frame, head(len(spoiler), typeContinuation, flagEndHeaders, frame[5:headLength])...)
		frame = append(frame, spoiler...)
	}
	return frame
}

// withoutPadding is the field block fragment of a HEADERS frame (RFC 9113, 6.2); nothing, where the frame is broken.
func withoutPadding(payload []byte, flags byte) []byte {
	padding := 0
	if flags&flagPadded != 0 {
		if len(payload) == 0 {
			return nil
		}
		padding, payload = int(payload[0]), payload[1:]
	}
	if flags&flagPriority != 0 {
		payload = payload[min(5, len(payload)):]
	}
	return payload[:max(len(payload)-padding, 0)]
}

func head(length int, kind, flags byte, stream []byte) []byte {
	return append([]byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags}, stream...)
}
