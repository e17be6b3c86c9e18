// Package upstream sends requests and probes to one instance. It serves package gateway, and package scale, which keeps
// what New returns for each instance; it knows nothing of services or of callers.
//
// For plain HTTP/1.1 it does what http.Transport does, without that one's two goroutines for each connection and the
// hand-offs between them: the goroutine that wants the answer writes the request and reads the answer itself. What is
// out of the ordinary goes through http.Transport: HTTP/2, upgrades, Expect, trailers of a request.
package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a connection to an instance.
const (
	maxHead       = 1 << 20               // bytes of the head of an answer, those of 1xx before it included
	maxInterim    = 5                     // answers of 1xx to one request, as in http.Transport
	idleTimeout   = 90 * time.Second      // then a connection isn't used again
	lastWrite     = 50 * time.Millisecond // for the rest of a request after its answer, as in http.Transport
	expectTimeout = time.Second           // for the app's 100 Continue, then the body is sent unasked
)

// RoundTripper sends requests to one instance.
type RoundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

// New returns what sends requests to an instance, at most concurrency at once, over connections that dial opens:
// HTTP/1.1, or HTTP/2 without TLS.
func New(dial func(ctx context.Context) (net.Conn, error), h2c bool, concurrency int) RoundTripper {
	std := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost:    concurrency,
		IdleConnTimeout:        idleTimeout,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHead,
		ExpectContinueTimeout:  expectTimeout,
	}
	if h2c {
		std.Protocols = new(http.Protocols)
		std.Protocols.SetUnencryptedHTTP2(true)
		return std
	}
	return &Transport{dial: dial, std: std, idleMost: concurrency}
}

// Transport sends HTTP/1.1 requests to one instance, whatever host they name.
type Transport struct {
	dial     func(ctx context.Context) (net.Conn, error)
	std      *http.Transport // for what is out of the ordinary
	idleMost int

	mu     sync.Mutex
	idle   []*conn // the last used last
	closed bool    // no connection is kept any more
}

// conn is a connection to the instance. Its reader is limited while a head is read.
type conn struct {
	net.Conn
	br     *bufio.Reader
	head   []byte // room for the heads of requests
	left   int64  // bytes that may still be read; negative for no limit
	used   bool   // it has carried an answer before
	parked time.Time
}

var errHeadTooLarge = fmt.Errorf("upstream: the head of the answer is larger than %d bytes", maxHead)

func (c *conn) Read(p []byte) (int, error) {
	if c.left < 0 {
		return c.Conn.Read(p)
	}
	if c.left == 0 {
		return 0, errHeadTooLarge
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

// RoundTrip sends a request and returns the answer. It closes the request's body, at the latest when the answer's body
// is closed.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if unusual(r) {
		return t.std.RoundTrip(r)
	}
	c, err := t.conn(r, true)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	reused := c.used
	res, silent, err := t.send(c, r)
	if err != nil && silent && reused && replayable(r) && r.Context().Err() == nil {
		// The app closed the connection that we had kept, just now: nothing of the request was answered. Once, and on a
		// new one.
		if c, err = t.conn(r, false); err != nil {
			return nil, err
		}
		res, _, err = t.send(c, r)
	}
	if err != nil && r.Context().Err() != nil {
		err = context.Cause(r.Context())
	}
	return res, err
}

// unusual reports whether a request is left to http.Transport.
func unusual(r *http.Request) bool {
	h := r.Header
	return len(h["Upgrade"]) > 0 || len(h["Expect"]) > 0 || len(r.Trailer) > 0 || len(r.TransferEncoding) > 1 ||
		r.Method == http.MethodConnect
}

// replayable reports whether a request may be sent twice (RFC 9110, 9.2.2): what is safe and has no body.
func replayable(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody {
		return false
	}
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// conn returns a connection: with kept, one that was kept, if there is one on which the app has not closed or spoken.
func (t *Transport) conn(r *http.Request, kept bool) (*conn, error) {
	for kept {
		c := t.take()
		if c == nil {
			break
		}
		if time.Since(c.parked) < idleTimeout && alive(c.Conn) {
			return c, nil
		}
		_ = c.Close()
	}
	nc, err := t.dial(r.Context())
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc}
	c.br = bufio.NewReaderSize(c, 4<<10)
	return c, nil
}

func (t *Transport) take() *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle) == 0 {
		return nil
	}
	c := t.idle[len(t.idle)-1]
	t.idle[len(t.idle)-1] = nil
	t.idle = t.idle[:len(t.idle)-1]
	return c
}

// park keeps a connection for the next request.
func (t *Transport) park(c *conn) {
	now := time.Now()
	c.used, c.parked = true, now
	t.mu.Lock()
	var old *conn
	keep := !t.closed && len(t.idle) < t.idleMost
	if keep {
		if len(t.idle) > 0 && now.Sub(t.idle[0].parked) > idleTimeout {
			old, t.idle = t.idle[0], t.idle[1:]
		}
		t.idle = append(t.idle, c)
	}
	t.mu.Unlock()
	if !keep {
		old = c
	}
	if old != nil {
		_ = old.Close()
	}
}

// CloseIdleConnections closes the connections that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	idle := t.idle
	t.idle = nil
	t.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
	t.std.CloseIdleConnections()
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// send sends a request on a connection and returns the answer, whose body gives the connection back. Silent: there was
// an error, and not a byte of an answer before it.
func (t *Transport) send(c *conn, r *http.Request) (_ *http.Response, silent bool, err error) {
	x := &exchange{t: t, c: c, r: r}
	ctx := r.Context()
	x.stop = context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		if err != nil {
			x.stop()
			_ = c.Close()
			if x.sent == nil {
				closeBody(r)
			} else if sendErr := x.reading(); sendErr != nil {
				err = sendErr // the client's, who is the cause
			}
		}
	}()
	if c.head, err = appendHead(c.head[:0], r); err != nil {
		return nil, false, err
	}
	if _, err := c.Conn.Write(c.head); err != nil {
		// The app may have answered before it closed: 408, or 400.
		if c.br.Buffered() == 0 && !readable(c) {
			return nil, true, err
		}
	}
	if cap(c.head) > 16<<10 {
		c.head = nil
	}
	if r.Body != nil && r.Body != http.NoBody {
		x.sent = make(chan struct{})
		go x.sendBody()
	}
	res, silent, err := c.answer(ctx, r)
	if err != nil {
		return nil, silent, err
	}
	c.left = -1
	x.inner, x.res = res.Body, res
	res.Body = x
	if r.Method == http.MethodHead || res.ContentLength == 0 || res.Body == http.NoBody {
		x.finish()
	}
	return res, false, nil
}

// readable waits for a first byte, and reports whether one came.
func readable(c *conn) bool {
	c.left = maxHead
	_, err := c.br.Peek(1)
	return err == nil
}

// answer reads the head of the answer, and of those of 1xx before it.
func (c *conn) answer(ctx context.Context, r *http.Request) (_ *http.Response, silent bool, err error) {
	c.left = maxHead
	if _, err := c.br.Peek(1); err != nil {
		return nil, true, fmt.Errorf("upstream: no answer: %w", err)
	}
	for range maxInterim + 1 {
		res, err := http.ReadResponse(c.br, r)
		if err != nil {
			return nil, false, fmt.Errorf("upstream: malformed answer: %w", err)
		}
		switch {
		case res.StatusCode < 100:
			return nil, false, fmt.Errorf("upstream: an answer of status %d", res.StatusCode)
		case res.StatusCode == http.StatusSwitchingProtocols:
			return nil, false, errors.New("upstream: the app switches protocols unasked")
		case res.StatusCode >= 200:
			return res, false, nil
		}
		if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(res.StatusCode, map[string][]string(res.Header)); err != nil {
				return nil, false, err
			}
		}
	}
	return nil, false, fmt.Errorf("upstream: more than %d answers of 1xx", maxInterim)
}

// exchange is a request on its connection, and the body of its answer.
type exchange struct {
	t    *Transport
	c    *conn
	r    *http.Request
	res  *http.Response
	stop func() bool   // the client's leaving doesn't close the connection any more
	sent chan struct{} // closed when the body was sent; nil without one
	last atomic.Bool   // nothing of it is left but to write what was read

	mu      sync.Mutex
	readErr error // of the request's body
	sendErr error // any that left the request incomplete

	inner io.ReadCloser
	done  bool
}

// reading is the error of reading the request's body, if there was one already.
func (x *exchange) reading() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.readErr
}

// sendBody sends the request's body.
func (x *exchange) sendBody() {
	defer close(x.sent)
	defer closeBody(x.r)
	readErr, err := writeBody(x.c.Conn, x.r, &x.last)
	if readErr == nil && err == nil {
		return
	}
	x.mu.Lock()
	x.readErr, x.sendErr = readErr, errors.Join(readErr, err)
	x.mu.Unlock()
	if readErr != nil {
		_ = x.c.Close() // the app must not take what came for all; and who waits for the answer need not
	}
	// An app that does not read all may have answered still: reading the answer finds out.
}

// Read reads the answer's body.
func (x *exchange) Read(p []byte) (int, error) {
	if x.done {
		return 0, io.EOF
	}
	n, err := x.inner.Read(p)
	switch {
	case err == nil:
	case err == io.EOF: //nolint:errorlint // Read returns io.EOF itself
		x.finish()
	case x.r.Context().Err() != nil:
		err = context.Cause(x.r.Context())
	}
	return n, err
}

// Buffered is how many bytes of the answer can be read without waiting.
func (x *exchange) Buffered() int { return x.c.br.Buffered() }

// finish gives the connection back after an answer that was read to its end, if both sides can go on.
func (x *exchange) finish() {
	if x.done {
		return
	}
	x.done = true
	if !x.stop() || x.res.Close || x.r.Close || x.c.br.Buffered() > 0 {
		_ = x.c.Close()
		return
	}
	if x.sent == nil {
		x.t.park(x.c)
		return
	}
	// Mostly the request was sent just now. An app that answers without reading all gets a while to read the rest.
	if x.last.Load() {
		x.await()
	} else {
		go x.await()
	}
}

// await gives the connection back once the request's body is sent.
func (x *exchange) await() {
	wait := time.NewTimer(lastWrite)
	defer wait.Stop()
	select {
	case <-x.sent:
		x.settle()
	case <-wait.C:
		_ = x.c.Close()
	}
}

// settle gives the connection back after the request's body, if that was sent whole.
func (x *exchange) settle() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.sendErr != nil {
		_ = x.c.Close()
		return
	}
	x.t.park(x.c)
}

// Close ends the exchange. An answer that isn't at its end takes its connection along.
func (x *exchange) Close() error {
	if !x.done {
		x.done = true
		x.stop()
		_ = x.c.Close()
	}
	return nil
}
