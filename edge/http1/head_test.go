package http1

import (
	"bufio"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

var heads = []struct {
	head  string
	plain bool
}{
	{"GET / HTTP/1.1\r\nHost: a.run.app\r\n\r\n", true},
	{"GET /a%2Fb/../c?q=%zz&%41 HTTP/1.1\r\nHost: a.run.app:443\r\nAccept: */*\r\naccept: text/html\r\nX-Empty:\r\nX-Tab: \t a\tb \t\r\n\r\n", true},
	{"POST //x?y HTTP/1.1\r\nContent-Length: 12\r\nhost: A.run.app\r\nConnection: Keep-Alive\r\n\r\n", true},
	{"DELETE /? HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\nCookie: a=b; c=\"\xff\"\r\n\r\n", true},
	{"GET / HTTP/1.0\r\nHost: a\r\n\r\n", false},
	{"get / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", false},
	{"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", false},
	{"PRI * HTTP/2.0\r\n\r\n", false},
	{"GET / HTTP/1.1\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", false},
	{"GET / HTTP/1.1\r\n Host: a\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", false},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\n", true}, // another field
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Forwarded-For\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", false},
	{"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", maxFields) + "\r\n", false},
}

func TestHeads(t *testing.T) {
	for _, tt := range heads {
		if got := parseHead(tt.head); (got != nil) != tt.plain {
			t.Errorf("%q: plain = %t", tt.head, got != nil)
		}
		agree(t, tt.head)
	}
}

// FuzzHead holds that what is taken for a plain request is for net/http the same request, with the same body.
func FuzzHead(f *testing.F) {
	for _, tt := range heads {
		f.Add(tt.head)
	}
	f.Fuzz(agree)
}

func agree(t *testing.T, head string) {
	end := strings.Index(head, "\r\n\r\n")
	if end < 0 {
		return
	}
	head = head[:end+4]
	got := parseHead(head)
	if got == nil {
		return
	}
	rest := strings.NewReader(head + strings.Repeat("x", 64))
	br := bufio.NewReader(rest)
	want, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("%q is plain, and net/http says %v", head, err)
	}
	for what, pair := range map[string][2]any{
		"method": {got.Method, want.Method}, "URL": {got.URL, want.URL}, "target": {got.RequestURI, want.RequestURI},
		"host":   {got.Host, want.Host},
		"header": {got.Header, want.Header}, "length": {got.ContentLength, want.ContentLength},
		"close":    {got.Close, want.Close},
		"protocol": {got.Proto, want.Proto}, "encoding": {len(got.TransferEncoding), len(want.TransferEncoding)},
		"trailer": {len(got.Trailer), len(want.Trailer)},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Fatalf("%q: %s is %#v, and for net/http %#v", head, what, pair[0], pair[1])
		}
	}
	if got.ContentLength <= 64 {
		body, err := io.ReadAll(want.Body)
		if err != nil || int64(len(body)) != got.ContentLength {
			t.Fatalf("%q: a body of %d bytes, and for net/http %d, %v", head, got.ContentLength, len(body), err)
		}
	}
}
