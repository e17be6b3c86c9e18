package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"giggle/edge"
	"giggle/gateway"
	"giggle/gateway/upstream"
	"giggle/run"
)

// road is all that a request passes: the edge with TLS, the gateway, the way to the instance, an app.
type road struct {
	*app
	address string // of the edge's TLS port
	plain   string // of its port without TLS
	pool    *x509.CertPool
	accepts atomic.Int32 // connections to the app
	ca      *edge.CA
}

// newRoad makes a road to an app that speaks HTTP/1.1, or HTTP/2 without TLS.
func newRoad(t testing.TB, h2c bool, h http.Handler) *road {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(!h2c)
	server.Protocols.SetUnencryptedHTTP2(h2c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return roadTo(t, h2c, l.Addr().String(), 60)
}

// roadTo makes a road to an app that listens already. Timeout is that of a request, in seconds.
func roadTo(t testing.TB, h2c bool, app1 string, timeout int) *road {
	t.Helper()
	w := &road{pool: x509.NewCertPool()}
	w.app = &app{records: make(recorder, 10_000), transport: upstream.New(func(ctx context.Context) (net.Conn, error) {
		w.accepts.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", app1)
	}, h2c, 80)}
	g := gateway.New(gateway.Config{
		Instances: w.app,
		Invoker:   invoker{true},
		Recorder:  w.app.records,
		Now:       time.Now,
		Log:       slog.New(slog.DiscardHandler),
	})
	next := route()
	for i := range next.Targets {
		c := &next.Targets[i].Revision.Template
		if c.Timeout = timeout; h2c {
			c.Containers = append([]run.Container(nil), c.Containers...)
			c.Containers[0].PortName = "h2c"
		}
	}
	g.Publish(next)
	ca, err := edge.OpenCA(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w.ca = ca
	w.pool.AppendCertsFromPEM(ca.CertPEM())
	server := edge.NewServer(edge.Config{CA: ca, Router: edge.NewRouter(edge.Routes{Service: g})})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.ServeTLS(front, nil) }()
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.ServePlain(bare, nil) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
	})
	w.address, w.plain = front.Addr().String(), bare.Addr().String()
	return w
}

// barely sends requests without TLS, whatever their URL says.
type barely struct{ *http.Transport }

func (b barely) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.WithContext(r.Context()) // not to be changed is the caller's
	u := *r.URL
	u.Scheme = "http"
	out.URL = &u
	return b.Transport.RoundTrip(out)
}

// bareClient returns a client of the edge's plain port that speaks HTTP/2 or HTTP/1.1.
func (w *road) bareClient(t testing.TB, h2 bool) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.plain)
		},
		Protocols: new(http.Protocols), DisableCompression: true, ExpectContinueTimeout: 10 * time.Second,
	}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: barely{tr}}
}

// client returns a client of the edge that speaks HTTP/2 or HTTP/1.1.
func (w *road) client(t testing.TB, h2 bool) *http.Client {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.address)
		},
		TLSClientConfig:       &tls.Config{RootCAs: w.pool},
		Protocols:             new(http.Protocols),
		DisableCompression:    true,
		ExpectContinueTimeout: 10 * time.Second,
	}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// dial opens a TLS connection for HTTP/1.1 to the edge.
func (w *road) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := tls.Dial("tcp", w.address,
		&tls.Config{RootCAs: w.pool, ServerName: host, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// everyWay runs a test for each protocol of the client's and of the app's.
func everyWay(t *testing.T, h http.HandlerFunc, check func(t *testing.T, w *road, c *http.Client, h2, h2c bool)) {
	for _, h2c := range []bool{false, true} {
		w := newRoad(t, h2c, h)
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("client 2 %t, app 2 %t", h2, h2c),
				func(t *testing.T) { check(t, w, w.client(t, h2), h2, h2c) })
			t.Run(fmt.Sprintf("client 2 %t, app 2 %t, without TLS", h2, h2c),
				func(t *testing.T) { check(t, w, w.bareClient(t, h2), h2, h2c) })
		}
	}
}

func TestTrailers(t *testing.T) {
	everyWay(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Trailer", "X-End")
		if r.URL.Path == "/body" {
			fmt.Fprint(w, "body")
		}
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-End", "yes")
		w.Header().Set(http.TrailerPrefix+"X-Unannounced", "also")
		w.Header().Set(http.TrailerPrefix+"X-Got", r.Trailer.Get("X-Sent"))
	}, func(t *testing.T, w *road, c *http.Client, _, _ bool) {
		for _, path := range []string{"/body", "/none"} {
			r, err := http.NewRequest("POST", "https://"+host+path, io.MultiReader(strings.NewReader("up")))
			if err != nil {
				t.Fatal(err)
			}
			r.Trailer = http.Header{"X-Sent": {"by the client"}}
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if err != nil || res.Trailer.Get("X-End") != "yes" || res.Trailer.Get("X-Unannounced") != "also" ||
				res.Trailer.Get("X-Got") != "by the client" {
				t.Errorf("%s: %v, trailers %v", path, err, res.Trailer)
			}
		}
	})
}

// Both sides speak at once: the app answers each line before it has the next.
func TestFullDuplex(t *testing.T) {
	everyWay(t, func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		w.WriteHeader(http.StatusOK)
		_ = rc.Flush()
		for in := bufio.NewScanner(r.Body); in.Scan(); {
			fmt.Fprintln(w, "echo", in.Text())
			_ = rc.Flush()
		}
	}, func(t *testing.T, w *road, c *http.Client, _, _ bool) {
		out, in := io.Pipe()
		r, err := http.NewRequest("POST", "https://"+host+"/", out)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		lines := bufio.NewReader(res.Body)
		for i := range 5 {
			fmt.Fprintln(in, i)
			if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", i) {
				t.Fatalf("line %d: %q, %v", i, line, err)
			}
		}
		_ = in.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("the end: %q, %v", rest, err)
		}
	})
}

// The head of a stream is there before its first event, and each event before the next.
func TestEvents(t *testing.T) {
	next := make(chan bool)
	everyWay(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_ = http.NewResponseController(w).Flush()
			<-next
			fmt.Fprintf(w, "data: %d\n", i)
		}
	}, func(t *testing.T, w *road, c *http.Client, _, _ bool) {
		res, err := c.Get("https://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		in := bufio.NewReader(res.Body)
		for i := range 3 {
			next <- true
			if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("event %d: %q, %v", i, line, err)
			}
		}
	})
}

func TestEarlyHints(t *testing.T) {
	everyWay(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		fmt.Fprint(w, "page")
	}, func(t *testing.T, w *road, c *http.Client, _, _ bool) {
		var hints []string
		r, err := http.NewRequest("GET", "https://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r = r.WithContext(httptrace.WithClientTrace(t.Context(),
			&httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
				return nil
			}}))
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != "page" || len(hints) != 1 || hints[0] != "103 </a.css>" || res.Header.Get("Link") != "" {
			t.Errorf("%q, hints %q, head %v", body, hints, res.Header)
		}
	})
}

// What the app does not say of its answer is not made up on the way.
func TestNothingIsGuessed(t *testing.T) {
	everyWay(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		w.Header()["Date"] = nil
		fmt.Fprintf(w, "<html>%q %q", r.URL.RawQuery, r.Header["User-Agent"])
	}, func(t *testing.T, w *road, c *http.Client, _, _ bool) {
		r, err := http.NewRequest("GET", "https://"+host+"/?a;b=%zz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User-Agent", "")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != `<html>"a;b=%zz" []` || res.Header.Get("Content-Type") != "" {
			t.Errorf("%s, head %v", body, res.Header)
		}
	})
}

// The app decides whether the client sends its body.
func TestContinue(t *testing.T) {
	w := newRoad(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.Header().Set("Connection", "close")
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "got %s", b)
	}))
	for path, want := range map[string]string{"/no": "401", "/yes": "100"} {
		c, in := w.dial(t)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n", path, host)
		res, err := http.ReadResponse(in, nil)
		if err != nil || !strings.HasPrefix(res.Status, want) {
			t.Errorf("%s: %v, %v", path, res, err)
			continue
		}
		if want != "100" {
			continue
		}
		fmt.Fprint(c, "body")
		if res, err = http.ReadResponse(in, nil); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); err != nil || string(b) != "got body" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	everyWay(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, " ", err)
	}, func(t *testing.T, w *road, c *http.Client, _, h2c bool) {
		const limit = 32 << 20
		for _, tt := range []struct {
			size, announced int64
			code            int
		}{{limit, limit, 200}, {limit + 1, limit + 1, 413}, {limit, -1, 200}, {limit + 1, -1, 413}} {
			if h2c {
				tt.code = 200
			}
			r, err := http.NewRequest("POST", "https://"+host+"/", io.LimitReader(zeros{}, tt.size))
			if err != nil {
				t.Fatal(err)
			}
			r.ContentLength = tt.announced
			res, err := c.Do(r)
			if err != nil {
				t.Fatalf("%+v: %v", tt, err)
			}
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			want := fmt.Sprint(tt.size, " <nil>")
			if tt.code == 413 {
				want = "Your client issued a request that was too large."
			}
			if res.StatusCode != tt.code || !strings.Contains(string(b), want) {
				t.Errorf("%+v: %d %.300s", tt, res.StatusCode, b)
			}
		}
	})
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestWebSocket(t *testing.T) {
	w := newRoad(t, false, websocket.Handler(func(c *websocket.Conn) {
		for text := ""; websocket.Message.Receive(c, &text) == nil; {
			_ = websocket.Message.Send(c, text)
		}
	}))
	bare, err := net.Dial("tcp", w.plain)
	if err != nil {
		t.Fatal(err)
	}
	secure, _ := w.dial(t)
	for scheme, c := range map[string]net.Conn{"wss": secure, "ws": bare} {
		config, err := websocket.NewConfig(scheme+"://"+host+"/", "https://"+host+"/")
		if err != nil {
			t.Fatal(err)
		}
		ws, err := websocket.NewClient(config, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"knock", strings.Repeat("who is there? ", 10_000)} {
			if err := websocket.Message.Send(ws, text); err != nil {
				t.Fatal(err)
			}
			var got string
			if err := websocket.Message.Receive(ws, &got); err != nil || got != text {
				t.Fatalf("%s: echo of %d bytes: %d, %v", scheme, len(text), len(got), err)
			}
		}
		_ = ws.Close()
		if r := <-w.records; r.Request.Status != 101 || r.Request.ResponseSize < 140_000 {
			t.Errorf("%s: record: %+v", scheme, r)
		}
	}
	if w.open != 0 {
		t.Errorf("%d leases are out", w.open)
	}
}

// A socket that is open is a request: it ends with the request's time.
func TestWebSocketsEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(io.Discard, c) })}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	w := roadTo(t, false, l.Addr().String(), 1)
	config, err := websocket.NewConfig("wss://"+host+"/", "https://"+host+"/")
	if err != nil {
		t.Fatal(err)
	}
	c, _ := w.dial(t)
	ws, err := websocket.NewClient(config, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, ws); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("it is open still: %v", err)
	}
	if r := <-w.records; r.Request.Status != 101 || !strings.Contains(r.Text, "maximum request timeout") {
		t.Errorf("record: %+v", r)
	}
}

// A client that stops in the middle of its body holds nothing beyond the deadline, and one that leaves tells the app.
func TestHalfABody(t *testing.T) {
	read := make(chan error, 1)
	w := newRoad(t, false, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	}))
	c, _ := w.dial(t)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n\r\nhalf", host)
	_ = c.Close()
	if err := <-read; err == nil {
		t.Error("the app took half a body for all of it")
	}
	if r := <-w.records; r.Request.Status != 499 {
		t.Errorf("record: %+v", r)
	}
}

func TestStalledBody(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it accepts, and that is all
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	w := roadTo(t, false, silent.Addr().String(), 1)
	c, in := w.dial(t)
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n\r\nhalf", host)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("%+v, %v", res, err)
	}
	if r := <-w.records; r.Request.Status != 504 {
		t.Errorf("record: %+v", r)
	}
}

// A client that takes nothing gets no more time than others, and its instance is free again.
func TestClientThatDoesNotRead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, zeros{}) }),
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	w := roadTo(t, false, l.Addr().String(), 1)
	c, _ := w.dial(t)
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	if r := <-w.records; r.Request.Status != 200 || !strings.Contains(r.Text, "maximum request timeout") {
		t.Errorf("record: %+v", r)
	}
	res, err := w.client(t, true).Get("https://" + host + "/") // its window is full soon
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if r := <-w.records; r.Request.Status != 200 || !strings.Contains(r.Text, "maximum request timeout") {
		t.Errorf("record: %+v", r)
	}
}

// An app may close connections as it likes: no request that can be sent again fails, and none that can't is sent twice.
func TestClosingApp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var posts atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				in := bufio.NewReader(c)
				for n := 0; ; n++ {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if r.Method == "POST" {
						posts.Add(1)
						return // without a word
					}
					if n == 3 {
						return // so here, on a connection that was good before
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	w := roadTo(t, false, l.Addr().String(), 60)
	c := w.client(t, false)
	for i := range 50 {
		res, err := c.Get("https://" + host + "/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 200 || string(b) != "ok" || err != nil {
			t.Fatalf("request %d: %d %q %v", i, res.StatusCode, b, err)
		}
	}
	if n := w.accepts.Load(); n > 25 {
		t.Errorf("%d connections for 50 requests: none is kept", n)
	}
	res, err := c.Post("https://"+host+"/", "text/plain", bytes.NewReader([]byte("once")))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 503 || posts.Load() != 1 {
		t.Errorf("a POST that got no answer = %d after %d attempts", res.StatusCode, posts.Load())
	}
}

func TestMalformedAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		code         int
	}{
		{"nothing", "", 503}, {"not HTTP", "SSH-2.0-OpenSSH\r\n", 503},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-Le", 503},
		{"a bad length", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 503},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 503},
		{"an endless head", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", 503},
		{"switches unasked", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 503},
		{"endless hints", strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100), 503},
		{"until the end", "HTTP/1.0 200 OK\r\n\r\nall", 200},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.WriteString(c, tt.answer)
				}
				_ = c.Close()
			}
		}()
		w := roadTo(t, false, l.Addr().String(), 60)
		res, err := w.client(t, false).Get("https://" + host + "/")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tt.code || err != nil ||
			tt.code == 503 && !strings.Contains(string(b), "the HTTP response was malformed") {
			t.Errorf("%s: %d %.100q %v", tt.name, res.StatusCode, b, err)
		}
		_ = l.Close()
	}
}
