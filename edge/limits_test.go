package edge_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"giggle/edge"
)

// piped is a listener in memory, for tests in which time is made up.
type piped struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPiped() *piped { return &piped{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *piped) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *piped) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (p *piped) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// ends reports when the other side closes a connection, counted from now.
func ends(c net.Conn) time.Duration {
	start := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(start)
}

const served = "jokes-abcdefghij-lz.a.run.app"

// edgeOn serves an edge on l whose service answers with its path, and returns the CA's pool.
func edgeOn(t *testing.T, l net.Listener, conns int) (*edge.Server, *x509.CertPool) {
	t.Helper()
	ca := newCA(t, t.TempDir(), time.Now)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM())
	s := edge.NewServer(edge.Config{CA: ca, Conns: conns, Router: edge.NewRouter(edge.Routes{
		Service: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }),
	})})
	go func() { _ = s.ServeTLS(l, nil) }()
	return s, pool
}

// Who sends slowly, or nothing, is cut off in time; who sends nothing any more, later.
func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPiped()
		s, pool := edgeOn(t, l, 0)
		if d := ends(l.dial()); d > 20*time.Second {
			t.Errorf("a connection without a handshake is cut after %v", d)
		}
		secure := func() *tls.Conn {
			return tls.Client(l.dial(),
				&tls.Config{RootCAs: pool, ServerName: served, NextProtos: []string{"http/1.1"}})
		}
		slow := secure()
		var writer sync.WaitGroup
		writer.Go(func() {
			for _, err := io.WriteString(slow, "GET / HTTP/1.1\r\n"); err == nil; _, err = io.WriteString(slow,
				"A: b\r\n") {
				time.Sleep(time.Second) // in made-up time
			}
		})
		if d := ends(slow); d < 10*time.Second || d > 20*time.Second {
			t.Errorf("a head that never ends is cut after %v", d)
		}
		writer.Wait()
		c := secure()
		if _, err := fmt.Fprintf(c, "GET /a HTTP/1.1\r\nHost: %s\r\n\r\n", served); err != nil {
			t.Fatal(err)
		}
		if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != 200 {
			t.Errorf("%v, %v", res, err)
		}
		if d := ends(c); d < 4*time.Minute || d > 6*time.Minute {
			t.Errorf("a connection without requests is cut after %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, pool := edgeOn(t, l, 2)
	dial := func() (*tls.Conn, error) {
		return tls.Dial("tcp", l.Addr().String(),
			&tls.Config{RootCAs: pool, ServerName: served, NextProtos: []string{"http/1.1"}})
	}
	first, err1 := dial()
	second, err2 := dial()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(); err == nil {
		t.Error("a third connection is served")
	}
	_ = first.Close()
	end := time.Now().Add(10 * time.Second)
	for {
		c, err := dial()
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the place of a connection that was closed stays taken")
		}
	}
	_ = second.Close()
	_ = s.Shutdown(t.Context())
}

// A client that comes again need not make the whole handshake.
func TestSessionsAreResumed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, pool := edgeOn(t, l, 0)
	defer func() { _ = s.Shutdown(t.Context()) }()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{
			RootCAs:            pool,
			ServerName:         served,
			NextProtos:         []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
			MaxVersion:         version,
		}
		for again := range 2 {
			c, err := tls.Dial("tcp", l.Addr().String(), config)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "GET /a HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", served)
			if b, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(b), "/a") {
				t.Errorf("%q, %v", b, err)
			}
			if got := c.ConnectionState().DidResume; got != (again == 1) {
				t.Errorf("TLS %x, connection %d: resumed = %t", version, again, got)
			}
			_ = c.Close()
		}
	}
}

// A head that is too large is refused, whatever the protocol.
func TestLargeHeads(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, pool := edgeOn(t, l, 0)
	defer func() { _ = s.Shutdown(t.Context()) }()
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
			},
			TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols),
		}
		tr.Protocols.SetHTTP1(!h2)
		tr.Protocols.SetHTTP2(h2)
		for size, want := range map[int]int{64 << 10: 200, 256 << 10: http.StatusRequestHeaderFieldsTooLarge} {
			r, err := http.NewRequest("GET", "https://"+served+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Large", strings.Repeat("x", size))
			res, err := tr.RoundTrip(r)
			if err != nil {
				if want == 200 {
					t.Errorf("HTTP/2 %t, %d bytes: %v", h2, size, err)
				}
				continue // refused by its connection's end
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("HTTP/2 %t, %d bytes = %d, want %d", h2, size, res.StatusCode, want)
			}
		}
		tr.CloseIdleConnections()
	}
}

// HTTP/2 is refused where TLS is not good enough for it (RFC 9113, 9.2).
func TestInadequateTLS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, pool := edgeOn(t, l, 0)
	defer func() { _ = s.Shutdown(t.Context()) }()
	for suite, want := range map[uint16]bool{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA: false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: true} {
		p := new(http.Protocols)
		p.SetHTTP2(true)
		transport := &http.Transport{
			Protocols:       p,
			TLSClientConfig: &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
			},
		}
		res, err := (&http.Client{Transport: transport}).Get("https://" + served + "/x")
		if err == nil {
			_ = res.Body.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
		transport.CloseIdleConnections()
	}
}
