package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// exchange sends one request as it is written, without what a client's library makes of it.
func exchange(t *testing.T, address, request string) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// An app sees the target that the client sent, byte for byte.
func TestTargetsAreUntouched(t *testing.T) {
	_, _, front := start(t, true, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RequestURI) })
	for _, target := range []string{"/", "/a|b/é", "/a%7Cb/%C3%A9", "/%41", "/a//b", "/a/../b", "/a/./b/", "/a;b=c,d",
		"/a?x=%zz&y=|&z={}", "/a?", "/a?b?c", `/"q"`, "/[x]^`{y}", "/a%2Fb%2fc", "/a%20b+c", "/a#b", "/:x@y!$&'()*"} {
		res := exchange(t, front.Listener.Addr().String(), "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		if got, err := io.ReadAll(res.Body); err != nil || string(got) != target {
			t.Errorf("%s: the app saw %q, %v (%d)", target, got, err, res.StatusCode)
		}
	}
}

// What no service gets to see is answered by the front, whoever asks.
func TestFrontRefusals(t *testing.T) {
	for _, public := range []bool{true, false} {
		_, _, front := start(t, public, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the app") })
		for _, tt := range []struct {
			method, target string
			want           int
		}{
			{"GET", "/healthz", 404}, {"HEAD", "/healthz", 404}, {"POST", "/healthz?x=y", 404}, {"GET", "/%68ealthz", 404},
			{"GET", "/eventlog", 404}, {"GET", "/_ah/", 404}, {"GET", "/_ah/health", 404}, {"TRACE", "/", 405},
			{"TRACE", "/healthz", 405},
			{"GET", "/healthz/", 200}, {"GET", "/health", 200}, {"GET", "/a/healthz", 200}, {"GET", "/eventlog/x", 200},
			{"GET", "/_ahx", 200}, {"GET", "/readyz", 200}, {"GET", "/_ah", 200}, {"OPTIONS", "/", 200},
		} {
			res := exchange(t, front.Listener.Addr().String(),
				tt.method+" "+tt.target+" HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 0\r\n\r\n")
			want := tt.want
			if want == 200 && !public {
				want = 403
			}
			if res.StatusCode != want {
				t.Errorf("public %v: %s %s = %d, want %d", public, tt.method, tt.target, res.StatusCode, want)
			}
		}
	}
}

// An answer that sets a cookie goes into no shared cache.
func TestCookiesAreNotCached(t *testing.T) {
	var header http.Header
	_, _, front := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
	})
	for _, tt := range []struct{ cookie, cache, want string }{
		{"a=b", "public", "private"},
		{"a=b", "public, max-age=60", "private"},
		{"a=b", "max-age=60", "private"},
		{"a=b", "PUBLIC,s-maxage=9", "private"},
		{"a=b", "private, max-age=60", "private, max-age=60"},
		{"a=b", "no-store", "no-store"},
		{"a=b", "public, no-cache", "public, no-cache"},
		{"a=b", `no-cache="set-cookie", public`, `no-cache="set-cookie", public`},
		{"a=b", "", ""},
		{"", "public, max-age=60", "public, max-age=60"},
		{"", "", ""},
	} {
		header = http.Header{"Expires": {"Thu, 01 Jan 2099 00:00:00 GMT"}}
		if tt.cookie != "" {
			header["Set-Cookie"] = []string{tt.cookie}
		}
		if tt.cache != "" {
			header["Cache-Control"] = []string{tt.cache}
		}
		res, _ := get(t, front, host)
		got := strings.Join(res.Header["Cache-Control"], "; ")
		kept := res.Header.Get("Expires") == header.Get("Expires")
		if got != tt.want || res.Header.Get("Set-Cookie") != tt.cookie || kept != (tt.want == tt.cache) {
			t.Errorf("cookie %q, cache %q: %q, want %q; Expires %s", tt.cookie, tt.cache, got, tt.want,
				res.Header.Get("Expires"))
		}
	}
}

// An answer of HTTP/1 whose length is said is 32 MiB at most; one that is streamed is as long as it likes.
func TestResponseSize(t *testing.T) {
	const most = 32 << 20
	_, _, front := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		var n, length int
		if _, err := fmt.Sscanf(r.URL.RawQuery, "%d,%d", &n, &length); err != nil {
			t.Error(err)
		}
		if length > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(length))
		}
		if _, err := io.CopyN(w, zeros{}, int64(n)); err != nil {
			return // the front has gone
		}
	})
	for _, tt := range []struct {
		method    string
		n, length int
		want      int
	}{
		{"GET", most, most, 200}, {"GET", most + 1, most + 1, 500}, {"GET", most + 1, 0, 200}, {"HEAD", 0, most + 1, 200},
		{"POST", most + 1, most + 1, 500}, {"GET", 5, 5, 200},
	} {
		r, err := http.NewRequest(tt.method, fmt.Sprintf("%s/?%d,%d", front.URL, tt.n, tt.length), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tt.want || tt.want == 200 && (err != nil || n != int64(tt.n)) {
			t.Errorf("%s of %d, said %d: %d with %d bytes, %v, want %d", tt.method, tt.n, tt.length, res.StatusCode, n, err,
				tt.want)
		}
	}
}
