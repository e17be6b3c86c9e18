package engine_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"giggle/engine"
)

// The platform's sockets answer inside, each instance's its own, by name and over TLS.
func TestSockets(t *testing.T) {
	ca, leaf := certificate(t, "run.googleapis.com")
	eachRuntime(t, func(t *testing.T, e *engine.Engine) {
		spec := func(id string) engine.Spec {
			s := serving(id)
			s.Files = []engine.File{
				{Path: "/etc/resolv.conf", Data: []byte("nameserver 169.254.169.254\n")},
				{Path: "/etc/ssl/certs/ca-certificates.crt", Data: ca},
			}
			answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "you are "+id+", asking "+r.Host+" with "+r.Proto)
			})
			s.Sockets = engine.Sockets{
				Metadata: func(l net.Listener) { http.Serve(l, answer) },
				Edge: func(l net.Listener) {
					srv := &http.Server{Handler: answer, TLSConfig: &tls.Config{Certificates: []tls.Certificate{leaf}}}
					srv.ServeTLS(l, "", "")
				},
				DNS: func(c net.PacketConn, l net.Listener) {
					go dns.ActivateAndServe(l, nil, dns.HandlerFunc(resolve))
					dns.ActivateAndServe(nil, c, dns.HandlerFunc(resolve))
				},
			}
			return s
		}
		i := start(t, e, spec("one"))
		other := start(t, e, spec("two"))
		for _, tc := range []struct {
			i         *engine.Instance
			url, want string
		}{
			{i, "http://169.254.169.254/whoami", "you are one, asking 169.254.169.254 with HTTP/1.1"},
			{other, "http://169.254.169.254/whoami", "you are two, asking 169.254.169.254 with HTTP/1.1"},
			{i, "http://metadata.google.internal/", "you are one, asking metadata.google.internal with HTTP/1.1"},
			{i, "https://run.googleapis.com/", "you are one, asking run.googleapis.com with HTTP/2.0"},
		} {
			if got := mustGet(t, tc.i, "/get", "url", tc.url); got != tc.want {
				t.Errorf("%s: %q, want %q", tc.url, got, tc.want)
			}
		}
		if _, err := get(t, i, 8080, "/lookup", "name", "nowhere.example"); err == nil ||
			!strings.Contains(err.Error(), "no such host") {
			t.Errorf("an unknown name: %v", err)
		}

		bare := start(t, e, serving("bare"))
		if _, err := get(t, bare, 8080, "/get", "url", "http://169.254.169.254/"); err == nil ||
			!strings.Contains(err.Error(), "connection refused") {
			t.Errorf("sockets that were not asked for: %v", err)
		}
		// An app may listen on the platform's well-known ports; and one on the loopback only is not reached.
		s := spec("eighty")
		s.Args = append(s.Args, ":80")
		s.User = "joker"
		if got, err := get(t, start(t, e, s), 80, "/get", "url", "http://169.254.169.254/"); err != nil ||
			!strings.HasPrefix(got, "you are eighty") {
			t.Errorf("an app on port 80: %q, %v", got, err)
		}
		s = spec("shy")
		s.Args = append(s.Args, "127.0.0.1:8080")
		shy := start(t, e, s)
		for {
			got, err := shy.Listening()
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 1 && got[0].String() == "127.0.0.1:8080" {
				break
			}
			if len(got) > 0 {
				t.Fatalf("listening = %v", got)
			}
			select {
			case <-shy.Done():
				t.Fatal("the instance ended")
			case <-time.After(time.Millisecond):
			}
		}
		if c, err := shy.Dial(t.Context(), 8080); err == nil {
			c.Close()
			t.Error("an app on 127.0.0.1 was reached")
		}
	})
}

// A port of the host's leads there from within, also where the app has the same one; and its connections end with the
// instance.
func TestHostPorts(t *testing.T) {
	e := open(t, "")
	ended := make(chan error, 1)
	s := serving("reaching")
	s.Sockets.Host = map[uint16]func(net.Listener){
		8080: func(l net.Listener) {
			http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "the host's")
			}))
		},
		5432: func(l net.Listener) {
			_, err := l.Accept()
			if err == nil {
				_, err = l.Accept()
			}
			ended <- err
		},
	}
	s.Sockets.Databases = func(l net.Listener) {
		http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
		}))
	}
	i := start(t, e, s)
	if got := mustGet(t, i, "/get", "url", "http://169.254.71.9:3307/"); got != "169.254.71.9:3307" {
		t.Errorf("a connection to a database's address is one to %q", got)
	}
	if got := mustGet(t, i, "/get", "url", "http://169.254.169.253:8080/"); got != "the host's" {
		t.Errorf("the host's 8080 answers %q", got)
	}
	if _, err := get(t, i, 8080, "/get", "url", "http://169.254.169.253:8081/"); err == nil ||
		!strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a port that was not allowed: %v", err)
	}
	other := start(t, e, serving("other"))
	if _, err := get(t, other, 8080, "/get", "url", "http://169.254.169.253:8080/"); err == nil ||
		strings.Contains(err.Error(), "the host's") {
		t.Errorf("an instance without ports of the host: %v", err)
	}
	i.Stop(t.Context(), 0)
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("after the instance's end its listener says %v", err)
		}
	case <-time.After(patience):
		t.Error("a listener outlives its instance")
	}
}

func resolve(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	switch q := r.Question[0]; {
	case q.Name != "run.googleapis.com." && q.Name != "metadata.google.internal.":
		m.Rcode = dns.RcodeNameError
	case q.Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
			A:   net.IPv4(169, 254, 169, 254),
		}}
	}
	w.WriteMsg(m)
}

// certificate returns a root in PEM and a leaf for the name that it signed.
func certificate(t *testing.T, name string) ([]byte, tls.Certificate) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rootKey, leafKey := key(), key()
	root := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test"},
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		DNSNames:     []string{name},
		NotAfter:     time.Now().Add(time.Hour),
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}),
		tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
}
