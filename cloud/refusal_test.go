package cloud

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"giggle/artifacts"
	"giggle/resource"
	"giggle/storage"
)

// A client that sends a long body to its end before it reads anything is told why it is refused, in the protocol that
// it speaks, wherever in the body that came to light.
func TestRefusalsAreHeardAfterTheBody(t *testing.T) {
	c := newCloudWith(t, func(cfg *Config) { cfg.Quotas = map[string]int{"stored-bytes": 3 << 20} })
	ctx := t.Context()
	if _, err := c.storage.CreateBucket(ctx, storage.Bucket{Name: "a-small-bucket", Project: "giggle"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.artifacts.CreateRepository(ctx, artifacts.Repository{
		Name:   resource.Repository("giggle", "europe-north1", "docker"),
		Format: artifacts.Docker,
	}); err != nil {
		t.Fatal(err)
	}
	token, _, err := c.identity.AccessTokenFor(c.identity.Owner(), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	listen := func(serve func(net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = serve(l) }()
		t.Cleanup(func() { _ = l.Close() })
		return l.Addr().String()
	}
	plain := listen(func(l net.Listener) error { return c.server.ServePlain(l, nil) })
	secure := listen(func(l net.Listener) error { return c.server.ServeTLS(l, nil) })
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.ca.CertPEM()) {
		t.Fatal("the CA has no certificate")
	}
	const size = 50 << 20
	const object, registry = "storage.googleapis.com", "europe-north1-docker.pkg.dev"

	// raw sends all of a request, then reads.
	raw := func(t *testing.T, conn net.Conn, method, host, path, credential string, chunked bool) (int, string) {
		t.Helper()
		defer conn.Close()
		length, part := fmt.Sprintf("Content-Length: %d", size), make([]byte, 1<<20)
		if chunked {
			length = "Transfer-Encoding: chunked"
		}
		if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n%s\r\n\r\n", method,
			path, host, credential, length); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < size; n += len(part) {
			frame := part
			if chunked {
				frame = append(append([]byte(fmt.Sprintf("%x\r\n", len(part))), part...), "\r\n"...)
			}
			if _, err := conn.Write(frame); err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
		if chunked {
			if _, err := io.WriteString(conn, "0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	dialTLS := func(ctx context.Context, host string, protocols ...string) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: roots, NextProtos: protocols}}
		return d.DialContext(ctx, "tcp", secure)
	}
	begin := func() string { // of an upload to the repository
		client := &http.Client{
			Transport: &http.Transport{
				DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return dialTLS(ctx,
						registry)
				},
			},
		}
		defer client.CloseIdleConnections()
		req, _ := http.NewRequestWithContext(ctx, "POST", "https://"+registry+"/v2/giggle/docker/image/blobs/uploads/",
			nil)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.Header.Get("Location")
	}
	const media = "/upload/storage/v1/b/a-small-bucket/o?uploadType=media&name=x"
	for _, tt := range []struct {
		what, method, host string
		path               func() string
		credential         string
		status             int
		said               string
	}{
		{"an object", "POST", object, func() string { return media }, token, http.StatusRequestEntityTooLarge, `"quotaExceeded"`},
		{"an object of nobody", "POST", object, func() string { return media }, "ya29.garbage", http.StatusUnauthorized, `"code": 401`},
		{"no bucket", "POST", object, func() string {
			return strings.Replace(media, "a-small", "no-such",
				1)
		}, token, http.StatusNotFound, `"code": 404`},
		{"no route", "POST", object, func() string { return "/upload/nowhere" }, token, http.StatusNotFound, `"code": 404`},
		{"a chunk of a blob", "PATCH", registry, begin, token, http.StatusForbidden, `"DENIED"`},
		{"a chunk of nobody", "PATCH", registry, begin, "ya29.garbage", http.StatusUnauthorized, `"UNAUTHORIZED"`},
		{"a manifest", "PUT", registry, func() string { return "/v2/giggle/docker/image/manifests/latest" }, token, http.StatusRequestEntityTooLarge, `"MANIFEST_TOO_LARGE"`},
	} {
		for _, chunked := range []bool{false, true} {
			check := func(t *testing.T, status int, body string) {
				t.Helper()
				if status != tt.status || !strings.Contains(body, tt.said) {
					t.Errorf("%d %s, want %d and %s", status, body, tt.status, tt.said)
				}
			}
			name := fmt.Sprintf("%s, chunked %t", tt.what, chunked)
			t.Run(name+", plain", func(t *testing.T) {
				conn, err := net.Dial("tcp", plain)
				if err != nil {
					t.Fatal(err)
				}
				status, body := raw(t, conn, tt.method, "localhost", "/_/"+tt.host+tt.path(), tt.credential, chunked)
				check(t, status, body)
			})
			t.Run(name+", TLS", func(t *testing.T) {
				conn, err := dialTLS(t.Context(), tt.host, "http/1.1")
				if err != nil {
					t.Fatal(err)
				}
				status, body := raw(t, conn, tt.method, tt.host, tt.path(), tt.credential, chunked)
				check(t, status, body)
			})
			t.Run(name+", HTTP/2", func(t *testing.T) {
				client := &http.Client{Transport: &http.Transport{
					ForceAttemptHTTP2: true,
					DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return dialTLS(ctx,
							tt.host, "h2")
					},
				}}
				defer client.CloseIdleConnections()
				var in io.Reader = bytes.NewReader(make([]byte, size))
				if chunked {
					in = io.MultiReader(in)
				}
				req, err := http.NewRequestWithContext(t.Context(), tt.method, "https://"+tt.host+tt.path(), in)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+tt.credential)
				start := time.Now()
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err != nil || res.ProtoMajor != 2 {
					t.Fatalf("HTTP/%d: %v", res.ProtoMajor, err)
				}
				if took := time.Since(start); took > 4*time.Second {
					t.Errorf("the answer took %v", took)
				}
				check(t, res.StatusCode, string(b))
			})
		}
	}
}
