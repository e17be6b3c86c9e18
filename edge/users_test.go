package edge_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"giggle/edge"
)

// viaProxy asks the plain edge for a URL, as a client of its proxy does, by GET or through CONNECT.
func viaProxy(t *testing.T, plain, method, target string) (status int, body string) {
	t.Helper()
	c, err := net.Dial("tcp", plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	host := strings.TrimPrefix(target, "http://")
	if method == http.MethodConnect {
		target = host
	}
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, target, host)
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodConnect && res.StatusCode == http.StatusOK { // the tunnel stands
		return res.StatusCode, ""
	}
	buf := make([]byte, 4096)
	n, _ := res.Body.Read(buf)
	return res.StatusCode, string(buf[:n])
}

// What listens on this machine trusts who is on it: the proxy, which dials as root, reaches none of it for anybody, by
// whatever name, and nothing at all for users who aren't the owner.
func TestProxyReachesNothingInside(t *testing.T) {
	var reached atomic.Int64
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer inside.Close()
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	f := start(t, edge.Config{Direct: true}, nil)
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "localhost.localdomain", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::]",
		"169.254.169.254", "[fe80::1]", "224.0.0.1",
	} {
		for _, method := range []string{http.MethodConnect, http.MethodGet} {
			if status, body := viaProxy(t, f.plain, method, "http://"+host+":"+port); status < 400 {
				t.Errorf("%s %s: %d %s", method, host, status, body)
			}
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("a server on this machine got %d requests", n)
	}
}

func TestProxyServesTheOwnerOnly(t *testing.T) {
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("outside")) }))
	defer outside.Close()
	var uid atomic.Int64
	f := start(t, edge.Config{
		Direct: true,
		Dial:   new(net.Dialer).DialContext,
		Owner:  func(uid int) bool { return uid == 1000 },
		User: func(net.Conn) (int, error) {
			if uid.Load() < 0 {
				return 0, errors.New("gone")
			}
			return int(uid.Load()), nil
		},
	}, nil)
	for of, want := range map[int64]int{1000: 200, 1001: 403, 0: 403, -1: 403} {
		uid.Store(of)
		for _, method := range []string{http.MethodConnect, http.MethodGet} {
			if status, body := viaProxy(t, f.plain, method, outside.URL); status != want {
				t.Errorf("%s as %d: %d %s, want %d", method, of, status, body, want)
			}
		}
	}
}

// However many connections other users open, the owner's are served.
func TestOthersLeaveRoomForTheOwner(t *testing.T) {
	const conns = 64
	var uid atomic.Int64
	f := start(t, edge.Config{
		Conns: conns,
		Owner: func(uid int) bool { return uid == 1000 },
		User:  func(net.Conn) (int, error) { return int(uid.Load()), nil },
	}, nil)
	ask := func() error {
		c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := http.NewRequest("GET", "http://"+f.plain+"/", nil)
		if err != nil {
			return err
		}
		r.Host = "jokes.localhost"
		res, err := c.Do(r)
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	uid.Store(1001)
	cut := 0
	for range 4 * conns {
		c, err := net.Dial("tcp", f.plain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: jokes.localhost\r\nContent-Length: 1000000\r\n\r\n") // and no body
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, net.ErrClosed) {
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				cut++
			}
		}
	}
	if cut < 3*conns {
		t.Errorf("only %d of %d connections were refused", cut, 4*conns)
	}
	if err := ask(); err == nil {
		t.Error("another user's next connection is served")
	}
	uid.Store(1000)
	for range 5 {
		if err := ask(); err != nil {
			t.Errorf("the owner: %v", err)
		}
	}
}
