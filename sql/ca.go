package sql

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"giggle/fault"
)

const (
	caLife     = 10 * 365 * 24 * time.Hour
	serverLife = 30 * 24 * time.Hour
	// ClientLife is how long a client's certificate is good for, as Google's.
	ClientLife = time.Hour
	skew       = 5 * time.Minute // certificates begin so much in the past, for clocks that are behind
)

// CA signs the certificates of instances and of their clients. Nothing but Google's connectors trusts it, each for one
// instance.
type CA struct {
	cert      *x509.Certificate
	key       *ecdsa.PrivateKey
	pem       string
	serverKey *ecdsa.PrivateKey // of all instances, until the platform ends
	now       func() time.Time

	mu      sync.Mutex
	servers map[Name]*tls.Certificate
}

// OpenCA reads the CA in a directory, or makes one at the first start and when it has expired.
func OpenCA(dir string, now func() time.Time) (_ *CA, err error) {
	defer fault.Wrap(&err, "sql.OpenCA")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "ca.pem") // the certificate and its key: nobody else trusts it, so it may be made anew
	ca := &CA{now: now, servers: make(map[Name]*tls.Certificate)}
	if ca.serverKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err == nil {
		if err := ca.parse(text); err != nil {
			return nil, fmt.Errorf("%s: %w: remove it, and the next start makes another", file, err)
		}
		if now().Before(ca.cert.NotAfter.Add(-serverLife)) {
			return ca, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if text, err = newCA(now()); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return nil, err
	}
	return ca, ca.parse(text)
}

func newCA(now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Giggle Cloud Platform"}, CommonName: "Cloud SQL Server CA"},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})...), nil
}

func (ca *CA) parse(text []byte) error {
	cert, rest := pem.Decode(text)
	key, _ := pem.Decode(rest)
	if cert == nil || key == nil {
		return errors.New("it doesn't hold a certificate and its key")
	}
	parsed, err := x509.ParseCertificate(cert.Bytes)
	if err != nil {
		return err
	}
	private, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return errors.New("its key is malformed")
	}
	signer, ok := private.(*ecdsa.PrivateKey)
	if !ok || !signer.PublicKey.Equal(parsed.PublicKey) {
		return errors.New("its key is not the certificate's")
	}
	ca.cert, ca.key, ca.pem = parsed, signer, string(pem.EncodeToMemory(cert))
	return nil
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 126, 1), nil
}

// Certificate is a certificate as the API shows it.
type Certificate struct {
	PEM             string
	CommonName      string
	SerialNumber    string // decimal
	Fingerprint     string // SHA-1, hexadecimal
	Created, Expiry time.Time
}

func describe(c *x509.Certificate) Certificate {
	sum := sha1.Sum(c.Raw) // what Google shows
	return Certificate{
		PEM:          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})),
		CommonName:   c.Subject.CommonName,
		SerialNumber: c.SerialNumber.String(),
		Fingerprint:  hex.EncodeToString(sum[:]),
		Created:      c.NotBefore,
		Expiry:       c.NotAfter,
	}
}

// Certificate is the CA's own, which clients check servers by.
func (ca *CA) Certificate() Certificate { return describe(ca.cert) }

// commonName is how Google's certificates name an instance.
func commonName(n Name) string { return n.Project + ":" + n.ID }

// server returns the certificate of an instance.
func (ca *CA) server(n Name) (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if c := ca.servers[n]; c != nil && ca.now().Before(c.Leaf.NotAfter.Add(-serverLife/2)) {
		return c, nil
	}
	leaf, err := ca.sign(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Giggle Cloud Platform"}, CommonName: commonName(n)},
		NotAfter:    ca.now().Add(serverLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.serverKey.Public())
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: ca.serverKey, Leaf: leaf}
	ca.servers[n] = c
	return c, nil
}

// sign makes a certificate of what is new in a template.
func (ca *CA) sign(t *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	var err error
	if t.SerialNumber, err = serialNumber(); err != nil {
		return nil, err
	}
	t.NotBefore, t.KeyUsage = ca.now().Add(-skew), x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Client makes the certificate of a member of policies who connects to an instance, for an hour. The key, in PEM, is
// the client's. It fails with InvalidArgument.
func (ca *CA) Client(n Name, member, publicKey string) (_ Certificate, err error) {
	defer fault.Wrap(&err, "sql.Client(%s)", n)
	key, err := parsePublicKey(publicKey)
	if err != nil {
		return Certificate{}, err
	}
	kind, email, ok := strings.Cut(member, ":")
	if !ok || kind != "user" && kind != "serviceAccount" {
		return Certificate{}, fault.New(fault.PermissionDenied, "%.200q is no account that has certificates.", member)
	}
	c, err := ca.sign(&x509.Certificate{
		Subject: pkix.Name{
			Organization:       []string{"Giggle Cloud Platform"},
			OrganizationalUnit: []string{kind},
			CommonName:         commonName(n),
		},
		EmailAddresses: []string{email},
		NotAfter:       ca.now().Add(ClientLife),
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key)
	if err != nil {
		return Certificate{}, err
	}
	return describe(c), nil
}

// parsePublicKey reads a public key in PEM, of a kind and size that is good enough.
func parsePublicKey(text string) (crypto.PublicKey, error) {
	invalid := func(why string) error { return fault.Invalid("public_key", "%s", why) }
	if len(text) > 16<<10 {
		return nil, invalid("is too long")
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, invalid("is no PEM block")
	}
	// Whatever the block calls itself: Google's own connectors call a PKIX key an "RSA PUBLIC KEY".
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		var e error
		if key, e = x509.ParsePKCS1PublicKey(block.Bytes); e != nil {
			return nil, invalid("is no public key")
		}
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 8192 {
			return nil, invalid("an RSA key needs 2048 to 8192 bits")
		}
	case *ecdsa.PublicKey:
	default:
		return nil, invalid("must be an RSA or an ECDSA key")
	}
	return key, nil
}

// member is who a client's certificate was made for.
func member(c *x509.Certificate) string {
	if len(c.Subject.OrganizationalUnit) != 1 || len(c.EmailAddresses) != 1 {
		return ""
	}
	return c.Subject.OrganizationalUnit[0] + ":" + c.EmailAddresses[0]
}

// pool is the CA as what clients' certificates are checked by.
func (ca *CA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}
