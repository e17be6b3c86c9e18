package edge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"giggle/edge"
)

func newCA(t *testing.T, dir string, now func() time.Time) *edge.CA {
	t.Helper()
	ca, err := edge.OpenCA(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestCAKeepsItsKey(t *testing.T) {
	dir := t.TempDir()
	first := newCA(t, dir, time.Now)
	if again := newCA(t, dir, time.Now); !bytes.Equal(first.CertPEM(), again.CertPEM()) {
		t.Error("a restart made another CA")
	}
	for file, want := range map[string]os.FileMode{edge.KeyFile: 0o600, edge.CertFile: 0o644} {
		st, err := os.Stat(filepath.Join(dir, file))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v", file, st, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, edge.CertFile)); err != nil { // a first start that was cut off
		t.Fatal(err)
	}
	newCA(t, dir, time.Now)
	if err := os.Remove(filepath.Join(dir, edge.KeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := edge.OpenCA(dir, time.Now); err == nil {
		t.Error("a lost key was replaced without a word")
	}
	bundle := first.Bundle([]byte("system"))
	if !bytes.HasPrefix(bundle, []byte("system\n-----BEGIN")) || !bytes.Equal(first.Bundle(bundle), bundle) {
		t.Errorf("bundle: %s", bundle)
	}
}

// TestNameConstraints checks with crypto/x509 that the root itself refuses names outside the list, whatever a stolen
// key signs.
func TestNameConstraints(t *testing.T) {
	ca := newCA(t, t.TempDir(), time.Now)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM())
	block, _ := pem.Decode(ca.CertPEM())
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !root.PermittedDNSDomainsCritical || !root.MaxPathLenZero {
		t.Error("the constraints are not critical, or the root may have sub-CAs")
	}
	for _, name := range []string{
		"run.googleapis.com", "europe-north1-run.googleapis.com", "good---jokes-abc-lz.a.run.app",
		"europe-north1-docker.pkg.dev", "gcr.io", "eu.gcr.io",
		"accounts.google.com", "console.cloud.google.com", "metadata.google.internal", "source.developers.google.com",
		"registry-1.docker.io",
		"registry.ollama.ai", "proxy.golang.org", "sum.golang.org", "registry.npmjs.org", "pypi.org",
		"files.pythonhosted.org", "deb.debian.org",
		"github.com", "localhost", "jokes.localhost", "x.giggle.test", "1.cloudbuild-logs.googleusercontent.com",
		"169.254.169.254", "127.71.71.1", "::1",
	} {
		leaf, err := ca.Leaf(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		host := name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"example.com", "google.com", "www.google.com", "evilgoogleapis.com", "10.0.0.1",
		"169.254.169.253", "com", ""} {
		if _, err := ca.Leaf(name); err == nil {
			t.Errorf("a leaf for %q", name)
		}
	}
}

func TestLeavesAreCachedAndRenewed(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ca := newCA(t, t.TempDir(), func() time.Time { return now })
	leaf := func() *tls.Certificate {
		l, err := ca.Leaf("run.googleapis.com")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a := leaf()
	now = now.Add(59 * 24 * time.Hour)
	if leaf() != a {
		t.Error("a good leaf was minted again")
	}
	now = now.Add(2 * 24 * time.Hour)
	b := leaf()
	if b == a || !b.Leaf.NotAfter.After(now.Add(80*24*time.Hour)) {
		t.Error("a leaf near its end was kept")
	}
	for i := range 2000 {
		if _, err := ca.Leaf(fmt.Sprintf("s%d.a.run.app", i)); err != nil {
			t.Fatal(err)
		}
	}
	if leaf() == b {
		t.Error("the cache has no bound")
	}
}

// tell answers with who was asked and how.
func tell(who string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := r.Context().Value(callerKey{}).(string)
		w.Header().Set("Base", edge.Base(r))
		fmt.Fprintf(w, "%s %s %s %s %s", who, r.Proto, r.Host, r.URL.EscapedPath(), caller)
	})
}

type callerKey struct{}

func newRouter() *edge.Router {
	return edge.NewRouter(edge.Routes{
		API: map[string]http.Handler{
			"run.googleapis.com": tell("run"), "oauth2.googleapis.com": tell("oauth2"),
			"accounts.google.com": tell("accounts"), "registry.ollama.ai": tell("ollama"),
		},
		Service:  tell("service"),
		Registry: tell("registry"),
		Storage:  tell("storage"),
		Console:  tell("console"),
	})
}

type front struct {
	*edge.Server
	ca                 *edge.CA
	tls, plain, port80 string
	pool               *x509.CertPool
}

func start(t *testing.T, cfg edge.Config, mark edge.ConnContext) *front {
	t.Helper()
	ca := newCA(t, t.TempDir(), time.Now)
	cfg.CA, cfg.Router = ca, newRouter()
	f := &front{Server: edge.NewServer(cfg), ca: ca, pool: x509.NewCertPool()}
	f.pool.AppendCertsFromPEM(ca.CertPEM())
	done := make(chan error, 3)
	listen := func(serve func(net.Listener) error) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- serve(l) }()
		return l.Addr().String()
	}
	f.tls = listen(func(l net.Listener) error { return f.ServeTLS(l, mark) })
	f.plain = listen(func(l net.Listener) error { return f.ServePlain(l, nil) })
	f.port80 = listen(f.ServeRedirect)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	})
	return f
}

// client dials every name at the TLS listener.
func (f *front) client(t *testing.T, h2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetHTTP2(h2)
	tr := &http.Transport{
		Protocols: p, TLSClientConfig: &tls.Config{RootCAs: f.pool},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", f.tls)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func get(t *testing.T, c *http.Client, u, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest("GET", u, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestRouting(t *testing.T) {
	f := start(t, edge.Config{}, nil)
	for _, h2 := range []bool{false, true} {
		c, proto := f.client(t, h2), "HTTP/1.1"
		if h2 {
			proto = "HTTP/2.0"
		}
		for u, want := range map[string]string{
			"https://run.googleapis.com/v1/a%2Fb": "run " + proto + " run.googleapis.com /v1/a%2Fb ",
			"https://europe-north1-run.googleapis.com/v1": "run " + proto +
				" europe-north1-run.googleapis.com /v1 ",
			"https://run.europe-north1.rep.googleapis.com/": "run " + proto +
				" run.europe-north1.rep.googleapis.com / ",
			"https://accounts.google.com/o":  "accounts " + proto + " accounts.google.com /o ",
			"https://registry.ollama.ai/v2/": "ollama " + proto + " registry.ollama.ai /v2/ ",
			"https://good---jokes-abc-lz.a.run.app/": "service " + proto +
				" good---jokes-abc-lz.a.run.app / ",
			"https://europe-north1-docker.pkg.dev/v2/": "registry " + proto +
				" europe-north1-docker.pkg.dev /v2/ ",
			"https://eu.gcr.io/v2/":              "registry " + proto + " eu.gcr.io /v2/ ",
			"https://storage.googleapis.com/b/o": "storage " + proto + " storage.googleapis.com /b/o ",
			"https://my-bucket.storage.googleapis.com/o%2Fp?x=1": "storage " + proto +
				" storage.googleapis.com /my-bucket/o%2Fp ",
			"https://console.cloud.google.com/run": "console " + proto +
				" console.cloud.google.com /run ",
		} {
			if res, got := get(t, c, u, ""); got != want || res.StatusCode != 200 {
				t.Errorf("%s = %d %q, want %q", u, res.StatusCode, got, want)
			}
		}
		if res, _ := get(t, c, "https://run.googleapis.com/",
			"oauth2.googleapis.com"); res.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("a coalesced connection got %d", res.StatusCode)
		}
	}
	if res, err := f.client(t, true).Get("https://example.com/"); err == nil {
		res.Body.Close()
		t.Error("a handshake for a name that is not ours")
	}
	// An API that is not there says so in words that clients print, and not as a broken connection.
	res, got := get(t, f.client(t, true), "https://logging.googleapis.com/v2/entries:list", "")
	if res.StatusCode != http.StatusMethodNotAllowed ||
		!strings.Contains(got, "The API logging.googleapis.com is not implemented by Giggle.") ||
		!strings.Contains(got, "UNIMPLEMENTED") {
		t.Errorf("an API that is not there = %d %s", res.StatusCode, got)
	}
	// Nor is a region that isn't one an API that isn't there.
	for host, want := range map[string]string{
		"us-central1-a-run.googleapis.com": "is a zone; its region is us-central1.",
		"us-central-run.googleapis.com":    "is not a region of Google Cloud.",
		"mars-1-run.googleapis.com":        "is not a region of Google Cloud.",
		"made-up.googleapis.com":           "is not implemented by Giggle.",
	} {
		if _, got := get(t, f.client(t, true), "https://"+host+"/", ""); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %q", host, got, want)
		}
	}
	call, err := http.NewRequestWithContext(t.Context(), "POST",
		"https://logging.googleapis.com/google.logging.v2.LoggingServiceV2/ListLogEntries", nil)
	if err != nil {
		t.Fatal(err)
	}
	call.Header.Set("Content-Type", "application/grpc")
	if res, err = f.client(t, true).Do(call); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if h := res.Header; res.StatusCode != 200 || h.Get("Grpc-Status") != "12" ||
		!strings.Contains(h.Get("Grpc-Message"), "logging.googleapis.com") {
		t.Errorf("the same by gRPC = %d %v", res.StatusCode, h)
	}
}

func TestMarkedListenerAndNoSNI(t *testing.T) {
	f := start(t, edge.Config{}, func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, callerKey{}, "instance-7")
	})
	if _, got := get(t, f.client(t, true), "https://run.googleapis.com/",
		""); got != "run HTTP/2.0 run.googleapis.com / instance-7" {
		t.Errorf("got %q", got)
	}
	// A client that knows only the address gets a leaf for the address.
	if _, got := get(t, f.client(t, false), "https://127.0.0.1/_/run.googleapis.com/v1",
		""); got != "run HTTP/1.1 run.googleapis.com /v1 instance-7" {
		t.Errorf("got %q", got)
	}
}

func TestPlainEdge(t *testing.T) {
	outside := httptest.NewServer(tell("outside"))
	defer outside.Close()
	dialed := make(chan string, 16)
	f := start(t, edge.Config{Direct: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialed <- addr
		if !strings.HasPrefix(addr, "outside.test:") {
			return nil, fmt.Errorf("no route to %s", addr)
		}
		return new(net.Dialer).DialContext(ctx, network, outside.Listener.Addr().String())
	}}, nil)
	proxyURL := &url.URL{Scheme: "http", Host: f.plain}
	proxied := func(h2 bool) *http.Client {
		p := new(http.Protocols)
		p.SetHTTP1(!h2)
		p.SetHTTP2(h2)
		tr := &http.Transport{
			Proxy:           http.ProxyURL(proxyURL),
			TLSClientConfig: &tls.Config{RootCAs: f.pool},
			Protocols:       p,
		}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	rows := []struct{ how, url, host, want string }{
		{"h1", "https://run.googleapis.com/v1", "", "run HTTP/1.1 run.googleapis.com /v1 "},
		{"h2", "https://run.googleapis.com/v1", "", "run HTTP/2.0 run.googleapis.com /v1 "},
		{"h1", "http://jokes-1.europe-north1.run.app/x", "", "service HTTP/1.1 jokes-1.europe-north1.run.app /x "},
		{"h1", "http://outside.test/x", "", "outside HTTP/1.1 outside.test /x "},
		{"direct", "http://" + f.plain + "/x", "jokes.localhost:7180", "service HTTP/1.1 jokes.localhost:7180 /x "},
		{"direct", "http://" + f.plain + "/_/run.googleapis.com/v1/a%2Fb?q=1", "", "run HTTP/1.1 run.googleapis.com /v1/a%2Fb "},
		{"direct", "http://" + f.plain + "/_/b.storage.googleapis.com/o", "", "storage HTTP/1.1 storage.googleapis.com /b/o "},
		{"direct", "http://" + f.plain +
			"/_/example.com/", "",
			"{\n  \"error\": {\n    \"code\": 404,\n    \"message\": \"Giggle does not serve the host \\\"example.com\\\".\",\n    \"status\": \"NOT_FOUND\"\n  }\n}\n"},
		{"direct", "http://" + f.plain +
			"/_/127.0.0.1/_/run.googleapis.com/", "",
			"{\n  \"error\": {\n    \"code\": 404,\n    \"message\": \"Giggle does not serve the host \\\"127.0.0.1\\\".\",\n    \"status\": \"NOT_FOUND\"\n  }\n}\n"},
	}
	for _, row := range rows {
		c := map[string]*http.Client{"h1": proxied(false), "h2": proxied(true), "direct": {}}[row.how]
		if _, got := get(t, c, row.url, row.host); got != row.want {
			t.Errorf("%s %s = %q, want %q", row.how, row.url, got, row.want)
		}
	}
	for u, want := range map[string]string{
		"http://" + f.plain + "/_/run.googleapis.com/v1": "http://" + f.plain + "/_/run.googleapis.com",
		"https://run.googleapis.com/v1":                  "https://run.googleapis.com",
	} {
		c := proxied(true)
		if strings.HasPrefix(u, "http:") {
			c = &http.Client{}
		}
		if res, _ := get(t, c, u, ""); res.Header.Get("Base") != want {
			t.Errorf("base of %s = %q, want %q", u, res.Header.Get("Base"), want)
		}
	}
	if got := <-dialed; got != "outside.test:80" || len(dialed) != 0 {
		t.Errorf("dialled %s and %d more: ours must not be dialled", got, len(dialed))
	}

	for target, want := range map[string]int{
		"outside.test:443":          200,
		"nowhere.test:443":          503,
		"nosuch.googleapis.com:443": 200, // answered here, never by the real one
		"nosuch.googleapis.com:80":  403,
		"run.googleapis.com:22":     403,
		"nonsense":                  400,
		"[::1%25eth0]:443":          400,
	} {
		conn, err := net.Dial("tcp", f.plain)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
		res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: "CONNECT"})
		if err != nil || res.StatusCode != want {
			t.Errorf("CONNECT %s: %v %v, want %d", target, res, err, want)
		}
		conn.Close()
	}
}

// TestConnectTunnelCarriesBytesBothWays also covers a client that sends before the answer has come.
func TestConnectTunnelCarriesBytesBothWays(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	f := start(t, edge.Config{Direct: true, Dial: new(net.Dialer).DialContext}, nil)
	conn, err := net.Dial("tcp", f.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\nearly ", echo.Addr())
	fmt.Fprint(conn, "late")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != "early late" {
		t.Errorf("got %q %v", got, err)
	}

	closed := start(t, edge.Config{Direct: false}, nil)
	c2, err := net.Dial("tcp", closed.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	fmt.Fprintf(c2, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", echo.Addr())
	if res, err := http.ReadResponse(bufio.NewReader(c2), nil); err != nil || res.StatusCode != 403 {
		t.Errorf("with tunnels off: %v %v", res, err)
	}
}

func TestRedirect(t *testing.T) {
	f := start(t, edge.Config{}, nil)
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, _ := get(t, c, "http://"+f.port80+"/a%2Fb?c=d", "jokes-abc-lz.a.run.app")
	if res.StatusCode != 302 || res.Header.Get("Location") != "https://jokes-abc-lz.a.run.app/a%2Fb?c=d" {
		t.Errorf("%d %s", res.StatusCode, res.Header.Get("Location"))
	}
	if res, _ := get(t, c, "http://"+f.port80+"/", "evil.example"); res.StatusCode != 404 {
		t.Errorf("an open redirect: %d", res.StatusCode)
	}
}

func serveDNS(t *testing.T, cfg edge.DNSConfig) string {
	t.Helper()
	d := edge.NewDNS(cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Serve(pc, l) }()
	t.Cleanup(func() {
		d.Close()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func TestDNS(t *testing.T) {
	up := serveDNS(t, edge.DNSConfig{
		Address: netip.MustParseAddr("10.9.8.7"),
		TTL:     time.Minute,
		Owns:    func(n string) bool { return n == "example.com" },
	})
	silent, err := net.ListenPacket("udp", "127.0.0.1:0") // a resolver that never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	refusing := "127.0.0.1:1"
	ours := netip.MustParseAddr("127.71.71.1")
	machine := serveDNS(t, edge.DNSConfig{Address: ours, TTL: time.Second, Resolvers: func() []string { return []string{refusing, up} }})
	instance := serveDNS(t, edge.DNSConfig{Address: netip.MustParseAddr("169.254.169.254"), TTL: time.Second})
	host := netip.MustParseAddr("169.254.169.253")
	reaching := serveDNS(t, edge.DNSConfig{
		Address: netip.MustParseAddr("169.254.169.254"),
		TTL:     time.Second,
		Hosts:   map[string]netip.Addr{"host.giggle.internal": host, "host.docker.internal": {}},

		Resolvers: func() []string { return []string{refusing} },
	})
	offline := serveDNS(t, edge.DNSConfig{Address: ours, Resolvers: func() []string { return []string{refusing} }})
	hanging := serveDNS(t, edge.DNSConfig{
		Address: ours,
		Resolvers: func() []string {
			return []string{silent.LocalAddr().String(), silent.LocalAddr().String(), silent.LocalAddr().String()}
		},
	})

	rows := []struct {
		server, name string
		qtype        uint16
		rcode        int
		want         string
		within       time.Duration
	}{
		{machine, "run.googleapis.com.", dns.TypeA, dns.RcodeSuccess, "127.71.71.1", time.Second},
		{machine, "Good---Jokes-abc-lz.A.run.app.", dns.TypeA, dns.RcodeSuccess, "127.71.71.1", time.Second},
		{reaching, "Host.Giggle.internal.", dns.TypeA, dns.RcodeSuccess, "169.254.169.253", time.Second},
		{reaching, "host.giggle.internal.", dns.TypeAAAA, dns.RcodeSuccess, "", time.Second},
		{reaching, "host.docker.internal.", dns.TypeA, dns.RcodeNameError, "", time.Second},
		{reaching, "a.host.giggle.internal.", dns.TypeA, dns.RcodeServerFailure, "", time.Second},
		{reaching, "run.googleapis.com.", dns.TypeA, dns.RcodeSuccess, "169.254.169.254", time.Second},
		{instance, "host.giggle.internal.", dns.TypeA, dns.RcodeNameError, "", time.Second},
		{machine, "gcr.io.", dns.TypeA, dns.RcodeSuccess, "127.71.71.1", time.Second},
		{machine, "run.googleapis.com.", dns.TypeAAAA, dns.RcodeSuccess, "", time.Second},
		{machine, "run.googleapis.com.", dns.TypeHTTPS, dns.RcodeSuccess, "", time.Second},
		{machine, "jokes.localhost.", dns.TypeA, dns.RcodeSuccess, "127.0.0.1", time.Second},
		{machine, "example.com.", dns.TypeA, dns.RcodeSuccess, "10.9.8.7", time.Second},
		{machine, "evilgcr.io.", dns.TypeA, dns.RcodeNameError, "", time.Second},
		{instance, "metadata.google.internal.", dns.TypeA, dns.RcodeSuccess, "169.254.169.254", time.Second},
		{instance, "registry.ollama.ai.", dns.TypeA, dns.RcodeSuccess, "169.254.169.254", time.Second},
		{instance, "example.com.", dns.TypeA, dns.RcodeNameError, "", time.Second},
		{offline, "example.com.", dns.TypeA, dns.RcodeServerFailure, "", time.Second},
		{hanging, "example.com.", dns.TypeA, dns.RcodeServerFailure, "", 2500 * time.Millisecond},
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, row := range rows {
			if row.server == hanging && network == "tcp" {
				continue // the silent resolver has no TCP, so that it would refuse
			}
			c := &dns.Client{Net: network, Timeout: 5 * time.Second}
			begin := time.Now()
			in, _, err := c.Exchange(new(dns.Msg).SetQuestion(row.name, row.qtype), row.server)
			if err != nil {
				t.Errorf("%s %s: %v", network, row.name, err)
				continue
			}
			if took := time.Since(begin); took > row.within {
				t.Errorf("%s %s took %v", network, row.name, took)
			}
			got := ""
			for _, rr := range in.Answer {
				got += rr.(*dns.A).A.String()
			}
			if in.Rcode != row.rcode || got != row.want {
				t.Errorf("%s %s %s = %s %q, want %s %q", network, row.name, dns.TypeToString[row.qtype],
					dns.RcodeToString[in.Rcode], got, dns.RcodeToString[row.rcode], row.want)
			}
		}
	}
	got := edge.Resolvers("# c\nnameserver 127.71.71.1\nnameserver 8.8.8.8\nsearch x\nnameserver fe80::1%eth0\nnameserver junk\n", ours)
	if want := []string{"8.8.8.8:53", "[fe80::1%eth0]:53"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("resolvers = %v, want %v", got, want)
	}
}

func TestParseName(t *testing.T) {
	for host, want := range map[string]edge.Name{
		"RUN.googleapis.com:443": {
			Class: edge.API,
			Host:  "run.googleapis.com",
			API:   "run.googleapis.com",
		},
		"us-central1-aiplatform.googleapis.com.": {
			Class:  edge.API,
			Host:   "us-central1-aiplatform.googleapis.com",
			API:    "aiplatform.googleapis.com",
			Region: "us-central1",
		},
		"run.europe-north1.rep.googleapis.com": {
			Class:  edge.API,
			Host:   "run.europe-north1.rep.googleapis.com",
			API:    "run.googleapis.com",
			Region: "europe-north1",
		},
		"www.googleapis.com": {
			Class: edge.API,
			Host:  "www.googleapis.com",
			API:   "www.googleapis.com",
		},
		"a.b.storage.googleapis.com": {
			Class:  edge.Storage,
			Host:   "a.b.storage.googleapis.com",
			Bucket: "a.b",
		},
		"x.y.googleapis.com": {Host: "x.y.googleapis.com"},
		"googleapis.com":     {Host: "googleapis.com"},
		"europe-npm.pkg.dev": {Host: "europe-npm.pkg.dev"},
		"run.app":            {Host: "run.app"},
		"[::1]:80":           {Host: "::1"},
		"::1":                {Host: "::1"},
		"a..b":               {},
		"a b":                {},
		"a/../b":             {},
		"":                   {},
	} {
		if got := edge.ParseName(host); got != want {
			t.Errorf("%q = %+v, want %+v", host, got, want)
		}
	}
}

func FuzzRouter(f *testing.F) {
	rt := newRouter()
	f.Add("run.googleapis.com:443", "/_/storage.googleapis.com/a%2Fb")
	f.Add("[::1]:7180", "/_/x.storage.googleapis.com/")
	f.Add("localhost", "/_//../_/a")
	f.Fuzz(func(t *testing.T, host, path string) {
		u, err := url.Parse(path)
		if err != nil {
			return
		}
		r := &http.Request{
			Method: "GET",
			Host:   host,
			URL:    u,
			Header: http.Header{},
			Proto:  "HTTP/1.1",
		}
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, r)
		if n := edge.ParseName(host); n != edge.ParseName(n.Host) && n.Host != "" {
			t.Errorf("%q is not stable: %+v then %+v", host, n, edge.ParseName(n.Host))
		}
		if w.Code == 200 && edge.CleanHost(host) == "" {
			t.Errorf("host %q was served", host)
		}
		if r.URL.Path != u.Path {
			t.Error("the caller's request was changed")
		}
	})
}
