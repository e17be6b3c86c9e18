package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"giggle/gateway/upstream"
)

// dialer opens TCP connections to an address and counts them.
type dialer struct {
	address string
	dials   atomic.Int32
}

func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	d.dials.Add(1)
	return new(net.Dialer).DialContext(ctx, "tcp", d.address)
}

func start(t testing.TB, h http.HandlerFunc) (*dialer, http.RoundTripper) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	d := &dialer{address: s.Listener.Addr().String()}
	return d, upstream.New(d.dial, false, 10)
}

func request(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://instance"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func do(t testing.TB, rt http.RoundTripper, r *http.Request) (int, string) {
	t.Helper()
	res, err := rt.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestConnectionsAreKept(t *testing.T) {
	d, rt := start(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/close":
			w.Header().Set("Connection", "close")
		case "/unread":
			w.WriteHeader(http.StatusOK) // and the body stays where it is
			return
		}
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/stream" {
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Path != "/nothing" {
			fmt.Fprint(w, r.Method, " ", len(b))
		}
	})
	for _, tt := range []struct {
		method, path, body, want string
		dials                    int32 // in all, afterwards
	}{
		{"GET", "/", "", "GET 0", 1}, {"GET", "/stream", "", "GET 0", 1}, {"HEAD", "/", "", "", 1},
		{"POST", "/", "body", "POST 4", 1}, {"POST", "/", "", "POST 0", 1},
		{"GET", "/nothing", "", "", 1}, {"GET", "/close", "", "GET 0", 1}, {"GET", "/", "", "GET 0", 2},
		{"PUT", "/stream", strings.Repeat("x", 100_000), "PUT 100000", 2},
		{"POST", "/unread", strings.Repeat("x", 50<<20), "", 2}, {"GET", "/", "", "GET 0", 3},
	} {
		var body io.Reader
		if tt.body != "" {
			body = strings.NewReader(tt.body)
		}
		if code, got := do(t, rt, request(t, tt.method, tt.path, body)); code != 200 || got != tt.want ||
			d.dials.Load() != tt.dials {
			t.Errorf("%s %s = %d %q with %d connections, want %q with %d", tt.method, tt.path, code, got,
				d.dials.Load(), tt.want, tt.dials)
		}
	}
	rt.(*upstream.Transport).CloseIdleConnections()
	if do(t, rt, request(t, "GET", "/", nil)); d.dials.Load() != 4 {
		t.Errorf("%d connections: the idle one was not closed", d.dials.Load())
	}
}

// An answer that is given up takes its connection along, and the app sees it.
func TestLeaving(t *testing.T) {
	began, gone := make(chan bool), make(chan bool)
	d, rt := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/silent" {
			began <- true
		} else {
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
		gone <- true
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("the client left")
	go func() {
		<-began
		cancel(reason)
	}()
	if _, err := rt.RoundTrip(request(t, "GET", "/silent", nil).WithContext(ctx)); !errors.Is(err, reason) {
		t.Errorf("left before an answer: %v", err)
	}
	<-gone
	ctx, cancel = context.WithCancelCause(t.Context())
	res, err := rt.RoundTrip(request(t, "GET", "/", nil).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	cancel(reason)
	if _, err := io.ReadAll(res.Body); !errors.Is(err, reason) {
		t.Errorf("left in the middle: %v", err)
	}
	_ = res.Body.Close()
	<-gone
	if res, err = rt.RoundTrip(request(t, "GET", "/", nil)); err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	<-gone
	if n := d.dials.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// What can't be read of a request's body is not made up, and is what the caller hears of.
func TestBrokenBody(t *testing.T) {
	got := make(chan error, 1)
	_, rt := start(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		got <- err
	})
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		body   io.Reader
		length int64
		want   error
	}{
		{"in chunks", io.MultiReader(strings.NewReader("half"), failing{broken}), -1, broken},
		{"announced", io.MultiReader(strings.NewReader("half"), failing{broken}), 10, broken},
		{"too short", strings.NewReader("half"), 10, io.ErrUnexpectedEOF},
	} {
		r := request(t, "POST", "/", tt.body)
		r.ContentLength = tt.length
		if _, err := rt.RoundTrip(r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err := <-got; err == nil {
			t.Errorf("%s: the app took half for all", tt.name)
		}
	}
	r := request(t, "POST", "/", strings.NewReader("too long"))
	r.ContentLength = 3
	if _, err := rt.RoundTrip(r); err == nil {
		t.Error("a body that is longer than announced was sent")
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestManyAtOnce(t *testing.T) {
	d, rt := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	var wg sync.WaitGroup
	for g := range 10 {
		wg.Go(func() {
			for i := range 100 {
				body := strings.Repeat(fmt.Sprint(g, i), i)
				r, err := http.NewRequestWithContext(t.Context(), "POST", "http://instance/", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := rt.RoundTrip(r)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || string(got) != body {
					t.Errorf("echo of %d bytes: %d, %v", len(body), len(got), err)
				}
			}
		})
	}
	wg.Wait()
	// 1000 if none were kept; one that waits for its last write is not there for a moment
	if n := d.dials.Load(); n > 100 {
		t.Errorf("%d connections for 10 at once", n)
	}
}

// said is an app in memory that says the same to everybody, and notes what it was told.
type said struct {
	answer []byte
	heard  chan []byte
}

func (s *said) dial(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer func() { _ = theirs.Close() }()
		_ = theirs.SetDeadline(time.Now().Add(10 * time.Second))
		var heard bytes.Buffer
		in := bufio.NewReader(io.TeeReader(theirs, &heard))
		if r, err := http.ReadRequest(in); err == nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		if s.heard != nil {
			s.heard <- heard.Bytes()
		}
		_, _ = theirs.Write(s.answer)
	}()
	return ours, nil
}

// outcome is what a caller sees of an answer.
type outcome struct {
	failed  bool
	status  int
	header  http.Header
	body    string
	cut     bool // the body ended before its end
	trailer http.Header
}

func outcomeOf(rt http.RoundTripper, r *http.Request) outcome {
	res, err := rt.RoundTrip(r)
	if err != nil {
		return outcome{failed: true}
	}
	b, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	trailer := maps.Clone(res.Trailer)
	if len(trailer) == 0 || err != nil {
		trailer = nil
	}
	return outcome{
		status:  res.StatusCode,
		header:  res.Header,
		body:    string(b),
		cut:     err != nil,
		trailer: trailer,
	}
}

// FuzzAnswer compares with http.Transport what becomes of an answer, whatever it is.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nall", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"", "\r\n", "HTTP/1.1 200 OK\nA: b\n\nc", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
	} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, answer []byte, head bool) {
		if bytes.Contains(answer, []byte(" 101")) || bytes.Contains(answer, []byte(" 408")) {
			return // upgrades are left to http.Transport; and 408 it takes for a connection that was closed
		}
		app := said{answer: answer}
		std := &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return app.dial(ctx) },
			DisableCompression:     true,
			MaxResponseHeaderBytes: 1 << 20,
		}
		defer std.CloseIdleConnections()
		method := "GET"
		if head {
			method = "HEAD"
		}
		want, got := outcomeOf(std, request(t, method, "/", nil)), outcomeOf(upstream.New(app.dial, false, 1),
			request(t, method, "/", nil))
		if !want.failed && want.status < 100 {
			want = outcome{failed: true} // which http.Transport lets pass, and no server can send on
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\ngot  %+v\nwant %+v", answer, got, want)
		}
	})
}

// FuzzRequest compares with http.Transport what the app reads.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/a%2Fb", "c=d", "Accept", "text/html", "", true)
	f.Add("POST", "/", "", "X-A", "b\tc", "body", true)
	f.Add("PUT", "//x", "a;b=%zz", "X-A", "", "body", false)
	f.Add("GET", "/", "", "X A", "b\r\nC: d", "", true)
	f.Add("A B", "/\r\n", "\x00", "", "", "", true)
	f.Fuzz(func(t *testing.T, method, path, query, name, value, body string, length bool) {
		switch http.CanonicalHeaderKey(name) {
		case "Upgrade", "Expect", "Trailer", "Host", "User-Agent", "Connection", "Content-Length", "Transfer-Encoding":
			return
		}
		if method == "CONNECT" || strings.ContainsAny(path, "?#") || !strings.HasPrefix(path, "/") {
			return
		}
		read := func(rt func(*said) http.RoundTripper) (string, bool) {
			app := &said{answer: []byte("HTTP/1.1 204 No Content\r\n\r\n"), heard: make(chan []byte, 1)}
			r := request(t, "GET", "/", nil)
			r.Method, r.URL = method, &url.URL{Scheme: "http", Host: "instance", RawQuery: query}
			r.URL.Path, r.URL.RawPath = path, path
			if u, err := url.PathUnescape(path); err == nil {
				r.URL.Path = u
			}
			r.Header = http.Header{"User-Agent": {"test"}, name: {value}}
			if body != "" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), -1
				if length {
					r.ContentLength = int64(len(body))
				}
			}
			if _, err := rt(app).RoundTrip(r); err != nil {
				return "", false
			}
			return normal(<-app.heard), true
		}
		want, wantOK := read(func(s *said) http.RoundTripper {
			return &http.Transport{
				DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx) },
				DisableCompression: true,
				DisableKeepAlives:  false,
			}
		})
		got, ok := read(func(s *said) http.RoundTripper { return upstream.New(s.dial, false, 1) })
		if ok && (!wantOK || got != want) {
			t.Errorf("the app read %q, want %q (%t)", got, want, wantOK)
		}
	})
}

// normal is what an app makes of a request's bytes.
func normal(b []byte) string {
	in := bufio.NewReader(bytes.NewReader(b))
	r, err := http.ReadRequest(in)
	if err != nil {
		return "malformed"
	}
	body, err := io.ReadAll(r.Body)
	rest, _ := io.ReadAll(in)
	return fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", r.Header, " ", r.ContentLength, r.TransferEncoding,
		" ", string(body), err, " ", string(rest))
}
