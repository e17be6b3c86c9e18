package shell_test

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"giggle/shell"
)

// newProxy starts a proxy to a service and returns its address.
func newProxy(t *testing.T, service http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(service)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	p := &shell.RunProxy{Service: u, Token: "a.b.c", Log: log.New(io.Discard, "", 0)}
	go func() { ended <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return l.Addr().String()
}

func TestRunProxyAddsTheToken(t *testing.T) {
	for name, tt := range map[string]struct{ sent, authorization, serverless string }{
		"plain":        {"", "Bearer a.b.c", ""},
		"the app's":    {"Basic x", "Basic x", "Bearer a.b.c"},
		"another user": {"Bearer x.y.z", "Bearer x.y.z", "Bearer a.b.c"},
	} {
		t.Run(name, func(t *testing.T) {
			var got http.Header
			var host string
			address := newProxy(t,
				func(_ http.ResponseWriter, r *http.Request) { got, host = r.Header.Clone(), r.Host })
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/x?y=1", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Serverless-Authorization", "Bearer forged")
			if tt.sent != "" {
				r.Header.Set("Authorization", tt.sent)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if got.Get("Authorization") != tt.authorization || got.Get("X-Serverless-Authorization") != tt.serverless {
				t.Errorf("the service got %v", got)
			}
			if host == address {
				t.Errorf("Host = %q, the proxy's own", host)
			}
		})
	}
}

func TestRunProxyStreams(t *testing.T) {
	next := make(chan struct{})
	address := newProxy(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next: // the client has read the first line
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "two\n")
	})
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: &h2c}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.ProtoMajor != 2 {
		t.Errorf("protocol = %s, want HTTP/2", res.Proto)
	}
	lines := bufio.NewReader(res.Body)
	if s, err := lines.ReadString('\n'); s != "one\n" {
		t.Fatalf("first = %q, %v", s, err)
	}
	close(next)
	if s, err := lines.ReadString('\n'); s != "two\n" {
		t.Fatalf("second = %q, %v", s, err)
	}
}

func TestRunProxySwitchesProtocols(t *testing.T) {
	address := newProxy(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Authorization") != "Bearer a.b.c" {
			t.Errorf("the service got %v", r.Header)
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString(strings.ToUpper(line))
		_ = rw.Flush()
	})
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer = %v, %v", res, err)
	}
	_, _ = io.WriteString(c, "hello\n")
	if s, err := r.ReadString('\n'); s != "HELLO\n" {
		t.Errorf("echo = %q, %v", s, err)
	}
}

func TestRunProxySaysThatTheServiceIsGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	_ = l.Close()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- (&shell.RunProxy{
			Service: &url.URL{Scheme: "https", Host: gone},
			Log:     log.New(io.Discard, "", 0),
		}).Serve(ctx, in)
	}()
	res, err := http.Get("http://" + in.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("status = %d, want 502", res.StatusCode)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v", err)
	}
}
