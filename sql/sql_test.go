package sql_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"giggle/fault"
	"giggle/resource"
	"giggle/sql"
	"giggle/store"
)

var jokes = sql.Name{Project: "giggle", Region: "europe-north1", ID: "jokes"}

const teller = "serviceAccount:teller@giggle.iam.gserviceaccount.com"

// world is instances with a proxy to them, whose clock and whose permissions the test sets.
type world struct {
	*testing.T
	store     *store.Store
	instances *sql.Instances
	proxy     *sql.Proxy
	own       netip.AddrPort

	late    atomic.Int64 // nanoseconds
	mu      sync.Mutex
	allowed map[string]bool
	said    []string
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.late.Load())) }

func (w *world) allow(member string, yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowed[member] = yes
}

func (w *world) say(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// lines is what was said so far.
func (w *world) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.said...)
}

func (w *world) AuthorizeMember(_ context.Context, member, permission, resource string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if permission != "cloudsql.instances.connect" || !strings.HasPrefix(resource, "projects/giggle/instances/") {
		w.Errorf("asked for %s on %s", permission, resource)
	}
	if !w.allowed[member] {
		e := fault.New(fault.PermissionDenied, "%s lacks %s on %s.", member, permission, resource)
		e.Help = []fault.Link{{Description: "To grant it: gcloud …"}}
		return e
	}
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, allowed: map[string]bool{teller: true}}
	var err error
	if w.store, err = store.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"), w.now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	w.instances = sql.New(w.store, func(ref string) (resource.Project, error) {
		if ref != "giggle" && ref != "another-one" {
			return resource.Project{}, fault.New(fault.NotFound, "no project %s", ref)
		}
		return resource.Project{ID: ref, Number: "123456789012"}, nil
	})
	ca, err := sql.OpenCA(t.TempDir(), w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.proxy, err = sql.NewProxy(sql.ProxyConfig{
		Instances: w.instances,
		CA:        ca,
		Identity:  w,
		Own:       func(a netip.AddrPort) bool { return a == w.own },
		Dir:       filepath.Join(t.TempDir(), strings.Repeat("long/", 30), "sockets"), // more than a socket's path may be
		Now:       w.now,
		Log:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// database is a server that says hello and then what it hears.
func (w *world) database() string {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, "hello")
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func (w *world) mapped(n sql.Name, address, version string) sql.Instance {
	w.Helper()
	i, err := w.instances.Map(w.Context(), sql.Instance{Name: n, Address: address, Version: version})
	if err != nil {
		w.Fatal(err)
	}
	return i
}

func hello(c net.Conn) error {
	c.SetDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "hello" {
		return errors.New("it said " + string(b))
	}
	return nil
}

func TestParseName(t *testing.T) {
	const name = "giggle:europe-north1:jokes"
	if n, err := sql.ParseName(name); err != nil || n != jokes || n.String() != name {
		t.Errorf("%v, %v", n, err)
	}
	for _, s := range []string{"", "jokes", "giggle:jokes", "giggle:mars:jokes", "giggle:europe-north1:",
		"a:europe-north1:jokes", "giggle:europe-north1:../x", "giggle:europe-north1:jokes:x",
		"giggle:europe-north1:Jokes"} {
		if n, err := sql.ParseName(s); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("%q = %v, %v", s, n, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("giggle:europe-north1:jokes")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := sql.ParseName(s); err == nil && (n.String() != s || !filepath.IsLocal(s) || filepath.Base(s) != s) {
			t.Errorf("%q is %v", s, n)
		}
	})
}

func TestMap(t *testing.T) {
	w := newWorld(t)
	one := w.mapped(jokes, "127.0.0.1:5432", "")
	two := w.mapped(sql.Name{Project: "another-one", Region: "us-central1", ID: "jokes"}, "db.example.com:3306", "")
	if one.Version != "POSTGRES_15" || two.Version != "MYSQL_8_0" || one.Number == two.Number || one.Number < 1 {
		t.Errorf("%+v, %+v", one, two)
	}
	again := w.mapped(jokes, "[::1]:6543", "POSTGRES_17")
	if again.Number != one.Number || again.Address != "[::1]:6543" {
		t.Errorf("mapped again: %+v", again)
	}
	if list, err := w.instances.List(t.Context(), "giggle", "", 0); err != nil || len(list) != 1 || list[0].Name != jokes {
		t.Errorf("list of a project: %v, %v", list, err)
	}
	for _, tc := range []struct {
		name             sql.Name
		address, version string
		want             fault.Code
	}{
		{sql.Name{Project: "giggle", Region: "us-central1", ID: "jokes"}, "127.0.0.1:1", "", fault.AlreadyExists},
		{sql.Name{Project: "no-project", Region: "us-central1", ID: "jokes"}, "127.0.0.1:1", "", fault.NotFound},
		{jokes, "127.0.0.1", "", fault.InvalidArgument},
		{jokes, ":5432", "", fault.InvalidArgument},
		{jokes, "127.0.0.1:0", "", fault.InvalidArgument},
		{jokes, "127.0.0.1:postgresql", "", fault.InvalidArgument},
		{jokes, "[fe80::1%eth0]:5432", "", fault.InvalidArgument},
		{jokes, "127.0.0.1:5432", "ORACLE_23", fault.InvalidArgument},
		{jokes, "127.0.0.1:5432", "POSTGRES_", fault.InvalidArgument},
	} {
		_, err := w.instances.Map(t.Context(), sql.Instance{Name: tc.name, Address: tc.address, Version: tc.version})
		if !fault.Is(err, tc.want) {
			t.Errorf("%v to %s as %q: %v, want %v", tc.name, tc.address, tc.version, err, tc.want)
		}
	}
	if err := w.instances.Unmap(t.Context(), jokes); err != nil {
		t.Fatal(err)
	}
	if err := w.instances.Unmap(t.Context(), jokes); !fault.Is(err, fault.FailedPrecondition) ||
		!strings.Contains(err.Error(), "giggle sql map giggle:europe-north1:jokes") {
		t.Errorf("unmapped twice: %v", err)
	}
}

// Check is asked in the transaction of a deploy.
func TestCheck(t *testing.T) {
	w := newWorld(t)
	w.mapped(jokes, "127.0.0.1:5432", "")
	w.mapped(sql.Name{Project: "giggle", Region: "europe-north1", ID: "shop"}, "127.0.0.1:1433", "")
	for name, want := range map[string]string{
		"giggle:europe-north1:jokes": "",
		"giggle:us-central1:jokes":   "giggle sql map giggle:us-central1:jokes HOST:PORT",
		"giggle:europe-north1:none":  "giggle sql map giggle:europe-north1:none HOST:PORT",
		"giggle:europe-north1:shop":  "has no socket",
		"none":                       "PROJECT:REGION:INSTANCE",
	} {
		err := w.store.View(t.Context(), func(tx *store.Tx) error { return w.instances.Check(tx, name) })
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestSockets(t *testing.T) {
	w := newWorld(t)
	w.mapped(jokes, w.database(), "POSTGRES_15")
	shop := sql.Name{Project: "giggle", Region: "europe-north1", ID: "shop"}
	w.mapped(shop, w.database(), "MYSQL_8_0")
	client := sql.Client{ID: "i1", Member: teller, Say: w.say}
	s, err := w.proxy.Open(t.Context(), client, []string{jokes.String(), shop.String(), "giggle:europe-north1:none"})
	if err != nil {
		t.Fatal(err)
	}
	if said := w.lines(); len(said) != 1 || !strings.Contains(said[0], "giggle sql map giggle:europe-north1:none") {
		t.Errorf("of an instance that leads nowhere it says %q", said)
	}
	// From within the directory, as a container does: its path is short there.
	t.Chdir(s.Dir)
	const postgres, mysql = "giggle:europe-north1:jokes/.s.PGSQL.5432", "giggle:europe-north1:shop"
	for _, at := range []string{postgres, mysql} {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm() != 0o666 {
			t.Errorf("%s: %v, %v: a container's users can't connect", at, info, err)
		}
		c, err := net.Dial("unix", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := hello(c); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}

	// The permission is asked at each connection, and a refusal is said, though not again and again.
	open, err := net.Dial("unix", postgres)
	if err != nil || hello(open) != nil {
		t.Fatal(err)
	}
	defer open.Close()
	w.allow(teller, false)
	for range 3 {
		c, err := net.Dial("unix", postgres)
		if err != nil {
			t.Fatal(err)
		}
		if hello(c) == nil {
			t.Error("connected without the permission")
		}
		c.Close()
	}
	if said := w.lines(); len(said) != 2 || !strings.Contains(said[1], "To grant it: gcloud") {
		t.Errorf("of a refusal it says %q", said)
	}
	w.allow(teller, true)

	if err := s.Close(); err != nil {
		t.Error(err)
	}
	open.SetDeadline(time.Now().Add(time.Minute))
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection outlives its container: %v", err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// An instance of a service has a hundred connections to one database.
func TestMostConnections(t *testing.T) {
	w := newWorld(t)
	w.mapped(jokes, w.database(), "MYSQL_8_0")
	s, err := w.proxy.Open(t.Context(), sql.Client{ID: "i1", Member: teller, Say: w.say}, []string{jokes.String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	t.Chdir(s.Dir)
	for n := range sql.MaxConns + 1 {
		c, err := net.Dial("unix", jokes.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := hello(c); (err == nil) != (n < sql.MaxConns) {
			t.Fatalf("connection %d: %v", n, err)
		}
	}
}

// The platform dials as root, and so never its own doors nor what is on the machine's links.
func TestForbiddenAddresses(t *testing.T) {
	w := newWorld(t)
	own := w.database()
	w.own = netip.MustParseAddrPort(own)
	for id, address := range map[string]string{"own": own, "named": "localhost:" + own[strings.LastIndexByte(own, ':')+1:],
		"link": "169.254.169.254:80", "link6": "[fe80::1]:80", "mapped": "[::ffff:169.254.169.254]:80"} {
		n := sql.Name{Project: "giggle", Region: "europe-north1", ID: id}
		w.mapped(n, address, "MYSQL_8_0")
		s, err := w.proxy.Open(t.Context(), sql.Client{ID: id, Member: teller, Say: w.say}, []string{n.String()})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", filepath.Join(short(t, s.Dir), n.String()))
		if err != nil {
			t.Fatal(err)
		}
		if hello(c) == nil {
			t.Errorf("%s was reached", address)
		}
		c.Close()
		if said := w.lines(); !strings.Contains(said[len(said)-1], "can't be reached") {
			t.Errorf("%s: it says %q", address, said)
		}
		s.Close()
	}
}

// short is a short path to a directory.
func short(t *testing.T, dir string) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "s")
	if err := os.Symlink(dir, at); err != nil {
		t.Fatal(err)
	}
	return at
}

// connector is a client as Google's are: a key of its own, and a certificate for it.
func (w *world) connector(n sql.Name, member string) tls.Certificate {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		w.Fatal(err)
	}
	// Google's Go connector calls it so, whatever it is.
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: der})
	c, err := w.proxy.CA.Client(n, member, string(text))
	if err != nil {
		w.Fatal(err)
	}
	block, _ := pem.Decode([]byte(c.PEM))
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

func TestConnectors(t *testing.T) {
	w := newWorld(t)
	w.mapped(jokes, w.database(), "POSTGRES_15")
	shop := sql.Name{Project: "giggle", Region: "europe-north1", ID: "shop"}
	w.mapped(shop, w.database(), "POSTGRES_15")
	host := w.proxy.Host(netip.MustParseAddr("127.71.200.1"))
	t.Cleanup(func() { host.Close() })
	at, err := host.Address(jokes)
	if err != nil {
		t.Fatal(err)
	}
	other, err := host.Address(shop)
	if err != nil || other == at {
		t.Fatalf("both instances are at %s (%v): a client names none of them", at, err)
	}
	if again, err := host.Address(jokes); err != nil || again != at || !host.Listens(netip.AddrPortFrom(at, 3307)) {
		t.Errorf("the address changed: %s, %v", again, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(w.proxy.CA.Certificate().PEM))
	dial := func(at netip.Addr, instance string, certs ...tls.Certificate) error {
		c, err := tls.Dial("tcp", netip.AddrPortFrom(at, 3307).String(), &tls.Config{
			Certificates:       certs,
			InsecureSkipVerify: true, // as connectors do, who check it themselves:
			VerifyConnection: func(s tls.ConnectionState) error {
				leaf := s.PeerCertificates[0]
				if leaf.Subject.CommonName != instance {
					t.Errorf("the server at %s is %q, want %q", at, leaf.Subject.CommonName, instance)
				}
				_, err := leaf.Verify(x509.VerifyOptions{Roots: roots})
				return err
			},
		})
		if err != nil {
			return err
		}
		defer c.Close()
		return hello(c)
	}
	good := w.connector(jokes, teller)
	if err := dial(at, "giggle:jokes", good); err != nil {
		t.Error(err)
	}
	if err := dial(other, "giggle:shop", w.connector(shop, teller)); err != nil {
		t.Error(err)
	}
	for what, certs := range map[string][]tls.Certificate{
		"no certificate":            nil,
		"one for another instance":  {w.connector(shop, teller)},
		"one of somebody else":      {w.connector(jokes, "user:eve@giggle.test")},
		"one of another platform's": {newWorld(t).connector(jokes, teller)},
	} {
		if err := dial(at, "giggle:jokes", certs...); err == nil {
			t.Errorf("connected with %s", what)
		}
	}
	w.allow(teller, false)
	if err := dial(at, "giggle:jokes", good); err == nil {
		t.Error("connected with a certificate of an account that has lost the permission since")
	}
	w.allow(teller, true)
	w.late.Store(int64(sql.ClientLife + time.Minute))
	if err := dial(at, "giggle:jokes", good); err == nil {
		t.Error("connected with a certificate that has expired")
	}
}

func TestCA(t *testing.T) {
	dir := t.TempDir()
	ca, err := sql.OpenCA(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sql.OpenCA(dir, time.Now)
	if err != nil || again.Certificate() != ca.Certificate() {
		t.Errorf("a second start has another CA: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file is %v, %v", info.Mode(), err)
	}
	later, err := sql.OpenCA(dir, func() time.Time { return time.Now().AddDate(11, 0, 0) })
	if err != nil || later.Certificate() == ca.Certificate() {
		t.Errorf("a CA that has expired is still in use: %v", err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err)
	}
	der, err := x509.MarshalPKIXPublicKey(weak.Public())
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"nothing":    "",
		"no key":     "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"a weak key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
	} {
		if _, err := ca.Client(jokes, teller, text); !fault.Is(err, fault.InvalidArgument) {
			t.Errorf("a certificate for %s: %v", what, err)
		}
	}
}

func FuzzPublicKey(f *testing.F) {
	ca, err := sql.OpenCA(f.TempDir(), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ca.Client(jokes, teller, text); err == nil && c.PEM == "" {
			t.Error("an empty certificate")
		}
	})
}
