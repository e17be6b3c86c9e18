package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"giggle/edge/http1"
)

const host = "jokes.run.app"

// serve has a Listener serve h to requests for host, and net/http whatever is passed on, with the field Passed in its
// answers. It returns the address.
func serve(t *testing.T, h http.HandlerFunc) (string, *http1.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := http1.Listen(l, http1.Config{
		Handler:     h,
		Takes:       func(h string) bool { return h == host },
		HeadTimeout: 10 * time.Second,
		IdleTimeout: 10 * time.Second,
		Log:         slog.New(slog.DiscardHandler),
	})
	rest := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Passed", "yes")
		h(w, r)
	}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = rest.Serve(front) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(front.Shutdown(ctx), rest.Shutdown(ctx)); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), front
}

// plainly has net/http serve h.
func plainly(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

func dial(t *testing.T, address string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// answer is what a client sees of an answer.
type answer struct {
	Interim []int
	Status  string
	Header  http.Header
	Length  int64
	Body    string
	Err     string
	Trailer http.Header
	Closed  bool
}

func show(a answer) string {
	if len(a.Body) > 100 {
		a.Body = fmt.Sprintf("%d bytes", len(a.Body))
	}
	return fmt.Sprintf("%+v", a)
}

// ask sends a request and reads the answer, and whether the connection ends with it.
func ask(t *testing.T, address, request string) (a answer) {
	t.Helper()
	c, br := dial(t, address)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			a.Err, a.Closed = "no answer", true
			return a
		}
		if res.StatusCode < 200 {
			a.Interim = append(a.Interim, res.StatusCode)
			if res.Header.Get("Link") == "" {
				t.Error("an interim answer without its field")
			}
			continue
		}
		body, err := io.ReadAll(res.Body)
		a.Status, a.Header, a.Length, a.Body, a.Trailer = res.Status, res.Header, res.ContentLength, string(body), res.Trailer
		if err != nil {
			a.Err = err.Error()
		}
		break
	}
	if a.Header.Get("Date") == "" {
		t.Error("an answer without a date")
	}
	delete(a.Header, "Date")
	// One more request tells whether the connection goes on.
	_, err := fmt.Fprintf(c, "GET /more HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	if err == nil {
		_, err = br.ReadByte()
	}
	a.Closed = err != nil
	return a
}

// What a handler says is answered as net/http would, but for a Content-Type that the handler doesn't say.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	long := strings.Repeat("knock ", 20_000)
	for name, h := range map[string]http.HandlerFunc{
		"nothing":           func(http.ResponseWriter, *http.Request) {},
		"a status":          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) },
		"an unknown status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(599) },
		"a status twice": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			w.WriteHeader(http.StatusBadGateway)
		},
		"no content":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"not modified": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
		"body where none may be": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			_, err := w.Write([]byte("x"))
			if !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		},
		"short": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") },
		"in parts": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "in ")
			_, _ = io.WriteString(w, "parts")
		},
		"long": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, long) },
		"long parts": func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = io.WriteString(w, long[:5000])
			}
		},
		"long and announced": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(long)))
			_, _ = io.WriteString(w, long)
		},
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			_, _ = io.WriteString(w, "abc")
			if _, err := io.WriteString(w, "d"); !errors.Is(err, http.ErrContentLength) {
				panic(err)
			}
		},
		"too little": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5")
			_, _ = io.WriteString(w, "abc")
		},
		"flushed": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "b")
		},
		"flushed first": func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "b")
		},
		"fields": func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h["Set-Cookie"] = []string{"b=2", "a=1"}
			h["X-Split"] = []string{"a\r\nX-Injected: b\n\nc"}
			h["Bad Name"] = []string{"x"}
			h["X-Empty"] = []string{""}
			h["X-None"] = nil
			h["Date"] = []string{"Thu, 26 Nov 2026 10:00:00 GMT"}
			_, _ = io.WriteString(w, "x")
		},
		"goodbye": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			_, _ = io.WriteString(w, "bye")
		},
		"early hints": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			w.Header().Del("Link")
			_, _ = io.WriteString(w, "late")
		},
		"trailers": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-End, X-Missing")
			_, _ = io.WriteString(w, "body")
			_ = http.NewResponseController(w).Flush()
			w.Header().Set("X-End", "yes")
			w.Header().Set(http.TrailerPrefix+"X-Also", "yes")
		},
		"trailers without a body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-End")
			w.WriteHeader(http.StatusOK)
			w.Header().Set("X-End", "yes")
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, long)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"cut off first": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"echo": func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			fmt.Fprint(w, r.Method, r.URL, r.Host, r.ContentLength, string(b), err, r.Header)
		},
	} {
		typed := func(w http.ResponseWriter, r *http.Request) {
			if w.Header()["Content-Type"] = nil; r.URL.Path == "/more" {
				return
			}
			h(w, r)
		}
		ours, _ := serve(t, typed)
		theirs := plainly(t, typed)
		for _, line := range []string{
			"GET / HTTP/1.1\r\n\r\n", "HEAD / HTTP/1.1\r\n\r\n", "GET /a?b=%zz HTTP/1.1\r\nConnection: close\r\n\r\n",
			"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
			"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
		} {
			request := strings.Replace(line, "\r\n", "\r\nHost: "+host+"\r\n", 1)
			got, want := ask(t, ours, request), ask(t, theirs, request)
			if got.Header.Get("Passed") != "" {
				t.Fatalf("%q was passed on", request)
			}
			if strings.HasPrefix(line, "POST") && name != "echo" {
				// A body that nobody reads: net/http reads it, here the connection ends.
				got.Closed, want.Closed = false, false
				got.Header.Del("Connection")
				want.Header.Del("Connection")
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %q\n got %.600s\nwant %.600s", name, request, show(got), show(want))
			}
		}
	}
}

// What isn't plain is net/http's, whatever came before on its connection, and so is all that follows.
func TestPassingOn(t *testing.T) {
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, b)
	})
	plain := "GET /plain HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	for _, tt := range []struct {
		request, body string
		status        int
	}{
		{"GET /other HTTP/1.1\r\nHost: else.run.app\r\n\r\n", "/other ", 200},
		{"POST /chunks HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "/chunks hello", 200},
		{"POST /both HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "/both hello", 200},
		{"GET /long HTTP/1.1\r\nHost: " + host + "\r\nX: " + strings.Repeat("x", 20_000) + "\r\n\r\n", "/long ", 200},
		{"GET / HTTP/1.1\r\nHost: " + host + "\r\nHost: " + host + "\r\n\r\n", "400 Bad Request", 400},
		{"GET / HTTP/1.1\r\nHost: " + host + "\r\nX : y\r\n\r\n", "400 Bad Request", 400},
		{"NONSENSE\r\n\r\n", "400 Bad Request", 400},
	} {
		for before := range 3 {
			c, br := dial(t, address)
			if _, err := io.WriteString(c, strings.Repeat(plain, before)+tt.request+plain); err != nil {
				t.Fatal(err)
			}
			for i := range before + 2 {
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					if tt.status != 400 || i != before+1 {
						t.Errorf("%q after %d: answer %d: %v", tt.request, before, i, err)
					}
					break
				}
				b, err := io.ReadAll(res.Body)
				want, body := 200, "/plain "
				if i == before {
					want, body = tt.status, tt.body
				}
				passed := res.Header.Get("Passed") == "yes"
				if err != nil || res.StatusCode != want || !strings.HasPrefix(string(b), body) ||
					(want == 200 && passed != (i >= before)) {
					t.Errorf("%.200q after %d: answer %d: %d %q, passed %t, %v", tt.request, before, i, res.StatusCode,
						b, passed, err)
				}
			}
			_ = c.Close()
		}
	}
}

// A handler hears of a client that leaves; one that stays, and sends its next request already, is answered.
func TestClientsThatLeave(t *testing.T) {
	came, left := make(chan struct{}), make(chan error, 1)
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path != "/wait" {
			return
		}
		came <- struct{}{}
		select {
		case <-r.Context().Done():
			left <- r.Context().Err()
		case <-time.After(10 * time.Second):
			left <- nil
		}
	})
	for _, request := range []string{
		"GET /wait HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"POST /wait HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 4\r\n\r\nbody",
	} {
		c, br := dial(t, address)
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n%s", host, request)
		if _, err := http.ReadResponse(br, nil); err != nil {
			t.Fatal(err)
		}
		<-came
		_ = c.Close()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("%q: the handler heard %v", request, err)
		}
	}
}

// Slow requests are watched, and the connection carries more after them.
func TestSlowRequests(t *testing.T) {
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(20 * time.Millisecond): // the app's own time
		case <-r.Context().Done():
			panic("it has not left")
		}
		fmt.Fprint(w, r.URL.Path)
	})
	c, br := dial(t, address)
	for i := range 20 {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, host)
		if i == 10 { // two at once
			fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, host)
			if res, err := http.ReadResponse(br, nil); err != nil {
				t.Fatal(err)
			} else if _, err := io.ReadAll(res.Body); err != nil {
				t.Fatal(err)
			}
		}
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(res.Body); string(b) != fmt.Sprintf("/%d", i) {
			t.Fatalf("%q", b)
		}
	}
}

// A body that the handler leaves unread does not become a request.
func TestUnreadBody(t *testing.T) {
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	hidden := "GET /hidden HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	c, br := dial(t, address)
	fmt.Fprintf(c, "POST /a HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", host, len(hidden), hidden)
	_ = c.(*net.TCPConn).CloseWrite()
	all, err := io.ReadAll(br)
	if err != nil || bytes.Contains(all, []byte("hidden")) || !bytes.Contains(all, []byte("Connection: close")) ||
		!bytes.HasSuffix(all, []byte("/a")) {
		t.Errorf("%q, %v", all, err)
	}
}

// A body that is read after its request has ended is not the next request's.
func TestLateRead(t *testing.T) {
	bodies := make(chan io.Reader, 1)
	address, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { bodies <- r.Body })
	c, br := dial(t, address)
	fmt.Fprintf(c, "POST /a HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\n\r\nhello", host)
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := (<-bodies).Read(make([]byte, 10)); err == nil {
		t.Errorf("%d bytes were read", n)
	}
}

// A listener whose owner has closed it, as an instance's end does, is no error of Shutdown's.
func TestShutdownAfterTheListenersEnd(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := http1.Listen(inner, http1.Config{
		Handler:     http.NotFoundHandler(),
		HeadTimeout: time.Second,
		IdleTimeout: time.Second,
		Log:         slog.New(slog.DiscardHandler),
	})
	if err := errors.Join(inner.Close(), l.Shutdown(t.Context())); err != nil {
		t.Error(err)
	}
}

// Shutdown ends connections without a request at once, and waits for the others.
func TestShutdown(t *testing.T) {
	came, on := make(chan struct{}), make(chan struct{})
	address, front := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			close(came)
			<-on
		}
		fmt.Fprint(w, "done")
	})
	idle, idleReader := dial(t, address)
	fmt.Fprintf(idle, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	if res, err := http.ReadResponse(idleReader, nil); err != nil {
		t.Fatal(err)
	} else if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	_, freshReader := dial(t, address)
	busy, busyReader := dial(t, address)
	fmt.Fprintf(busy, "GET /wait HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	<-came
	over := make(chan error, 1)
	go func() { over <- front.Shutdown(t.Context()) }()
	for name, r := range map[string]*bufio.Reader{"idle": idleReader, "fresh": freshReader} {
		if _, err := r.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the %s connection stays: %v", name, err)
		}
	}
	select {
	case err := <-over:
		t.Fatalf("it does not wait for a request: %v", err)
	default:
	}
	close(on)
	if b, err := io.ReadAll(busyReader); err != nil || !bytes.HasSuffix(b, []byte("done")) {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// Shutdown cuts what does not end in its time.
func TestShutdownCuts(t *testing.T) {
	came := make(chan struct{})
	address, front := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		close(came)
		<-r.Context().Done()
	})
	c, br := dial(t, address)
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	<-came
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := front.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if b, err := io.ReadAll(br); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
}
