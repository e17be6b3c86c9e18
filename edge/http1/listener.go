// Package http1 serves the plain requests of HTTP/1.1 over kept connections, at about half of what net/http takes for
// them, and passes every connection on to net/http that brings anything else.
//
// A request is plain when its head fits 4 KiB and is written exactly as RFC 9112 says, has one Host that Config.Takes,
// no body or one of a known length, and asks for nothing special: no upgrade, no Expect, no Transfer-Encoding
// (head.go). What isn't plain is judged by net/http alone, from its first byte. So this package needs no opinion on
// malformed requests, and can't disagree with net/http on where a request ends: FuzzHead holds it to that.
//
// It serves package edge, and knows neither hosts nor handlers.
package http1

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what Listen needs.
type Config struct {
	TLS     *tls.Config  // of the server; nil for connections without TLS
	Handler http.Handler // of plain requests
	// Takes reports whether requests for a host are for Handler. Host is a Host header of letters, digits, '-', '.' and
	// ':'.
	Takes func(host string) bool
	// Context puts what is known of a connection of the inner listener into the context of its requests; nil for
	// nothing.
	Context func(ctx context.Context, c net.Conn) context.Context
	// HeadTimeout bounds the TLS handshake and the time between the first byte of a request and the end of its head;
	// IdleTimeout the time between two requests.
	HeadTimeout, IdleTimeout time.Duration
	Log                      *slog.Logger
}

// Listener serves the plain requests of another listener's connections. Accept returns the connections that it passes
// on: for HTTP/2 as a *tls.Conn after its handshake, else as one that begins with the first request that isn't plain.
// What net/http can't see of the latter, Below and TLSState tell.
type Listener struct {
	cfg    Config
	inner  net.Listener
	passed chan net.Conn
	broken chan error    // why inner accepts no more
	closed chan struct{} // Close was called
	once   sync.Once

	stamp    atomic.Pointer[stamp] // of answers
	stopping atomic.Bool
	mu       sync.Mutex
	conns    map[*conn]struct{}
	fewer    *sync.Cond // of conns
}

// Listen returns a Listener on inner, which has begun to accept.
func Listen(inner net.Listener, cfg Config) *Listener {
	l := &Listener{
		cfg:    cfg,
		inner:  inner,
		passed: make(chan net.Conn),
		broken: make(chan error, 1),
		closed: make(chan struct{}),
		conns:  make(map[*conn]struct{}),
	}
	l.fewer = sync.NewCond(&l.mu)
	go l.accept()
	return l
}

// The pauses after a failed accept, as net/http makes them: out of descriptors, mostly.
const (
	firstPause = 5 * time.Millisecond
	maxPause   = time.Second
)

func (l *Listener) accept() {
	pause := firstPause
	for {
		c, err := l.inner.Accept()
		if err == nil {
			pause = firstPause
			go l.serve(c)
			continue
		}
		if ne, ok := err.(interface{ Temporary() bool }); ok && ne.Temporary() {
			l.cfg.Log.Debug("accept", "err", err)
			select {
			case <-time.After(pause):
				pause = min(2*pause, maxPause)
				continue
			case <-l.closed:
			}
		}
		l.broken <- err
		return
	}
}

// Accept waits for a connection that is passed on.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.passed:
		return c, nil
	case err := <-l.broken:
		l.broken <- err // also for who asks again
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Addr is the inner listener's.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Close closes the inner listener, once; its owner may have done so before. Connections that it serves stay until
// Shutdown.
func (l *Listener) Close() (err error) {
	l.once.Do(func() {
		close(l.closed)
		if err = l.inner.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	})
	return err
}

// pass hands a connection to who accepts.
func (l *Listener) pass(c net.Conn) {
	select {
	case l.passed <- c:
	case <-l.closed:
		_ = c.Close()
	}
}

// Shutdown closes the connections without a request, waits for the requests of the others until ctx ends, then cuts
// them.
func (l *Listener) Shutdown(ctx context.Context) error {
	err := l.Close()
	stop := context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.conns {
			_ = c.raw.Close()
		}
	})
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopping.Store(true)
	for c := range l.conns {
		if c.state.CompareAndSwap(idle, closed) {
			_ = c.raw.Close()
		}
	}
	for len(l.conns) > 0 {
		l.fewer.Wait()
	}
	return errors.Join(err, ctx.Err())
}

// enter notes a connection, unless the listener is being shut down.
func (l *Listener) enter(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping.Load() {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Listener) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	l.fewer.Broadcast()
}

// stateKey is the context key of a passed connection's TLS state.
type stateKey struct{}

// Below is for http.Server's ConnContext: it has TLSState know the TLS of a connection that Accept returned, and
// returns the connection below it, which is the inner listener's.
func Below(ctx context.Context, c net.Conn) (context.Context, net.Conn) {
	switch t := c.(type) {
	case *passed:
		if t.tls != nil {
			ctx = context.WithValue(ctx, stateKey{}, t.tls)
		}
		return ctx, t.raw
	case *tls.Conn:
		return ctx, t.NetConn()
	}
	return ctx, c
}

// TLSState is what the TLS of a request's connection is, where net/http could not see it: the connection was passed on.
func TLSState(ctx context.Context) *tls.ConnectionState {
	state, _ := ctx.Value(stateKey{}).(*tls.ConnectionState)
	return state
}
