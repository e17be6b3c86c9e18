package edge

import (
	"bytes"
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"giggle/fault"
)

// The files of a CA in its directory.
const (
	CertFile = "ca.pem" // 0644: what clients trust
	KeyFile  = "ca.key" // 0600
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	leafLife   = 90 * 24 * time.Hour
	leafRenew  = 30 * 24 * time.Hour // left on a leaf when it is minted again
	leavesKept = 1024
	skew       = time.Hour // certificates begin this much in the past, for clients whose clock is behind
)

// constrained is every DNS tree that the CA may ever speak for, and nothing else: whoever gets hold of the key cannot
// impersonate a bank. The list is whole from the first start, because a trusted root cannot grow later: the cloud's own
// names, and the hosts that builds and pulls go through.
var constrained = []string{
	"googleapis.com", "run.app", "pkg.dev", "gcr.io", "accounts.google.com", "cloud.google.com",
	"source.developers.google.com",
	"google.internal", "googleusercontent.com", "cloudfunctions.net", "cloud.goog",
	"docker.io", "docker.com", "quay.io", "ghcr.io", "registry.k8s.io", "mcr.microsoft.com",
	"ollama.ai", "ollama.com", "huggingface.co", "hf.co",
	"golang.org", "go.dev", "npmjs.org", "npmjs.com", "yarnpkg.com", "nodejs.org", "pypi.org", "pythonhosted.org",
	"python.org",
	"repo.maven.apache.org", "repo1.maven.org", "rubygems.org", "crates.io", "rust-lang.org", "nuget.org",
	"packagist.org",
	"debian.org", "ubuntu.com", "alpinelinux.org", "github.com", "githubusercontent.com", "githubassets.com",
	"gitlab.com", "sigstore.dev",
	"localhost", "giggle.test",
}

// CA is the platform's own certificate authority. It is safe for concurrent use.
type CA struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	pem     []byte
	leafKey *ecdsa.PrivateKey // one key for all leaves of a process: minting is then one signature
	now     func() time.Time

	mu     sync.Mutex
	leaves map[string]*list.Element // of *leaf
	order  *list.List               // most recently used first
}

type leaf struct {
	name string
	cert *tls.Certificate
}

// OpenCA reads the CA in dir, or makes one at the first start. A certificate whose key is missing is an error and not
// a reason for a new one: people trust it already.
func OpenCA(dir string, now func() time.Time) (_ *CA, err error) {
	defer fault.Wrap(&err, "edge.OpenCA")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	certPath, keyPath := filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile)
	keyPEM, keyErr := os.ReadFile(keyPath)
	certPEM, certErr := os.ReadFile(certPath)
	if keyErr != nil && !errors.Is(keyErr, fs.ErrNotExist) {
		return nil, keyErr
	}
	if certErr != nil && !errors.Is(certErr, fs.ErrNotExist) {
		return nil, certErr
	}
	if certErr == nil && keyErr != nil {
		return nil, fmt.Errorf("%s is there but its key %s is not: restore the key, or remove the certificate, start again and trust the new one", CertFile, KeyFile)
	}
	ca := &CA{now: now, leaves: map[string]*list.Element{}, order: list.New()}
	if keyErr != nil {
		if ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(ca.key)
		if err != nil {
			return nil, err
		}
		if err := writeFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
			0o600); err != nil {
			return nil, err
		}
	} else if ca.key, err = parseKey(keyPEM); err != nil {
		return nil, err
	}
	if certErr != nil { // the first start, or one that was cut off after the key
		if certPEM, err = selfSign(ca.key, now()); err != nil {
			return nil, err
		}
		if err := writeFile(certPath, certPEM, 0o644); err != nil {
			return nil, err
		}
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", CertFile)
	}
	if ca.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, err
	}
	if !ca.key.PublicKey.Equal(ca.cert.PublicKey) {
		return nil, fmt.Errorf("%s and %s do not belong together", CertFile, KeyFile)
	}
	if now().After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("%s has expired on %s: remove it and its key, start again and trust the new one",
			CertFile, ca.cert.NotAfter.Format(time.DateOnly))
	}
	ca.pem = pem.EncodeToMemory(block)
	ca.leafKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return ca, err
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", KeyFile)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: malformed key", KeyFile)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a %T, want an ECDSA key", KeyFile, k)
	}
	return key, nil
}

func selfSign(key *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Organization: []string{"Giggle Cloud Platform"},
			CommonName:   "Giggle local CA " + fmt.Sprintf("%x", serial.Bytes()[:4]),
		},
		NotBefore:                   now.Add(-skew),
		NotAfter:                    now.Add(caLife),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         constrained,
		PermittedIPRanges: []*net.IPNet{
			{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
			{IP: net.IPv4(169, 254, 169, 254).To4(), Mask: net.CIDRMask(32, 32)},
			{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 126, 1), nil // never short, always positive
}

// CertPEM returns the certificate that clients must trust.
func (ca *CA) CertPEM() []byte { return bytes.Clone(ca.pem) }

// Bundle returns a PEM bundle of the system's roots and this CA, for clients that take one file in place of the
// system's.
func (ca *CA) Bundle(system []byte) []byte {
	if bytes.Contains(system, bytes.TrimSpace(ca.pem)) {
		return bytes.Clone(system)
	}
	out := bytes.Clone(system)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return append(out, ca.pem...)
}

// TLSConfig returns the configuration of a server that answers for every name that allow accepts (lower case, without
// port) with a leaf minted for that name. A client that sends no name gets a leaf for the address that it dialled.
func (ca *CA) TLSConfig(allow func(name string) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := CleanHost(hello.ServerName)
			if name == "" {
				host, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String())
				if err != nil || net.ParseIP(host) == nil {
					return nil, errors.New("edge: the client named no server")
				}
				return ca.Leaf(host)
			}
			if !allow(name) {
				return nil, fmt.Errorf("edge: %q is not one of ours", name)
			}
			return ca.Leaf(name)
		},
	}
}

// Leaf returns a certificate for one DNS name or IP address, from the cache while it has a month to live. A name that
// the CA is not allowed to speak for is an error.
func (ca *CA) Leaf(name string) (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	now := ca.now()
	if e, ok := ca.leaves[name]; ok {
		l := e.Value.(*leaf)
		if now.Before(l.cert.Leaf.NotAfter.Add(-leafRenew)) && now.After(l.cert.Leaf.NotBefore) {
			ca.order.MoveToFront(e)
			return l.cert, nil
		}
		ca.order.Remove(e)
		delete(ca.leaves, name)
	}
	cert, err := ca.mint(name, now)
	if err != nil {
		return nil, err
	}
	ca.leaves[name] = ca.order.PushFront(&leaf{name, cert})
	for ca.order.Len() > leavesKept {
		oldest := ca.order.Remove(ca.order.Back()).(*leaf)
		delete(ca.leaves, oldest.name)
	}
	return cert, nil
}

func (ca *CA) mint(name string, now time.Time) (*tls.Certificate, error) {
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{name}
	}
	if !ca.speaksFor(name) {
		return nil, fmt.Errorf("edge: the CA may not speak for %q", name)
	}
	if len(name) <= 64 { // the limit of a common name; only for people who read certificates
		t.Subject.CommonName = name
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, ca.leafKey.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: ca.leafKey, Leaf: parsed}, nil
}

// speaksFor reports whether the constraints in the certificate cover name.
func (ca *CA) speaksFor(name string) bool {
	if ip := net.ParseIP(name); ip != nil {
		for _, r := range ca.cert.PermittedIPRanges {
			if r.Contains(ip) {
				return true
			}
		}
		return false
	}
	for _, d := range ca.cert.PermittedDNSDomains {
		if name == d || strings.HasSuffix(name, "."+d) {
			return true
		}
	}
	return false
}

// writeFile puts a file in place whole or not at all.
func writeFile(path string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
