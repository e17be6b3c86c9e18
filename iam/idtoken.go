package iam

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"giggle/fault"
	"giggle/store"
)

// A signing key signs for keyAge and stays in the key set for keyOverlap more, so that every token that it signed can
// be verified until it expires.
const (
	keyAge     = 30 * 24 * time.Hour
	keyOverlap = 48 * time.Hour
	rsaBits    = 2048
)

// signingKey is one RSA key for ID tokens.
type signingKey struct {
	KeyID   string
	DER     []byte // PKCS #1
	Created time.Time
}

var signingKeys = store.NewTable[signingKey]("iam.signingKey", "Signing key")

// keyring is the signing keys in use; the first one signs.
type keyring struct {
	signer jose.Signer
	public jose.JSONWebKeySet
	certs  func() (map[string][]byte, error) // X.509 of the public keys, in DER; made when they are first asked for
}

// RotateKeys makes a new signing key when the newest is older than 30 days, and forgets those that no living token
// was signed with. It is called at start and once a day.
func (m *IAM) RotateKeys(ctx context.Context) (err error) {
	defer fault.Wrap(&err, "iam.RotateKeys")
	var keys []signingKey
	err = m.store.View(ctx, func(tx *store.Tx) error {
		rows, err := signingKeys.List(tx, "", "", 0)
		for _, r := range rows {
			keys = append(keys, r.Value)
		}
		return err
	})
	if err != nil {
		return err
	}
	now := m.now()
	newest := func() *signingKey {
		var n *signingKey
		for i := range keys {
			if n == nil || keys[i].Created.After(n.Created) {
				n = &keys[i]
			}
		}
		return n
	}
	if n := newest(); n == nil || now.Sub(n.Created) >= keyAge {
		k, err := m.newSigningKey(now)
		if err != nil {
			return err
		}
		err = m.store.Update(ctx, func(tx *store.Tx) error {
			_, err := signingKeys.Create(tx, k.KeyID, k)
			return err
		})
		if err != nil {
			return err
		}
		keys = append(keys, k)
	}
	signs := newest().KeyID
	ring := &keyring{}
	var in []signingKey
	for _, k := range keys {
		if k.KeyID != signs && now.Sub(k.Created) >= keyAge+keyOverlap {
			err := m.store.Update(ctx, func(tx *store.Tx) error { return signingKeys.Delete(tx, k.KeyID) })
			if err != nil {
				return err
			}
			continue
		}
		in = append(in, k)
		private, err := x509.ParsePKCS1PrivateKey(k.DER)
		if err != nil {
			return err
		}
		ring.public.Keys = append(ring.public.Keys, jose.JSONWebKey{
			Key:       &private.PublicKey,
			KeyID:     k.KeyID,
			Algorithm: "RS256",
			Use:       "sig",
		})
		if k.KeyID == signs {
			ring.signer, err = jose.NewSigner(jose.SigningKey{
				Algorithm: jose.RS256,
				Key:       jose.JSONWebKey{Key: private, KeyID: k.KeyID},
			},
				(&jose.SignerOptions{}).WithType("JWT"))
			if err != nil {
				return err
			}
		}
	}
	ring.certs = sync.OnceValues(func() (map[string][]byte, error) { return m.certifySigning(in) })
	m.signing.Store(ring)
	m.verified.init() // a key that is gone verifies nothing any more
	return nil
}

func (m *IAM) newSigningKey(now time.Time) (signingKey, error) {
	key, err := rsa.GenerateKey(m.random, rsaBits)
	if err != nil {
		return signingKey{}, err
	}
	id := make([]byte, 20)
	if _, err := io.ReadFull(m.random, id); err != nil {
		return signingKey{}, err
	}
	return signingKey{KeyID: hex.EncodeToString(id), DER: x509.MarshalPKCS1PrivateKey(key), Created: now}, nil
}

// KeySet returns the public keys that verify this platform's ID tokens (RFC 7517).
func (m *IAM) KeySet() jose.JSONWebKeySet { return m.signing.Load().public }

// KeyCertificates returns the same keys in X.509 certificates (DER), by key id.
func (m *IAM) KeyCertificates() (map[string][]byte, error) { return m.signing.Load().certs() }

func (m *IAM) certifySigning(keys []signingKey) (map[string][]byte, error) {
	out := make(map[string][]byte)
	for _, k := range keys {
		private, err := x509.ParsePKCS1PrivateKey(k.DER)
		if err != nil {
			return nil, err
		}
		from := k.Created.Add(-time.Minute)
		if out[k.KeyID], err = m.certify(private, signingName, from, from.Add(keyAge+keyOverlap)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// signingName is the subject of the certificates of the keys that sign ID tokens, as Google's.
const signingName = "federated-signon.system.gserviceaccount.com"

// Claims are the claims of an ID token, those of Google's.
type Claims struct {
	jwt.Claims
	AuthorizedParty string `json:"azp,omitempty"`
	Email           string `json:"email,omitempty"`
	EmailVerified   bool   `json:"email_verified,omitempty"`
	HostedDomain    string `json:"hd,omitempty"`
}

// Principal is whom the token is about.
func (c Claims) Principal() Principal {
	if strings.HasSuffix(c.Email, ".gserviceaccount.com") {
		return ServiceAccount(c.Email)
	}
	return User(c.Email)
}

// IDToken returns a new ID token about the principal for one audience, good for AccessTokenAge.
func (m *IAM) IDToken(p Principal, audience string) (string, error) {
	return m.IDTokenFor(p, audience, true)
}

// IDTokenFor is IDToken, without the e-mail address unless it is wanted. Without one, only a service account can be
// known again.
func (m *IAM) IDTokenFor(p Principal, audience string, email bool) (string, error) {
	if p == Anonymous {
		return "", fault.New(fault.Unauthenticated, "Nobody is signed in.")
	}
	if !m.usable(p, "") {
		return "", accountGone(p)
	}
	now := m.now()
	c := Claims{
		Claims: jwt.Claims{
			Issuer:   Issuer,
			Subject:  m.SubjectOf(p),
			Audience: jwt.Audience{audience},
			IssuedAt: jwt.NewNumericDate(now),
			Expiry:   jwt.NewNumericDate(now.Add(AccessTokenAge)),
		},
		AuthorizedParty: audience, Email: p.Email(), EmailVerified: true,
	}
	if !p.IsUser() {
		c.AuthorizedParty = c.Subject
		if !email {
			c.Email, c.EmailVerified = "", false
		}
	}
	return jwt.Signed(m.signing.Load().signer).Claims(c).Serialize()
}

// CheckIDToken verifies an ID token for one of the audiences, beside what VerifyIDToken asks. gcloud's client id is an
// audience of people only: a service account's token names whom it is for. It fails with Unauthenticated.
func (m *IAM) CheckIDToken(raw string, audiences ...string) (Claims, error) {
	c, err := m.verifyIDToken(raw)
	if err != nil {
		return Claims{}, err
	}
	for _, a := range audiences {
		if c.Audience.Contains(a) && (a != GcloudClientID || c.Principal().IsUser()) {
			return *c, nil
		}
	}
	return Claims{}, Unauthenticated("")
}

// CheckServiceToken is CheckIDToken for a service of Cloud Run: a token may also be for any URL of one of its hosts,
// with a path or without ("receiving service's URL or a configured custom audience"; Cloud Scheduler, Cloud Tasks and
// Eventarc name the whole URL that they call). A query is no part of an audience.
func (m *IAM) CheckServiceToken(raw string, hosts, audiences []string) (Claims, error) {
	c, err := m.CheckIDToken(raw, audiences...)
	if err == nil {
		return c, nil
	}
	if c, err = m.VerifyIDToken(raw); err != nil {
		return Claims{}, err
	}
	for _, a := range c.Audience {
		if u, err := url.Parse(a); err == nil && isURLOf(u, hosts) {
			return c, nil
		}
	}
	return Claims{}, Unauthenticated("")
}

func isURLOf(u *url.URL, hosts []string) bool {
	return u.Scheme == "https" && u.User == nil && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" &&
		(u.Port() == "" || u.Port() == "443") &&
		slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, u.Hostname()) })
}

// VerifyIDToken verifies signature, issuer, time and account of an ID token, for whatever audience: who acts on it
// checks that first, with CheckIDToken. It fails with Unauthenticated. A token that was verified before costs a map
// look-up.
func (m *IAM) VerifyIDToken(raw string) (Claims, error) {
	c, err := m.verifyIDToken(raw)
	if err != nil {
		return Claims{}, err
	}
	return *c, nil
}

func (m *IAM) verifyIDToken(raw string) (*Claims, error) {
	c := m.verified.get(raw)
	if c == nil {
		tok, ok := parseJWT(raw)
		if !ok || tok.kid == "" {
			return nil, Unauthenticated("")
		}
		c = &Claims{}
		if err := tok.Claims(m.KeySet(), c); err != nil {
			return nil, Unauthenticated("")
		}
		if c.Email == "" {
			c.Email = m.emailOf(c.Subject)
		}
		if c.Issuer != Issuer || c.Expiry == nil || c.IssuedAt == nil || c.Email == "" {
			return nil, Unauthenticated("")
		}
		m.verified.put(raw, c)
	}
	now := m.now().Unix()
	if now >= int64(*c.Expiry) || now < int64(*c.IssuedAt) || !m.usable(c.Principal(), c.Subject) {
		return nil, Unauthenticated("")
	}
	return c, nil
}
