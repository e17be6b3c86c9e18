package main

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
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/dns/dnsmessage"

	"giggle/engine/egress/testnet"
)

// internet is what lies around the machine of a script, in network namespaces: names, and hosts that answer.
type internet struct {
	*testnet.Net
	resolv, trust string // files of the machine: /etc/resolv.conf, and its certificates
	closes        []func() error
}

// The hosts of the internet, by name. Those of example.com are public; the others are as near to a machine as such
// things get.
var internetHosts = map[string][]netip.Addr{
	"api.example.com":    {netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:ff::10")},
	"four.example.com":   {netip.MustParseAddr("203.0.113.10")},
	"six.example.com":    {netip.MustParseAddr("2001:db8:ff::10")},
	"rebind.example.com": {netip.MustParseAddr("10.0.0.7")}, // a public name of a private host
	"nas.lan.test":       {netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd12::7")},
}

var internetResolver = netip.MustParseAddr("198.51.100.53")

// newInternet makes one, with its files in a directory: its web servers have what is in "www" there, and write what
// they are asked for into "requests".
func newInternet(dir string) (_ *internet, err error) {
	addresses := []netip.Addr{internetResolver, netip.MustParseAddr("169.254.169.250")}
	for _, host := range []string{"api.example.com", "nas.lan.test"} {
		addresses = append(addresses, internetHosts[host]...)
	}
	n := &internet{resolv: filepath.Join(dir, "resolv.conf"), trust: filepath.Join(dir, "trust.pem")}
	if n.Net, err = testnet.New(1400, addresses...); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	text := fmt.Sprintf("search lan.test\nnameserver %s\n", internetResolver)
	if err := os.WriteFile(n.resolv, []byte(text), 0o644); err != nil {
		return nil, err
	}
	certificate, authority, err := certificateOf(internetHosts)
	if err != nil {
		return nil, err
	}
	system, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(n.trust, append(system, authority...), 0o644); err != nil {
		return nil, err
	}
	if err := n.serveNames(); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "requests"))
	if err != nil {
		return nil, err
	}
	n.closes = append(n.closes, log.Close)
	files := http.FileServer(http.Dir(filepath.Join(dir, "www")))
	var mu sync.Mutex
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			mu.Lock()
			defer mu.Unlock()
			_, _ = fmt.Fprintln(log, r.Method, r.URL.Path)      // for the script to look at
			w.Header().Set("Cache-Control", "max-age=31536000") // as package indexes have it
			files.ServeHTTP(w, r)
			return
		}
		local := r.Context().Value(http.LocalAddrContextKey).(net.Addr).(*net.TCPAddr)
		fmt.Fprintf(w, "hello from %s\n", local.IP)
	})
	for _, at := range []string{":443", ":80"} {
		var l net.Listener
		if err := n.Outside.Do(func() (err error) { l, err = net.Listen("tcp", at); return err }); err != nil {
			return nil, err
		}
		if at == ":443" {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}})
		}
		n.closes = append(n.closes, l.Close)
		go func() { _ = http.Serve(l, hello) }() // until it is closed
	}
	return n, nil
}

// serveNames answers for the hosts, by UDP.
func (n *internet) serveNames() error {
	var c net.PacketConn
	at := netip.AddrPortFrom(internetResolver, 53).String()
	if err := n.Outside.Do(func() (err error) { c, err = net.ListenPacket("udp", at); return err }); err != nil {
		return err
	}
	n.closes = append(n.closes, c.Close)
	go func() {
		buf := make([]byte, 4096)
		for {
			k, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := answerName(buf[:k]); answer != nil {
				_, _ = c.WriteTo(answer, from) // who asked asks again
			}
		}
	}()
	return nil
}

func answerName(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	hosts, ok := internetHosts[strings.TrimSuffix(strings.ToLower(q.Name.String()), ".")]
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	for _, a := range hosts {
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			body := &dnsmessage.AAAAResource{AAAA: a.As16()}
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: body})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}

// certificateOf makes a certificate for hosts, signed by itself, and its PEM.
func certificateOf(hosts map[string][]netip.Addr) (c tls.Certificate, pemText []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "a CA of the test's own"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for name := range hosts {
		template.DNSNames = append(template.DNSNames, name)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return c, nil, err
	}
	pemText = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pemText, nil
}

// Close ends all that it serves.
func (n *internet) Close() error {
	var errs []error
	for _, c := range n.closes {
		errs = append(errs, c())
	}
	return errors.Join(append(errs, n.Net.Close())...)
}

// start starts the platform: on the machine with the internet around it, if the script has one.
func (p *platform) start() error {
	if p.around == nil {
		return p.cmd.Start()
	}
	// In a mount namespace of its own, for the two files; it stays one process.
	const wrap = `mount --bind "$RESOLV" /etc/resolv.conf && mount --bind "$TRUST" /etc/ssl/certs/ca-certificates.crt && exec "$@"`
	args := append([]string{"unshare", "-m", "sh", "-c", wrap, "sh"}, p.cmd.Args...)
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	p.cmd.Path, p.cmd.Args = path, args
	p.cmd.Env = append(p.cmd.Env, "RESOLV="+p.around.resolv, "TRUST="+p.around.trust)
	return p.around.Machine.Do(p.cmd.Start)
}

// cmdOnline puts an internet around the script's machine: what `up` starts is in it from then on. Other commands join
// its network by `exec nsenter --net=$NETWORK COMMAND…`.
func cmdOnline(ts *testscript.TestScript, _ bool, _ []string) {
	p := platformOf(ts)
	n, err := newInternet(ts.Getenv("WORK"))
	ts.Check(err)
	p.around = n
	ts.Defer(func() { _ = n.Close() })
	ts.Setenv("GIGGLE_EGRESS", "auto")
	ts.Setenv("NETWORK", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.Machine.Fd()))
}
