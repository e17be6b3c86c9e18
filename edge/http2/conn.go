// Package http2 stands between a connection and net/http's HTTP/2 server, which reads some things otherwise than RFC
// 9113 says: a setting that comes twice in one frame ends the connection, a request with a field that belongs to
// HTTP/1's connections is answered with 400 in place of a stream error, and one whose path is malformed, or whose
// fields are too large, is a stream or connection error in place of an answer. A Conn changes such frames so that the
// server does what it should, with Refusals; all other bytes go through as they are. It judges nothing else: a broken
// frame is the server's to refuse.
package http2

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
	flagEndStream  = 0x1
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
	read   request
	again  *hpack.Encoder // of all blocks, once one of the client's was held back: the tables are not the same any more
	coded  bytes.Buffer   // what again has written
}

// request is the field block that is being read.
type request struct {
	held   []byte // its frames, as long as it isn't whole
	flags  byte   // of its HEADERS frame
	fields []hpack.HeaderField
	size   int  // as RFC 9113, 6.5.2 counts it
	bad    bool // one of its fields belongs to a connection
}

const (
	// maxFields is how large the fields of a request may be, in bytes: the limit of HTTP/1's head.
	maxFields = 128 << 10
	// maxHeld is how much of a block is held until it is whole. More ends the connection.
	maxHeld = 512 << 10
)

// NewConn returns a connection whose client is to speak HTTP/2, from the preface on.
func NewConn(c net.Conn) *Conn {
	h := &Conn{Conn: c, in: bufio.NewReader(c)}
	h.fields = hpack.NewDecoder(tableSize, h.read.add)
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
		if held := c.read.held; (len(held) > 0) != (c.frame[3] == typeContinuation) || len(held) > 0 && length > maxPayload {
			// Within a block there are its CONTINUATION frames only, and none without one (RFC 9113, 4.3): the end.
			c.out, c.plain = append(held, c.frame...), true
			return nil
		}
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

// add takes one field of the block.
func (r *request) add(f hpack.HeaderField) {
	r.bad = r.bad || ofConnection(f)
	if r.size += len(f.Name) + len(f.Value) + 32; r.size <= maxFields || f.IsPseudo() && len(f.Value) < 256 {
		r.fields = append(r.fields, f)
	}
}

// get returns the value of a field, "" for none.
func (r *request) get(name string) string {
	for _, f := range r.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// block looks into a HEADERS or CONTINUATION frame. It returns what the server is to read: nothing until the block is
// whole, then its frames, and where a field must not be in HTTP/2, the spoiler after them.
func (c *Conn) block(frame []byte) []byte {
	fragment, r := frame[headLength:], &c.read
	if frame[3] == typeHeaders {
		r.flags = frame[4]
		fragment = withoutPadding(fragment, frame[4])
	}
	last := frame[4]&flagEndHeaders != 0
	_, err := c.fields.Write(fragment)
	if err == nil && last {
		err = c.fields.Close()
	}
	if len(r.held) > 0 || !last {
		r.held = append(r.held, frame...)
		frame = r.held
	}
	switch {
	case err != nil || len(r.held) > maxHeld:
		c.plain = true // the server's table is not what ours is from here on, and it ends the connection
	case !last:
		return nil
	}
	defer r.forget() // a connection that rests holds nothing of its last request
	if c.plain {
		return frame
	}
	if status := r.refused(); status != "" || c.again != nil {
		return c.write(frame[5:headLength], status)
	}
	if r.bad {
		frame[lastFrame(frame)+4] &^= flagEndHeaders
		frame = append(frame, head(len(spoiler), typeContinuation, flagEndHeaders, frame[5:headLength])...)
		frame = append(frame, spoiler...)
	}
	return frame
}

// forget lets go of a block that has been dealt with. Room for the fields of a usual request is kept for the next one.
func (r *request) forget() {
	const usual = 64
	clear(r.fields)
	*r = request{fields: r.fields[:0]}
	if cap(r.fields) > usual {
		r.fields = nil
	}
}

// lastFrame is where the last of some frames begins.
func lastFrame(frames []byte) int {
	for at := 0; ; {
		next := at + headLength + (int(frames[at])<<16 | int(binary.BigEndian.Uint16(frames[at+1:])))
		if next >= len(frames) {
			return at
		}
		at = next
	}
}

// refused is the status that a request is to be answered with which the server would not answer, or "".
func (r *request) refused() string {
	path := r.get(":path")
	switch {
	case r.size > maxFields && (path != "" || r.get(":method") != ""):
		return "431"
	case path == "" || strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") && !strings.Contains(path, "%"):
		return "" // a control character is an error of the stream, as it should be
	}
	if _, err := url.ParseRequestURI(path); err != nil {
		return "400"
	}
	return ""
}

// refusal is the field that tells Refusals of a status. Who sends it gets what they ask for.
const refusal = "giggle-refused"

// write writes the block that was read anew, for a server whose table is to stay empty: with a status, a request with
// nothing in it but that, and what routes it.
func (c *Conn) write(stream []byte, status string) []byte {
	if c.again == nil {
		c.again = hpack.NewEncoder(&c.coded)
		c.again.SetMaxDynamicTableSize(0)
	}
	c.coded.Reset()
	fields := c.read.fields
	if status != "" {
		fields = []hpack.HeaderField{
			{Name: ":method", Value: c.read.get(":method")},
			{Name: ":scheme", Value: c.read.get(":scheme")},
			{Name: ":authority", Value: c.read.get(":authority")},
			{Name: ":path", Value: "/"},
			{Name: refusal, Value: status},
		}
	}
	for _, f := range fields {
		_ = c.again.WriteField(f) // into memory
	}
	if status == "" && c.read.bad {
		c.coded.Write(spoiler)
	}
	return frames(c.coded.Bytes(), c.read.flags&flagEndStream, stream)
}

// frames are those of a block: HEADERS with flags, and CONTINUATION as far as it takes more.
func frames(block []byte, flags byte, stream []byte) []byte {
	var out []byte
	kind := byte(typeHeaders)
	for {
		n := min(len(block), maxPayload)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		out = append(append(out, head(n, kind, flags, stream)...), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return out
		}
		kind, flags = typeContinuation, 0
	}
}

// Refusals answers the requests that a Conn has found to be ones that the server wouldn't answer.
func Refusals(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := r.Header[http.CanonicalHeaderKey(refusal)]; len(v) == 1 && r.ProtoMajor == 2 {
			if code, err := strconv.Atoi(v[0]); err == nil && code >= 400 && code < 500 {
				http.Error(w, v[0]+" "+http.StatusText(code), code)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
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
