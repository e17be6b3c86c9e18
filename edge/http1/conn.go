package http1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"giggle/edge/http2"
)

const (
	headSize   = 4 << 10                // a plain request's head fits it
	watchAfter = 5 * time.Millisecond   // a request that takes longer is watched for its client's leaving
	lastWords  = 500 * time.Millisecond // for a client to take an answer before the connection is reset, as in net/http
)

// The states of a connection.
const (
	idle = iota // between two requests
	busy
	closed // by Shutdown
)

// pastDeadline is a deadline that ends a read at once.
var pastDeadline = time.Unix(1, 0)

// conn is a connection whose requests are plain so far.
type conn struct {
	net.Conn
	l      *Listener
	raw    net.Conn             // below TLS, or Conn
	tls    *tls.ConnectionState // nil without TLS
	ctx    context.Context
	remote string
	br     *bufio.Reader
	out    []byte // of the answer, not yet sent
	host   string // the last one that was asked about
	state  atomic.Int32

	watch watch
}

// passed is a connection that net/http goes on with.
type passed struct {
	net.Conn
	br  *bufio.Reader
	raw net.Conn
	tls *tls.ConnectionState
}

func (p *passed) Read(b []byte) (int, error) {
	if p.br == nil {
		return p.Conn.Read(b)
	}
	if p.br.Buffered() == 0 {
		p.br = nil
		return p.Conn.Read(b)
	}
	return p.br.Read(b)
}

// CloseWrite passes the half-close through.
func (p *passed) CloseWrite() error { return closeWrite(p.Conn) }

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// serve serves a connection until it ends or is passed on.
func (l *Listener) serve(raw net.Conn) {
	c := &conn{Conn: raw, raw: raw, l: l}
	if !l.enter(c) {
		_ = raw.Close()
		return
	}
	_ = raw.SetDeadline(time.Now().Add(l.cfg.HeadTimeout))
	if l.cfg.TLS != nil {
		t := tls.Server(raw, l.cfg.TLS)
		if err := t.Handshake(); err != nil {
			l.cfg.Log.Debug("TLS handshake", "remote", raw.RemoteAddr().String(), "err", err)
			_ = raw.Close()
			l.leave(c)
			return
		}
		state := t.ConnectionState()
		if state.NegotiatedProtocol == "h2" {
			_ = raw.SetDeadline(time.Time{})
			l.leave(c)
			if adequate(&state) {
				l.pass(&passed{Conn: http2.NewConn(t), raw: raw, tls: &state})
			} else {
				l.pass(t) // net/http sees it, and refuses
			}
			return
		}
		c.Conn, c.tls = t, &state
	}
	_ = raw.SetWriteDeadline(time.Time{})
	c.ctx = context.Background()
	if l.cfg.Context != nil {
		c.ctx = l.cfg.Context(c.ctx, raw)
	}
	c.remote, c.br = raw.RemoteAddr().String(), bufio.NewReaderSize(c.Conn, headSize)
	c.watch.init(c)
	if c.requests() {
		_ = c.SetDeadline(time.Time{})
		l.leave(c)
		p := &passed{c.Conn, c.br, raw, c.tls}
		if b, _ := c.br.Peek(c.br.Buffered()); http2.Begins(b) {
			p = &passed{Conn: http2.NewConn(p), raw: raw, tls: c.tls}
		}
		l.pass(p)
		return
	}
	_ = c.Close()
	l.leave(c)
}

// adequate reports whether TLS is good enough for HTTP/2: 1.3, or 1.2 with ephemeral keys and authenticated encryption
// (RFC 9113, 9.2).
func adequate(s *tls.ConnectionState) bool {
	switch s.CipherSuite {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	}
	return s.Version >= tls.VersionTLS13
}

// requests serves one request after another. It returns true with the first one, unread, that isn't plain.
func (c *conn) requests() (pass bool) {
	for first := true; ; first = false {
		head, err := c.head(first)
		if err != nil || !c.state.CompareAndSwap(idle, busy) {
			return false
		}
		r := parseHead(head)
		if r == nil || !c.takes(r.Host) {
			return true
		}
		_, _ = c.br.Discard(len(head)) // it is buffered
		if !c.serve(r) {
			return false
		}
		if c.state.Store(idle); c.l.stopping.Load() {
			return false
		}
	}
}

func (c *conn) takes(host string) bool {
	if host != c.host {
		if !c.l.cfg.Takes(host) {
			return false
		}
		c.host = host
	}
	return true
}

// head returns the next request's head as it is, or what there is of it where that isn't plain. It stays in the buffer.
func (c *conn) head(first bool) (string, error) {
	begun := false
	for {
		b, _ := c.br.Peek(c.br.Buffered())
		if len(b) > 0 {
			if end := bytes.Index(b, []byte("\r\n\r\n")); end >= 0 {
				return string(b[:end+4]), nil
			}
			if len(b) == headSize {
				return "", nil
			}
		}
		switch {
		case !begun && (first || len(b) > 0): // the first one is due since the connection is there
			begun = true
			_ = c.SetReadDeadline(time.Now().Add(c.l.cfg.HeadTimeout))
		case !begun:
			_ = c.SetReadDeadline(time.Now().Add(c.l.cfg.IdleTimeout))
		}
		if _, err := c.br.Peek(len(b) + 1); err != nil {
			return "", err
		}
	}
}

// serve serves one request, and reports whether the connection can have another.
func (c *conn) serve(r *http.Request) (again bool) {
	r.RemoteAddr, r.TLS = c.remote, c.tls
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	r = r.WithContext(ctx)
	w := &response{c: c, r: r, length: -1}
	in := body{c: c, left: r.ContentLength}
	c.watch.begin(cancel)
	if r.ContentLength > 0 {
		_ = c.SetReadDeadline(time.Time{})
		r.Body = &in
	} else {
		c.watch.arm()
	}
	ok := c.handle(w, r)
	whole := in.end()
	c.watch.end()
	if !ok {
		return false
	}
	w.close = w.close || r.Close || !whole
	if err := w.finish(); err != nil {
		return false
	}
	if w.close {
		c.linger()
		return false
	}
	return true
}

// handle has the handler answer, and reports whether it did not panic. Who does has cut the answer off.
func (c *conn) handle(w http.ResponseWriter, r *http.Request) (ok bool) {
	defer func() {
		if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // it is panicked with as it is
			c.l.cfg.Log.Error("panic in a handler", "remote", c.remote, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	c.l.cfg.Handler.ServeHTTP(w, r)
	return true
}

// linger ends the answer, and waits a little for the client to do the same: what it sent and nobody read would else
// make the kernel reset the connection, and the answer be lost.
func (c *conn) linger() {
	if closeWrite(c.Conn) != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lastWords))
	_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, 1<<20))
}

// body is a request's body.
type body struct {
	c    *conn
	mu   sync.Mutex // of reads, since the handler may leave one behind
	left int64
	over bool
}

var errOver = errors.New("http1: the body was read after the request's end")

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.left == 0:
		return 0, io.EOF
	case b.over:
		return 0, errOver
	}
	n, err := b.c.br.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		b.c.watch.arm()
		return n, io.EOF
	case err == io.EOF: //nolint:errorlint // a connection returns it itself
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close leaves the rest where it is.
func (b *body) Close() error { return nil }

// end has nobody read the body any more, and reports whether it was read whole.
func (b *body) end() bool {
	if b.mu.TryLock() {
		defer b.mu.Unlock()
	} else {
		_ = b.c.SetReadDeadline(pastDeadline)
		b.mu.Lock()
		defer b.mu.Unlock()
	}
	b.over = true
	return b.left == 0
}
