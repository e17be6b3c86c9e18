package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// appendHead appends the head of a request to b.
func appendHead(b []byte, r *http.Request) ([]byte, error) {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	target := r.URL.RequestURI()
	if !token(method) || !visible(target) || !visible(host) {
		return b, errors.New("upstream: a method, target or host that can't be sent")
	}
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, '\r', '\n')
	for name, values := range r.Header {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection":
			continue // ours to say
		}
		if !token(name) {
			return b, fmt.Errorf("upstream: the header %q can't be sent", name)
		}
		for _, v := range values {
			if !text(v) {
				return b, fmt.Errorf("upstream: the value of the header %s can't be sent", name)
			}
			b = append(b, name...)
			b = append(b, ':', ' ')
			b = append(b, v...)
			b = append(b, '\r', '\n')
		}
	}
	switch hasBody := r.Body != nil && r.Body != http.NoBody; {
	case hasBody && r.ContentLength > 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, r.ContentLength, 10)
		b = append(b, '\r', '\n')
	case hasBody:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch:
		b = append(b, "Content-Length: 0\r\n"...)
	}
	if r.Close {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, '\r', '\n'), nil
}

// visible reports whether s is of visible characters, or of bytes beyond ASCII, and not empty.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}

// text reports whether s can be a header's value (RFC 9110, 5.5).
func text(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// token reports whether s can be a header's name (RFC 9110, 5.6.2).
func token(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

var tokens = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()

// chunkHeadSize is the room before a chunk for its length: 4 hexadecimal digits and the end of the line.
const chunkHeadSize = 6

const maxChunk = 32 << 10 // fits into 4 digits

var chunks = sync.Pool{New: func() any { return new([chunkHeadSize + maxChunk + 2]byte) }}

// writeBody sends a request's body, as long as was announced or in chunks. The first error is one of reading it, the
// second one of writing. Last is set when there is nothing more to read.
func writeBody(c net.Conn, r *http.Request, last *atomic.Bool) (read, write error) {
	buf := chunks.Get().(*[chunkHeadSize + maxChunk + 2]byte)
	defer chunks.Put(buf)
	left := r.ContentLength
	chunked := left <= 0
	for {
		n, err := r.Body.Read(buf[chunkHeadSize : chunkHeadSize+maxChunk])
		if n > 0 {
			out := buf[chunkHeadSize : chunkHeadSize+n]
			if chunked {
				const digits = "0123456789abcdef"
				for i, shift := 0, 12; i < 4; i, shift = i+1, shift-4 {
					buf[i] = digits[n>>shift&15]
				}
				buf[4], buf[5] = '\r', '\n'
				buf[chunkHeadSize+n], buf[chunkHeadSize+n+1] = '\r', '\n'
				out = buf[:chunkHeadSize+n+2]
			} else if left -= int64(n); left < 0 {
				return errors.New("upstream: the request's body is longer than announced"), nil
			}
			if left == 0 && !chunked {
				last.Store(true)
			}
			if _, err := c.Write(out); err != nil {
				return nil, err
			}
		}
		switch {
		case err == io.EOF && chunked: //nolint:errorlint // Read returns io.EOF itself
			last.Store(true)
			_, err := io.WriteString(c, "0\r\n\r\n")
			return nil, err
		case err == io.EOF && left > 0: //nolint:errorlint // as above
			return io.ErrUnexpectedEOF, nil
		case err == io.EOF: //nolint:errorlint // as above
			return nil, nil
		case err != nil:
			return err, nil
		case !chunked && left == 0 && n > 0:
			return nil, nil
		}
	}
}

// alive reports whether the other side has kept a connection open and said nothing on it.
func alive(c net.Conn) bool {
	s, ok := c.(syscall.Conn)
	if !ok {
		return true // it can't be known
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && open
}
